// SPDX-License-Identifier: Apache-2.0
/* The engine from outside: making one, transactions as their user handles them, events. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

#include "descriptor.h"
#include "message.h"
#include "outbox.h"

/* ---- Memory: one block, its parts one after the other ---- */

enum part {
	PART_ENGINE,
	PART_SLOTS,
	PART_HEADS,
	PART_TIMER_ENTRIES,
	PART_TIMER_PLACES,
	PART_EVENTS,
	PART_SCRATCH,
	PART_BUFFERS,
	PARTS,
};

static bool complete_config(struct accord_engine_config *config)
{
	if (!config->transactions)
		config->transactions = 1024;
	if (!config->unproven)
		config->unproven = config->transactions < 256 ? config->transactions : 256;
	if (!config->buffers)
		config->buffers = 4096;
	if (!config->buffer_bytes)
		config->buffer_bytes = 2048;
	if (!config->events)
		config->events = 4096;
	return config->transactions <= ENGINE_MAX_TRANSACTIONS && config->unproven <= config->transactions &&
	       config->buffers <= ENGINE_MAX_BUFFERS && config->buffer_bytes >= ACCORD_MIN_MTU_PACKET &&
	       config->buffer_bytes <= ACCORD_MAX_PACKET && config->events <= ENGINE_MAX_EVENTS &&
	       config->events >= PACKET_MAX_CHUNKS + ENGINE_EVENTS_PER_PACKET;
}

/* Where each part begins; returns where the last one ends. */
static uint64_t lay_out(const struct accord_engine_config *config, uint64_t *starts)
{
	uint64_t transactions = config->transactions;
	uint64_t sizes[PARTS] = {
		[PART_ENGINE] = sizeof(struct accord_engine),
		[PART_SLOTS] = transactions * sizeof(struct transaction),
		[PART_HEADS] = transaction_power(config->transactions) * sizeof(uint32_t),
		[PART_TIMER_ENTRIES] = transactions * sizeof(struct timer_entry),
		[PART_TIMER_PLACES] = transactions * sizeof(uint32_t),
		[PART_EVENTS] = config->events * sizeof(struct event),
		[PART_SCRATCH] = ENGINE_SCRATCH_BYTES,
		[PART_BUFFERS] = (uint64_t)config->buffers * slab_stride(config->buffer_bytes),
	};
	uint64_t at = 0;

	for (uint32_t part = 0; part < PARTS; part++) {
		starts[part] = at;
		at += (sizes[part] + SLAB_GRAIN - 1) / SLAB_GRAIN * SLAB_GRAIN;
	}
	return at;
}

uint64_t accord_engine_bytes(const struct accord_engine_config *config)
{
	struct accord_engine_config whole = *config;
	uint64_t starts[PARTS];

	return complete_config(&whole) ? lay_out(&whole, starts) : 0;
}

struct accord_engine *accord_engine_new(const struct accord_engine_config *config)
{
	struct accord_engine_config whole = *config;
	struct accord_engine *engine;
	uint64_t starts[PARTS];
	uint64_t bytes;
	uint8_t *memory;

	if (!complete_config(&whole))
		return NULL;
	bytes = lay_out(&whole, starts);
	memory = calloc(1, bytes);
	if (!memory)
		return NULL;
	engine = (struct accord_engine *)(void *)(memory + starts[PART_ENGINE]);
	engine->config = whole;
	engine->bytes = bytes;
	engine->scratch = memory + starts[PART_SCRATCH];
	engine->events.ring = (struct event *)(void *)(memory + starts[PART_EVENTS]);
	engine->events.size = whole.events;
	transaction_table_init(&engine->table, (struct transaction *)(void *)(memory + starts[PART_SLOTS]),
	                       (uint32_t *)(void *)(memory + starts[PART_HEADS]), &whole);
	timer_init(&engine->timer, (struct timer_entry *)(void *)(memory + starts[PART_TIMER_ENTRIES]),
	           (uint32_t *)(void *)(memory + starts[PART_TIMER_PLACES]), whole.transactions);
	slab_init(&engine->slab, memory + starts[PART_BUFFERS], whole.buffers, whole.buffer_bytes, whole.unproven);
	return engine;
}

void accord_engine_free(struct accord_engine *engine)
{
	free(engine);
}

/* ---- What the halves share ---- */

void engine_see(struct accord_engine *engine, uint64_t now)
{
	if (now > engine->now)
		engine->now = now;
}

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

bool engine_tell(struct accord_engine *engine, struct transaction *transaction, struct event event)
{
	event.handle = transaction->handle;
	if (!event_push(&engine->events, event))
		return false;
	transaction->events++;
	return true;
}

bool engine_fail(struct accord_engine *engine, struct transaction *transaction, uint32_t reason)
{
	struct event event = {.kind = ACCORD_EVENT_FAILED, .reason = (uint16_t)reason};

	if (!engine_tell(engine, transaction, event))
		return false;
	if (reason == ACCORD_REASON_TIMEOUT || reason == ACCORD_REASON_LIFETIME)
		engine_count(engine, reason);
	transaction->state = TRANSACTION_FAILED;
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
		pieces_release(&transaction->reassembly, &engine->slab, &transaction->share, event->head);
		event->handle = 0;
		transaction->events--;
	}
	while (engine->events.count && !event_at(&engine->events, 0)->handle)
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
	transaction = transaction_new(&engine->table, engine->now, id, ROLE_INITIATOR, path, &reason);
	if (!transaction)
		return -(int64_t)reason;
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

int accord_engine_send(struct accord_engine *engine, uint64_t now, uint32_t handle, uint8_t step,
                       const struct accord_node_out *nodes, uint32_t count, uint32_t packets_min)
{
	struct transaction *transaction = transaction_of(&engine->table, handle);
	uint32_t reason;
	int32_t next;

	engine_see(engine, now);
	if (!transaction)
		return -ACCORD_REASON_UNKNOWN_TRANSACTION;
	if (transaction->state != TRANSACTION_LIVE)
		return -ACCORD_REASON_CLOSED;
	next = transaction->outbox.step < 0 ? transaction->role == ROLE_RESPONDER : transaction->outbox.step + 2;
	if (step != next || step >= ACCORD_MAX_STEPS)
		return -ACCORD_REASON_BAD_STEP;
	reason = check_nodes(nodes, count);
	if (!reason && step > ACCORD_STEP_PROPOSAL)
		outbox_release_retained(transaction, &engine->slab);
	if (!reason)
		reason = message_queue(transaction, &engine->slab, engine->now, step, nodes, count, packets_min);
	if (reason)
		return -(int)reason;
	transmit_schedule(engine, transaction);
	return 0;
}

int accord_engine_prove(struct accord_engine *engine, uint32_t handle)
{
	struct transaction *transaction = transaction_of(&engine->table, handle);

	if (!transaction)
		return -ACCORD_REASON_UNKNOWN_TRANSACTION;
	transaction_prove(&engine->table, &engine->slab, transaction);
	transmit_schedule(engine, transaction);
	return 0;
}

/*
 * A floor, for a message of no more nodes than the peer's latest has (an answer holds only what was
 * proposed). Each packet may leave a chunk header's room unused, and adds a chunk header for the node that
 * it goes on with.
 */
int64_t accord_engine_budget(const struct accord_engine *engine, uint32_t handle)
{
	const struct transaction *transaction = transaction_of(&engine->table, handle);
	const uint64_t per_packet = ACCORD_HEADER_BYTES + 2 * ACCORD_CHUNK_HEADER_BYTES;
	uint64_t room = UINT64_MAX, packets, wire, bytes, rest, nodes = 0;

	if (!transaction)
		return -ACCORD_REASON_UNKNOWN_TRANSACTION;
	if (transaction->state != TRANSACTION_LIVE)
		return 0;
	packets = (uint64_t)ACCORD_MAX_PACKETS - transaction->outbox.total;
	wire = ACCORD_MIN_MTU_PACKET + transaction_overhead(transaction);
	if (transaction->share.unproven) {
		uint64_t spent = transaction->wire_sent;

		for (uint16_t offset = transaction->outbox.sent; offset < transaction->outbox.total; offset++)
			spent += slab_head(&engine->slab, transaction->outbox.buffers[offset])->length +
			         transaction_overhead(transaction);
		room = ACCORD_AMPLIFICATION * transaction->wire_received;
		room = room > spent ? room - spent : 0;
	}
	for (uint32_t id = 0; id < ACCORD_MAX_NODES; id++)
		nodes += transaction->reassembly.latest >= 0 &&
		         transaction->reassembly.nodes[id].step == transaction->reassembly.latest;
	if (room / wire >= packets) {
		bytes = packets * (ACCORD_MIN_MTU_PACKET - per_packet);
	} else {
		rest = room % wire;
		bytes = room / wire * (ACCORD_MIN_MTU_PACKET - per_packet);
		if (rest > per_packet + transaction_overhead(transaction))
			bytes += rest - per_packet - transaction_overhead(transaction);
	}
	bytes = bytes > nodes * ACCORD_CHUNK_HEADER_BYTES ? bytes - nodes * ACCORD_CHUNK_HEADER_BYTES : 0;
	return (int64_t)(bytes < ACCORD_MAX_MESSAGE_BYTES ? bytes : ACCORD_MAX_MESSAGE_BYTES);
}

int accord_engine_close(struct accord_engine *engine, uint64_t now, uint32_t handle, uint64_t linger)
{
	struct transaction *transaction = transaction_of(&engine->table, handle);

	engine_see(engine, now);
	if (!transaction)
		return -ACCORD_REASON_UNKNOWN_TRANSACTION;
	if (linger == 0) {
		engine_forget(engine, transaction);
		return 0;
	}
	withdraw_events(engine, transaction);
	outbox_release_retained(transaction, &engine->slab);
	reassembly_release(&transaction->reassembly, &engine->slab, &transaction->share);
	transaction->mute = transaction->state == TRANSACTION_FAILED;
	transaction->state = TRANSACTION_LINGERING;
	transaction->expires = linger < UINT64_MAX - engine->now ? engine->now + linger : UINT64_MAX - 1;
	transmit_schedule(engine, transaction);
	return 0;
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
		.window = transaction->recovery.window,
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
		const struct event *event = event_at(queue, 0);
		struct transaction *transaction = transaction_of(&engine->table, event->handle);
		struct accord_event *out = &events[done];

		if (!event->handle || !transaction)
			continue;
		if (event->length > ENGINE_SCRATCH_BYTES - used)
			break;
		memset(out, 0, sizeof(*out));
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
		if (event->kind == ACCORD_EVENT_OPENED)
			out->path = transaction->path;
		used += pieces_copy(&engine->slab, event->head, engine->scratch + used, event->length);
		pieces_release(&transaction->reassembly, &engine->slab, &transaction->share, event->head);
		transaction->events--;
		done++;
	}
	return done;
}

uint64_t accord_engine_deadline(const struct accord_engine *engine)
{
	if (engine->events.count)
		return 0;
	return engine->timer.count ? engine->timer.entries[0].due : UINT64_MAX;
}

void accord_engine_counters(const struct accord_engine *engine, uint64_t *counters)
{
	memcpy(counters, engine->counters, sizeof(engine->counters));
}

uint32_t accord_engine_transactions(const struct accord_engine *engine)
{
	return engine->table.live;
}
