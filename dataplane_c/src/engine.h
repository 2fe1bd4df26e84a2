/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's parts, and what its halves (receive, transmit) and its outside (engine.c) share. All memory
 * is one block, taken when the engine is made.
 */
#ifndef ACCORD_ENGINE_H
#define ACCORD_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"
#include "event.h"
#include "remembered.h"
#include "slab.h"
#include "timer.h"
#include "transaction.h"

enum engine_constant {
	ENGINE_MAX_PROTOCOLS = 256,
	ENGINE_OUTPUT_BATCH = 256,
	ENGINE_SCRATCH_BYTES = 4 * ACCORD_MAX_MESSAGE_BYTES, /* descriptors of one batch of events */
	ENGINE_MAX_TRANSACTIONS = 1 << 20,
	ENGINE_MAX_BUFFERS = 1 << 20,
	ENGINE_MAX_EVENTS = 1 << 24,
	/* A packet's chunks may each make an event; besides them it may open, skip, complete, arrive, fail. */
	ENGINE_EVENTS_PER_PACKET = 16,
};

struct accord_engine {
	struct accord_engine_config config;
	uint64_t bytes;
	uint64_t now; /* the latest that was given */
	uint64_t counters[ACCORD_REASON_LIMIT];
	uint32_t protocols[ENGINE_MAX_PROTOCOLS]; /* ascending */
	uint32_t protocol_count;
	struct transaction_table table;
	struct slab slab;
	struct timer timer;
	struct event_queue events;
	struct remembered remembered;
	uint8_t *scratch;
	/* Pure acknowledgements, from accord_engine_output to the next call. */
	uint8_t acknowledgements[ENGINE_OUTPUT_BATCH][ACCORD_HEADER_BYTES];
};

/* engine.c */
static inline void engine_count(struct accord_engine *engine, uint32_t reason)
{
	engine->counters[reason]++;
}
static inline void engine_see(struct accord_engine *engine, uint64_t now)
{
	if (now > engine->now)
		engine->now = now;
}
bool engine_supports(const struct accord_engine *engine, uint8_t node, uint32_t protocol);
/* A new event, whose other fields are zero. NULL: no room. Made in its place: one that is made elsewhere, field by
 * field, and copied at once stalls the processor. */
struct event *engine_tell(struct accord_engine *engine, struct transaction *transaction, enum accord_event_kind kind,
                          uint8_t step, uint32_t reason);
/* FAILED goes out, buffers come back. False: no room for the event, nothing was done. */
bool engine_fail(struct accord_engine *engine, struct transaction *transaction, uint32_t reason);
/* Take everything of a transaction back, its events included, and free its slot. */
void engine_forget(struct accord_engine *engine, struct transaction *transaction);
/* With no slot free, or none for who is not proven, what has lingered for longest gives way to a negotiation that could
 * begin. */
void engine_make_room(struct accord_engine *engine, enum role role);

/* transmit.c: when does this transaction next have something to do? */
uint64_t transmit_deadline(const struct accord_engine *engine, const struct transaction *transaction);
void transmit_schedule(struct accord_engine *engine, struct transaction *transaction);

#endif /* ACCORD_ENGINE_H */
