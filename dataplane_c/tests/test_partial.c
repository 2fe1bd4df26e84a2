// SPDX-License-Identifier: Apache-2.0
/* Proposals of a few packets, from strangers: joined in fixed places, and given up to a cookie. */
#include "bench.h"
#include "partial.h"

enum {
	LONG = 2900, /* of a node that takes three packets */
};

static uint8_t long_node[LONG];

static void begin(struct bench *bench)
{
	bench_begin_answering(bench);
	for (uint32_t i = 4; i < LONG; i++)
		long_node[i] = (uint8_t)(i * 7);
}

/* A context, a node in pieces of 1000 bytes, and one that nobody here supports. */
static void craft_part(struct craft *craft, uint8_t number, uint32_t part, uint16_t flags)
{
	uint32_t left = LONG - 1000 * part;

	craft_header(craft, numbered_id(number), 0, flags | (part == 2 ? END : 0), part);
	if (part == 0)
		craft_chunk(craft, 0, F | L, ACCORD_PROTOCOL_UDP, CONTEXT, sizeof(CONTEXT));
	craft_chunk(craft, 1,
	            (uint8_t)(part == 0   ? F
	                      : part == 2 ? L
	                                  : 0),
	            ACCORD_PROTOCOL_TCP, long_node + 1000 * part, left < 1000 ? left : 1000);
	if (part == 2)
		craft_chunk(craft, 7, F | L, 0x7e000001, "any", 3);
}

static int give_part(struct bench *bench, uint8_t number, uint32_t part)
{
	struct craft craft;

	craft_part(&craft, number, part, 0);
	return give(bench, &craft);
}

static uint32_t challenges(struct bench *bench)
{
	uint64_t counters[ACCORD_REASON_LIMIT];

	accord_engine_counters(bench->engine, counters);
	return (uint32_t)counters[ACCORD_REASON_CHALLENGED];
}

static uint32_t sent(struct bench *bench)
{
	uint32_t packets;

	drain(bench, &packets);
	return packets;
}

static int64_t keep(struct bench *bench, uint32_t answer)
{
	struct accord_slot slot = {.length = bench->events[0].length,
	                           .proposal = bench->events[0].data,
	                           .answer_packets = 2,
	                           .answer_length = answer,
	                           .kept_length = 3,
	                           .kept = (const uint8_t *)"abc"};

	return accord_engine_keep(bench->engine, bench->now, &bench->path, &slot);
}

static void packets_of_a_proposal_are_joined_whatever_their_order_behind_the_first(void)
{
	static const uint8_t orders[][5] = {{0, 1, 2, 9}, {0, 2, 1, 9}, {0, 2, 2, 0, 1}};
	struct accord_node_in nodes[ACCORD_MAX_NODES];
	uint8_t room[ACCORD_FLIGHT_BYTES];
	struct bench bench;

	for (uint32_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		begin(&bench);
		for (uint32_t k = 0; k < 5 && orders[i][k] < 9; k++) {
			int result = give_part(&bench, 1, orders[i][k]);

			CHECK_EQUAL(result, i == 2 && (k == 2 || k == 3) ? -ACCORD_REASON_DUPLICATE : 0);
		}
		take_events(&bench);
		CHECK_EQUAL(bench.count, 1);
		CHECK_EQUAL(bench.events[0].kind, ACCORD_EVENT_STRANGER);
		CHECK(!memcmp(bench.events[0].transaction, numbered_id(1), ACCORD_TRANSACTION_BYTES));
		CHECK_EQUAL(accord_engine_read(bench.engine, bench.events[0].data, bench.events[0].length, nodes, room), 3);
		CHECK_EQUAL(nodes[1].length, LONG);
		CHECK(!memcmp(nodes[1].data, long_node, LONG));
		CHECK(nodes[1].stored && !nodes[2].stored);
		CHECK_EQUAL(sent(&bench), 0);
		CHECK_EQUAL(accord_engine_transactions(bench.engine), 0);
		CHECK_EQUAL(bench.engine->partials.taken, 0);
		bench_end(&bench);
	}
}

static void what_changes_between_transmissions_is_no_part_of_a_flight(void)
{
	uint8_t first[ACCORD_FLIGHT_BYTES];
	struct accord_cookie_ring other = {.keys = {{{1, 2}, 8, 1}}, .slot = 1000};
	struct bench bench;
	struct craft craft;
	uint32_t length;

	begin(&bench);
	for (uint32_t part = 0; part < 3; part++)
		give_part(&bench, 1, part);
	take_events(&bench);
	length = bench.events[0].length;
	memcpy(first, bench.events[0].data, length);
	for (uint32_t part = 0; part < 3; part++) {
		craft_part(&craft, 1, part, 0);
		craft_acknowledge(&craft, 0x10000001, 1);
		if (part == 0) { /* a cookie of a key that nobody knows is as none */
			memmove(craft.bytes + 48, craft.bytes + 32, craft.length - 32);
			memset(craft.bytes + 32, 0xee, 16);
			craft.bytes[3] |= ACCORD_FLAG_COOKIE;
			craft.length += 16;
			accord_engine_cookies(bench.engine, &other);
		}
		CHECK_EQUAL(give(&bench, &craft), 0);
	}
	take_events(&bench);
	CHECK_EQUAL(bench.count, 1);
	CHECK_EQUAL(bench.events[0].length, length);
	CHECK(!memcmp(first, bench.events[0].data, length));
	bench_end(&bench);
}

static void who_is_not_whole_in_time_is_asked_for_a_cookie(void)
{
	struct bench bench;

	begin(&bench);
	CHECK_EQUAL(give_part(&bench, 1, 0), 0);
	CHECK_EQUAL(give_part(&bench, 1, 2), 0);
	CHECK_EQUAL(accord_engine_deadline(bench.engine), bench.now + PARTIAL_LIFE_US);
	bench.now += PARTIAL_LIFE_US - 1;
	CHECK_EQUAL(sent(&bench), 0);
	bench.now++;
	CHECK_EQUAL(sent(&bench), 1);
	CHECK_EQUAL(challenges(&bench), 1);
	CHECK_EQUAL(accord_engine_deadline(bench.engine), UINT64_MAX);
	CHECK_EQUAL(give_part(&bench, 1, 1), -ACCORD_REASON_UNKNOWN_TRANSACTION); /* too late */
	take_events(&bench);
	CHECK_EQUAL(bench.count, 0);
	bench_end(&bench);
}

static void when_the_places_run_out_the_oldest_is_asked_for_a_cookie_and_nothing_grows(void)
{
	struct bench bench;

	begin(&bench);
	for (uint32_t number = 0; number < 200; number++) {
		CHECK_EQUAL(give_part(&bench, (uint8_t)number, 0), 0);
		CHECK(bench.engine->partials.taken <= ENGINE_PARTIALS);
		CHECK_EQUAL(sent(&bench), number < ENGINE_PARTIALS ? 0 : 1);
	}
	CHECK_EQUAL(challenges(&bench), 200 - ENGINE_PARTIALS);
	CHECK_EQUAL(give_part(&bench, 199, 1), 0); /* the latest is still there */
	CHECK_EQUAL(give_part(&bench, 199, 2), 0);
	take_events(&bench);
	CHECK_EQUAL(bench.count, 1);
	CHECK_EQUAL(give_part(&bench, 0, 1), -ACCORD_REASON_UNKNOWN_TRANSACTION); /* and the first is not */
	bench_end(&bench);
}

static void each_of_them_spends_the_budget_once_and_beyond_it_there_is_a_cookie(void)
{
	struct accord_engine_load load;
	struct bench bench;

	begin(&bench);
	for (uint32_t number = 0; number < 1000; number++) {
		give_part(&bench, (uint8_t)(number % 200), 0);
		give_part(&bench, (uint8_t)(number % 200), 1);
		give_part(&bench, (uint8_t)(number % 200), 2);
		take_events(&bench);
		CHECK_EQUAL(bench.count, 1);
	}
	CHECK_EQUAL(give_part(&bench, 201, 0), -ACCORD_REASON_CHALLENGED);
	accord_engine_load(bench.engine, bench.now, &load);
	CHECK_EQUAL(load.level, ACCORD_LEVEL_COOKIE);
	CHECK_EQUAL(give_part(&bench, 202, 0), -ACCORD_REASON_CHALLENGED);
	CHECK_EQUAL(bench.engine->partials.taken, 0);
	sent(&bench);
	bench_end(&bench);
}

static void what_can_never_be_whole_is_asked_for_a_cookie_at_once(void)
{
	struct craft craft;
	struct bench bench;

	begin(&bench);
	CHECK_EQUAL(give_part(&bench, 1, 0), 0);
	craft_header(&craft, numbered_id(1), 0, 0, ACCORD_FLIGHT_PACKETS); /* a fifth packet */
	craft_chunk(&craft, 1, 0, ACCORD_PROTOCOL_TCP, "more", 4);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_MESSAGE_TOO_LONG);
	CHECK_EQUAL(sent(&bench), 1);
	CHECK_EQUAL(give_part(&bench, 2, 0), 0);
	CHECK_EQUAL(give_part(&bench, 2, 2), 0);
	craft_part(&craft, 2, 1, END); /* two ends */
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_CONTRADICTION);
	CHECK_EQUAL(sent(&bench), 1);
	CHECK_EQUAL(give_part(&bench, 3, 0), 0);
	CHECK_EQUAL(give_part(&bench, 3, 2), 0);
	craft_header(&craft, numbered_id(3), 0, 0, 3); /* behind the end */
	craft_chunk(&craft, 1, 0, ACCORD_PROTOCOL_TCP, "more", 4);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_CONTRADICTION);
	CHECK_EQUAL(sent(&bench), 1);
	take_events(&bench);
	CHECK_EQUAL(bench.count, 0);
	bench_end(&bench);
}

static void packets_from_elsewhere_join_nothing(void)
{
	struct bench bench;

	begin(&bench);
	CHECK_EQUAL(give_part(&bench, 1, 0), 0);
	bench.path.remote_port++;
	CHECK_EQUAL(give_part(&bench, 1, 1), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	CHECK_EQUAL(give_part(&bench, 1, 2), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	take_events(&bench);
	CHECK_EQUAL(bench.count, 0);
	bench_end(&bench);
}

static void chunks_that_do_not_make_nodes_are_no_message(void)
{
	struct accord_node_in nodes[ACCORD_MAX_NODES];
	uint8_t flight[ACCORD_FLIGHT_BYTES + 4], room[ACCORD_FLIGHT_BYTES + 4];
	struct craft parts[3];
	struct bench bench;
	uint32_t length;

	begin(&bench);
	for (uint32_t spoil = 0; spoil < 7; spoil++) {
		uint8_t *at = flight;
		int result;

		for (uint32_t part = 0; part < 3; part++)
			craft_part(&parts[part], 1, part, 0);
		if (spoil == 1)
			parts[1].bytes[33] = F; /* it begins twice */
		if (spoil == 2)
			parts[1].bytes[39] = ACCORD_PROTOCOL_UDP; /* another protocol */
		if (spoil == 3)
			parts[2].bytes[33] = 0; /* it does not end */
		if (spoil == 4)
			parts[1].bytes[33] = L; /* it ends twice */
		if (spoil == 5)
			parts[1].bytes[32] = 9; /* in the middle of nowhere */
		for (uint32_t part = 0; part < 3; part++) {
			craft_seal(&parts[part]);
			if (spoil != 6 || part != 1) /* a packet is missing */
				at = craft_flight(&parts[part], at);
		}
		length = (uint32_t)(at - flight);
		result = accord_engine_read(bench.engine, flight, length, nodes, room);
		CHECK_EQUAL(result, spoil == 0 ? 3 : spoil == 6 ? -ACCORD_REASON_BAD_TSN : -ACCORD_REASON_BAD_CHUNK);
		for (uint32_t cut = 0; spoil == 0 && cut < length; cut++)
			CHECK(accord_engine_read(bench.engine, flight, cut, nodes, room) < 0);
	}
	bench_end(&bench);
}

static void a_composed_message_is_read_as_what_it_was(void)
{
	const struct accord_node_out out[] = {{0, ACCORD_PROTOCOL_UDP, sizeof(CONTEXT), CONTEXT},
	                                      {1, ACCORD_PROTOCOL_TCP, 0, long_node},
	                                      {2, ACCORD_PROTOCOL_TLS13, sizeof(LEAF), LEAF}};
	struct accord_node_in nodes[ACCORD_MAX_NODES];
	uint8_t flight[ACCORD_FLIGHT_BYTES], room[ACCORD_FLIGHT_BYTES];
	struct accord_node_out sent_nodes[3];
	struct bench bench;

	begin(&bench);
	memcpy(sent_nodes, out, sizeof(out));
	for (uint32_t length = 4; length <= LONG; length++) {
		int whole;

		sent_nodes[1].length = length;
		whole = accord_flight_compose(ID, 1, 0, 3, sent_nodes, 3, flight, sizeof(flight));
		CHECK(whole > 0);
		CHECK_EQUAL(accord_engine_read(bench.engine, flight, (uint32_t)whole, nodes, room), 3);
		CHECK(nodes[1].length == length && !memcmp(nodes[1].data, long_node, length));
		CHECK(nodes[2].length == sizeof(LEAF) && !memcmp(nodes[2].data, LEAF, sizeof(LEAF)));
	}
	bench_end(&bench);
}

static void what_comes_again_is_answered_again_when_as_much_has_come_as_will_leave(void)
{
	struct bench bench;
	struct craft craft;

	begin(&bench);
	for (uint32_t part = 0; part < 3; part++)
		give_part(&bench, 1, part);
	take_events(&bench);
	CHECK(keep(&bench, 1980) > 0);
	CHECK_EQUAL(give_part(&bench, 1, 1), -ACCORD_REASON_DUPLICATE); /* 1,040 bytes */
	take_events(&bench);
	CHECK_EQUAL(bench.count, 0);
	CHECK_EQUAL(give_part(&bench, 1, 1), 0);
	take_events(&bench);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_STRANGER), 1);
	CHECK_EQUAL(give_part(&bench, 1, 1), -ACCORD_REASON_DUPLICATE); /* from the beginning */
	craft_part(&craft, 1, 1, 0);
	craft.bytes[60] ^= 1; /* another proposal with its ID */
	for (uint32_t i = 0; i < 4; i++)
		CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_CONTRADICTION);
	accord_engine_level(bench.engine, bench.now, ACCORD_LEVEL_COOKIE);
	CHECK_EQUAL(give_part(&bench, 1, 2), 0); /* no cookie: an answer has left */
	take_events(&bench);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_STRANGER), 1);
	CHECK_EQUAL(sent(&bench), 0);
	bench_end(&bench);
}

static void the_commit_comes_behind_all_packets_of_the_proposal(void)
{
	static const uint8_t transcript[4 + 4 + 32] = {
		0, 0, 0, 4 + 32, ACCORD_TLV_TRANSCRIPT >> 8, ACCORD_TLV_TRANSCRIPT & 0xff, 0, 32};
	struct accord_slot slot;
	struct bench bench;
	struct craft craft;
	int64_t handle;

	begin(&bench);
	for (uint32_t part = 0; part < 3; part++)
		give_part(&bench, 1, part);
	take_events(&bench);
	handle = keep(&bench, 2000);
	for (uint32_t offset = 0; offset < 6; offset++) {
		craft_header(&craft, numbered_id(1), ACCORD_STEP_COMMIT, END, offset);
		craft_acknowledge(&craft, 0x10000001, 2);
		craft_chunk(&craft, 0, F | L, ACCORD_PROTOCOL_UDP, transcript, sizeof(transcript));
		CHECK_EQUAL(give(&bench, &craft), offset == 3 ? 0 : -ACCORD_REASON_UNKNOWN_TRANSACTION);
	}
	take_events(&bench);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_RETURNED), 1);
	CHECK_EQUAL(accord_engine_slot_of(bench.engine, bench.now, (uint32_t)handle, &slot), 0);
	CHECK(slot.kept_length == 3 && !memcmp(slot.kept, "abc", 3) && slot.answer_packets == 2);
	CHECK_EQUAL(
		accord_engine_settle(bench.engine, bench.now, (uint32_t)handle, bench.events[0].data, bench.events[0].length),
		0);
	CHECK_EQUAL(sent(&bench), 1);
	craft_header(&craft, numbered_id(1), ACCORD_STEP_COMMIT, END, 3); /* again, as the engine knows it now */
	craft_acknowledge(&craft, 0x10000001, 2);
	craft_chunk(&craft, 0, F | L, ACCORD_PROTOCOL_UDP, transcript, sizeof(transcript));
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_DUPLICATE);
	CHECK_EQUAL(sent(&bench), 1);
	bench.now += 11 * SECOND;
	CHECK_EQUAL(sent(&bench), 0);
	bench_end(&bench);
}

int main(void)
{
	RUN(packets_of_a_proposal_are_joined_whatever_their_order_behind_the_first);
	RUN(what_changes_between_transmissions_is_no_part_of_a_flight);
	RUN(who_is_not_whole_in_time_is_asked_for_a_cookie);
	RUN(when_the_places_run_out_the_oldest_is_asked_for_a_cookie_and_nothing_grows);
	RUN(each_of_them_spends_the_budget_once_and_beyond_it_there_is_a_cookie);
	RUN(what_can_never_be_whole_is_asked_for_a_cookie_at_once);
	RUN(packets_from_elsewhere_join_nothing);
	RUN(chunks_that_do_not_make_nodes_are_no_message);
	RUN(a_composed_message_is_read_as_what_it_was);
	RUN(what_comes_again_is_answered_again_when_as_much_has_come_as_will_leave);
	RUN(the_commit_comes_behind_all_packets_of_the_proposal);
	return check_report("test_partial");
}
