/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's parts, and what its halves (receive, transmit) and its outside (engine.c) share. All memory
 * is one block, taken when the engine is made.
 */
#ifndef ACCORD_ENGINE_H
#define ACCORD_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "cookie.h"
#include "core.h"
#include "event.h"
#include "flight.h"
#include "load.h"
#include "partial.h"
#include "remembered.h"
#include "slab.h"
#include "slots.h"
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
	ENGINE_REPLIES = 128,  /* that wait to be sent: as many as a port takes in between two outputs */
	ENGINE_STRANGERS = 64, /* that wait for accord_engine_events */
	ENGINE_PARTIALS = 64,
	ENGINE_STRANGER_BYTES = ACCORD_MIN_MTU_PACKET + ACCORD_COOKIE_BYTES,
};

/* One packet to somebody of whom nothing else is kept. */
struct reply {
	struct accord_path path;
	uint32_t length;
	uint8_t bytes[ENGINE_STRANGER_BYTES];
};

/* One message from such a one. */
struct stranger {
	struct accord_path path;
	uint32_t slot; /* that its commit is for */
	bool proposes;
	struct flight flight;
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
	struct accord_cookie_ring cookies;
	struct slots slots;
	struct load load;
	/* Rings: the oldest, and how many. */
	struct reply replies[ENGINE_REPLIES];
	uint32_t reply, reply_count;
	struct stranger *strangers; /* none without a budget for them */
	uint32_t stranger, stranger_count;
	struct partials partials; /* as many as there are, none without a budget */
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
void engine_make_room(struct accord_engine *engine, enum admission admission);

/* stranger.c: what becomes of a proposal that no transaction knows. ADMISSION_NONE: none comes to be, for the reason
 * given, or OK if the packet was taken all the same. */
enum admission stranger_arrives(struct accord_engine *engine, const struct accord_path *path,
                                const struct packet *packet, const uint8_t *bytes, uint32_t *reason);
/* Where to write a message that the user is told of, and nothing else is kept of; NULL: too many wait. */
struct stranger *stranger_hand_up(struct accord_engine *engine, const struct accord_path *path, bool proposes);
/* unkept.c: does a packet of step 0 belong to a proposal that has a slot? Then it gets no cookie, and the reason says
 * what became of it: OK, when so much of the proposal has come again that it is answered again. */
bool stranger_repeats(struct accord_engine *engine, const struct accord_path *path, const struct packet *packet,
                      const uint8_t *bytes, uint32_t *reason);
/* unkept.c: a commit that no transaction knows. Returns OK when it is a slot's, or of an answer that needs none. */
uint32_t stranger_returns(struct accord_engine *engine, const struct accord_path *path, const struct packet *packet,
                          const uint8_t *bytes);
uint32_t stranger_events(struct accord_engine *engine, struct accord_event *events, uint32_t limit, uint32_t used);
uint32_t stranger_output(struct accord_engine *engine, struct accord_packet_out *packets, uint32_t limit);
/* When the next stranger is to be asked for a cookie whose proposal is not whole in time; UINT64_MAX: none. */
uint64_t stranger_deadline(const struct accord_engine *engine);

/* transmit.c: when does this transaction next have something to do? */
uint64_t transmit_deadline(const struct accord_engine *engine, const struct transaction *transaction);
void transmit_schedule(struct accord_engine *engine, struct transaction *transaction);

#endif /* ACCORD_ENGINE_H */
