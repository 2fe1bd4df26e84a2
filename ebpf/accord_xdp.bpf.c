/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Steers negotiation packets to the AF_XDP socket of their receive queue. All else, and all in doubt,
 * goes to the kernel as if this program were not there: it writes to no packet and drops none.
 *
 * The checks are in the order of what they cost: a packet of others is told by its headers and one
 * comparison, and reaches neither a hash, nor the clock, nor the routing table.
 */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "consts.h"
#include "heard.h"
#include "maps.h"
#include "parsing.h"
#include "watch.h"

char _license[] SEC("license") = "Dual BSD/GPL";

enum {
	HEARTBEAT_NS = ACCORD_HEARTBEAT_MS * 1000000
};

/* Bridges, taps and promiscuous interfaces see frames for other hosts; groups are the kernel's to deliver. */
static __always_inline int for_this_interface(const struct packet *packet, const struct accord_settings *now)
{
	const __u8 *to = packet->ethernet->h_dest;

	return !((to[0] ^ now->address[0]) | (to[1] ^ now->address[1]) | (to[2] ^ now->address[2]) |
	         (to[3] ^ now->address[3]) | (to[4] ^ now->address[4]) | (to[5] ^ now->address[5]));
}

/*
 * On a router, a frame for this interface may still carry a packet for another host. The lookup ends early
 * (FWD_DISABLED) on a host that does not forward; NOT_FWDED is a route to this very host.
 */
static __always_inline int for_this_host(struct xdp_md *context, const struct packet *packet)
{
	struct bpf_fib_lookup route = {};
	long result;

	if (packet->ipv4) {
		route.family = FAMILY_IPV4;
		route.tos = packet->ipv4->tos;
		route.ipv4_src = packet->ipv4->saddr;
		route.ipv4_dst = packet->ipv4->daddr;
	} else if (packet->ipv6) {
		route.family = FAMILY_IPV6;
		__builtin_memcpy(route.ipv6_src, &packet->ipv6->saddr, sizeof(route.ipv6_src));
		__builtin_memcpy(route.ipv6_dst, &packet->ipv6->daddr, sizeof(route.ipv6_dst));
	}
	route.l4_protocol = packet->protocol;
	route.ifindex = context->ingress_ifindex;
	result = bpf_fib_lookup(context, &route, sizeof(route), 0);
	return result == BPF_FIB_LKUP_RET_NOT_FWDED || result == BPF_FIB_LKUP_RET_FWD_DISABLED;
}

static __always_inline __u32 classify(struct xdp_md *context)
{
	struct cursor cursor = {.position = (void *)(long)context->data, .end = (void *)(long)context->data_end};
	__u32 frame_bytes = context->data_end - context->data, key = 0;
	const struct accord_settings *now;
	struct packet packet = {};
	__u32 reason;

	reason = parse_frame(&cursor, &packet);
	if (reason != ACCORD_REASON_OK)
		return reason;

	now = bpf_map_lookup_elem(&settings, &key);
	if (!now || now->layout != ACCORD_MAP_LAYOUT)
		return ACCORD_REASON_MAP_MISMATCH;
	if (packet.protocol == PROTOCOL_UDP && !(now->flags & ACCORD_SETTINGS_ANY_PORT) &&
	    !bpf_map_lookup_elem(&ports, &packet.port))
		return ACCORD_REASON_NOT_OURS_PORT;
	if (!for_this_interface(&packet, now))
		return ACCORD_REASON_NOT_LOCAL;
	/* The ring would lose it; the kernel will not. */
	if (frame_bytes > now->frame_limit)
		return ACCORD_REASON_LONG_PACKET;
	/* Signed: the daemon, on another CPU, may have written a heartbeat since. */
	if ((__s64)(bpf_ktime_get_boot_ns() - now->heartbeat_ns) > HEARTBEAT_NS)
		return ACCORD_REASON_STALE_HEARTBEAT;
	if (!for_this_host(context, &packet))
		return ACCORD_REASON_NOT_LOCAL;
	return ACCORD_REASON_STEERED;
}

SEC("xdp")
int accord_xdp(struct xdp_md *context)
{
	__u32 reason = classify(context);
	int verdict = XDP_PASS;

	if (reason == ACCORD_REASON_STEERED) {
		/* XDP_PASS as the last argument is what a queue without a socket gets: never a black hole. */
		verdict = bpf_redirect_map(&xsks, context->rx_queue_index, XDP_PASS);
		if (verdict != XDP_REDIRECT)
			reason = ACCORD_REASON_NO_SOCKET;
	}
	count(reason);
	tell(context, reason, verdict);
	return verdict;
}
