/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes drawn evenly would all fail at the first check. So a frame is built layer by layer, each field right with a
 * probability that lets about one frame in five be ours and spreads the rest over every way not to be; then some
 * are cut, padded, or have bytes changed.
 */
#include "generate.h"

#include <string.h>

struct generator {
	uint64_t state;
	const struct host *host;
	uint8_t *frame;
	uint32_t length;
};

/* SplitMix64 (Steele, Lea, Flood 2014): good from any seed, so each frame has its own. */
static uint64_t draw(struct generator *random)
{
	uint64_t value = random->state += 0x9e3779b97f4a7c15u;

	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
	value = (value ^ value >> 27) * 0x94d049bb133111ebu;
	return value ^ value >> 31;
}

static uint32_t below(struct generator *random, uint32_t limit)
{
	return (uint32_t)(draw(random) >> 32) % limit;
}

/* True so many times in a hundred. */
static int chance(struct generator *random, uint32_t percent)
{
	return below(random, 100) < percent;
}

static void put8(struct generator *random, uint32_t value)
{
	if (random->length < GENERATE_MAX)
		random->frame[random->length++] = (uint8_t)value;
}

static void put16(struct generator *random, uint32_t value)
{
	put8(random, value >> 8);
	put8(random, value);
}

static void put(struct generator *random, const void *bytes, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		put8(random, ((const uint8_t *)bytes)[i]);
}

static void put_random(struct generator *random, uint32_t count)
{
	while (count--)
		put8(random, below(random, 256));
}

static void set16(struct generator *random, uint32_t at, uint32_t value)
{
	if (at + 2 > random->length)
		return;
	random->frame[at] = (uint8_t)(value >> 8);
	random->frame[at + 1] = (uint8_t)value;
}

/* A length field: mostly the truth, else near it, else anything. */
static uint32_t claim(struct generator *random, uint32_t truth)
{
	if (chance(random, 88))
		return truth;
	return chance(random, 60) ? truth - 9 + below(random, 19) : below(random, 65536);
}

/* ---- layers, inside out ---- */

static void put_header(struct generator *random)
{
	static const char cookie[4] = {'A', 'C', 'R', 'D'};
	uint32_t at = random->length;

	put8(random, chance(random, 92) ? 4 + below(random, 12) : below(random, 256));
	put_random(random, 3);
	put(random, cookie, sizeof(cookie));
	if (chance(random, 6) && random->length > at + 7)
		random->frame[at + 4 + below(random, 4)] ^= (uint8_t)(1u << below(random, 8));
	put_random(random, chance(random, 92) ? 24 : below(random, 24));
}

static void put_payload(struct generator *random)
{
	/* STUN, DTLS, QUIC long and short, RTP, TURN, DNS: what shares ports with us (RFC 9443). */
	static const uint8_t first[] = {0x00, 0x16, 0xc0, 0x40, 0x80, 0x41, 0x12};

	if (chance(random, 70)) {
		put_header(random);
	} else {
		put8(random, chance(random, 70) ? first[below(random, sizeof(first))] : below(random, 256));
		put_random(random, below(random, 64));
	}
	if (chance(random, 20))
		put_random(random, below(random, 200));
	else if (chance(random, 3))
		put_random(random, 1100 + below(random, 1000));
}

static void put_udp(struct generator *random)
{
	uint32_t at = random->length, port = random->host->ports[below(random, 2)];

	if (chance(random, 15))
		port = chance(random, 50) ? port - 1 + 2 * below(random, 2) : below(random, 65536);
	put16(random, below(random, 65536));
	put16(random, port);
	put16(random, 0);
	put16(random, below(random, 65536)); /* checksums are not looked at: they may be partial */
	put_payload(random);
	set16(random, at + 4, claim(random, random->length - at));
}

/* One option: ours, nearly ours, what a Linux SYN has, padding, or nonsense. */
static void put_option(struct generator *random)
{
	static const uint8_t usual[][10] = {
		{2, 4, 5, 0xb4}, {4, 2}, {3, 3, 7}, {8, 10, 0, 0, 0, 1, 0, 0, 0, 0}, {1}, {1}, {1},
	};
	uint32_t which = below(random, 7);

	if (chance(random, 40)) {
		put(random, usual[which], usual[which][0] == 1 ? 1 : usual[which][1]);
	} else if (chance(random, 75)) {
		put8(random, chance(random, 95) ? 254 : 253);
		put8(random, chance(random, 95) ? 16 : below(random, 32));
		put16(random, chance(random, 92) ? 0xacc0 + chance(random, 12) : below(random, 65536));
		if (chance(random, 85))
			put(random, random->host->transaction, sizeof(random->host->transaction));
		else
			put_random(random, sizeof(random->host->transaction));
	} else if (chance(random, 30)) {
		put8(random, 0);
	} else {
		which = below(random, 12);
		put8(random, 2 + below(random, 254));
		put8(random, claim(random, which + 2));
		put_random(random, which);
	}
}

static void put_tcp(struct generator *random)
{
	static const uint8_t linux_options[] = {2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7};
	uint32_t at = random->length, flags = random->length + 13, offset;

	put16(random, below(random, 65536));
	put16(random, chance(random, 92) ? random->host->ports[below(random, 2)] : below(random, 65536));
	put_random(random, 16);
	if (chance(random, 40))
		put(random, linux_options, sizeof(linux_options));
	for (uint32_t options = below(random, 4); options && random->length - at < 60; options--)
		put_option(random);
	while ((random->length - at) % 4)
		put8(random, chance(random, 95) ? 1 : below(random, 256));
	offset = chance(random, 93) ? (random->length - at) / 4 : below(random, 16);
	if (random->length >= at + 20) {
		random->frame[flags - 1] = (uint8_t)(offset << 4);
		random->frame[flags] = 0x02; /* SYN */
		if (chance(random, 15))
			random->frame[flags] ^= (uint8_t)(chance(random, 50) ? 1u << below(random, 8) : below(random, 256));
	}
	put_random(random, chance(random, 80) ? 0 : below(random, 40));
}

static uint32_t draw_protocol(struct generator *random)
{
	static const uint8_t others[] = {1, 2, 33, 41, 47, 50, 51, 58, 59, 132, 136, 252, 254, 255};

	if (chance(random, 58))
		return 17;
	if (chance(random, 45))
		return 6;
	if (chance(random, 75))
		return 253;
	return chance(random, 70) ? others[below(random, sizeof(others))] : below(random, 256);
}

static void put_upper(struct generator *random, uint32_t protocol)
{
	if (protocol == 17)
		put_udp(random);
	else if (protocol == 6)
		put_tcp(random);
	else
		put_payload(random);
}

/* Addresses: mostly those of the transaction, else these but for one bit, else any. */
static void put_ends(struct generator *random, const uint8_t *ends, uint32_t count)
{
	uint32_t at = random->length;

	if (chance(random, 10)) {
		put_random(random, count);
		return;
	}
	put(random, ends, count);
	if (chance(random, 12) && random->length == at + count)
		random->frame[at + below(random, count)] ^= (uint8_t)(1u << below(random, 8));
}

static void put_ipv4(struct generator *random)
{
	uint32_t at = random->length, words = chance(random, 70) ? 5 : 5 + below(random, 11);
	uint32_t protocol = draw_protocol(random);
	uint32_t fragment = chance(random, 90)   ? below(random, 2) << 14
	                    : chance(random, 50) ? 1u << below(random, 16)
	                                         : below(random, 65536);

	put8(random, (chance(random, 97) ? 4u : below(random, 16)) << 4 | (chance(random, 97) ? words : below(random, 16)));
	put8(random, below(random, 256));
	put16(random, 0);
	put16(random, below(random, 65536));
	put16(random, fragment);
	put8(random, below(random, 256));
	put8(random, protocol);
	put_random(random, 2);
	put_ends(random, random->host->ends4, sizeof(random->host->ends4));
	put_random(random, (words - 5) * 4);
	put_upper(random, protocol);
	set16(random, at + 2, claim(random, random->length - at));
}

static void put_extension(struct generator *random, uint32_t kind, uint32_t next)
{
	uint32_t units = kind == 44 || chance(random, 75) ? 0 : below(random, 5);

	put8(random, next);
	put8(random, kind == 44 ? (chance(random, 80) ? 0 : below(random, 256)) : claim(random, units));
	if (kind == 44) {
		put16(random, chance(random, 75)   ? below(random, 4) << 1
		              : chance(random, 50) ? 1u << below(random, 16)
		                                   : below(random, 65536));
		put_random(random, 4);
	} else {
		put8(random, below(random, 256));
		put8(random, kind == 43 && chance(random, 25) ? below(random, 256) : 0);
		put_random(random, 4 + 8 * units);
	}
}

static void put_ipv6(struct generator *random)
{
	static const uint8_t kinds[] = {0, 43, 44, 60, 135, 139, 140};
	uint32_t at = random->length, headers = chance(random, 50) ? 0 : below(random, 9), chain[9];

	for (uint32_t i = 0; i < headers; i++)
		chain[i] = kinds[below(random, sizeof(kinds))];
	chain[headers] = draw_protocol(random);
	put8(random, (chance(random, 97) ? 6u : below(random, 16)) << 4 | below(random, 16));
	put_random(random, 3);
	put16(random, 0);
	put8(random, chain[0]);
	put8(random, below(random, 256));
	put_ends(random, random->host->ends6, sizeof(random->host->ends6));
	for (uint32_t i = 0; i < headers; i++)
		put_extension(random, chain[i], chain[i + 1]);
	put_upper(random, chain[headers]);
	set16(random, at + 4, claim(random, random->length - at - 40));
}

static void put_ethernet(struct generator *random, int family)
{
	static const uint32_t tags[] = {0x8100, 0x88a8, 0x9100};
	uint32_t type = family == 4 ? 0x0800 : 0x86dd;
	uint32_t count = chance(random, 65) ? 0 : 1 + below(random, 3);

	put(random, random->host->address, sizeof(random->host->address));
	if (chance(random, 5))
		random->frame[below(random, 6)] ^= (uint8_t)(1u << below(random, 8));
	put_random(random, 6);
	while (count--) {
		put16(random, tags[chance(random, 97) ? below(random, 2) : 2]);
		put16(random, below(random, 65536));
	}
	put16(random, chance(random, 98) ? type : below(random, 65536));
}

/* What happens to a frame after it was built. */
static void damage(struct generator *random)
{
	if (chance(random, 30))
		put_random(random, 1 + below(random, 40)); /* padding */
	if (chance(random, 15))
		for (uint32_t changes = 1 + below(random, 3); changes; changes--)
			random->frame[below(random, random->length < 120 ? random->length : 120)] = (uint8_t)below(random, 256);
	if (chance(random, 12))
		random->length = GENERATE_MIN + below(random, random->length - GENERATE_MIN + 1);
}

uint32_t generate_frame(uint64_t seed, int family, uint64_t number, const struct host *host,
                        uint8_t frame[GENERATE_MAX])
{
	struct generator random = {.state = seed ^ (uint64_t)family << 56 ^ number << 4, .host = host, .frame = frame};

	random.state = draw(&random);
	if (chance(&random, 4)) {
		put_ethernet(&random, family);
		put_random(&random, below(&random, 1500));
		return random.length;
	}
	put_ethernet(&random, family);
	if (family == 4)
		put_ipv4(&random);
	else
		put_ipv6(&random);
	damage(&random);
	return random.length;
}
