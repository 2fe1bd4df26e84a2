// SPDX-License-Identifier: Apache-2.0
/* Answers that nothing is kept of but a slot, at the engine: which commits come up, and what becomes of a slot. */
#include "bench.h"

enum {
	OFFSET = 1,
	TRANSCRIPT_AT = 4 + 4, /* of the descriptor's header, and of the TLV's */
};

static const uint8_t SEED[ACCORD_SLOT_SEED] = {1, 2, 3};
static const uint8_t T1[ACCORD_SLOT_TRANSCRIPT] = {4, 5, 6};

static int64_t keep_answer(struct bench *bench, const uint8_t *proposal, uint32_t length)
{
	struct accord_slot slot = {.length = length, .proposal = proposal, .answer_packets = 1, .answer_length = 60};

	memcpy(slot.seed, SEED, sizeof(SEED));
	memcpy(slot.transcript, T1, sizeof(T1));
	return accord_engine_keep(bench->engine, bench->now, &bench->path, &slot);
}

/* A proposal comes up, and its answer takes a slot. */
static int64_t keep(struct bench *bench, uint8_t number)
{
	struct craft craft;

	craft_proposal(&craft, numbered_id(number));
	CHECK_EQUAL(give(bench, &craft), 0);
	take_events(bench);
	CHECK_EQUAL(count_events(bench, ACCORD_EVENT_STRANGER), 1);
	CHECK_EQUAL(bench->events[0].handle, 0);
	return keep_answer(bench, bench->events[0].data, bench->events[0].length);
}

static int settle(struct bench *bench, int64_t handle, const struct craft *commit)
{
	uint8_t flight[2 + sizeof(commit->bytes)];

	return accord_engine_settle(bench->engine, bench->now, (uint32_t)handle, flight,
	                            (uint32_t)(craft_flight(commit, flight) - flight));
}

static void craft_commit(struct craft *craft, uint8_t number, const uint8_t *transcript, uint8_t flags)
{
	uint8_t context[TRANSCRIPT_AT + sizeof(T1)] = {
		0, 0, 0, 4 + sizeof(T1), ACCORD_TLV_TRANSCRIPT >> 8, ACCORD_TLV_TRANSCRIPT & 0xff, 0, sizeof(T1)};

	memcpy(context + TRANSCRIPT_AT, transcript, sizeof(T1));
	craft_header(craft, numbered_id(number), ACCORD_STEP_COMMIT, END, OFFSET);
	craft_acknowledge(craft, 0x10000001, 1);
	craft_chunk(craft, 1, F | L, ACCORD_PROTOCOL_TCP, LEAF, sizeof(LEAF));
	craft_chunk(craft, 0, flags, ACCORD_PROTOCOL_UDP, context, sizeof(context));
}

static int commit(struct bench *bench, uint8_t number, const uint8_t *transcript)
{
	struct craft craft;

	craft_commit(&craft, number, transcript, F | L);
	return give(bench, &craft);
}

static void a_commit_that_knows_the_answer_comes_up_with_its_slot(void)
{
	struct accord_slot slot;
	struct bench bench;
	int64_t handle;

	bench_begin_answering(&bench);
	handle = keep(&bench, 1);
	CHECK(handle > 0);
	CHECK_EQUAL(commit(&bench, 1, T1), 0);
	take_events(&bench);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_RETURNED), 1);
	CHECK_EQUAL(bench.events[0].handle, handle);
	CHECK_EQUAL(accord_engine_slot_of(bench.engine, bench.now, (uint32_t)handle, &slot), 0);
	CHECK(memcmp(slot.seed, SEED, sizeof(SEED)) == 0 && memcmp(slot.transcript, T1, sizeof(T1)) == 0);
	CHECK_EQUAL(slot.length, 2 + 32 + 2 * 8 + sizeof(CONTEXT) + sizeof(LEAF));
	CHECK_EQUAL(accord_engine_slot(bench.engine, bench.now, numbered_id(1), NULL, &slot), 0);
	CHECK_EQUAL(slot.handle, handle);
	CHECK_EQUAL(accord_engine_transactions(bench.engine), 0);
	bench_end(&bench);
}

static void a_slot_ends_in_its_time_though_nobody_comes(void)
{
	struct accord_packet_out packet;
	struct accord_engine_usage usage;
	struct bench bench;
	uint64_t due;

	bench_begin_answering(&bench);
	CHECK(keep(&bench, 1) > 0);
	due = accord_engine_deadline(bench.engine);
	CHECK(due >= bench.now + SLOTS_LIFE_US && due <= bench.now + SLOTS_LIFE_US + SLOTS_LATE_US);
	accord_engine_usage(bench.engine, &usage);
	CHECK_EQUAL(usage.slots, 1);
	CHECK_EQUAL(accord_engine_output(bench.engine, due, &packet, 1), 0);
	accord_engine_usage(bench.engine, &usage);
	CHECK_EQUAL(usage.slots, 0);
	CHECK(accord_engine_deadline(bench.engine) > due);
	bench_end(&bench);
}

static void who_does_not_know_the_answer_or_is_elsewhere_gets_silence(void)
{
	uint8_t bent[sizeof(T1)];
	struct accord_path home;
	struct craft craft;
	struct bench bench;

	bench_begin_answering(&bench);
	home = bench.path;
	CHECK(keep(&bench, 1) > 0);
	for (uint32_t bit = 0; bit < 8 * sizeof(T1); bit++) {
		memcpy(bent, T1, sizeof(bent));
		bent[bit / 8] ^= (uint8_t)(1u << bit % 8);
		CHECK_EQUAL(commit(&bench, 1, bent), -ACCORD_REASON_BAD_TRANSCRIPT);
	}
	CHECK_EQUAL(commit(&bench, 2, T1), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.path.remote[0] ^= 1;
	CHECK_EQUAL(commit(&bench, 1, T1), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.path = home;
	bench.path.remote_port ^= 1;
	CHECK_EQUAL(commit(&bench, 1, T1), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.path = home;
	craft_commit(&craft, 1, T1, F); /* a context that goes on in another packet */
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_BAD_TRANSCRIPT);
	craft_header(&craft, numbered_id(1), ACCORD_STEP_COMMIT, END, OFFSET);
	craft_chunk(&craft, 1, F | L, ACCORD_PROTOCOL_TCP, LEAF, sizeof(LEAF)); /* none at all */
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_BAD_TRANSCRIPT);
	craft_header(&craft, numbered_id(1), ACCORD_STEP_COMMIT, END, OFFSET);
	craft_chunk(&craft, 0, F | L, ACCORD_PROTOCOL_UDP, CONTEXT, 3); /* no descriptor */
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_BAD_TRANSCRIPT);
	craft_commit(&craft, 1, T1, F | L);
	craft.bytes[3] &= (uint8_t)~END;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	take_events(&bench);
	CHECK_EQUAL(bench.count, 0);
	bench_end(&bench);
}

static void a_verified_commit_empties_its_slot_and_its_repetitions_are_acknowledged(void)
{
	uint8_t flight[ACCORD_FLIGHT_BYTES];
	struct accord_slot slot;
	struct bench bench;
	struct craft craft;
	uint32_t packets;
	int64_t handle;

	bench_begin_answering(&bench);
	handle = keep(&bench, 1);
	craft_commit(&craft, 1, T1, F | L);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(settle(&bench, handle, &craft), 0);
	CHECK_EQUAL(settle(&bench, handle, &craft), -ACCORD_REASON_SLOT_GONE);
	CHECK_EQUAL(accord_engine_slot_of(bench.engine, bench.now, (uint32_t)handle, &slot), -ACCORD_REASON_SLOT_GONE);
	CHECK_EQUAL(accord_engine_transactions(bench.engine), 1);
	drain(&bench, &packets);
	CHECK_EQUAL(packets, 1);
	for (uint32_t again = 0; again < 5; again++) {
		CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_DUPLICATE);
		drain(&bench, &packets);
		CHECK_EQUAL(packets, 1);
	}
	take_events(&bench);
	CHECK_EQUAL(bench.count, 0);
	craft_flight(&craft, flight);
	CHECK_EQUAL(keep_answer(&bench, flight, 2 + craft.length), -ACCORD_REASON_CONTRADICTION);
	bench.now += 11 * SECOND;
	drain(&bench, &packets);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench_end(&bench);
}

static void three_wrong_commits_empty_a_slot_and_two_do_not(void)
{
	struct accord_slot slot;
	struct bench bench;
	uint32_t handle;

	bench_begin_answering(&bench);
	handle = (uint32_t)keep(&bench, 1);
	for (int tries = 0; tries < 2; tries++) {
		CHECK_EQUAL(accord_engine_slot_failed(bench.engine, handle), 0);
		CHECK_EQUAL(accord_engine_slot_of(bench.engine, bench.now, handle, &slot), 0);
	}
	CHECK_EQUAL(accord_engine_slot_failed(bench.engine, handle), 0);
	CHECK_EQUAL(accord_engine_slot_of(bench.engine, bench.now, handle, &slot), -ACCORD_REASON_SLOT_GONE);
	CHECK_EQUAL(accord_engine_slot_failed(bench.engine, handle), -ACCORD_REASON_SLOT_GONE);
	CHECK_EQUAL(commit(&bench, 1, T1), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench_end(&bench);
}

static void slots_are_as_many_as_they_are_and_live_for_ten_seconds(void)
{
	struct accord_engine_usage usage;
	struct bench bench;

	bench_begin_answering(&bench);
	for (uint8_t number = 0; number < 3; number++)
		CHECK(keep(&bench, number) > 0);
	CHECK_EQUAL(keep(&bench, 3), -ACCORD_REASON_NO_MEMORY);
	CHECK_EQUAL(keep(&bench, 1), -ACCORD_REASON_CONTRADICTION); /* it is here again, and has its slot */
	accord_engine_usage(bench.engine, &usage);
	CHECK_EQUAL(usage.slots, 3);
	CHECK_EQUAL(usage.slots_limit, 3);
	CHECK_EQUAL(usage.transactions, 0);
	bench.now += 10 * SECOND;
	CHECK_EQUAL(commit(&bench, 1, T1), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	CHECK(keep(&bench, 3) > 0);
	bench_end(&bench);
}

static void a_commit_is_used_even_when_no_transaction_is_free_to_acknowledge_it(void)
{
	struct craft craft, other;
	struct bench bench;
	int64_t handle;

	bench_begin_answering(&bench);
	handle = keep(&bench, 9);
	craft_commit(&craft, 9, T1, F | L);
	for (uint8_t number = 0; number < 4; number++)
		CHECK(accord_engine_open(bench.engine, bench.now, numbered_id(number), &bench.path) > 0);
	craft_seal(&craft);
	CHECK_EQUAL(settle(&bench, handle, &craft), -ACCORD_REASON_NO_MEMORY);
	craft_commit(&other, 9, T1, F | L);
	CHECK_EQUAL(give(&bench, &other), -ACCORD_REASON_UNKNOWN_TRANSACTION); /* used: no second stack comes of it */
	accord_engine_free(bench.engine);
}

/* ---- Cookies in commits ---- */

static void craft_repeating(struct craft *craft, uint8_t number, const uint8_t *cookie)
{
	uint8_t context[TRANSCRIPT_AT + sizeof(T1) + 4 + ACCORD_COOKIE_BYTES] = {0,
	                                                                         0,
	                                                                         0,
	                                                                         4 + sizeof(T1) + 4 + ACCORD_COOKIE_BYTES,
	                                                                         ACCORD_TLV_TRANSCRIPT >> 8,
	                                                                         ACCORD_TLV_TRANSCRIPT & 0xff,
	                                                                         0,
	                                                                         sizeof(T1)};
	uint8_t *repeat = context + TRANSCRIPT_AT + sizeof(T1);

	memcpy(context + TRANSCRIPT_AT, T1, sizeof(T1));
	repeat[0] = ACCORD_TLV_REPEAT >> 8;
	repeat[1] = ACCORD_TLV_REPEAT & 0xff;
	repeat[3] = ACCORD_COOKIE_BYTES;
	memcpy(repeat + 4, cookie, ACCORD_COOKIE_BYTES);
	craft_header(craft, numbered_id(number), ACCORD_STEP_COMMIT, END, OFFSET);
	craft_acknowledge(craft, 0x10000001, 1);
	craft_chunk(craft, 1, F | L, ACCORD_PROTOCOL_TCP, LEAF, sizeof(LEAF));
	craft_chunk(craft, 0, F | L, ACCORD_PROTOCOL_UDP, context, sizeof(context));
}

static int repeat_commit(struct bench *bench, uint8_t number, const uint8_t *cookie)
{
	struct craft craft;

	craft_repeating(&craft, number, cookie);
	return give(bench, &craft);
}

static void begin_machine(struct bench *bench, uint32_t machine)
{
	bench_begin_with(bench, (struct accord_engine_config){.transactions = 4,
	                                                      .unproven = 2,
	                                                      .buffers = 64,
	                                                      .buffer_bytes = 1200,
	                                                      .events = 128,
	                                                      .strangers_per_second = 1000,
	                                                      .slots = 3,
	                                                      .machine = machine});
	accord_engine_cookies(bench->engine, &BENCH_RING);
	accord_engine_level(bench->engine, bench->now, ACCORD_LEVEL_ANSWER);
}

static void a_commit_for_another_machine_s_slot_is_told_so_in_fewer_bytes_and_for_an_own_one_nothing(void)
{
	static const uint32_t reasons[] = {ACCORD_REASON_SLOT_GONE, ACCORD_REASON_OTHER_MACHINE};

	for (uint32_t other = 0; other < 2; other++) {
		struct accord_packet_out out[4];
		uint8_t cookie[ACCORD_COOKIE_BYTES];
		struct bench here, there;
		struct packet packet;
		struct craft craft;

		begin_machine(&here, 7);
		begin_machine(&there, 7 + other);
		CHECK_EQUAL(accord_engine_token(here.engine, &here.path, numbered_id(1), ACCORD_COOKIE_SLOT, 0, cookie), 0);
		craft_repeating(&craft, 1, cookie);
		CHECK_EQUAL(give(&there, &craft), -(int)reasons[other]);
		CHECK_EQUAL(accord_engine_output(there.engine, there.now, out, 4), other);
		if (!other) { /* it may be a repetition of one that was taken */
			bench_end(&here);
			bench_end(&there);
			continue;
		}
		CHECK(out[0].length < craft.length);
		CHECK_EQUAL(packet_parse(&packet, out[0].data, out[0].length), ACCORD_REASON_OK);
		CHECK_EQUAL(packet.step, 3);
		CHECK_EQUAL(packet.offset, 1); /* behind the answer */
		CHECK_EQUAL(packet.ack_count, OFFSET + 1);
		CHECK_EQUAL(packet.chunks[0].data[packet.chunks[0].length - 1], reasons[other]);
		take_events(&there);
		CHECK_EQUAL(there.count, 0);
		craft_repeating(&craft, 1, cookie);
		craft.bytes[3] &= (uint8_t)~2; /* it says nothing of the answer's packets */
		memset(craft.bytes + 24, 0, 6);
		give(&there, &craft);
		CHECK_EQUAL(accord_engine_output(there.engine, there.now, out, 4), 0);
		bench_end(&here);
		bench_end(&there);
	}
}

static void a_commit_that_brings_its_proposal_comes_up_wherever_the_key_is(void)
{
	uint8_t cookie[ACCORD_COOKIE_BYTES], seeds[2][ACCORD_SLOT_SEED];
	struct bench here, there;
	struct craft craft;
	uint32_t packets;

	begin_machine(&here, 7);
	begin_machine(&there, 8);
	CHECK_EQUAL(accord_engine_token(here.engine, &here.path, numbered_id(1), ACCORD_COOKIE_ANSWER, 0x01020304, cookie),
	            0);
	CHECK_EQUAL(accord_engine_token_seed(here.engine, &here.path, numbered_id(1), cookie, seeds[0]), 0);
	CHECK_EQUAL(accord_engine_token_seed(there.engine, &there.path, numbered_id(1), cookie, seeds[1]), 0);
	CHECK(!memcmp(seeds[0], seeds[1], sizeof(seeds[0])));
	CHECK(memcmp(seeds[0], seeds[0] + 8, 8) != 0 && memcmp(seeds[0], cookie + 8, 8) != 0);
	craft_repeating(&craft, 1, cookie);
	CHECK_EQUAL(give(&there, &craft), 0);
	take_events(&there);
	CHECK_EQUAL(count_events(&there, ACCORD_EVENT_RETURNED), 1);
	CHECK_EQUAL(there.events[0].handle, 0);
	CHECK_EQUAL(accord_engine_settle_token(there.engine, there.now, &there.path, 1, there.events[0].data,
	                                       there.events[0].length),
	            0);
	drain(&there, &packets);
	CHECK_EQUAL(packets, 1);
	for (uint32_t second = 0; second < 13; second++) { /* the cookie's life, and longer: never a second time */
		there.now += SECOND;
		CHECK_EQUAL(give(&there, &craft), -ACCORD_REASON_DUPLICATE);
		drain(&there, &packets);
	}
	take_events(&there);
	CHECK_EQUAL(there.count, 0);
	there.now += 20 * SECOND;
	drain(&there, &packets);
	bench_end(&here);
	bench_end(&there);
}

static void a_cookie_in_a_commit_is_good_for_one_address_transaction_kind_and_time(void)
{
	uint8_t cookie[ACCORD_COOKIE_BYTES], bent[ACCORD_COOKIE_BYTES], seed[ACCORD_SLOT_SEED];
	struct accord_cookie_ring ring = BENCH_RING;
	struct accord_path home;
	struct bench bench;

	begin_machine(&bench, 7);
	home = bench.path;
	CHECK_EQUAL(accord_engine_token(bench.engine, &home, numbered_id(1), ACCORD_COOKIE_ANSWER, 1, cookie), 0);
	for (uint32_t bit = 0; bit < 8 * sizeof(cookie); bit++) {
		int result;

		memcpy(bent, cookie, sizeof(bent));
		bent[bit / 8] ^= (uint8_t)(1u << bit % 8);
		result = repeat_commit(&bench, 1, bent);
		CHECK(result == -ACCORD_REASON_BAD_COOKIE || result == -ACCORD_REASON_UNKNOWN_TRANSACTION);
		CHECK_EQUAL(accord_engine_token_seed(bench.engine, &home, numbered_id(1), bent, seed),
		            -ACCORD_REASON_BAD_COOKIE);
	}
	CHECK_EQUAL(repeat_commit(&bench, 2, cookie), -ACCORD_REASON_BAD_COOKIE);
	bench.path.remote[3] ^= 1;
	CHECK_EQUAL(repeat_commit(&bench, 1, cookie), -ACCORD_REASON_BAD_COOKIE);
	bench.path = home;
	bench.path.remote_port ^= 1;
	CHECK_EQUAL(repeat_commit(&bench, 1, cookie), -ACCORD_REASON_BAD_COOKIE);
	bench.path = home;
	bench.path.local[3] ^= 1;
	CHECK_EQUAL(repeat_commit(&bench, 1, cookie), -ACCORD_REASON_BAD_COOKIE);
	bench.path = home;
	/* A challenge's cookie is none of these. */
	cookie_token(&BENCH_RING, &home, numbered_id(1), ACCORD_COOKIE_ADDRESS, 1, bent);
	CHECK_EQUAL(repeat_commit(&bench, 1, bent), -ACCORD_REASON_BAD_COOKIE);
	ring.slot += ACCORD_COOKIE_SLOTS + 1; /* expired */
	accord_engine_cookies(bench.engine, &ring);
	CHECK_EQUAL(repeat_commit(&bench, 1, cookie), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	ring = BENCH_RING;
	ring.keys[0].id++; /* of a key that nobody here has */
	accord_engine_cookies(bench.engine, &ring);
	CHECK_EQUAL(repeat_commit(&bench, 1, cookie), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	accord_engine_cookies(bench.engine, &BENCH_RING);
	CHECK_EQUAL(repeat_commit(&bench, 1, cookie), 0);
	take_events(&bench);
	CHECK_EQUAL(bench.count, 1);
	bench_end(&bench);
}

static void commits_that_bring_cookies_spend_the_budget(void)
{
	uint8_t cookie[ACCORD_COOKIE_BYTES];
	struct bench bench;
	uint32_t taken = 0;

	begin_machine(&bench, 7);
	CHECK_EQUAL(accord_engine_token(bench.engine, &bench.path, numbered_id(1), ACCORD_COOKIE_ANSWER, 1, cookie), 0);
	for (uint32_t i = 0; i < 1100; i++) {
		int result = repeat_commit(&bench, 1, cookie);

		CHECK_EQUAL(result, i < 1000 ? 0 : -ACCORD_REASON_OVER_BUDGET);
		take_events(&bench);
		taken += bench.count;
	}
	CHECK_EQUAL(taken, 1000);
	bench_end(&bench);
}

/* What the flight of one packet is read as. */
static int read_one(struct bench *bench, const struct craft *craft, uint32_t length, struct accord_node_in *nodes)
{
	static uint8_t room[ACCORD_FLIGHT_BYTES];
	uint8_t flight[ACCORD_FLIGHT_BYTES];
	struct craft cut = *craft;

	cut.length = length;
	return accord_engine_read(bench->engine, flight, (uint32_t)(craft_flight(&cut, flight) - flight), nodes, room);
}

static void the_nodes_of_a_packet_are_read_and_composed_as_the_specification_has_them(void)
{
	const struct accord_node_out out[] = {{0, ACCORD_PROTOCOL_UDP, sizeof(CONTEXT), CONTEXT},
	                                      {1, ACCORD_PROTOCOL_TCP, sizeof(LEAF), LEAF}};
	struct accord_node_in nodes[ACCORD_MAX_NODES];
	uint8_t composed[ACCORD_FLIGHT_BYTES];
	struct craft craft;
	struct bench bench;
	int length;

	bench_begin_answering(&bench);
	craft_header(&craft, ID, 1, END, 0);
	craft_acknowledge(&craft, 0xfffffffe, 1);
	craft_chunk(&craft, 0, F | L, ACCORD_PROTOCOL_UDP, CONTEXT, sizeof(CONTEXT));
	craft_chunk(&craft, 1, F | L, ACCORD_PROTOCOL_TCP, LEAF, sizeof(LEAF));
	craft_seal(&craft);
	length = accord_flight_compose(ID, 1, 0, 1, out, 2, composed, sizeof(composed));
	CHECK_EQUAL(length, 2 + craft.length);
	CHECK(memcmp(composed + 2, craft.bytes, craft.length) == 0);
	for (uint32_t room = 0; room < 2 + craft.length; room++)
		CHECK_EQUAL(accord_flight_compose(ID, 1, 0, 1, out, 2, composed, room), -ACCORD_REASON_MESSAGE_TOO_LONG);

	craft_proposal(&craft, ID);
	craft_chunk(&craft, 7, F | L, 0x7e000001, "any", 3);
	craft_chunk(&craft, ACCORD_NODE_PADDING, F | L, ACCORD_PROTOCOL_PADDING, "....", 4);
	craft_seal(&craft);
	CHECK_EQUAL(read_one(&bench, &craft, craft.length, nodes), 3);
	CHECK(nodes[0].stored && nodes[1].stored && !nodes[2].stored);
	CHECK_EQUAL(nodes[1].protocol, ACCORD_PROTOCOL_TCP);
	CHECK(nodes[1].length == sizeof(LEAF) && memcmp(nodes[1].data, LEAF, sizeof(LEAF)) == 0);
	CHECK_EQUAL(nodes[2].node, 7);
	for (uint32_t cut = 0; cut < craft.length; cut++)
		CHECK(read_one(&bench, &craft, cut, nodes) < 0);

	craft_header(&craft, ID, 0, 0, 0);
	craft_chunk(&craft, 0, F | L, ACCORD_PROTOCOL_UDP, CONTEXT, sizeof(CONTEXT));
	craft_seal(&craft);
	CHECK_EQUAL(read_one(&bench, &craft, craft.length, nodes), -ACCORD_REASON_BAD_FLAGS);
	craft_header(&craft, ID, 0, END, 0);
	craft_chunk(&craft, 0, F, ACCORD_PROTOCOL_UDP, CONTEXT, sizeof(CONTEXT));
	craft_seal(&craft);
	CHECK_EQUAL(read_one(&bench, &craft, craft.length, nodes), -ACCORD_REASON_BAD_CHUNK);
	craft_header(&craft, ID, 0, END, 0);
	craft_chunk(&craft, 1, F | L, ACCORD_PROTOCOL_TCP, "\1", 1);
	craft_seal(&craft);
	CHECK_EQUAL(read_one(&bench, &craft, craft.length, nodes), -ACCORD_REASON_BAD_DESCRIPTOR);
	bench_end(&bench);
}

static void who_knows_how_long_the_answer_is_makes_room_for_it_in_one_packet(void)
{
	const struct accord_node_out out[] = {{0, ACCORD_PROTOCOL_UDP, sizeof(CONTEXT), CONTEXT},
	                                      {1, ACCORD_PROTOCOL_TCP, sizeof(LEAF), LEAF}};
	/* IP bytes of the last answer, and of the proposal after it. */
	static const uint32_t expected[][2] = {{0, 61}, {60, 61}, {1000, 1200}, {1228, 1200}, {1229, 61}};

	for (uint32_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		struct accord_packet_out packet;
		struct bench bench;
		uint32_t packets;
		int64_t handle;

		bench_begin_answering(&bench);
		handle = accord_engine_open(bench.engine, bench.now, ID, &bench.path);
		accord_engine_expect(bench.engine, (uint32_t)handle, expected[i][0]);
		CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, (uint32_t)handle, 0, out, 2, 0), 0);
		CHECK(accord_engine_output(bench.engine, bench.now, &packet, 1) == 1);
		CHECK_EQUAL(packet.length, expected[i][1]);
		drain(&bench, &packets);
		bench.handle = (uint32_t)handle;
		bench_end(&bench);
	}
}

int main(void)
{
	RUN(a_commit_that_knows_the_answer_comes_up_with_its_slot);
	RUN(a_slot_ends_in_its_time_though_nobody_comes);
	RUN(who_does_not_know_the_answer_or_is_elsewhere_gets_silence);
	RUN(a_verified_commit_empties_its_slot_and_its_repetitions_are_acknowledged);
	RUN(three_wrong_commits_empty_a_slot_and_two_do_not);
	RUN(slots_are_as_many_as_they_are_and_live_for_ten_seconds);
	RUN(a_commit_is_used_even_when_no_transaction_is_free_to_acknowledge_it);
	RUN(a_commit_for_another_machine_s_slot_is_told_so_in_fewer_bytes_and_for_an_own_one_nothing);
	RUN(a_commit_that_brings_its_proposal_comes_up_wherever_the_key_is);
	RUN(a_cookie_in_a_commit_is_good_for_one_address_transaction_kind_and_time);
	RUN(commits_that_bring_cookies_spend_the_budget);
	RUN(the_nodes_of_a_packet_are_read_and_composed_as_the_specification_has_them);
	RUN(who_knows_how_long_the_answer_is_makes_room_for_it_in_one_packet);
	return check_report("test_unkept");
}
