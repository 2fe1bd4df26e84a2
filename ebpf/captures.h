/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The TC program's maps; their contents are in accord/captures.h. */
#ifndef ACCORD_EBPF_CAPTURES_H
#define ACCORD_EBPF_CAPTURES_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "accord/captures.h"
#include "accord/wire.h"

/* By this the loader knows an object of another layout before it attaches it. */
const volatile __u32 captures_layout SEC(".rodata.captures") = ACCORD_CAPTURES_LAYOUT;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* the process that decides may not call bpf() */
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct accord_capture);
} capture SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ACCORD_CAPTURE_CGROUPS);
	__type(key, __u64);
	__type(value, __u8);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ACCORD_CAPTURE_SEEN);
	__type(key, struct accord_capture_syn);
	__type(value, __u8);
} seen SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, ACCORD_CAPTURE_RING_BYTES);
} captured SEC(".maps");

static __always_inline void count(struct accord_capture *now, __u32 fate)
{
	__sync_fetch_and_add(&now->fates[fate & (ACCORD_CAPTURE_FATES - 1)], 1);
}

/* Signed: the daemon, on another CPU, may have written a heartbeat since. */
static __always_inline int is_alive(const struct accord_capture *now, __u64 time)
{
	return (__s64)(time - now->heartbeat_ns) <= (__s64)ACCORD_HEARTBEAT_MS * 1000000;
}

#endif
