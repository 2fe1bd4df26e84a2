/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The sockops program's maps; their contents are in accord/syns.h. */
#ifndef ACCORD_EBPF_SYNS_H
#define ACCORD_EBPF_SYNS_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "accord/syns.h"

/* By this the loader knows an object of another layout before it attaches it. */
const volatile __u32 syns_layout SEC(".rodata.syns") = ACCORD_SYNS_LAYOUT;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* the process that asks may not call bpf() */
	__uint(max_entries, ACCORD_SYNS_SLOTS);
	__type(key, __u32);
	__type(value, struct accord_syn);
} syns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct accord_listener);
} listeners SEC(".maps");

/* The slot of this callback's socket, and its state as it is now; NULL for the sockets of others. */
static __always_inline struct accord_syn *find(struct bpf_sock_ops *context, __u64 *state)
{
	__u64 cookie = bpf_get_socket_cookie(context);
	__u32 index = cookie % ACCORD_SYNS_SLOTS;
	struct accord_syn *syn = bpf_map_lookup_elem(&syns, &index);

	if (!syn)
		return NULL;
	*state = *(volatile __u64 *)&syn->state;
	return *state >> ACCORD_SYN_COOKIE_SHIFT == cookie ? syn : NULL;
}

/* A socket's callbacks come one at a time, under its lock: only the daemon can be in between, and then the slot is
 * another socket's and stays as it is. */
static __always_inline void change(struct accord_syn *syn, __u64 from, __u64 to)
{
	__sync_val_compare_and_swap(&syn->state, from, to);
}

#endif
