/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Verdicts for `accord trace verdicts`: one record to a packet, and the frame's first bytes, while somebody
 * watches. Nobody watching costs one load and one branch.
 *
 * The rings belong to the watcher: they come into "samples" through its file descriptor and leave when that is
 * closed, however the watcher ends. Its lease runs out by itself, so that neither does the writing outlive it.
 */
#ifndef ACCORD_EBPF_WATCH_H
#define ACCORD_EBPF_WATCH_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "accord/maps.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* a lease is renewed without a system call */
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct accord_watch);
} watch SEC(".maps");

/* Without max_entries libbpf makes one for each possible CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
} samples SEC(".maps");

/* Not inlined: the registers that it needs are not taken from the packets of a host that nobody watches. */
static __attribute__((noinline)) int show(struct xdp_md *context, struct accord_watch *asked, __u32 reason,
                                          __u32 verdict)
{
	struct accord_verdict record = {
		.at_ns = bpf_ktime_get_boot_ns(),
		.interface = context->ingress_ifindex,
		.queue = context->rx_queue_index,
		.frame_bytes = context->data_end - context->data,
		.reason = reason,
		.verdict = verdict,
	};
	__u64 bytes = record.frame_bytes < ACCORD_WATCH_BYTES ? record.frame_bytes : ACCORD_WATCH_BYTES;

	/* Left by a watcher that was killed: the next packet costs no clock. One that is only late renews again. */
	if (record.at_ns >= asked->until_ns) {
		asked->until_ns = 0;
		return 0;
	}
	if (reason >= ACCORD_REASON_LIMIT || !(asked->reasons[reason / 64] & 1ULL << reason % 64))
		return 0;
	/* The upper half of the flags: how many bytes of the frame follow the record. */
	return bpf_perf_event_output(context, &samples, bytes << 32 | BPF_F_CURRENT_CPU, &record, sizeof(record));
}

static __always_inline void tell(struct xdp_md *context, __u32 reason, __u32 verdict)
{
	__u32 key = 0;
	struct accord_watch *asked = bpf_map_lookup_elem(&watch, &key);

	if (asked && asked->until_ns)
		show(context, asked, reason, verdict);
}

#endif
