/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A flood out of the live frames of BPF_PROG_TEST_RUN, and where its answers end. The kernel hands a frame out again as
 * it came back, so everything that differs between two packets is written each time.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "accord/cookie.h"
#include "accord/wire.h"
#include "flood.h"

char _license[] SEC("license") = "Dual BSD/GPL";

enum {
	IPV4_AT = sizeof(struct ethhdr),
	HEADER_4 = IPV4_AT + sizeof(struct iphdr) + sizeof(struct udphdr),
	HEADER_6 = IPV4_AT + sizeof(struct ipv6hdr) + sizeof(struct udphdr),
	WORD_ID = 2,
	WORD_TSN = 5,
	WORD_CHECKSUM = 7,
	WORD_COOKIE = 8,
	WORDS = (ACCORD_HEADER_BYTES + ACCORD_COOKIE_BYTES) / 4,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flood_plan);
} plan SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flood_arrived);
} arrived SEC(".maps");

static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* 11.0.0.0 to 74.255.255.255, or four /24s of 10.9.0.0. */
static __always_inline __be32 source(const struct flood_plan *now, __u32 random)
{
	if (now->kind == FLOOD_VALIDATED)
		return bpf_htonl(0x0a090000 | (random & 0x3ff));
	return bpf_htonl((11u << 24) + (random & 0x3fffffff));
}

/* words: of the packet; the rest of the cookie's input is given. repeated: what repeat_id returned. */
static __always_inline __u64 add_cookie(const struct flood_plan *now, __u32 *words, union accord_cookie_input *input,
                                        int id_at, int count, __u32 repeated)
{
	__u32 bound = now->bound;
	__u64 mac;

	((__u16 *)&bound)[0] = fold((__u64)((__u16 *)&bound)[0] + repeated);
	words[WORD_COOKIE] = bpf_htonl(now->key.id << 24 | ACCORD_COOKIE_ADDRESS << 16 | (now->slot & 0xffff));
	words[WORD_COOKIE + 1] = bound;
	__builtin_memcpy(&input->parts[id_at], &words[WORD_ID], ACCORD_TRANSACTION_BYTES);
	input->parts[id_at + 3] = words[WORD_COOKIE];
	input->parts[id_at + 4] = bound;
	mac = bpf_cpu_to_be64(accord_siphash(input->words, count, now->key.words));
	words[WORD_COOKIE + 2] = (__u32)mac;
	words[WORD_COOKIE + 3] = (__u32)(mac >> 32);
	return (__u64)words[WORD_COOKIE] + words[WORD_COOKIE + 1] + words[WORD_COOKIE + 2] + words[WORD_COOKIE + 3];
}

/* A new transaction; returns the sum of what was written. */
static __always_inline __u64 new_transaction(__u32 *words)
{
	words[WORD_ID] = words[WORD_TSN] = bpf_get_prandom_u32();
	words[WORD_ID + 1] = bpf_get_prandom_u32();
	words[WORD_ID + 2] = bpf_get_prandom_u32();
	return 2 * (__u64)words[WORD_ID] + words[WORD_ID + 1] + words[WORD_ID + 2];
}

/* The option ADOPT, without which a SYN is refused, names its transaction. Returns the sum of what was written, as it
 * counts there (RFC 1071 section 2: behind an odd number of bytes its own are swapped). */
static __always_inline __u32 repeat_id(const struct flood_plan *now, const __u32 *words, void *end)
{
	__u32 at = now->id_at & (FLOOD_ROOM - 1), sum;
	struct {
		__u32 words[ACCORD_TRANSACTION_BYTES / 4];
	} __attribute__((packed)) *id = (void *)words + at;

	if (!at || (void *)(id + 1) > end)
		return 0;
	__builtin_memcpy(id->words, &words[WORD_ID], ACCORD_TRANSACTION_BYTES);
	sum = fold((__u64)words[WORD_ID] + words[WORD_ID + 1] + words[WORD_ID + 2]);
	return at % 2 ? __builtin_bswap16(sum) : sum;
}

static __always_inline int make_4(const struct flood_plan *now, void *data, void *end)
{
	struct iphdr *ip = data + IPV4_AT;
	__u32 *ports = (void *)(ip + 1), *words = data + HEADER_4;
	union accord_cookie_input input;
	__u32 repeated;
	__u64 sum;

	if ((void *)(words + WORDS) > end)
		return 0;
	ip->saddr = source(now, bpf_get_prandom_u32());
	ip->check = ~fold((__u64)now->ip_sum + ip->saddr);
	sum = now->sum + new_transaction(words);
	repeated = repeat_id(now, words, end);
	sum += repeated;
	if (now->kind == FLOOD_VALIDATED) {
		input.parts[0] = ip->saddr;
		input.parts[1] = ip->daddr;
		input.parts[2] = *ports;
		sum += add_cookie(now, words, &input, 3, ACCORD_COOKIE_WORDS_IPV4, repeated);
	}
	((__u16 *)words)[2 * WORD_CHECKSUM + 1] = ~fold(sum);
	return 1;
}

static __always_inline int make_6(const struct flood_plan *now, void *data, void *end)
{
	struct ipv6hdr *ip = data + IPV4_AT;
	__u32 *ports = (void *)(ip + 1), *words = data + HEADER_6, *from = ip->saddr.in6_u.u6_addr32;
	union accord_cookie_input input;
	__u32 repeated;
	__u64 sum;

	if ((void *)(words + WORDS) > end)
		return 0;
	/* 2001:db8:f000::/36, or four /56s of it. */
	from[1] = bpf_htonl(0xf0000000 | (bpf_get_prandom_u32() & (now->kind == FLOOD_VALIDATED ? 0x300 : 0xfffffff)));
	from[2] = bpf_get_prandom_u32();
	from[3] = bpf_get_prandom_u32();
	sum = now->sum + new_transaction(words);
	repeated = repeat_id(now, words, end);
	sum += repeated;
	if (now->kind == FLOOD_VALIDATED) {
		__builtin_memcpy(&input.parts[0], &ip->saddr, 16);
		__builtin_memcpy(&input.parts[4], &ip->daddr, 16);
		input.parts[8] = *ports;
		sum += add_cookie(now, words, &input, 9, ACCORD_COOKIE_WORDS_IPV6, repeated);
	}
	((__u16 *)words)[2 * WORD_CHECKSUM + 1] = ~fold(sum);
	return 1;
}

SEC("xdp")
int flood_generate(struct xdp_md *context)
{
	struct flood_plan *now;
	void *data, *end;
	__u32 key = 0;

	now = bpf_map_lookup_elem(&plan, &key);
	if (!now)
		return XDP_ABORTED;
	if (!now->start_ns)
		now->start_ns = bpf_ktime_get_ns();
	/* Ahead of its time: this frame comes back at once. */
	if (now->picoseconds && now->made * now->picoseconds > (bpf_ktime_get_ns() - now->start_ns) * 1000)
		return XDP_DROP;
	/* A frame would be as long as whoever had it last has left it. That it begins elsewhere makes the kernel look: the
	 * one given has FLOOD_SPARE bytes more in front. */
	if (bpf_xdp_adjust_head(context, FLOOD_SPARE))
		return XDP_ABORTED;
	data = (void *)(long)context->data;
	end = (void *)(long)context->data_end;
	if (data + sizeof(now->front) > end)
		return XDP_ABORTED;
	__builtin_memcpy(data, now->front, sizeof(now->front));
	if (now->kind != FLOOD_REPLAYED && !(now->family == 4 ? make_4(now, data, end) : make_6(now, data, end)))
		return XDP_ABORTED;
	now->made++;
	now->made_bytes += now->frame_bytes;
	return bpf_redirect(now->interface, 0);
}

static __always_inline void note(const struct xdp_md *context)
{
	__u32 key = 0;
	struct flood_arrived *mine = bpf_map_lookup_elem(&arrived, &key);

	if (!mine)
		return;
	mine->packets++;
	mine->bytes += context->data_end - context->data - sizeof(struct ethhdr);
}

/* Is it for one of the flood's addresses, or for the port that all of the flood comes from? */
static __always_inline int is_answer(void *data, void *end)
{
	const struct ethhdr *ethernet = data;
	const struct iphdr *ipv4 = data + sizeof(*ethernet);
	const struct ipv6hdr *ipv6 = data + sizeof(*ethernet);
	const struct udphdr *udp;
	const __be32 *to = ipv6->daddr.in6_u.u6_addr32;

	if ((void *)(ipv4 + 1) > end)
		return 0;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		udp = (const struct udphdr *)(ipv4 + 1);
		if (bpf_ntohl(ipv4->daddr) - (10u << 24) < (65u << 24))
			return 1;
		return ipv4->protocol == IPPROTO_UDP && (void *)(udp + 1) <= end && udp->dest == bpf_htons(FLOOD_PORT);
	}
	if (ethernet->h_proto != bpf_htons(ETH_P_IPV6) || (void *)(ipv6 + 1) > end)
		return 0;
	udp = (const struct udphdr *)(ipv6 + 1);
	if (to[0] == bpf_htonl(0x20010db8) && (to[1] & bpf_htonl(0xf0000000)) == bpf_htonl(0xf0000000))
		return 1;
	return ipv6->nexthdr == IPPROTO_UDP && (void *)(udp + 1) <= end && udp->dest == bpf_htons(FLOOD_PORT);
}

/* On the sender's host: what answers the flood ends here. */
SEC("xdp")
int flood_sink(struct xdp_md *context)
{
	if (!is_answer((void *)(long)context->data, (void *)(long)context->data_end))
		return XDP_PASS;
	note(context);
	return XDP_DROP;
}

/* In the place of the daemon's program: what there is to compare with. Bounced: as it came, addresses exchanged. */
SEC("xdp")
int flood_bounce(struct xdp_md *context)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *ipv4 = data + sizeof(*ethernet);
	struct ipv6hdr *ipv6 = data + sizeof(*ethernet);
	struct in6_addr was;
	__u8 address[ETH_ALEN];
	__be32 from;

	if ((void *)(ipv6 + 1) > end)
		return XDP_PASS;
	__builtin_memcpy(address, ethernet->h_dest, sizeof(address));
	__builtin_memcpy(ethernet->h_dest, ethernet->h_source, sizeof(address));
	__builtin_memcpy(ethernet->h_source, address, sizeof(address));
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		from = ipv4->saddr;
		ipv4->saddr = ipv4->daddr;
		ipv4->daddr = from;
	} else {
		was = ipv6->saddr;
		ipv6->saddr = ipv6->daddr;
		ipv6->daddr = was;
	}
	return XDP_TX;
}

SEC("xdp")
int flood_drop(struct xdp_md *context)
{
	note(context);
	return XDP_DROP;
}
