// SPDX-License-Identifier: Apache-2.0
#include "crowd.h"

#include <endian.h>
#include <string.h>

#include "hash.h"

enum {
	IPV4_BYTES = 3, /* 24 bits */
	IPV6_BYTES = 7, /* 56 bits */
};

uint32_t crowd_places(uint64_t seed, const struct accord_path *path)
{
	uint64_t network;

	memcpy(&network, path->remote, sizeof(network));
	/* In memory order, whichever that is: the bytes that count are the first. */
	network &= path->family == 4 ? htobe64(~UINT64_C(0) << (64 - 8 * IPV4_BYTES))
	                             : htobe64(~UINT64_C(0) << (64 - 8 * IPV6_BYTES));
	return (uint32_t)hash_mix(hash_mix(seed + path->family) ^ network);
}

static uint32_t place(uint32_t places, uint32_t row)
{
	return places >> row * CROWD_BITS & ((1u << CROWD_BITS) - 1);
}

uint32_t crowd_of(const struct crowd *crowd, uint32_t places)
{
	uint32_t least = UINT32_MAX;

	for (uint32_t row = 0; row < CROWD_ROWS; row++) {
		uint32_t count = crowd->counts[row][place(places, row)];

		least = count < least ? count : least;
	}
	return least;
}

/*
 * What one network may have falls as what is left does, and is no more than a half of it: Choudhury and Hahne, Dynamic
 * queue length thresholds for shared-memory packet switches, IEEE/ACM Trans. Netw. 1998. One network by itself comes to
 * a third of all, n of them to one in n + 2 each, and two in n + 2 are always left for those who have none.
 */
bool crowd_admits(const struct crowd *crowd, uint32_t places, uint32_t left)
{
	uint32_t held = crowd_of(crowd, places);

	return held < crowd->limit && held < (left + 1) / 2;
}

static void add(struct crowd *crowd, uint32_t places, uint32_t what)
{
	for (uint32_t row = 0; row < CROWD_ROWS; row++)
		crowd->counts[row][place(places, row)] += what;
}

void crowd_enter(struct crowd *crowd, uint32_t places)
{
	add(crowd, places, 1);
}

void crowd_leave(struct crowd *crowd, uint32_t places)
{
	add(crowd, places, UINT32_MAX);
}
