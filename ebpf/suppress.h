/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Suppression (HotNets 2009, section 5, "Backward Compatibility"; docs/PROTOCOL.md, section 10): the plain connection's
 * SYN, which left beside the proposal, is dropped when the proposal came first. What is noted of a transaction, by what
 * comes:
 *
 *   slot            the proposal's first packet  a SYN, FALLBACK                a SYN, ADOPT
 *   another's, none PROPOSAL                     SYN; passes, SYN_FIRST         SYN; passes, SYN_ADOPT
 *   PROPOSAL        as it is                     SPENT; dropped, if it may be   passes, SYN_ADOPT
 *   SYN             PROPOSAL too                 passes, SYN_REPEATED           passes, SYN_ADOPT
 *   SPENT           as it is                     passes, SYN_REPEATED           passes, SYN_ADOPT
 *
 * A slot keeps the time of the first that came: neither repeated proposals nor repeated SYNs make it younger, and
 * nothing leads back from SPENT, so that one SYN of a transaction is dropped and no other. The kernel repeats a SYN
 * after a second, without the option.
 *
 * The two functions at the end are not inlined: the registers that they need are not taken from the packets of others.
 */
#ifndef ACCORD_EBPF_SUPPRESS_H
#define ACCORD_EBPF_SUPPRESS_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "consts.h"
#include "heard.h"
#include "host.h"
#include "maps.h"
#include "parsing_tcp.h"

enum {
	SUPPRESS_NS = ACCORD_SUPPRESS_MS * 1000000
};

/* Between whom: as in struct accord_heard. */
struct ends {
	__be32 source[4], destination[4];
	__be16 port;
	__u8 family;
};

/* 0: there is no header. */
static __always_inline int find_ends(struct ends *ends, const void *ip, __be16 port, const void *end)
{
	const struct iphdr *ipv4 = ip;
	const struct ipv6hdr *ipv6 = ip;

	if ((const void *)(ipv4 + 1) > end)
		return 0;
	ends->port = port;
	if (ipv4->version == 4) {
		ends->family = 4;
		ends->source[0] = ipv4->saddr;
		ends->destination[0] = ipv4->daddr;
		return 1;
	}
	if ((const void *)(ipv6 + 1) > end)
		return 0;
	ends->family = 6;
	__builtin_memcpy(ends->source, &ipv6->saddr, sizeof(ends->source));
	__builtin_memcpy(ends->destination, &ipv6->daddr, sizeof(ends->destination));
	return 1;
}

/* A proposal in context IP 253 has no port: what the TCP port is the daemon knows, and the map "ports". */
static __always_inline int same_ends(const struct accord_heard *slot, const struct ends *ends)
{
	__u32 differs = slot->family ^ ends->family;

#pragma unroll
	for (int word = 0; word < 4; word++)
		differs |= (slot->source[word] ^ ends->source[word]) | (slot->destination[word] ^ ends->destination[word]);
	return !differs && (!slot->port || slot->port == ends->port);
}

/* Make the slot another transaction's. Somebody else may be at it, or have been: then it stays what it is. */
static __always_inline void overwrite(struct accord_heard *slot, __u64 state, const struct heard_id *id,
                                      const struct ends *ends, __be32 isn, __u64 now, __u32 what)
{
	if (state & ACCORD_HEARD_BUSY ||
	    __sync_val_compare_and_swap(&slot->state, state, (__u64)ACCORD_HEARD_BUSY) != state)
		return;
	__builtin_memcpy(slot->transaction, id, sizeof(slot->transaction));
	__builtin_memcpy(slot->source, ends->source, sizeof(slot->source));
	__builtin_memcpy(slot->destination, ends->destination, sizeof(slot->destination));
	slot->isn = isn;
	slot->port = ends->port;
	slot->family = ends->family;
	__sync_lock_test_and_set(&slot->state, (now & ~(__u64)ACCORD_HEARD_FLAGS) | what);
}

/*
 * A negotiation packet was redirected. Noted if it is what opens a transaction of our version: of any other the daemon
 * makes nothing, so its SYN has to pass. And if it is the first of its proposal (its TSN begins the ID): where the path
 * lets short datagrams through and not long ones, the last one alone promises no answer. length: from the header on;
 * port: in network order.
 */
__attribute__((noinline)) int note_proposal(struct xdp_md *context, __u32 ip_at, __u32 header_at, __u32 length,
                                            __u32 port)
{
	const void *ip = at_offset(context, ip_at), *end = (const void *)(long)context->data_end;
	const struct accord_header *header = at_offset(context, header_at);
	const struct accord_settings *now;
	struct accord_heard *slot;
	struct ends ends = {};
	struct heard_id id;
	__u32 key = 0;
	__u64 state;

	if ((const void *)(header + 1) > end || header->version != ACCORD_VERSION || header->step != ACCORD_STEP_PROPOSAL ||
	    !(header->flags & bpf_htons(ACCORD_FLAG_INITIATOR)) || length == sizeof(*header))
		return 0;
	now = bpf_map_lookup_elem(&settings, &key);
	if (!now || !(now->flags & ACCORD_SETTINGS_SUPPRESS))
		return 0;
	__builtin_memcpy(&id, header->transaction, sizeof(id));
	if (header->tsn != id.word[0])
		return 0;
	slot = heard_slot(&id);
	if (!slot)
		return 0;
	state = heard_state(slot);
	if (!heard_is(slot, state, &id)) {
		if (find_ends(&ends, ip, port, end))
			overwrite(slot, state, &id, &ends, 0, bpf_ktime_get_boot_ns(), ACCORD_HEARD_PROPOSAL);
	} else if (!(state & ACCORD_HEARD_PROPOSAL)) {
		__sync_val_compare_and_swap(&slot->state, state, state | ACCORD_HEARD_PROPOSAL);
	}
	return 0;
}

/* A SYN with our option, for a service of this host: the table above. */
static __always_inline __u32 meet_syn(struct accord_heard *slot, const struct syn_option *option,
                                      const struct ends *ends, __be32 isn)
{
	int adopts = option->exid == bpf_htons(ACCORD_TCP_OPTION_EXID_ADOPT);
	__u64 now = bpf_ktime_get_boot_ns(), state = heard_state(slot);

	if (!heard_is(slot, state, &option->id)) {
		overwrite(slot, state, &option->id, ends, isn, now, ACCORD_HEARD_SYN);
		return adopts ? ACCORD_REASON_SYN_ADOPT : ACCORD_REASON_SYN_FIRST;
	}
	if (adopts)
		return ACCORD_REASON_SYN_ADOPT;
	if (state & (ACCORD_HEARD_SYN | ACCORD_HEARD_SPENT))
		return ACCORD_REASON_SYN_REPEATED;
	if (!same_ends(slot, ends))
		return ACCORD_REASON_SYN_ELSEWHERE;
	if (heard_age(state, now) >= SUPPRESS_NS)
		return ACCORD_REASON_SYN_LATE;
	/* Of two at once, on two CPUs, one finds the state as it was; and only then was all of this true of the slot. */
	if (__sync_val_compare_and_swap(&slot->state, state, state | ACCORD_HEARD_SPENT) != state)
		return ACCORD_REASON_SYN_REPEATED;
	return ACCORD_REASON_SYN_SUPPRESSED;
}

/*
 * A SYN with room for our option. Without settings of this layout, or while the daemon does not want to know, it is
 * like any other segment.
 */
__attribute__((noinline)) int judge_syn(struct xdp_md *context, __u32 ip_at, __u32 tcp_at)
{
	const void *ip = at_offset(context, ip_at), *end = (const void *)(long)context->data_end;
	const struct ethhdr *ethernet = at_offset(context, 0);
	const struct tcphdr *tcp = at_offset(context, tcp_at);
	const struct accord_settings *now;
	struct accord_heard *slot;
	struct syn_option option;
	struct ends ends = {};
	__u32 key = 0, reason;
	const __u8 *flags;

	now = bpf_map_lookup_elem(&settings, &key);
	if (!now || now->layout != ACCORD_MAP_LAYOUT || !(now->flags & ACCORD_SETTINGS_SUPPRESS))
		return ACCORD_REASON_NOT_OURS_PROTOCOL;
	if ((const void *)(ethernet + 1) > end || (const void *)(tcp + 1) > end || !find_ends(&ends, ip, tcp->dest, end))
		return ACCORD_REASON_NOT_OURS_PROTOCOL;
	reason = parse_option(context, tcp, &option);
	if (reason != ACCORD_REASON_OK)
		return reason;
	flags = bpf_map_lookup_elem(&ports, &ends.port);
	if (!flags || !(*flags & ACCORD_PORT_SUPPRESS))
		return ACCORD_REASON_NOT_OURS_PORT;
	if (!for_this_interface(ethernet, now))
		return ACCORD_REASON_NOT_LOCAL;
	if (!daemon_lives(now))
		return ACCORD_REASON_STALE_HEARTBEAT;
	if (!for_this_host(context, ip_at, PROTOCOL_TCP))
		return ACCORD_REASON_NOT_LOCAL;
	slot = heard_slot(&option.id);
	return slot ? meet_syn(slot, &option, &ends, tcp->seq) : ACCORD_REASON_MAP_MISMATCH;
}

#endif
