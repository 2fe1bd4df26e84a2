/* SPDX-License-Identifier: Apache-2.0 */
/* What the generator's two halves share. Also compiled for BPF. */
#ifndef ACCORD_BENCH_GENERATE_H
#define ACCORD_BENCH_GENERATE_H

#include <linux/types.h>

enum generate_constant {
	GENERATE_MOST = 32, /* packets of a message: as LOAD_LONG */
	GENERATE_CHUNKS = 3,
	GENERATE_PACKET_AT = 14 + 20 + 8, /* Ethernet, IPv4, UDP */
};

/* Map "plan": one element, written before the generator runs. */
struct generate_plan {
	__u32 shift;                /* a message has 2^shift packets */
	__u32 sums[GENERATE_MOST];  /* RFC 1071 sums of the packets, the checksum and the ID's last word zero */
	__u32 flags[GENERATE_MOST]; /* last byte of the header's flags */
	__u32 chunk_flags[GENERATE_MOST];
	__u64 next; /* packet that is made next, from the ID 0 on */
};

#endif /* ACCORD_BENCH_GENERATE_H */
