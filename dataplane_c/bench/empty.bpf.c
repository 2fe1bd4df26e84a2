/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What it costs to run any program at all. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("xdp")
int empty(struct xdp_md *context)
{
	(void)context;
	return XDP_PASS;
}
