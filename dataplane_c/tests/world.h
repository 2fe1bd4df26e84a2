/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two engines, a virtual clock and a link between them. Bit i of the loss mask drops the i-th datagram
 * that is put on the link, bit i of the duplicate mask doubles it, bit i of the delay mask lets it be overtaken
 * by what is sent in the next three quarters of a round trip. The user of each engine is a few lines:
 * the responder answers a complete message by the next one of the script, and so on.
 */
#ifndef ACCORD_TEST_WORLD_H
#define ACCORD_TEST_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"

enum world_constant {
	WORLD_MAX_NODES = 16,
	WORLD_MAX_STEPS = ACCORD_MAX_STEPS,
	WORLD_QUEUE = 256,
	WORLD_LOG = 512,
	WORLD_BATCH = 16,
};

enum side {
	INITIATOR,
	RESPONDER,
};

struct world_message {
	struct accord_node_out nodes[WORLD_MAX_NODES];
	uint32_t count;
	uint32_t packets_min;
};

struct world_datagram {
	uint64_t arrives;
	uint32_t length;
	enum side to;
	uint8_t *bytes; /* of its own, so that the sanitizer sees where it ends */
};

struct world_side {
	struct accord_engine *engine;
	struct accord_path path; /* of packets that this side receives and sends */
	uint32_t handle;         /* 0: none yet */
	uint32_t opened, failed, reason;
	uint32_t nodes[WORLD_MAX_STEPS];   /* node events, by step */
	uint32_t skipped[WORLD_MAX_STEPS]; /* by step */
	uint32_t messages[WORLD_MAX_STEPS], arrived[WORLD_MAX_STEPS];
	uint32_t wrong;          /* descriptors other than the script's, or events out of order */
	uint64_t packets, bytes; /* put on the link */
	uint64_t datagrams;
	bool proven_late; /* prove only with the commit (else at once) */
};

struct world {
	struct world_side sides[2];
	uint8_t id[ACCORD_TRANSACTION_BYTES];
	struct world_message script[WORLD_MAX_STEPS];
	uint32_t steps;
	uint64_t enough; /* nodes of step 0, one bit each, that the responder answers at; 0: at the whole message */
	uint64_t met;    /* of step 0 */
	uint64_t now, one_way;
	uint32_t batch;                  /* packets that one call takes out, at most WORLD_BATCH */
	uint64_t loss, duplicate, delay; /* masks */
	uint32_t sent;                   /* datagrams so far: index into the masks */
	uint32_t expected;               /* bytes of the answer, told to the initiator's engine; 0: not told */
	bool cut;                        /* nothing gets through */
	uint32_t longest;                /* bytes of a datagram that gets through, without IP and UDP; 0: any */
	struct world_datagram *queue;
	uint32_t queued;
	/* What went over the link, for tests that look at it: headers only. */
	struct {
		enum side from;
		uint32_t length, shared; /* of the packet, of its datagram */
		bool dropped;
		uint64_t at;
		uint8_t header[ACCORD_HEADER_BYTES];
	} * log;
	uint32_t logged;
};

void world_begin(struct world *world, const struct accord_engine_config *config);
void world_end(struct world *world);
/* A node for the script: a descriptor of so many bytes, child count 0, contents from its ID and step. */
void world_node(struct world *world, uint32_t step, uint8_t node, uint32_t protocol, uint32_t length);
/* Open at the initiator and send step 0. */
void world_start(struct world *world);
/* Run until nothing is on the link and no timer is due before the end (microseconds from now). */
void world_run(struct world *world, uint64_t duration);
/* What is on the link is lost. */
void world_drain(struct world *world);
/* Move whatever both engines have to say onto the link, at the present moment. */
void world_pump(struct world *world);
/* Whether every step of the script came whole to its receiver and is known by its sender to have come. */
bool world_done(const struct world *world);
void world_close(struct world *world, uint64_t linger);
uint64_t world_counter(const struct world *world, enum side side, uint32_t reason);

/* A path with documentation addresses (RFC 5737, RFC 3849). */
struct accord_path test_path(uint8_t family, bool initiator);

/* xorshift64: repeatable. */
uint64_t test_random(uint64_t *state);
/* A number below the limit, of the same source. */
uint32_t test_below(uint64_t *state, uint32_t limit);

#endif /* ACCORD_TEST_WORLD_H */
