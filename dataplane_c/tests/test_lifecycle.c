// SPDX-License-Identifier: Apache-2.0
/* Who may speak for a transaction, how it ends, and what its user may not do. */
#include "bench.h"

/* ---- Who may speak ---- */

static void packets_from_another_address_or_port_do_not_belong_to_the_transaction(void)
{
	struct bench bench;
	struct craft craft;
	struct accord_path path;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	path = bench.path;
	bench.path.remote_port++;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.path = path;
	bench.path.remote[3]++;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.path = test_path(6, false);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.path = path;
	bench.path.context = ACCORD_PROTOCOL_DIRECT;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.path = path;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_DUPLICATE);
	bench_end(&bench);
}

static void the_way_back_is_learnt_from_valid_packets_only(void)
{
	struct bench bench;
	struct craft craft;
	struct accord_transaction_info info;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	bench.path.link_length = 0;
	bench.path.socket = 3;
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	bench.path.link_length = 14;
	bench.path.link[0] = 0xee;
	bench.path.queue = 5;
	bench.path.socket = ACCORD_PATH_NO_SOCKET;
	craft.bytes[33] ^= 1;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_CONTRADICTION);
	accord_engine_info(bench.engine, bench.handle, &info);
	CHECK_EQUAL(info.path.link_length, 0);
	accord_engine_close(bench.engine, bench.now, bench.handle, 0);
	bench.handle = 0;
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	bench.path.socket = 3;
	bench.path.link_length = 0;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_DUPLICATE);
	take_events(&bench);
	accord_engine_info(bench.engine, bench.handle, &info);
	CHECK_EQUAL(info.path.link_length, 14);
	CHECK_EQUAL(info.path.link[0], 0xee);
	CHECK_EQUAL(info.path.queue, 5);
	CHECK_EQUAL(info.path.socket, 3);
	bench_end(&bench);
}

/* ---- The end ---- */

static void a_closed_transaction_lingers_to_acknowledge_and_then_is_gone(void)
{
	struct bench bench;
	struct craft craft;
	uint32_t packets, handle;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	handle = bench.handle;
	drain(&bench, &packets);
	CHECK_EQUAL(accord_engine_close(bench.engine, bench.now, handle, 3 * SECOND), 0);
	CHECK_EQUAL(accord_engine_close(bench.engine, bench.now, handle, 0), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.now += SECOND;
	CHECK(drain(&bench, &packets) <= 32);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_DUPLICATE);
	CHECK_EQUAL(drain(&bench, &packets), 32);
	take_events(&bench);
	CHECK_EQUAL(bench.count, 0);
	CHECK_EQUAL(accord_engine_transactions(bench.engine), 1);
	CHECK_EQUAL(accord_engine_deadline(bench.engine), bench.now + 2 * SECOND);
	bench.now += 2 * SECOND;
	drain(&bench, &packets);
	CHECK_EQUAL(accord_engine_transactions(bench.engine), 0);
	CHECK_EQUAL(accord_engine_prove(bench.engine, handle), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.handle = 0;
	bench_end(&bench);
}

static void what_was_sent_before_closing_still_goes_out_and_is_repeated(void)
{
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	struct bench bench;
	struct craft craft;
	uint32_t packets;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 1, &node, 1, 0), 0);
	CHECK_EQUAL(accord_engine_close(bench.engine, bench.now, bench.handle, 5 * SECOND), 0);
	bench.handle = 0;
	CHECK_EQUAL(drain(&bench, &packets), 32 + 8 + sizeof(CONTEXT));
	bench.now += 1100000;
	CHECK_EQUAL(drain(&bench, &packets), 32 + 8 + sizeof(CONTEXT));
	craft_header(&craft, ID, 0, 0, 1);
	craft_acknowledge(&craft, 0x10000001, 1);
	CHECK_EQUAL(give(&bench, &craft), 0);
	bench.now += 2 * SECOND;
	CHECK_EQUAL(drain(&bench, &packets), 0);
	bench.now += 2 * SECOND;
	drain(&bench, &packets);
	bench_end(&bench);
}

static void a_failed_transaction_lingers_in_silence(void)
{
	struct bench bench;
	struct craft craft;
	uint32_t packets;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	craft.bytes[32 + 8] ^= 1;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_CONTRADICTION);
	take_events(&bench);
	CHECK_EQUAL(accord_engine_close(bench.engine, bench.now, bench.handle, SECOND), 0);
	bench.handle = 0;
	for (int i = 0; i < 10; i++) {
		CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_CLOSED);
		CHECK_EQUAL(drain(&bench, &packets), 0);
	}
	bench.now += SECOND;
	drain(&bench, &packets);
	bench_end(&bench);
}

static void who_answers_a_transaction_that_has_failed_meanwhile_is_told_why(void)
{
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	struct bench bench;
	struct craft craft;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_MESSAGE), 1);
	craft.bytes[32 + 8] ^= 1;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_CONTRADICTION);
	CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 1, &node, 1, 0),
	            -ACCORD_REASON_CONTRADICTION);
	bench_end(&bench);
}

static void a_slow_proposal_ends_with_its_lifetime_and_an_unanswered_one_in_a_time_out(void)
{
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	struct bench bench;
	struct craft craft;
	uint32_t packets;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	craft.bytes[3] &= (uint8_t)~END;
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	for (int second = 0; second < 9; second++) {
		bench.now += SECOND;
		drain(&bench, &packets);
		give(&bench, &craft);
		take_events(&bench);
		CHECK_EQUAL(failure(&bench), 0);
	}
	bench.now += SECOND;
	drain(&bench, &packets);
	take_events(&bench);
	CHECK_EQUAL(failure(&bench), ACCORD_REASON_LIFETIME);
	bench_end(&bench);

	bench_begin(&bench);
	bench.path = test_path(6, true);
	bench.handle = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);
	CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 0, &node, 1, 0), 0);
	for (int tenth = 0; tenth < 99; tenth++) {
		drain(&bench, &packets);
		bench.now += SECOND / 10;
	}
	drain(&bench, &packets);
	take_events(&bench);
	CHECK_EQUAL(failure(&bench), 0);
	bench.now += SECOND / 10;
	CHECK_EQUAL(drain(&bench, &packets), 0);
	take_events(&bench);
	CHECK_EQUAL(failure(&bench), ACCORD_REASON_TIMEOUT);
	CHECK_EQUAL(counted(&bench, ACCORD_REASON_TIMEOUT), 1);
	bench_end(&bench);
}

/* MUST-27, where there are more than three steps: the address was proven by an earlier one than the commit. */
static void a_commit_that_never_becomes_whole_ends_with_the_lifetime_though_the_address_is_proven(void)
{
	static const uint8_t further[] = {0, 0, 0, 5, 0x80, 0x07, 0, 1, 1}; /* CONTINUES: node 1 */
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	struct bench bench;
	struct craft craft;
	uint32_t packets;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 1, &node, 1, 0), 0);
	drain(&bench, &packets);
	craft_header(&craft, ID, 2, END, 1);
	craft_acknowledge(&craft, 0x10000001, 1);
	craft_chunk(&craft, 0, F | L, ACCORD_PROTOCOL_UDP, further, sizeof(further));
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(accord_engine_prove(bench.engine, bench.handle), 0);
	CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 3, &node, 1, 0), 0);
	drain(&bench, &packets);
	/* The context of a commit, and nothing behind it. */
	craft_header(&craft, ID, 4, 0, 2);
	craft_acknowledge(&craft, 0x10000001, 2);
	craft_chunk(&craft, 0, F | L, ACCORD_PROTOCOL_UDP, CONTEXT, sizeof(CONTEXT));
	CHECK_EQUAL(give(&bench, &craft), 0);
	bench.now += ACCORD_MAX_LIFETIME_MS * 1000ull - 1;
	drain(&bench, &packets);
	take_events(&bench);
	CHECK_EQUAL(failure(&bench), 0);
	CHECK_EQUAL(accord_engine_deadline(bench.engine), bench.now + 1);
	bench.now += 1;
	drain(&bench, &packets);
	take_events(&bench);
	CHECK_EQUAL(failure(&bench), ACCORD_REASON_LIFETIME);
	bench_end(&bench);
}

static void a_handle_of_a_closed_transaction_is_refused_for_long_after(void)
{
	struct bench bench;
	uint32_t old;

	bench_begin(&bench);
	bench.path = test_path(4, true);
	old = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);
	CHECK(old != 0);
	CHECK_EQUAL(accord_engine_open(bench.engine, bench.now, ID, &bench.path), -ACCORD_REASON_CONTRADICTION);
	CHECK_EQUAL(accord_engine_close(bench.engine, bench.now, old, 0), 0);
	for (int i = 0; i < 10000; i++) {
		bench.handle = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);
		CHECK(bench.handle != old);
		CHECK(bench.handle != 0);
		CHECK_EQUAL(accord_engine_prove(bench.engine, old), -ACCORD_REASON_UNKNOWN_TRANSACTION);
		accord_engine_close(bench.engine, bench.now, bench.handle, 0);
	}
	CHECK_EQUAL(accord_engine_prove(bench.engine, 0), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	CHECK_EQUAL(accord_engine_prove(bench.engine, UINT32_MAX), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.handle = 0;
	bench_end(&bench);
}

static void open_and_close(struct bench *bench, uint32_t *handles, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint8_t id[ACCORD_TRANSACTION_BYTES] = {0, 0, (uint8_t)(i >> 8), (uint8_t)i};

		handles[i] = (uint32_t)accord_engine_open(bench->engine, bench->now, id, &bench->path);
		CHECK(handles[i] != 0 && (int32_t)handles[i] > 0);
		for (uint32_t other = 0; other < i; other++)
			CHECK(handles[other] != handles[i]);
	}
	CHECK_EQUAL(accord_engine_open(bench->engine, bench->now, ID, &bench->path), -ACCORD_REASON_NO_MEMORY);
	for (uint32_t i = 0; i < count; i++)
		CHECK_EQUAL(accord_engine_close(bench->engine, bench->now, handles[i * 7 % count], 0), 0);
}

static void every_slot_serves_again_and_again(void)
{
	static const uint32_t sizes[] = {1, 2, 31, 32, 33, 64, 100};
	uint32_t handles[100];

	for (uint32_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct bench bench;

		bench_begin_with(&bench, (struct accord_engine_config){.transactions = sizes[i], .buffers = 8});
		bench.path = test_path(4, true);
		for (int times = 0; times < 5; times++)
			open_and_close(&bench, handles, sizes[i]);
		bench_end(&bench);
	}
}

static void negotiations_that_follow_each_other_share_a_few_slots(void)
{
	enum {
		SLOTS = 1024
	};
	bool met[SLOTS] = {0};
	struct bench bench;
	uint32_t count = 0;

	bench_begin_with(&bench, (struct accord_engine_config){.transactions = SLOTS});
	bench.path = test_path(4, true);
	for (int i = 0; i < 2 * SLOTS; i++) {
		uint32_t handle = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);

		count += !met[handle % SLOTS];
		met[handle % SLOTS] = true;
		accord_engine_close(bench.engine, bench.now, handle, 0);
	}
	CHECK_EQUAL(count, TRANSACTION_RESTING + 1);
	bench_end(&bench);
}

static void a_message_of_ours_that_makes_no_sense_is_refused(void)
{
	static const uint8_t bad[] = {5, 0, 0, 0};
	struct accord_node_out nodes[2] = {
		{.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT},
		{.node = 1, .protocol = 6, .length = sizeof(LEAF), .data = LEAF},
	};
	struct accord_engine *engine;
	struct bench bench;

	bench_begin(&bench);
	engine = bench.engine;
	bench.path = test_path(4, true);
	bench.handle = (uint32_t)accord_engine_open(engine, bench.now, ID, &bench.path);
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 1, nodes, 2, 0), -ACCORD_REASON_BAD_STEP);
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 2, nodes, 2, 0), -ACCORD_REASON_BAD_STEP);
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 0, nodes, 0, 0), -ACCORD_REASON_TOO_MANY_NODES);
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 0, nodes, 2, 257), -ACCORD_REASON_NO_MEMORY);
	CHECK_EQUAL(engine->slab.free_count, engine->config.buffers);
	nodes[1].node = 0;
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 0, nodes, 2, 0), -ACCORD_REASON_DUPLICATE_NODE);
	nodes[1].node = 64;
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 0, nodes, 2, 0), -ACCORD_REASON_BAD_CHUNK);
	nodes[1] = (struct accord_node_out){.node = 1, .protocol = 6, .length = sizeof(bad), .data = bad};
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 0, nodes, 2, 0), -ACCORD_REASON_BAD_DESCRIPTOR);
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 0, nodes, 1, 0), 0);
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 0, nodes, 1, 0), -ACCORD_REASON_BAD_STEP);
	bench_end(&bench);
}

static int propose(struct bench *bench, uint8_t number)
{
	uint8_t id[ACCORD_TRANSACTION_BYTES];
	struct craft craft;

	memcpy(id, ID, sizeof(id));
	id[ACCORD_TRANSACTION_BYTES - 1] = number;
	craft_proposal(&craft, id);
	return give(bench, &craft);
}

static void linger_as(struct bench *bench, uint8_t number, uint64_t linger)
{
	CHECK_EQUAL(propose(bench, number), 0);
	take_events(bench);
	CHECK_EQUAL(accord_engine_prove(bench->engine, bench->handle), 0);
	CHECK_EQUAL(accord_engine_close(bench->engine, bench->now, bench->handle, linger), 0);
}

static void with_no_slot_free_what_has_lingered_for_longest_gives_way(void)
{
	struct bench bench;
	uint32_t packets, first, second;

	bench_begin(&bench);
	linger_as(&bench, 0, 5 * SECOND);
	linger_as(&bench, 1, SECOND); /* ends by itself, between two others */
	linger_as(&bench, 2, 5 * SECOND);
	bench.now += SECOND;
	drain(&bench, &packets);
	linger_as(&bench, 3, 5 * SECOND);
	linger_as(&bench, 4, 5 * SECOND);
	CHECK_EQUAL(accord_engine_transactions(bench.engine), 4);

	CHECK_EQUAL(propose(&bench, 5), 0);
	take_events(&bench);
	first = bench.handle;
	CHECK_EQUAL(accord_engine_transactions(bench.engine), 4);
	for (uint8_t number = 2; number <= 4; number++)
		CHECK_EQUAL(propose(&bench, number), -ACCORD_REASON_DUPLICATE);
	CHECK_EQUAL(propose(&bench, 0), 0); /* forgotten, so it is new; number 2 gives way */
	take_events(&bench);
	second = bench.handle;
	CHECK_EQUAL(propose(&bench, 2), -ACCORD_REASON_NO_MEMORY); /* nothing gives way to what has no quota */
	CHECK_EQUAL(propose(&bench, 3), -ACCORD_REASON_DUPLICATE);

	CHECK_EQUAL(accord_engine_prove(bench.engine, first), 0);
	CHECK_EQUAL(propose(&bench, 6), 0);
	take_events(&bench);
	CHECK_EQUAL(accord_engine_prove(bench.engine, second), 0);
	CHECK(accord_engine_open(bench.engine, bench.now, ID, &bench.path) > 0);
	CHECK_EQUAL(accord_engine_open(bench.engine, bench.now, bench.events->transaction, &bench.path),
	            -ACCORD_REASON_NO_MEMORY);
	CHECK_EQUAL(propose(&bench, 7), -ACCORD_REASON_NO_MEMORY); /* what lives stays */
	CHECK_EQUAL(accord_engine_transactions(bench.engine), 4);
	for (uint32_t slot = 0; slot < 4; slot++)
		accord_engine_close(bench.engine, bench.now, bench.engine->table.slots[slot].handle, 0);
	bench.handle = 0;
	bench_end(&bench);
}

static void with_no_quota_left_what_lingers_without_having_proven_its_address_gives_way(void)
{
	struct bench bench;
	uint32_t packets, first;

	bench_begin(&bench);
	linger_as(&bench, 0, 5 * SECOND); /* proven: takes nothing of the quota of two */
	CHECK_EQUAL(propose(&bench, 1), 0);
	take_events(&bench);
	CHECK_EQUAL(accord_engine_close(bench.engine, bench.now, bench.handle, 5 * SECOND), 0);
	CHECK_EQUAL(propose(&bench, 2), 0);
	take_events(&bench);
	first = bench.handle;
	CHECK_EQUAL(bench.engine->table.unproven, 2);
	CHECK_EQUAL(propose(&bench, 1), -ACCORD_REASON_DUPLICATE);

	CHECK_EQUAL(propose(&bench, 3), 0); /* number 1 gives way, and not number 0, which began to linger before */
	take_events(&bench);
	CHECK_EQUAL(propose(&bench, 0), -ACCORD_REASON_DUPLICATE);
	CHECK_EQUAL(bench.engine->table.unproven, 2);
	CHECK_EQUAL(propose(&bench, 1), -ACCORD_REASON_QUOTA); /* what lives stays */
	CHECK_EQUAL(accord_engine_close(bench.engine, bench.now, bench.handle, SECOND), 0);
	bench.now += SECOND;
	drain(&bench, &packets); /* ended by itself */
	CHECK_EQUAL(bench.engine->table.unproven, 1);
	CHECK_EQUAL(bench.engine->table.lingering_unproven, 0);
	accord_engine_close(bench.engine, bench.now, first, 0);
	bench.now += 5 * SECOND;
	drain(&bench, &packets);
	bench.handle = 0;
	bench_end(&bench);
}

int main(void)
{
	RUN(packets_from_another_address_or_port_do_not_belong_to_the_transaction);
	RUN(the_way_back_is_learnt_from_valid_packets_only);
	RUN(a_closed_transaction_lingers_to_acknowledge_and_then_is_gone);
	RUN(what_was_sent_before_closing_still_goes_out_and_is_repeated);
	RUN(a_failed_transaction_lingers_in_silence);
	RUN(with_no_slot_free_what_has_lingered_for_longest_gives_way);
	RUN(with_no_quota_left_what_lingers_without_having_proven_its_address_gives_way);
	RUN(who_answers_a_transaction_that_has_failed_meanwhile_is_told_why);
	RUN(a_slow_proposal_ends_with_its_lifetime_and_an_unanswered_one_in_a_time_out);
	RUN(a_commit_that_never_becomes_whole_ends_with_the_lifetime_though_the_address_is_proven);
	RUN(a_handle_of_a_closed_transaction_is_refused_for_long_after);
	RUN(every_slot_serves_again_and_again);
	RUN(negotiations_that_follow_each_other_share_a_few_slots);
	RUN(a_message_of_ours_that_makes_no_sense_is_refused);
	return check_report("test_lifecycle");
}
