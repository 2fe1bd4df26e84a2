// SPDX-License-Identifier: Apache-2.0
/* Which range is acknowledged, and how much the choice saves. */
#include "ackrange.h"

#include <string.h>

#include "check.h"
#include "world.h"

/* ---- the choice, against one made from scratch ---- */

static void the_range_is_whole_and_none_is_worth_more(void)
{
	uint64_t random = 11;

	for (int round = 0; round < 3000; round++) {
		struct ackrange range;
		uint8_t told[ACCORD_MAX_PACKETS], best[2] = {0, 0}, sum[2];
		uint32_t spread = round % 2 ? ACCORD_MAX_PACKETS : 40, low = 0, high = 0;
		uint16_t first = 0, count;

		memset(told, 0xff, sizeof(told)); /* 0xff: not received */
		ackrange_init(&range);
		for (uint32_t i = 1 + test_below(&random, 60); i--;) {
			uint32_t offset = test_below(&random, spread);

			ackrange_add(&range, offset);
			told[offset] = 0;
			if (test_below(&random, 4))
				continue;
			count = ackrange_next(&range, &first);
			ackrange_reported(&range, first, count);
			for (uint32_t at = first; at < (uint32_t)first + count; at++)
				told[at] += told[at] < 2;
		}
		for (uint32_t from = 0; from < ACCORD_MAX_PACKETS; from++) {
			uint32_t to = from;

			if (told[from] == 0xff || (from && told[from - 1] != 0xff))
				continue;
			for (sum[0] = sum[1] = 0; to < ACCORD_MAX_PACKETS && told[to] != 0xff; to++) {
				sum[0] += told[to] == 0;
				sum[1] += told[to] == 1;
			}
			if (sum[0] > best[0] || (sum[0] == best[0] && sum[1] >= best[1])) {
				memcpy(best, sum, sizeof(best));
				low = from;
				high = to;
			}
		}
		count = ackrange_next(&range, &first);
		CHECK_EQUAL(first, low);
		CHECK_EQUAL(count, high - low);
	}
}

/* ---- what it saves ---- */

enum {
	FLIGHT = 8, /* packets */
	CHOICES = 5,
};

/* Which range a packet tells of, given what has come, and the packet that came last. Returns its lowest offset. */
static uint32_t choose(int choice, const struct ackrange *range, uint32_t received, uint32_t recent)
{
	uint32_t chosen = FLIGHT, widest = 0;
	uint16_t first;

	if (choice == 0) {
		ackrange_next(range, &first);
		return first;
	}
	for (uint32_t from = 0; from < FLIGHT; from++) {
		uint32_t to = from;

		if (!(received >> from & 1) || (from && received >> (from - 1) & 1))
			continue;
		while (received >> to & 1)
			to++;
		if ((choice == 1 && from <= recent && recent < to) || (choice == 2 && chosen == FLIGHT) || choice == 3 ||
		    (choice == 4 && to - from >= widest)) {
			chosen = from;
			widest = to - from;
		}
	}
	return chosen;
}

/*
 * A flight of eight packets; those of `arrive` come, in order, `batch` at a time, and after each batch one packet can
 * tell of one range; the i-th of these is lost if bit i of `lost` is set. Returns how many packets came that the sender
 * does not know of: it sends them again for nothing.
 */
static uint32_t wasted(int choice, uint32_t arrive, uint32_t batch, uint32_t lost)
{
	uint32_t received = 0, known = 0, came = 0, told = 0;
	struct ackrange range;

	ackrange_init(&range);
	for (uint32_t offset = 0; offset < FLIGHT; offset++) {
		uint32_t from, to;

		if (!(arrive >> offset & 1))
			continue;
		ackrange_add(&range, offset);
		received |= 1u << offset;
		if (++came % batch && arrive >> (offset + 1))
			continue;
		from = to = choose(choice, &range, received, offset);
		while (received >> to & 1)
			to++;
		ackrange_reported(&range, (uint16_t)from, (uint16_t)(to - from));
		if (!(lost >> told++ & 1))
			known |= ((1u << to) - 1) & ~((1u << from) - 1);
	}
	return (uint32_t)__builtin_popcount(received & ~known);
}

/* Over all patterns of losses either way, each weighted as if one packet in ten is lost; in thousandths of a packet. */
static uint64_t expected(int choice, uint32_t batch)
{
	uint64_t sum = 0;

	for (uint32_t arrive = 1; arrive < 1u << FLIGHT; arrive++) {
		uint32_t packets = (uint32_t)__builtin_popcount(arrive);
		uint32_t tellings = (packets + batch - 1) / batch;

		for (uint32_t lost = 0; lost < 1u << tellings; lost++) {
			double weight = 1000;

			for (uint32_t i = 0; i < FLIGHT; i++)
				weight *= arrive >> i & 1 ? 0.9 : 0.1;
			for (uint32_t i = 0; i < tellings; i++)
				weight *= lost >> i & 1 ? 0.1 : 0.9;
			sum += (uint64_t)(wasted(choice, arrive, batch, lost) * weight * 1000);
		}
	}
	return sum / 1000;
}

static void no_other_choice_has_fewer_packets_sent_again_for_nothing(void)
{
	for (uint32_t batch = 1; batch <= 4; batch++) {
		uint64_t ours = expected(0, batch);

		for (int other = 1; other < CHOICES; other++) /* most recent, lowest, highest, widest */
			CHECK(ours <= expected(other, batch));
		CHECK(batch == 1 || ours * 4 <= expected(1, batch) * 3 + 4); /* a quarter less */
	}
}

/* ---- all of it is told ---- */

static void every_arrival_is_reported_after_as_many_packets_as_there_are_ranges(void)
{
	uint64_t random = 5;

	for (int round = 0; round < 500; round++) {
		struct ackrange range;
		bool told[ACCORD_MAX_PACKETS] = {false};
		uint32_t ranges = 0;
		uint16_t first;

		ackrange_init(&range);
		for (int i = 0; i < 80; i++)
			ackrange_add(&range, test_below(&random, ACCORD_MAX_PACKETS));
		for (uint32_t i = 0; i < ACCORD_MAX_PACKETS; i++)
			ranges += ackrange_has(&range, i) && (i == 0 || !ackrange_has(&range, i - 1));
		for (uint32_t i = 0; i < ranges; i++) {
			uint16_t count = ackrange_next(&range, &first);

			CHECK(ackrange_has_news(&range));
			for (uint32_t offset = first; offset < (uint32_t)first + count; offset++)
				told[offset] = true;
			ackrange_reported(&range, first, count);
		}
		CHECK(!ackrange_has_news(&range));
		for (uint32_t i = 0; i < ACCORD_MAX_PACKETS; i++)
			CHECK_EQUAL(told[i], ackrange_has(&range, i));
	}
}

static void a_range_holds_what_came_and_nothing_else(void)
{
	struct ackrange range;

	ackrange_init(&range);
	CHECK_EQUAL(ackrange_next(&range, &(uint16_t){0}), 0);
	for (uint32_t i = 0; i < ACCORD_MAX_PACKETS; i++)
		if (i != 63 && i != 200)
			ackrange_add(&range, i);
	CHECK(ackrange_holds(&range, 0, 62));
	CHECK(!ackrange_holds(&range, 0, 63));
	CHECK(ackrange_holds(&range, 64, 199));
	CHECK(!ackrange_holds(&range, 64, 200));
	CHECK_EQUAL(range.prefix, 63);
	ackrange_add(&range, 63);
	CHECK_EQUAL(range.prefix, 200);
	ackrange_add(&range, 200);
	CHECK_EQUAL(range.prefix, ACCORD_MAX_PACKETS);
	CHECK(ackrange_holds(&range, 0, 255));
}

int main(void)
{
	RUN(the_range_is_whole_and_none_is_worth_more);
	RUN(no_other_choice_has_fewer_packets_sent_again_for_nothing);
	RUN(every_arrival_is_reported_after_as_many_packets_as_there_are_ranges);
	RUN(a_range_holds_what_came_and_nothing_else);
	return check_report("test_ackrange");
}
