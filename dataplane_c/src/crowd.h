/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many unfinished negotiations there are from each network: an IPv4 /24, an IPv6 /56, the least that sites have.
 * Two rows of counters, each network in one of either; the smaller is no less than the truth and seldom more
 * (Cormode and Muthukrishnan, count-min sketch, J. Algorithms 2005). Nothing grows, and what is given back is exact.
 */
#ifndef ACCORD_CROWD_H
#define ACCORD_CROWD_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"

enum crowd_constant {
	CROWD_ROWS = 2,
	CROWD_BITS = 11,
};
_Static_assert((int)CROWD_ROWS *(int)CROWD_BITS <= 32, "a network's places are one word");

struct crowd {
	uint32_t limit; /* of one network */
	uint32_t counts[CROWD_ROWS][1 << CROWD_BITS];
};

/* The places of a path's network, by which it is counted in any crowd. */
uint32_t crowd_places(uint64_t seed, const struct accord_path *path);
uint32_t crowd_of(const struct crowd *crowd, uint32_t places);
/* May there be one more of this network, where there may be so many more in all? */
bool crowd_admits(const struct crowd *crowd, uint32_t places, uint32_t left);
void crowd_enter(struct crowd *crowd, uint32_t places);
void crowd_leave(struct crowd *crowd, uint32_t places);

#endif /* ACCORD_CROWD_H */
