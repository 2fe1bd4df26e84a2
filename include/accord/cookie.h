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
#define ACCORD_LITTLE64(value) __builtin_bswap64(value)
#else
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

/* Of so many whole words; count is known to the compiler. */
ACCORD_INLINE __u64 accord_siphash(const __u64 *words, int count, const __u64 *key)
{
	__u64 v0 = key[0] ^ 0x736f6d6570736575ULL, v1 = key[1] ^ 0x646f72616e646f6dULL;
	__u64 v2 = key[0] ^ 0x6c7967656e657261ULL, v3 = key[1] ^ 0x7465646279746573ULL;
	__u64 last = (__u64)count * 8 << 56;

#pragma GCC unroll 8
	for (int i = 0; i < count; i++) {
		__u64 word = ACCORD_LITTLE64(words[i]);

		v3 ^= word;
		ACCORD_SIP_ROUND(v0, v1, v2, v3);
		ACCORD_SIP_ROUND(v0, v1, v2, v3);
		v0 ^= word;
	}
	v3 ^= last;
	ACCORD_SIP_ROUND(v0, v1, v2, v3);
	ACCORD_SIP_ROUND(v0, v1, v2, v3);
	v0 ^= last;
	v2 ^= 0xff;
	ACCORD_SIP_ROUND(v0, v1, v2, v3);
	ACCORD_SIP_ROUND(v0, v1, v2, v3);
	ACCORD_SIP_ROUND(v0, v1, v2, v3);
	ACCORD_SIP_ROUND(v0, v1, v2, v3);
	return v0 ^ v1 ^ v2 ^ v3;
}

/* Is a cookie of that slot still good, or good already (the clocks of hosts that share a ring differ a little)? */
ACCORD_INLINE int accord_cookie_fresh(__u32 now, __u32 slot)
{
	__u32 age = (now - slot + 1) & 0xffff;

	return age <= ACCORD_COOKIE_SLOTS + 1;
}

#endif /* ACCORD_COOKIE_H */
