/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proposals of a few packets, from strangers, until they are whole (docs/PROTOCOL.md, section 22). Fixed places in a
 * ring, taken at start; the oldest gives way to who comes next, and is asked for a cookie, as who is not whole in time.
 */
#ifndef ACCORD_PARTIAL_H
#define ACCORD_PARTIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"
#include "flight.h"
#include "packet.h"

enum partial_constant {
	/* The packets of a flight come together. Not so long that the initiator would first send them again by itself:
	 * its probe time-out is 333 ms where nothing is known of the path. */
	PARTIAL_LIFE_US = 200000,
};

struct partial {
	uint64_t expires; /* 0: the place is free */
	struct accord_path path;
	uint8_t id[ACCORD_TRANSACTION_BYTES];
	uint8_t packets; /* in all; 0: not known yet */
	uint8_t here;    /* bits, by TSN offset */
	uint16_t lengths[ACCORD_FLIGHT_PACKETS];
	uint8_t bytes[ACCORD_FLIGHT_PACKETS][ACCORD_MIN_MTU_PACKET]; /* bare */
};

struct partials {
	struct partial *places;
	uint32_t count, taken;
	uint32_t next; /* to be given away, or the first after it that is taken: the oldest */
};

void partials_init(struct partials *partials, struct partial *memory, uint32_t count);
struct partial *partials_find(const struct partials *partials, const uint8_t *id, const struct accord_path *path);
/* The oldest; NULL: there is none. */
struct partial *partials_oldest(const struct partials *partials);
/* The place for the next one. When it is not free (expires), whoever has it is to be released first. */
struct partial *partials_next(struct partials *partials);
/* It is free: take it. */
void partials_take(struct partials *partials, struct partial *partial, uint64_t now, const uint8_t *id,
                   const struct accord_path *path);
void partials_release(struct partials *partials, struct partial *partial);

/* Returns OK, DUPLICATE when that TSN is here, or MESSAGE_TOO_LONG or CONTRADICTION: it will never be whole. */
uint32_t partial_add(struct partial *partial, const struct packet *packet, const uint8_t *bytes);
bool partial_whole(const struct partial *partial);
void partial_join(const struct partial *partial, struct flight *flight);

#endif /* ACCORD_PARTIAL_H */
