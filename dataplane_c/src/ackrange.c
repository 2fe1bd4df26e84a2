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

/* Where the news is: the most recent packet, or else the highest that the peer has not been told of. */
static uint32_t newest(const struct ackrange *range)
{
	if (ackrange_bit(range->unreported, range->recent))
		return range->recent;
	for (uint32_t word = ACKRANGE_WORDS; word-- > 0;)
		if (range->unreported[word])
			return word * 64 + 63 - (uint32_t)__builtin_clzll(range->unreported[word]);
	return range->recent;
}

uint16_t ackrange_next(const struct ackrange *range, uint16_t *first)
{
	uint32_t from, to;

	if (range->highest < 0)
		return 0;
	from = to = newest(range);
	while (from > 0 && ackrange_bit(range->received, from - 1))
		from--;
	while (to + 1 < ACCORD_MAX_PACKETS && ackrange_bit(range->received, to + 1))
		to++;
	*first = (uint16_t)from;
	return (uint16_t)(to - from + 1);
}

void ackrange_reported(struct ackrange *range, uint16_t first, uint16_t count)
{
	for (uint32_t offset = first; offset < (uint32_t)first + count; offset++)
		range->unreported[offset / 64] &= ~(UINT64_C(1) << (offset % 64));
}

bool ackrange_has_news(const struct ackrange *range)
{
	uint64_t any = 0;

	for (uint32_t word = 0; word < ACKRANGE_WORDS; word++)
		any |= range->unreported[word];
	return any != 0;
}
