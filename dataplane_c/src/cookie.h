/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cookies, made and checked (docs/PROTOCOL.md, section 21): what a responder has the initiator repeat, so that it need
 * keep nothing of who may be a forged address. Keys and the present time slot are the ring's.
 */
#ifndef ACCORD_COOKIE_C_H
#define ACCORD_COOKIE_C_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"
#include "packet.h"

enum cookie_verdict {
	COOKIE_GOOD,
	COOKIE_STALE,  /* of a key or a slot that is not known any more, or not yet: may have been good */
	COOKIE_FORGED, /* not made for this packet on this path, with this key */
};

enum {
	COOKIE_CHALLENGE_BYTES = ACCORD_HEADER_BYTES + ACCORD_COOKIE_BYTES,
};

static inline bool cookie_ring_usable(const struct accord_cookie_ring *ring)
{
	return ring->current < ACCORD_COOKIE_KEYS && ring->keys[ring->current].used;
}

/* Write the 16 bytes for this first packet of a proposal, which came by this path; the ring is usable. */
void cookie_make(const struct accord_cookie_ring *ring, const struct accord_path *path, const struct packet *packet,
                 uint8_t *cookie);
/* The packet's own, packet->cookie. */
enum cookie_verdict cookie_check(const struct accord_cookie_ring *ring, const struct accord_path *path,
                                 const struct packet *packet);
/* The same for TLV_REPEAT, of a kind and bound to what is said (struct accord_cookie). */
void cookie_token(const struct accord_cookie_ring *ring, const struct accord_path *path, const uint8_t *transaction,
                  enum accord_cookie_kind kind, uint32_t bound, uint8_t *cookie);
enum cookie_verdict cookie_token_check(const struct accord_cookie_ring *ring, const struct accord_path *path,
                                       const uint8_t *transaction, const uint8_t *cookie);
/* ACCORD_SLOT_SEED bytes that only who has the key can know, others for each cookie. False: there is no such key. */
bool cookie_seed(const struct accord_cookie_ring *ring, const struct accord_path *path, const uint8_t *transaction,
                 const uint8_t *cookie, uint8_t *seed);
/* The packet that asks for the proposal again, COOKIE_CHALLENGE_BYTES. */
void cookie_challenge(const struct accord_cookie_ring *ring, const struct accord_path *path,
                      const struct packet *packet, uint8_t *challenge);

#endif /* ACCORD_COOKIE_C_H */
