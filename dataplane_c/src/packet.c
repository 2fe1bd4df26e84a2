// SPDX-License-Identifier: Apache-2.0
#include "packet.h"

#include <string.h>

#include "hash.h"

enum header_offset {
	AT_VERSION = offsetof(struct accord_header, version),
	AT_STEP = offsetof(struct accord_header, step),
	AT_FLAGS = offsetof(struct accord_header, flags),
	AT_MAGIC = offsetof(struct accord_header, magic),
	AT_TRANSACTION = offsetof(struct accord_header, transaction),
	AT_TSN = offsetof(struct accord_header, tsn),
	AT_ACK_TSN = offsetof(struct accord_header, ack_tsn),
	AT_ACK_COUNT = offsetof(struct accord_header, ack_count),
	AT_CHECKSUM = offsetof(struct accord_header, checksum),
};

uint16_t packet_sum(const uint8_t *bytes, uint32_t length)
{
	uint64_t sum = 0;
	uint32_t i = 0;

	/* RFC 1071 section 2 (C): any word size will do, the carries are folded in at the end. */
	for (; i + 4 <= length; i += 4)
		sum += load32(bytes + i);
	if (i + 2 <= length) {
		sum += load16(bytes + i);
		i += 2;
	}
	if (i < length)
		sum += (uint64_t)bytes[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static uint32_t parse_chunks(struct packet *packet, const uint8_t *bytes, uint32_t length)
{
	uint64_t nodes_seen = 0;
	bool padding_seen = false;
	uint32_t at = 0;

	packet->chunk_count = 0;
	while (at < length) {
		struct chunk chunk;

		if (length - at < ACCORD_CHUNK_HEADER_BYTES)
			return ACCORD_REASON_BAD_CHUNK;
		chunk.node = bytes[at];
		chunk.flags = bytes[at + 1] & ACCORD_CHUNK_FLAGS_KNOWN;
		chunk.length = load16(bytes + at + 2);
		chunk.protocol = load32(bytes + at + 4);
		chunk.data = bytes + at + ACCORD_CHUNK_HEADER_BYTES;
		at += ACCORD_CHUNK_HEADER_BYTES;
		if (length - at < chunk.length)
			return ACCORD_REASON_BAD_CHUNK;
		at += chunk.length;

		if ((chunk.node == ACCORD_NODE_PADDING) != (chunk.protocol == ACCORD_PROTOCOL_PADDING))
			return ACCORD_REASON_BAD_CHUNK;
		if (chunk.node == ACCORD_NODE_PADDING) {
			if (padding_seen)
				return ACCORD_REASON_BAD_CHUNK;
			padding_seen = true;
		} else {
			/* An empty chunk carries nothing, so a sender has no cause to make one. */
			if (chunk.node >= ACCORD_MAX_NODES || chunk.length == 0)
				return ACCORD_REASON_BAD_CHUNK;
			if (nodes_seen & UINT64_C(1) << chunk.node)
				return ACCORD_REASON_BAD_CHUNK;
			nodes_seen |= UINT64_C(1) << chunk.node;
		}
		packet->chunks[packet->chunk_count++] = chunk;
	}
	return ACCORD_REASON_OK;
}

uint32_t packet_split(const uint8_t *datagram, uint32_t length)
{
	if (length > ACCORD_MIN_MTU_PACKET && load16(datagram + AT_FLAGS) & ACCORD_FLAG_MORE)
		return ACCORD_MIN_MTU_PACKET;
	return length;
}

uint32_t packet_parse(struct packet *packet, const uint8_t *bytes, uint32_t length)
{
	uint32_t offset, reason;
	uint32_t seed;
	bool pure;

	if (length < ACCORD_HEADER_BYTES)
		return ACCORD_REASON_SHORT_PACKET;
	if (length > ACCORD_MAX_PACKET)
		return ACCORD_REASON_LONG_PACKET;
	if (bytes[AT_VERSION] != ACCORD_VERSION)
		return ACCORD_REASON_BAD_VERSION;
	if (load32(bytes + AT_MAGIC) != ACCORD_MAGIC)
		return ACCORD_REASON_BAD_MAGIC;
	if (packet_sum(bytes, length) != 0xffff)
		return ACCORD_REASON_BAD_CHECKSUM;

	pure = length == ACCORD_HEADER_BYTES;
	packet->length = length;
	packet->follows = false;
	packet->transaction = bytes + AT_TRANSACTION;
	packet->step = bytes[AT_STEP];
	packet->flags = load16(bytes + AT_FLAGS) & ACCORD_FLAGS_KNOWN;
	packet->sender = packet->flags & ACCORD_FLAG_INITIATOR ? ROLE_INITIATOR : ROLE_RESPONDER;
	packet->ack_tsn = load32(bytes + AT_ACK_TSN);
	packet->ack_count = load16(bytes + AT_ACK_COUNT);
	if (packet->flags & ACCORD_FLAG_ACK) {
		if (packet->ack_count == 0)
			return ACCORD_REASON_BAD_FLAGS;
	} else if (packet->ack_tsn != 0 || packet->ack_count != 0 || pure) {
		return ACCORD_REASON_BAD_FLAGS;
	}
	if (pure && packet->flags & ACCORD_FLAG_END)
		return ACCORD_REASON_BAD_FLAGS;
	if (packet->flags & ACCORD_FLAG_MORE && length != ACCORD_MIN_MTU_PACKET)
		return ACCORD_REASON_BAD_FLAGS;
	if (packet->step >= ACCORD_MAX_STEPS || packet->step % 2 != (packet->sender == ROLE_RESPONDER))
		return ACCORD_REASON_BAD_STEP;

	/* A pure acknowledgement names the next TSN, which may be the one after the last there is. */
	offset = load32(bytes + AT_TSN) - packet_first_tsn(packet->transaction, packet->sender);
	if (offset > ACCORD_MAX_PACKETS || (offset == ACCORD_MAX_PACKETS && !pure))
		return ACCORD_REASON_BAD_TSN;
	packet->offset = (uint16_t)offset;

	reason = parse_chunks(packet, bytes + ACCORD_HEADER_BYTES, length - ACCORD_HEADER_BYTES);
	if (reason)
		return reason;
	seed = (uint32_t)packet->step << 8 | (packet->flags & ACCORD_FLAG_END);
	packet->fingerprint = (uint32_t)hash_bytes(seed, bytes + ACCORD_HEADER_BYTES, length - ACCORD_HEADER_BYTES);
	return ACCORD_REASON_OK;
}

void packet_write_header(uint8_t *bytes, const struct packet_fields *fields)
{
	uint16_t flags = fields->flags;

	if (fields->sender == ROLE_INITIATOR)
		flags |= ACCORD_FLAG_INITIATOR;
	bytes[AT_VERSION] = ACCORD_VERSION;
	bytes[AT_STEP] = fields->step;
	store16(bytes + AT_FLAGS, flags);
	store32(bytes + AT_MAGIC, ACCORD_MAGIC);
	memcpy(bytes + AT_TRANSACTION, fields->transaction, ACCORD_TRANSACTION_BYTES);
	store32(bytes + AT_TSN, packet_first_tsn(fields->transaction, fields->sender) + fields->offset);
	store32(bytes + AT_ACK_TSN, fields->ack_tsn);
	store16(bytes + AT_ACK_COUNT, fields->ack_count);
	store16(bytes + AT_CHECKSUM, 0);
}

void packet_seal(uint8_t *bytes, uint32_t length, uint32_t ack_tsn, uint16_t ack_count)
{
	uint16_t flags = load16(bytes + AT_FLAGS) & (uint16_t) ~(ACCORD_FLAG_ACK | ACCORD_FLAG_MORE);

	if (ack_count)
		flags |= ACCORD_FLAG_ACK;
	store16(bytes + AT_FLAGS, flags);
	store32(bytes + AT_ACK_TSN, ack_count ? ack_tsn : 0);
	store16(bytes + AT_ACK_COUNT, ack_count);
	store16(bytes + AT_CHECKSUM, 0);
	store16(bytes + AT_CHECKSUM, (uint16_t)~packet_sum(bytes, length));
}

void packet_join(uint8_t *bytes)
{
	store16(bytes + AT_FLAGS, load16(bytes + AT_FLAGS) | ACCORD_FLAG_MORE);
	store16(bytes + AT_CHECKSUM, 0);
	store16(bytes + AT_CHECKSUM, (uint16_t)~packet_sum(bytes, ACCORD_MIN_MTU_PACKET));
}

void packet_write_chunk(uint8_t *bytes, uint8_t node, uint8_t flags, uint16_t length, uint32_t protocol)
{
	bytes[0] = node;
	bytes[1] = flags;
	store16(bytes + 2, length);
	store32(bytes + 4, protocol);
}
