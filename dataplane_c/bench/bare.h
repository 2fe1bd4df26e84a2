/* SPDX-License-Identifier: Apache-2.0 */
/* What to compare with: loops that take packets from the kernel and look at nothing. */
#ifndef ACCORD_BENCH_BARE_H
#define ACCORD_BENCH_BARE_H

#include <stdint.h>

#include "netdev.h"

enum bare_kind {
	BARE_XDP,          /* AF_XDP, behind the XDP program that Accord itself runs */
	BARE_XDP_READ,     /* the same, and each cache line of a packet is read once, as any parser must */
	BARE_XDP_REDIRECT, /* AF_XDP, behind a program that redirects everything */
	BARE_PACKET,       /* AF_PACKET, recvmmsg */
	BARE_UDP,          /* a UDP socket, recvmmsg */
};

struct bare;

/* object_path: of the XDP program, for the first two. flags: XDP_FLAGS_DRV_MODE or XDP_FLAGS_SKB_MODE. Ends the
 * program with a sentence when it cannot be had. */
struct bare *bare_open(enum bare_kind kind, const struct accord_netdev *netdev, const char *object_path,
                       uint32_t flags);
/* Take a batch and drop it. Returns how many packets there were. */
uint32_t bare_receive(struct bare *bare);
/* As accord_port_heartbeat. */
void bare_heartbeat(struct bare *bare);
void bare_close(struct bare *bare);

#endif /* ACCORD_BENCH_BARE_H */
