// SPDX-License-Identifier: Apache-2.0
#include "crowd.h"

#include <string.h>

#include "hash.h"

enum {
	IPV4_BYTES = 3, /* 24 bits */
	IPV6_BYTES = 7, /* 56 bits */
};

static uint64_t hash_of(uint64_t seed, const struct accord_path *path)
{
	uint64_t network = 0;

	memcpy(&network, path->remote, path->family == 4 ? IPV4_BYTES : IPV6_BYTES);
	return hash_mix(hash_mix(seed + path->family) ^ network);
}

static uint32_t place(uint64_t hash, uint32_t row)
{
	return (uint32_t)(hash >> row * CROWD_BITS) & ((1u << CROWD_BITS) - 1);
}

uint32_t crowd_of(const struct crowd *crowd, uint64_t seed, const struct accord_path *path)
{
	uint64_t hash = hash_of(seed, path);
	uint32_t least = UINT32_MAX;

	for (uint32_t row = 0; row < CROWD_ROWS; row++) {
		uint32_t count = crowd->counts[row][place(hash, row)];

		least = count < least ? count : least;
	}
	return least;
}

static void add(struct crowd *crowd, uint64_t hash, uint32_t what)
{
	for (uint32_t row = 0; row < CROWD_ROWS; row++)
		crowd->counts[row][place(hash, row)] += what;
}

void crowd_enter(struct crowd *crowd, uint64_t seed, const struct accord_path *path)
{
	add(crowd, hash_of(seed, path), 1);
}

void crowd_leave(struct crowd *crowd, uint64_t seed, const struct accord_path *path)
{
	add(crowd, hash_of(seed, path), UINT32_MAX);
}
