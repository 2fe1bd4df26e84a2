/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cookie's arithmetic, for the engine and for BPF alike (docs/PROTOCOL.md, section 21): SipHash-2-4 (Aumasson and
 * Bernstein, INDOCRYPT 2012) over whole 64-bit words, and what goes into it.
 */
#ifndef ACCORD_COOKIE_H
#define ACCORD_COOKIE_H

#include <linux/types.h>

#include "accord/maps.h"
#include "accord/wire.h"

#define ACCORD_INLINE static inline __attribute__((always_inline))

/*
 * What is hashed, in this order and as on the wire: the initiator's address, the responder's, the initiator's port, the
 * responder's (both 0 in context IP 253), the transaction ID, the first eight bytes of the cookie. 32 bytes with IPv4,
 * 56 with IPv6: the length tells them apart.
 */
enum accord_cookie_words {
	ACCORD_COOKIE_WORDS_IPV4 = 4,
	ACCORD_COOKIE_WORDS_IPV6 = 7,
};

/* Four bytes of it at a time, in the order of memory. */
union accord_cookie_input {
	__u32 parts[2 * ACCORD_COOKIE_WORDS_IPV6];
	__u64 words[ACCORD_COOKIE_WORDS_IPV6];
};

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define ACCORD_LITTLE32(value) __builtin_bswap32(value)
#define ACCORD_LITTLE64(value) __builtin_bswap64(value)
#else
#define ACCORD_LITTLE32(value) (value)
#define ACCORD_LITTLE64(value) (value)
#endif

ACCORD_INLINE __u64 accord_rotate(__u64 value, int by)
{
	return value << by | value >> (64 - by);
}

#define ACCORD_SIP_ROUND(v0, v1, v2, v3) \
	do { \
		v0 += v1; \
		v2 += v3; \
		v1 = accord_rotate(v1, 13) ^ v0; \
		v3 = accord_rotate(v3, 16) ^ v2; \
		v0 = accord_rotate(v0, 32); \
		v2 += v1; \
		v0 += v3; \
		v1 = accord_rotate(v1, 17) ^ v2; \
		v3 = accord_rotate(v3, 21) ^ v0; \
		v2 = accord_rotate(v2, 32); \
	} while (0)

/* A hash that is being made. BPF hands it words as it comes by them: what registers hold is not put into memory. */
struct accord_sip {
	__u64 v0, v1, v2, v3;
};

ACCORD_INLINE void accord_sip_begin(struct accord_sip *sip, const __u64 *key)
{
	sip->v0 = key[0] ^ 0x736f6d6570736575ULL;
	sip->v1 = key[1] ^ 0x646f72616e646f6dULL;
	sip->v2 = key[0] ^ 0x6c7967656e657261ULL;
	sip->v3 = key[1] ^ 0x7465646279746573ULL;
}

ACCORD_INLINE void accord_sip_word(struct accord_sip *sip, __u64 word)
{
	sip->v3 ^= word;
	ACCORD_SIP_ROUND(sip->v0, sip->v1, sip->v2, sip->v3);
	ACCORD_SIP_ROUND(sip->v0, sip->v1, sip->v2, sip->v3);
	sip->v0 ^= word;
}

/* Two times four bytes, each as they are in memory. */
ACCORD_INLINE void accord_sip_parts(struct accord_sip *sip, __u32 one, __u32 other)
{
	accord_sip_word(sip, ACCORD_LITTLE32(one) | (__u64)ACCORD_LITTLE32(other) << 32);
}

/* After so many words in all. */
ACCORD_INLINE __u64 accord_sip_end(struct accord_sip *sip, __u32 count)
{
	accord_sip_word(sip, (__u64)count * 8 << 56);
	sip->v2 ^= 0xff;
	ACCORD_SIP_ROUND(sip->v0, sip->v1, sip->v2, sip->v3);
	ACCORD_SIP_ROUND(sip->v0, sip->v1, sip->v2, sip->v3);
	ACCORD_SIP_ROUND(sip->v0, sip->v1, sip->v2, sip->v3);
	ACCORD_SIP_ROUND(sip->v0, sip->v1, sip->v2, sip->v3);
	return sip->v0 ^ sip->v1 ^ sip->v2 ^ sip->v3;
}

/* Of so many whole words. */
ACCORD_INLINE __u64 accord_siphash(const __u64 *words, int count, const __u64 *key)
{
	struct accord_sip sip;

	accord_sip_begin(&sip, key);
#pragma GCC unroll 8
	for (int i = 0; i < count; i++)
		accord_sip_word(&sip, ACCORD_LITTLE64(words[i]));
	return accord_sip_end(&sip, (__u32)count);
}

/* Is a cookie of that slot still good, or good already (the clocks of hosts that share a ring differ a little)? */
ACCORD_INLINE int accord_cookie_fresh(__u32 now, __u32 slot)
{
	__u32 age = (now - slot + 1) & 0xffff;

	return age <= ACCORD_COOKIE_SLOTS + 1;
}

#endif /* ACCORD_COOKIE_H */
