// SPDX-License-Identifier: Apache-2.0
#include "ackrange.h"

#include <string.h>

void ackrange_init(struct ackrange *range)
{
	memset(range, 0, sizeof(*range));
	range->highest = -1;
}

bool ackrange_holds(const struct ackrange *range, uint32_t from, uint32_t to)
{
	if (to < range->prefix)
		return true;
	for (uint32_t offset = from; offset <= to; offset++)
		if (!ackrange_bit(range->received, offset))
			return false;
	return true;
}

struct worth {
	uint32_t unreported, once;
};

static bool is_worth_more(struct worth one, struct worth other)
{
	return one.unreported != other.unreported ? one.unreported > other.unreported : one.once > other.once;
}

uint16_t ackrange_next(const struct ackrange *range, uint16_t *first)
{
	struct worth best = {0}, present = {0};
	uint16_t count = 0, from = 0;

	/* Mostly there is one range, from the first on. */
	if (range->prefix == range->highest + 1) {
		*first = 0;
		return range->prefix;
	}
	for (uint16_t offset = 0; offset <= (uint16_t)range->highest; offset++) {
		if (!ackrange_bit(range->received, offset)) {
			from = (uint16_t)(offset + 1);
			present = (struct worth){0};
			continue;
		}
		present.unreported += ackrange_bit(range->unreported, offset);
		present.once += ackrange_bit(range->once, offset);
		if (is_worth_more(best, present))
			continue;
		/* From the beginning of its range on: as the range grows so does its worth. */
		best = present;
		*first = from;
		count = (uint16_t)(offset - from + 1);
	}
	return count;
}

void ackrange_reported(struct ackrange *range, uint16_t first, uint16_t count)
{
	for (uint32_t offset = first; offset < (uint32_t)first + count; offset++) {
		uint64_t mark = UINT64_C(1) << (offset % 64);
		uint64_t news = range->unreported[offset / 64] & mark;

		range->unreported[offset / 64] &= ~mark;
		range->once[offset / 64] = (range->once[offset / 64] & ~mark) | news;
	}
}

bool ackrange_has_news(const struct ackrange *range)
{
	uint64_t any = 0;

	for (uint32_t word = 0; word < ACKRANGE_WORDS; word++)
		any |= range->unreported[word];
	return any != 0;
}
