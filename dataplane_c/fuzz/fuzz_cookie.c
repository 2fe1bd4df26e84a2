// SPDX-License-Identifier: Apache-2.0
/*
 * Invariant: a cookie is taken for good where, and for what, it was made, for as long as its slot lives; one bit more
 * or less of it, of what it binds, or of the path, and it is not. What asks for it again is a packet, and no longer
 * than what it answers to.
 *
 * The input is a ring of keys, a path, the first packet of a proposal, and what is changed before the cookie comes
 * back.
 */
#include "cookie.h"
#include "craft.h"
#include "script.h"

enum change {
	NOTHING,
	COOKIE_BIT,
	CHUNK_BIT,
	TRANSACTION_BIT,
	REMOTE_BIT,
	LOCAL_BIT,
	PORT_BIT,
	OTHER_FAMILY,
	SLOT_GOES_ON,
	KEY_IS_REPLACED,
	KEY_BIT,
	NEXT_KEY,
	WHAT_COMES, /* any sixteen bytes */
	CHANGES,
};

/* So many bytes, zeros where there are no more. */
static void fill(struct script *script, void *to, uint32_t bytes)
{
	memset(to, 0, bytes);
	pull_bytes(script, to, bytes);
}

static void read_ring(struct script *script, struct accord_cookie_ring *ring)
{
	memset(ring, 0, sizeof(*ring));
	ring->slot = pull(script) * 257u; /* near 0, near 65535, and in between */
	ring->current = pull(script) % ACCORD_COOKIE_KEYS;
	for (uint32_t i = 0; i < ACCORD_COOKIE_KEYS; i++) {
		ring->keys[i].used = 1;
		ring->keys[i].id = (uint8_t)(i + 1);
		fill(script, ring->keys[i].words, sizeof(ring->keys[i].words));
		/* Keys differ, as those that are drawn do. */
		ring->keys[i].words[0] ^= i;
	}
}

static void read_path(struct script *script, struct accord_path *path)
{
	uint8_t how = pull(script);

	memset(path, 0, sizeof(*path));
	path->family = how & 1 ? 6 : 4;
	path->context = how & 2 ? ACCORD_PROTOCOL_DIRECT : ACCORD_PROTOCOL_UDP;
	fill(script, path->remote, path->family == 4 ? 4 : 16);
	fill(script, path->local, path->family == 4 ? 4 : 16);
	fill(script, &path->remote_port, 2);
	fill(script, &path->local_port, 2);
}

/* A first packet with one chunk. */
static void read_packet(struct script *script, struct craft *craft, uint8_t *id)
{
	uint8_t data[64], length = (uint8_t)(1 + pull(script) % sizeof(data));

	fill(script, id, ACCORD_TRANSACTION_BYTES);
	fill(script, data, length);
	craft_header(craft, id, 0, ACCORD_FLAG_END, 0);
	craft_chunk(craft, pull(script) % 64, 3, 17, data, length);
	craft_seal(craft);
}

static void insert_cookie(struct craft *craft, const uint8_t *cookie)
{
	memmove(craft->bytes + 48, craft->bytes + 32, craft->length - 32);
	memcpy(craft->bytes + 32, cookie, 16);
	craft->length += 16;
	craft->bytes[3] |= ACCORD_FLAG_COOKIE;
	craft_seal(craft);
}

/* Of so many bits one is flipped. */
static void flip(void *bytes, uint32_t length, uint32_t bit)
{
	((uint8_t *)bytes)[bit / 8 % length] ^= (uint8_t)(1u << bit % 8);
}

/* Returns whether the cookie is still good. */
static bool change(enum change change, uint32_t bit, struct accord_cookie_ring *ring, struct accord_path *path,
                   struct craft *craft)
{
	const uint32_t address = path->family == 4 ? 4 : 16;

	switch (change) {
	case NOTHING:
		return true;
	case COOKIE_BIT:
		flip(craft->bytes + 32, 16, bit);
		return false;
	case CHUNK_BIT:
		/* Of its data: what it says of itself has to go on fitting. */
		flip(craft->bytes + 56, craft->length - 56, bit);
		return false;
	case TRANSACTION_BIT:
		/* The TSN begins where the ID says. */
		flip(craft->bytes + 8, ACCORD_TRANSACTION_BYTES, bit);
		memcpy(craft->bytes + 20, craft->bytes + 8, 4);
		return false;
	case REMOTE_BIT:
		flip(path->remote, address, bit);
		return false;
	case LOCAL_BIT:
		flip(path->local, address, bit);
		return false;
	case PORT_BIT:
		flip(bit & 1 ? &path->remote_port : &path->local_port, 2, bit >> 1);
		return path->context != ACCORD_PROTOCOL_UDP;
	case OTHER_FAMILY:
		path->family = path->family == 4 ? 6 : 4;
		return false;
	case SLOT_GOES_ON:
		ring->slot += bit % 8;
		return bit % 8 <= ACCORD_COOKIE_SLOTS;
	case KEY_IS_REPLACED:
		ring->keys[ring->current].used = 0;
		return false;
	case KEY_BIT:
		flip(ring->keys[ring->current].words, 16, bit);
		return false;
	case NEXT_KEY:
		ring->current = (ring->current + 1) % ACCORD_COOKIE_KEYS;
		return true;
	default:
		return false;
	}
}

/* Is it one that this ring's keys have made for this packet, in a slot that counts? */
static bool made_here(const struct accord_cookie_ring *ring, const struct accord_path *path,
                      const struct packet *packet, const uint8_t *cookie)
{
	struct accord_cookie_ring then = *ring;
	uint8_t made[ACCORD_COOKIE_BYTES];

	for (uint32_t age = 0; age <= ACCORD_COOKIE_SLOTS + 1; age++)
		for (uint32_t i = 0; i < ACCORD_COOKIE_KEYS; i++) {
			then.slot = ring->slot + 1 - age;
			then.current = i;
			cookie_make(&then, path, packet, made);
			if (!memcmp(cookie, made, sizeof(made)))
				return true;
		}
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct script script = {.bytes = bytes, .left = size};
	uint8_t id[ACCORD_TRANSACTION_BYTES], challenge[COOKIE_CHALLENGE_BYTES];
	struct accord_cookie_ring ring;
	struct accord_path path;
	struct packet packet, asked;
	static struct craft craft;
	enum change what;
	uint32_t bit;
	bool good;

	what = pull(&script) % CHANGES;
	bit = pull(&script) | (uint32_t)pull(&script) << 8;
	read_ring(&script, &ring);
	read_path(&script, &path);
	read_packet(&script, &craft, id);
	HOLD(cookie_ring_usable(&ring));
	HOLD(packet_parse(&packet, craft.bytes, craft.length) == ACCORD_REASON_OK && !packet.cookie);
	cookie_challenge(&ring, &path, &packet, challenge);
	HOLD(packet_parse(&asked, challenge, sizeof(challenge)) == ACCORD_REASON_OK);
	HOLD(asked.cookie == challenge + 32 && asked.sender == ROLE_RESPONDER && !asked.chunk_count);
	HOLD(!memcmp(asked.transaction, id, sizeof(id)));
	if (what == WHAT_COMES) {
		uint8_t any[16];

		fill(&script, any, sizeof(any));
		good = made_here(&ring, &path, &packet, any);
		insert_cookie(&craft, any);
	} else {
		insert_cookie(&craft, asked.cookie);
		good = change(what, bit, &ring, &path, &craft);
		craft_seal(&craft);
	}
	HOLD(packet_parse(&packet, craft.bytes, craft.length) == ACCORD_REASON_OK);
	HOLD((cookie_check(&ring, &path, &packet) == COOKIE_GOOD) == good);
	return 0;
}
