/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What was heard lately of each transaction: its proposal, its SYN, in which order (docs/PROTOCOL.md, section 10).
 * For every BPF object that asks; all but the XDP program take the map over by its file descriptor.
 *
 * A slot is found by the transaction ID and changed by overwriting only, so nothing grows and nothing has to be taken
 * out. Its state word is both lock and version: contents are written by whoever put BUSY there by compare-and-exchange,
 * and what was read is true if the word is still the same, which the compare-and-exchange that follows finds out. Who
 * loses a race leaves it at that, and the SYN passes.
 */
#ifndef ACCORD_EBPF_HEARD_H
#define ACCORD_EBPF_HEARD_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "accord/maps.h"
#include "accord/wire.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* the daemon learns without a system call whether a SYN came first */
	__uint(max_entries, ACCORD_HEARD_SLOTS);
	__type(key, __u32);
	__type(value, struct accord_heard);
} heard SEC(".maps");

/* A transaction ID, aligned. */
struct heard_id {
	__u32 word[ACCORD_TRANSACTION_BYTES / 4];
};

static __always_inline struct accord_heard *heard_slot(const struct heard_id *id)
{
	__u32 index = accord_heard_index(id->word);

	return bpf_map_lookup_elem(&heard, &index);
}

/* BPF has no load that others' stores are ordered against, but read-modify-writes with a result are. */
static __always_inline __u64 heard_state(struct accord_heard *slot)
{
	return __sync_fetch_and_or(&slot->state, 0);
}

/* The slot is this transaction's, if the state that was read before is still the same afterwards. */
static __always_inline int heard_is(const struct accord_heard *slot, __u64 state, const struct heard_id *id)
{
	const __u32 *have = (const __u32 *)slot->transaction;

	return state && !(state & ACCORD_HEARD_BUSY) &&
	       !((have[0] ^ id->word[0]) | (have[1] ^ id->word[1]) | (have[2] ^ id->word[2]));
}

/* Nanoseconds since the slot was written; negative: on another CPU, after `now` was read here. */
static __always_inline __s64 heard_age(__u64 state, __u64 now)
{
	return now - (state & ~(__u64)ACCORD_HEARD_FLAGS);
}

/*
 * Was a proposal with this ID handed to the daemon lately? A SYN that bears the ID is not repeated with it, so it is
 * about as old as the proposal. transaction: ACCORD_TRANSACTION_BYTES, of any alignment.
 */
static __always_inline int heard_lately(const __u8 *transaction)
{
	struct accord_heard *slot;
	struct heard_id id;
	__u64 state;
	int found;

	__builtin_memcpy(&id, transaction, sizeof(id));
	slot = heard_slot(&id);
	if (!slot)
		return 0;
	state = heard_state(slot);
	found = heard_is(slot, state, &id) && state & ACCORD_HEARD_PROPOSAL &&
	        heard_age(state, bpf_ktime_get_boot_ns()) < ACCORD_MARK_MS * 1000000LL;
	return found && heard_state(slot) == state;
}

#endif
