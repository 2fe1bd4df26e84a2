/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seeded mixing function, for spreading keys and telling contents apart. Not a MAC: what it guards is
 * bounded anyway (a hash chain by the quota, a fingerprint by what its sender could have sent at first).
 */
#ifndef ACCORD_HASH_H
#define ACCORD_HASH_H

#include <stdint.h>

/* Finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): every input bit reaches every output bit. */
static inline uint64_t hash_mix(uint64_t value)
{
	value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
	return value ^ value >> 31;
}

#endif /* ACCORD_HASH_H */
