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

#include <stdbool.h>
#include <string.h>

#include "hash.h"

/* Two 64-bit words: a register of SSE2 or NEON. */
typedef uint64_t pair __attribute__((vector_size(16)));

enum {
	BLOCK = 2 * sizeof(pair),
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
static inline uint64_t halves(const struct sums *sums)
{
	pair both = sums->words - (sums->upper << 32) + sums->upper;

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
	uint64_t tops = upper[0] + upper[1] * UINT64_C(0xbf58476d1ce4e5b9);

	return hash_mix(hash_mix(length + tops) + one->partial[0] + one->partial[1] * UINT64_C(0x9e3779b97f4a7c15) +
	                other->partial[0] * UINT64_C(0xa0761d6478bd642f) +
	                other->partial[1] * UINT64_C(0xe7037ed1a0b428db));
}

static void add_blocks(struct sums *one, struct sums *other, const uint8_t *bytes, uint32_t blocks)
{
	for (; blocks; blocks--, bytes += BLOCK) {
		add(one, bytes);
		add(other, bytes + sizeof(pair));
	}
}

#if defined(__x86_64__)
/* Both at once. Where a compiler may not use such registers, it keeps them in memory. */
typedef uint64_t quad __attribute__((vector_size(32)));
_Static_assert(sizeof(quad) == (size_t)BLOCK, "a block is added at once");

static inline void part(pair *one, pair *other, const quad *both)
{
	memcpy(one, both, sizeof(*one));
	memcpy(other, (const uint8_t *)both + sizeof(*one), sizeof(*other));
}

__attribute__((target("avx2"))) static void add_wide_blocks(struct sums *one, struct sums *other, const uint8_t *bytes,
                                                            uint32_t blocks)
{
	quad words = {0}, upper = {0}, partial = {0};

	for (; blocks; blocks--, bytes += BLOCK) {
		quad block;

		memcpy(&block, bytes, sizeof(block));
		words += block;
		upper += block >> 32;
		partial += words;
	}
	part(&one->words, &other->words, &words);
	part(&one->upper, &other->upper, &upper);
	part(&one->partial, &other->partial, &partial);
}
#endif

static struct checksum scan(const uint8_t *bytes, uint32_t length, bool wide)
{
	struct sums one = {0}, other = {0};
	uint32_t left = length % BLOCK;

#if defined(__x86_64__)
	if (wide)
		add_wide_blocks(&one, &other, bytes, length / BLOCK);
	else
		add_blocks(&one, &other, bytes, length / BLOCK);
#else
	(void)wide;
	add_blocks(&one, &other, bytes, length / BLOCK);
#endif
	bytes += length - left;
	if (left >= sizeof(pair)) {
		add(&one, bytes);
		left -= sizeof(pair);
		bytes += sizeof(pair);
	}
	if (left) {
		uint8_t rest[sizeof(pair)] = {0};

		memcpy(rest, bytes, left);
		add(&other, rest);
	}
	return (struct checksum){
		.sum = halves(&one) + halves(&other),
		.fingerprint = fingerprint(&one, &other, length),
	};
}

struct checksum checksum_scan(const uint8_t *bytes, uint32_t length)
{
#if defined(__x86_64__)
	return scan(bytes, length, __builtin_cpu_supports("avx2"));
#else
	return scan(bytes, length, false);
#endif
}

struct checksum checksum_scan_narrow(const uint8_t *bytes, uint32_t length)
{
	return scan(bytes, length, false);
}
