/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much is asked of this host by strangers, peers whose address is not proven, and what follows from it
 * (HotNets 2009, section 2.2; docs/PROTOCOL.md, section 21). Time is an argument.
 *
 *   level  a stranger's proposal gets             up, at once, when       down, after LOAD_CALM_US of
 *   0      state, as long as there is a place     no place is free
 *   1      an answer that nothing is kept of      the budget is spent     half of the places free, few strangers
 *   2      a cookie                                                       few strangers
 *
 * Few: in that time no more than an eighth of the places and half of what the budget would have paid. Without a budget
 * there is nothing on level 1, so it is passed over.
 */
#ifndef ACCORD_LOAD_H
#define ACCORD_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"

enum load_constant {
	LOAD_CALM_US = 1000000,
};

struct load {
	uint32_t level;                 /* in force: enum accord_level */
	uint32_t floor;                 /* never below */
	uint32_t budget;                /* of level 1: strangers a second; as many may come at once */
	uint64_t tokens, paid_at;       /* millionths of a stranger; when they were counted */
	uint64_t window;                /* when the present window began */
	uint32_t places, most_taken;    /* for strangers; taken at most in this window */
	uint64_t strangers, last;       /* in this window, in the one before */
	uint64_t since;                 /* when this level came into force */
	uint64_t raised[ACCORD_LEVELS]; /* how often each level came into force from below */
};

void load_init(struct load *load, uint32_t budget, uint32_t places, uint64_t now);
/* So many more came; so many places are taken. */
void load_note(struct load *load, uint64_t now, uint64_t strangers, uint32_t taken);
/* The level below does not do any more. */
void load_raise(struct load *load, uint64_t now, uint32_t level);
/* Is there budget for one answer? It is spent. */
bool load_spend(struct load *load, uint64_t now);

#endif /* ACCORD_LOAD_H */
