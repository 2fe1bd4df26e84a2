// SPDX-License-Identifier: Apache-2.0
/* Places by network: what one may have, and what is left for the others, by quota and by cookie. */
#include "strangers.h"

static void one_network_cannot_take_every_place_and_is_not_shut_out_either(void)
{
	uint8_t cookie[ACCORD_COOKIE_BYTES];
	struct bench bench;
	struct craft craft;

	begin(&bench, 0);
	for (uint32_t i = 0; i < 4; i++) {
		from(&bench, 5);
		bench.path.remote[3] = (uint8_t)i; /* hosts of one /24 */
		craft_proposal(&craft, numbered(i));
		CHECK_EQUAL(give(&bench, &craft), i < 3 ? 0 : -ACCORD_REASON_CHALLENGED);
	}
	CHECK(challenged(&bench, numbered(3), cookie));
	craft_proposal(&craft, numbered(3));
	put_cookie(&craft, cookie);
	CHECK_EQUAL(give(&bench, &craft), 0);
	CHECK_EQUAL(propose(&bench, 6), 0); /* another network has its place */
	take_events(&bench);
	close_all(&bench);
}

static void addresses_that_are_proven_are_held_to_their_networks_share_until_they_commit(void)
{
	uint8_t cookie[ACCORD_COOKIE_BYTES];
	struct bench bench;
	struct craft craft;

	begin(&bench, 0);
	accord_engine_level(bench.engine, bench.now, ACCORD_LEVEL_COOKIE);
	for (uint32_t i = 0; i < 4; i++) {
		from(&bench, 5);
		craft_proposal(&craft, numbered(i));
		CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_CHALLENGED);
		CHECK(challenged(&bench, numbered(i), cookie));
		craft_proposal(&craft, numbered(i));
		put_cookie(&craft, cookie);
		CHECK_EQUAL(give(&bench, &craft), i == 2 ? -ACCORD_REASON_OVER_BUDGET : 0);
		take_events(&bench);
		if (i == 2) /* the second one commits */
			accord_engine_prove(bench.engine, bench.handle);
	}
	close_all(&bench);
}

/* The cookie's bearer, from a host of that network: of a negotiation of its own. */
static int bear(struct bench *bench, uint32_t network, uint32_t number)
{
	uint8_t cookie[ACCORD_COOKIE_BYTES];
	struct packet packet;
	struct craft craft;

	from(bench, network);
	bench->path.remote[3] = (uint8_t)number;
	craft_proposal(&craft, numbered(number));
	parse(&packet, &craft);
	cookie_make(&RING, &bench->path, &packet, cookie);
	put_cookie(&craft, cookie);
	return give(bench, &craft);
}

/* Whoever is told takes them all. Returns how many had begun since. */
static uint32_t opened(struct bench *bench)
{
	uint32_t count = 0;

	do {
		take_events(bench);
		count += count_events(bench, ACCORD_EVENT_OPENED);
	} while (bench->count);
	return count;
}

/* networks: hostile ones, each of which asks for all that there is, round after round. Returns what they hold. */
static uint32_t overrun(struct bench *bench, uint32_t networks, uint32_t rounds, uint32_t number)
{
	uint32_t held = 0;

	for (uint32_t round = 0; round < rounds; round++) {
		for (uint32_t i = 0; i < 64; i++)
			for (uint32_t network = 0; network < networks; network++) {
				int result = bear(bench, 100 + network, number++);

				CHECK(result == 0 || result == -ACCORD_REASON_OVER_BUDGET);
				held += result == 0;
			}
		opened(bench);
	}
	return held;
}

static const struct accord_engine_config LARGE = {.transactions = 1024,
                                                  .unproven = 256,
                                                  .buffers = 8192,
                                                  .events = 4096};

static void whoever_proves_addresses_in_some_networks_leaves_room_for_others(void)
{
	for (uint32_t networks = 1; networks <= 16; networks *= 2) {
		struct bench bench;
		uint32_t held;

		bench_begin_with(&bench, LARGE);
		accord_engine_cookies(bench.engine, &RING);
		held = overrun(&bench, networks, 40, 0);
		CHECK(held >= (networks == 1 ? 64u : 85u)); /* nobody is banned: a sixteenth of all, a third of theirs */
		CHECK(held < 256);
		CHECK_EQUAL(overrun(&bench, networks, 2, 50000), 0); /* whatever they go on with */
		for (uint32_t i = 0; i < 4; i++)
			CHECK_EQUAL(bear(&bench, 7, 60000 + i), 0); /* four hosts of somebody else's, behind one translator */
		CHECK_EQUAL(opened(&bench), 4);
		CHECK_EQUAL(bench.engine->table.unproven, 0);
		for (uint32_t i = 0; i < 64; i++)
			CHECK_EQUAL(propose(&bench, 61000 + i), 0); /* and all who come without a cookie */
		opened(&bench);
		close_all(&bench);
	}
}

static void who_has_committed_is_in_nobody_s_way(void)
{
	struct bench bench;

	bench_begin_with(&bench, LARGE);
	accord_engine_cookies(bench.engine, &RING);
	for (uint32_t i = 0; i < 500; i++) {
		CHECK_EQUAL(bear(&bench, 7, i), 0);
		take_events(&bench);
		accord_engine_prove(bench.engine, bench.handle);
		opened(&bench);
	}
	close_all(&bench);
}

static void before_the_user_looks_again_it_has_little_to_answer_and_something_of_each_network(void)
{
	struct bench bench;
	uint32_t begun = 0;

	bench_begin_with(&bench, LARGE);
	accord_engine_cookies(bench.engine, &RING);
	for (uint32_t i = 0; i < 1000; i++)
		begun += bear(&bench, 100 + i % 4, i) == 0;
	CHECK(begun >= 4 && begun < TRANSACTION_UNTOLD);
	CHECK_EQUAL(bear(&bench, 7, 2000), 0);
	CHECK_EQUAL(opened(&bench), begun + 1);
	CHECK_EQUAL(bench.engine->table.untold, 0);
	CHECK_EQUAL(bear(&bench, 100, 3000), 0); /* and now there is room again */
	close_all(&bench);
}

int main(void)
{
	RUN(one_network_cannot_take_every_place_and_is_not_shut_out_either);
	RUN(addresses_that_are_proven_are_held_to_their_networks_share_until_they_commit);
	RUN(whoever_proves_addresses_in_some_networks_leaves_room_for_others);
	RUN(who_has_committed_is_in_nobody_s_way);
	RUN(before_the_user_looks_again_it_has_little_to_answer_and_something_of_each_network);
	return check_report("test_networks");
}
