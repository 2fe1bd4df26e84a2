/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many unfinished negotiations there are from each network: an IPv4 /24, an IPv6 /56, the least that sites have.
 * Two rows of counters, each network in one of either; the smaller is no less than the truth and seldom more
 * (Cormode and Muthukrishnan, count-min sketch, J. Algorithms 2005). Nothing grows, and what is given back is exact.
 */
#ifndef ACCORD_CROWD_H
#define ACCORD_CROWD_H

#include <stdint.h>

#include "core.h"

enum crowd_constant {
	CROWD_ROWS = 2,
	CROWD_BITS = 11,
};

struct crowd {
	uint32_t limit; /* of one network; 0: none */
	uint32_t counts[CROWD_ROWS][1 << CROWD_BITS];
};

uint32_t crowd_of(const struct crowd *crowd, uint64_t seed, const struct accord_path *path);
void crowd_enter(struct crowd *crowd, uint64_t seed, const struct accord_path *path);
void crowd_leave(struct crowd *crowd, uint64_t seed, const struct accord_path *path);

#endif /* ACCORD_CROWD_H */
