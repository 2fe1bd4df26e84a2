// SPDX-License-Identifier: Apache-2.0
#include "descriptor.h"

#include "packet.h"

static uint32_t check_children(const uint8_t *children, uint32_t count, uint8_t node)
{
	for (uint32_t i = 0; i < count; i++) {
		if (children[i] >= ACCORD_MAX_NODES || children[i] == node)
			return ACCORD_REASON_BAD_DESCRIPTOR;
		if (i && children[i] <= children[i - 1])
			return ACCORD_REASON_NOT_CANONICAL;
	}
	return ACCORD_REASON_OK;
}

static uint32_t check_tlvs(const uint8_t *tlvs, uint32_t length)
{
	int32_t last_type = -1;
	uint32_t at = 0;

	while (at < length) {
		uint16_t type, value_length;

		if (length - at < sizeof(struct accord_tlv))
			return ACCORD_REASON_BAD_DESCRIPTOR;
		type = load16(tlvs + at);
		value_length = load16(tlvs + at + 2);
		at += sizeof(struct accord_tlv);
		if (length - at < value_length)
			return ACCORD_REASON_BAD_DESCRIPTOR;
		at += value_length;
		if (type <= last_type)
			return ACCORD_REASON_NOT_CANONICAL;
		last_type = type;
	}
	return ACCORD_REASON_OK;
}

uint32_t descriptor_check(const uint8_t *prefix, uint32_t length, uint8_t node)
{
	uint32_t children, tlv_length, reason;

	if (length < sizeof(struct accord_descriptor))
		return ACCORD_REASON_BAD_DESCRIPTOR;
	children = prefix[0];
	tlv_length = load16(prefix + 2);
	if (children >= ACCORD_MAX_NODES || tlv_length > ACCORD_MAX_TLV_BYTES)
		return ACCORD_REASON_BAD_DESCRIPTOR;
	if (length - sizeof(struct accord_descriptor) < children + tlv_length)
		return ACCORD_REASON_BAD_DESCRIPTOR;
	if (prefix[1] & ~ACCORD_NODE_FLAGS_KNOWN)
		return ACCORD_REASON_NOT_CANONICAL;

	prefix += sizeof(struct accord_descriptor);
	reason = check_children(prefix, children, node);
	return reason ? reason : check_tlvs(prefix + children, tlv_length);
}

const uint8_t *descriptor_find(const uint8_t *prefix, uint16_t type, uint16_t *length)
{
	uint32_t left = load16(prefix + 2);
	const uint8_t *at = prefix + sizeof(struct accord_descriptor) + prefix[0];

	while (left) {
		uint16_t value_length = load16(at + 2);
		uint32_t whole = (uint32_t)sizeof(struct accord_tlv) + value_length;

		if (load16(at) == type) {
			*length = value_length;
			return at + sizeof(struct accord_tlv);
		}
		at += whole;
		left -= whole;
	}
	return NULL;
}
