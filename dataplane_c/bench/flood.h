/* SPDX-License-Identifier: Apache-2.0 */
/* What the flood's two halves share. Also compiled for BPF. */
#ifndef ACCORD_BENCH_FLOOD_H
#define ACCORD_BENCH_FLOOD_H

#include <linux/types.h>

#include "accord/maps.h"

enum flood_constant {
	FLOOD_FRONT_WORDS = 14, /* Ethernet, IPv6, UDP, header, cookie */
	FLOOD_SPARE = 2,
	FLOOD_ROOM = 2048, /* for a frame: a power of two */
	FLOOD_PORT = 9,    /* discard: below what a kernel gives to clients, so that none of them has it */
};

enum flood_kind {
	FLOOD_PROPOSALS, /* each from another address, of another transaction */
	FLOOD_REPLAYED,  /* one and the same, as it was given, with its cookie */
	FLOOD_VALIDATED, /* each of another transaction, with a good cookie, from four networks */
};

/* Map "plan": one element, written before the generator runs. */
struct flood_plan {
	__u32 interface; /* that the frames leave by */
	__u32 family, kind;
	__u32 header_at;   /* of the packet, in the frame */
	__u32 id_at;       /* in the packet: where a chunk repeats its transaction ID; 0: none does */
	__u32 sum, ip_sum; /* RFC 1071 sums in the order of memory, of packet and IPv4 header: what is written is zero */
	__u32 bound;       /* as in the cookie */
	__u32 frame_bytes; /* without the Ethernet header */
	__u64 picoseconds; /* from one packet to the next; 0: as fast as it goes */
	__u64 start_ns;    /* CLOCK_MONOTONIC; 0: not yet */
	__u64 made, made_bytes; /* so far; IP bytes */
	struct accord_cookie_key key;
	__u32 slot;
	__u64 front[FLOOD_FRONT_WORDS]; /* of the frame: what may have come back otherwise */
};

/* Map "arrived": per CPU, one element: what came back to others than the honest host, or was dropped. */
struct flood_arrived {
	__u64 packets, bytes; /* IP bytes */
};

#endif /* ACCORD_BENCH_FLOOD_H */
