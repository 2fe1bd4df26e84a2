// SPDX-License-Identifier: Apache-2.0
/* Long answers to an address that is not proven; what is remembered of a path. */
#include "check.h"
#include "engine.h"
#include "world.h"

enum {
	MS = 1000,
	LONG = 21500, /* a server flight with 20 KiB of certificates */
};

static void script(struct world *world, uint32_t proposal, uint32_t answer, uint32_t expected)
{
	struct accord_engine_config config = {.transactions = 4, .buffers = 512, .events = 512};

	world_begin(world, &config);
	world->one_way = 50 * MS;
	world->sides[RESPONDER].proven_late = true;
	for (uint32_t step = 0; step < 3; step++) {
		uint32_t length = step == 0 ? proposal : step == 1 ? answer : 200;

		world_node(world, step, 0, 17, 40);
		world_node(world, step, 1, 6, length);
	}
	world->expected = expected;
	world_start(world);
}

/* Milliseconds until the initiator has the whole answer; 0: never. */
static uint64_t answered_after(struct world *world)
{
	uint64_t begin = world->now;

	while (!world->sides[INITIATOR].messages[1] && world->now - begin < 9000 * MS)
		world_run(world, MS);
	return world->sides[INITIATOR].messages[1] ? (world->now - begin) / MS : 0;
}

static bool within_the_limit(const struct world *world)
{
	const struct accord_engine *engine = world->sides[RESPONDER].engine;
	bool within = true;

	for (uint32_t slot = 0; slot < engine->table.count; slot++) {
		const struct transaction *transaction = &engine->table.slots[slot];

		if (transaction->state != TRANSACTION_FREE && transaction->share.unproven)
			within &= transaction->wire_sent <= ACCORD_AMPLIFICATION * transaction->wire_received;
	}
	return within;
}

static void a_long_answer_to_a_short_proposal_takes_few_round_trips(void)
{
	static const struct {
		uint32_t proposal, answer, round_trips;
	} table[] = {{1700, LONG, 3}, {1700, 60000, 5}, {600, LONG, 4}, {100, LONG, 9}, {1700, 3000, 1}};

	for (int i = 0; i < 5; i++) {
		struct world world;
		uint64_t taken;

		script(&world, table[i].proposal, table[i].answer, 0);
		taken = answered_after(&world);
		CHECK(within_the_limit(&world));
		CHECK(taken > 0 && taken <= table[i].round_trips * 100 + 60);
		world_run(&world, 1000 * MS);
		CHECK(world_done(&world));
		world_end(&world);
	}
}

static void nothing_is_repeated_for_an_answer_that_fits(void)
{
	static const uint32_t answers[] = {10, 600, 1700, 2300, 4000};

	for (int i = 0; i < 5; i++) {
		struct accord_transaction_info info;
		struct world world;

		script(&world, 1700, answers[i], 0);
		world_run(&world, 1000 * MS);
		CHECK(world_done(&world));
		CHECK_EQUAL(accord_engine_info(world.sides[INITIATOR].engine, world.sides[INITIATOR].handle, &info), 0);
		CHECK_EQUAL(info.retransmitted, 0);
		world_end(&world);
	}
}

static void an_initiator_repeats_no_more_than_came(void)
{
	uint64_t random = 11;

	for (int i = 0; i < 60; i++) {
		struct accord_transaction_info info;
		struct world world;

		script(&world, 200 + test_below(&random, 3000), 4000 + test_below(&random, 56000), 0);
		world.loss = test_random(&random);
		world.loss &= test_random(&random);
		world.loss &= test_random(&random);
		CHECK(answered_after(&world) > 0);
		CHECK(within_the_limit(&world));
		accord_engine_info(world.sides[INITIATOR].engine, world.sides[INITIATOR].handle, &info);
		CHECK(info.bytes_sent <= info.bytes_received + 16 * ACCORD_MIN_MTU_PACKET); /* the proposal, and probes */
		world_run(&world, 8000 * MS); /* until the last acknowledgement is through */
		CHECK(world_done(&world));
		world_end(&world);
	}
}

static void a_path_that_carried_a_long_answer_carries_the_next_one_in_one_round_trip(void)
{
	uint32_t before = 0;
	struct world world;

	script(&world, 1700, LONG, 0);
	CHECK(answered_after(&world) > 200);
	world_run(&world, 500 * MS);
	world_close(&world, 0);
	for (int again = 0; again < 3; again++) {
		uint64_t taken;

		for (int side = 0; side < 2; side++)
			memset(world.sides[side].messages, 0, sizeof(world.sides[side].messages));
		world.id[0]++;
		world.expected = 23300;
		world_start(&world);
		taken = answered_after(&world);
		CHECK(taken >= 100 && taken < 125);
		CHECK(within_the_limit(&world));
		world_run(&world, 500 * MS);
		before = world.sides[RESPONDER].wrong + world.sides[INITIATOR].wrong;
		CHECK_EQUAL(before, 0);
		world_close(&world, 0);
	}
	world_end(&world);
}

static void an_expected_answer_comes_in_one_round_trip_though_part_of_the_proposal_is_lost(void)
{
	/* Any two of the six or more packets, as long as they are not the same one. */
	for (uint32_t lost = 0; lost < 4; lost++) {
		struct accord_transaction_info info;
		struct world world;

		script(&world, 1700, 9500, 10500);
		world.loss = UINT64_C(1) << lost;
		CHECK(answered_after(&world) == 100);
		CHECK(within_the_limit(&world));
		CHECK_EQUAL(accord_engine_info(world.sides[INITIATOR].engine, world.sides[INITIATOR].handle, &info), 0);
		CHECK(info.retransmitted >= 2 && info.packets_sent <= ACCORD_INITIAL_WINDOW);
		world_run(&world, 500 * MS);
		CHECK(world_done(&world));
		world_end(&world);
	}
}

/* Packets of the negotiation, both sides'. */
static uint32_t packets_of(const struct world *world)
{
	uint32_t packets = 0;

	for (int side = 0; side < 2; side++) {
		struct accord_transaction_info info;

		CHECK_EQUAL(accord_engine_info(world->sides[side].engine, world->sides[side].handle, &info), 0);
		packets += info.packets_sent;
		CHECK_EQUAL(info.retransmitted, 0);
	}
	return packets;
}

static void what_is_expected_and_fits_changes_nothing(void)
{
	/* Of short proposals as of long ones, up to the last bytes that they make room for: what each message takes, and
	 * the acknowledgement of the commit. */
	static const struct {
		uint32_t proposal, answer, packets;
	} table[] = {{1700, 2300, 7}, {140, 10, 4}, {140, 400, 4}, {300, 1000, 4}, {900, 2200, 5}};

	for (int i = 0; i < 5; i++) {
		struct accord_transaction_info info;
		struct world world;
		uint32_t took;

		script(&world, table[i].proposal, table[i].answer, 0);
		world_run(&world, 500 * MS);
		CHECK(world_done(&world));
		CHECK_EQUAL(accord_engine_info(world.sides[INITIATOR].engine, world.sides[INITIATOR].handle, &info), 0);
		took = (uint32_t)info.bytes_received + 28 * info.packets_received; /* as whoever asks next is told */
		world_end(&world);

		script(&world, table[i].proposal, table[i].answer, took);
		world_run(&world, 500 * MS);
		CHECK(world_done(&world));
		CHECK_EQUAL(packets_of(&world), table[i].packets);
		CHECK_EQUAL(accord_engine_expect(world.sides[INITIATOR].engine, 12345, 1), -ACCORD_REASON_UNKNOWN_TRANSACTION);
		world_end(&world);
	}
}

static void a_window_is_remembered_of_proven_peers_for_a_while_and_shrinks_by_losses(void)
{
	struct accord_path path = test_path(4, true), other = test_path(6, true);
	static struct remembered remembered;
	struct recovery recovery, next;

	recovery_init(&recovery, ACCORD_CONGESTION_NEWRENO, 40);
	recovery_init(&next, ACCORD_CONGESTION_NEWRENO, ACCORD_INITIAL_WINDOW);
	remembered_learn(&remembered, 7, 1000, &path, &recovery);
	remembered_apply(&remembered, 7, 1000, &path, &next);
	CHECK_EQUAL(next.congestion.window, ACCORD_INITIAL_WINDOW); /* without a sample nothing was seen */
	recovery_on_sample(&recovery, 100 * MS, 1);
	remembered_learn(&remembered, 7, 1000, &path, &recovery);
	remembered_apply(&remembered, 7, 1000, &other, &next);
	CHECK_EQUAL(next.congestion.window, ACCORD_INITIAL_WINDOW);
	remembered_apply(&remembered, 7, 1001 + REMEMBERED_US, &path, &next);
	CHECK_EQUAL(next.congestion.window, ACCORD_INITIAL_WINDOW);
	remembered_apply(&remembered, 7, 1000 + REMEMBERED_US, &path, &next);
	CHECK_EQUAL(next.congestion.window, 40);
	CHECK_EQUAL(next.remembered_us, 100 * MS);
	CHECK_EQUAL(recovery_pto(&next), 100 * MS + 200 * MS + RECOVERY_MAX_ACK_DELAY_US);
	next.remembered_us = 100; /* of a near peer, that may be busy */
	CHECK_EQUAL(recovery_pto(&next), 50 * MS + 100 * MS + RECOVERY_MAX_ACK_DELAY_US);
	congestion_on_lost(&recovery.congestion, 5, 6);
	recovery.congestion.window = 35; /* grown again since */
	remembered_learn(&remembered, 7, 1000, &path, &recovery);
	remembered_apply(&remembered, 7, 1000, &path, &next);
	CHECK_EQUAL(next.congestion.window, 30); /* half of the way from 40 to the 20 that were not too much */
	recovery.congestion.threshold = UINT32_MAX;
	recovery.congestion.window = 256;
	remembered_learn(&remembered, 7, 1000, &path, &recovery);
	remembered_apply(&remembered, 7, 1000, &path, &next);
	CHECK_EQUAL(next.congestion.window, REMEMBERED_MAX_WINDOW);
	recovery.congestion.window = 5;
	remembered_learn(&remembered, 7, 1000, &path, &recovery);
	recovery_init(&next, ACCORD_CONGESTION_NEWRENO, ACCORD_INITIAL_WINDOW);
	remembered_apply(&remembered, 7, 1000, &path, &next);
	CHECK_EQUAL(next.congestion.window, (REMEMBERED_MAX_WINDOW + 5 + 1) / 2);
	for (int i = 0; i < 10; i++)
		remembered_learn(&remembered, 7, 1000, &path, &recovery);
	remembered_apply(&remembered, 7, 1000, &path, &next);
	CHECK_EQUAL(next.congestion.window, ACCORD_INITIAL_WINDOW);
}

static void nothing_is_remembered_of_a_peer_that_has_not_proven_its_address(void)
{
	struct accord_transaction_info info;
	struct world world;

	script(&world, 1700, LONG, 23300);
	world.steps = 2; /* no commit */
	CHECK(answered_after(&world) > 0);
	world_close(&world, 0);
	world.id[0]++;
	world_start(&world);
	world_run(&world, 60 * MS);
	CHECK_EQUAL(accord_engine_info(world.sides[RESPONDER].engine, world.sides[RESPONDER].handle, &info), 0);
	CHECK_EQUAL(info.window, ACCORD_INITIAL_WINDOW);
	world_end(&world);
}

int main(void)
{
	RUN(a_long_answer_to_a_short_proposal_takes_few_round_trips);
	RUN(nothing_is_repeated_for_an_answer_that_fits);
	RUN(an_initiator_repeats_no_more_than_came);
	RUN(a_path_that_carried_a_long_answer_carries_the_next_one_in_one_round_trip);
	RUN(an_expected_answer_comes_in_one_round_trip_though_part_of_the_proposal_is_lost);
	RUN(what_is_expected_and_fits_changes_nothing);
	RUN(a_window_is_remembered_of_proven_peers_for_a_while_and_shrinks_by_losses);
	RUN(nothing_is_remembered_of_a_peer_that_has_not_proven_its_address);
	return check_report("test_unproven");
}
