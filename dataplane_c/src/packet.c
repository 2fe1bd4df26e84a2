// SPDX-License-Identifier: Apache-2.0
#include "packet.h"

#include <string.h>

#include "checksum.h"

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

static uint32_t parse_chunks(struct packet *packet, const uint8_t *bytes, uint32_t length)
{
	uint64_t nodes_seen = 0;
	bool padding_seen = false;
	uint32_t padding = 0, whole = length;
	struct chunk *chunk = packet->chunks;

	while (length) {
		uint32_t protocol;
		uint16_t data_length;
		uint8_t node;

		if (length < ACCORD_CHUNK_HEADER_BYTES)
			return ACCORD_REASON_BAD_CHUNK;
		node = bytes[0];
		data_length = load16(bytes + 2);
		protocol = load32(bytes + 4);
		length -= ACCORD_CHUNK_HEADER_BYTES;
		if (length < data_length)
			return ACCORD_REASON_BAD_CHUNK;
		length -= data_length;
		if (node < ACCORD_MAX_NODES) {
			/* An empty chunk carries nothing, so a sender has no cause to make one. */
			if (protocol == ACCORD_PROTOCOL_PADDING || data_length == 0 || nodes_seen >> node & 1)
				return ACCORD_REASON_BAD_CHUNK;
			nodes_seen |= UINT64_C(1) << node;
		} else {
			if (node != ACCORD_NODE_PADDING || protocol != ACCORD_PROTOCOL_PADDING || padding_seen)
				return ACCORD_REASON_BAD_CHUNK;
			padding_seen = true;
			padding = data_length;
		}
		/* Of each node one, and one of padding: there is room. */
		chunk->node = node;
		chunk->flags = bytes[1] & ACCORD_CHUNK_FLAGS_KNOWN;
		chunk->length = data_length;
		chunk->protocol = protocol;
		bytes += ACCORD_CHUNK_HEADER_BYTES;
		chunk->data = bytes;
		bytes += data_length;
		chunk++;
	}
	packet->chunk_count = (uint32_t)(chunk - packet->chunks);
	packet->bytes = whole - packet->chunk_count * ACCORD_CHUNK_HEADER_BYTES - padding;
	return ACCORD_REASON_OK;
}

/* A cookie is a responder's whole challenge, or in the first packet of a proposal. */
static uint32_t check_cookie(const struct packet *packet, bool pure)
{
	bool challenge = packet->sender == ROLE_RESPONDER;

	if (pure != challenge || packet->flags & ACCORD_FLAG_MORE || (challenge && packet->flags & ACCORD_FLAG_ACK))
		return ACCORD_REASON_BAD_FLAGS;
	if (packet->step != (challenge ? ACCORD_STEP_ANSWER : ACCORD_STEP_PROPOSAL))
		return ACCORD_REASON_BAD_STEP;
	return ACCORD_REASON_OK;
}

uint32_t packet_parse(struct packet *packet, const uint8_t *bytes, uint32_t length)
{
	uint32_t offset, reason, header = ACCORD_HEADER_BYTES;
	struct checksum chunks;
	uint64_t front;
	uint16_t flags;
	bool pure;

	if (length < ACCORD_HEADER_BYTES)
		return ACCORD_REASON_SHORT_PACKET;
	if (length > ACCORD_MAX_PACKET)
		return ACCORD_REASON_LONG_PACKET;
	if (bytes[AT_VERSION] != ACCORD_VERSION)
		return ACCORD_REASON_BAD_VERSION;
	if (load32(bytes + AT_MAGIC) != ACCORD_MAGIC)
		return ACCORD_REASON_BAD_MAGIC;
	front = checksum_header(bytes, ACCORD_HEADER_BYTES);
	flags = load16(bytes + AT_FLAGS) & ACCORD_FLAGS_KNOWN;
	packet->cookie = NULL;
	if (flags & ACCORD_FLAG_COOKIE) {
		header += ACCORD_COOKIE_BYTES;
		if (length < header)
			return ACCORD_REASON_SHORT_PACKET;
		packet->cookie = bytes + ACCORD_HEADER_BYTES;
		front += checksum_header(packet->cookie, ACCORD_COOKIE_BYTES);
	}
	chunks = checksum_scan(bytes + header, length - header);
	if (!checksum_holds(front + chunks.sum)) /* not all zeros: there is the magic cookie */
		return ACCORD_REASON_BAD_CHECKSUM;

	pure = length == header;
	packet->sum = chunks.sum;
	packet->body = length - header;
	packet->length = length;
	packet->follows = false;
	packet->transaction = bytes + AT_TRANSACTION;
	packet->step = bytes[AT_STEP];
	packet->flags = flags;
	packet->sender = flags & ACCORD_FLAG_INITIATOR ? ROLE_INITIATOR : ROLE_RESPONDER;
	packet->ack_tsn = load32(bytes + AT_ACK_TSN);
	packet->ack_count = load16(bytes + AT_ACK_COUNT);
	if (flags & ACCORD_FLAG_ACK) {
		if (packet->ack_count == 0)
			return ACCORD_REASON_BAD_FLAGS;
	} else if (packet->ack_tsn != 0 || packet->ack_count != 0 || (pure && !packet->cookie)) {
		return ACCORD_REASON_BAD_FLAGS;
	}
	reason = packet->cookie ? check_cookie(packet, pure) : ACCORD_REASON_OK;
	if (reason)
		return reason;
	if (pure && flags & ACCORD_FLAG_END)
		return ACCORD_REASON_BAD_FLAGS;
	if (flags & ACCORD_FLAG_MORE && length != ACCORD_MIN_MTU_PACKET)
		return ACCORD_REASON_BAD_FLAGS;
	if (packet->step >= ACCORD_MAX_STEPS || packet->step % 2 != (packet->sender == ROLE_RESPONDER))
		return ACCORD_REASON_BAD_STEP;

	/* A pure acknowledgement names the next TSN, which may be the one after the last there is. */
	offset = load32(bytes + AT_TSN) - packet_first_tsn(packet->transaction, packet->sender);
	if (offset > ACCORD_MAX_PACKETS || (offset == ACCORD_MAX_PACKETS && !pure))
		return ACCORD_REASON_BAD_TSN;
	packet->offset = (uint16_t)offset;
	if (packet->cookie && offset)
		return ACCORD_REASON_BAD_TSN;

	reason = parse_chunks(packet, bytes + header, length - header);
	if (reason)
		return reason;
	packet->fingerprint = (uint32_t)chunks.fingerprint ^ ((uint32_t)packet->step << 8 | (flags & ACCORD_FLAG_END));
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
	store16(bytes + AT_CHECKSUM, (uint16_t)~checksum_fold(checksum_scan(bytes, length).sum));
}

void packet_join(uint8_t *bytes)
{
	store16(bytes + AT_FLAGS, load16(bytes + AT_FLAGS) | ACCORD_FLAG_MORE);
	store16(bytes + AT_CHECKSUM, 0);
	store16(bytes + AT_CHECKSUM, (uint16_t)~checksum_fold(checksum_scan(bytes, ACCORD_MIN_MTU_PACKET).sum));
}

uint32_t packet_put_cookie(uint8_t *bytes, uint32_t length, const uint8_t *cookie)
{
	uint16_t flags = load16(bytes + AT_FLAGS);

	if (!(flags & ACCORD_FLAG_COOKIE)) {
		memmove(bytes + ACCORD_HEADER_BYTES + ACCORD_COOKIE_BYTES, bytes + ACCORD_HEADER_BYTES,
		        length - ACCORD_HEADER_BYTES);
		store16(bytes + AT_FLAGS, flags | ACCORD_FLAG_COOKIE);
		length += ACCORD_COOKIE_BYTES;
	}
	memcpy(bytes + ACCORD_HEADER_BYTES, cookie, ACCORD_COOKIE_BYTES);
	return length;
}

void packet_write_chunk(uint8_t *bytes, uint8_t node, uint8_t flags, uint16_t length, uint32_t protocol)
{
	bytes[0] = node;
	bytes[1] = flags;
	store16(bytes + 2, length);
	store32(bytes + 4, protocol);
}
