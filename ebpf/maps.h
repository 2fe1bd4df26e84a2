/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps that the daemon shares with the program; their contents are in accord/maps.h. */
#ifndef ACCORD_EBPF_MAPS_H
#define ACCORD_EBPF_MAPS_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "accord/maps.h"
#include "accord/wire.h"

/* By this the loader knows an object of another layout before it attaches it. */
const volatile __u32 map_layout SEC(".rodata.layout") = ACCORD_MAP_LAYOUT;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* the heartbeat costs the daemon no system call */
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct accord_settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ACCORD_MAX_PORTS);
	__type(key, __be16);
	__type(value, __u8);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, ACCORD_MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ACCORD_REASON_LIMIT);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(__u32 reason)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &reason);

	if (counter)
		(*counter)++;
}

#endif
