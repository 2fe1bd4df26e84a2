/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * At TC egress: takes SYNs of programs under `accord run` off the wire, for the daemon to negotiate what they open, and
 * hands SYN-ACKs of the daemon's to this host as if they had come in (docs/OPERATIONS.md, "Unmodified programs").
 *
 * A packet that is no SYN costs its headers and no map. Any doubt, a daemon without a heartbeat, a repetition, a full
 * ring: the SYN leaves. What is not ours goes on to the next filter (TC_ACT_UNSPEC), whatever that decides; a SYN is
 * stolen, never shot: to the kernel's TCP a packet that is shot is congestion.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "captures.h"
#include "consts.h"

char _license[] SEC("license") = "Dual BSD/GPL";

enum {
	TCP_FLAG_OF_ACK = 0x10,
	/* bpf_skb_ancestor_cgroup_id counts from the root; deeper cgroups than this one's are not looked for. */
	CGROUP_DEPTH = 16,
};

/* A TCP packet: what is at which offset, and how long its headers are. */
struct opening {
	struct accord_capture_syn syn;
	__u32 family, flags, headers, bytes;
};

static __always_inline int read_ipv4(struct __sk_buff *skb, struct opening *found, __u32 *tcp_at)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_HLEN;

	if ((void *)(ip + 1) > end || ip->protocol != PROTOCOL_TCP || ip->ihl < MIN_IHL ||
	    ip->frag_off & bpf_htons(IPV4_FRAGMENTED))
		return 0;
	found->family = 4;
	found->syn.source[0] = ip->saddr;
	found->syn.destination[0] = ip->daddr;
	found->bytes = ETH_HLEN + bpf_ntohs(ip->tot_len);
	*tcp_at = ETH_HLEN + ip->ihl * 4;
	return 1;
}

static __always_inline int read_ipv6(struct __sk_buff *skb, struct opening *found, __u32 *tcp_at)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_HLEN;

	if ((void *)(ip + 1) > end || ip->nexthdr != PROTOCOL_TCP)
		return 0;
	found->family = 6;
	__builtin_memcpy(found->syn.source, &ip->saddr, sizeof(found->syn.source));
	__builtin_memcpy(found->syn.destination, &ip->daddr, sizeof(found->syn.destination));
	found->bytes = ETH_HLEN + sizeof(*ip) + bpf_ntohs(ip->payload_len);
	*tcp_at = ETH_HLEN + sizeof(*ip);
	return 1;
}

/* 0: it is no TCP that is read here. */
static __always_inline int read_tcp(struct __sk_buff *skb, struct opening *found)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = data;
	struct tcphdr *tcp;
	__u32 at;

	if ((void *)(ethernet + 1) > end)
		return 0;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		if (!read_ipv4(skb, found, &at))
			return 0;
	} else if (ethernet->h_proto != bpf_htons(ETH_P_IPV6) || !read_ipv6(skb, found, &at)) {
		return 0;
	}
	tcp = data + (at & 0xff);
	if ((void *)(tcp + 1) > end)
		return 0;
	found->flags = ((__u8 *)tcp)[TCP_FLAGS_AT] & TCP_FLAGS_OF_OPENING;
	found->syn.source_port = tcp->source;
	found->syn.destination_port = tcp->dest;
	found->syn.isn = tcp->seq;
	found->headers = at + tcp->doff * 4;
	return 1;
}

/* The socket is in a marked cgroup, or in one below. */
static __always_inline int is_marked(struct __sk_buff *skb)
{
	for (int level = 1; level < CGROUP_DEPTH; level++) {
		__u64 id = bpf_skb_ancestor_cgroup_id(skb, level);

		if (!id)
			return 0;
		if (bpf_map_lookup_elem(&cgroups, &id))
			return 1;
	}
	return 0;
}

/* enum accord_capture_word of where it leads; 0: nothing is known. */
static __always_inline __u64 word_of(struct accord_capture *now, const struct opening *found, __u64 time)
{
	const __be32 *to = found->syn.destination;
	__u32 index = accord_capture_index(to, found->syn.destination_port);
	struct accord_capture_slot *slot;
	__u64 state;

	slot = &now->slots[index & (ACCORD_CAPTURE_SLOTS - 1)];
	state = *(volatile __u64 *)&slot->state;
	if (state < time || slot->family != found->family || slot->port != found->syn.destination_port ||
	    (slot->address[0] ^ to[0]) | (slot->address[1] ^ to[1]) | (slot->address[2] ^ to[2]) |
	        (slot->address[3] ^ to[3]))
		return 0;
	return *(volatile __u64 *)&slot->state == state ? state & ACCORD_CAPTURE_WORDS : 0;
}

static __always_inline int tell(struct __sk_buff *skb, const struct opening *found, __u64 time, int held)
{
	struct accord_captured *record = bpf_ringbuf_reserve(&captured, sizeof(*record), 0);
	__u32 bytes = found->bytes;

	if (!record)
		return 0;
	/* Of a shorter one the rest of the record would show what was in the ring before. */
	__builtin_memset(record->frame, 0, sizeof(record->frame));
	record->at_ns = time;
	record->interface = skb->ifindex;
	record->bytes = bytes;
	record->held = held;
	if (bytes < ETH_HLEN || bytes > ACCORD_CAPTURE_FRAME_BYTES || bpf_skb_load_bytes(skb, 0, record->frame, bytes)) {
		bpf_ringbuf_discard(record, 0);
		return 0;
	}
	bpf_ringbuf_submit(record, 0);
	return 1;
}

static __always_inline __u32 judge(struct __sk_buff *skb, struct accord_capture *now, const struct opening *found)
{
	__u64 time = bpf_ktime_get_boot_ns(), word;
	const __u8 here = 1;

	if (!is_alive(now, time))
		return ACCORD_CAPTURE_STALE;
	if (found->headers < found->bytes)
		return ACCORD_CAPTURE_WITH_DATA;
	if (found->headers > found->bytes || skb->len < found->bytes)
		return ACCORD_CAPTURE_UNREADABLE;
	/* The kernel repeats it after a second: whatever became of the first one, this one is the way out. */
	if (bpf_map_update_elem(&seen, &found->syn, &here, BPF_NOEXIST))
		return ACCORD_CAPTURE_REPEATED;
	word = word_of(now, found, time);
	if (word == ACCORD_CAPTURE_LEAVE)
		return ACCORD_CAPTURE_LEFT_ALONE;
	if (!tell(skb, found, time, word == ACCORD_CAPTURE_HOLD))
		return ACCORD_CAPTURE_RING_FULL;
	return word == ACCORD_CAPTURE_HOLD ? ACCORD_CAPTURE_HELD : ACCORD_CAPTURE_ASKED;
}

SEC("tc")
int accord_capture(struct __sk_buff *skb)
{
	struct opening found = {};
	struct accord_capture *now;
	__u32 key = 0, fate;

	/* A SYN's headers are in the first part of its skb, all of them. */
	if (!read_tcp(skb, &found) || !(found.flags & TCP_FLAG_OF_SYN))
		return TC_ACT_UNSPEC;
	now = bpf_map_lookup_elem(&capture, &key);
	if (!now)
		return TC_ACT_UNSPEC;
	if (found.flags == (TCP_FLAG_OF_SYN | TCP_FLAG_OF_ACK) && skb->mark == ACCORD_CAPTURE_MARK) {
		skb->mark = 0; /* rules of this host's may look at it */
		count(now, ACCORD_CAPTURE_ANSWERED);
		return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
	}
	if (found.flags != TCP_FLAG_OF_SYN || now->layout != ACCORD_CAPTURES_LAYOUT || !is_marked(skb))
		return TC_ACT_UNSPEC;
	fate = judge(skb, now, &found);
	count(now, fate);
	return fate == ACCORD_CAPTURE_HELD ? TC_ACT_STOLEN : TC_ACT_UNSPEC;
}
