// SPDX-License-Identifier: Apache-2.0
/*
 * RFC 1071 section 2 allows any word size (C) and any byte order (B) as long as carries are not lost. Here four
 * 64-bit words are taken at a time. Two sums hold all that is needed: of the words, modulo 2^64, and of their upper
 * halves, exactly; that of the lower halves is the first less the second times 2^32.
 *
 * The fingerprint comes from a sum of the first sum's partial sums, as in Fletcher's checksum: there a word counts
 * as often as it is far from the end, so order matters.
 */
#include "checksum.h"

#include <string.h>

#include "hash.h"

/* Two 64-bit words: a register of SSE2 or NEON. */
typedef uint64_t pair __attribute__((vector_size(16)));

enum {
	BLOCK = 2 * sizeof(pair),
	BLOCKS_AT_ONCE = 4, /* a turn of the loop costs as much as half a block */
};

struct sums {
	pair words, upper, partial;
};

static inline void add(struct sums *sums, const uint8_t *bytes)
{
	pair words;

	memcpy(&words, bytes, sizeof(words));
	sums->words += words;
	sums->upper += words >> 32;
	sums->partial += sums->words;
}

/* Of the 2^32 words that a sum could hold, a packet has a few hundred: nothing is lost. */
static inline uint64_t sum_of(const struct sums *one, const struct sums *other)
{
	pair upper = one->upper + other->upper;
	pair both = one->words + other->words - (upper << 32) + upper;

	return both[0] + both[1];
}

/*
 * A partial sum counts a word by its distance from the end, and where that is even loses the topmost bits; the
 * upper halves' sum has them all. Each of the four columns goes in by an odd number of its own, so words cannot
 * change places between columns either.
 */
static inline uint64_t fingerprint(const struct sums *one, const struct sums *other, uint32_t length)
{
	pair upper = one->upper + (other->upper << 20); /* below 2^41 both */

	return hash_mix((length + upper[0]) * UINT64_C(0xd6e8feb86659fd93) + upper[1] * UINT64_C(0xbf58476d1ce4e5b9) +
	                one->partial[0] + one->partial[1] * UINT64_C(0x9e3779b97f4a7c15) +
	                other->partial[0] * UINT64_C(0xa0761d6478bd642f) +
	                other->partial[1] * UINT64_C(0xe7037ed1a0b428db));
}

/* What is left behind the blocks, and what all of it comes to. */
__attribute__((always_inline)) static inline struct checksum finish(struct sums *one, struct sums *other,
                                                                    const uint8_t *bytes, uint32_t length)
{
	uint32_t left = length % BLOCK;

	bytes += length - left;
	if (left >= sizeof(pair)) {
		add(one, bytes);
		left -= sizeof(pair);
		bytes += sizeof(pair);
	}
	if (left) {
		uint8_t rest[sizeof(pair)] = {0};

		memcpy(rest, bytes, left);
		add(other, rest);
	}
	return (struct checksum){
		.sum = sum_of(one, other),
		.fingerprint = fingerprint(one, other, length),
	};
}

static inline void add_block(struct sums *one, struct sums *other, const uint8_t *bytes)
{
	add(one, bytes);
	add(other, bytes + sizeof(pair));
}

struct checksum checksum_scan_narrow(const uint8_t *bytes, uint32_t length)
{
	struct sums one = {0}, other = {0};
	const uint8_t *at = bytes;

	for (uint32_t blocks = length / BLOCK; blocks; blocks--, at += BLOCK)
		add_block(&one, &other, at);
	return finish(&one, &other, bytes, length);
}

#if defined(__x86_64__)
/* Both at once. Where a compiler may not use such registers, it keeps them in memory. */
typedef uint64_t quad __attribute__((vector_size(32)));
_Static_assert(sizeof(quad) == (size_t)BLOCK, "a block is added at once");

__attribute__((always_inline, target("avx2"))) static inline void add_wide(quad *words, quad *upper, quad *partial,
                                                                           const uint8_t *bytes)
{
	quad next;

	memcpy(&next, bytes, sizeof(next));
	*words += next;
	*upper += next >> 32;
	*partial += *words;
}

/* Sums in three variables, not in a struct: gcc keeps that one in memory, and clears it there first. */
__attribute__((target("avx2"))) static struct checksum scan_wide(const uint8_t *bytes, uint32_t length)
{
	quad words = {0}, upper = {0}, partial = {0};
	uint32_t blocks = length / BLOCK;
	const uint8_t *at = bytes;
	struct sums one, other;

	for (; blocks >= BLOCKS_AT_ONCE; blocks -= BLOCKS_AT_ONCE, at += (size_t)BLOCKS_AT_ONCE * BLOCK) {
		add_wide(&words, &upper, &partial, at);
		add_wide(&words, &upper, &partial, at + BLOCK);
		add_wide(&words, &upper, &partial, at + (size_t)2 * BLOCK);
		add_wide(&words, &upper, &partial, at + (size_t)3 * BLOCK);
	}
	for (; blocks; blocks--, at += BLOCK)
		add_wide(&words, &upper, &partial, at);
	one = (struct sums){{words[0], words[1]}, {upper[0], upper[1]}, {partial[0], partial[1]}};
	other = (struct sums){{words[2], words[3]}, {upper[2], upper[3]}, {partial[2], partial[3]}};
	return finish(&one, &other, bytes, length);
}
#endif

struct checksum checksum_scan(const uint8_t *bytes, uint32_t length)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2"))
		return scan_wide(bytes, length);
#endif
	return checksum_scan_narrow(bytes, length);
}
