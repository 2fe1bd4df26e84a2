// SPDX-License-Identifier: Apache-2.0
/* A hundred thousand peers that send first chunks and nothing more, in virtual time (threat model, row 7). */
#include "accord/cookie.h"
#include "bench.h"

enum {
	MS = 1000,
	PEERS = 100000,
	SLOW = 8,           /* honest peers that were there before, and send a packet a second */
	HONEST_EVERY = 500, /* of PEERS */
	TRANSACTIONS = 512,
	UNPROVEN = 64,
	BUFFERS = 1024,
};

static const struct accord_cookie_ring RING = {
	.keys = {{{UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)}, 7, 1}},
	.slot = 1000,
};
static uint8_t id[ACCORD_TRANSACTION_BYTES];
static uint32_t opened[PEERS + SLOW + 1];
static uint8_t data[1100];

static const uint8_t *numbered(uint32_t number)
{
	memcpy(id, ID, sizeof(id));
	memcpy(id + 8, &number, sizeof(number));
	return id;
}

/* From an address of its own, of which 16 are in one network. */
static void from(struct bench *bench, uint32_t number)
{
	bench->path = test_path(4, false);
	bench->path.remote[1] = (uint8_t)(number >> 12);
	bench->path.remote[2] = (uint8_t)(number >> 4);
	bench->path.remote[3] = (uint8_t)(number << 4 | 1);
}

/* As the host does it: events are taken at once, what failed is closed; commits are not waited for. */
static void serve(struct bench *bench, uint32_t number, bool *whole)
{
	struct accord_event events[128];
	uint32_t count;

	while ((count = accord_engine_events(bench->engine, events, 128)) > 0)
		for (uint32_t i = 0; i < count; i++) {
			if (events[i].kind == ACCORD_EVENT_OPENED)
				opened[number] = events[i].handle;
			if (events[i].kind == ACCORD_EVENT_MESSAGE && whole)
				*whole = true;
			if (events[i].kind == ACCORD_EVENT_FAILED)
				accord_engine_close(bench->engine, bench->now, events[i].handle, 0);
		}
}

/* What the engine sends goes to nobody; a challenge to `cookie`. True: there was one. */
static bool send_all(struct bench *bench, uint8_t *cookie)
{
	struct accord_packet_out out[16];
	bool found = false;
	uint32_t count;

	while ((count = accord_engine_output(bench->engine, bench->now, out, 16)) > 0)
		for (uint32_t i = 0; i < count; i++)
			if (cookie && out[i].length == ACCORD_HEADER_BYTES + ACCORD_COOKIE_BYTES) {
				memcpy(cookie, out[i].data + ACCORD_HEADER_BYTES, ACCORD_COOKIE_BYTES);
				found = true;
			}
	return found;
}

static void put_cookie(struct craft *craft, const uint8_t *cookie)
{
	memmove(craft->bytes + 48, craft->bytes + 32, craft->length - 32);
	memcpy(craft->bytes + 32, cookie, ACCORD_COOKIE_BYTES);
	craft->length += ACCORD_COOKIE_BYTES;
	craft->bytes[3] |= 0x10;
}

/* The first packet of a long message, and the second and third if the first was taken. */
static void attack(struct bench *bench, uint32_t number)
{
	struct craft craft;

	from(bench, number);
	for (uint32_t offset = 0; offset < 3; offset++) {
		craft_header(&craft, numbered(number), 0, 0, offset);
		craft_chunk(&craft, (uint8_t)(1 + offset), F, ACCORD_PROTOCOL_TCP, data, sizeof(data));
		if (give(bench, &craft))
			break;
	}
	serve(bench, number, NULL);
	send_all(bench, NULL);
}

/* A proposal of one packet, repeated with the cookie if one is asked for. True: it came whole to the host. */
static bool honest(struct bench *bench, uint32_t number)
{
	uint8_t cookie[ACCORD_COOKIE_BYTES];
	bool whole = false;
	struct craft craft;

	from(bench, number);
	craft_proposal(&craft, numbered(number));
	give(bench, &craft);
	if (send_all(bench, cookie)) {
		craft_proposal(&craft, numbered(number));
		put_cookie(&craft, cookie);
		CHECK_EQUAL(give(bench, &craft), 0);
	}
	serve(bench, number, &whole);
	send_all(bench, NULL);
	if (whole)
		accord_engine_close(bench->engine, bench->now, opened[number], 0);
	return whole;
}

static void a_hundred_thousand_peers_with_first_chunks_take_bounded_memory_and_nobody_s_place(void)
{
	uint32_t tried = 0, came = 0, most_unproven = 0, most_buffers = 0;
	struct accord_engine_usage usage, before;
	struct accord_transaction_info info;
	uint64_t start;
	struct craft craft;
	struct bench bench;

	bench_begin_with(&bench,
	                 (struct accord_engine_config){
						 .transactions = TRANSACTIONS, .unproven = UNPROVEN, .buffers = BUFFERS, .events = 1024});
	accord_engine_cookies(bench.engine, &RING);
	start = bench.now;
	for (uint32_t i = 0; i < SLOW; i++) {
		from(&bench, PEERS + i);
		craft_header(&craft, numbered(PEERS + i), 0, 0, 0);
		craft_chunk(&craft, 0, F | L, ACCORD_PROTOCOL_UDP, CONTEXT, sizeof(CONTEXT));
		CHECK_EQUAL(give(&bench, &craft), 0);
		serve(&bench, PEERS + i, NULL);
		CHECK_EQUAL(accord_engine_prove(bench.engine, opened[PEERS + i]), 0);
	}
	accord_engine_usage(bench.engine, &before);
	for (uint32_t number = 0; number < PEERS; number++) { /* 12,500 a second for eight seconds */
		bench.now = start + (uint64_t)number * 80;
		if (number % HONEST_EVERY == 0) {
			tried++;
			came += honest(&bench, number);
		} else {
			attack(&bench, number);
		}
		accord_engine_usage(bench.engine, &usage);
		most_unproven = usage.unproven > most_unproven ? usage.unproven : most_unproven;
		most_buffers = usage.buffers > most_buffers ? usage.buffers : most_buffers;
	}
	CHECK_EQUAL(usage.bytes, before.bytes);
	CHECK_EQUAL(came, tried);
	CHECK(most_unproven > UNPROVEN / 2);
	CHECK(most_unproven <= UNPROVEN);
	CHECK(most_buffers <= BUFFERS * 3 / 4 + before.buffers);
	/* Who was there before still is, and ends its proposal now. */
	for (uint32_t i = 0; i < SLOW; i++) {
		bool whole = false;

		CHECK_EQUAL(accord_engine_info(bench.engine, opened[PEERS + i], &info), 0);
		from(&bench, PEERS + i);
		craft_header(&craft, numbered(PEERS + i), 0, END, 1);
		craft_chunk(&craft, 1, F | L, ACCORD_PROTOCOL_TCP, LEAF, sizeof(LEAF));
		CHECK_EQUAL(give(&bench, &craft), 0);
		serve(&bench, PEERS + i, &whole);
		CHECK(whole);
		accord_engine_close(bench.engine, bench.now, opened[PEERS + i], 0);
	}
	/* The others have ten seconds, and leave nothing. */
	bench.now = start + (uint64_t)PEERS * 80 + ACCORD_MAX_LIFETIME_MS * (uint64_t)MS + SECOND;
	for (int round = 0; round < 8; round++) {
		send_all(&bench, NULL);
		serve(&bench, 0, NULL);
	}
	accord_engine_usage(bench.engine, &usage);
	CHECK_EQUAL(usage.transactions, 0);
	CHECK_EQUAL(usage.buffers, 0);
	CHECK(counted(&bench, ACCORD_REASON_LIFETIME) >= UNPROVEN / 2);
	bench.handle = 0;
	bench_end(&bench);
}

static void one_peer_holds_no_more_than_its_message_and_the_rest_is_refused(void)
{
	struct accord_engine_usage usage;
	struct craft craft;
	struct bench bench;
	uint32_t taken = 0;
	int refused = 0;

	bench_begin_with(
		&bench, (struct accord_engine_config){.transactions = 16, .unproven = 8, .buffers = BUFFERS, .events = 1024});
	for (uint32_t offset = 0; !refused && offset < ACCORD_MAX_PACKETS; offset++, taken += !refused) {
		craft_header(&craft, numbered(1), 0, 0, offset);
		craft_chunk(&craft, (uint8_t)(1 + offset % 62), offset < 62 ? F : 0, ACCORD_PROTOCOL_TCP, data, sizeof(data));
		refused = give(&bench, &craft);
		accord_engine_usage(bench.engine, &usage);
		CHECK(usage.buffers <= 2 * ACCORD_MAX_MESSAGE_BYTES / sizeof(data));
	}
	CHECK_EQUAL(refused, -ACCORD_REASON_MESSAGE_TOO_LONG);
	CHECK_EQUAL(taken, ACCORD_MAX_MESSAGE_BYTES / sizeof(data));
	accord_engine_usage(bench.engine, &usage);
	CHECK_EQUAL(usage.buffers, 0);
	take_events(&bench);
	opened[1] = bench.handle;
	bench.handle = 0;
	accord_engine_close(bench.engine, bench.now, opened[1], 0);
	bench_end(&bench);
}

int main(void)
{
	RUN(a_hundred_thousand_peers_with_first_chunks_take_bounded_memory_and_nobody_s_place);
	RUN(one_peer_holds_no_more_than_its_message_and_the_rest_is_refused);
	return check_report("exhaustion");
}
