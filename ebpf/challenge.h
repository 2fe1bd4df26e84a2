/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Under a flood (docs/PROTOCOL.md, section 21) the first packet of a proposal gets its cookie here, in the packet that
 * it came in: that much shorter, and turned round. One with a good cookie goes on to the daemon, one with a wrong one
 * nowhere. All other packets of a negotiation go on: who has no transaction that they belong to drops them unread.
 *
 * What is bound of the chunks is their checksum and length, which have to be looked at in any case: a damaged packet
 * gets no answer. The functions are not inlined: the registers that they need are not taken from the packets of others,
 * and the verifier looks at each once.
 */
#ifndef ACCORD_EBPF_CHALLENGE_H
#define ACCORD_EBPF_CHALLENGE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "accord/cookie.h"
#include "checksum.h"
#include "consts.h"
#include "host.h"
#include "maps.h"
#include "parsing.h"

/*
 * The last destination that this processor found to be this host's, alive and steered. Under a flood all is for one,
 * and to ask anew costs more than the cookie: the map of ports, the clock, the routing table. Good until the next
 * heartbeat, and for some timer ticks of 1 to 10 ms. All of one interface, as the settings are.
 */
struct lately {
	__u64 heartbeat_ns, jiffies;
	__be32 to[4]; /* IPv4 in the first */
	__u32 port, version, udp, reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lately);
} latest SEC(".maps");

enum {
	LATELY_JIFFIES = 4,
	CHALLENGE_BYTES = ACCORD_HEADER_BYTES + ACCORD_COOKIE_BYTES,
	IPV4_DONT_FRAGMENT = 0x4000, /* RFC 791 section 3.1 */
	HOP_LIMIT = 64,
};

/*
 * A packet of a negotiation and what is in front of it. All of the longer IP header may be read, whichever it is, and
 * the eight bytes before the packet: with IPv4 there is no packet without them, and what is checked once is not checked
 * again.
 */
struct front {
	struct ipv6hdr *ip;
	struct udphdr *udp;           /* or the end of IP's header */
	__u32 version, is_udp, ports; /* ports: as on the wire; 0 in context IP 253 */
};

static __always_inline __u32 destination_port(const struct front *front)
{
	return bpf_ntohl(front->ports) & 0xffff;
}

/* 0: the headers are not plain ones, with nothing between IP and UDP or the packet; then it is the daemon's. */
static __always_inline int read_front(struct front *front, const struct xdp_md *context, __u32 ip_at, __u32 header_at)
{
	const void *end = (const void *)(long)context->data_end;
	struct ipv6hdr *ip = (void *)at_offset(context, ip_at);
	struct udphdr *udp = (void *)at_offset(context, header_at - sizeof(*udp));
	const struct iphdr *ipv4;
	__u32 bytes = sizeof(*ipv4), protocol;

	asm volatile("" : "+r"(ip), "+r"(udp)); /* or the compiler asks of another copy than it reads by */
	front->ip = ip;
	front->udp = udp;
	if ((const void *)(front->ip + 1) > end || (const void *)(front->udp + 1) + ACCORD_HEADER_BYTES > end)
		return 0;
	ipv4 = (const void *)front->ip;
	front->version = ipv4->version;
	if (front->version == 4) {
		if (ipv4->ihl != MIN_IHL)
			return 0;
		protocol = ipv4->protocol;
	} else {
		protocol = front->ip->nexthdr;
		bytes = sizeof(*front->ip);
	}
	front->is_udp = protocol == PROTOCOL_UDP;
	front->ports = front->is_udp ? *(const __be32 *)front->udp : 0;
	return front->is_udp || (protocol == ACCORD_PROTOCOL_DIRECT && ip_at + bytes == header_at);
}

/* Was a packet for there, a moment ago, for this host? */
static __always_inline int met_lately(const struct lately *have, const struct accord_settings *now,
                                      const struct front *front)
{
	const __be32 *to = front->ip->daddr.in6_u.u6_addr32;

	if (have->heartbeat_ns != now->heartbeat_ns || bpf_jiffies64() - have->jiffies >= LATELY_JIFFIES ||
	    (have->port ^ destination_port(front)) | (have->udp ^ front->is_udp) | (have->version ^ front->version))
		return 0;
	if (front->version == 4)
		return have->to[0] == ((const struct iphdr *)front->ip)->daddr;
	return !((have->to[0] ^ to[0]) | (have->to[1] ^ to[1]) | (have->to[2] ^ to[2]) | (have->to[3] ^ to[3]));
}

/* 0: not a destination that is noted. */
__attribute__((noinline)) int note_latest(struct xdp_md *context, __u32 ip_at, __u32 header_at)
{
	const struct accord_settings *now;
	struct front front = {};
	struct lately *have;
	__u32 key = 0;

	now = bpf_map_lookup_elem(&settings, &key);
	have = bpf_map_lookup_elem(&latest, &key);
	if (!now || !have || !read_front(&front, context, ip_at, header_at))
		return 0;
	if (front.version == 4)
		have->to[0] = ((const struct iphdr *)front.ip)->daddr;
	else
		__builtin_memcpy(have->to, &front.ip->daddr, sizeof(have->to));
	have->version = front.version;
	have->udp = front.is_udp;
	have->port = destination_port(&front);
	have->heartbeat_ns = now->heartbeat_ns;
	have->jiffies = bpf_jiffies64();
	return 1;
}

/* Packets word by word: of a packed structure the compiler reads and writes single bytes. */
enum word {
	WORD_STEP_FLAGS,
	WORD_MAGIC,
	WORD_ID,
	WORD_TSN = 5,
	WORD_ACK_TSN,
	WORD_CHECKSUM,
	WORD_COOKIE,
	WORD_BOUND,
	WORD_MAC,
};

/* Of a cookie whose first eight bytes are in two words. */
static __always_inline __u64 mac_of(const struct accord_cookie_key *key, const struct front *front, const __u32 *id,
                                    __u32 first, __u32 bound)
{
	const struct iphdr *ipv4 = (const void *)front->ip;
	__u32 count = ACCORD_COOKIE_WORDS_IPV4;
	struct accord_sip sip;

	accord_sip_begin(&sip, key->words);
	if (front->version == 4) {
		accord_sip_parts(&sip, ipv4->saddr, ipv4->daddr);
	} else {
		const __be32 *from = front->ip->saddr.in6_u.u6_addr32, *to = front->ip->daddr.in6_u.u6_addr32;

		count = ACCORD_COOKIE_WORDS_IPV6;
		accord_sip_parts(&sip, from[0], from[1]);
		accord_sip_parts(&sip, from[2], from[3]);
		accord_sip_parts(&sip, to[0], to[1]);
		accord_sip_parts(&sip, to[2], to[3]);
	}
	accord_sip_parts(&sip, front->ports, id[0]);
	accord_sip_parts(&sip, id[1], id[2]);
	accord_sip_parts(&sip, first, bound);
	return accord_sip_end(&sip, count);
}

/* The key of a cookie that may still be good. */
static __always_inline const struct accord_cookie_key *find_key(const struct accord_settings *now, __u32 first)
{
	const struct accord_cookie_key *key = NULL;
	__u32 id = bpf_ntohl(first) >> 24;

#pragma unroll
	for (int i = 0; i < ACCORD_COOKIE_KEYS; i++)
		if (now->cookies.keys[i].used && now->cookies.keys[i].id == id)
			key = &now->cookies.keys[i];
	return accord_cookie_fresh(now->cookies.slot, bpf_ntohl(first) & 0xffff) ? key : NULL;
}

static __always_inline void swap(void *one, void *other, int words)
{
	__u16 *a = one, *b = other;

#pragma unroll
	for (int i = 0; i < words; i++) {
		__u16 was = a[i];

		a[i] = b[i];
		b[i] = was;
	}
}

/*
 * Turn round what is in front of the challenge. Nothing is read that was just written in other portions: that would
 * wait for the write. A packet's own checksum makes the sum over it all ones, which is nothing to UDP's.
 */
static __always_inline void turn_round(struct ethhdr *ethernet, const struct front *front)
{
	const __u32 length = CHALLENGE_BYTES + (front->is_udp ? sizeof(struct udphdr) : 0);
	struct ipv6hdr *ipv6 = front->ip;
	struct iphdr *ipv4 = (void *)ipv6;
	__u64 pseudo;

	swap(ethernet->h_dest, ethernet->h_source, ETH_ALEN / 2);
	if (front->version == 4) {
		const __be32 from = ipv4->saddr, to = ipv4->daddr;
		const __be16 total = bpf_htons(sizeof(*ipv4) + length);
		const __u32 protocol = front->is_udp ? PROTOCOL_UDP : ACCORD_PROTOCOL_DIRECT;

		pseudo = (__u64)from + to;
		ipv4->check = ~fold(pseudo + *(const __u16 *)ipv4 + total + bpf_htons(IPV4_DONT_FRAGMENT) +
		                    bpf_htons(HOP_LIMIT << 8 | protocol));
		ipv4->saddr = to;
		ipv4->daddr = from;
		ipv4->tot_len = total;
		ipv4->id = 0;
		ipv4->frag_off = bpf_htons(IPV4_DONT_FRAGMENT);
		ipv4->ttl = HOP_LIMIT;
	} else {
		__be32 *from = ipv6->saddr.in6_u.u6_addr32, *to = ipv6->daddr.in6_u.u6_addr32;

		pseudo = sum_four(from) + sum_four(to);
#pragma unroll
		for (int i = 0; i < 4; i++) {
			__be32 was = from[i];

			from[i] = to[i];
			to[i] = was;
		}
		ipv6->payload_len = bpf_htons(length);
		ipv6->hop_limit = HOP_LIMIT;
	}
	if (!front->is_udp)
		return;
	pseudo += bpf_htons(PROTOCOL_UDP) + 2 * bpf_htons(length) + (__u64)front->ports;
	*(__be32 *)front->udp = front->ports << 16 | front->ports >> 16;
	front->udp->len = bpf_htons(length);
	front->udp->check = ~fold(pseudo) & 0xffff ?: 0xffff; /* RFC 768: zero is none */
}

/* The packet becomes the challenge, but for its length. */
static __always_inline void write_challenge(__u32 *words, __u32 first, __u32 bound, __u64 mac)
{
	const __u32 flags = bpf_htonl(ACCORD_VERSION << 24 | ACCORD_STEP_ANSWER << 16 | ACCORD_FLAG_COOKIE);
	const __u32 *id = &words[WORD_ID];
	const __u64 sum =
		(__u64)flags + words[WORD_MAGIC] + id[0] + id[1] + id[2] + id[1] + first + bound + (__u32)mac + (mac >> 32);

	words[WORD_STEP_FLAGS] = flags;
	words[WORD_TSN] = id[1];
	words[WORD_ACK_TSN] = 0;
	words[WORD_CHECKSUM] = bpf_htonl(bpf_ntohs((__u16)~fold(sum))); /* the second half of its word */
	words[WORD_COOKIE] = first;
	words[WORD_BOUND] = bound;
	words[WORD_MAC] = (__u32)mac;
	words[WORD_MAC + 1] = (__u32)(mac >> 32);
}

/* The first packet of a proposal, of this version and alone in its datagram, beside what the daemon has to see. */
static __always_inline int is_first(const __u32 *words)
{
	const __u32 matters = bpf_htonl(0xffff0000 | ACCORD_FLAG_INITIATOR | ACCORD_FLAG_MORE);
	const __u32 wanted = bpf_htonl(ACCORD_VERSION << 24 | ACCORD_STEP_PROPOSAL << 16 | ACCORD_FLAG_INITIATOR);

	return (words[WORD_STEP_FLAGS] & matters) == wanted && words[WORD_TSN] == words[WORD_ID];
}

/* What the program did on this queue. */
static __always_inline __u32 tally(struct accord_settings *now, __u32 queue, __u32 reason)
{
	struct accord_challenges *mine;

	if (queue >= ACCORD_MAX_QUEUES)
		return reason;
	/* Linux 6.1 has forgotten that bound where the index is multiplied; this one it sees there. */
	barrier_var(queue);
	mine = &now->challenges[queue % ACCORD_MAX_QUEUES];
	if (reason == ACCORD_REASON_CHALLENGED)
		mine->answered++;
	else if (reason == ACCORD_REASON_BAD_COOKIE)
		mine->refused++;
	else
		mine->passed++;
	return reason;
}

/*
 * What a packet of a negotiation is to a host that is flooded: STEERED, it is the daemon's; CHALLENGED, it has become
 * its own answer; OK, it is not known whether it is for this host at all; else a reason to drop it. length: from the
 * header on.
 */
__attribute__((noinline)) int meet_stranger(struct xdp_md *context, __u32 ip_at, __u32 header_at, __u32 length,
                                            struct accord_settings *now)
{
	void *end = (void *)(long)context->data_end, *start = (void *)(long)context->data;
	__u32 zero = 0, front_bytes = ACCORD_HEADER_BYTES, queue = context->rx_queue_index, bound, first;
	const struct lately *have = bpf_map_lookup_elem(&latest, &zero);
	const struct accord_cookie_key *key, *theirs = NULL;
	struct front front = {};
	__s64 tail = end - start;
	__u64 sum, mac;
	__u32 *words;
	int chunks;

	asm volatile("" : "+r"(tail)); /* or the compiler adds to a pointer what belongs to the difference */
	if (!now || !have || !read_front(&front, context, ip_at, header_at) || !met_lately(have, now, &front))
		return ACCORD_REASON_OK;
	words = (void *)(front.udp + 1);
	if (!is_first(words))
		return ACCORD_REASON_STEERED;
	sum = sum_eight(words);
	if (words[WORD_STEP_FLAGS] & bpf_htonl(ACCORD_FLAG_COOKIE)) {
		if (length < CHALLENGE_BYTES || (void *)words + CHALLENGE_BYTES > end)
			return ACCORD_REASON_SHORT_PACKET;
		front_bytes = CHALLENGE_BYTES;
		sum += sum_four(words + WORD_COOKIE);
		theirs = find_key(now, words[WORD_COOKIE]);
	}
	if (length <= front_bytes || length - front_bytes > ACCORD_MIN_MTU_PACKET - ACCORD_HEADER_BYTES)
		return ACCORD_REASON_STEERED;
	chunks = sum_chunks(context, header_at + front_bytes, length - front_bytes);
	if (chunks < 0)
		return ACCORD_REASON_STEERED;
	if (fold(sum + chunks) != 0xffff)
		return ACCORD_REASON_BAD_CHECKSUM;
	/* A packet that has no room for the answer gets none. */
	tail -= header_at + CHALLENGE_BYTES;
	if (length < CHALLENGE_BYTES || tail < 0 || (void *)words + CHALLENGE_BYTES > end ||
	    start + sizeof(struct ethhdr) > end)
		return ACCORD_REASON_QUOTA;
	bound = bpf_htonl((__u32)bpf_ntohs((__u16)chunks) << 16 | (length - front_bytes));
	if (theirs) {
		key = theirs;
		first = words[WORD_COOKIE];
		if ((bpf_ntohl(first) >> 16 & 0xff) != ACCORD_COOKIE_ADDRESS || words[WORD_BOUND] != bound)
			return tally(now, queue, ACCORD_REASON_BAD_COOKIE);
	} else {
		key = &now->cookies.keys[now->cookies.current % ACCORD_COOKIE_KEYS];
		first = bpf_htonl(key->id << 24 | ACCORD_COOKIE_ADDRESS << 16 | (now->cookies.slot & 0xffff));
	}
	mac = bpf_cpu_to_be64(mac_of(key, &front, &words[WORD_ID], first, bound));
	if (theirs) {
		__u32 differs = (words[WORD_MAC] ^ (__u32)mac) | (words[WORD_MAC + 1] ^ (__u32)(mac >> 32));

		return tally(now, queue, differs ? ACCORD_REASON_BAD_COOKIE : ACCORD_REASON_STEERED);
	}
	write_challenge(words, first, bound, mac);
	turn_round(start, &front);
	if (tail && bpf_xdp_adjust_tail(context, -tail))
		return ACCORD_REASON_QUOTA;
	return tally(now, queue, ACCORD_REASON_CHALLENGED);
}

#endif
