// SPDX-License-Identifier: Apache-2.0
/*
 * Invariant: what comes up of strangers is what came from that address, whole, bare and in order; no more bytes leave
 * by themselves for an address than came from it; a token is good for whom and what it was made, and nothing else;
 * what is settled is a transaction; and slots that are copied out, cleared and put back are the same slots.
 *
 * The input is a script for an engine that has two places, a few slots, and keys: a byte of what to do, one of with
 * what, and what that needs. Proposals come packet by packet, commits bring tokens.
 */
#include "craft.h"
#include "engine.h"
#include "packet.h"
#include "script.h"
#include "small.h"

enum {
	IDS = 4,
	PATHS = 4,
	SLOTS = 3,
	MACHINE = 5,
	MOST_PACKETS = ACCORD_FLIGHT_PACKETS + 1,
	TOKENS = 4,
	SEEN = 4096, /* a power of two */
	EVENTS = 16,
	CONTEXT_BYTES = 160,
	IMAGE_SLOTS = SLOTS + 1,
};

enum action {
	PROPOSE,
	BENT_PROPOSAL,
	CROWD,
	ANSWER,
	COMMIT,
	SETTLE,
	TOKEN,
	SEED,
	IMAGE,
	BENT_IMAGE,
	TAKE_EVENTS,
	OUTPUT,
	LATER,
	LEVEL,
	KEYS,
	ACTIONS,
};

/* An answer that has a slot: bytes of its proposal that came again, and of the answers to those. */
struct kept {
	uint32_t handle;
	uint64_t came, answered;
};

struct fuzzed {
	struct accord_engine *engine;
	struct accord_cookie_ring ring;
	uint64_t now;
	struct craft craft;
	uint8_t tokens[TOKENS][ACCORD_COOKIE_BYTES];
	uint32_t next_token;
	/* Bare packets that came, each with its address. */
	uint64_t seen[SEEN];
	uint64_t in[PATHS], out[PATHS], asked[PATHS]; /* asked: bytes that the user has had sent */
	struct kept kept[SLOTS];
	uint32_t next_kept;
	struct accord_event told;            /* the latest stranger or commit; length 0: none */
	uint8_t flight[ACCORD_FLIGHT_BYTES]; /* of it */
};

static struct fuzzed fuzzed;

/* The last two are of one network, and differ from the others in how they are bound. */
static const struct accord_path paths[PATHS] = {
	{.family = 4, .context = 17, .remote_port = 9, .local_port = 4, .mtu = 1500, .remote = {10, 1, 0, 1}},
	{.family = 6, .context = 17, .remote_port = 9, .local_port = 4, .mtu = 1500, .remote = {0x20, 1, 0, 1}},
	{.family = 4, .context = 253, .mtu = 1500, .remote = {10, 2, 0, 1}},
	{.family = 4, .context = 253, .mtu = 1500, .remote = {10, 2, 0, 2}},
};

static const uint8_t *id_of(uint32_t choice)
{
	static uint8_t id[ACCORD_TRANSACTION_BYTES];

	memset(id, 0xf0, sizeof(id));
	id[7] = 0xfe; /* TSNs that wrap */
	id[10] = (uint8_t)(choice >> 8);
	id[11] = (uint8_t)choice;
	return id;
}

static uint32_t path_of(const struct accord_path *path)
{
	uint32_t which = 0;

	while (which < PATHS && memcmp(paths[which].remote, path->remote, sizeof(path->remote)) != 0)
		which++;
	HOLD(which < PATHS);
	return which;
}

/* ---- What came ---- */

/* FNV-1a, never 0. */
static uint64_t hash_of(uint32_t path, const uint8_t *bytes, uint32_t length)
{
	uint64_t hash = (UINT64_C(0xcbf29ce484222325) ^ path) * UINT64_C(0x100000001b3);

	for (uint32_t i = 0; i < length; i++)
		hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
	return hash | 1;
}

static uint64_t *place_of(uint64_t hash)
{
	uint32_t at = (uint32_t)(hash >> 32) % SEEN, steps = 0;

	while (fuzzed.seen[at] && fuzzed.seen[at] != hash && steps++ < SEEN)
		at = (at + 1) % SEEN;
	return &fuzzed.seen[at];
}

/* What of a packet stays the same when it is sent again: by the figure of PROTOCOL.md, section 3, not by flight.c. */
static void note(uint32_t path)
{
	static struct craft bare;
	uint64_t hash;

	if (fuzzed.craft.length < ACCORD_HEADER_BYTES)
		return;
	memcpy(bare.bytes, fuzzed.craft.bytes, fuzzed.craft.length);
	bare.length = fuzzed.craft.length;
	if (bare.bytes[3] & ACCORD_FLAG_COOKIE && bare.length >= 48) {
		memmove(bare.bytes + 32, bare.bytes + 48, bare.length - 48);
		bare.length -= 16;
	}
	bare.bytes[3] &= (uint8_t) ~(ACCORD_FLAG_COOKIE | ACCORD_FLAG_ACK | ACCORD_FLAG_MORE);
	memset(bare.bytes + 24, 0, 6);
	craft_seal(&bare);
	hash = hash_of(path, bare.bytes, bare.length);
	*place_of(hash) = hash;
}

static void check_told(const struct accord_event *event)
{
	const uint8_t *at = event->data, *end = at + event->length;
	const uint32_t path = path_of(&event->path);
	uint32_t place = 0;

	for (; at < end; place++) {
		uint32_t length = (uint32_t)at[0] << 8 | at[1];
		struct packet packet;

		HOLD(end - at >= 2 && length <= (uint32_t)(end - at) - 2);
		HOLD(*place_of(hash_of(path, at + 2, length)) != 0);
		HOLD(packet_parse(&packet, at + 2, length) == ACCORD_REASON_OK);
		HOLD(!memcmp(packet.transaction, event->transaction, sizeof(event->transaction)));
		HOLD(!packet.cookie && !(packet.flags & ACCORD_FLAG_ACK));
		if (event->kind == ACCORD_EVENT_STRANGER)
			HOLD(packet.step == ACCORD_STEP_PROPOSAL && packet.offset == place);
		else
			HOLD(packet.step == ACCORD_STEP_COMMIT && packet.offset && !place);
		/* The last one, and no other, is its message's end. */
		at += 2 + length;
		HOLD(!(packet.flags & ACCORD_FLAG_END) == (at < end));
	}
	HOLD(place && place <= ACCORD_FLIGHT_PACKETS);
}

static void take_events(uint32_t limit)
{
	struct accord_event events[EVENTS];
	uint32_t count = accord_engine_events(fuzzed.engine, events, limit);

	HOLD(count <= limit);
	for (uint32_t i = 0; i < count; i++) {
		if (events[i].kind != ACCORD_EVENT_STRANGER && events[i].kind != ACCORD_EVENT_RETURNED)
			continue;
		check_told(&events[i]);
		HOLD(events[i].length <= sizeof(fuzzed.flight));
		fuzzed.told = events[i];
		fuzzed.told.data = memcpy(fuzzed.flight, events[i].data, events[i].length);
	}
}

/* ---- Packets ---- */

/* What waits to be whole can be. */
static void check_partials(void)
{
	const struct partials *partials = &fuzzed.engine->partials;

	for (uint32_t i = 0; partials->taken && i < partials->count; i++) {
		const struct partial *partial = &partials->places[i];

		if (!partial->expires)
			continue;
		HOLD(partial->here && !partial_whole(partial));
		HOLD(!partial->packets || !(partial->here >> partial->packets));
	}
}

/* It is answered again for as many bytes as came again, if that is what has come up now. */
static void check_again(const struct accord_slot *slot, bool came_up)
{
	for (uint32_t i = 0; i < SLOTS; i++) {
		struct kept *kept = &fuzzed.kept[i];

		if (kept->handle != slot->handle)
			continue;
		kept->came += fuzzed.craft.length;
		kept->answered += came_up ? slot->answer_length : 0;
		HOLD(kept->answered <= kept->came);
	}
}

/* Of exactly its size, so that the sanitizer sees a read beyond it. */
static void give(uint32_t path)
{
	uint8_t *exact = malloc(fuzzed.craft.length);
	const uint32_t strangers = fuzzed.engine->stranger_count;
	struct accord_slot slot;
	bool has_slot = !accord_engine_slot(fuzzed.engine, fuzzed.now, fuzzed.craft.bytes + 8, &paths[path], &slot) &&
	                fuzzed.craft.bytes[1] == ACCORD_STEP_PROPOSAL;

	note(path);
	memcpy(exact, fuzzed.craft.bytes, fuzzed.craft.length);
	fuzzed.in[path] += fuzzed.craft.length;
	accord_engine_input(fuzzed.engine, fuzzed.now, &paths[path], exact, fuzzed.craft.length);
	free(exact);
	if (has_slot)
		check_again(&slot, fuzzed.engine->stranger_count > strangers);
	check_partials();
}

/* What is not a transaction's goes to a stranger. */
static void put_out(void)
{
	const struct accord_engine *engine = fuzzed.engine;
	struct accord_packet_out packets[EVENTS];
	uint32_t count;

	while ((count = accord_engine_output(fuzzed.engine, fuzzed.now, packets, EVENTS)))
		for (uint32_t i = 0; i < count; i++) {
			const char *path = (const char *)packets[i].path;

			if (path >= (const char *)engine->replies && path < (const char *)(engine->replies + ENGINE_REPLIES))
				fuzzed.out[path_of(packets[i].path)] += packets[i].length;
		}
	for (uint32_t path = 0; path < PATHS; path++)
		HOLD(fuzzed.out[path] <= fuzzed.in[path] + fuzzed.asked[path]);
	HOLD(accord_engine_deadline(fuzzed.engine) > fuzzed.now || engine->events.count || engine->stranger_count);
}

static void insert_cookie(uint32_t path, uint8_t how)
{
	uint8_t cookie[ACCORD_COOKIE_BYTES] = {0};
	struct packet packet;

	if (packet_parse(&packet, fuzzed.craft.bytes, fuzzed.craft.length) || !cookie_ring_usable(&fuzzed.ring))
		return;
	cookie_make(&fuzzed.ring, &paths[path], &packet, cookie);
	if (how & 1)
		cookie[how % sizeof(cookie)] ^= how;
	memmove(fuzzed.craft.bytes + 48, fuzzed.craft.bytes + 32, fuzzed.craft.length - 32);
	memcpy(fuzzed.craft.bytes + 32, cookie, sizeof(cookie));
	fuzzed.craft.length += ACCORD_COOKIE_BYTES;
	fuzzed.craft.bytes[3] |= ACCORD_FLAG_COOKIE;
	craft_seal(&fuzzed.craft);
}

/* The packet at a place of a proposal of so many; a few are longer than any that is bare. */
static void craft_proposal(uint32_t id, uint32_t place, uint32_t packets, uint32_t fill)
{
	static const uint8_t zeros[5 * UINT8_MAX];

	craft_header(&fuzzed.craft, id_of(id), ACCORD_STEP_PROPOSAL, place + 1 == packets ? ACCORD_FLAG_END : 0, place);
	if (!place)
		craft_chunk(&fuzzed.craft, 0, 3, ACCORD_PROTOCOL_UDP, zeros, 4);
	if (fill || place)
		craft_chunk(&fuzzed.craft, ACCORD_NODE_PADDING, 3, 0, zeros, fill * 5);
	craft_seal(&fuzzed.craft);
}

static void propose(struct script *script, uint8_t with, bool bent)
{
	const uint32_t path = with / IDS % PATHS;
	const uint8_t shape = pull(script), fill = pull(script);

	craft_proposal(with % IDS, shape % MOST_PACKETS, 1 + shape / MOST_PACKETS % (MOST_PACKETS + 1), fill);
	if (with & 0x80)
		insert_cookie(path, with & 0x40 ? pull(script) : 0);
	if (bent) {
		uint32_t at = pull(script);

		fuzzed.craft.bytes[at % fuzzed.craft.length] ^= pull(script);
		craft_seal(&fuzzed.craft);
	}
	give(path);
}

/* First packets of many proposals: one that is whole, or the first of several. */
static void crowd(struct script *script, uint8_t with)
{
	const uint32_t packets = 1 + (with / PATHS & 1), count = pull(script), fill = with >> 5;

	for (uint32_t id = IDS; id < IDS + count; id++) {
		craft_proposal(id, 0, packets, fill * 8);
		give(with % PATHS);
	}
}

/* A commit whose context has a cookie, or something like it, and sometimes T(1). */
static void commit(struct script *script, uint8_t with)
{
	const uint32_t id = with % IDS, path = with / IDS % PATHS;
	const uint8_t what = pull(script), ack = pull(script), bit = pull(script);
	const uint32_t length = what & 0x40 ? bit % 20 : ACCORD_COOKIE_BYTES;
	const uint8_t *token = fuzzed.tokens[what % TOKENS], *theirs;
	static const uint8_t long_padding[ACCORD_MIN_MTU_PACKET];
	uint8_t context[CONTEXT_BYTES] = {0}, cookie[20] = {0};

	memcpy(cookie, token, ACCORD_COOKIE_BYTES);
	if (what & 4)
		cookie[bit / 8 % ACCORD_COOKIE_BYTES] ^= (uint8_t)(1u << bit % 8);
	if (what & 8 && cookie_ring_usable(&fuzzed.ring)) /* as another machine has made it */
		cookie_token(&fuzzed.ring, &paths[path], id_of(id), ACCORD_COOKIE_SLOT, MACHINE + 1, cookie);
	context[3] = (uint8_t)(4 + length);
	context[4] = (what & 0x20 ? ACCORD_TLV_TRANSCRIPT : ACCORD_TLV_REPEAT) >> 8;
	context[5] = (what & 0x20 ? ACCORD_TLV_TRANSCRIPT : ACCORD_TLV_REPEAT) & 0xff;
	context[7] = (uint8_t)length;
	memcpy(context + 8, cookie, length);
	craft_header(&fuzzed.craft, id_of(id), ACCORD_STEP_COMMIT, what & 0x80 ? 0 : ACCORD_FLAG_END,
	             with >> 4 ? with >> 4 : 1);
	theirs = fuzzed.craft.bytes + 8 + 4;
	if (ack)
		craft_acknowledge(&fuzzed.craft, load32(theirs) + (ack >> 4), ack & 15);
	if (bit & 1)
		craft_chunk(&fuzzed.craft, 1, 3, 6, context, 4);
	craft_chunk(&fuzzed.craft, what & 0x10 ? bit % 3 : 0, what & 0x10 ? bit % 4 : 3, ACCORD_PROTOCOL_UDP, context,
	            8 + length);
	if (ack == UINT8_MAX) /* longer than one that is bare */
		craft_chunk(&fuzzed.craft, ACCORD_NODE_PADDING, 3, 0, long_padding, sizeof(long_padding));
	craft_seal(&fuzzed.craft);
	give(path);
}

/* ---- Tokens ---- */

/* Is it one that this ring's keys have made for these, in a slot that counts? Only their kind and bound are free. */
static bool made_here(uint32_t path, const uint8_t *id, const uint8_t *cookie)
{
	struct accord_cookie_ring then = fuzzed.ring;
	uint8_t made[ACCORD_COOKIE_BYTES];

	for (uint32_t age = 0; age <= ACCORD_COOKIE_SLOTS + 1; age++)
		for (uint32_t i = 0; i < ACCORD_COOKIE_KEYS; i++) {
			then.slot = fuzzed.ring.slot + 1 - age;
			then.current = i;
			cookie_token(&then, &paths[path], id, cookie[1], load32(cookie + 4), made);
			if (then.keys[i].used && !memcmp(cookie, made, sizeof(made)))
				return true;
		}
	return false;
}

static void make_token(struct script *script, uint8_t with)
{
	uint8_t *token = fuzzed.tokens[fuzzed.next_token++ % TOKENS];
	const uint32_t path = with / IDS % PATHS, kind = 1 + with / (IDS * PATHS) % 4, bound = pull(script);
	int result = accord_engine_token(fuzzed.engine, &paths[path], id_of(with % IDS), kind, bound, token);

	HOLD(result == (cookie_ring_usable(&fuzzed.ring) ? 0 : -ACCORD_REASON_QUOTA));
	if (result)
		return;
	HOLD(token[1] == kind && load32(token + 4) == (kind == ACCORD_COOKIE_SLOT ? MACHINE : bound));
	HOLD(made_here(path, id_of(with % IDS), token));
}

static void open_token(struct script *script, uint8_t with)
{
	const uint8_t which = pull(script), bit = pull(script);
	const uint32_t path = with / IDS % PATHS;
	uint8_t cookie[ACCORD_COOKIE_BYTES], seed[ACCORD_SLOT_SEED], again[ACCORD_SLOT_SEED];
	bool good;

	memcpy(cookie, fuzzed.tokens[which % TOKENS], sizeof(cookie));
	if (which & 0x80)
		cookie[bit / 8 % sizeof(cookie)] ^= (uint8_t)(1u << bit % 8);
	good = cookie[1] == ACCORD_COOKIE_ANSWER && made_here(path, id_of(with % IDS), cookie);
	HOLD(accord_engine_token_seed(fuzzed.engine, &paths[path], id_of(with % IDS), cookie, seed) ==
	     (good ? 0 : -ACCORD_REASON_BAD_COOKIE));
	if (!good)
		return;
	HOLD(!accord_engine_token_seed(fuzzed.engine, &paths[path], id_of(with % IDS), cookie, again));
	HOLD(!memcmp(seed, again, sizeof(seed)));
}

/* ---- What the user does with what came up ---- */

static void answer(struct script *script, uint8_t with)
{
	const struct accord_event *told = &fuzzed.told;
	struct accord_slot slot = {0};
	const uint8_t *first;
	uint32_t first_length;
	int64_t result;

	if (!told->length)
		return;
	first = told->data + 2;
	first_length = (uint32_t)told->data[0] << 8 | told->data[1];
	switch (with % 4) {
	case 0:
		slot.proposal = told->data;
		slot.length = with & 0x80 ? told->length - pull(script) % told->length : told->length;
		slot.answer_packets = with >> 2 & 3;
		slot.answer_length = (uint32_t)pull(script) * 16;
		memset(slot.seed, 0x22, sizeof(slot.seed));
		memset(slot.transcript, pull(script), sizeof(slot.transcript));
		result = accord_engine_keep(fuzzed.engine, fuzzed.now, &told->path, &slot);
		HOLD(result > 0 || result == -ACCORD_REASON_CONTRADICTION || result == -ACCORD_REASON_NO_MEMORY ||
		     (result == -ACCORD_REASON_LONG_PACKET && with & 0x80));
		if (result > 0)
			fuzzed.kept[fuzzed.next_kept++ % SLOTS] = (struct kept){.handle = (uint32_t)result};
		break;
	case 1:
		/* Any bytes, too: it is asked for by their length only if they are a first packet. */
		result = with & 0x80
		             ? accord_engine_challenge(fuzzed.engine, &told->path, fuzzed.craft.bytes, fuzzed.craft.length)
		             : accord_engine_challenge(fuzzed.engine, &told->path, first, first_length);
		if (!result)
			fuzzed.asked[path_of(&told->path)] += COOKIE_CHALLENGE_BYTES;
		break;
	case 2:
		first_length = pull(script) * 8u;
		if (!accord_engine_send_once(fuzzed.engine, &told->path, fuzzed.craft.bytes, first_length))
			fuzzed.asked[path_of(&told->path)] += first_length;
		else
			HOLD(first_length > ENGINE_STRANGER_BYTES || fuzzed.engine->reply_count == ENGINE_REPLIES);
		break;
	default:
		accord_engine_challenged(fuzzed.engine, fuzzed.now, pull(script));
	}
}

/* By its slot, or by its token; or any packet, with a length that may not be its. */
static void settle(struct script *script, uint8_t with)
{
	static uint8_t flight[2 + sizeof(fuzzed.craft.bytes)];
	const uint32_t path = with / IDS % PATHS, packets = pull(script) % (MOST_PACKETS + 1);
	const uint8_t *id = fuzzed.craft.bytes + 8;
	struct packet packet;
	uint32_t length;
	int result;
	bool fits, known;

	if (fuzzed.told.length && fuzzed.told.kind == ACCORD_EVENT_RETURNED && with & 1) {
		result =
			accord_engine_settle(fuzzed.engine, fuzzed.now, fuzzed.told.handle, fuzzed.told.data, fuzzed.told.length);
		HOLD(result || transaction_find(&fuzzed.engine->table, fuzzed.told.transaction, ROLE_RESPONDER));
		return;
	}
	if (with & 0x40) { /* an acknowledgement alone, which may name a TSN that no packet has */
		craft_header(&fuzzed.craft, id_of(with % IDS), ACCORD_STEP_COMMIT, 0, ACCORD_MAX_PACKETS - (with & 0x10));
		craft_acknowledge(&fuzzed.craft, 1, 1);
		craft_seal(&fuzzed.craft);
	}
	length = (uint32_t)(craft_flight(&fuzzed.craft, flight) - flight);
	if (with & 0x80) {
		uint32_t cut = pull(script);

		flight[1] ^= cut & 1;
		length -= cut / 2 < length ? cut / 2 : length;
	}
	fits = length >= 2 && (uint32_t)(flight[0] << 8 | flight[1]) <= length - 2 && packets <= ACCORD_FLIGHT_PACKETS &&
	       !packet_parse(&packet, flight + 2, (uint32_t)(flight[0] << 8 | flight[1])) && packet.chunk_count;
	known = fits && transaction_find(&fuzzed.engine->table, id, ROLE_RESPONDER);
	result = accord_engine_settle_token(fuzzed.engine, fuzzed.now, &paths[path], packets, flight, length);
	HOLD((result == -ACCORD_REASON_LONG_PACKET) == !fits);
	HOLD((result == -ACCORD_REASON_CONTRADICTION) == known);
	HOLD(result || transaction_find(&fuzzed.engine->table, id, ROLE_RESPONDER));
}

/* ---- Slots for another process ---- */

static void check_order(void)
{
	const struct slots *slots = &fuzzed.engine->slots;
	uint64_t before = 0;
	uint32_t count = 0;

	for (uint32_t place = slots->first; place != SLOT_NONE; place = slots->slots[place].later, count++) {
		HOLD(slots->slots[place].expires >= before && slots->slots[place].expires <= fuzzed.now + SLOTS_LIFE_US);
		before = slots->slots[place].expires;
	}
	HOLD(count == slots->taken && count <= SLOTS);
}

static void image(struct script *script, bool bent)
{
	const uint32_t bytes = accord_slot_bytes(), limit = pull(script) % (IMAGE_SLOTS + 1);
	uint8_t *copies = malloc(limit ? (size_t)limit * bytes : 1);
	uint32_t count = accord_engine_slots_image(fuzzed.engine, fuzzed.now, copies, limit), taken, restored;

	taken = fuzzed.engine->slots.taken;
	HOLD(count == (limit < taken ? limit : taken));
	HOLD(!accord_engine_slots_restore(fuzzed.engine, fuzzed.now, copies, count)); /* all are here */
	accord_engine_slots_clear(fuzzed.engine);
	HOLD(!fuzzed.engine->slots.taken);
	if (bent && count) {
		struct slot slot;
		const uint8_t which = pull(script);

		memcpy(&slot, copies, sizeof(slot));
		if (which & 1)
			slot.length = pull(script) * 32u;
		if (which & 2)
			slot.kept_length = (uint16_t)(pull(script) * 8);
		if (which & 4)
			slot.expires = fuzzed.now + pull(script) * 100000u;
		slot.answer_packets = which & 8 ? pull(script) : slot.answer_packets;
		memcpy(copies, &slot, sizeof(slot));
	}
	restored = accord_engine_slots_restore(fuzzed.engine, fuzzed.now, copies, count);
	HOLD(bent ? restored <= count && count - restored <= 1 : restored == count);
	check_order();
	for (uint32_t i = bent; i < count; i++) {
		struct accord_slot found;
		struct slot slot;

		memcpy(&slot, copies + (size_t)i * bytes, sizeof(slot));
		HOLD(!accord_engine_slot(fuzzed.engine, fuzzed.now, slot.id, &slot.path, &found));
		HOLD(found.length == slot.length && !memcmp(found.proposal, slot.proposal, slot.length));
		HOLD(!memcmp(found.seed, slot.seed, sizeof(slot.seed)) && found.path.socket == ACCORD_PATH_NO_SOCKET);
	}
	/* A lie that fits is believed, but for what it could do to memory. */
	if (bent && fuzzed.engine->slots.taken)
		accord_engine_settle(fuzzed.engine, fuzzed.now, fuzzed.engine->slots.slots[fuzzed.engine->slots.last].handle,
		                     copies, bytes);
	if (bent)
		accord_engine_slots_clear(fuzzed.engine);
	free(copies);
}

/* One key, another, both, or none, and one that is not there as the present one; the slot goes on. */
static void turn_keys(uint8_t with)
{
	for (uint32_t i = 0; i < 2; i++)
		fuzzed.ring.keys[i] = (struct accord_cookie_key){.words = {i, 7}, .id = i + 1, .used = with >> i & 1};
	fuzzed.ring.current = with >> 6 == 3 ? ACCORD_COOKIE_KEYS : with >> 2 & 1;
	fuzzed.ring.slot += with >> 3 & 7;
	accord_engine_cookies(fuzzed.engine, &fuzzed.ring);
}

static void act(struct script *script)
{
	const enum action action = pull(script) % ACTIONS;
	const uint8_t with = pull(script);

	switch (action) {
	case PROPOSE:
	case BENT_PROPOSAL:
		propose(script, with, action == BENT_PROPOSAL);
		break;
	case CROWD:
		crowd(script, with);
		break;
	case ANSWER:
		answer(script, with);
		break;
	case COMMIT:
		commit(script, with);
		break;
	case SETTLE:
		settle(script, with);
		break;
	case TOKEN:
		make_token(script, with);
		break;
	case SEED:
		open_token(script, with);
		break;
	case IMAGE:
	case BENT_IMAGE:
		image(script, action == BENT_IMAGE);
		break;
	case TAKE_EVENTS:
		take_events(1 + with % EVENTS);
		break;
	case OUTPUT:
		put_out();
		break;
	case LEVEL:
		accord_engine_level(fuzzed.engine, fuzzed.now, with % (ACCORD_LEVELS + 1));
		break;
	case KEYS:
		turn_keys(with);
		break;
	default:
		fuzzed.now += (uint64_t)with * with * 100;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct accord_engine_config config = small_config(100);
	static const uint32_t protocols[] = {6};
	struct script script = {.bytes = bytes, .left = size};

	memset(&fuzzed, 0, sizeof(fuzzed));
	config.slots = SLOTS;
	config.machine = MACHINE;
	fuzzed.engine = accord_engine_new(&config);
	fuzzed.now = 1;
	fuzzed.ring.slot = UINT16_MAX - 4; /* the number wraps */
	accord_engine_support(fuzzed.engine, protocols, 1);
	turn_keys(3);
	while (script.left)
		act(&script);

	/* Who waits is asked for a cookie, slots end. */
	fuzzed.now += SLOTS_LIFE_US + SLOTS_LATE_US;
	while (fuzzed.engine->stranger_count || fuzzed.engine->events.count)
		take_events(EVENTS);
	put_out();
	HOLD(!fuzzed.engine->partials.taken && !fuzzed.engine->slots.taken);
	accord_engine_free(fuzzed.engine);
	return 0;
}
