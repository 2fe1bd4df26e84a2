/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is kept of an answer without memory until its commit: what the answer can be made again from, a seed above all,
 * and what it answered. Fixed slots, taken at start. A live one is never evicted: when none is free, nobody gets one.
 *
 *   FREE --keep--> TAKEN --empty (the commit is verified), fail for the third time, expire--> FREE
 *
 * A slot serves one commit. Whoever replays it finds none (docs/PROTOCOL.md, section 22).
 */
#ifndef ACCORD_SLOTS_H
#define ACCORD_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"

enum slots_constant {
	SLOTS_LIFE_US = ACCORD_MAX_LIFETIME_MS * 1000,
	SLOTS_LATE_US = 250000, /* by which a secret may outlive its slot on a host that has nothing else to do */
	/* Commits that bear the right T(1) and turn out to be wrong: who can make one has seen the answer. */
	SLOTS_TRIES = 3,
	SLOTS_LIMIT = 1 << 20,
};

#define SLOT_NONE UINT32_MAX

struct slot {
	uint32_t handle; /* generation * size + place; never 0 */
	uint32_t place;
	uint32_t next; /* in its hash chain, or among the free */
	uint32_t sooner, later;
	bool taken;
	uint8_t tries;
	uint8_t packets, answer_packets; /* of the proposal, and of what answers it */
	uint16_t kept_length;
	uint32_t length;        /* of the proposal */
	uint32_t answer_length; /* of the answer's packets */
	uint32_t credit;        /* bytes of the proposal that came again since it was answered */
	uint64_t expires;
	struct accord_path path;
	uint8_t id[ACCORD_TRANSACTION_BYTES];
	uint8_t seed[ACCORD_SLOT_SEED];
	uint8_t transcript[ACCORD_SLOT_TRANSCRIPT];
	uint8_t kept[ACCORD_SLOT_KEPT]; /* what was random and cannot be had from the seed again */
	uint8_t proposal[ACCORD_FLIGHT_BYTES];
};

struct slots {
	struct slot *slots;
	uint32_t *heads; /* hash chains */
	uint32_t count, taken;
	uint32_t mask;        /* of places and of chains: a power of two, minus one */
	uint32_t free;        /* a stack */
	uint32_t first, last; /* in the order in which they expire */
	uint64_t seed;
};

/* Clears the slots: their memory is there from now on. */
void slots_init(struct slots *slots, struct slot *memory, uint32_t *heads, uint32_t count, uint64_t seed);
/* Empty what has expired by now. */
void slots_expire(struct slots *slots, uint64_t now);
/* When that next has something to do, or a little later: many expire soon after each other. UINT64_MAX: never. */
uint64_t slots_deadline(const struct slots *slots);
/* The slot of this transaction and remote address (NULL: any); NULL: there is none. */
struct slot *slots_find(const struct slots *slots, const uint8_t *id, const struct accord_path *path);
/* NULL: stale. */
struct slot *slots_of(const struct slots *slots, uint32_t handle);
/* Takes a free slot; NULL: there is none. The caller fills in seed, transcript and proposal. */
struct slot *slots_take(struct slots *slots, uint64_t now, const uint8_t *id, const struct accord_path *path);
/* Copies of the slots, whole, for another process of the same build; those that expire first come first. Returns how
 * many were written. */
uint32_t slots_image(const struct slots *slots, uint8_t *image, uint32_t limit);
/* One of these copies, in a slot of this table; false: it has expired, is there already, or none is free. */
bool slots_restore(struct slots *slots, uint64_t now, const uint8_t *image);
/* Its secrets are erased. */
void slots_empty(struct slots *slots, struct slot *slot);

#endif /* ACCORD_SLOTS_H */
