// SPDX-License-Identifier: Apache-2.0
#include "timer.h"

static void put(struct timer *timer, uint32_t at, struct timer_entry entry)
{
	timer->entries[at] = entry;
	timer->place[entry.slot] = at;
}

static void sift_up(struct timer *timer, uint32_t at)
{
	struct timer_entry entry = timer->entries[at];

	while (at && timer->entries[(at - 1) / 2].due > entry.due) {
		put(timer, at, timer->entries[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	put(timer, at, entry);
}

static void sift_down(struct timer *timer, uint32_t at)
{
	struct timer_entry entry = timer->entries[at];

	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child >= timer->count)
			break;
		if (child + 1 < timer->count && timer->entries[child + 1].due < timer->entries[child].due)
			child++;
		if (timer->entries[child].due >= entry.due)
			break;
		put(timer, at, timer->entries[child]);
		at = child;
	}
	put(timer, at, entry);
}

void timer_init(struct timer *timer, struct timer_entry *entries, uint32_t *place, uint32_t slots)
{
	timer->entries = entries;
	timer->place = place;
	timer->count = 0;
	for (uint32_t slot = 0; slot < slots; slot++)
		place[slot] = TIMER_ABSENT;
}

static void take_out(struct timer *timer, uint32_t slot)
{
	uint32_t at = timer->place[slot];
	struct timer_entry last = timer->entries[--timer->count];

	timer->place[slot] = TIMER_ABSENT;
	if (last.slot == slot)
		return;
	put(timer, at, last);
	sift_up(timer, at);
	sift_down(timer, timer->place[last.slot]);
}

void timer_set(struct timer *timer, uint32_t slot, uint64_t due)
{
	uint32_t at = timer->place[slot];

	if (due == UINT64_MAX) {
		if (at != TIMER_ABSENT)
			take_out(timer, slot);
		return;
	}
	if (at == TIMER_ABSENT) {
		at = timer->count++;
		put(timer, at, (struct timer_entry){.due = due, .slot = slot});
		sift_up(timer, at);
		return;
	}
	if (timer->entries[at].due == due)
		return;
	timer->entries[at].due = due;
	sift_up(timer, at);
	sift_down(timer, timer->place[slot]);
}
