// SPDX-License-Identifier: Apache-2.0
/*
 * The first packet of a transaction that nobody here knows (docs/PROTOCOL.md, section 21): what it gets depends on its
 * cookie and on how much is going on. Where there are no keys, no cookie is asked for: who finds no place gets silence.
 */
#include <string.h>

#include "engine.h"

enum {
	TRANSACTION_AT = offsetof(struct accord_header, transaction),
};

static bool network_full(const struct transaction_table *table, const struct accord_path *path)
{
	return crowd_of(&table->unproven_crowd, crowd_places(table->seed, path)) >= table->unproven_crowd.limit;
}

static bool is_first(const struct packet *packet)
{
	return packet->offset == 0;
}

static bool is_whole(const struct packet *packet)
{
	return is_first(packet) && packet->flags & ACCORD_FLAG_END;
}

/* NULL: too many wait already. */
static struct reply *new_reply(struct accord_engine *engine, const struct accord_path *path, uint32_t length)
{
	struct reply *next;

	if (engine->reply_count == ENGINE_REPLIES)
		return NULL;
	next = &engine->replies[(engine->reply + engine->reply_count++) % ENGINE_REPLIES];
	next->path = *path;
	next->length = length;
	return next;
}

/* No more bytes than came, nor to a packet that is not the first of its proposal: a cookie binds that one. */
static uint32_t challenge(struct accord_engine *engine, const struct accord_path *path, const struct packet *packet)
{
	struct reply *reply;

	if (!is_first(packet))
		return ACCORD_REASON_UNKNOWN_TRANSACTION;
	if (packet->length < COOKIE_CHALLENGE_BYTES)
		return ACCORD_REASON_QUOTA;
	reply = new_reply(engine, path, COOKIE_CHALLENGE_BYTES);
	if (!reply)
		return ACCORD_REASON_NO_MEMORY;
	cookie_challenge(&engine->cookies, path, packet, reply->bytes);
	return ACCORD_REASON_CHALLENGED;
}

struct stranger *stranger_hand_up(struct accord_engine *engine, const struct accord_path *path, bool proposes)
{
	struct stranger *next;

	if (!engine->config.strangers_per_second || engine->stranger_count == ENGINE_STRANGERS)
		return NULL;
	next = &engine->strangers[(engine->stranger + engine->stranger_count++) % ENGINE_STRANGERS];
	next->path = *path;
	next->slot = 0;
	next->proposes = proposes;
	next->flight.packets = next->flight.length = 0;
	return next;
}

/* ---- Proposals of more than one packet ---- */

/* It was not whole in time, or cannot be: a cookie, if there is a first packet to be answered, which there is. */
static void give_up(struct accord_engine *engine, struct partial *partial)
{
	struct packet packet;

	partials_release(&engine->partials, partial);
	if (packet_parse(&packet, partial->bytes[0], partial->lengths[0]))
		return; /* not reached: it has been parsed before */
	if (slots_find(&engine->slots, partial->id, &partial->path))
		return; /* answered already: this was a late copy */
	engine_count(engine, challenge(engine, &partial->path, &packet));
}

static void gather(struct accord_engine *engine, struct partial *partial, const struct packet *packet,
                   const uint8_t *bytes, uint32_t *reason)
{
	struct stranger *next;

	*reason = partial_add(partial, packet, bytes);
	if (*reason && *reason != ACCORD_REASON_DUPLICATE) {
		give_up(engine, partial);
	} else if (partial_whole(partial)) {
		next = stranger_hand_up(engine, &partial->path, true);
		if (next) {
			partial_join(partial, &next->flight);
			partials_release(&engine->partials, partial);
		} else {
			give_up(engine, partial);
		}
	}
}

/* The first packet of such a proposal. */
static void begin(struct accord_engine *engine, const struct accord_path *path, const struct packet *packet,
                  const uint8_t *bytes, uint32_t *reason)
{
	struct partial *partial = partials_next(&engine->partials);

	if (partial->expires)
		give_up(engine, partial);
	partials_take(&engine->partials, partial, engine->now, packet->transaction, path);
	*reason = partial_add(partial, packet, bytes);
	if (*reason) {
		partials_release(&engine->partials, partial);
		*reason = challenge(engine, path, packet);
	}
}

static void expire(struct accord_engine *engine)
{
	struct partial *oldest = partials_oldest(&engine->partials);

	for (; oldest && oldest->expires <= engine->now; oldest = partials_oldest(&engine->partials))
		give_up(engine, oldest);
}

uint64_t stranger_deadline(const struct accord_engine *engine)
{
	const struct partial *oldest = partials_oldest(&engine->partials);

	return oldest ? oldest->expires : UINT64_MAX;
}

/* ---- What a stranger gets ---- */

/* A proposal that is whole in one packet; the budget is spent. */
static uint32_t hand_up_one(struct accord_engine *engine, const struct accord_path *path, const struct packet *packet,
                            const uint8_t *bytes)
{
	uint8_t bare[ACCORD_MIN_MTU_PACKET];
	uint32_t length = flight_bare(packet, bytes, bare);
	struct stranger *next = length ? stranger_hand_up(engine, path, true) : NULL;

	if (!next)
		return challenge(engine, path, packet);
	flight_add(&next->flight, bare, length);
	return ACCORD_REASON_OK;
}

static enum cookie_verdict judge_cookie(const struct accord_engine *engine, const struct accord_path *path,
                                        const struct packet *packet)
{
	if (!packet->cookie || !cookie_ring_usable(&engine->cookies))
		return COOKIE_STALE;
	return cookie_check(&engine->cookies, path, packet);
}

static bool place_free(struct accord_engine *engine)
{
	engine_make_room(engine, ADMISSION_UNPROVEN);
	return engine->table.unproven < engine->table.unproven_limit;
}

/* Without a cookie that is good. Who has one of a key that was forgotten may have another. */
static enum admission meet_unproven(struct accord_engine *engine, const struct accord_path *path,
                                    const struct packet *packet, const uint8_t *bytes, uint32_t *reason)
{
	struct transaction_table *table = &engine->table;
	struct load *load = &engine->load;
	struct partial *partial;

	partial = partials_find(&engine->partials, packet->transaction, path);
	if (partial && load->level <= ACCORD_LEVEL_ANSWER) {
		gather(engine, partial, packet, bytes, reason);
		return ADMISSION_NONE;
	}
	load_note(load, engine->now, 1, table->unproven);
	if (!cookie_ring_usable(&engine->cookies))
		return ADMISSION_UNPROVEN;
	if (load->level == ACCORD_LEVEL_STATE) {
		if (!place_free(engine))
			load_raise(load, engine->now, ACCORD_LEVEL_ANSWER);
		else if (!network_full(table, path))
			return ADMISSION_UNPROVEN;
	}
	if (load->level <= ACCORD_LEVEL_ANSWER && engine->partials.count && is_first(packet)) {
		if (engine->stranger_count < ENGINE_STRANGERS && load_spend(load, engine->now)) {
			if (is_whole(packet))
				*reason = hand_up_one(engine, path, packet, bytes);
			else
				begin(engine, path, packet, bytes, reason);
			return ADMISSION_NONE;
		}
		if (load->level == ACCORD_LEVEL_ANSWER)
			load_raise(load, engine->now, ACCORD_LEVEL_COOKIE);
	}
	*reason = challenge(engine, path, packet);
	return ADMISSION_NONE;
}

enum admission stranger_arrives(struct accord_engine *engine, const struct accord_path *path,
                                const struct packet *packet, const uint8_t *bytes, uint32_t *reason)
{
	if (stranger_repeats(engine, path, packet, bytes, reason))
		return ADMISSION_NONE;
	switch (judge_cookie(engine, path, packet)) {
	case COOKIE_FORGED:
		*reason = ACCORD_REASON_BAD_COOKIE;
		return ADMISSION_NONE;
	case COOKIE_GOOD:
		if (transaction_admits(&engine->table, path))
			return ADMISSION_COOKIE;
		*reason = ACCORD_REASON_OVER_BUDGET;
		return ADMISSION_NONE;
	default:
		return meet_unproven(engine, path, packet, bytes, reason);
	}
}

uint32_t stranger_events(struct accord_engine *engine, struct accord_event *events, uint32_t limit, uint32_t used)
{
	uint32_t done = 0;

	for (; done < limit && engine->stranger_count; done++) {
		const struct stranger *stranger = &engine->strangers[engine->stranger];
		struct accord_event *out = &events[done];
		const uint8_t *at = engine->scratch + used;
		uint32_t length;

		if (stranger->flight.length > ENGINE_SCRATCH_BYTES - used)
			break;
		memset(out, 0, sizeof(*out));
		out->kind = stranger->proposes ? ACCORD_EVENT_STRANGER : ACCORD_EVENT_RETURNED;
		out->handle = stranger->slot;
		out->length = stranger->flight.length;
		out->data = memcpy(engine->scratch + used, stranger->flight.bytes, stranger->flight.length);
		memcpy(out->transaction, flight_next(&at, out->data + out->length, &length) + TRANSACTION_AT,
		       sizeof(out->transaction));
		out->path = stranger->path;
		used += stranger->flight.length;
		engine->stranger = (engine->stranger + 1) % ENGINE_STRANGERS;
		engine->stranger_count--;
	}
	return done;
}

uint32_t stranger_output(struct accord_engine *engine, struct accord_packet_out *packets, uint32_t limit)
{
	uint32_t done = 0;

	expire(engine);
	for (; done < limit && engine->reply_count; done++) {
		struct reply *next = &engine->replies[engine->reply];

		packets[done] = (struct accord_packet_out){&next->path, next->bytes, next->length, 0};
		engine->reply = (engine->reply + 1) % ENGINE_REPLIES;
		engine->reply_count--;
	}
	return done;
}

/* ---- What the user says and asks of it ---- */

int accord_engine_send_once(struct accord_engine *engine, const struct accord_path *path, const uint8_t *packet,
                            uint32_t length)
{
	struct reply *reply;

	if (length > ENGINE_STRANGER_BYTES)
		return -ACCORD_REASON_LONG_PACKET;
	reply = new_reply(engine, path, length);
	if (!reply)
		return -ACCORD_REASON_NO_MEMORY;
	memcpy(reply->bytes, packet, length);
	return 0;
}

int accord_engine_challenge(struct accord_engine *engine, const struct accord_path *path, const uint8_t *bytes,
                            uint32_t length)
{
	struct packet packet;
	uint32_t reason = packet_parse(&packet, bytes, length);

	if (!reason && !cookie_ring_usable(&engine->cookies))
		reason = ACCORD_REASON_QUOTA;
	if (!reason)
		reason = challenge(engine, path, &packet);
	engine_count(engine, reason);
	return reason == ACCORD_REASON_CHALLENGED ? 0 : -(int)reason;
}

void accord_engine_cookies(struct accord_engine *engine, const struct accord_cookie_ring *ring)
{
	engine->cookies = *ring;
}

void accord_engine_challenged(struct accord_engine *engine, uint64_t now, uint64_t strangers)
{
	engine_see(engine, now);
	load_note(&engine->load, engine->now, strangers, engine->table.unproven);
}

void accord_engine_level(struct accord_engine *engine, uint64_t now, uint32_t floor)
{
	engine_see(engine, now);
	engine->load.floor = floor < ACCORD_LEVELS ? floor : ACCORD_LEVEL_COOKIE;
	load_raise(&engine->load, engine->now, engine->load.floor);
}

void accord_engine_load(struct accord_engine *engine, uint64_t now, struct accord_engine_load *load)
{
	accord_engine_challenged(engine, now, 0);
	load->level = engine->load.level;
	load->since = engine->load.since;
	load->strangers = engine->load.last;
	memcpy(load->raised, engine->load.raised, sizeof(load->raised));
}
