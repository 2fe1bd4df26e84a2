/* SPDX-License-Identifier: Apache-2.0 */
/* One packet, as bytes and as a checked view of them; and TSN arithmetic. Touches no state. */
#ifndef ACCORD_PACKET_H
#define ACCORD_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checksum.h"
#include "core.h"

enum packet_constant {
	/* At most one chunk of each node, and one of padding. */
	PACKET_MAX_CHUNKS = ACCORD_MAX_NODES + 1,
};

enum role {
	ROLE_INITIATOR,
	ROLE_RESPONDER,
};

struct chunk {
	uint8_t node;
	uint8_t flags; /* enum accord_chunk_flag, the known ones */
	uint16_t length;
	uint32_t protocol;
	const uint8_t *data;
};

struct packet {
	const uint8_t *transaction;
	enum role sender;
	bool follows;   /* another packet in its datagram; set by whoever took that apart */
	uint16_t flags; /* enum accord_packet_flag, the known ones */
	uint8_t step;
	uint16_t offset; /* of its TSN from the first of its direction, < ACCORD_MAX_PACKETS if there are chunks */
	uint32_t ack_tsn;
	uint16_t ack_count;
	uint32_t length;       /* of the whole packet */
	uint32_t fingerprint;  /* of what a retransmission repeats: step, END and the chunks; not the ack */
	uint32_t chunk_count;  /* 0: a pure acknowledgement */
	uint32_t bytes;        /* of chunks' data, padding left out */
	const uint8_t *cookie; /* ACCORD_COOKIE_BYTES; NULL: there is none */
	uint32_t body;         /* bytes of chunks, their headers included */
	uint64_t sum;          /* of these bytes: see packet_bound */
	struct chunk chunks[PACKET_MAX_CHUNKS];
};

/* What a packet's header is built from. */
struct packet_fields {
	const uint8_t *transaction;
	enum role sender;
	uint16_t flags;
	uint8_t step;
	uint16_t offset;
	uint32_t ack_tsn;
	uint16_t ack_count;
};

static inline uint16_t load16(const uint8_t *from)
{
	return (uint16_t)(from[0] << 8 | from[1]);
}

static inline uint32_t load32(const uint8_t *from)
{
	return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static inline void store16(uint8_t *to, uint16_t value)
{
	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
}

static inline void store32(uint8_t *to, uint32_t value)
{
	store16(to, (uint16_t)(value >> 16));
	store16(to + 2, (uint16_t)value);
}

static inline enum role role_other(enum role role)
{
	return role == ROLE_INITIATOR ? ROLE_RESPONDER : ROLE_INITIATOR;
}

/* First TSN of a direction: bytes 0..3 (initiator) or 4..7 (responder) of the transaction ID. */
static inline uint32_t packet_first_tsn(const uint8_t *transaction, enum role sender)
{
	return load32(transaction + (sender == ROLE_INITIATOR ? 0 : 4));
}

/* Bytes of the first packet in a datagram. */
static inline uint32_t packet_split(const uint8_t *datagram, uint32_t length)
{
	if (length > ACCORD_MIN_MTU_PACKET && load16(datagram + offsetof(struct accord_header, flags)) & ACCORD_FLAG_MORE)
		return ACCORD_MIN_MTU_PACKET;
	return length;
}

/* One past its last chunk. */
static inline const struct chunk *packet_end(const struct packet *packet)
{
	return packet->chunks + packet->chunk_count;
}

/* What a cookie says of the chunks: struct accord_cookie. */
static inline uint32_t packet_bound(const struct packet *packet)
{
	return (uint32_t)checksum_fold(packet->sum) << 16 | packet->body;
}

/* Every check that needs nothing but the packet itself, cheap ones first. Returns enum accord_reason. */
uint32_t packet_parse(struct packet *packet, const uint8_t *bytes, uint32_t length);

/* Write the 32 bytes of a header, checksum zero. */
void packet_write_header(uint8_t *bytes, const struct packet_fields *fields);
/* Replace what changes from one transmission to the next, and make the checksum good. */
void packet_seal(uint8_t *bytes, uint32_t length, uint32_t ack_tsn, uint16_t ack_count);
/* Another packet follows a sealed one of ACCORD_MIN_MTU_PACKET bytes in its datagram. */
void packet_join(uint8_t *bytes);
/* Put a cookie behind the header of a packet of so many bytes, in front of its chunks or in the place of another one.
 * There is room. Returns the length after it. To be sealed again. */
uint32_t packet_put_cookie(uint8_t *bytes, uint32_t length, const uint8_t *cookie);
/* Write the 8 bytes of a chunk header. */
void packet_write_chunk(uint8_t *bytes, uint8_t node, uint8_t flags, uint16_t length, uint32_t protocol);

#endif /* ACCORD_PACKET_H */
