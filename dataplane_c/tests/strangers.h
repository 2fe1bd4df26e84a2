/* SPDX-License-Identifier: Apache-2.0 */
/* An engine with cookies, and proposals to it from addresses that it does not know. */
#ifndef ACCORD_TEST_STRANGERS_H
#define ACCORD_TEST_STRANGERS_H

#include "accord/cookie.h"
#include "bench.h"
#include "load.h"

enum {
	MS = 1000,
};

static const struct accord_cookie_ring RING = {
	.keys = {{{UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)}, 7, 1},
             {{UINT64_C(0x1122334455667788), UINT64_C(0x99aabbccddeeff00)}, 9, 1}},
	.slot = 1000,
};

static inline void parse(struct packet *packet, struct craft *craft)
{
	craft_seal(craft);
	CHECK_EQUAL(packet_parse(packet, craft->bytes, craft->length), ACCORD_REASON_OK);
}

static inline void begin(struct bench *bench, uint32_t strangers)
{
	bench_begin_with(bench, (struct accord_engine_config){.transactions = 16,
	                                                      .unproven = 4,
	                                                      .buffers = 256,
	                                                      .events = 512,
	                                                      .strangers_per_second = strangers,
	                                                      .unproven_per_network = 3,
	                                                      .proven_per_network = 2});
	accord_engine_cookies(bench->engine, &RING);
}

static inline const uint8_t *numbered(uint32_t number)
{
	static uint8_t id[ACCORD_TRANSACTION_BYTES];

	memcpy(id, ID, sizeof(id));
	memcpy(id + 8, &number, sizeof(number));
	return id;
}

/* From another network each. */
static inline void from(struct bench *bench, uint32_t network)
{
	bench->path = test_path(4, false);
	bench->path.remote[1] = (uint8_t)(network >> 8);
	bench->path.remote[2] = (uint8_t)network;
}

static inline int propose(struct bench *bench, uint32_t number)
{
	struct craft craft;

	from(bench, number);
	craft_proposal(&craft, numbered(number));
	return give(bench, &craft);
}

/* What the engine asks for; false: nothing. The challenge is checked byte by byte against the specification. */
static inline bool challenged(struct bench *bench, const uint8_t *id, uint8_t *cookie)
{
	struct accord_packet_out out[4];
	struct craft expected;

	if (!accord_engine_output(bench->engine, bench->now, out, 4))
		return false;
	CHECK_EQUAL(out[0].length, 48);
	memcpy(cookie, out[0].data + 32, ACCORD_COOKIE_BYTES);
	craft_header(&expected, id, 1, 0x0010, 0);
	memcpy(expected.bytes + 32, cookie, ACCORD_COOKIE_BYTES);
	expected.length = 48;
	craft_seal(&expected);
	CHECK(memcmp(out[0].data, expected.bytes, 48) == 0);
	CHECK(memcmp(out[0].path->remote, bench->path.remote, 16) == 0);
	return true;
}

static inline void put_cookie(struct craft *craft, const uint8_t *cookie)
{
	craft->length = packet_put_cookie(craft->bytes, craft->length, cookie);
}

static inline void fill_places(struct bench *bench)
{
	for (uint32_t i = 0; i < 4; i++)
		CHECK_EQUAL(propose(bench, 100 + i), 0);
	take_events(bench);
	CHECK_EQUAL(count_events(bench, ACCORD_EVENT_OPENED), 4);
}

static inline void close_all(struct bench *bench)
{
	struct transaction_table *table = &bench->engine->table;

	for (uint32_t slot = 0; slot < table->count; slot++)
		if (table->slots[slot].state != TRANSACTION_FREE)
			engine_forget(bench->engine, &table->slots[slot]);
	bench->handle = 0;
	for (uint32_t i = 0; i < 1 << CROWD_BITS; i++)
		CHECK_EQUAL(table->unproven_crowd.counts[0][i] + table->unproven_crowd.counts[1][i] +
		                table->admitted_crowd.counts[0][i] + table->admitted_crowd.counts[1][i] +
		                table->untold_crowd.counts[0][i] + table->untold_crowd.counts[1][i],
		            0);
	CHECK_EQUAL(table->admitted + table->untold + table->lingering, 0);
	bench_end(bench);
}

#endif /* ACCORD_TEST_STRANGERS_H */
