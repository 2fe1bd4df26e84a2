// SPDX-License-Identifier: Apache-2.0
/*
 * The engine in memory: no kernel, no clock in the path. Prints one JSON object with how many packets (of
 * "proposal": messages) there are in a pass, then one a round: nanoseconds for each. "reference": of a loop that never
 * changes, to tell a slow machine by from slow code.
 *
 *   engine ROUNDS PASSES
 *
 * Each run_* function is a place where callgrind's --toggle-collect finds the beginning and the end of what is
 * measured; what has to be made ready is made outside of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "io.h"
#include "load.h"
#include "packet.h"

enum {
	/* At one time: together half a megabyte of packets, so that they come from further away than the L1 cache,
	 * as packets of a ring do. */
	TRANSACTIONS = 16,
	/* Long messages between two looks at the events: as many packets as a port takes in between them. */
	LONG_BATCH = (int)ACCORD_IO_BATCH / (int)LOAD_LONG,
	EVENT_BATCH = 64,
	REFERENCE_STEPS = 42,
	REFERENCES = 200, /* in a round: as long as all the parsing of a pass takes */
};

struct pool {
	uint32_t packets, lengths[LOAD_LONG];
	uint8_t bytes[TRANSACTIONS][LOAD_LONG][LOAD_PACKET];
};

/* What a compiler must not find out to be unused. */
static volatile uint32_t sink;

static uint64_t now_ns(void)
{
	struct timespec now;

	/* Cheaper than a clock of CPU time, and the same where nobody else has the processor (bench/_native.py). */
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Of as many as there are for each transaction. */
static double each(uint64_t spent_ns, long count)
{
	return (double)spent_ns / (double)(count * TRANSACTIONS);
}

static struct pool *fill(uint32_t packets, bool small)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		exit(1);
	pool->packets = packets;
	for (uint32_t id = 0; id < TRANSACTIONS; id++)
		for (uint32_t index = 0; index < packets; index++)
			pool->lengths[index] = load_packet(pool->bytes[id][index], id, index, packets, small);
	return pool;
}

static void check(int result)
{
	if (result < 0) {
		fprintf(stderr, "the engine refused a packet of the load: %s\n", accord_reason_name((uint32_t)-result));
		exit(1);
	}
}

/* Header, checksum, chunks, fingerprint. */
static inline void parse_all(const struct pool *pool)
{
	struct packet packet;

	for (uint32_t id = 0; id < TRANSACTIONS; id++)
		for (uint32_t index = 0; index < pool->packets; index++) {
			check(-(int)packet_parse(&packet, pool->bytes[id][index], pool->lengths[index]));
			sink = packet.fingerprint;
		}
}

__attribute__((noinline)) static void run_parse(const struct pool *pool)
{
	sink = 0; /* unlike the next one, or a compiler makes one function of the two */
	parse_all(pool);
}

__attribute__((noinline)) static void run_parse_small(const struct pool *pool)
{
	sink = 1;
	parse_all(pool);
}

/* From packets to events that wait: lookup, duplicates, acknowledgements, reassembly. */
static inline void input_some(struct accord_engine *engine, const struct pool *pool, uint32_t first, uint32_t count)
{
	const struct accord_path path = load_path();

	for (uint32_t id = first; id < first + count; id++)
		for (uint32_t index = 0; index < pool->packets; index++)
			check(accord_engine_input(engine, 1, &path, pool->bytes[id][index], pool->lengths[index]));
}

/* From there to descriptors in the caller's hands; the transactions are closed. */
static inline void deliver_some(struct accord_engine *engine, uint32_t expected)
{
	static struct accord_event events[EVENT_BATCH];
	uint32_t count, messages = 0;

	while ((count = accord_engine_events(engine, events, EVENT_BATCH)) > 0)
		for (uint32_t i = 0; i < count; i++)
			if (events[i].kind == ACCORD_EVENT_MESSAGE) {
				messages++;
				accord_engine_close(engine, 1, events[i].handle, 0);
			}
	if (messages != expected) {
		fprintf(stderr, "%u of %u messages came out whole\n", messages, expected);
		exit(1);
	}
}

__attribute__((noinline)) static void run_input(struct accord_engine *engine, const struct pool *pool, uint32_t first)
{
	sink = 0;
	input_some(engine, pool, first, LONG_BATCH);
}

__attribute__((noinline)) static void run_deliver(struct accord_engine *engine)
{
	sink = 1;
	deliver_some(engine, LONG_BATCH);
}

/* Both, for messages as short as they mostly are. */
__attribute__((noinline)) static void run_proposal(struct accord_engine *engine, const struct pool *pool)
{
	sink = 2;
	input_some(engine, pool, 0, TRANSACTIONS);
	deliver_some(engine, TRANSACTIONS);
}

/*
 * Four xorshift generators (Marsaglia, Journal of Statistical Software 8 (14), 2003) side by side, so many numbers of
 * each: about 1,000 instructions, four of which can be worked on at a time, as of the code that is measured.
 */
__attribute__((noinline)) static void run_reference(void)
{
	uint64_t a = 1, b = 2, c = 3, d = 4;

	for (int step = 0; step < REFERENCE_STEPS; step++) {
		a ^= a << 13, b ^= b << 13, c ^= c << 13, d ^= d << 13;
		a ^= a >> 7, b ^= b >> 7, c ^= c >> 7, d ^= d >> 7;
		a ^= a << 17, b ^= b << 17, c ^= c << 17, d ^= d << 17;
	}
	sink = (uint32_t)(a ^ b ^ c ^ d);
}

int main(int argc, char **argv)
{
	struct pool *small = fill(LOAD_PROPOSAL, true), *proposal = fill(LOAD_PROPOSAL, false),
				*all = fill(LOAD_LONG, false);
	const struct accord_engine_config config = {0};
	struct accord_engine *engine = accord_engine_new(&config);
	long rounds = argc == 3 ? strtol(argv[1], NULL, 10) : 0, passes = argc == 3 ? strtol(argv[2], NULL, 10) : 0;

	if (rounds < 1 || passes < 1 || !engine) {
		fprintf(stderr, "usage: engine ROUNDS PASSES\n");
		return 2;
	}
	accord_engine_support(engine, load_protocols, LOAD_CHUNKS - 1);
	printf("{\"parse\": %d, \"parse_small\": %d, \"input\": %d, \"deliver\": %d, \"proposal\": %d}\n",
	       TRANSACTIONS * LOAD_LONG, TRANSACTIONS * LOAD_PROPOSAL, TRANSACTIONS * LOAD_LONG, TRANSACTIONS * LOAD_LONG,
	       TRANSACTIONS);
	for (long round = 0; round < rounds; round++) {
		uint64_t started = now_ns(), begun, parsed, parsed_small, taken = 0, delivered = 0, last, proposed;

		for (int i = 0; i < REFERENCES; i++)
			run_reference();
		begun = now_ns();
		for (long pass = 0; pass < passes; pass++)
			run_parse(all);
		parsed = now_ns();
		for (long pass = 0; pass < passes; pass++)
			run_parse_small(small);
		parsed_small = last = now_ns();
		for (long batch = 0; batch < passes * (TRANSACTIONS / LONG_BATCH); batch++) {
			uint64_t now;

			run_input(engine, all, (uint32_t)batch * LONG_BATCH % TRANSACTIONS);
			now = now_ns();
			taken += now - last;
			run_deliver(engine);
			last = now_ns();
			delivered += last - now;
		}
		for (long pass = 0; pass < passes; pass++)
			run_proposal(engine, proposal);
		proposed = now_ns();
		printf("{\"reference\": %.3f, \"parse\": %.3f, \"parse_small\": %.3f, \"input\": %.3f, \"deliver\": %.3f, "
		       "\"proposal\": %.3f}\n",
		       (double)(begun - started) / REFERENCES, each(parsed - begun, passes * LOAD_LONG),
		       each(parsed_small - parsed, passes * LOAD_PROPOSAL), each(taken, passes * LOAD_LONG),
		       each(delivered, passes * LOAD_LONG), each(proposed - last, passes));
	}
	accord_engine_free(engine);
	free(small);
	free(proposal);
	free(all);
	return 0;
}
