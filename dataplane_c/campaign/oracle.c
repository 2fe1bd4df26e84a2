/* SPDX-License-Identifier: Apache-2.0 */
/*
 * docs/PROTOCOL.md and the RFCs, on a span of bytes that only ever shrinks: what a length field cuts off cannot
 * be looked at any more, so no rule has to be said twice.
 */
#include "oracle.h"

#include <string.h>

struct span {
	const uint8_t *at;
	uint32_t left;
};

static uint32_t word(const uint8_t *at)
{
	return (uint32_t)at[0] * 256 + at[1];
}

static int skip(struct span *span, uint32_t bytes)
{
	if (bytes > span->left)
		return 0;
	span->at += bytes;
	span->left -= bytes;
	return 1;
}

static int shrink(struct span *span, uint32_t bytes)
{
	if (bytes > span->left)
		return 0;
	span->left = bytes;
	return 1;
}

/* Ethernet and at most two tags (IEEE 802.1Q, 802.1ad). Returns the type of what follows, 0 for none. */
static uint32_t open_link(struct span *span)
{
	uint32_t type;

	if (!skip(span, 14))
		return 0;
	type = word(span->at - 2);
	for (int tags = 0; tags < 2 && (type == 0x8100 || type == 0x88a8); tags++) {
		if (!skip(span, 4))
			return 0;
		type = word(span->at - 2);
	}
	return type;
}

/* RFC 791. Returns the protocol, -1 when the packet is damaged or a fragment. */
static int open_ipv4(struct span *span)
{
	uint32_t header;
	int protocol;

	if (span->left < 20 || span->at[0] / 16 != 4)
		return -1;
	header = span->at[0] % 16 * 4u;
	if (header < 20 || word(span->at + 2) < header || word(span->at + 6) % 0x4000 != 0)
		return -1;
	protocol = span->at[9];
	return shrink(span, word(span->at + 2)) && skip(span, header) ? protocol : -1;
}

/* RFC 8200 section 4, with the numbers of the IANA registry of extension headers; AH and ESP are IPsec's. */
static int open_ipv6(struct span *span)
{
	static const char walked[] = {0, 43, 44, 60, (char)135, (char)139, (char)140};
	uint32_t payload;
	int next;

	if (span->left < 40 || span->at[0] / 16 != 6)
		return -1;
	payload = word(span->at + 4);
	next = span->at[6];
	if (!skip(span, 40) || !shrink(span, payload))
		return -1;
	for (int headers = 0; memchr(walked, next, sizeof(walked)); headers++) {
		const uint8_t *header = span->at;

		if (headers == 6 || span->left < 8)
			return -1;
		if (next == 44 && (word(header + 2) / 8 != 0 || header[3] % 2 != 0))
			return -1;
		if (next == 43 && header[3] != 0)
			return -1;
		if (!skip(span, next == 44 ? 8 : 8 + 8u * header[1]))
			return -1;
		next = header[0];
	}
	return next;
}

/* RFC 768; the length rules where IP's payload is longer. */
static int open_udp(const struct host *host, struct span *span)
{
	uint32_t port, length;

	if (span->left < 8)
		return 0;
	port = word(span->at + 2);
	length = word(span->at + 4);
	if (!host->any_port && port != host->ports[0] && port != host->ports[1])
		return 0;
	return shrink(span, length) && skip(span, 8);
}

int oracle_is_ours(const struct host *host, const uint8_t *frame, uint32_t length)
{
	struct span span = {frame, length};
	uint32_t type = open_link(&span);
	int protocol = type == 0x0800 ? open_ipv4(&span) : type == 0x86dd ? open_ipv6(&span) : -1;

	if (protocol != 17 && protocol != 253)
		return 0;
	if (protocol == 17 && !open_udp(host, &span))
		return 0;
	if (span.left < 32 || span.at[0] < 4 || span.at[0] > 15 || memcmp(span.at + 4, "ACRD", 4))
		return 0;
	return !memcmp(frame, host->address, 6) && length <= host->frame_limit;
}

/* RFC 9293 section 3.1. Returns how many options are ours, -1 when the list does not parse; ours: the last of them. */
static int read_options(struct span options, const uint8_t **ours)
{
	int found = 0;

	while (options.left && options.at[0] != 0) {
		uint32_t length = options.at[0] == 1 ? 1 : options.left > 1 ? options.at[1] : 0;

		if (length < (options.at[0] == 1 ? 1u : 2u) || length > options.left)
			return -1;
		if (options.at[0] == 254 && length == 16 && options.at[2] == 0xac && (options.at[3] & 0xfe) == 0xc0) {
			*ours = options.at;
			found++;
		}
		skip(&options, length);
	}
	return found;
}

/* PROTOCOL.md, section 10.2, of a segment to a host that wants it. */
static int drops(const struct host *host, const uint8_t *segment, uint32_t length)
{
	const uint8_t *ours = NULL;
	struct span options = {segment, length};
	uint32_t port, header;

	if (length < 20)
		return 0;
	port = word(segment + 2);
	header = segment[12] / 16 * 4u;
	/* SYN; not FIN, RST, ACK. */
	if (!(segment[13] & 2) || segment[13] & 1 || segment[13] & 4 || segment[13] & 16)
		return 0;
	if (header < 20 || !shrink(&options, header) || !skip(&options, 20))
		return 0;
	if (port != host->ports[0] && port != host->ports[1])
		return 0;
	return read_options(options, &ours) == 1 && ours[3] == 0xc0 && !memcmp(ours + 4, host->transaction, 12);
}

int oracle_is_superfluous(const struct host *host, const uint8_t *frame, uint32_t length)
{
	struct span span = {frame, length};
	uint32_t type = open_link(&span);
	const uint8_t *ip = span.at;
	int protocol = type == 0x0800 ? open_ipv4(&span) : type == 0x86dd ? open_ipv6(&span) : -1;

	if (protocol != 6 || memcmp(frame, host->address, 6))
		return 0;
	if (type == 0x0800 ? memcmp(ip + 12, host->ends4, 8) : memcmp(ip + 8, host->ends6, 32))
		return 0;
	return drops(host, span.at, span.left);
}
