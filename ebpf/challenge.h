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
#include "consts.h"
#include "host.h"
#include "maps.h"
#include "parsing.h"

/*
 * The last destination that this processor found to be this host's, alive and steered. Under a flood all is for one,
 * and to ask anew costs more than the cookie: the map of ports, the clock, the routing table. Good until the next
 * heartbeat, and for some timer ticks of 1 to 10 ms.
 */
struct lately {
	__u64 heartbeat_ns, jiffies;
	__be32 to[4];
	__u32 port, interface;
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
	SUM_STEP = 32, /* bytes at a time */
	SUM_STEPS = (ACCORD_MIN_MTU_PACKET - ACCORD_HEADER_BYTES) / SUM_STEP,
	SUM_FAILED = -1,
	IPV4_DONT_FRAGMENT = 0x4000, /* RFC 791 section 3.1 */
	HOP_LIMIT = 64,
};

/* RFC 1071: the folded sum of 16-bit words, in the order of memory. */
static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Written out: the compiler unrolls no loop that it inlines late. */
static __always_inline __u64 sum_two(const __u32 *words)
{
	return (__u64)words[0] + words[1];
}

static __always_inline __u64 sum_four(const __u32 *words)
{
	return sum_two(words) + sum_two(words + 2);
}

static __always_inline __u64 sum_eight(const __u32 *words)
{
	return sum_four(words) + sum_four(words + 4);
}

/* Are there so many bytes? As the verifier understands it: one pointer, and nothing computed anew from another. */
static __always_inline int there_are(const void **from, __u32 bytes, const void *end)
{
	const void *behind;

	asm volatile("" : "+r"(*from));
	behind = *from + bytes;
	asm volatile("" : "+r"(behind));
	return behind <= end;
}

/* The folded sum of the chunks. SUM_FAILED: they are not all there, or more than one packet's. */
__attribute__((noinline)) int sum_chunks(struct xdp_md *context, __u32 at, __u32 length)
{
	const void *from = at_offset(context, at), *end = (const void *)(long)context->data_end;
	__u64 sum = 0;

	for (int step = 0; step <= SUM_STEPS && length >= SUM_STEP; step++) {
		if (!there_are(&from, SUM_STEP, end))
			return SUM_FAILED;
		sum += sum_eight(from);
		from += SUM_STEP;
		length -= SUM_STEP;
	}
	for (int step = 0; step < SUM_STEP / 2 && length >= 2; step++) {
		if (!there_are(&from, 2, end))
			return SUM_FAILED;
		sum += *(const __u16 *)from;
		from += 2;
		length -= 2;
	}
	if (length == 1 && there_are(&from, 1, end)) {
		sum += bpf_htons((__u16)(*(const __u8 *)from << 8)); /* as if a zero followed */
		length = 0;
	}
	return length ? SUM_FAILED : (int)fold(sum);
}

/* As `lately` has it; 0: not one of IPv4 or IPv6. */
static __always_inline int find_latest(struct lately *found, const struct xdp_md *context, __u32 ip_at, __u32 port)
{
	const void *end = (const void *)(long)context->data_end, *ip = at_offset(context, ip_at);
	const struct iphdr *ipv4 = ip;
	const struct ipv6hdr *ipv6 = ip;

	if ((const void *)(ipv4 + 1) > end)
		return 0;
	found->port = port;
	found->interface = context->ingress_ifindex;
	if (ipv4->version == 4) {
		found->to[0] = ipv4->daddr;
		return 1;
	}
	if ((const void *)(ipv6 + 1) > end)
		return 0;
	__builtin_memcpy(found->to, &ipv6->daddr, sizeof(found->to));
	return 1;
}

static __always_inline int is_latest(const struct lately *have, const struct lately *found)
{
	return !((have->to[0] ^ found->to[0]) | (have->to[1] ^ found->to[1]) | (have->to[2] ^ found->to[2]) |
	         (have->to[3] ^ found->to[3]) | (have->port ^ found->port) | (have->interface ^ found->interface));
}

/* Was a packet for there, a moment ago, for this host? */
__attribute__((noinline)) int met_lately(struct xdp_md *context, __u32 ip_at, __u32 port)
{
	const struct accord_settings *now;
	struct lately found = {}, *have;
	__u32 key = 0;

	now = bpf_map_lookup_elem(&settings, &key);
	have = bpf_map_lookup_elem(&latest, &key);
	return now && have && have->heartbeat_ns == now->heartbeat_ns && bpf_jiffies64() - have->jiffies < LATELY_JIFFIES &&
	       find_latest(&found, context, ip_at, port) && is_latest(have, &found);
}

__attribute__((noinline)) int note_latest(struct xdp_md *context, __u32 ip_at, __u32 port)
{
	const struct accord_settings *now;
	struct lately found = {}, *have;
	__u32 key = 0;

	now = bpf_map_lookup_elem(&settings, &key);
	have = bpf_map_lookup_elem(&latest, &key);
	if (!now || !have || !find_latest(&found, context, ip_at, port))
		return 0;
	found.heartbeat_ns = now->heartbeat_ns;
	found.jiffies = bpf_jiffies64();
	*have = found;
	return 1;
}

/* The headers in front of a packet. Where they are not plain ones, it is the daemon's. */
struct front {
	__u8 ipv6, udp;
	__u32 ports; /* as on the wire, the source's first; 0 in context IP 253 */
};

static __always_inline int read_front(struct front *front, const struct xdp_md *context, __u32 ip_at, __u32 header_at)
{
	const void *end = (const void *)(long)context->data_end, *ip = at_offset(context, ip_at);
	const struct iphdr *ipv4 = ip;
	const struct ipv6hdr *ipv6 = ip;
	const struct udphdr *udp;
	__u32 bytes = sizeof(*ipv4);
	__u8 protocol;

	if ((const void *)(ipv4 + 1) > end)
		return 0;
	protocol = ipv4->protocol;
	front->ipv6 = ipv4->version == 6;
	if (front->ipv6) {
		if ((const void *)(ipv6 + 1) > end)
			return 0;
		protocol = ipv6->nexthdr;
		bytes = sizeof(*ipv6);
	} else if (ipv4->ihl != MIN_IHL) {
		return 0;
	}
	front->udp = protocol == PROTOCOL_UDP;
	front->ports = 0;
	if (!front->udp)
		return protocol == ACCORD_PROTOCOL_DIRECT && ip_at + bytes == header_at;
	udp = at_offset(context, ip_at + bytes);
	if ((const void *)(udp + 1) > end)
		return 0;
	__builtin_memcpy(&front->ports, udp, sizeof(front->ports));
	return 1;
}

/* Of a cookie whose first eight bytes are in two words. */
static __always_inline __u64 mac_of(const struct accord_cookie_key *key, const struct front *front, const void *ip,
                                    const void *end, const void *id, __u32 first, __u32 bound)
{
	union accord_cookie_input input;
	const struct iphdr *ipv4 = ip;
	const struct ipv6hdr *ipv6 = ip;

	if (!front->ipv6) {
		if ((const void *)(ipv4 + 1) > end)
			return 0;
		input.parts[0] = ipv4->saddr;
		input.parts[1] = ipv4->daddr;
		input.parts[2] = front->ports;
		__builtin_memcpy(&input.parts[3], id, ACCORD_TRANSACTION_BYTES);
		input.parts[6] = first;
		input.parts[7] = bound;
		return accord_siphash(input.words, ACCORD_COOKIE_WORDS_IPV4, key->words);
	}
	if ((const void *)(ipv6 + 1) > end)
		return 0;
	__builtin_memcpy(&input.parts[0], &ipv6->saddr, 16);
	__builtin_memcpy(&input.parts[4], &ipv6->daddr, 16);
	input.parts[8] = front->ports;
	__builtin_memcpy(&input.parts[9], id, ACCORD_TRANSACTION_BYTES);
	input.parts[12] = first;
	input.parts[13] = bound;
	return accord_siphash(input.words, ACCORD_COOKIE_WORDS_IPV6, key->words);
}

enum cookie_state {
	COOKIE_GOOD,
	COOKIE_STALE,
	COOKIE_FORGED,
};

/* Packets word by word: of a packed structure the compiler reads and writes single bytes. */
enum word {
	WORD_STEP_FLAGS,
	WORD_ID = 2,
	WORD_TSN = 5,
	WORD_ACK_TSN,
	WORD_CHECKSUM,
	WORD_COOKIE,
	WORD_BOUND,
	WORD_MAC,
	WORDS = CHALLENGE_BYTES / 4,
};

static __always_inline int check_cookie(const struct accord_settings *now, const __u32 *words,
                                        const struct front *front, const void *ip, const void *end, __u32 bound)
{
	const __u8 *bytes = (const void *)&words[WORD_COOKIE];
	const struct accord_cookie_key *key = NULL;
	__u64 mac;

#pragma unroll
	for (int i = 0; i < ACCORD_COOKIE_KEYS; i++)
		if (now->cookies.keys[i].used && now->cookies.keys[i].id == bytes[0])
			key = &now->cookies.keys[i];
	if (!key || !accord_cookie_fresh(now->cookies.slot, bytes[2] << 8 | bytes[3]))
		return COOKIE_STALE;
	if (bytes[1] != ACCORD_COOKIE_ADDRESS || words[WORD_BOUND] != bound)
		return COOKIE_FORGED;
	mac = bpf_cpu_to_be64(mac_of(key, front, ip, end, &words[WORD_ID], words[WORD_COOKIE], bound));
	return (words[WORD_MAC] ^ (__u32)mac) | (words[WORD_MAC + 1] ^ (__u32)(mac >> 32)) ? COOKIE_FORGED : COOKIE_GOOD;
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
 * The packet has become as long as its answer is: turn round what is in front of the challenge. A packet's own checksum
 * makes the sum over it all ones, which is nothing to UDP's.
 */
static __always_inline int turn_round(struct xdp_md *context, __u32 ip_at, __u32 header_at, const struct front *front)
{
	void *end = (void *)(long)context->data_end, *ip = (void *)at_offset(context, ip_at);
	struct ethhdr *ethernet = (void *)at_offset(context, 0);
	__u32 length = CHALLENGE_BYTES + (front->udp ? sizeof(struct udphdr) : 0);
	struct iphdr *ipv4 = ip;
	struct ipv6hdr *ipv6 = ip;
	struct udphdr *udp;
	__u64 pseudo;

	if ((void *)(ethernet + 1) > end || (void *)(ipv4 + 1) > end)
		return 0;
	swap(ethernet->h_dest, ethernet->h_source, ETH_ALEN / 2);
	if (front->ipv6) {
		if ((void *)(ipv6 + 1) > end)
			return 0;
		swap(&ipv6->saddr, &ipv6->daddr, 8);
		ipv6->payload_len = bpf_htons(length);
		ipv6->hop_limit = HOP_LIMIT;
		pseudo = sum_eight((const __u32 *)&ipv6->saddr);
	} else {
		__be32 from = ipv4->saddr;

		ipv4->saddr = ipv4->daddr;
		ipv4->daddr = from;
		ipv4->tot_len = bpf_htons(sizeof(*ipv4) + length);
		ipv4->id = 0;
		ipv4->frag_off = bpf_htons(IPV4_DONT_FRAGMENT);
		ipv4->ttl = HOP_LIMIT;
		ipv4->check = 0;
		ipv4->check = ~fold(sum_four((const __u32 *)ipv4) + ipv4->daddr);
		pseudo = (__u64)ipv4->saddr + ipv4->daddr;
	}
	if (!front->udp)
		return 1;
	udp = (void *)at_offset(context, header_at - sizeof(*udp));
	if ((void *)(udp + 1) > end)
		return 0;
	swap(&udp->source, &udp->dest, 1);
	udp->len = bpf_htons(length);
	udp->check = ~fold(pseudo + bpf_htons(PROTOCOL_UDP) + bpf_htons(length) + udp->source + udp->dest + udp->len);
	if (!udp->check)
		udp->check = 0xffff; /* RFC 768: zero is none */
	return 1;
}

/* CHALLENGED, or QUOTA: a packet that has no room for the answer gets none. */
static __always_inline __u32 challenge(struct xdp_md *context, const struct accord_settings *now, __u32 ip_at,
                                       __u32 header_at, const struct front *front, __u32 bound)
{
	const struct accord_cookie_key *key = &now->cookies.keys[now->cookies.current % ACCORD_COOKIE_KEYS];
	__s64 tail = (long)context->data_end - (long)context->data;
	const void *ip;
	__u32 *words;
	void *end;
	__u64 mac;

	asm volatile("" : "+r"(tail)); /* or the compiler adds to a pointer what belongs to the difference */
	tail -= header_at + CHALLENGE_BYTES;
	if (tail < 0 || (tail && bpf_xdp_adjust_tail(context, -tail)))
		return ACCORD_REASON_QUOTA;
	end = (void *)(long)context->data_end;
	ip = at_offset(context, ip_at);
	words = (void *)at_offset(context, header_at);
	if ((void *)words + CHALLENGE_BYTES > end)
		return ACCORD_REASON_QUOTA;
	words[WORD_STEP_FLAGS] = bpf_htonl(ACCORD_VERSION << 24 | ACCORD_STEP_ANSWER << 16 | ACCORD_FLAG_COOKIE);
	words[WORD_TSN] = words[WORD_ID + 1];
	words[WORD_ACK_TSN] = 0;
	words[WORD_CHECKSUM] = 0;
	words[WORD_COOKIE] = bpf_htonl(key->id << 24 | ACCORD_COOKIE_ADDRESS << 16 | (now->cookies.slot & 0xffff));
	words[WORD_BOUND] = bound;
	mac = bpf_cpu_to_be64(mac_of(key, front, ip, end, &words[WORD_ID], words[WORD_COOKIE], bound));
	words[WORD_MAC] = (__u32)mac;
	words[WORD_MAC + 1] = (__u32)(mac >> 32);
	/* The second half of its word. */
	((__u16 *)words)[2 * WORD_CHECKSUM + 1] = ~fold(sum_eight(words) + sum_four(words + WORD_COOKIE));
	return turn_round(context, ip_at, header_at, front) ? ACCORD_REASON_CHALLENGED : ACCORD_REASON_QUOTA;
}

/* The first packet of a proposal, of this version and alone in its datagram, beside what the daemon has to see. */
static __always_inline int is_first(const __u32 *words)
{
	const __u32 matters = bpf_htonl(0xffff0000 | ACCORD_FLAG_INITIATOR | ACCORD_FLAG_MORE);
	const __u32 wanted = bpf_htonl(ACCORD_VERSION << 24 | ACCORD_STEP_PROPOSAL << 16 | ACCORD_FLAG_INITIATOR);

	return (words[WORD_STEP_FLAGS] & matters) == wanted && words[WORD_TSN] == words[WORD_ID];
}

/*
 * What a packet of a negotiation is to a host that is flooded: STEERED, it is the daemon's; CHALLENGED, it has become
 * its own answer; else a reason to drop it. length: from the header on.
 */
__attribute__((noinline)) int meet_stranger(struct xdp_md *context, __u32 ip_at, __u32 header_at, __u32 length)
{
	const void *ip = at_offset(context, ip_at), *end = (const void *)(long)context->data_end;
	__u32 key = 0, front_bytes = ACCORD_HEADER_BYTES, bound, queue = context->rx_queue_index, reason;
	struct accord_settings *now = bpf_map_lookup_elem(&settings, &key);
	const __u32 *words = at_offset(context, header_at);
	int chunks, state = COOKIE_STALE, bears;
	struct front front = {};
	__u64 sum;

	if (!now || (const void *)words + ACCORD_HEADER_BYTES > end || !is_first(words) ||
	    !read_front(&front, context, ip_at, header_at))
		return ACCORD_REASON_STEERED;
	sum = sum_eight(words);
	bears = !!(words[WORD_STEP_FLAGS] & bpf_htonl(ACCORD_FLAG_COOKIE));
	if (bears) {
		if (length < CHALLENGE_BYTES || (const void *)words + CHALLENGE_BYTES > end)
			return ACCORD_REASON_SHORT_PACKET;
		front_bytes = CHALLENGE_BYTES;
		sum += sum_four(words + WORD_COOKIE);
	}
	if (length <= front_bytes || length - front_bytes > ACCORD_MIN_MTU_PACKET - ACCORD_HEADER_BYTES)
		return ACCORD_REASON_STEERED;
	chunks = sum_chunks(context, header_at + front_bytes, length - front_bytes);
	if (chunks < 0)
		return ACCORD_REASON_STEERED;
	if (fold(sum + chunks) != 0xffff)
		return ACCORD_REASON_BAD_CHECKSUM;
	bound = bpf_htonl((__u32)bpf_ntohs((__u16)chunks) << 16 | (length - front_bytes));
	if (bears && (const void *)words + CHALLENGE_BYTES <= end)
		state = check_cookie(now, words, &front, ip, end, bound);
	if (state == COOKIE_GOOD)
		reason = ACCORD_REASON_STEERED;
	else if (state == COOKIE_FORGED)
		reason = ACCORD_REASON_BAD_COOKIE;
	else
		reason = challenge(context, now, ip_at, header_at, &front, bound);
	if (queue < ACCORD_MAX_QUEUES) {
		struct accord_challenges *mine = &now->challenges[queue];

		mine->passed += reason == ACCORD_REASON_STEERED;
		mine->refused += reason == ACCORD_REASON_BAD_COOKIE;
		mine->answered += reason == ACCORD_REASON_CHALLENGED;
	}
	return reason;
}

#endif
