/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * In the place of the daemon's program: what is sent to the ports of negotiations is dropped, everything else passes.
 * What others of this host lose beside that, they lose to the flood whatever is done with it.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flood.h"

char _license[] SEC("license") = "Dual BSD/GPL";

enum {
	LAST_PORT = 1023, /* the bystander's, and what the kernel gives to clients, are above */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flood_arrived);
} arrived SEC(".maps");

/* NULL: neither IPv4 without options nor IPv6 without extension headers. */
static __always_inline struct udphdr *udp_of(void *data, void *end)
{
	const struct ethhdr *ethernet = data;
	struct iphdr *ipv4 = data + sizeof(*ethernet);
	struct ipv6hdr *ipv6 = data + sizeof(*ethernet);

	if ((void *)(ipv4 + 1) > end)
		return NULL;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP) && ipv4->protocol == IPPROTO_UDP)
		return (struct udphdr *)(ipv4 + 1);
	if ((void *)(ipv6 + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IPV6) || ipv6->nexthdr != IPPROTO_UDP)
		return NULL;
	return (struct udphdr *)(ipv6 + 1);
}

SEC("xdp")
int flood_drop(struct xdp_md *context)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	struct udphdr *udp = udp_of(data, end);
	struct flood_arrived *mine;
	__u32 key = 0;

	if (!udp || (void *)(udp + 1) > end || bpf_ntohs(udp->dest) > LAST_PORT)
		return XDP_PASS;
	mine = bpf_map_lookup_elem(&arrived, &key);
	if (mine) {
		mine->packets++;
		mine->bytes += context->data_end - context->data - sizeof(struct ethhdr);
	}
	return XDP_DROP;
}
