/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The least that AF_XDP can be had for: every frame to the socket of its queue. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

SEC("xdp")
int redirect(struct xdp_md *context)
{
	return bpf_redirect_map(&xsks, context->rx_queue_index, XDP_PASS);
}
