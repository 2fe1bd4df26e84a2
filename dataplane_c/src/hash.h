/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seeded mixing function, for spreading keys and telling contents apart. Not a MAC: what it guards is
 * bounded anyway (a hash chain by the quota, a fingerprint by what its sender could have sent at first).
 */
#ifndef ACCORD_HASH_H
#define ACCORD_HASH_H

#include <stdint.h>
#include <string.h>

/* Finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): every input bit reaches every output bit. */
static inline uint64_t hash_mix(uint64_t value)
{
	value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
	return value ^ value >> 31;
}

static inline uint64_t hash_bytes(uint64_t seed, const uint8_t *bytes, uint32_t length)
{
	uint64_t state = hash_mix(seed + UINT64_C(0x9e3779b97f4a7c15) * ((uint64_t)length + 1));
	uint64_t word;

	for (; length >= sizeof(word); bytes += sizeof(word), length -= (uint32_t)sizeof(word)) {
		memcpy(&word, bytes, sizeof(word));
		state = hash_mix(state ^ word);
	}
	if (length) {
		word = 0;
		memcpy(&word, bytes, length);
		state = hash_mix(state ^ word);
	}
	return state;
}

#endif /* ACCORD_HASH_H */
