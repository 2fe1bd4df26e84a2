// SPDX-License-Identifier: Apache-2.0
/* Window algorithms behind their common table, the pace, and silence. */
#include "check.h"
#include "recovery.h"
#include "world.h"

#include <math.h>

enum {
	MS = 1000,
	RTT = 100 * MS,
};

static const enum accord_congestion ALL[] = {ACCORD_CONGESTION_NEWRENO, ACCORD_CONGESTION_CUBIC};

/* ---- what all have in common ---- */

static void slow_start_adds_what_was_acknowledged_up_to_its_threshold(void)
{
	for (int i = 0; i < 2; i++) {
		struct congestion congestion;

		congestion_init(&congestion, ALL[i], 10);
		congestion_on_acked(&congestion, 7, RTT, RTT);
		CHECK_EQUAL(congestion.window, 17);
		congestion.threshold = 20;
		congestion_on_acked(&congestion, 4, 2 * RTT, RTT);
		CHECK_EQUAL(congestion.window, 20);
		congestion_on_acked(&congestion, 300, 3 * RTT, RTT);
		CHECK(congestion.window > 20 && congestion.window <= ACCORD_MAX_PACKETS);
	}
}

static void losses_of_one_recovery_period_shrink_the_window_once_and_never_below_two(void)
{
	for (int i = 0; i < 2; i++) {
		struct congestion congestion;
		uint32_t shrunk;

		congestion_init(&congestion, ALL[i], 20);
		congestion_on_lost(&congestion, 100, 200);
		shrunk = congestion.window;
		CHECK(shrunk < 20);
		CHECK_EQUAL(congestion.threshold, shrunk);
		CHECK(!congestion_counts(&congestion, 200) && congestion_counts(&congestion, 201));
		congestion_on_lost(&congestion, 200, 210);
		CHECK_EQUAL(congestion.window, shrunk);
		congestion_on_lost(&congestion, 201, 300);
		CHECK(congestion.window < shrunk);
		for (uint64_t now = 1000; now < 20000; now += 1000)
			congestion_on_lost(&congestion, now, now);
		CHECK_EQUAL(congestion.window, CONGESTION_MIN_WINDOW);
	}
}

static void persistent_congestion_begins_anew_with_the_smallest_window_and_slow_start_up_to_the_old_threshold(void)
{
	for (int i = 0; i < 2; i++) {
		struct congestion congestion;
		uint32_t threshold;

		congestion_init(&congestion, ALL[i], 40);
		congestion_on_lost(&congestion, 100, 200);
		threshold = congestion.threshold;
		congestion_on_persistent(&congestion);
		CHECK_EQUAL(congestion.window, CONGESTION_MIN_WINDOW);
		CHECK_EQUAL(congestion.threshold, threshold);
		CHECK(congestion_counts(&congestion, 1));
		congestion_on_acked(&congestion, 2, 300, RTT);
		CHECK_EQUAL(congestion.window, CONGESTION_MIN_WINDOW + 2);
	}
}

/* ---- NewReno ---- */

static void newreno_halves_and_adds_one_for_each_window(void)
{
	struct congestion congestion;

	congestion_init(&congestion, ACCORD_CONGESTION_NEWRENO, 21);
	congestion_on_lost(&congestion, 100, 200);
	CHECK_EQUAL(congestion.window, 10);
	congestion_on_acked(&congestion, 9, 300, RTT);
	CHECK_EQUAL(congestion.window, 10);
	congestion_on_acked(&congestion, 1, 300, RTT);
	CHECK_EQUAL(congestion.window, 11);
	congestion_on_acked(&congestion, 11 + 12 + 5, 300, RTT);
	CHECK_EQUAL(congestion.window, 13);
	congestion_on_acked(&congestion, 8, 300, RTT);
	CHECK_EQUAL(congestion.window, 14);
}

/* ---- CUBIC, against RFC 9438 in floating point ---- */

static double cubic_oracle(double most, double begin, double before, double rtt, int round_trips)
{
	double k = cbrt((most - begin) / 0.4), window = begin, reno = begin;

	for (int trip = 0; trip < round_trips; trip++) {
		int packets = (int)window;
		double t = trip * rtt;

		for (int i = 0; i < packets; i++) {
			double target = 0.4 * pow(t + rtt - k, 3) + most;
			double now = 0.4 * pow(t - k, 3) + most;

			reno += (reno < before ? 3 * (1 - 0.7) / (1 + 0.7) : 1) / window;
			target = target > 1.5 * window ? 1.5 * window : target;
			if (now < reno)
				window = reno > window ? reno : window;
			else if (target > window)
				window += (target - window) / window;
		}
	}
	return window;
}

static void cubic_follows_its_curve_back_to_where_it_lost_and_beyond(void)
{
	static const uint32_t rtts[] = {20 * MS, 100 * MS, 400 * MS};

	for (int i = 0; i < 3; i++) {
		struct congestion congestion;
		uint64_t now = 1000 * MS;

		congestion_init(&congestion, ACCORD_CONGESTION_CUBIC, 100);
		congestion_on_lost(&congestion, now, now);
		CHECK_EQUAL(congestion.window, 70);
		for (int trip = 0; trip < 30; trip++, now += rtts[i]) {
			double expected = cubic_oracle(100, 70, 100, rtts[i] / 1e6, trip);

			expected = expected > ACCORD_MAX_PACKETS ? ACCORD_MAX_PACKETS : expected;
			CHECK(congestion.window + 2.0 > expected * 0.98 && congestion.window - 2.0 < expected * 1.02);
			congestion_on_acked(&congestion, congestion.window, now, rtts[i]);
		}
		CHECK(congestion.window > 70);
	}
}

static void cubic_gives_way_when_it_loses_before_it_is_back(void)
{
	struct congestion congestion;

	congestion_init(&congestion, ACCORD_CONGESTION_CUBIC, 100);
	congestion_on_lost(&congestion, 1, 2);
	CHECK_EQUAL(congestion.cubic.most, 100 * 1024);
	congestion_on_lost(&congestion, 3, 4);
	CHECK_EQUAL(congestion.cubic.most, 70 * 1024 * 17 / 20);
	CHECK_EQUAL(congestion.window, 49);
}

/* ---- pace ---- */

static uint32_t sent_until(struct recovery *recovery, uint64_t from, uint64_t to)
{
	uint32_t sent = 0;

	for (uint64_t now = from; now < to; now += 10)
		for (; recovery_pace_time(recovery) <= now; sent++)
			recovery_on_sent(recovery, now, true);
	return sent;
}

static void nothing_is_paced_before_there_is_a_round_trip(void)
{
	struct recovery recovery;

	recovery_init(&recovery, ACCORD_CONGESTION_NEWRENO, ACCORD_INITIAL_WINDOW);
	for (int i = 0; i < 100; i++)
		recovery_on_sent(&recovery, 5, true);
	CHECK(recovery_pace_time(&recovery) <= 5);
}

static void an_initial_window_leaves_at_once_and_the_rest_by_the_pace(void)
{
	struct recovery recovery;

	recovery_init(&recovery, ACCORD_CONGESTION_NEWRENO, 40);
	recovery_on_sample(&recovery, RTT, 1);
	CHECK_EQUAL(sent_until(&recovery, RTT, RTT + 10), ACCORD_INITIAL_WINDOW);
	/* 200 % of 40 packets in 100 ms, in slow start: one in 1250 us. */
	CHECK_EQUAL(recovery_pace_time(&recovery), RTT + 1250);
	CHECK_EQUAL(sent_until(&recovery, RTT + 10, 2 * RTT + 10), 80);
	recovery.congestion.threshold = 40;
	CHECK_EQUAL(sent_until(&recovery, 10 * RTT, 10 * RTT + 10), ACCORD_INITIAL_WINDOW);
	/* 125 % in congestion avoidance */
	CHECK_EQUAL(sent_until(&recovery, 10 * RTT + 10, 11 * RTT + 10), 50);
}

static void probes_do_not_wait_and_others_do_not_wait_for_them(void)
{
	struct recovery recovery;
	uint64_t pace;

	recovery_init(&recovery, ACCORD_CONGESTION_NEWRENO, 40);
	recovery_on_sample(&recovery, RTT, 1);
	sent_until(&recovery, RTT, RTT + 10);
	pace = recovery_pace_time(&recovery);
	recovery_on_sent(&recovery, RTT + 20, false);
	CHECK_EQUAL(recovery_pace_time(&recovery), pace);
}

/* ---- silence ---- */

static void only_silence_of_more_than_three_probe_timeouts_since_a_sample_is_persistent_congestion(void)
{
	struct recovery recovery;
	uint64_t span;

	recovery_init(&recovery, ACCORD_CONGESTION_NEWRENO, 40);
	recovery_on_silence(&recovery, 1, 60000000);
	CHECK_EQUAL(recovery.congestion.window, 40);
	recovery_on_sample(&recovery, RTT, 1000);
	span = 3 * (uint64_t)recovery_pto(&recovery);
	recovery_on_silence(&recovery, 1000, 1000 + span + 1); /* began before the sample was there */
	recovery_on_silence(&recovery, 1001, 1001 + span);
	CHECK_EQUAL(recovery.congestion.window, 40);
	recovery_on_silence(&recovery, 1001, 1002 + span);
	CHECK_EQUAL(recovery.congestion.window, CONGESTION_MIN_WINDOW);
}

/* ---- whole exchanges ---- */

static void every_algorithm_delivers_long_messages_under_any_pattern_of_losses(void)
{
	uint64_t random = 5;

	for (int i = 0; i < 40; i++) {
		struct accord_engine_config config = {
			.transactions = 4, .buffers = 512, .events = 512, .congestion = ALL[i % 2]};
		struct world world;

		world_begin(&world, &config);
		for (uint32_t step = 0; step < 3; step++) {
			world_node(&world, step, 0, 17, 8);
			world_node(&world, step, 1, 6, step == 1 ? 60000 : 2000);
		}
		if (i >= 2)
			world.loss = test_random(&random);
		world.loss &= test_random(&random); /* one in four */
		world_start(&world);
		world_run(&world, 9000000);
		CHECK(world_done(&world));
		world_end(&world);
	}
}

static void a_long_message_is_paced_after_its_first_window(void)
{
	struct accord_engine_config config = {.transactions = 4, .buffers = 512, .events = 512};
	uint32_t burst = 0, longest = 0;
	struct world world;

	world_begin(&world, &config);
	for (uint32_t step = 0; step < 3; step++) {
		world_node(&world, step, 0, 17, 8);
		world_node(&world, step, 1, 6, step == 1 ? 60000 : 2000);
	}
	world_start(&world);
	world_run(&world, 9000000);
	CHECK(world_done(&world));
	for (uint32_t i = 1; i < world.logged; i++) {
		bool full = world.log[i].length > 600 && world.log[i].from == RESPONDER;

		burst = full && world.log[i].at == world.log[i - 1].at ? burst + 1 : full;
		longest = burst > longest ? burst : longest;
	}
	CHECK_EQUAL(longest, ACCORD_INITIAL_WINDOW);
	world_end(&world);
}

int main(void)
{
	RUN(slow_start_adds_what_was_acknowledged_up_to_its_threshold);
	RUN(losses_of_one_recovery_period_shrink_the_window_once_and_never_below_two);
	RUN(persistent_congestion_begins_anew_with_the_smallest_window_and_slow_start_up_to_the_old_threshold);
	RUN(newreno_halves_and_adds_one_for_each_window);
	RUN(cubic_follows_its_curve_back_to_where_it_lost_and_beyond);
	RUN(cubic_gives_way_when_it_loses_before_it_is_back);
	RUN(nothing_is_paced_before_there_is_a_round_trip);
	RUN(an_initial_window_leaves_at_once_and_the_rest_by_the_pace);
	RUN(probes_do_not_wait_and_others_do_not_wait_for_them);
	RUN(only_silence_of_more_than_three_probe_timeouts_since_a_sample_is_persistent_congestion);
	RUN(every_algorithm_delivers_long_messages_under_any_pattern_of_losses);
	RUN(a_long_message_is_paced_after_its_first_window);
	return check_report("test_congestion");
}
