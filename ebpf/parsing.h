/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Parsers with one contract: check the bounds, advance the cursor past the header, and return
 * ACCORD_REASON_OK to go further or the reason why the packet is none of ours.
 *
 * L4 checksums are not looked at: between veths, and behind offloading NICs, they are still partial here.
 */
#ifndef ACCORD_EBPF_PARSING_H
#define ACCORD_EBPF_PARSING_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "accord/wire.h"
#include "consts.h"

struct cursor {
	void *start, *position, *end;
};

static __always_inline __u32 cursor_offset(const struct cursor *cursor)
{
	return cursor->position - cursor->start;
}

/* What the headers in front of the payload say. */
struct packet {
	const struct ethhdr *ethernet;
	__u32 ip_at; /* offset in the frame: to the verifier a number is as good as another, a pointer is not */
	__be16 type;
	__u8 protocol;
	__u32 length; /* bytes that the headers so far say are left; padding of the frame is not among them */
	__be16 port;  /* UDP destination port; 0 for the others */
};

struct vlan_tag {
	__be16 control;
	__be16 type;
};

/* RFC 8200 section 4.2: what every extension header that is walked begins with. */
struct extension {
	__u8 next;
	__u8 length; /* 8-byte units, the first not counted */
};

struct fragment {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 identification;
};

static __always_inline __u32 parse_ethernet(struct cursor *cursor, struct packet *packet)
{
	const struct ethhdr *ethernet = cursor->position;
	__be16 type;

	if ((void *)(ethernet + 1) > cursor->end)
		return ACCORD_REASON_MALFORMED_FRAME;
	cursor->position += sizeof(*ethernet);
	type = ethernet->h_proto;
#pragma unroll
	for (int tags = 0; type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD); tags++) {
		const struct vlan_tag *tag = cursor->position;

		if (tags == MAX_VLAN_TAGS)
			return ACCORD_REASON_TOO_MANY_EXTENSIONS;
		if ((void *)(tag + 1) > cursor->end)
			return ACCORD_REASON_MALFORMED_FRAME;
		cursor->position += sizeof(*tag);
		type = tag->type;
	}
	packet->ethernet = ethernet;
	packet->type = type;
	return ACCORD_REASON_OK;
}

static __always_inline __u32 parse_ipv4(struct cursor *cursor, struct packet *packet)
{
	const struct iphdr *ip = cursor->position;
	__u32 frame_left = cursor->end - cursor->position, length, total;

	if ((void *)(ip + 1) > cursor->end)
		return ACCORD_REASON_MALFORMED_FRAME;
	if (ip->version != 4 || ip->ihl < MIN_IHL)
		return ACCORD_REASON_MALFORMED_FRAME;
	length = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (total < length || total > frame_left || cursor->position + length > cursor->end)
		return ACCORD_REASON_MALFORMED_FRAME;
	/* The first fragment too: its UDP length is a lie about what is in this frame. */
	if (ip->frag_off & bpf_htons(IPV4_FRAGMENTED))
		return ACCORD_REASON_FRAGMENT;
	cursor->position += length;
	packet->protocol = ip->protocol;
	packet->length = total - length;
	return ACCORD_REASON_OK;
}

/*
 * AH and ESP are not walked: what IPsec has to verify must not get past it. A routing header whose
 * segments are not used up belongs to another host.
 */
static __always_inline __u32 parse_extension(struct cursor *cursor, struct packet *packet)
{
	const struct extension *extension = cursor->position;
	const struct fragment *fragment = cursor->position;
	const __u8 *routing = cursor->position;
	__u32 length;

	/* The shortest is 8 bytes long, as the fragment header is always. Padding behind the packet is no header. */
	if (packet->length < sizeof(*fragment) || (void *)(fragment + 1) > cursor->end)
		return ACCORD_REASON_MALFORMED_FRAME;
	if (packet->protocol == PROTOCOL_FRAGMENT) {
		if (fragment->offset & bpf_htons(IPV6_FRAGMENTED))
			return ACCORD_REASON_FRAGMENT;
		length = sizeof(*fragment); /* RFC 6946: an atomic fragment is whole */
	} else {
		if (packet->protocol == PROTOCOL_ROUTING && routing[3] != 0)
			return ACCORD_REASON_NOT_LOCAL;
		length = (extension->length + 1) * 8;
	}
	if (packet->length < length || cursor->position + length > cursor->end)
		return ACCORD_REASON_MALFORMED_FRAME;
	packet->protocol = extension->next;
	packet->length -= length;
	cursor->position += length;
	return ACCORD_REASON_OK;
}

static __always_inline int is_extension(__u8 protocol)
{
	return protocol == PROTOCOL_HOP_BY_HOP || protocol == PROTOCOL_ROUTING || protocol == PROTOCOL_FRAGMENT ||
	       protocol == PROTOCOL_DESTINATION || protocol == PROTOCOL_MOBILITY || protocol == PROTOCOL_HIP ||
	       protocol == PROTOCOL_SHIM6;
}

static __always_inline __u32 parse_ipv6(struct cursor *cursor, struct packet *packet)
{
	const struct ipv6hdr *ip = cursor->position;
	__u32 frame_left = cursor->end - cursor->position;

	if ((void *)(ip + 1) > cursor->end)
		return ACCORD_REASON_MALFORMED_FRAME;
	if (ip->version != 6)
		return ACCORD_REASON_MALFORMED_FRAME;
	cursor->position += sizeof(*ip);
	packet->protocol = ip->nexthdr;
	packet->length = bpf_ntohs(ip->payload_len);
	if (packet->length > frame_left - sizeof(*ip))
		return ACCORD_REASON_MALFORMED_FRAME;
#pragma unroll
	for (int walked = 0; walked < MAX_EXTENSIONS; walked++) {
		__u32 reason;

		if (!is_extension(packet->protocol))
			return ACCORD_REASON_OK;
		reason = parse_extension(cursor, packet);
		if (reason != ACCORD_REASON_OK)
			return reason;
	}
	return is_extension(packet->protocol) ? ACCORD_REASON_TOO_MANY_EXTENSIONS : ACCORD_REASON_OK;
}

static __always_inline __u32 parse_udp(struct cursor *cursor, struct packet *packet)
{
	const struct udphdr *udp = cursor->position;
	__u32 length;

	if (packet->length < sizeof(*udp) || (void *)(udp + 1) > cursor->end)
		return ACCORD_REASON_MALFORMED_FRAME;
	length = bpf_ntohs(udp->len);
	if (length < sizeof(*udp) || length > packet->length)
		return ACCORD_REASON_MALFORMED_FRAME;
	cursor->position += sizeof(*udp);
	packet->port = udp->dest;
	packet->length = length - sizeof(*udp);
	return ACCORD_REASON_OK;
}

/*
 * Goes no further than a SYN that asks for a connection (ECE and CWR are legal on one, RFC 3168 section 6.1.1) and has
 * room for our option. Of all other segments, whole or not, there is nothing to be said but that they are not ours.
 */
static __always_inline __u32 parse_tcp(struct cursor *cursor, struct packet *packet)
{
	const struct tcphdr *tcp = cursor->position;

	if ((void *)(tcp + 1) > cursor->end)
		return ACCORD_REASON_NOT_OURS_PROTOCOL;
	if ((((const __u8 *)tcp)[TCP_FLAGS_AT] & TCP_FLAGS_OF_OPENING) != TCP_FLAG_OF_SYN)
		return ACCORD_REASON_NOT_OURS_PROTOCOL;
	if (tcp->doff * 4 < sizeof(*tcp) + ACCORD_TCP_OPTION_BYTES || tcp->doff * 4 > packet->length)
		return ACCORD_REASON_NOT_OURS_PROTOCOL;
	return ACCORD_REASON_OK;
}

static __always_inline __u32 parse_magic(struct cursor *cursor, const struct packet *packet)
{
	const struct accord_header *header = cursor->position;

	if (packet->length < sizeof(*header) || (void *)(header + 1) > cursor->end)
		return ACCORD_REASON_NOT_OURS_MAGIC;
	if (header->version < ACCORD_VERSION_FIRST || header->version > ACCORD_VERSION_LAST)
		return ACCORD_REASON_NOT_OURS_MAGIC;
	return header->magic == bpf_htonl(ACCORD_MAGIC) ? ACCORD_REASON_OK : ACCORD_REASON_NOT_OURS_MAGIC;
}

/* From the first byte of the frame to the magic cookie, or to the header of a SYN: protocol says which. */
static __always_inline __u32 parse_frame(struct cursor *cursor, struct packet *packet)
{
	__u32 reason = parse_ethernet(cursor, packet);

	if (reason != ACCORD_REASON_OK)
		return reason;
	packet->ip_at = cursor_offset(cursor);
	if (packet->type == bpf_htons(ETH_P_IP))
		reason = parse_ipv4(cursor, packet);
	else if (packet->type == bpf_htons(ETH_P_IPV6))
		reason = parse_ipv6(cursor, packet);
	else
		return ACCORD_REASON_NOT_IP;
	if (reason != ACCORD_REASON_OK)
		return reason;
	if (packet->protocol == PROTOCOL_UDP)
		reason = parse_udp(cursor, packet);
	else if (packet->protocol == PROTOCOL_TCP)
		return parse_tcp(cursor, packet);
	else if (packet->protocol != ACCORD_PROTOCOL_DIRECT)
		return ACCORD_REASON_NOT_OURS_PROTOCOL;
	return reason != ACCORD_REASON_OK ? reason : parse_magic(cursor, packet);
}

#endif
