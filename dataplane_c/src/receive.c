// SPDX-License-Identifier: Apache-2.0
/*
 * The incoming half. A packet is checked completely, cheap checks first, before it changes anything:
 * by itself (packet.c), against its transaction, against what of its message is here already, and for
 * the memory it needs. Then it is consumed.
 *
 *   wrong by itself, or from elsewhere   dropped, counted
 *   no memory                            dropped, counted; its sender repeats it
 *   contradicts an earlier packet        the transaction fails
 */
#include "descriptor.h"
#include "engine.h"
#include "outbox.h"
#include "packet.h"

static bool is_padding(const struct chunk *chunk)
{
	return chunk->node == ACCORD_NODE_PADDING;
}

/* Will this chunk's data be kept? As long as a node is followed, its protocol is treated as at first. */
static bool is_stored(const struct accord_engine *engine, const struct transaction *transaction,
                      const struct packet *packet, const struct chunk *chunk)
{
	const struct node_in *node;

	if (is_padding(chunk) || reassembly_is_closed(&transaction->reassembly, packet->step))
		return false;
	node = reassembly_latest(&transaction->reassembly, chunk->node);
	if (node && node->step > (int8_t)packet->step)
		return false;
	if (node && node->step == (int8_t)packet->step)
		return node->status == NODE_STORED;
	return engine_supports(engine, chunk->node, chunk->protocol);
}

static uint32_t check_memory(const struct accord_engine *engine, const struct transaction *transaction,
                             const struct packet *packet)
{
	uint16_t lengths[PACKET_MAX_CHUNKS];
	uint32_t count = 0;

	if (event_room(&engine->events) < packet->chunk_count + ENGINE_EVENTS_PER_PACKET)
		return ACCORD_REASON_NO_MEMORY;
	/* Mostly there is more than plenty. */
	if (pieces_fit(&engine->slab, slab_available(&engine->slab, &transaction->share), packet->bytes,
	               packet->chunk_count))
		return ACCORD_REASON_OK;
	for (uint32_t i = 0; i < packet->chunk_count; i++)
		if (is_stored(engine, transaction, packet, &packet->chunks[i]))
			lengths[count++] = packet->chunks[i].length;
	if (pieces_need(&transaction->reassembly.fill, &engine->slab, lengths, count) >
	    slab_available(&engine->slab, &transaction->share))
		return ACCORD_REASON_NO_MEMORY;
	return ACCORD_REASON_OK;
}

/* What this packet is to a live transaction: OK, DUPLICATE, or why not. */
static uint32_t check_packet(const struct accord_engine *engine, const struct transaction *transaction,
                             const struct packet *packet)
{
	uint32_t reason;

	if (packet->sender == ROLE_RESPONDER && transaction->outbox.sent == 0)
		return ACCORD_REASON_BAD_STEP; /* an answer before the question */
	if (packet->flags & ACCORD_FLAG_ACK && !outbox_sent(transaction, packet->ack_tsn, packet->ack_count))
		return ACCORD_REASON_BAD_ACK;
	if (!packet->chunk_count)
		return ACCORD_REASON_OK;
	if (ackrange_has(&transaction->range, packet->offset)) {
		if (transaction->fingerprints[packet->offset] != packet->fingerprint)
			return ACCORD_REASON_CONTRADICTION;
		return ACCORD_REASON_DUPLICATE;
	}
	reason = reassembly_check(&transaction->reassembly, packet);
	return reason ? reason : check_memory(engine, transaction, packet);
}

/* Reasons that say what the peer is, not what befell one packet. */
static bool is_fatal(uint32_t reason)
{
	return reason == ACCORD_REASON_BAD_ACK || reason == ACCORD_REASON_BAD_CHUNK ||
	       reason == ACCORD_REASON_CONTRADICTION || reason == ACCORD_REASON_MESSAGE_TOO_LONG;
}

static void consume_acknowledgement(struct accord_engine *engine, struct transaction *transaction,
                                    const struct packet *packet)
{
	uint32_t arrived;

	if (!(packet->flags & ACCORD_FLAG_ACK))
		return;
	arrived = outbox_acknowledge(transaction, &engine->slab, engine->now, packet->ack_tsn, packet->ack_count);
	for (uint8_t step = 0; arrived && step < ACCORD_MAX_STEPS; step++)
		if (arrived & 1u << step)
			engine_tell(engine, transaction, ACCORD_EVENT_ARRIVED, step, ACCORD_REASON_OK);
}

static uint32_t deliver(struct accord_engine *engine, struct transaction *transaction, const struct packet *packet,
                        const struct chunk *chunk, struct node_in *node)
{
	uint8_t room[DESCRIPTOR_PREFIX_BYTES];
	const uint8_t *prefix = pieces_prefix(&engine->slab, node->pieces.head, room);
	struct event *event;
	uint32_t reason;
	uint16_t length;

	reason = descriptor_check(prefix, node->bytes, chunk->node);
	if (reason)
		return reason;
	if (chunk->node == ACCORD_NODE_CONTEXT && descriptor_find(prefix, ACCORD_TLV_REASON, &length))
		transaction->aborted = true;
	if (chunk->node == ACCORD_NODE_CONTEXT && transaction->role == ROLE_RESPONDER)
		transaction->continues = descriptor_find(prefix, ACCORD_TLV_CONTINUES, &length);
	event = engine_tell(engine, transaction, ACCORD_EVENT_NODE, packet->step, ACCORD_REASON_OK);
	if (!event)
		return ACCORD_REASON_NO_MEMORY; /* not reached: check_memory was asked first */
	event->node = chunk->node;
	event->protocol = node->protocol;
	event->length = node->bytes;
	event->order = (uint16_t)node->first;
	event->head = node->pieces.head;
	node->status = NODE_DELIVERED;
	node->pieces.head = node->pieces.tail = PIECE_NONE;
	return ACCORD_REASON_OK;
}

static void tell_skipped(struct accord_engine *engine, struct transaction *transaction, const struct packet *packet,
                         const struct chunk *chunk)
{
	struct event *event = engine_tell(engine, transaction, ACCORD_EVENT_SKIPPED, packet->step, ACCORD_REASON_OK);

	if (!event)
		return; /* not reached, as above */
	event->node = chunk->node;
	event->protocol = chunk->protocol;
	event->order = packet->offset;
}

/* The first chunk of a node, or of one that is not stored, or that comes late. NULL: its data is not kept. Not inlined:
 * the way that most chunks take is short without it. */
__attribute__((noinline)) static struct node_in *enter_chunk(struct accord_engine *engine,
                                                             struct transaction *transaction,
                                                             const struct packet *packet, const struct chunk *chunk)
{
	struct reassembly *reassembly = &transaction->reassembly;
	struct node_in *node = reassembly_node(reassembly, &engine->slab, &transaction->share, packet, chunk);

	if (node->status == NODE_UNSEEN) {
		node->status = NODE_STORED;
		if (reassembly_is_closed(reassembly, packet->step)) {
			node->status = NODE_SKIPPED;
		} else if (!engine_supports(engine, chunk->node, chunk->protocol)) {
			node->status = NODE_SKIPPED;
			tell_skipped(engine, transaction, packet, chunk);
		}
	}
	if (reassembly_is_closed(reassembly, packet->step))
		engine_count(engine, ACCORD_REASON_NOT_AWAITED);
	else if (node->status == NODE_SKIPPED)
		engine_count(engine, ACCORD_REASON_UNSUPPORTED);
	if (node->step > (int8_t)packet->step)
		return NULL;
	reassembly_add(node, packet, chunk);
	return node->status == NODE_STORED ? node : NULL;
}

static uint32_t consume_chunk(struct accord_engine *engine, struct transaction *transaction,
                              const struct packet *packet, const struct chunk *chunk)
{
	struct reassembly *reassembly = &transaction->reassembly;
	struct node_in *node;

	if (reassembly_goes_on(reassembly, packet, chunk))
		node = reassembly_go_on(reassembly, packet, chunk);
	else
		node = enter_chunk(engine, transaction, packet, chunk);
	if (!node)
		return ACCORD_REASON_OK;
	pieces_store(&engine->slab, &transaction->share, &reassembly->fill, &node->pieces, chunk, packet->offset);
	return node_whole(node) ? deliver(engine, transaction, packet, chunk, node) : ACCORD_REASON_OK;
}

/* A packet may complete its own message, and, as the one that closed the gap, the one after it. */
static uint32_t complete_messages(struct accord_engine *engine, struct transaction *transaction, uint8_t step,
                                  bool *complete)
{
	*complete = false;
	for (; step < ACCORD_MAX_STEPS; step += 2) {
		if (reassembly_is_complete(&transaction->reassembly, step))
			continue;
		if (!reassembly_completes(&transaction->reassembly, &transaction->range, step)) {
			if (reassembly_is_closed(&transaction->reassembly, step))
				continue;
			break; /* nor does any after it, whose packets follow on this one's */
		}
		if (!reassembly_sound(&transaction->reassembly, step))
			return ACCORD_REASON_BAD_CHUNK;
		if (reassembly_is_closed(&transaction->reassembly, step))
			continue; /* answered already */
		*complete = true;
		if (step == ACCORD_STEP_ANSWER)
			outbox_release_retained(transaction, &engine->slab);
		engine_tell(engine, transaction, ACCORD_EVENT_MESSAGE, step, ACCORD_REASON_OK);
	}
	return ACCORD_REASON_OK;
}

/*
 * At once: a repetition, a gap, every fourth packet, the end of a message that may have no answer (a
 * commit, an abort). Else after a delay, in the hope that the answer carries it; so too for the last
 * packet of a message that asks for an answer, first, second or not.
 */
static void schedule_acknowledgement(struct accord_engine *engine, struct transaction *transaction,
                                     const struct packet *packet, bool complete)
{
	const struct ackrange *range = &transaction->range;
	bool in_order = packet->offset == range->highest && range->prefix == range->highest + 1;
	bool final = transaction->aborted ||
	             (packet->step >= ACCORD_STEP_COMMIT && packet->step % 2 == 0 && !transaction->continues);
	uint64_t due = engine->now + TRANSACTION_ACK_DELAY_US;

	transaction->arrivals++;
	if (!in_order || (complete && final) || (!complete && transaction->arrivals >= TRANSACTION_ACK_EVERY))
		due = engine->now;
	if (due < transaction->ack_due)
		transaction->ack_due = due;
}

static uint32_t consume_new(struct accord_engine *engine, struct transaction *transaction, const struct packet *packet)
{
	uint32_t reason = ACCORD_REASON_OK;
	bool complete;

	ackrange_add(&transaction->range, packet->offset);
	if (!transaction->recovery.in_flight) {
		transaction->recovery.timer_base = engine->now; /* what is awaited is coming */
		transaction->recovery.timeouts = 0;
	}
	transaction->fingerprints[packet->offset] = packet->fingerprint;
	reassembly_enter(&transaction->reassembly, packet);
	for (const struct chunk *chunk = packet->chunks; !reason && chunk < packet_end(packet); chunk++)
		if (!is_padding(chunk))
			reason = consume_chunk(engine, transaction, packet, chunk);
	if (!reason)
		reason = complete_messages(engine, transaction, packet->step, &complete);
	if (!reason)
		schedule_acknowledgement(engine, transaction, packet, complete);
	if (!reason && transaction->role == ROLE_INITIATOR)
		outbox_unlock(transaction, &engine->slab);
	return reason;
}

static void consume_repeated(struct accord_engine *engine, struct transaction *transaction, const struct packet *packet)
{
	ackrange_add(&transaction->range, packet->offset);
	transaction->duplicates++;
	transaction->ack_due = engine->now;
}

static void note_arrival(struct transaction *transaction, const struct accord_path *path, const struct packet *packet)
{
	transaction_learn(transaction, path);
	transaction->packets_received++;
	transaction->bytes_received += packet->length;
	transaction->wire_received += packet->length;
	if (!packet->follows)
		transaction->wire_received += transaction_overhead(transaction);
}

/* reason: what check_packet said. */
static uint32_t receive_live(struct accord_engine *engine, struct transaction *transaction,
                             const struct accord_path *path, const struct packet *packet, uint32_t reason)
{
	bool repeated = reason == ACCORD_REASON_DUPLICATE;
	uint64_t ack_due = transaction->ack_due;

	if (is_fatal(reason) && !engine_fail(engine, transaction, reason))
		return ACCORD_REASON_NO_MEMORY;
	if (reason && !repeated)
		return reason;
	if (event_room(&engine->events) < ENGINE_EVENTS_PER_PACKET)
		return ACCORD_REASON_NO_MEMORY;

	note_arrival(transaction, path, packet);
	consume_acknowledgement(engine, transaction, packet);
	if (repeated)
		consume_repeated(engine, transaction, packet);
	else if (packet->chunk_count)
		reason = consume_new(engine, transaction, packet);
	if (reason && !repeated)
		engine_fail(engine, transaction, reason);
	else if (transaction->outbox.total || transaction->ack_due != ack_due)
		transmit_schedule(engine, transaction); /* who has sent nothing yet waits for no other timer */
	return reason;
}

/* Forgotten by the user: whatever comes is acknowledged, so that the peer comes to an end; nothing is kept. */
static uint32_t receive_lingering(struct accord_engine *engine, struct transaction *transaction,
                                  const struct accord_path *path, const struct packet *packet)
{
	bool repeated = packet->chunk_count && ackrange_has(&transaction->range, packet->offset);

	if (transaction->mute)
		return ACCORD_REASON_CLOSED;
	if (packet->flags & ACCORD_FLAG_ACK && !outbox_sent(transaction, packet->ack_tsn, packet->ack_count))
		return ACCORD_REASON_BAD_ACK;
	note_arrival(transaction, path, packet);
	if (packet->flags & ACCORD_FLAG_ACK)
		outbox_acknowledge(transaction, &engine->slab, engine->now, packet->ack_tsn, packet->ack_count);
	if (packet->chunk_count) {
		ackrange_add(&transaction->range, packet->offset);
		transaction->ack_due = engine->now;
		transaction->duplicates += repeated;
	}
	transmit_schedule(engine, transaction);
	return repeated ? ACCORD_REASON_DUPLICATE : ACCORD_REASON_OK;
}

/*
 * The responder keeps nothing of the proposal yet (docs/PROTOCOL.md, section 21): it leaves again, at once, the first
 * packet of it with the cookie. The answer to it, or to the proposal as it was, is awaited as before.
 */
static uint32_t receive_challenge(struct accord_engine *engine, struct transaction *transaction,
                                  const struct accord_path *path, const struct packet *packet)
{
	const struct outbox *outbox = &transaction->outbox;

	if (outbox->step != ACCORD_STEP_PROPOSAL || !outbox->sent ||
	    transaction->reassembly.steps[ACCORD_STEP_ANSWER / 2].complete ||
	    transaction->challenges == ACCORD_MAX_CHALLENGES)
		return ACCORD_REASON_BAD_STEP;
	if (!event_room(&engine->events) || !outbox_begin_anew(transaction, &engine->slab, engine->now, packet->cookie))
		return ACCORD_REASON_NO_MEMORY;
	transaction->challenges++;
	note_arrival(transaction, path, packet);
	engine_tell(engine, transaction, ACCORD_EVENT_CHALLENGED, ACCORD_STEP_ANSWER, ACCORD_REASON_OK);
	transmit_schedule(engine, transaction);
	return ACCORD_REASON_CHALLENGED;
}

/* The first packet of a negotiation. Silence, and no state (NULL), for anything that is not quite right. */
static struct transaction *admit(struct accord_engine *engine, const struct accord_path *path,
                                 const struct packet *packet, const uint8_t *bytes, uint32_t *reason)
{
	enum admission admission;

	if (packet->sender == ROLE_INITIATOR && packet->step == ACCORD_STEP_COMMIT && packet->chunk_count) {
		*reason = stranger_returns(engine, path, packet, bytes);
		return NULL;
	}
	if (packet->sender != ROLE_INITIATOR || packet->step != ACCORD_STEP_PROPOSAL || !packet->chunk_count) {
		*reason = ACCORD_REASON_UNKNOWN_TRANSACTION;
		return NULL;
	}
	admission = stranger_arrives(engine, path, packet, bytes, reason);
	if (admission == ADMISSION_NONE)
		return NULL;
	engine_make_room(engine, admission);
	return transaction_new(&engine->table, engine->now, packet->transaction, admission, path, reason);
}

/* It is admitted, if its first packet is right in all else. reason: what check_packet said. */
static void begin(struct accord_engine *engine, struct transaction *transaction, const struct accord_path *path,
                  uint32_t reason)
{
	if (reason) {
		engine_forget(engine, transaction);
		return;
	}
	remembered_apply(&engine->remembered, engine->table.seed, engine->now, path, &transaction->recovery);
	engine_tell(engine, transaction, ACCORD_EVENT_OPENED, 0, ACCORD_REASON_OK);
}

static uint32_t receive_packet(struct accord_engine *engine, const struct accord_path *path, const uint8_t *bytes,
                               uint32_t length, bool follows)
{
	struct transaction *transaction;
	struct packet packet;
	uint32_t reason = packet_parse(&packet, bytes, length);
	bool first;

	if (reason)
		return reason;
	packet.follows = follows;
	transaction = transaction_find(&engine->table, packet.transaction, role_other(packet.sender));
	first = !transaction;
	if (first)
		transaction = admit(engine, path, &packet, bytes, &reason);
	else if (!transaction_same_remote(transaction, path))
		return ACCORD_REASON_UNKNOWN_TRANSACTION;
	if (!transaction)
		return reason;
	if (transaction->state == TRANSACTION_LINGERING)
		return receive_lingering(engine, transaction, path, &packet);
	if (transaction->state != TRANSACTION_LIVE)
		return ACCORD_REASON_CLOSED;
	if (packet.cookie && packet.sender == ROLE_RESPONDER)
		return receive_challenge(engine, transaction, path, &packet);
	reason = check_packet(engine, transaction, &packet);
	if (first)
		begin(engine, transaction, path, reason);
	if (first && reason)
		return reason;
	return receive_live(engine, transaction, path, &packet, reason);
}

int accord_engine_input(struct accord_engine *engine, uint64_t now, const struct accord_path *path,
                        const uint8_t *datagram, uint32_t length)
{
	uint32_t first = ACCORD_REASON_OK, at = 0;

	engine_see(engine, now);
	do {
		/* Packets that share a datagram are as good, or bad, as if they had come by themselves. */
		uint32_t bytes = packet_split(datagram + at, length - at);
		uint32_t reason = receive_packet(engine, path, datagram + at, bytes, at > 0);

		engine_count(engine, reason);
		if (!first)
			first = reason;
		at += bytes;
	} while (at < length);
	return -(int)first;
}
