/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* RFC 1071: sums of 16-bit words in the order of memory, added up four or eight bytes at a time. */
#ifndef ACCORD_EBPF_CHECKSUM_H
#define ACCORD_EBPF_CHECKSUM_H

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "accord/wire.h"
#include "host.h"

enum {
	SUM_STEP = 64, /* bytes at a time */
	SUM_STEPS = (ACCORD_MIN_MTU_PACKET - ACCORD_HEADER_BYTES) / SUM_STEP,
	SUM_FAILED = -1,
};

/* Of a sum of less than 48 bits. */
static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Written out: the compiler unrolls no loop that it inlines late. */
static __always_inline __u64 sum_two(const __u32 *words)
{
	return (__u64)words[0] + words[1];
}

static __always_inline __u64 sum_four(const __u32 *words)
{
	return sum_two(words) + sum_two(words + 2);
}

static __always_inline __u64 sum_eight(const __u32 *words)
{
	return sum_four(words) + sum_four(words + 4);
}

static __always_inline __u64 sum_sixteen(const __u32 *words)
{
	return sum_eight(words) + sum_eight(words + 8);
}

/* Are there so many bytes? As the verifier understands it: one pointer, and nothing computed anew from another. */
static __always_inline int there_are(const void **from, __u32 bytes, const void *end)
{
	const void *behind;

	asm volatile("" : "+r"(*from));
	behind = *from + bytes;
	asm volatile("" : "+r"(behind));
	return behind <= end;
}

/*
 * The folded sum of so many bytes of a packet. SUM_FAILED: they are not all there, or more than one packet's. Three
 * sizes of steps, since what is left of the largest would take a quarter of the time in the smallest.
 *
 * Global: the verifier looks at it by itself, and not with all that its caller may know by then.
 */
__attribute__((noinline)) int sum_chunks(struct xdp_md *context, __u32 at, __u32 length)
{
	const void *from = at_offset(context, at), *end = (const void *)(long)context->data_end;
	__u64 sum = 0;

	for (int step = 0; step <= SUM_STEPS && length >= SUM_STEP; step++) {
		if (!there_are(&from, SUM_STEP, end))
			return SUM_FAILED;
		sum += sum_sixteen(from);
		from += SUM_STEP;
		length -= SUM_STEP;
	}
	for (int step = 0; step < SUM_STEP / 16 && length >= 16; step++) {
		if (!there_are(&from, 16, end))
			return SUM_FAILED;
		sum += sum_four(from);
		from += 16;
		length -= 16;
	}
	for (int step = 0; step < 16 / 4 && length >= 4; step++) {
		if (!there_are(&from, 4, end))
			return SUM_FAILED;
		sum += *(const __u32 *)from;
		from += 4;
		length -= 4;
	}
	if (length >= 2) {
		if (!there_are(&from, 2, end))
			return SUM_FAILED;
		sum += *(const __u16 *)from;
		from += 2;
		length -= 2;
	}
	if (length == 1 && there_are(&from, 1, end)) {
		sum += bpf_htons((__u16)(*(const __u8 *)from << 8)); /* as if a zero followed */
		length = 0;
	}
	return length ? SUM_FAILED : (int)fold(sum);
}

#endif
