// SPDX-License-Identifier: Apache-2.0
#include "remembered.h"

#include <string.h>

#include "hash.h"

static uint64_t key_of(uint64_t seed, const struct accord_path *path)
{
	uint64_t first, last;

	memcpy(&first, path->remote, sizeof(first));
	memcpy(&last, path->remote + sizeof(first), sizeof(last));
	return hash_mix(hash_mix((seed + path->family) ^ first) ^ last) | 1;
}

void remembered_learn(struct remembered *remembered, uint64_t seed, uint64_t now, const struct accord_path *path,
                      const struct recovery *recovery)
{
	uint64_t key = key_of(seed, path);
	uint32_t window = recovery->congestion.window;
	uint32_t slot = (uint32_t)(key >> 1) & (REMEMBERED_PATHS - 1);

	if (!recovery->srtt_us)
		return; /* nothing was seen of the path */
	/* After a loss: as much as was not too much. */
	if (recovery->congestion.threshold < window)
		window = recovery->congestion.threshold;
	if (window > REMEMBERED_MAX_WINDOW)
		window = REMEMBERED_MAX_WINDOW;
	/* A loss or two do not tell that the path carries less than it did: half way there, each time. */
	if (remembered->paths[slot].key == key && now - remembered->paths[slot].at <= REMEMBERED_US &&
	    window < remembered->paths[slot].window)
		window = (window + remembered->paths[slot].window + 1) / 2;
	if (window < ACCORD_INITIAL_WINDOW)
		window = ACCORD_INITIAL_WINDOW;
	remembered->paths[slot].key = key;
	remembered->paths[slot].at = now;
	remembered->paths[slot].window = window;
	remembered->paths[slot].srtt_us = recovery->srtt_us;
}

void remembered_apply(const struct remembered *remembered, uint64_t seed, uint64_t now, const struct accord_path *path,
                      struct recovery *recovery)
{
	uint64_t key = key_of(seed, path);
	uint32_t slot = (uint32_t)(key >> 1) & (REMEMBERED_PATHS - 1);

	if (remembered->paths[slot].key != key || now - remembered->paths[slot].at > REMEMBERED_US)
		return;
	recovery->congestion.window = remembered->paths[slot].window;
	recovery->remembered_us = remembered->paths[slot].srtt_us;
}
