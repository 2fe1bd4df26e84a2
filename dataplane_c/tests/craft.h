/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets by hand: byte after byte from the figures of the specification, sharing no code with the
 * engine, so that the two check each other.
 */
#ifndef ACCORD_TEST_CRAFT_H
#define ACCORD_TEST_CRAFT_H

#include <stdint.h>
#include <string.h>

#include "core.h"

struct craft {
	uint8_t bytes[16384];
	uint32_t length;
};

static inline void craft_put(struct craft *craft, uint64_t value, int bytes)
{
	while (bytes-- > 0)
		craft->bytes[craft->length++] = (uint8_t)(value >> 8 * bytes);
}

/* offset: of the TSN from the first of the direction that step's parity says. */
static inline void craft_header(struct craft *craft, const uint8_t *id, uint8_t step, uint16_t flags, uint32_t offset)
{
	const uint8_t *first = id + (step % 2 ? 4 : 0);
	uint32_t tsn = ((uint32_t)first[0] << 24 | (uint32_t)first[1] << 16 | (uint32_t)first[2] << 8 | first[3]) + offset;

	craft->length = 0;
	craft_put(craft, 4, 1);
	craft_put(craft, step, 1);
	craft_put(craft, flags | (step % 2 ? 0u : 1u), 2);
	craft_put(craft, 0x41435244, 4);
	memcpy(craft->bytes + 8, id, 12);
	craft->length = 20;
	craft_put(craft, tsn, 4);
	craft_put(craft, 0, 8);
}

static inline void craft_acknowledge(struct craft *craft, uint32_t tsn, uint16_t count)
{
	uint32_t length = craft->length;

	craft->bytes[3] |= 2;
	craft->length = 24;
	craft_put(craft, tsn, 4);
	craft_put(craft, count, 2);
	craft->length = length;
}

static inline void craft_chunk(struct craft *craft, uint8_t node, uint8_t flags, uint32_t protocol, const void *data,
                               uint32_t length)
{
	craft_put(craft, node, 1);
	craft_put(craft, flags, 1);
	craft_put(craft, length, 2);
	craft_put(craft, protocol, 4);
	memcpy(craft->bytes + craft->length, data, length);
	craft->length += length;
}

/* RFC 1071 as its section 4.1 has it. */
static inline void craft_seal(struct craft *craft)
{
	uint32_t sum = 0;

	craft->bytes[30] = craft->bytes[31] = 0;
	for (uint32_t i = 0; i < craft->length; i++)
		sum += i % 2 ? craft->bytes[i] : (uint32_t)craft->bytes[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	craft->bytes[30] = (uint8_t)(~sum >> 8);
	craft->bytes[31] = (uint8_t)~sum;
}

/* Behind its length, as in a flight; sealed. Returns the end of what is written. */
static inline uint8_t *craft_flight(const struct craft *craft, uint8_t *flight)
{
	flight[0] = (uint8_t)(craft->length >> 8);
	flight[1] = (uint8_t)craft->length;
	memcpy(flight + 2, craft->bytes, craft->length);
	return flight + 2 + craft->length;
}

#endif /* ACCORD_TEST_CRAFT_H */
