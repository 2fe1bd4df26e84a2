/* SPDX-License-Identifier: Apache-2.0 */
/* Which transaction is due next: a binary heap over slots, each at most once. */
#ifndef ACCORD_TIMER_H
#define ACCORD_TIMER_H

#include <stdint.h>

struct timer_entry {
	uint64_t due; /* microseconds */
	uint32_t slot;
	uint32_t reserved;
};

#define TIMER_ABSENT UINT32_MAX

struct timer {
	struct timer_entry *entries; /* as many as there are slots */
	uint32_t *place;             /* by slot: index in entries, or TIMER_ABSENT */
	uint32_t count;
};

void timer_init(struct timer *timer, struct timer_entry *entries, uint32_t *place, uint32_t slots);
/* due UINT64_MAX: not any more. */
void timer_set(struct timer *timer, uint32_t slot, uint64_t due);

#endif /* ACCORD_TIMER_H */
