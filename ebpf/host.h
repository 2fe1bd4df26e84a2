/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Questions about this host: is the packet for it, is its daemon alive. */
#ifndef ACCORD_EBPF_HOST_H
#define ACCORD_EBPF_HOST_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_helpers.h>

#include "accord/maps.h"
#include "accord/wire.h"
#include "consts.h"

enum {
	HEARTBEAT_NS = ACCORD_HEARTBEAT_MS * 1000000
};

/* Bridges, taps and promiscuous interfaces see frames for other hosts; groups are the kernel's to deliver. */
static __always_inline int for_this_interface(const struct ethhdr *ethernet, const struct accord_settings *now)
{
	const __be16 *to = (const void *)ethernet->h_dest, *own = (const void *)now->address;

	return !((to[0] ^ own[0]) | (to[1] ^ own[1]) | (to[2] ^ own[2]));
}

/*
 * What is at an offset that the parsers found. The verifier does not know that they did: it wants the offset to be
 * within what it allows for packets (MAX_PACKET_OFF; no frame of an XDP program's is half as long), and before each
 * use of the pointer the frame's end to be asked for. Of a mask, unlike a comparison, the compiler cannot make one copy
 * that is checked and another that is added.
 */
static __always_inline const void *at_offset(const struct xdp_md *context, __u64 offset)
{
	asm volatile("%0 &= 0x7fff" : "+r"(offset));
	return (const void *)(long)context->data + offset;
}

/*
 * On a router, a frame for this interface may still carry a packet for another host. The lookup ends early
 * (FWD_DISABLED) on a host that does not forward; NOT_FWDED is a route to this very host.
 *
 * Global, as others here: the verifier then looks at it once, and not for each way that the parsers may have gone.
 */
__attribute__((noinline)) int for_this_host(struct xdp_md *context, __u32 ip_at, __u32 protocol)
{
	const void *ip = at_offset(context, ip_at), *end = (const void *)(long)context->data_end;
	const struct iphdr *ipv4 = ip;
	const struct ipv6hdr *ipv6 = ip;
	struct bpf_fib_lookup route = {};
	long result;

	if ((const void *)(ipv4 + 1) > end)
		return 0;
	if (ipv4->version == 4) {
		route.family = FAMILY_IPV4;
		route.tos = ipv4->tos;
		route.ipv4_src = ipv4->saddr;
		route.ipv4_dst = ipv4->daddr;
	} else {
		if ((const void *)(ipv6 + 1) > end)
			return 0;
		route.family = FAMILY_IPV6;
		__builtin_memcpy(route.ipv6_src, &ipv6->saddr, sizeof(route.ipv6_src));
		__builtin_memcpy(route.ipv6_dst, &ipv6->daddr, sizeof(route.ipv6_dst));
	}
	route.l4_protocol = protocol;
	route.ifindex = context->ingress_ifindex;
	result = bpf_fib_lookup(context, &route, sizeof(route), 0);
	return result == BPF_FIB_LKUP_RET_NOT_FWDED || result == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

/* Signed: the daemon, on another CPU, may have written a heartbeat since. */
static __always_inline int daemon_lives(const struct accord_settings *now)
{
	return (__s64)(bpf_ktime_get_boot_ns() - now->heartbeat_ns) <= HEARTBEAT_NS;
}

#endif
