// SPDX-License-Identifier: Apache-2.0
#include "cookie.h"

#include <stddef.h>
#include <string.h>

#include "accord/cookie.h"

enum {
	AT_MAC = offsetof(struct accord_cookie, mac),
	AT_KIND = offsetof(struct accord_cookie, kind),
	SEED_KIND = 0xf0, /* and the following, in the place of a kind: no cookie has them */
};

static void store64(uint8_t *to, uint64_t value)
{
	store32(to, (uint32_t)(value >> 32));
	store32(to + 4, (uint32_t)value);
}

/* Of the cookie's bytes before its MAC. */
static uint64_t mac_of(const struct accord_cookie_key *key, const struct accord_path *path, const uint8_t *transaction,
                       const uint8_t *cookie)
{
	union accord_cookie_input input;
	uint8_t *at = (uint8_t *)input.words;
	size_t address = path->family == 4 ? 4 : 16;
	bool ports = path->context == ACCORD_PROTOCOL_UDP;

	memcpy(at, path->remote, address);
	memcpy(at + address, path->local, address);
	at += 2 * address;
	store16(at, ports ? path->remote_port : 0);
	store16(at + 2, ports ? path->local_port : 0);
	memcpy(at + 4, transaction, ACCORD_TRANSACTION_BYTES);
	memcpy(at + 4 + ACCORD_TRANSACTION_BYTES, cookie, AT_MAC);
	if (path->family == 4)
		return accord_siphash(input.words, ACCORD_COOKIE_WORDS_IPV4, key->words);
	return accord_siphash(input.words, ACCORD_COOKIE_WORDS_IPV6, key->words);
}

void cookie_token(const struct accord_cookie_ring *ring, const struct accord_path *path, const uint8_t *transaction,
                  enum accord_cookie_kind kind, uint32_t bound, uint8_t *cookie)
{
	const struct accord_cookie_key *key = &ring->keys[ring->current];

	cookie[0] = (uint8_t)key->id;
	cookie[AT_KIND] = (uint8_t)kind;
	store16(cookie + 2, (uint16_t)ring->slot);
	store32(cookie + 4, bound);
	store64(cookie + AT_MAC, mac_of(key, path, transaction, cookie));
}

void cookie_make(const struct accord_cookie_ring *ring, const struct accord_path *path, const struct packet *packet,
                 uint8_t *cookie)
{
	cookie_token(ring, path, packet->transaction, ACCORD_COOKIE_ADDRESS, packet_bound(packet), cookie);
}

/* In a time that does not tell how far they agree. */
static bool same(const uint8_t *one, const uint8_t *other, size_t bytes)
{
	volatile uint8_t differs = 0;

	for (size_t i = 0; i < bytes; i++)
		differs |= one[i] ^ other[i];
	return !differs;
}

static const struct accord_cookie_key *key_of(const struct accord_cookie_ring *ring, const uint8_t *cookie)
{
	const struct accord_cookie_key *key = NULL;

	for (uint32_t i = 0; i < ACCORD_COOKIE_KEYS; i++)
		if (ring->keys[i].used && ring->keys[i].id == cookie[0])
			key = &ring->keys[i];
	return key;
}

enum cookie_verdict cookie_token_check(const struct accord_cookie_ring *ring, const struct accord_path *path,
                                       const uint8_t *transaction, const uint8_t *cookie)
{
	const struct accord_cookie_key *key = key_of(ring, cookie);
	uint8_t mac[ACCORD_COOKIE_BYTES - AT_MAC];

	if (!key || !accord_cookie_fresh(ring->slot, load16(cookie + 2)))
		return COOKIE_STALE;
	store64(mac, mac_of(key, path, transaction, cookie));
	return same(mac, cookie + AT_MAC, sizeof(mac)) ? COOKIE_GOOD : COOKIE_FORGED;
}

bool cookie_seed(const struct accord_cookie_ring *ring, const struct accord_path *path, const uint8_t *transaction,
                 const uint8_t *cookie, uint8_t *seed)
{
	const struct accord_cookie_key *key = key_of(ring, cookie);
	uint8_t input[AT_MAC];

	if (!key)
		return false;
	memcpy(input, cookie, sizeof(input));
	for (uint32_t i = 0; i < ACCORD_SLOT_SEED / sizeof(uint64_t); i++) {
		input[AT_KIND] = (uint8_t)(SEED_KIND + i);
		store64(seed + i * sizeof(uint64_t), mac_of(key, path, transaction, input));
	}
	return true;
}

enum cookie_verdict cookie_check(const struct accord_cookie_ring *ring, const struct accord_path *path,
                                 const struct packet *packet)
{
	const uint8_t *cookie = packet->cookie;
	enum cookie_verdict verdict = cookie_token_check(ring, path, packet->transaction, cookie);

	if (verdict == COOKIE_GOOD &&
	    (cookie[AT_KIND] != ACCORD_COOKIE_ADDRESS || load32(cookie + 4) != packet_bound(packet)))
		return COOKIE_FORGED;
	return verdict;
}

void cookie_challenge(const struct accord_cookie_ring *ring, const struct accord_path *path,
                      const struct packet *packet, uint8_t *challenge)
{
	const struct packet_fields fields = {
		.transaction = packet->transaction,
		.sender = ROLE_RESPONDER,
		.flags = ACCORD_FLAG_COOKIE,
		.step = ACCORD_STEP_ANSWER,
	};

	packet_write_header(challenge, &fields);
	cookie_make(ring, path, packet, challenge + ACCORD_HEADER_BYTES);
	packet_seal(challenge, COOKIE_CHALLENGE_BYTES, 0, 0);
}
