// SPDX-License-Identifier: Apache-2.0
/*
 * Answers of which nothing is kept but a slot (docs/PROTOCOL.md, section 22): one packet in, one out, and the commit.
 * What the answer says is made above, twice; here is what tells its commit from others, and the transaction that it
 * becomes.
 */
#include <string.h>

#include "descriptor.h"
#include "engine.h"
#include "packet.h"

enum {
	WHOLE = ACCORD_CHUNK_FIRST | ACCORD_CHUNK_LAST,
	COMMIT_OFFSET = 1, /* the proposal was one packet */
};

/* ---- Messages that are one packet ---- */

static uint32_t read_chunk(const struct accord_engine *engine, const struct chunk *chunk, struct accord_node_in *node)
{
	if (chunk->flags != WHOLE)
		return ACCORD_REASON_BAD_CHUNK;
	*node = (struct accord_node_in){
		.node = chunk->node,
		.stored = engine_supports(engine, chunk->node, chunk->protocol),
		.protocol = chunk->protocol,
		.length = chunk->length,
		.data = chunk->data,
	};
	return node->stored ? descriptor_check(chunk->data, chunk->length, chunk->node) : ACCORD_REASON_OK;
}

int accord_engine_read(const struct accord_engine *engine, const uint8_t *bytes, uint32_t length,
                       struct accord_node_in *nodes)
{
	struct packet packet;
	uint32_t count = 0, reason = packet_parse(&packet, bytes, length);

	if (!reason && !(packet.flags & ACCORD_FLAG_END))
		reason = ACCORD_REASON_BAD_FLAGS;
	for (uint32_t i = 0; !reason && i < packet.chunk_count; i++)
		if (packet.chunks[i].node != ACCORD_NODE_PADDING)
			reason = read_chunk(engine, &packet.chunks[i], &nodes[count++]);
	return reason ? -(int)reason : (int)count;
}

int accord_packet_compose(const uint8_t *transaction, uint8_t step, const struct accord_node_out *nodes, uint32_t count,
                          uint8_t *bytes, uint32_t room)
{
	struct packet_fields fields = {
		.transaction = transaction,
		.sender = ROLE_RESPONDER,
		.flags = ACCORD_FLAG_END,
		.step = step,
		.offset = step / 2,
	};
	uint32_t used = ACCORD_HEADER_BYTES;

	if (room < used)
		return -ACCORD_REASON_MESSAGE_TOO_LONG;
	packet_write_header(bytes, &fields);
	for (uint32_t i = 0; i < count; i++) {
		if (nodes[i].length > room || used + ACCORD_CHUNK_HEADER_BYTES + nodes[i].length > room)
			return -ACCORD_REASON_MESSAGE_TOO_LONG;
		packet_write_chunk(bytes + used, nodes[i].node, WHOLE, (uint16_t)nodes[i].length, nodes[i].protocol);
		memcpy(bytes + used + ACCORD_CHUNK_HEADER_BYTES, nodes[i].data, nodes[i].length);
		used += ACCORD_CHUNK_HEADER_BYTES + nodes[i].length;
	}
	/* Each message of either side is one packet so far, and all of the initiator's are here. */
	packet_seal(bytes, used, packet_first_tsn(transaction, ROLE_INITIATOR), (uint16_t)(step / 2 + 1));
	return (int)used;
}

/* ---- Slots ---- */

static void tell_slot(const struct slot *slot, struct accord_slot *out)
{
	out->handle = slot->handle;
	out->length = slot->length;
	out->proposal = slot->proposal;
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

int64_t accord_engine_keep(struct accord_engine *engine, uint64_t now, const struct accord_path *path,
                           const uint8_t *proposal, uint32_t length, const uint8_t *seed, const uint8_t *transcript)
{
	const uint8_t *id = proposal + offsetof(struct accord_header, transaction);
	struct slot *slot;

	engine_see(engine, now);
	if (length < ACCORD_HEADER_BYTES || length > sizeof(slot->proposal))
		return -ACCORD_REASON_LONG_PACKET;
	slots_expire(&engine->slots, engine->now);
	if (slots_find(&engine->slots, id, path) || transaction_find(&engine->table, id, ROLE_RESPONDER))
		return -ACCORD_REASON_CONTRADICTION;
	slot = slots_take(&engine->slots, engine->now, id, path);
	if (!slot)
		return -ACCORD_REASON_NO_MEMORY;
	slot->length = (uint16_t)length;
	memcpy(slot->proposal, proposal, length);
	memcpy(slot->seed, seed, sizeof(slot->seed));
	memcpy(slot->transcript, transcript, sizeof(slot->transcript));
	return slot->handle;
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

/* ---- The commit ---- */

static bool equal(const uint8_t *one, const uint8_t *other, uint32_t length)
{
	uint8_t differs = 0;

	for (uint32_t i = 0; i < length; i++)
		differs |= one[i] ^ other[i];
	return !differs;
}

/* Does it bear T(1) of the answer? Who has not seen that cannot know it. */
static bool knows_answer(const struct packet *packet, const struct slot *slot)
{
	const uint8_t *transcript;
	uint16_t length;

	for (uint32_t i = 0; i < packet->chunk_count; i++) {
		const struct chunk *chunk = &packet->chunks[i];

		if (chunk->node != ACCORD_NODE_CONTEXT)
			continue;
		if (chunk->flags != WHOLE || descriptor_check(chunk->data, chunk->length, chunk->node))
			return false;
		transcript = descriptor_find(chunk->data, ACCORD_TLV_TRANSCRIPT, &length);
		return transcript && length == sizeof(slot->transcript) && equal(transcript, slot->transcript, length);
	}
	return false;
}

uint32_t stranger_returns(struct accord_engine *engine, const struct accord_path *path, const struct packet *packet,
                          const uint8_t *bytes)
{
	const struct slot *slot;

	slots_expire(&engine->slots, engine->now);
	slot = slots_find(&engine->slots, packet->transaction, path);
	if (!slot || packet->offset != COMMIT_OFFSET || !(packet->flags & ACCORD_FLAG_END))
		return ACCORD_REASON_UNKNOWN_TRANSACTION;
	if (!knows_answer(packet, slot))
		return ACCORD_REASON_BAD_TRANSCRIPT;
	return stranger_hand_up(engine, path, packet, bytes, slot->handle);
}

static void receive_again(struct transaction *transaction, const uint8_t *bytes, uint32_t length)
{
	struct packet packet;

	if (packet_parse(&packet, bytes, length))
		return; /* not reached: it has been parsed before */
	ackrange_add(&transaction->range, packet.offset);
	transaction->fingerprints[packet.offset] = packet.fingerprint;
	transaction->packets_received++;
	transaction->bytes_received += length;
	transaction->wire_received += length + transaction_overhead(transaction);
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
	engine_make_room(engine, ADMISSION_COOKIE);
	transaction = transaction_new(&engine->table, engine->now, slot->id, ADMISSION_COOKIE, &slot->path, &reason);
	if (!transaction) {
		slots_empty(&engine->slots, slot); /* the commit is used, whether or not that can be acknowledged */
		return -(int)reason;
	}
	transaction_prove(&engine->table, &engine->slab, transaction);
	receive_again(transaction, slot->proposal, slot->length);
	receive_again(transaction, commit, length);
	/* The answer has left, and the commit says that it arrived. */
	transaction->outbox.total = transaction->outbox.sent = transaction->outbox.oldest = 1;
	transaction->outbox.buffers[0] = SLAB_NONE;
	transaction->outbox.step = ACCORD_STEP_ANSWER;
	transaction_linger(&engine->table, transaction);
	transaction->expires = engine->now + SLOTS_LIFE_US;
	transaction->ack_due = engine->now;
	slots_empty(&engine->slots, slot);
	transmit_schedule(engine, transaction);
	return 0;
}
