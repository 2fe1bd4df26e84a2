/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which TSNs of a direction have come in, and which of them the peer has not been told of.
 *
 * A packet acknowledges one contiguous range (HotNets 2009, section 3.3, after SST): the one by which its receiver is
 * likely to learn most. That is the one with the most TSNs that no packet has told of yet; among those the one with the
 * most that only one has, which may have been lost; then the highest, since it is by what overtook them that losses are
 * found. Where several ranges have news, several packets tell it. docs/PROTOCOL.md, section 4.2, has what it saves.
 */
#ifndef ACCORD_ACKRANGE_H
#define ACCORD_ACKRANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"

enum ackrange_constant {
	ACKRANGE_WORDS = ACCORD_MAX_PACKETS / 64,
};

struct ackrange {
	uint64_t received[ACKRANGE_WORDS];
	uint64_t unreported[ACKRANGE_WORDS];
	uint64_t once[ACKRANGE_WORDS]; /* reported by one packet */
	int16_t highest;               /* -1: nothing received */
	uint16_t prefix;               /* offsets [0, prefix) have all come */
};

void ackrange_init(struct ackrange *range);
static inline bool ackrange_bit(const uint64_t *words, uint32_t offset)
{
	return words[offset / 64] >> (offset % 64) & 1;
}
static inline bool ackrange_has(const struct ackrange *range, uint32_t offset)
{
	return ackrange_bit(range->received, offset);
}
/* Note an arrival, new or repeated. */
static inline void ackrange_add(struct ackrange *range, uint32_t offset)
{
	uint64_t mark = UINT64_C(1) << (offset % 64);

	range->received[offset / 64] |= mark;
	range->unreported[offset / 64] |= mark;
	range->once[offset / 64] &= ~mark;
	if ((int32_t)offset > range->highest)
		range->highest = (int16_t)offset;
	while (range->prefix < ACCORD_MAX_PACKETS && ackrange_has(range, range->prefix))
		range->prefix++;
}
/* Whether all of [from, to] have come. */
bool ackrange_holds(const struct ackrange *range, uint32_t from, uint32_t to);
/* The range to acknowledge next: offsets [*first, *first + count). Returns count; 0: nothing ever came. */
uint16_t ackrange_next(const struct ackrange *range, uint16_t *first);
/* A packet that acknowledges [first, first + count) was sent. */
void ackrange_reported(struct ackrange *range, uint16_t first, uint16_t count);
bool ackrange_has_news(const struct ackrange *range);

#endif /* ACCORD_ACKRANGE_H */
