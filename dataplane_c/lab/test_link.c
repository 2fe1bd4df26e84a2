/* SPDX-License-Identifier: Apache-2.0 */
/* What the model of a link and its schedule promise, without a socket or a clock. */
#include <stdio.h>
#include <string.h>

#include "model.h"
#include "schedule.h"

static int failures;

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			printf("  %s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
			failures++; \
		} \
	} while (0)

enum {
	MILLISECOND = 1000000
};

static struct model fresh(uint64_t seed)
{
	struct model model;

	model_init(&model, seed, 0);
	model.settings = (struct model_settings){.delay_ns = 10 * MILLISECOND, .limit = 1000};
	return model;
}

static void every_frame_leaves_once_after_the_delay(void)
{
	struct model model = fresh(1);
	uint64_t when[2];

	for (uint64_t now = 0; now < 1000; now++) {
		CHECK(model_frame(&model, now, 1514, when) == 1);
		CHECK(when[0] == now + 10 * MILLISECOND);
	}
	CHECK(model.counters.received == 1000 && model.counters.received_bytes == 1514000);
}

static void loss_is_as_likely_as_asked_for(void)
{
	struct model model = fresh(2);
	uint64_t when[2];
	unsigned left = 0;

	model.settings.loss = 0.05;
	for (int i = 0; i < 100000; i++)
		left += model_frame(&model, 0, 100, when);
	/* Binomial: 5000 expected, standard deviation 69; 6 of them. */
	CHECK(model.counters.lost > 4586 && model.counters.lost < 5414);
	CHECK(left + model.counters.lost == 100000);
}

static void certain_loss_loses_all_and_no_loss_none(void)
{
	struct model model = fresh(3);
	uint64_t when[2];

	model.settings.loss = 1;
	for (int i = 0; i < 10000; i++)
		CHECK(model_frame(&model, 0, 100, when) == 0);
	model.settings.loss = 0;
	for (int i = 0; i < 10000; i++)
		CHECK(model_frame(&model, 0, 100, when) == 1);
}

static void a_seed_repeats_the_same_losses_and_another_does_not(void)
{
	struct model first = fresh(7), again = fresh(7), other = fresh(8);
	uint64_t when[2];
	unsigned differences = 0;

	first.settings.loss = again.settings.loss = other.settings.loss = 0.5;
	again.settings.duplicate = 0.5; /* another setting does not shift the losses */
	for (int i = 0; i < 1000; i++) {
		uint64_t lost = first.counters.lost, lost_again = again.counters.lost, lost_other = other.counters.lost;

		model_frame(&first, 0, 100, when);
		model_frame(&again, 0, 100, when);
		model_frame(&other, 0, 100, when);
		CHECK(first.counters.lost - lost == again.counters.lost - lost_again);
		differences += first.counters.lost - lost != other.counters.lost - lost_other;
	}
	CHECK(differences > 300);
}

static void the_two_directions_lose_different_frames(void)
{
	struct model up, down;
	unsigned differences = 0;

	model_init(&up, 9, 0);
	model_init(&down, 9, 1);
	for (uint64_t i = 0; i < 1000; i++)
		differences += (model_chance(&up, i, MODEL_DRAW_LOSS) < 0.5) != (model_chance(&down, i, MODEL_DRAW_LOSS) < 0.5);
	CHECK(differences > 300 && differences < 700);
}

static void a_duplicated_frame_leaves_twice(void)
{
	struct model model = fresh(4);
	uint64_t when[2];

	model.settings.duplicate = 1;
	CHECK(model_frame(&model, 5, 100, when) == 2);
	CHECK(when[0] == 5 + 10 * MILLISECOND && when[1] == when[0]);
	CHECK(model.counters.duplicated == 1);
}

static void jitter_stays_within_its_bounds_and_uses_them(void)
{
	struct model model = fresh(5);
	uint64_t when[2], least = UINT64_MAX, most = 0;

	model.settings.jitter_ns = 2 * MILLISECOND;
	for (int i = 0; i < 10000; i++) {
		model_frame(&model, 0, 100, when);
		least = when[0] < least ? when[0] : least;
		most = when[0] > most ? when[0] : most;
	}
	CHECK(least >= 8 * MILLISECOND && least < 8 * MILLISECOND + MILLISECOND / 50);
	CHECK(most <= 12 * MILLISECOND && most > 12 * MILLISECOND - MILLISECOND / 50);
}

static void jitter_as_large_as_the_delay_never_reaches_the_past(void)
{
	struct model model = fresh(6);
	uint64_t when[2];

	model.settings.jitter_ns = model.settings.delay_ns;
	for (int i = 0; i < 10000; i++) {
		model_frame(&model, 1000, 100, when);
		CHECK(when[0] >= 1000 && when[0] <= 1000 + 20 * MILLISECOND);
	}
}

static void a_rate_spaces_frames_by_their_length(void)
{
	struct model model = fresh(10);
	uint64_t when[2];

	model.settings.rate_bps = 8000000; /* a byte per microsecond */
	for (uint64_t i = 1; i <= 100; i++) {
		CHECK(model_frame(&model, 0, 1500, when) == 1);
		CHECK(when[0] == i * 1500000 + 10 * MILLISECOND);
	}
	/* A transmitter that has been idle starts at once, and has saved nothing up. */
	model_frame(&model, 1000 * (uint64_t)MILLISECOND, 1500, when);
	CHECK(when[0] == 1000 * (uint64_t)MILLISECOND + 1500000 + 10 * MILLISECOND);
}

static void a_reordered_frame_skips_the_delay(void)
{
	struct model model = fresh(11);
	uint64_t when[2];

	model.settings.reorder = 1;
	CHECK(model_frame(&model, 77, 100, when) == 1 && when[0] == 77);
	CHECK(model.counters.reordered == 1);
	model.settings.delay_ns = 0; /* nothing to skip */
	model_frame(&model, 78, 100, when);
	CHECK(model.counters.reordered == 1);
}

static void a_frame_over_the_mtu_is_dropped_whatever_its_luck(void)
{
	struct model model = fresh(13);
	uint64_t when[2];

	model.settings.mtu = 1280;
	model.settings.duplicate = 1;
	CHECK(model_frame(&model, 0, 1294, when) == 2);
	CHECK(model_frame(&model, 0, 1295, when) == 0);
	CHECK(model.counters.too_long == 1 && model.counters.received == 2 && model.counters.lost == 0);
	model.settings.mtu = 0;
	CHECK(model_frame(&model, 0, 9014, when) == 2);
}

static void a_full_link_drops_and_counts(void)
{
	struct model model = fresh(12);
	uint64_t when[2];

	model.settings.limit = 3;
	model.settings.duplicate = 1;
	model.queued = 2;
	CHECK(model_frame(&model, 0, 100, when) == 1 && model.counters.overflowed == 1);
	model.queued = 3;
	CHECK(model_frame(&model, 0, 100, when) == 0 && model.counters.overflowed == 3);
	model.queued = 4; /* the limit was lowered while they were under way */
	CHECK(model_frame(&model, 0, 100, when) == 0 && model.counters.overflowed == 5);
}

static void frames_leave_in_the_order_of_their_times_and_equal_times_in_that_of_arrival(void)
{
	enum {
		COUNT = 500
	};
	struct schedule schedule;
	struct model dice;
	uint64_t when[COUNT], last_when = 0;
	uint32_t last_buffer = 0;

	CHECK(schedule_init(&schedule, COUNT, 1, 64));
	model_init(&dice, 1, 0);
	for (int round = 0; round < 20; round++) {
		for (uint32_t i = 0; i < COUNT; i++) {
			uint32_t buffer = schedule_take(&schedule);

			/* Few different times, so that there are many equal ones. The buffer says when it came. */
			when[buffer] = (uint64_t)(model_chance(&dice, schedule.order, MODEL_DRAW_LOSS) * 50);
			memcpy(schedule_memory(&schedule, buffer), &i, sizeof(i));
			CHECK(schedule_push(&schedule, when[buffer], buffer));
		}
		last_when = last_buffer = 0;
		for (uint32_t i = 0; i < COUNT; i++) {
			uint64_t next = schedule_next(&schedule);
			uint32_t buffer = schedule_pop(&schedule), arrival;

			memcpy(&arrival, schedule_memory(&schedule, buffer), sizeof(arrival));
			CHECK(when[buffer] == next && next >= last_when);
			CHECK(next > last_when || i == 0 || arrival > last_buffer);
			last_when = next;
			last_buffer = arrival;
			schedule_give_back(&schedule, buffer);
		}
		CHECK(schedule_next(&schedule) == UINT64_MAX);
		CHECK(schedule.free_count == schedule.buffers);
	}
	schedule_free(&schedule);
}

static void a_full_schedule_refuses_and_has_buffers_for_its_owner_still(void)
{
	struct schedule schedule;

	CHECK(schedule_init(&schedule, 4, 2, 64));
	for (int i = 0; i < 4; i++)
		CHECK(schedule_push(&schedule, 1, schedule_take(&schedule)));
	CHECK(schedule.free_count == 2);
	CHECK(!schedule_push(&schedule, 1, 0));
	schedule_free(&schedule);
}

int main(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
#define TEST(name) {#name, name}
		TEST(every_frame_leaves_once_after_the_delay),
		TEST(loss_is_as_likely_as_asked_for),
		TEST(certain_loss_loses_all_and_no_loss_none),
		TEST(a_seed_repeats_the_same_losses_and_another_does_not),
		TEST(the_two_directions_lose_different_frames),
		TEST(a_duplicated_frame_leaves_twice),
		TEST(jitter_stays_within_its_bounds_and_uses_them),
		TEST(jitter_as_large_as_the_delay_never_reaches_the_past),
		TEST(a_rate_spaces_frames_by_their_length),
		TEST(a_reordered_frame_skips_the_delay),
		TEST(a_frame_over_the_mtu_is_dropped_whatever_its_luck),
		TEST(a_full_link_drops_and_counts),
		TEST(frames_leave_in_the_order_of_their_times_and_equal_times_in_that_of_arrival),
		TEST(a_full_schedule_refuses_and_has_buffers_for_its_owner_still),
	};

	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		int before = failures;

		tests[i].run();
		printf("%s %s\n", failures == before ? "ok  " : "FAIL", tests[i].name);
	}
	printf("%zu tests, %d failures\n", sizeof(tests) / sizeof(tests[0]), failures);
	return failures != 0;
}
