/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A short message, whole, as its packets: in order, each behind its length (u16). What changes from one transmission to
 * the next is not in them: no acknowledgement, no cookie. So the same message is the same bytes, however often it
 * comes.
 */
#ifndef ACCORD_FLIGHT_H
#define ACCORD_FLIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"
#include "packet.h"

struct flight {
	uint32_t packets, length;
	uint8_t bytes[ACCORD_FLIGHT_BYTES];
};

/* Write a packet without what changes, ACCORD_MIN_MTU_PACKET bytes at most. Returns its length; 0: it is longer. */
uint32_t flight_bare(const struct packet *packet, const uint8_t *bytes, uint8_t *bare);
/* Put a bare packet behind the others. False: there is no room. */
bool flight_add(struct flight *flight, const uint8_t *bare, uint32_t length);
/* The packet at a place, which goes on to the next one; NULL: there is none, or what is there is cut off. */
const uint8_t *flight_next(const uint8_t **at, const uint8_t *end, uint32_t *length);

#endif /* ACCORD_FLIGHT_H */
