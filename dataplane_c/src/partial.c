// SPDX-License-Identifier: Apache-2.0
#include "partial.h"

#include <string.h>

#include "path.h"

void partials_init(struct partials *partials, struct partial *memory, uint32_t count)
{
	*partials = (struct partials){.places = memory, .count = count};
	/* All of it, so that a flood does not make the process larger. */
	if (count)
		memset(memory, 0, count * sizeof(*memory));
}

struct partial *partials_find(const struct partials *partials, const uint8_t *id, const struct accord_path *path)
{
	for (uint32_t i = 0; partials->taken && i < partials->count; i++) {
		struct partial *partial = &partials->places[i];

		if (partial->expires && !memcmp(partial->id, id, sizeof(partial->id)) && path_same_remote(&partial->path, path))
			return partial;
	}
	return NULL;
}

struct partial *partials_oldest(const struct partials *partials)
{
	for (uint32_t i = 0; partials->taken && i < partials->count; i++) {
		struct partial *partial = &partials->places[(partials->next + i) % partials->count];

		if (partial->expires)
			return partial;
	}
	return NULL;
}

struct partial *partials_next(struct partials *partials)
{
	struct partial *partial = &partials->places[partials->next];

	partials->next = (partials->next + 1) % partials->count;
	return partial;
}

void partials_take(struct partials *partials, struct partial *partial, uint64_t now, const uint8_t *id,
                   const struct accord_path *path)
{
	partial->expires = now + PARTIAL_LIFE_US;
	partial->path = *path;
	memcpy(partial->id, id, sizeof(partial->id));
	partial->packets = partial->here = 0;
	partials->taken++;
}

void partials_release(struct partials *partials, struct partial *partial)
{
	partial->expires = 0;
	partials->taken--;
}

uint32_t partial_add(struct partial *partial, const struct packet *packet, const uint8_t *bytes)
{
	bool end = packet->flags & ACCORD_FLAG_END;
	uint32_t length;

	if (packet->offset >= ACCORD_FLIGHT_PACKETS)
		return ACCORD_REASON_MESSAGE_TOO_LONG;
	if (partial->here & 1u << packet->offset)
		return ACCORD_REASON_DUPLICATE;
	if (partial->packets && (end || packet->offset >= partial->packets))
		return ACCORD_REASON_CONTRADICTION;
	if (end && partial->here >> packet->offset)
		return ACCORD_REASON_CONTRADICTION;
	length = flight_bare(packet, bytes, partial->bytes[packet->offset]);
	if (!length)
		return ACCORD_REASON_MESSAGE_TOO_LONG;
	partial->lengths[packet->offset] = (uint16_t)length;
	partial->here |= (uint8_t)(1u << packet->offset);
	if (end)
		partial->packets = (uint8_t)(packet->offset + 1);
	return ACCORD_REASON_OK;
}

bool partial_whole(const struct partial *partial)
{
	return partial->packets && partial->here == (1u << partial->packets) - 1;
}

void partial_join(const struct partial *partial, struct flight *flight)
{
	flight->packets = flight->length = 0;
	for (uint32_t i = 0; i < partial->packets; i++)
		flight_add(flight, partial->bytes[i], partial->lengths[i]);
}
