/* SPDX-License-Identifier: Apache-2.0 */
#include "frame.h"

#include <arpa/inet.h>
#include <string.h>

enum {
	ETHERNET_BYTES = 14,
	TAG_BYTES = 4,
	MAX_TAGS = 2,
	TYPE_IPV4 = 0x0800,
	TYPE_IPV6 = 0x86dd,
	TYPE_8021Q = 0x8100,
	TYPE_8021AD = 0x88a8,
	MAX_EXTENSIONS = 6,
	IPV4_FRAGMENTED = 0x3fff,
	IPV4_DONT_FRAGMENT = 0x4000,
	IPV6_FRAGMENTED = 0xfff9,
	HOPS = 64, /* the kernel's own default */
};

static uint16_t get16(const uint8_t *from)
{
	return (uint16_t)(from[0] << 8 | from[1]);
}

static void put16(uint8_t *to, uint32_t value)
{
	to[0] = (uint8_t)(value >> 8);
	to[1] = (uint8_t)value;
}

/* RFC 1071, without the final fold: sums of pieces of even length may be chained. */
static uint64_t checksum_add(uint64_t sum, const uint8_t *data, uint32_t length)
{
	uint32_t word;
	uint16_t half;

	for (; length >= sizeof(word); data += sizeof(word), length -= sizeof(word)) {
		memcpy(&word, data, sizeof(word));
		sum += word;
	}
	if (length >= sizeof(half)) {
		memcpy(&half, data, sizeof(half));
		sum += half;
		data += sizeof(half);
		length -= sizeof(half);
	}
	if (length) {
		half = 0;
		memcpy(&half, data, 1);
		sum += half;
	}
	return sum;
}

/* The checksum in network order, as it is summed in memory order (RFC 1071 section 2 (B)). */
static uint16_t checksum_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static int is_tag(uint16_t type)
{
	return type == TYPE_8021Q || type == TYPE_8021AD;
}

/* Copies the Ethernet header into path->link, turned round. Returns the offset of what follows, or a reason. */
static int parse_link(const uint8_t *frame, uint32_t length, struct accord_frame_tag tag, struct accord_path *path)
{
	uint32_t used = ETHERNET_BYTES, tags = 0;
	uint8_t *link = path->link;

	if (length < ETHERNET_BYTES)
		return -ACCORD_REASON_MALFORMED_FRAME;
	memcpy(link, frame + 6, 6);
	memcpy(link + 6, frame, 6);
	link += 12;
	if (tag.type) {
		put16(link, tag.type);
		put16(link + 2, tag.control);
		link += TAG_BYTES;
		tags++;
	}
	while (is_tag(get16(frame + used - 2))) {
		if (tags++ == MAX_TAGS)
			return -ACCORD_REASON_TOO_MANY_EXTENSIONS;
		if (length < used + TAG_BYTES)
			return -ACCORD_REASON_MALFORMED_FRAME;
		memcpy(link, frame + used - 2, TAG_BYTES);
		link += TAG_BYTES;
		used += TAG_BYTES;
	}
	memcpy(link, frame + used - 2, 2);
	path->link_length = (uint8_t)(link + 2 - path->link);
	return (int)used;
}

/* The kernel would call these martians; we answer sources, so none of them may be one. */
static int bad_source_ipv4(const uint8_t *source)
{
	return source[0] == 0 || source[0] == 127 || source[0] >= 224;
}

static int bad_source_ipv6(const uint8_t *source)
{
	static const uint8_t zeros[15];

	return source[0] == 0xff || (!memcmp(source, zeros, 15) && source[15] <= 1);
}

/*
 * The two IP parsers return the offset of the IP payload, its length through payload_length, or a reason.
 * A frame may be longer than its packet (Ethernet pads to 60 bytes), never shorter.
 */
static int parse_ipv4(const uint8_t *ip, uint32_t length, struct accord_path *path, uint8_t *protocol,
                      uint32_t *payload_length)
{
	uint32_t header, total;

	if (length < ACCORD_FRAME_IPV4_BYTES || ip[0] >> 4 != 4)
		return -ACCORD_REASON_MALFORMED_FRAME;
	header = (ip[0] & 15u) * 4;
	total = get16(ip + 2);
	if (header < ACCORD_FRAME_IPV4_BYTES || total < header || total > length)
		return -ACCORD_REASON_MALFORMED_FRAME;
	if (get16(ip + 6) & IPV4_FRAGMENTED)
		return -ACCORD_REASON_FRAGMENT;
	if (checksum_fold(checksum_add(0, ip, header)) || bad_source_ipv4(ip + 12))
		return -ACCORD_REASON_MALFORMED_FRAME;
	path->family = 4;
	memcpy(path->remote, ip + 12, 4);
	memcpy(path->local, ip + 16, 4);
	*protocol = ip[9];
	*payload_length = total - header;
	return (int)header;
}

static int is_extension(uint8_t protocol)
{
	switch (protocol) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_DSTOPTS:
	case 135: /* mobility */
	case 139: /* HIP */
	case 140: /* shim6 */
		return 1;
	default:
		return 0;
	}
}

static int parse_ipv6(const uint8_t *ip, uint32_t length, struct accord_path *path, uint8_t *protocol,
                      uint32_t *payload_length)
{
	uint32_t used = ACCORD_FRAME_IPV6_BYTES, end;

	if (length < ACCORD_FRAME_IPV6_BYTES || ip[0] >> 4 != 6)
		return -ACCORD_REASON_MALFORMED_FRAME;
	end = used + get16(ip + 4);
	if (end > length || bad_source_ipv6(ip + 8))
		return -ACCORD_REASON_MALFORMED_FRAME;
	*protocol = ip[6];
	for (uint32_t walked = 0; is_extension(*protocol); walked++) {
		uint32_t bytes = 8;

		if (walked == MAX_EXTENSIONS)
			return -ACCORD_REASON_TOO_MANY_EXTENSIONS;
		if (end < used + bytes)
			return -ACCORD_REASON_MALFORMED_FRAME;
		if (*protocol == IPPROTO_FRAGMENT) {
			if (get16(ip + used + 2) & IPV6_FRAGMENTED)
				return -ACCORD_REASON_FRAGMENT;
		} else {
			if (*protocol == IPPROTO_ROUTING && ip[used + 3])
				return -ACCORD_REASON_NOT_LOCAL;
			bytes = (ip[used + 1] + 1u) * 8;
			if (end < used + bytes)
				return -ACCORD_REASON_MALFORMED_FRAME;
		}
		*protocol = ip[used];
		used += bytes;
	}
	path->family = 6;
	memcpy(path->remote, ip + 8, 16);
	memcpy(path->local, ip + 24, 16);
	*payload_length = end - used;
	return (int)used;
}

int accord_frame_parse(const uint8_t *frame, uint32_t length, struct accord_frame_tag tag, struct accord_path *path,
                       const uint8_t **packet, uint32_t *packet_length)
{
	const uint8_t *at = frame;
	uint32_t left, udp_length;
	uint8_t protocol;
	uint16_t type;
	int used;

	memset(path, 0, sizeof(*path));
	path->socket = ACCORD_PATH_NO_SOCKET;
	used = parse_link(frame, length, tag, path);
	if (used < 0)
		return used;
	at += used;
	type = get16(at - 2);
	if (type == TYPE_IPV4)
		used = parse_ipv4(at, length - (uint32_t)used, path, &protocol, &left);
	else if (type == TYPE_IPV6)
		used = parse_ipv6(at, length - (uint32_t)used, path, &protocol, &left);
	else
		return -ACCORD_REASON_NOT_IP;
	if (used < 0)
		return used;
	at += used;
	path->context = protocol;
	if (protocol == ACCORD_PROTOCOL_UDP) {
		if (left < ACCORD_FRAME_UDP_BYTES)
			return -ACCORD_REASON_MALFORMED_FRAME;
		path->remote_port = get16(at);
		path->local_port = get16(at + 2);
		udp_length = get16(at + 4);
		/* Port 0 cannot be answered. UDP's length rules where IP's has more. */
		if (!path->remote_port || udp_length < ACCORD_FRAME_UDP_BYTES || udp_length > left)
			return -ACCORD_REASON_MALFORMED_FRAME;
		at += ACCORD_FRAME_UDP_BYTES;
		left = udp_length - ACCORD_FRAME_UDP_BYTES;
	} else if (protocol != ACCORD_PROTOCOL_DIRECT) {
		return -ACCORD_REASON_NOT_OURS_PROTOCOL;
	}
	*packet = at;
	*packet_length = left;
	return 0;
}

uint32_t accord_frame_bytes(const struct accord_path *path, uint32_t packet_length)
{
	return path->link_length + (path->family == 4 ? ACCORD_FRAME_IPV4_BYTES : ACCORD_FRAME_IPV6_BYTES) +
	       (path->context == ACCORD_PROTOCOL_UDP ? ACCORD_FRAME_UDP_BYTES : 0) + packet_length;
}

static void build_ipv4(const struct accord_path *path, uint32_t payload, uint8_t *ip)
{
	uint16_t sum;

	memset(ip, 0, ACCORD_FRAME_IPV4_BYTES);
	ip[0] = 4 << 4 | ACCORD_FRAME_IPV4_BYTES / 4;
	put16(ip + 2, ACCORD_FRAME_IPV4_BYTES + payload);
	put16(ip + 6, IPV4_DONT_FRAGMENT); /* so the identification may be zero (RFC 6864 section 4.1) */
	ip[8] = HOPS;
	ip[9] = path->context;
	memcpy(ip + 12, path->local, 4);
	memcpy(ip + 16, path->remote, 4);
	sum = checksum_fold(checksum_add(0, ip, ACCORD_FRAME_IPV4_BYTES));
	memcpy(ip + 10, &sum, sizeof(sum));
}

static void build_ipv6(const struct accord_path *path, uint32_t payload, uint8_t *ip)
{
	memset(ip, 0, ACCORD_FRAME_IPV6_BYTES);
	ip[0] = 6 << 4;
	put16(ip + 4, payload);
	ip[6] = path->context;
	ip[7] = HOPS;
	memcpy(ip + 8, path->local, 16);
	memcpy(ip + 24, path->remote, 16);
}

static void build_udp(const struct accord_path *path, const uint8_t *packet, uint32_t length, uint8_t *udp)
{
	uint32_t address = path->family == 4 ? 4 : 16, total = ACCORD_FRAME_UDP_BYTES + length;
	uint8_t pseudo[4] = {0, ACCORD_PROTOCOL_UDP};
	uint64_t sum;
	uint16_t folded;

	put16(udp, path->local_port);
	put16(udp + 2, path->remote_port);
	put16(udp + 4, total);
	put16(udp + 6, 0);
	put16(pseudo + 2, total);
	sum = checksum_add(0, path->local, address);
	sum = checksum_add(sum, path->remote, address);
	sum = checksum_add(sum, pseudo, sizeof(pseudo));
	sum = checksum_add(sum, udp, ACCORD_FRAME_UDP_BYTES);
	folded = checksum_fold(checksum_add(sum, packet, length));
	if (!folded)
		folded = 0xffff; /* RFC 768: zero would mean that there is none */
	memcpy(udp + 6, &folded, sizeof(folded));
}

int accord_frame_build(const struct accord_path *path, const uint8_t *packet, uint32_t length, uint8_t *frame,
                       uint32_t room)
{
	uint32_t total = accord_frame_bytes(path, length), ip_bytes, payload;
	uint8_t *at = frame;

	if (length > ACCORD_MAX_PACKET || total > room)
		return -ACCORD_REASON_LONG_PACKET;
	ip_bytes = path->family == 4 ? ACCORD_FRAME_IPV4_BYTES : ACCORD_FRAME_IPV6_BYTES;
	payload = total - path->link_length - ip_bytes;
	memcpy(at, path->link, path->link_length);
	at += path->link_length;
	if (path->family == 4)
		build_ipv4(path, payload, at);
	else
		build_ipv6(path, payload, at);
	at += ip_bytes;
	if (path->context == ACCORD_PROTOCOL_UDP) {
		build_udp(path, packet, length, at);
		at += ACCORD_FRAME_UDP_BYTES;
	}
	memcpy(at, packet, length);
	return (int)total;
}
