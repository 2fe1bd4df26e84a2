// SPDX-License-Identifier: Apache-2.0
/* What becomes of proposals that no transaction knows: places, cookies, silence, and the level of load. */
#include "strangers.h"

static void who_finds_no_place_is_asked_for_a_cookie_and_has_state_for_it(void)
{
	uint8_t cookie[ACCORD_COOKIE_BYTES];
	struct bench bench;
	struct craft craft;

	begin(&bench, 0);
	fill_places(&bench);
	CHECK_EQUAL(propose(&bench, 1), -ACCORD_REASON_CHALLENGED);
	CHECK_EQUAL(accord_engine_transactions(bench.engine), 4);
	CHECK_EQUAL(accord_engine_deadline(bench.engine), 0);
	CHECK(challenged(&bench, numbered(1), cookie));
	CHECK(!challenged(&bench, numbered(1), cookie));
	craft_proposal(&craft, numbered(1));
	put_cookie(&craft, cookie);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_OPENED), 1);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_NODE), 2);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_MESSAGE), 1);
	CHECK_EQUAL(bench.engine->table.unproven, 4);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_DUPLICATE); /* the same again is the same transaction */
	close_all(&bench);
}

static void a_cookie_proves_an_address_and_not_a_commit(void)
{
	struct accord_transaction_info info;
	uint8_t cookie[ACCORD_COOKIE_BYTES];
	struct bench bench;
	struct craft craft;
	uint32_t packets;

	begin(&bench, 0);
	accord_engine_level(bench.engine, bench.now, ACCORD_LEVEL_COOKIE);
	CHECK_EQUAL(propose(&bench, 1), -ACCORD_REASON_CHALLENGED);
	CHECK(challenged(&bench, numbered(1), cookie));
	craft_proposal(&craft, numbered(1));
	put_cookie(&craft, cookie);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(accord_engine_info(bench.engine, bench.handle, &info), 0);
	CHECK(info.proven);
	bench.now += 11 * SECOND;
	drain(&bench, &packets);
	take_events(&bench);
	CHECK_EQUAL(failure(&bench), ACCORD_REASON_LIFETIME); /* and so it does not stay for ever */
	close_all(&bench);
}

static void a_forged_cookie_gets_silence_at_every_level(void)
{
	uint8_t cookie[ACCORD_COOKIE_BYTES];
	struct bench bench;
	struct craft craft;

	begin(&bench, 0);
	for (uint32_t level = 0; level < ACCORD_LEVELS; level++) {
		struct packet packet;

		accord_engine_level(bench.engine, bench.now, level);
		from(&bench, 1);
		craft_proposal(&craft, numbered(1));
		parse(&packet, &craft);
		cookie_make(&RING, &bench.path, &packet, cookie);
		cookie[15] ^= 1;
		put_cookie(&craft, cookie);
		CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_BAD_COOKIE);
		CHECK_EQUAL(accord_engine_transactions(bench.engine), 0);
		CHECK(!challenged(&bench, numbered(1), cookie));
	}
	close_all(&bench);
}

static void a_cookie_of_a_forgotten_key_is_as_none(void)
{
	uint8_t cookie[ACCORD_COOKIE_BYTES] = {77, 1, 3, 0xe8};
	struct bench bench;
	struct craft craft;

	begin(&bench, 0);
	from(&bench, 1);
	craft_proposal(&craft, numbered(1));
	put_cookie(&craft, cookie);
	CHECK_EQUAL(give(&bench, &craft), 0); /* there is a place */
	accord_engine_level(bench.engine, bench.now, ACCORD_LEVEL_COOKIE);
	craft_proposal(&craft, numbered(2));
	put_cookie(&craft, cookie);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_CHALLENGED);
	close_all(&bench);
}

static void no_challenge_is_longer_than_what_it_answers(void)
{
	static const uint8_t data[64] = {0};
	struct bench bench;
	struct craft craft;
	uint32_t packets;

	begin(&bench, 0);
	accord_engine_level(bench.engine, bench.now, ACCORD_LEVEL_COOKIE);
	for (uint32_t length = 1; length <= sizeof(data); length++) {
		from(&bench, length);
		craft_header(&craft, numbered(length), 0, END, 0);
		craft_chunk(&craft, 0, F | L, ACCORD_PROTOCOL_UDP, data, length);
		give(&bench, &craft);
		CHECK_EQUAL(drain(&bench, &packets), craft.length < 48 ? 0 : 48);
	}
	close_all(&bench);
}

static void only_the_first_packet_of_a_proposal_is_challenged(void)
{
	struct bench bench;
	struct craft craft;
	uint32_t packets;

	begin(&bench, 0);
	accord_engine_level(bench.engine, bench.now, ACCORD_LEVEL_COOKIE);
	for (uint32_t offset = 0; offset < 5; offset++) {
		from(&bench, 1);
		craft_header(&craft, numbered(1), 0, END, offset);
		craft_chunk(&craft, 0, F | L, ACCORD_PROTOCOL_UDP, CONTEXT, sizeof(CONTEXT));
		craft_chunk(&craft, 1, F | L, ACCORD_PROTOCOL_TCP, LEAF, sizeof(LEAF));
		CHECK_EQUAL(give(&bench, &craft), offset ? -ACCORD_REASON_UNKNOWN_TRANSACTION : -ACCORD_REASON_CHALLENGED);
		drain(&bench, &packets);
		CHECK_EQUAL(packets, !offset);
	}
	for (uint8_t step = 1; step < ACCORD_MAX_STEPS; step++) {
		craft_header(&craft, numbered(1), step, END, 0);
		craft_chunk(&craft, 0, F | L, ACCORD_PROTOCOL_UDP, CONTEXT, sizeof(CONTEXT));
		CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	}
	close_all(&bench);
}

static void without_keys_there_is_silence_and_no_cap_on_a_network(void)
{
	static const struct accord_cookie_ring none;
	struct bench bench;
	struct craft craft;

	begin(&bench, 0);
	accord_engine_cookies(bench.engine, &none);
	for (uint32_t i = 0; i < 5; i++) {
		craft_proposal(&craft, numbered(i));
		CHECK_EQUAL(give(&bench, &craft), i < 4 ? 0 : -ACCORD_REASON_QUOTA);
	}
	CHECK_EQUAL(counted(&bench, ACCORD_REASON_CHALLENGED), 0);
	take_events(&bench);
	close_all(&bench);
}

static void at_level_one_whole_proposals_go_up_as_far_as_the_budget_goes(void)
{
	struct accord_engine_load load;
	struct bench bench;
	struct craft craft;
	uint32_t handed = 0;

	begin(&bench, 10);
	fill_places(&bench);
	for (uint32_t i = 0; i < 12; i++) {
		int result = propose(&bench, i);

		CHECK_EQUAL(result, i < 10 ? 0 : -ACCORD_REASON_CHALLENGED);
	}
	accord_engine_load(bench.engine, bench.now, &load);
	CHECK_EQUAL(load.level, ACCORD_LEVEL_COOKIE);
	CHECK_EQUAL(load.raised[ACCORD_LEVEL_ANSWER], 1);
	CHECK_EQUAL(load.raised[ACCORD_LEVEL_COOKIE], 1);
	CHECK_EQUAL(accord_engine_deadline(bench.engine), 0);
	take_events(&bench);
	for (uint32_t i = 0; i < bench.count; i++) {
		CHECK_EQUAL(bench.events[i].kind, ACCORD_EVENT_STRANGER);
		CHECK_EQUAL(bench.events[i].handle, 0);
		craft_proposal(&craft, numbered(handed));
		craft_seal(&craft);
		CHECK_EQUAL(bench.events[i].length, 2 + craft.length);
		CHECK(memcmp(bench.events[i].data + 2, craft.bytes, craft.length) == 0);
		CHECK(memcmp(bench.events[i].transaction, numbered(handed), ACCORD_TRANSACTION_BYTES) == 0);
		CHECK_EQUAL(bench.events[i].path.remote[2], handed);
		handed++;
	}
	CHECK_EQUAL(handed, 10);
	CHECK_EQUAL(accord_engine_transactions(bench.engine), 4);
	close_all(&bench);
}

/* ---- Levels ---- */

static void levels_rise_at_once_and_fall_one_by_one_when_it_has_been_calm(void)
{
	struct load load;
	uint64_t now = 0;

	load_init(&load, 100, 256, now);
	load_note(&load, now, 1000, 256);
	load_raise(&load, now, ACCORD_LEVEL_ANSWER);
	for (uint32_t i = 0; i < 100; i++)
		CHECK(load_spend(&load, now));
	CHECK(!load_spend(&load, now));
	CHECK(load_spend(&load, now + 10 * MS)); /* one a hundredth of a second */
	load_raise(&load, now, ACCORD_LEVEL_COOKIE);
	for (uint32_t second = 0; second < 5; second++) { /* a flood goes on: the level stays */
		now += SECOND;
		load_note(&load, now, 100000, 256);
		CHECK_EQUAL(load.level, ACCORD_LEVEL_COOKIE);
	}
	now += SECOND;
	load_note(&load, now, 10, 256);
	CHECK_EQUAL(load.level, ACCORD_LEVEL_COOKIE); /* that was the last second of it */
	now += SECOND;
	load_note(&load, now, 10, 256);
	CHECK_EQUAL(load.level, ACCORD_LEVEL_ANSWER);
	now += SECOND;
	load_note(&load, now, 10, 129);
	CHECK_EQUAL(load.level, ACCORD_LEVEL_ANSWER); /* the places are not free again */
	now += SECOND;
	load_note(&load, now, 10, 128);
	CHECK_EQUAL(load.level, ACCORD_LEVEL_ANSWER);
	now += SECOND;
	load_note(&load, now, 0, 0);
	CHECK_EQUAL(load.level, ACCORD_LEVEL_STATE);
	CHECK_EQUAL(load.raised[ACCORD_LEVEL_ANSWER] + load.raised[ACCORD_LEVEL_COOKIE], 2);
}

static void a_level_changes_at_most_once_up_and_down_in_a_second_whatever_comes(void)
{
	uint64_t random = 88172645463325252, now = 0;
	struct load load;

	load_init(&load, 0, 64, now);
	for (uint32_t i = 0; i < 100000; i++) {
		now += test_below(&random, 20 * MS);
		load_note(&load, now, test_below(&random, 3), test_below(&random, 65));
		if (test_below(&random, 3) == 0)
			load_raise(&load, now, 1 + test_below(&random, 2));
	}
	CHECK(load.raised[1] + load.raised[2] <= 1 + now / LOAD_CALM_US);
	CHECK_EQUAL(load.raised[ACCORD_LEVEL_ANSWER], 0); /* without a budget there is none of it */
}

int main(void)
{
	RUN(who_finds_no_place_is_asked_for_a_cookie_and_has_state_for_it);
	RUN(a_cookie_proves_an_address_and_not_a_commit);
	RUN(a_forged_cookie_gets_silence_at_every_level);
	RUN(a_cookie_of_a_forgotten_key_is_as_none);
	RUN(no_challenge_is_longer_than_what_it_answers);
	RUN(only_the_first_packet_of_a_proposal_is_challenged);
	RUN(without_keys_there_is_silence_and_no_cap_on_a_network);
	RUN(at_level_one_whole_proposals_go_up_as_far_as_the_budget_goes);
	RUN(levels_rise_at_once_and_fall_one_by_one_when_it_has_been_calm);
	RUN(a_level_changes_at_most_once_up_and_down_in_a_second_whatever_comes);
	return check_report("test_strangers");
}
