// SPDX-License-Identifier: Apache-2.0
/* Quota, memory and amplification: what a peer can make this side hold and send. */
#include "bench.h"

static void over_the_quota_a_first_packet_is_met_with_silence_until_one_is_proven(void)
{
	struct bench bench;
	struct craft craft;
	uint8_t id[ACCORD_TRANSACTION_BYTES];
	uint32_t handles[4] = {0}, packets;

	bench_begin(&bench);
	memcpy(id, ID, sizeof(id));
	for (uint8_t i = 0; i < 4; i++) {
		id[11] = i;
		craft_proposal(&craft, id);
		CHECK_EQUAL(give(&bench, &craft), i < 2 ? 0 : -ACCORD_REASON_QUOTA);
		if (i < 2) {
			take_events(&bench);
			handles[i] = bench.handle;
		}
	}
	CHECK_EQUAL(drain(&bench, &packets), 0);
	CHECK_EQUAL(accord_engine_prove(bench.engine, handles[0]), 0);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	handles[2] = bench.handle;
	CHECK_EQUAL(accord_engine_prove(bench.engine, handles[1]), 0);
	id[11] = 7;
	craft_proposal(&craft, id);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	/* The table has four slots. */
	CHECK_EQUAL(accord_engine_prove(bench.engine, handles[2]), 0);
	id[11] = 8;
	craft_proposal(&craft, id);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_NO_MEMORY);
	for (int i = 0; i < 3; i++)
		CHECK_EQUAL(accord_engine_close(bench.engine, bench.now, handles[i], 0), 0);
	bench_end(&bench);
}

static void peers_that_send_first_chunks_only_cannot_keep_an_honest_one_out(void)
{
	struct bench bench;
	struct craft craft;
	uint8_t id[ACCORD_TRANSACTION_BYTES], data[1000] = {0};
	uint32_t handles[8];

	bench_begin_with(&bench,
	                 (struct accord_engine_config){
						 .transactions = 16, .unproven = 8, .buffers = 128, .buffer_bytes = 1200, .events = 1024});
	memcpy(id, ID, sizeof(id));
	for (uint8_t peer = 0; peer < 7; peer++) {
		int result = 0;

		id[11] = peer;
		for (uint32_t offset = 0; offset < 60 && !result; offset++) {
			craft_header(&craft, id, 0, 0, offset);
			craft_chunk(&craft, (uint8_t)(1 + offset), F, 6, data, sizeof(data));
			result = give(&bench, &craft);
		}
		take_events(&bench);
		handles[peer] = bench.handle;
	}
	CHECK(counted(&bench, ACCORD_REASON_NO_MEMORY) > 0);
	CHECK(bench.engine->slab.free_count >= 128 / 4 + bench.engine->slab.guarantee);
	id[11] = 99;
	craft_proposal(&craft, id);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_MESSAGE), 1);
	for (int i = 0; i < 7; i++)
		accord_engine_close(bench.engine, bench.now, handles[i], 0);
	bench_end(&bench);
}

static void events_that_nobody_takes_stop_input_and_are_not_lost(void)
{
	struct bench bench;
	struct craft craft;
	uint32_t accepted = 0, packets;
	int result;

	bench_begin(&bench);
	for (uint8_t offset = 0; offset < 200; offset++) {
		craft_header(&craft, ID, 0, 0, offset);
		craft_chunk(&craft, offset % 64, F | L, 77, "x", 1);
		if (offset == 64)
			break;
		result = give(&bench, &craft);
		accepted += result == 0;
	}
	/* 64 nodes make fewer events than the queue of 128 holds with its reserve; fill it by openings. */
	for (uint8_t i = 0; i < 4; i++) {
		uint8_t id[ACCORD_TRANSACTION_BYTES];

		memcpy(id, ID, sizeof(id));
		id[10] = i + 1;
		craft_header(&craft, id, 0, 0, 0);
		for (uint8_t node = 0; node < 50; node++)
			craft_chunk(&craft, node, F | L, 77, "x", 1);
		result = give(&bench, &craft);
		if (i)
			CHECK(result == -ACCORD_REASON_NO_MEMORY || result == -ACCORD_REASON_QUOTA);
	}
	CHECK_EQUAL(accepted, 64);
	take_events(&bench);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_SKIPPED) >= 64, 1);
	drain(&bench, &packets);
	while (bench.count) {
		for (uint32_t i = 0; i < bench.count; i++)
			if (bench.events[i].kind == ACCORD_EVENT_OPENED && bench.events[i].handle != bench.handle)
				accord_engine_close(bench.engine, bench.now, bench.events[i].handle, 0);
		take_events(&bench);
	}
	bench_end(&bench);
}

static void an_unproven_peer_is_never_sent_more_than_three_times_its_bytes(void)
{
	for (uint8_t family = 4; family <= 6; family += 2) {
		for (uint32_t pad = 0; pad < 1160; pad += 29) {
			uint32_t overhead = family == 4 ? 28 : 48;
			static const uint8_t answer[20000];
			struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(answer), .data = answer};
			uint64_t in = 0, out = 0;
			struct bench bench;
			struct craft craft;
			uint32_t packets;

			bench_begin(&bench);
			bench.path = test_path(family, false);
			craft_proposal(&craft, ID);
			if (pad)
				craft_chunk(&craft, 255, 3, 0, answer, pad);
			CHECK_EQUAL(give(&bench, &craft), 0);
			in += craft.length + overhead;
			take_events(&bench);
			CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 1, &node, 1, 0), 0);
			for (int round = 0; round < 30; round++) {
				out += drain(&bench, &packets);
				out += packets * overhead;
				CHECK(out <= 3 * in);
				if (round % 4 == 3) {
					CHECK(give(&bench, &craft) == -ACCORD_REASON_DUPLICATE);
					in += craft.length + overhead;
				}
				bench.now += 150000;
			}
			CHECK(out > 2 * in || in > 20000 / 3);
			/* Proven, the rest goes out. */
			CHECK_EQUAL(accord_engine_prove(bench.engine, bench.handle), 0);
			bench.now += 2 * SECOND;
			CHECK(drain(&bench, &packets) > 1200);
			bench_end(&bench);
		}
	}
}

static void a_message_within_the_budget_leaves_at_once_whatever_its_nodes(void)
{
	uint64_t random = 4242;

	for (int round = 0; round < 300; round++) {
		static const uint8_t zeros[65536];
		struct accord_node_out nodes[8];
		struct bench bench;
		struct craft craft;
		uint32_t count = 1 + test_below(&random, 8), packets;
		int64_t budget, left;
		uint64_t bytes;

		bench_begin(&bench);
		craft_header(&craft, ID, 0, END, 0);
		for (uint8_t i = 0; i < count; i++)
			craft_chunk(&craft, i, 3, i ? 6 : 17, zeros, 4 + test_below(&random, 100));
		if (round % 3)
			craft_chunk(&craft, 255, 3, 0, zeros, test_below(&random, 300));
		if (round % 2)
			craft_chunk(&craft, 63, 3, 99, zeros, 1 + test_below(&random, 2000));
		CHECK_EQUAL(give(&bench, &craft), 0);
		take_events(&bench);
		budget = left = accord_engine_budget(bench.engine, bench.handle);
		CHECK(budget >= 0);
		if (budget < 4 * count) {
			bench_end(&bench);
			continue;
		}
		for (uint32_t i = 0; i < count; i++) {
			int64_t spare = left - 4 * (int64_t)(count - i);
			uint32_t length = i + 1 == count ? (uint32_t)left : 4 + test_below(&random, (uint32_t)spare + 1);

			nodes[i] =
				(struct accord_node_out){.node = (uint8_t)i, .protocol = i ? 6 : 17, .length = length, .data = zeros};
			left -= length;
		}
		CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 1, nodes, count, 0), 0);
		bytes = drain(&bench, &packets);
		CHECK(bytes >= (uint64_t)budget);
		CHECK_EQUAL(bench.engine->table.slots[0].outbox.sent, bench.engine->table.slots[0].outbox.total);
		bench_end(&bench);
	}
}

int main(void)
{
	RUN(over_the_quota_a_first_packet_is_met_with_silence_until_one_is_proven);
	RUN(peers_that_send_first_chunks_only_cannot_keep_an_honest_one_out);
	RUN(events_that_nobody_takes_stop_input_and_are_not_lost);
	RUN(an_unproven_peer_is_never_sent_more_than_three_times_its_bytes);
	RUN(a_message_within_the_budget_leaves_at_once_whatever_its_nodes);
	return check_report("test_bounds");
}
