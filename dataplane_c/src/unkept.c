// SPDX-License-Identifier: Apache-2.0
/*
 * Answers of which nothing is kept but a slot (docs/PROTOCOL.md, section 22): a few packets in, no more out, and the
 * commit. What the answer says is made above, twice; here is what tells its commit from others, and the transaction
 * that it becomes.
 */
#include <string.h>

#include "descriptor.h"
#include "engine.h"
#include "packet.h"

enum {
	WHOLE = ACCORD_CHUNK_FIRST | ACCORD_CHUNK_LAST,
	/* Its own slot, those after it, and one by which clocks may differ. */
	TOKEN_LIFE_US = (ACCORD_COOKIE_SLOTS + 2) * ACCORD_COOKIE_SLOT_S * 1000000,
};

/* ---- Slots ---- */

static void tell_slot(const struct slot *slot, struct accord_slot *out)
{
	out->handle = slot->handle;
	out->length = slot->length;
	out->proposal = slot->proposal;
	out->kept_length = slot->kept_length;
	out->kept = slot->kept;
	out->answer_packets = slot->answer_packets;
	out->answer_length = slot->answer_length;
	memcpy(out->seed, slot->seed, sizeof(out->seed));
	memcpy(out->transcript, slot->transcript, sizeof(out->transcript));
	out->path = slot->path;
}

int accord_engine_slot(struct accord_engine *engine, uint64_t now, const uint8_t *transaction,
                       const struct accord_path *path, struct accord_slot *slot)
{
	const struct slot *found;

	engine_see(engine, now);
	slots_expire(&engine->slots, engine->now);
	found = slots_find(&engine->slots, transaction, path);
	if (!found)
		return -ACCORD_REASON_SLOT_GONE;
	tell_slot(found, slot);
	return 0;
}

int accord_engine_slot_of(struct accord_engine *engine, uint64_t now, uint32_t handle, struct accord_slot *slot)
{
	const struct slot *found;

	engine_see(engine, now);
	slots_expire(&engine->slots, engine->now);
	found = slots_of(&engine->slots, handle);
	if (!found)
		return -ACCORD_REASON_SLOT_GONE;
	tell_slot(found, slot);
	return 0;
}

/* How many packets a proposal has; 0: it is none. */
static uint8_t count_packets(const uint8_t *flight, uint32_t length)
{
	const uint8_t *at = flight, *end = flight + length;
	uint8_t count = 0;

	while (at < end) {
		uint32_t bytes;

		if (!flight_next(&at, end, &bytes) || bytes < ACCORD_HEADER_BYTES || count++ == ACCORD_FLIGHT_PACKETS)
			return 0;
	}
	return count;
}

int64_t accord_engine_keep(struct accord_engine *engine, uint64_t now, const struct accord_path *path,
                           const struct accord_slot *what)
{
	uint8_t packets =
		what->length <= sizeof(engine->slots.slots->proposal) ? count_packets(what->proposal, what->length) : 0;
	const uint8_t *at = what->proposal, *id;
	struct slot *slot;
	uint32_t length;

	engine_see(engine, now);
	if (!packets || what->kept_length > sizeof(slot->kept) || what->answer_packets > ACCORD_FLIGHT_PACKETS)
		return -ACCORD_REASON_LONG_PACKET;
	id = flight_next(&at, at + what->length, &length) + offsetof(struct accord_header, transaction);
	slots_expire(&engine->slots, engine->now);
	if (slots_find(&engine->slots, id, path) || transaction_find(&engine->table, id, ROLE_RESPONDER))
		return -ACCORD_REASON_CONTRADICTION;
	slot = slots_take(&engine->slots, engine->now, id, path);
	if (!slot)
		return -ACCORD_REASON_NO_MEMORY;
	slot->packets = packets;
	slot->answer_packets = (uint8_t)what->answer_packets;
	slot->answer_length = what->answer_length;
	slot->length = what->length;
	memcpy(slot->proposal, what->proposal, what->length);
	slot->kept_length = (uint16_t)what->kept_length;
	if (what->kept_length)
		memcpy(slot->kept, what->kept, what->kept_length);
	memcpy(slot->seed, what->seed, sizeof(slot->seed));
	memcpy(slot->transcript, what->transcript, sizeof(slot->transcript));
	return slot->handle;
}

uint32_t accord_slot_bytes(void)
{
	return sizeof(struct slot);
}

uint32_t accord_engine_slots_image(struct accord_engine *engine, uint64_t now, uint8_t *image, uint32_t limit)
{
	engine_see(engine, now);
	slots_expire(&engine->slots, engine->now);
	return slots_image(&engine->slots, image, limit);
}

uint32_t accord_engine_slots_restore(struct accord_engine *engine, uint64_t now, const uint8_t *image, uint32_t count)
{
	uint32_t done = 0;

	engine_see(engine, now);
	for (uint32_t i = 0; i < count; i++)
		done += slots_restore(&engine->slots, engine->now, image + i * sizeof(struct slot));
	return done;
}

void accord_engine_slots_clear(struct accord_engine *engine)
{
	slots_expire(&engine->slots, UINT64_MAX);
}

uint32_t accord_engine_machine(const struct accord_engine *engine)
{
	return engine->config.machine;
}

void accord_engine_set_machine(struct accord_engine *engine, uint32_t machine)
{
	engine->config.machine = machine;
}

int accord_engine_slot_failed(struct accord_engine *engine, uint32_t handle)
{
	struct slot *slot = slots_of(&engine->slots, handle);

	if (!slot)
		return -ACCORD_REASON_SLOT_GONE;
	if (++slot->tries == SLOTS_TRIES)
		slots_empty(&engine->slots, slot);
	return 0;
}

/* ---- The proposal again ---- */

/* Is the packet one of the slot's proposal? */
static bool is_of(const struct slot *slot, const uint8_t *bare, uint32_t length, uint16_t offset)
{
	const uint8_t *at = slot->proposal, *end = at + slot->length, *packet;
	uint32_t bytes;

	while ((packet = flight_next(&at, end, &bytes)) && offset--)
		;
	return packet && bytes == length && !memcmp(packet, bare, length);
}

bool stranger_repeats(struct accord_engine *engine, const struct accord_path *path, const struct packet *packet,
                      const uint8_t *bytes, uint32_t *reason)
{
	uint8_t bare[ACCORD_MIN_MTU_PACKET];
	struct stranger *next;
	struct slot *slot;
	uint32_t length;

	slots_expire(&engine->slots, engine->now);
	slot = slots_find(&engine->slots, packet->transaction, path);
	if (!slot)
		return false;
	length = flight_bare(packet, bytes, bare);
	*reason = ACCORD_REASON_CONTRADICTION; /* one seed never serves two proposals: silence */
	if (!length || !is_of(slot, bare, length, packet->offset))
		return true;
	*reason = ACCORD_REASON_DUPLICATE;
	slot->credit += length;
	/* No byte more leaves than came. */
	if (slot->credit < slot->answer_length || !load_spend(&engine->load, engine->now))
		return true;
	next = stranger_hand_up(engine, path, true);
	if (!next)
		return true;
	next->flight.packets = slot->packets;
	next->flight.length = slot->length;
	memcpy(next->flight.bytes, slot->proposal, slot->length);
	slot->credit = 0;
	*reason = ACCORD_REASON_OK;
	return true;
}

/* ---- The commit ---- */

static bool equal(const uint8_t *one, const uint8_t *other, uint32_t length)
{
	uint8_t differs = 0;

	for (uint32_t i = 0; i < length; i++)
		differs |= one[i] ^ other[i];
	return !differs;
}

/* A TLV of the commit's context; NULL: it has none, or no context that is whole here. */
static const uint8_t *find_tlv(const struct packet *packet, uint16_t type, uint16_t *length)
{
	for (uint32_t i = 0; i < packet->chunk_count; i++) {
		const struct chunk *chunk = &packet->chunks[i];

		if (chunk->node != ACCORD_NODE_CONTEXT)
			continue;
		if (chunk->flags != WHOLE || descriptor_check(chunk->data, chunk->length, chunk->node))
			return NULL;
		return descriptor_find(chunk->data, type, length);
	}
	return NULL;
}

/* Does it bear T(1) of the answer? Who has not seen that cannot know it. */
static bool knows_answer(const struct packet *packet, const struct slot *slot)
{
	uint16_t length;
	const uint8_t *transcript = find_tlv(packet, ACCORD_TLV_TRANSCRIPT, &length);

	return transcript && length == sizeof(slot->transcript) && equal(transcript, slot->transcript, length);
}

/* An abort, of fewer bytes than the commit has: so that its sender need not wait in vain. */
static void refuse(struct accord_engine *engine, const struct accord_path *path, const struct packet *packet,
                   uint32_t reason)
{
	const uint8_t descriptor[] = {0, 0, 0, 5, ACCORD_TLV_REASON >> 8, ACCORD_TLV_REASON & 0xff, 0, 1, (uint8_t)reason};
	const struct accord_node_out context = {ACCORD_NODE_CONTEXT, path->context, sizeof(descriptor), descriptor};
	uint8_t flight[ACCORD_HEADER_BYTES + ACCORD_CHUNK_HEADER_BYTES + sizeof(descriptor) + 2];
	const uint8_t *at = flight, *bytes;
	uint32_t sent, length;
	int whole;

	/* Our next packet is the one behind those that it has. */
	sent = packet->ack_tsn + packet->ack_count - packet_first_tsn(packet->transaction, ROLE_RESPONDER);
	if (!(packet->flags & ACCORD_FLAG_ACK) || !sent || sent > ACCORD_FLIGHT_PACKETS)
		return;
	whole = accord_flight_compose(packet->transaction, ACCORD_STEP_ANSWER + 2, (uint16_t)sent,
	                              (uint16_t)(packet->offset + 1), &context, 1, flight, sizeof(flight));
	if (whole < 0 || (uint32_t)whole > packet->length)
		return;
	bytes = flight_next(&at, flight + whole, &length);
	accord_engine_send_once(engine, path, bytes, length);
}

/* A commit without a slot. Its answer may have been one that needs none, or another machine's. */
static uint32_t returns_by_token(struct accord_engine *engine, const struct accord_path *path,
                                 const struct packet *packet, const uint8_t *bytes)
{
	uint8_t bare[ACCORD_MIN_MTU_PACKET];
	struct stranger *next;
	const uint8_t *cookie;
	uint32_t count;
	uint16_t length;

	cookie = cookie_ring_usable(&engine->cookies) ? find_tlv(packet, ACCORD_TLV_REPEAT, &length) : NULL;
	if (!cookie || length < ACCORD_COOKIE_BYTES)
		return ACCORD_REASON_UNKNOWN_TRANSACTION;
	switch (cookie_token_check(&engine->cookies, path, packet->transaction, cookie)) {
	case COOKIE_FORGED:
		return ACCORD_REASON_BAD_COOKIE;
	case COOKIE_STALE:
		return ACCORD_REASON_UNKNOWN_TRANSACTION;
	default:
		break;
	}
	/* Each costs some of the budget, as a proposal does: the same one can come any number of times. */
	if (!load_spend(&engine->load, engine->now))
		return ACCORD_REASON_OVER_BUDGET;
	if (cookie[offsetof(struct accord_cookie, kind)] == ACCORD_COOKIE_SLOT) {
		/* Our own may be of a commit that is over and forgotten, whose stack is in use: no abort. */
		if (load32(cookie + offsetof(struct accord_cookie, bound)) == engine->config.machine)
			return ACCORD_REASON_SLOT_GONE;
		refuse(engine, path, packet, ACCORD_REASON_OTHER_MACHINE);
		return ACCORD_REASON_OTHER_MACHINE;
	}
	if (cookie[offsetof(struct accord_cookie, kind)] != ACCORD_COOKIE_ANSWER)
		return ACCORD_REASON_BAD_COOKIE;
	count = flight_bare(packet, bytes, bare);
	next = count ? stranger_hand_up(engine, path, false) : NULL;
	if (!next)
		return ACCORD_REASON_NO_MEMORY;
	flight_add(&next->flight, bare, count);
	return ACCORD_REASON_OK;
}

uint32_t stranger_returns(struct accord_engine *engine, const struct accord_path *path, const struct packet *packet,
                          const uint8_t *bytes)
{
	uint8_t bare[ACCORD_MIN_MTU_PACKET];
	struct slot *slot;
	struct stranger *next;
	uint32_t length;

	slots_expire(&engine->slots, engine->now);
	slot = slots_find(&engine->slots, packet->transaction, path);
	if (!slot && packet->offset && packet->flags & ACCORD_FLAG_END)
		return returns_by_token(engine, path, packet, bytes);
	/* One packet, behind those of the proposal. */
	if (!slot || packet->offset != slot->packets || !(packet->flags & ACCORD_FLAG_END))
		return ACCORD_REASON_UNKNOWN_TRANSACTION;
	if (!knows_answer(packet, slot))
		return ACCORD_REASON_BAD_TRANSCRIPT;
	slot->path = *path; /* it may have been answered by another socket, or another process */
	length = flight_bare(packet, bytes, bare);
	if (!length)
		return ACCORD_REASON_LONG_PACKET;
	next = stranger_hand_up(engine, path, false);
	if (!next)
		return ACCORD_REASON_NO_MEMORY;
	next->slot = slot->handle;
	flight_add(&next->flight, bare, length);
	return ACCORD_REASON_OK;
}

static void receive_again(struct transaction *transaction, const uint8_t *bytes, uint32_t length)
{
	struct packet packet;

	/* A packet without chunks has no TSN of its own. Of others it is known when they come; not so of what was handed
	 * over from another process. */
	if (packet_parse(&packet, bytes, length) || !packet.chunk_count)
		return;
	ackrange_add(&transaction->range, packet.offset);
	transaction->fingerprints[packet.offset] = packet.fingerprint;
	transaction->packets_received++;
	transaction->bytes_received += length;
	transaction->wire_received += length + transaction_overhead(transaction);
}

static void receive_flight(struct transaction *transaction, const uint8_t *flight, uint32_t length)
{
	const uint8_t *at = flight, *packet;
	uint32_t bytes;

	while ((packet = flight_next(&at, flight + length, &bytes)))
		receive_again(transaction, packet, bytes);
}

/* A transaction that is over but for repetitions; NULL: there is no room for it. */
static struct transaction *new_settled(struct accord_engine *engine, const struct accord_path *path, const uint8_t *id,
                                       uint32_t answer_packets, uint32_t *reason)
{
	struct transaction *transaction;

	engine_make_room(engine, ADMISSION_COOKIE);
	transaction = transaction_new(&engine->table, engine->now, id, ADMISSION_COOKIE, path, reason);
	if (!transaction)
		return NULL;
	transaction_prove(&engine->table, &engine->slab, transaction);
	/* The answer has left, and the commit says that it arrived. */
	transaction->outbox.total = transaction->outbox.sent = transaction->outbox.oldest = (uint16_t)answer_packets;
	for (uint32_t i = 0; i < answer_packets; i++)
		transaction->outbox.buffers[i] = SLAB_NONE;
	transaction->outbox.step = ACCORD_STEP_ANSWER;
	return transaction;
}

static void linger(struct accord_engine *engine, struct transaction *transaction, uint64_t time)
{
	transaction_linger(&engine->table, transaction);
	transaction->expires = engine->now + time;
	transaction->ack_due = engine->now;
	transmit_schedule(engine, transaction);
}

int accord_engine_settle(struct accord_engine *engine, uint64_t now, uint32_t handle, const uint8_t *commit,
                         uint32_t length)
{
	struct slot *slot = slots_of(&engine->slots, handle);
	struct transaction *transaction;
	uint32_t reason;

	engine_see(engine, now);
	if (!slot)
		return -ACCORD_REASON_SLOT_GONE;
	transaction = new_settled(engine, &slot->path, slot->id, slot->answer_packets, &reason);
	if (transaction) {
		receive_flight(transaction, slot->proposal, slot->length);
		receive_flight(transaction, commit, length);
		linger(engine, transaction, SLOTS_LIFE_US);
	}
	slots_empty(&engine->slots, slot); /* the commit is used, whether or not that can be acknowledged */
	return transaction ? 0 : -(int)reason;
}

/* ---- Without a slot ---- */

int accord_engine_token(const struct accord_engine *engine, const struct accord_path *path, const uint8_t *transaction,
                        uint32_t kind, uint32_t bound, uint8_t *cookie)
{
	if (!cookie_ring_usable(&engine->cookies))
		return -ACCORD_REASON_QUOTA;
	cookie_token(&engine->cookies, path, transaction, kind, kind == ACCORD_COOKIE_SLOT ? engine->config.machine : bound,
	             cookie);
	return 0;
}

int accord_engine_token_seed(const struct accord_engine *engine, const struct accord_path *path,
                             const uint8_t *transaction, const uint8_t *cookie, uint8_t *seed)
{
	if (cookie[offsetof(struct accord_cookie, kind)] != ACCORD_COOKIE_ANSWER ||
	    cookie_token_check(&engine->cookies, path, transaction, cookie) != COOKIE_GOOD ||
	    !cookie_seed(&engine->cookies, path, transaction, cookie, seed))
		return -ACCORD_REASON_BAD_COOKIE;
	return 0;
}

int accord_engine_settle_token(struct accord_engine *engine, uint64_t now, const struct accord_path *path,
                               uint32_t answer_packets, const uint8_t *commit, uint32_t length)
{
	const uint8_t *at = commit, *bytes = flight_next(&at, commit + length, &length);
	struct transaction *transaction;
	struct packet packet;
	uint32_t reason;

	engine_see(engine, now);
	if (!bytes || packet_parse(&packet, bytes, length) || !packet.chunk_count || answer_packets > ACCORD_FLIGHT_PACKETS)
		return -ACCORD_REASON_LONG_PACKET;
	if (transaction_find(&engine->table, packet.transaction, ROLE_RESPONDER))
		return -ACCORD_REASON_CONTRADICTION;
	transaction = new_settled(engine, path, packet.transaction, answer_packets, &reason);
	if (!transaction)
		return -(int)reason;
	for (uint16_t offset = 0; offset < packet.offset; offset++)
		ackrange_add(&transaction->range, offset); /* it was answered, so it was here, or where the key is */
	receive_again(transaction, bytes, packet.length);
	/* For as long as the cookie could be shown again. */
	linger(engine, transaction, TOKEN_LIFE_US);
	return 0;
}
