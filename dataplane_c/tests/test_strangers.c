// SPDX-License-Identifier: Apache-2.0
/* What becomes of proposals that no transaction knows: levels, cookies, networks; and of challenges, at initiators. */
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

/* ---- The cookie itself ---- */

/* Aumasson and Bernstein, SipHash, appendix A, and vectors.h of the reference code: key and input are 0, 1, 2, ... */
static void siphash_is_that_of_the_reference_vectors(void)
{
	__u64 words[7];
	uint8_t bytes[sizeof(words)];

	for (uint8_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = i;
	memcpy(words, bytes, sizeof(words));
	CHECK_EQUAL(accord_siphash(words, 0, RING.keys[0].words), UINT64_C(0x726fdb47dd0e0e31));
	CHECK_EQUAL(accord_siphash(words, 1, RING.keys[0].words), UINT64_C(0x93f5f5799a932462));
	CHECK_EQUAL(accord_siphash(words, 2, RING.keys[0].words), UINT64_C(0x3f2acc7f57c29bdb));
	CHECK_EQUAL(accord_siphash(words, 4, RING.keys[0].words), UINT64_C(0x7127512f72f27cce));
	CHECK_EQUAL(accord_siphash(words, 7, RING.keys[0].words), UINT64_C(0xb78dbfaf3a8d83bd));
}

static void parse(struct packet *packet, struct craft *craft)
{
	craft_seal(craft);
	CHECK_EQUAL(packet_parse(packet, craft->bytes, craft->length), ACCORD_REASON_OK);
}

static void a_cookie_is_good_for_its_packet_and_path_alone(void)
{
	struct accord_path path = test_path(4, false), other;
	struct packet packet, with;
	uint8_t cookie[ACCORD_COOKIE_BYTES], bent[ACCORD_COOKIE_BYTES];
	struct craft craft;
	uint8_t id[ACCORD_TRANSACTION_BYTES];

	for (uint8_t family = 4; family <= 6; family += 2) {
		path = test_path(family, false);
		craft_proposal(&craft, ID);
		parse(&packet, &craft);
		cookie_make(&RING, &path, &packet, cookie);
		with = packet;
		with.cookie = cookie;
		CHECK_EQUAL(cookie_check(&RING, &path, &with), COOKIE_GOOD);
		for (uint32_t bit = 0; bit < 8 * ACCORD_COOKIE_BYTES; bit++) {
			memcpy(bent, cookie, sizeof(bent));
			bent[bit / 8] ^= (uint8_t)(1u << bit % 8);
			with.cookie = bent;
			CHECK(cookie_check(&RING, &path, &with) != COOKIE_GOOD);
		}
		with.cookie = cookie;
		for (uint32_t byte = 0; byte < (family == 4 ? 4u : 16u); byte++) {
			other = path;
			other.remote[byte] ^= 1;
			CHECK_EQUAL(cookie_check(&RING, &other, &with), COOKIE_FORGED);
			other = path;
			other.local[byte] ^= 1;
			CHECK_EQUAL(cookie_check(&RING, &other, &with), COOKIE_FORGED);
		}
		other = path;
		other.remote_port ^= 1;
		CHECK_EQUAL(cookie_check(&RING, &other, &with), COOKIE_FORGED);
		other = path;
		other.local_port ^= 1;
		CHECK_EQUAL(cookie_check(&RING, &other, &with), COOKIE_FORGED);
		other = path;
		other.context = ACCORD_PROTOCOL_DIRECT;
		CHECK_EQUAL(cookie_check(&RING, &other, &with), COOKIE_FORGED);
		for (uint32_t byte = 0; byte < ACCORD_TRANSACTION_BYTES; byte++) {
			memcpy(id, ID, sizeof(id));
			id[byte] ^= 1;
			with.transaction = id;
			CHECK_EQUAL(cookie_check(&RING, &path, &with), COOKIE_FORGED);
		}
	}
}

static void a_cookie_lives_for_some_slots_and_as_long_as_its_key(void)
{
	struct accord_path path = test_path(4, false);
	struct accord_cookie_ring ring = RING;
	uint8_t cookie[ACCORD_COOKIE_BYTES];
	struct packet packet;
	struct craft craft;

	craft_proposal(&craft, ID);
	parse(&packet, &craft);
	cookie_make(&ring, &path, &packet, cookie);
	packet.cookie = cookie;
	for (int32_t ahead = -70000; ahead < 70000; ahead++) {
		int32_t age = (int16_t)ahead;

		ring.slot = (uint32_t)(1000 + ahead) & 0xffff;
		CHECK_EQUAL(cookie_check(&ring, &path, &packet),
		            age >= -1 && age <= ACCORD_COOKIE_SLOTS ? COOKIE_GOOD : COOKIE_STALE);
	}
	ring = RING;
	ring.current = 1;
	CHECK_EQUAL(cookie_check(&ring, &path, &packet), COOKIE_GOOD); /* rotated once */
	ring.keys[0] = (struct accord_cookie_key){{1, 2}, 11, 1};
	CHECK_EQUAL(cookie_check(&ring, &path, &packet), COOKIE_STALE); /* and twice */
	ring.keys[0] = (struct accord_cookie_key){{1, 2}, 7, 1};
	CHECK_EQUAL(cookie_check(&ring, &path, &packet), COOKIE_FORGED); /* another key of that number */
}

/* ---- At the responder ---- */

static void begin(struct bench *bench, uint32_t strangers)
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

static const uint8_t *numbered(uint32_t number)
{
	static uint8_t id[ACCORD_TRANSACTION_BYTES];

	memcpy(id, ID, sizeof(id));
	memcpy(id + 8, &number, sizeof(number));
	return id;
}

/* From another network each. */
static void from(struct bench *bench, uint32_t network)
{
	bench->path = test_path(4, false);
	bench->path.remote[1] = (uint8_t)(network >> 8);
	bench->path.remote[2] = (uint8_t)network;
}

static int propose(struct bench *bench, uint32_t number)
{
	struct craft craft;

	from(bench, number);
	craft_proposal(&craft, numbered(number));
	return give(bench, &craft);
}

/* What the engine asks for; false: nothing. The challenge is checked byte by byte against the specification. */
static bool challenged(struct bench *bench, const uint8_t *id, uint8_t *cookie)
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

static void put_cookie(struct craft *craft, const uint8_t *cookie)
{
	craft->length = packet_put_cookie(craft->bytes, craft->length, cookie);
}

static void fill_places(struct bench *bench)
{
	for (uint32_t i = 0; i < 4; i++)
		CHECK_EQUAL(propose(bench, 100 + i), 0);
	take_events(bench);
	CHECK_EQUAL(count_events(bench, ACCORD_EVENT_OPENED), 4);
}

static void close_all(struct bench *bench)
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

/* ---- At the initiator ---- */

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
	RUN(siphash_is_that_of_the_reference_vectors);
	RUN(a_cookie_is_good_for_its_packet_and_path_alone);
	RUN(a_cookie_lives_for_some_slots_and_as_long_as_its_key);
	RUN(who_finds_no_place_is_asked_for_a_cookie_and_has_state_for_it);
	RUN(a_cookie_proves_an_address_and_not_a_commit);
	RUN(a_forged_cookie_gets_silence_at_every_level);
	RUN(a_cookie_of_a_forgotten_key_is_as_none);
	RUN(no_challenge_is_longer_than_what_it_answers);
	RUN(only_the_first_packet_of_a_proposal_is_challenged);
	RUN(without_keys_there_is_silence_and_no_cap_on_a_network);
	RUN(one_network_cannot_take_every_place_and_is_not_shut_out_either);
	RUN(addresses_that_are_proven_are_held_to_their_networks_share_until_they_commit);
	RUN(whoever_proves_addresses_in_some_networks_leaves_room_for_others);
	RUN(who_has_committed_is_in_nobody_s_way);
	RUN(before_the_user_looks_again_it_has_little_to_answer_and_something_of_each_network);
	RUN(at_level_one_whole_proposals_go_up_as_far_as_the_budget_goes);
	RUN(levels_rise_at_once_and_fall_one_by_one_when_it_has_been_calm);
	RUN(a_level_changes_at_most_once_up_and_down_in_a_second_whatever_comes);
	RUN(a_challenge_costs_one_round_trip_and_nothing_else);
	RUN(every_loss_of_a_challenged_negotiation_is_made_good);
	RUN(an_initiator_answers_two_challenges_from_where_it_proposed_to_and_no_more);
	RUN(an_answer_is_taken_whatever_was_challenged_before);
	return check_report("test_strangers");
}
