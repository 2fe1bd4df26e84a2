/* SPDX-License-Identifier: Apache-2.0 */
/* One engine on the bench, fed with packets made by hand. */
#ifndef ACCORD_TEST_BENCH_H
#define ACCORD_TEST_BENCH_H

#include <string.h>

#include "check.h"
#include "craft.h"
#include "engine.h"
#include "world.h"

enum {
	F = ACCORD_CHUNK_FIRST,
	L = ACCORD_CHUNK_LAST,
	END = ACCORD_FLAG_END,
	SECOND = 1000000,
};

static const uint8_t ID[ACCORD_TRANSACTION_BYTES] = {0xff, 0xff, 0xff, 0xfe, 0x10, 0, 0, 1, 9, 9, 9, 9};
static const uint8_t CONTEXT[] = {1, 0, 0, 0, 1}; /* a descriptor with one child */
static const struct accord_cookie_ring BENCH_RING = {.keys = {{{1, 2}, 7, 1}}, .slot = 1000};
static const uint8_t LEAF[] = {0, 0, 0, 0, 'd', 'a', 't', 'a'};

struct bench {
	struct accord_engine *engine;
	struct accord_path path;
	uint64_t now;
	uint32_t handle;
	struct accord_event events[128];
	uint32_t count;
};

static inline void bench_begin_with(struct bench *bench, struct accord_engine_config config)
{
	static const uint32_t protocols[] = {ACCORD_PROTOCOL_TCP, ACCORD_PROTOCOL_TLS13};

	memset(bench, 0, sizeof(*bench));
	bench->engine = accord_engine_new(&config);
	bench->path = test_path(4, false);
	bench->now = 5 * SECOND;
	accord_engine_support(bench->engine, protocols, 2);
}

static inline void bench_begin(struct bench *bench)
{
	bench_begin_with(bench, (struct accord_engine_config){
								.transactions = 4, .unproven = 2, .buffers = 64, .buffer_bytes = 1200, .events = 128});
}

/* Under load: strangers are answered without being kept, in three slots at most. */
static inline void bench_begin_answering(struct bench *bench)
{
	bench_begin_with(bench, (struct accord_engine_config){.transactions = 4,
	                                                      .unproven = 2,
	                                                      .buffers = 64,
	                                                      .buffer_bytes = 1200,
	                                                      .events = 128,
	                                                      .strangers_per_second = 1000,
	                                                      .slots = 3});
	accord_engine_cookies(bench->engine, &BENCH_RING);
	accord_engine_level(bench->engine, bench->now, ACCORD_LEVEL_ANSWER);
}

/* Until the next call. */
static inline const uint8_t *numbered_id(uint8_t number)
{
	static uint8_t id[ACCORD_TRANSACTION_BYTES];

	memcpy(id, ID, sizeof(id));
	id[ACCORD_TRANSACTION_BYTES - 1] = number;
	return id;
}

static inline void bench_end(struct bench *bench)
{
	struct accord_engine *engine = bench->engine;

	if (bench->handle)
		accord_engine_close(engine, bench->now, bench->handle, 0);
	CHECK_EQUAL(accord_engine_transactions(engine), 0);
	CHECK_EQUAL(engine->slab.free_count, engine->config.buffers);
	CHECK_EQUAL(engine->table.unproven, 0);
	accord_engine_free(engine);
}

static inline int give(struct bench *bench, struct craft *craft)
{
	craft_seal(craft);
	return accord_engine_input(bench->engine, bench->now, &bench->path, craft->bytes, craft->length);
}

static inline void take_events(struct bench *bench)
{
	bench->count = accord_engine_events(bench->engine, bench->events, 128);
	for (uint32_t i = 0; i < bench->count; i++)
		if (bench->events[i].kind == ACCORD_EVENT_OPENED)
			bench->handle = bench->events[i].handle;
}

static inline uint32_t count_events(const struct bench *bench, uint16_t kind)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < bench->count; i++)
		count += bench->events[i].kind == kind;
	return count;
}

static inline uint16_t failure(const struct bench *bench)
{
	for (uint32_t i = 0; i < bench->count; i++)
		if (bench->events[i].kind == ACCORD_EVENT_FAILED)
			return bench->events[i].reason;
	return 0;
}

/* Bytes of all packets that the engine now has to send. */
static inline uint64_t drain(struct bench *bench, uint32_t *packets)
{
	struct accord_packet_out out[16];
	uint64_t bytes = 0;
	uint32_t count;

	*packets = 0;
	while ((count = accord_engine_output(bench->engine, bench->now, out, 16)) > 0) {
		*packets += count;
		for (uint32_t i = 0; i < count; i++)
			bytes += out[i].length;
	}
	return bytes;
}

static inline uint64_t counted(const struct bench *bench, uint32_t reason)
{
	uint64_t counters[ACCORD_REASON_LIMIT];

	accord_engine_counters(bench->engine, counters);
	return counters[reason];
}

/* A proposal of one packet: context and one node. */
static inline void craft_proposal(struct craft *craft, const uint8_t *id)
{
	craft_header(craft, id, 0, END, 0);
	craft_chunk(craft, 0, F | L, ACCORD_PROTOCOL_UDP, CONTEXT, sizeof(CONTEXT));
	craft_chunk(craft, 1, F | L, ACCORD_PROTOCOL_TCP, LEAF, sizeof(LEAF));
}

#endif /* ACCORD_TEST_BENCH_H */
