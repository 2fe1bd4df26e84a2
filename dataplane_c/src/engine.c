// SPDX-License-Identifier: Apache-2.0
/* The engine from outside: transactions as their user handles them, events, counters. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

#include "descriptor.h"
#include "message.h"
#include "outbox.h"
#include "stage.h"

/* ---- What the halves share ---- */

bool engine_supports(const struct accord_engine *engine, uint8_t node, uint32_t protocol)
{
	uint32_t from = 0, to = engine->protocol_count;

	if (node == ACCORD_NODE_CONTEXT && (protocol == ACCORD_PROTOCOL_UDP || protocol == ACCORD_PROTOCOL_DIRECT))
		return true;
	while (from < to) {
		uint32_t middle = from + (to - from) / 2;

		if (engine->protocols[middle] == protocol)
			return true;
		if (engine->protocols[middle] < protocol)
			from = middle + 1;
		else
			to = middle;
	}
	return false;
}

static void reach(const struct transaction *transaction, enum accord_stage stage, uint32_t step, uint32_t reason)
{
	accord_stage_reached(transaction->id, transaction->role, stage, step, reason);
}

struct event *engine_tell(struct accord_engine *engine, struct transaction *transaction, enum accord_event_kind kind,
                          uint8_t step, uint32_t reason)
{
	static const uint8_t stages[] = {
		[ACCORD_EVENT_OPENED] = ACCORD_STAGE_OPENED,
		[ACCORD_EVENT_MESSAGE] = ACCORD_STAGE_WHOLE,
		[ACCORD_EVENT_ARRIVED] = ACCORD_STAGE_ACKNOWLEDGED,
		[ACCORD_EVENT_FAILED] = ACCORD_STAGE_FAILED,
		[ACCORD_EVENT_CHALLENGED] = 0,
	};

	struct event *event;

	if (!event_room(&engine->events))
		return NULL;
	event = event_push(&engine->events);
	event->handle = transaction->handle;
	event->protocol = event->length = event->order = event->node = 0;
	event->head = PIECE_NONE;
	event->kind = (uint16_t)kind;
	event->reason = (uint16_t)reason;
	event->step = step;
	transaction->events++;
	if (stages[kind])
		reach(transaction, stages[kind], step, reason);
	return event;
}

bool engine_fail(struct accord_engine *engine, struct transaction *transaction, uint32_t reason)
{
	if (!engine_tell(engine, transaction, ACCORD_EVENT_FAILED, 0, reason))
		return false;
	if (reason == ACCORD_REASON_TIMEOUT || reason == ACCORD_REASON_LIFETIME)
		engine_count(engine, reason);
	transaction->state = TRANSACTION_FAILED;
	transaction->why = (uint16_t)reason;
	outbox_release(transaction, &engine->slab);
	reassembly_release(&transaction->reassembly, &engine->slab, &transaction->share);
	timer_set(&engine->timer, transaction->slot, UINT64_MAX);
	return true;
}

/* Events that wait are withdrawn: nobody is left to understand them. */
static void withdraw_events(struct accord_engine *engine, struct transaction *transaction)
{
	for (uint32_t i = 0; transaction->events && i < engine->events.count; i++) {
		struct event *event = event_at(&engine->events, i);

		if (event->handle != transaction->handle)
			continue;
		pieces_release(&transaction->reassembly.fill, &engine->slab, &transaction->share, event->head);
		event->handle = 0;
		transaction->events--;
	}
	while (engine->events.count && !event_first(&engine->events)->handle)
		event_drop(&engine->events);
}

void engine_forget(struct accord_engine *engine, struct transaction *transaction)
{
	withdraw_events(engine, transaction);
	outbox_release(transaction, &engine->slab);
	reassembly_release(&transaction->reassembly, &engine->slab, &transaction->share);
	timer_set(&engine->timer, transaction->slot, UINT64_MAX);
	transaction_free(&engine->table, transaction);
}

void engine_make_room(struct accord_engine *engine, enum admission admission)
{
	struct transaction_table *table = &engine->table;
	struct transaction *unproven;

	if (admission == ADMISSION_UNPROVEN && table->unproven >= table->unproven_limit) {
		unproven = transaction_unproven_lingering(table);
		if (unproven)
			engine_forget(engine, unproven);
		return;
	}
	if (table->live >= table->count && table->lingering_head != TRANSACTION_NONE)
		engine_forget(engine, &table->slots[table->lingering_head]);
}

/* ---- Transactions ---- */

static int compare_protocols(const void *one, const void *other)
{
	uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;

	return (a > b) - (a < b);
}

int accord_engine_support(struct accord_engine *engine, const uint32_t *protocols, uint32_t count)
{
	if (count > ENGINE_MAX_PROTOCOLS)
		return -ACCORD_REASON_NO_MEMORY;
	if (count)
		memcpy(engine->protocols, protocols, count * sizeof(*protocols));
	qsort(engine->protocols, count, sizeof(*protocols), compare_protocols);
	engine->protocol_count = count;
	return 0;
}

int64_t accord_engine_open(struct accord_engine *engine, uint64_t now, const uint8_t *id,
                           const struct accord_path *path)
{
	struct transaction *transaction;
	uint32_t reason;

	engine_see(engine, now);
	if (path->link_length > ACCORD_MAX_LINK_HEADER || (path->family != 4 && path->family != 6))
		return -ACCORD_REASON_BAD_CONFIG;
	if (transaction_find(&engine->table, id, ROLE_INITIATOR))
		return -ACCORD_REASON_CONTRADICTION;
	engine_make_room(engine, ADMISSION_OURS);
	transaction = transaction_new(&engine->table, engine->now, id, ADMISSION_OURS, path, &reason);
	if (!transaction)
		return -(int64_t)reason;
	remembered_apply(&engine->remembered, engine->table.seed, engine->now, path, &transaction->recovery);
	reach(transaction, ACCORD_STAGE_OPENED, ACCORD_STEP_PROPOSAL, ACCORD_REASON_OK);
	transmit_schedule(engine, transaction);
	return transaction->handle;
}

static uint32_t check_nodes(const struct accord_node_out *nodes, uint32_t count)
{
	uint64_t seen = 0;
	uint64_t bytes = 0;

	if (count == 0 || count > ACCORD_MAX_NODES)
		return ACCORD_REASON_TOO_MANY_NODES;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t reason;

		if (nodes[i].node >= ACCORD_MAX_NODES || nodes[i].protocol == ACCORD_PROTOCOL_PADDING)
			return ACCORD_REASON_BAD_CHUNK;
		if (seen & UINT64_C(1) << nodes[i].node)
			return ACCORD_REASON_DUPLICATE_NODE;
		seen |= UINT64_C(1) << nodes[i].node;
		bytes += nodes[i].length;
		reason = descriptor_check(nodes[i].data, nodes[i].length, nodes[i].node);
		if (reason)
			return reason;
	}
	return bytes > ACCORD_MAX_MESSAGE_BYTES ? ACCORD_REASON_MESSAGE_TOO_LONG : ACCORD_REASON_OK;
}

static bool says_continues(const struct accord_node_out *nodes, uint32_t count)
{
	uint16_t length;

	for (uint32_t i = 0; i < count; i++)
		if (nodes[i].node == ACCORD_NODE_CONTEXT)
			return descriptor_find(nodes[i].data, ACCORD_TLV_CONTINUES, &length);
	return false;
}

/*
 * A peer that is asked much of may answer without memory: then no more packets answer than came, and no more bytes
 * (section 22). Where it is known how long the answer will be, and the proposal's packets have room for as much, they
 * are filled: packets_min.
 */
static uint32_t room_for_answer(const struct transaction *transaction, const struct accord_node_out *nodes,
                                uint32_t count)
{
	const uint32_t room = ACCORD_MIN_MTU_PACKET - ACCORD_HEADER_BYTES;
	uint32_t answer = transaction->expected, overhead = transaction_overhead(transaction), bytes = 0, packets;

	for (uint32_t i = 0; i < count; i++)
		bytes += ACCORD_CHUNK_HEADER_BYTES + nodes[i].length;
	packets = (bytes + room - 1) / room;
	bytes += packets * (ACCORD_HEADER_BYTES + overhead);
	if (packets > ACCORD_FLIGHT_PACKETS || answer <= bytes || answer > packets * (ACCORD_MIN_MTU_PACKET + overhead))
		return 0;
	return packets;
}

int accord_engine_send(struct accord_engine *engine, uint64_t now, uint32_t handle, uint8_t step,
                       const struct accord_node_out *nodes, uint32_t count, uint32_t packets_min)
{
	struct transaction *transaction = transaction_of(&engine->table, handle);
	uint32_t reason;
	int32_t next;

	engine_see(engine, now);
	if (!transaction)
		return -ACCORD_REASON_UNKNOWN_TRANSACTION;
	/* Its event may still be behind the one that this answers: a process that stood still finds both. */
	if (transaction->state == TRANSACTION_FAILED)
		return -(int)transaction->why;
	if (transaction->state != TRANSACTION_LIVE)
		return -ACCORD_REASON_CLOSED;
	next = transaction->outbox.step < 0 ? transaction->role == ROLE_RESPONDER : transaction->outbox.step + 2;
	if (step != next || step >= ACCORD_MAX_STEPS)
		return -ACCORD_REASON_BAD_STEP;
	reason = check_nodes(nodes, count);
	if (!reason && step > ACCORD_STEP_PROPOSAL)
		outbox_release_retained(transaction, &engine->slab);
	if (step == ACCORD_STEP_PROPOSAL && !packets_min && transaction->expected)
		packets_min = room_for_answer(transaction, nodes, count);
	if (!reason)
		reason = message_queue(transaction, &engine->slab, engine->now, step, nodes, count, packets_min);
	if (reason)
		return -(int)reason;
	if (transaction->role == ROLE_INITIATOR)
		transaction->continues = says_continues(nodes, count);
	if (step > ACCORD_STEP_PROPOSAL)
		reassembly_close(&transaction->reassembly, &engine->slab, &transaction->share, step - 1);
	if (step == ACCORD_STEP_PROPOSAL && transaction->expected)
		outbox_expect(transaction, &engine->slab);
	reach(transaction, ACCORD_STAGE_SENT, step, ACCORD_REASON_OK);
	transmit_schedule(engine, transaction);
	return 0;
}

int accord_engine_expect(struct accord_engine *engine, uint32_t handle, uint32_t answer_bytes)
{
	struct transaction *transaction = transaction_of(&engine->table, handle);

	if (!transaction)
		return -ACCORD_REASON_UNKNOWN_TRANSACTION;
	transaction->expected = answer_bytes;
	return 0;
}

static void remember(struct accord_engine *engine, const struct transaction *transaction)
{
	remembered_learn(&engine->remembered, engine->table.seed, engine->now, &transaction->path, &transaction->recovery);
}

int accord_engine_prove(struct accord_engine *engine, uint32_t handle)
{
	struct transaction *transaction = transaction_of(&engine->table, handle);

	if (!transaction)
		return -ACCORD_REASON_UNKNOWN_TRANSACTION;
	transaction_prove(&engine->table, &engine->slab, transaction);
	remember(engine, transaction); /* the next one there may begin before this one is closed */
	transmit_schedule(engine, transaction);
	return 0;
}

int accord_engine_round_trip(struct accord_engine *engine, uint32_t handle, uint64_t rtt_us)
{
	struct transaction *transaction = transaction_of(&engine->table, handle);

	if (!transaction)
		return -ACCORD_REASON_UNKNOWN_TRANSACTION;
	if (transaction->recovery.srtt_us)
		return 0;
	recovery_on_sample(&transaction->recovery, rtt_us, engine->now);
	transmit_schedule(engine, transaction);
	return 0;
}

int accord_engine_probe(struct accord_engine *engine, uint64_t now, uint32_t handle)
{
	struct transaction *transaction = transaction_of(&engine->table, handle);

	engine_see(engine, now);
	if (!transaction)
		return -ACCORD_REASON_UNKNOWN_TRANSACTION;
	if (transaction->state != TRANSACTION_LIVE || !outbox_awaits(transaction))
		return 0;
	/* No time-out: the path was closed, which says nothing about its congestion (RFC 9002 section 6.2). */
	transaction->recovery.timer_base = engine->now;
	transaction->recovery.timeouts = 0;
	outbox_probe(transaction, &engine->slab);
	transmit_schedule(engine, transaction);
	return 0;
}

int accord_engine_close(struct accord_engine *engine, uint64_t now, uint32_t handle, uint64_t linger)
{
	struct transaction *transaction = transaction_of(&engine->table, handle);

	engine_see(engine, now);
	if (!transaction)
		return -ACCORD_REASON_UNKNOWN_TRANSACTION;
	reach(transaction, ACCORD_STAGE_CLOSED, 0, ACCORD_REASON_OK);
	if (!transaction->share.unproven)
		remember(engine, transaction);
	if (linger == 0) {
		engine_forget(engine, transaction);
		return 0;
	}
	withdraw_events(engine, transaction);
	outbox_release_retained(transaction, &engine->slab);
	reassembly_release(&transaction->reassembly, &engine->slab, &transaction->share);
	transaction_told(&engine->table, transaction);
	transaction->mute = transaction->state == TRANSACTION_FAILED;
	transaction_linger(&engine->table, transaction);
	transaction->expires = linger < UINT64_MAX - engine->now ? engine->now + linger : UINT64_MAX - 1;
	transmit_schedule(engine, transaction);
	return 0;
}

void accord_engine_forget_paths(struct accord_engine *engine)
{
	memset(&engine->remembered, 0, sizeof(engine->remembered));
}

int accord_engine_info(const struct accord_engine *engine, uint32_t handle, struct accord_transaction_info *info)
{
	const struct transaction *transaction = transaction_of(&engine->table, handle);

	if (!transaction)
		return -ACCORD_REASON_UNKNOWN_TRANSACTION;
	*info = (struct accord_transaction_info){
		.packets_sent = transaction->packets_sent,
		.packets_received = transaction->packets_received,
		.retransmitted = transaction->retransmitted,
		.duplicates = transaction->duplicates,
		.bytes_sent = transaction->bytes_sent,
		.bytes_received = transaction->bytes_received,
		.srtt_us = transaction->recovery.srtt_us,
		.rttvar_us = transaction->recovery.rttvar_us,
		.rto_us = recovery_pto(&transaction->recovery),
		.window = transaction->recovery.congestion.window,
		.threshold = transaction->recovery.congestion.threshold,
		.in_flight = transaction->recovery.in_flight,
		.datagram_bytes = transaction_datagram(transaction),
		.proven = !transaction->share.unproven,
		.path = transaction->path,
	};
	return 0;
}

/* ---- Events, counters ---- */

uint32_t accord_engine_events(struct accord_engine *engine, struct accord_event *events, uint32_t limit)
{
	struct event_queue *queue = &engine->events;
	uint32_t done = 0, used = 0;

	for (; queue->count && done < limit; event_drop(queue)) {
		const struct event *event = event_first(queue);
		struct transaction *transaction = transaction_of(&engine->table, event->handle);
		struct accord_event *out = &events[done];

		if (!event->handle || !transaction)
			continue;
		if (event->length > ENGINE_SCRATCH_BYTES - used)
			break;
		out->handle = event->handle;
		out->kind = event->kind;
		out->reason = event->reason;
		memcpy(out->transaction, transaction->id, sizeof(out->transaction));
		out->step = event->step;
		out->node = event->node;
		out->order = event->order;
		out->protocol = event->protocol;
		out->length = event->length;
		out->data = engine->scratch + used;
		/* Half of the event's bytes, and of one kind only. */
		if (event->kind == ACCORD_EVENT_OPENED)
			out->path = transaction->path;
		if (event->head != PIECE_NONE)
			used += pieces_take(&transaction->reassembly.fill, &engine->slab, &transaction->share, event->head,
			                    engine->scratch + used, event->length);
		if (--transaction->events == 0)
			transaction_told(&engine->table, transaction);
		done++;
	}
	return done + stranger_events(engine, events + done, limit - done, used);
}

uint64_t accord_engine_deadline(const struct accord_engine *engine)
{
	uint64_t due, slots;

	if (engine->events.count || engine->stranger_count || engine->reply_count)
		return 0;
	due = stranger_deadline(engine);
	slots = slots_deadline(&engine->slots);
	if (slots < due)
		due = slots;
	return engine->timer.count && engine->timer.entries[0].due < due ? engine->timer.entries[0].due : due;
}

void accord_engine_counters(const struct accord_engine *engine, uint64_t *counters)
{
	memcpy(counters, engine->counters, sizeof(engine->counters));
}

uint32_t accord_engine_transactions(const struct accord_engine *engine)
{
	return engine->table.live;
}

void accord_engine_usage(const struct accord_engine *engine, struct accord_engine_usage *usage)
{
	*usage = (struct accord_engine_usage){
		.transactions = engine->table.live,
		.transactions_limit = engine->config.transactions,
		.unproven = engine->table.unproven,
		.unproven_limit = engine->table.unproven_limit,
		.buffers = engine->slab.count - engine->slab.free_count,
		.buffers_limit = engine->slab.count,
		.events = engine->events.count,
		.events_limit = engine->events.size,
		.slots = engine->slots.taken,
		.slots_limit = engine->slots.count,
		.bytes = engine->bytes,
	};
}
