// SPDX-License-Identifier: Apache-2.0
/* Challenges, at initiators: what they cost, and which are answered. */
#include "strangers.h"

static void script(struct world *world, uint32_t proposal)
{
	struct accord_engine_config config = {.transactions = 8, .unproven = 2, .buffers = 512, .events = 512};

	world_begin(world, &config);
	world->sides[RESPONDER].proven_late = true;
	for (uint32_t step = 0; step < 3; step++) {
		world_node(world, step, 0, 17, 40);
		world_node(world, step, 1, 6, step == 0 ? proposal : 300);
	}
	accord_engine_cookies(world->sides[RESPONDER].engine, &RING);
	accord_engine_level(world->sides[RESPONDER].engine, world->now, ACCORD_LEVEL_COOKIE);
}

static void a_challenge_costs_one_round_trip_and_nothing_else(void)
{
	static const uint32_t lengths[] = {100, 1140, 1200, 3000, 11000};

	for (int i = 0; i < 5; i++) {
		struct world world;
		uint64_t began;

		script(&world, lengths[i]);
		world_start(&world);
		began = world.now;
		while (!world.sides[INITIATOR].messages[1] && world.now - began < 9 * SECOND)
			world_run(&world, MS);
		CHECK(world.now - began <= 4 * world.one_way + 30 * MS); /* two round trips */
		world_run(&world, SECOND);
		CHECK(world_done(&world));
		CHECK_EQUAL(world.sides[INITIATOR].wrong + world.sides[RESPONDER].wrong, 0);
		CHECK_EQUAL(world_counter(&world, RESPONDER, ACCORD_REASON_CHALLENGED), 1);
		CHECK_EQUAL(world_counter(&world, INITIATOR, ACCORD_REASON_CHALLENGED), 1);
		world_end(&world);
	}
}

static void every_loss_of_a_challenged_negotiation_is_made_good(void)
{
	for (uint64_t loss = 1; loss < 1 << 10; loss++) {
		struct world world;

		if (loss % 3 && loss > 64)
			continue;
		script(&world, 1900);
		world.loss = loss;
		world_start(&world);
		world_run(&world, 9500 * MS);
		CHECK(world_done(&world) || world.sides[INITIATOR].failed || world.sides[RESPONDER].failed);
		if (__builtin_popcountll(loss) <= 3)
			CHECK(world_done(&world));
		CHECK_EQUAL(world.sides[INITIATOR].wrong + world.sides[RESPONDER].wrong, 0);
		CHECK_EQUAL(world.sides[RESPONDER].opened <= 1, 1);
		world_end(&world);
	}
}

static void challenge_initiator(struct world *world, const uint8_t *id, uint8_t fill, struct accord_path path,
                                int result)
{
	struct accord_engine *engine = world->sides[INITIATOR].engine;
	uint8_t cookie[ACCORD_COOKIE_BYTES];
	struct craft craft;

	memset(cookie, fill, sizeof(cookie));
	craft_header(&craft, id, 1, 0x0010, 0);
	memcpy(craft.bytes + 32, cookie, sizeof(cookie));
	craft.length = 48;
	craft_seal(&craft);
	CHECK_EQUAL(accord_engine_input(engine, world->now, &path, craft.bytes, craft.length), result);
}

static void an_initiator_answers_two_challenges_from_where_it_proposed_to_and_no_more(void)
{
	uint8_t guessed[ACCORD_TRANSACTION_BYTES];
	struct accord_path path, elsewhere;
	struct world world;

	script(&world, 100);
	path = elsewhere = world.sides[INITIATOR].path;
	elsewhere.remote[3] ^= 1;
	world_start(&world);
	challenge_initiator(&world, world.id, 1, path, -ACCORD_REASON_BAD_STEP); /* nothing is out yet */
	world_pump(&world);
	memcpy(guessed, world.id, sizeof(guessed));
	guessed[11] ^= 1;
	challenge_initiator(&world, guessed, 1, path, -ACCORD_REASON_UNKNOWN_TRANSACTION);
	challenge_initiator(&world, world.id, 1, elsewhere, -ACCORD_REASON_UNKNOWN_TRANSACTION);
	for (int i = 0; i < 6; i++)
		challenge_initiator(&world, world.id, (uint8_t)(2 + i), path,
		                    i < 2 ? -ACCORD_REASON_CHALLENGED : -ACCORD_REASON_BAD_STEP);
	world_end(&world);
}

static void an_answer_is_taken_whatever_was_challenged_before(void)
{
	struct world world;

	script(&world, 100);
	accord_engine_level(world.sides[RESPONDER].engine, world.now, ACCORD_LEVEL_STATE);
	world.sides[RESPONDER].engine->load.level = ACCORD_LEVEL_STATE;
	world_start(&world);
	world_pump(&world); /* on its way, without a cookie: there is a place for it */
	challenge_initiator(&world, world.id, 5, world.sides[INITIATOR].path, -ACCORD_REASON_CHALLENGED);
	challenge_initiator(&world, world.id, 6, world.sides[INITIATOR].path, -ACCORD_REASON_CHALLENGED);
	world_run(&world, 2 * SECOND);
	CHECK(world_done(&world));
	CHECK_EQUAL(world.sides[RESPONDER].opened, 1);
	world_end(&world);
}

int main(void)
{
	RUN(a_challenge_costs_one_round_trip_and_nothing_else);
	RUN(every_loss_of_a_challenged_negotiation_is_made_good);
	RUN(an_initiator_answers_two_challenges_from_where_it_proposed_to_and_no_more);
	RUN(an_answer_is_taken_whatever_was_challenged_before);
	return check_report("test_challenged");
}
