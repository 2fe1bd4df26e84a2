// SPDX-License-Identifier: Apache-2.0
/* What is acknowledged when, and acknowledgements that lie. */
#include "bench.h"

static void an_acknowledgement_of_the_unsent_ends_the_negotiation_on_either_side(void)
{
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	struct bench bench;
	struct craft craft;
	uint32_t packets;

	bench_begin(&bench);
	bench.path = test_path(4, true);
	bench.handle = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);
	craft_header(&craft, ID, 1, 0, 0);
	craft_acknowledge(&craft, 0xfffffffe, 1);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_BAD_STEP);
	CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 0, &node, 1, 3), 0);
	craft_seal(&craft);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_BAD_STEP); /* queued, but not sent */
	drain(&bench, &packets);
	CHECK_EQUAL(packets, 3);
	craft_acknowledge(&craft, 0xfffffffe, 3);
	CHECK_EQUAL(give(&bench, &craft), 0);
	craft_acknowledge(&craft, 0xffffffff, 3);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_BAD_ACK);
	take_events(&bench);
	CHECK_EQUAL(bench.count, 2);
	CHECK_EQUAL(bench.events[0].kind, ACCORD_EVENT_ARRIVED);
	CHECK_EQUAL(failure(&bench), ACCORD_REASON_BAD_ACK);
	bench_end(&bench);
}

static void repetitions_and_gaps_are_acknowledged_at_once_and_single_packets_later(void)
{
	struct bench bench;
	struct craft craft;
	uint32_t packets;

	bench_begin(&bench);
	craft_header(&craft, ID, 0, 0, 0);
	craft_chunk(&craft, 1, F, 6, "abcdefghijklmnopqrstuvwxyz", 26);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(drain(&bench, &packets), 0);
	CHECK_EQUAL(accord_engine_deadline(bench.engine), bench.now + 25000);
	bench.now += 24999;
	CHECK_EQUAL(drain(&bench, &packets), 0);
	bench.now += 1;
	CHECK_EQUAL(drain(&bench, &packets), 32);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_DUPLICATE);
	CHECK_EQUAL(drain(&bench, &packets), 32);
	craft_header(&craft, ID, 0, 0, 2);
	craft_chunk(&craft, 1, 0, 6, "x", 1);
	CHECK_EQUAL(give(&bench, &craft), 0);
	CHECK_EQUAL(drain(&bench, &packets), 32);
	/* The gap closes, and then every fourth packet in order. */
	for (uint8_t i = 0; i < 5; i++) {
		static const uint8_t offsets[] = {1, 3, 4, 5, 6}, acknowledgements[] = {1, 0, 0, 0, 1};

		craft_header(&craft, ID, 0, 0, offsets[i]);
		craft_chunk(&craft, 1, 0, 6, "x", 1);
		CHECK_EQUAL(give(&bench, &craft), 0);
		drain(&bench, &packets);
		CHECK_EQUAL(packets, acknowledgements[i]);
	}
	bench_end(&bench);
}

static void arrivals_in_several_ranges_are_all_reported(void)
{
	struct bench bench;
	struct craft craft;
	struct accord_packet_out out[8];
	uint32_t count;

	/* 2, 4, 5, 0 in one batch: where two have come is acknowledged first, then the higher one of the others. */
	static const uint8_t offsets[] = {2, 4, 5, 0};

	bench_begin(&bench);
	for (int i = 0; i < 4; i++) {
		craft_header(&craft, ID, 0, 0, offsets[i]);
		craft_chunk(&craft, 1, offsets[i] ? 0 : F, 6, "abcdefghijklmnopqrstuvwxyz", 26);
		CHECK_EQUAL(give(&bench, &craft), 0);
	}
	take_events(&bench);
	count = accord_engine_output(bench.engine, bench.now, out, 8);
	CHECK_EQUAL(count, 3);
	CHECK_EQUAL(out[0].data[27], 0x02); /* 0xfffffffe + 4 */
	CHECK_EQUAL(out[0].data[29], 2);
	CHECK_EQUAL(out[1].data[27], 0x00);
	CHECK_EQUAL(out[1].data[29], 1);
	CHECK_EQUAL(out[2].data[27], 0xfe);
	CHECK_EQUAL(out[2].data[29], 1);
	bench_end(&bench);
}

static void the_answer_carries_the_acknowledgement_and_a_commit_is_acknowledged_at_once(void)
{
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	struct bench bench;
	struct craft craft;
	struct accord_packet_out out[8];
	uint32_t packets;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 1, &node, 1, 0), 0);
	CHECK_EQUAL(accord_engine_output(bench.engine, bench.now, out, 8), 1);
	CHECK_EQUAL(out[0].data[3], ACCORD_FLAG_ACK | ACCORD_FLAG_END);
	CHECK_EQUAL(out[0].data[29], 1);
	CHECK_EQUAL(out[0].data[27], 0xfe);
	bench.now += 100000;
	CHECK_EQUAL(drain(&bench, &packets), 0);
	craft_header(&craft, ID, 2, END, 1);
	craft_acknowledge(&craft, 0x10000001, 1);
	craft_chunk(&craft, 0, F | L, 17, CONTEXT, sizeof(CONTEXT));
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(bench.events[0].kind, ACCORD_EVENT_ARRIVED);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_MESSAGE), 1);
	CHECK_EQUAL(drain(&bench, &packets), 32);
	bench_end(&bench);
}

static void an_abort_is_acknowledged_at_once(void)
{
	static const uint8_t abort_descriptor[] = {0, 0, 0, 5, 0x80, 0x01, 0, 1, 131};
	struct bench bench;
	struct craft craft;
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	uint32_t packets;

	bench_begin(&bench);
	bench.path = test_path(4, true);
	bench.handle = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);
	accord_engine_send(bench.engine, bench.now, bench.handle, 0, &node, 1, 0);
	drain(&bench, &packets);
	craft_header(&craft, ID, 1, END, 0);
	craft_acknowledge(&craft, 0xfffffffe, 1);
	craft_chunk(&craft, 0, F | L, 17, abort_descriptor, sizeof(abort_descriptor));
	CHECK_EQUAL(give(&bench, &craft), 0);
	CHECK_EQUAL(drain(&bench, &packets), 32);
	bench_end(&bench);
}

static void after_the_first_sample_the_probe_timer_starts_anew_with_each_probe_and_is_doubled(void)
{
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	struct bench bench;
	struct craft craft;
	struct accord_transaction_info info;
	uint32_t packets;

	bench_begin(&bench);
	bench.path = test_path(4, true);
	bench.handle = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);
	accord_engine_send(bench.engine, bench.now, bench.handle, 0, &node, 1, 2);
	drain(&bench, &packets);
	bench.now += SECOND / 8;
	craft_header(&craft, ID, 1, 0, 0);
	craft_acknowledge(&craft, 0xfffffffe, 1);
	CHECK_EQUAL(give(&bench, &craft), 0);
	accord_engine_info(bench.engine, bench.handle, &info);
	CHECK_EQUAL(info.srtt_us, SECOND / 8);
	CHECK_EQUAL(info.rto_us, SECOND / 8 + SECOND / 4 + 25000);
	/* The second one is missing, and is probed for first. */
	bench.now += SECOND / 64 + 25000;
	CHECK_EQUAL(accord_engine_deadline(bench.engine), bench.now);
	CHECK_EQUAL(drain(&bench, &packets), 1200);
	CHECK_EQUAL(accord_engine_deadline(bench.engine), bench.now + 2 * (uint64_t)info.rto_us);
	bench_end(&bench);
}

/* PROTOCOL.md, section 4.3; RFC 9002 section 6.2.3. */
static void what_the_peer_says_it_has_not_is_probed_for_by_the_time_threshold_once(void)
{
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	struct accord_transaction_info info;
	struct accord_packet_out out[8];
	struct bench bench;
	struct craft craft;
	uint64_t sent_at;
	uint32_t packets;

	bench_begin(&bench);
	bench.path = test_path(4, true);
	bench.handle = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);
	accord_engine_send(bench.engine, bench.now, bench.handle, 0, &node, 1, 4);
	CHECK_EQUAL(accord_engine_output(bench.engine, bench.now, out, 8), 4);
	sent_at = bench.now;
	/* 1 is said to be missing, 2 and 3 left with it. */
	bench.now += 100000;
	craft_header(&craft, ID, 1, 0, 0);
	craft_acknowledge(&craft, 0xfffffffe, 1);
	CHECK_EQUAL(give(&bench, &craft), 0);
	CHECK_EQUAL(accord_engine_deadline(bench.engine), sent_at + 112500 + 25000);
	bench.now = sent_at + 112500 + 25000;
	CHECK_EQUAL(accord_engine_output(bench.engine, bench.now, out, 8), 2);
	CHECK_EQUAL(out[0].data[23], 0xff); /* 0xfffffffe + 1 */
	CHECK_EQUAL(out[1].data[23], 0x00);
	/* Again the same: a slow path is asked again by the time-out only, and that is doubled. */
	bench.now += 20000;
	craft_header(&craft, ID, 1, 0, 0);
	craft_acknowledge(&craft, 0xfffffffe, 1);
	CHECK_EQUAL(give(&bench, &craft), 0);
	accord_engine_info(bench.engine, bench.handle, &info);
	CHECK_EQUAL(accord_engine_deadline(bench.engine), bench.now - 20000 + 2 * info.rto_us);
	/* It had only been late: nothing was lost, and the window is what it was. */
	craft_header(&craft, ID, 1, 0, 0);
	craft_acknowledge(&craft, 0xfffffffe, 4);
	bench.now += 30000;
	CHECK_EQUAL(give(&bench, &craft), 0);
	accord_engine_info(bench.engine, bench.handle, &info);
	CHECK_EQUAL(info.window, ACCORD_INITIAL_WINDOW);
	CHECK_EQUAL(info.in_flight, 0);
	drain(&bench, &packets);
	bench_end(&bench);
}

/* A packet of the proposal may leave several times at one moment, to lift the responder's limit. */
static void each_of_them_that_leaves_tells_its_own_range(void)
{
	static uint8_t half[1100], long_node[1500];
	struct accord_node_out nodes[] = {{.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT},
	                                  {.node = 1, .protocol = 6, .length = sizeof(long_node), .data = long_node}};
	uint32_t lower = 0, higher = 0, sent = 0, count;
	struct accord_packet_out out[8];
	struct bench bench;
	struct craft craft;

	bench_begin(&bench);
	bench.path = test_path(4, true);
	bench.handle = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);
	accord_engine_send(bench.engine, bench.now, bench.handle, 0, nodes, 2, 0);
	CHECK_EQUAL(accord_engine_output(bench.engine, bench.now, out, 8), 2);
	bench.now += 100000;
	for (uint32_t offset = 0; offset < 9; offset++) {
		if (offset == 5)
			continue;
		craft_header(&craft, ID, 1, 0, offset);
		craft_acknowledge(&craft, 0xfffffffe, 2);
		craft_chunk(&craft, 1, offset ? 0 : F, 6, half, sizeof(half));
		CHECK_EQUAL(give(&bench, &craft), 0);
	}
	take_events(&bench);
	while ((count = accord_engine_output(bench.engine, bench.now, out, 8)) > 0)
		for (uint32_t i = 0; i < count; i++, sent++) {
			lower += out[i].data[27] == 0x01 && out[i].data[29] == 5;
			higher += out[i].data[27] == 0x07 && out[i].data[29] == 3;
		}
	CHECK(sent > 4);
	CHECK(lower > 0);
	CHECK(higher > 0);
	CHECK_EQUAL(lower + higher, sent);
	bench_end(&bench);
}

static void a_round_trip_that_another_protocol_measured_paces_repetitions_until_there_is_a_sample(void)
{
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	struct accord_transaction_info info;
	struct bench bench;
	struct craft craft;
	uint64_t sent_at;
	uint32_t packets;

	bench_begin(&bench);
	bench.path = test_path(4, true);
	bench.handle = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);
	accord_engine_send(bench.engine, bench.now, bench.handle, 0, &node, 1, 2);
	drain(&bench, &packets);
	sent_at = bench.now;
	bench.now += 1000;
	CHECK_EQUAL(accord_engine_round_trip(bench.engine, bench.handle, 100000), 0);
	CHECK_EQUAL(accord_engine_deadline(bench.engine), sent_at + 325000);
	bench.now += SECOND / 10;
	craft_header(&craft, ID, 1, 0, 0);
	craft_acknowledge(&craft, 0xfffffffe, 1);
	CHECK_EQUAL(give(&bench, &craft), 0);
	CHECK_EQUAL(accord_engine_round_trip(bench.engine, bench.handle, 1), 0);
	accord_engine_info(bench.engine, bench.handle, &info);
	CHECK(info.srtt_us > 100000);
	CHECK_EQUAL(accord_engine_round_trip(bench.engine, bench.handle + 1, 1), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench_end(&bench);
}

int main(void)
{
	RUN(an_acknowledgement_of_the_unsent_ends_the_negotiation_on_either_side);
	RUN(repetitions_and_gaps_are_acknowledged_at_once_and_single_packets_later);
	RUN(arrivals_in_several_ranges_are_all_reported);
	RUN(the_answer_carries_the_acknowledgement_and_a_commit_is_acknowledged_at_once);
	RUN(an_abort_is_acknowledged_at_once);
	RUN(after_the_first_sample_the_probe_timer_starts_anew_with_each_probe_and_is_doubled);
	RUN(what_the_peer_says_it_has_not_is_probed_for_by_the_time_threshold_once);
	RUN(each_of_them_that_leaves_tells_its_own_range);
	RUN(a_round_trip_that_another_protocol_measured_paces_repetitions_until_there_is_a_sample);
	return check_report("test_acknowledgement");
}
