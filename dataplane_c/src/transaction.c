// SPDX-License-Identifier: Apache-2.0
#include "transaction.h"

#include <stddef.h>
#include <string.h>

#include "hash.h"

uint32_t transaction_power(uint32_t value)
{
	uint32_t power = 1;

	while (power < value)
		power *= 2;
	return power;
}

void transaction_table_init(struct transaction_table *table, struct transaction *slots, uint32_t *heads,
                            const struct accord_engine_config *config)
{
	memset(table, 0, sizeof(*table));
	table->slots = slots;
	table->heads = heads;
	table->count = config->transactions;
	table->unproven_limit = config->unproven;
	table->slot_mask = transaction_power(config->transactions) - 1;
	table->head_mask = transaction_power(config->transactions) - 1;
	table->congestion = (enum accord_congestion)config->congestion;
	table->seed = hash_mix(UINT64_C(0x9e3779b97f4a7c15) + config->seed);
	table->unproven_crowd.limit = config->unproven_per_network;
	table->admitted_limit = (config->transactions + 3) / 4;
	table->admitted_crowd.limit = config->proven_per_network;
	table->untold_crowd.limit = TRANSACTION_UNTOLD;
	for (uint32_t head = 0; head <= table->head_mask; head++)
		heads[head] = TRANSACTION_NONE;
	for (uint32_t slot = 0; slot < table->count; slot++) {
		slots[slot].state = TRANSACTION_FREE;
		slots[slot].slot = slot;
		/* A handle is generation * size + slot. Generations start at 1, so it is never 0. */
		slots[slot].handle = slot;
		slots[slot].next = slot + 1 < table->count ? slot + 1 : TRANSACTION_NONE;
	}
	table->lingering_head = table->lingering_tail = TRANSACTION_NONE;
	table->free = 0;
	for (uint32_t i = 0; i < TRANSACTION_RESTING; i++)
		table->resting[i] = TRANSACTION_NONE;
}

static uint32_t take_slot(struct transaction_table *table)
{
	uint32_t slot = table->free;

	if (slot != TRANSACTION_NONE) {
		table->free = table->slots[slot].next;
		return slot;
	}
	for (uint32_t i = 0; slot == TRANSACTION_NONE && i < TRANSACTION_RESTING; i++) {
		uint32_t *longest = &table->resting[(table->rested + i) % TRANSACTION_RESTING];

		slot = *longest;
		*longest = TRANSACTION_NONE;
	}
	return slot;
}

/* The handles of a slot come around after so many negotiations in it; resting makes that many more. */
static void give_slot(struct transaction_table *table, uint32_t slot)
{
	uint32_t rested = table->resting[table->rested];

	table->resting[table->rested] = slot;
	table->rested = (table->rested + 1) % TRANSACTION_RESTING;
	if (rested == TRANSACTION_NONE)
		return;
	table->slots[rested].next = table->free;
	table->free = rested;
}

static uint32_t chain(const struct transaction_table *table, const uint8_t *id, enum role role)
{
	uint64_t first, last;

	/* Of twelve bytes, with four in common. */
	memcpy(&first, id, sizeof(first));
	memcpy(&last, id + ACCORD_TRANSACTION_BYTES - sizeof(last), sizeof(last));
	return (uint32_t)hash_mix(hash_mix((table->seed + (uint64_t)role) ^ first) ^ last) & table->head_mask;
}

struct transaction *transaction_find(const struct transaction_table *table, const uint8_t *id, enum role role)
{
	for (uint32_t slot = table->heads[chain(table, id, role)]; slot != TRANSACTION_NONE;
	     slot = table->slots[slot].next) {
		struct transaction *transaction = &table->slots[slot];

		if (transaction->role == role && memcmp(transaction->id, id, ACCORD_TRANSACTION_BYTES) == 0)
			return transaction;
	}
	return NULL;
}

struct transaction *transaction_of(const struct transaction_table *table, uint32_t handle)
{
	uint32_t slot = handle & table->slot_mask;
	struct transaction *transaction;

	if (slot >= table->count)
		return NULL;
	transaction = &table->slots[slot];
	if (transaction->handle != handle)
		return NULL;
	if (transaction->state != TRANSACTION_LIVE && transaction->state != TRANSACTION_FAILED)
		return NULL;
	return transaction;
}

struct transaction *transaction_new(struct transaction_table *table, uint64_t now, const uint8_t *id,
                                    enum admission admission, const struct accord_path *path, uint32_t *reason)
{
	enum role role = admission == ADMISSION_OURS ? ROLE_INITIATOR : ROLE_RESPONDER;
	struct transaction *transaction;
	uint32_t handle, slot;

	if (table->live == table->count) {
		*reason = ACCORD_REASON_NO_MEMORY;
		return NULL;
	}
	if (admission == ADMISSION_UNPROVEN && table->unproven >= table->unproven_limit) {
		*reason = ACCORD_REASON_QUOTA;
		return NULL;
	}
	slot = take_slot(table);
	transaction = &table->slots[slot];
	handle = transaction->handle + table->slot_mask + 1;
	if (handle <= table->slot_mask)
		handle += table->slot_mask + 1;
	memset(transaction, 0, offsetof(struct transaction, range));
	memset(&transaction->outbox, 0, offsetof(struct outbox, buffers));
	transaction->handle = handle;
	transaction->slot = slot;
	transaction->state = TRANSACTION_LIVE;
	transaction->role = (uint8_t)role;
	memcpy(transaction->id, id, ACCORD_TRANSACTION_BYTES);
	transaction->path = *path;
	transaction->created = now;
	transaction->ack_due = UINT64_MAX;
	transaction->outbox.step = -1;
	ackrange_init(&transaction->range);
	reassembly_init(&transaction->reassembly);
	recovery_init(&transaction->recovery, table->congestion, ACCORD_INITIAL_WINDOW);

	table->live++;
	transaction->share.unproven = admission == ADMISSION_UNPROVEN;
	transaction->admitted = admission == ADMISSION_COOKIE;
	table->unproven += transaction->share.unproven;
	transaction->crowd = crowd_places(table->seed, path);
	if (admission == ADMISSION_UNPROVEN)
		crowd_enter(&table->unproven_crowd, transaction->crowd);
	if (admission == ADMISSION_COOKIE) {
		table->admitted++;
		crowd_enter(&table->admitted_crowd, transaction->crowd);
		crowd_enter(&table->untold_crowd, transaction->crowd);
		transaction->untold = true;
		table->untold++;
	}
	transaction->head = chain(table, id, role);
	transaction->next = table->heads[transaction->head];
	table->heads[transaction->head] = slot;
	return transaction;
}

void transaction_linger(struct transaction_table *table, struct transaction *transaction)
{
	transaction->state = TRANSACTION_LINGERING;
	transaction->sooner = table->lingering_tail;
	transaction->later = TRANSACTION_NONE;
	if (table->lingering_tail == TRANSACTION_NONE)
		table->lingering_head = transaction->slot;
	else
		table->slots[table->lingering_tail].later = transaction->slot;
	table->lingering_tail = transaction->slot;
	table->lingering++;
	table->lingering_unproven += transaction->share.unproven;
}

struct transaction *transaction_unproven_lingering(struct transaction_table *table)
{
	struct transaction *transaction;

	if (!table->lingering_unproven)
		return NULL;
	for (uint32_t slot = table->lingering_head;; slot = transaction->later) {
		transaction = &table->slots[slot];
		if (transaction->share.unproven)
			return transaction;
	}
}

static void end_lingering(struct transaction_table *table, const struct transaction *transaction)
{
	table->lingering--;
	table->lingering_unproven -= transaction->share.unproven;
	if (transaction->sooner == TRANSACTION_NONE)
		table->lingering_head = transaction->later;
	else
		table->slots[transaction->sooner].later = transaction->later;
	if (transaction->later == TRANSACTION_NONE)
		table->lingering_tail = transaction->sooner;
	else
		table->slots[transaction->later].sooner = transaction->sooner;
}

static uint32_t left(uint32_t limit, uint32_t taken)
{
	return limit > taken ? limit - taken : 0;
}

/* How many more may be admitted by a cookie: of those that are theirs, and of the table, where what lingers gives way
 * and unproven peers have theirs in any case, up to a half of it. */
static uint32_t places_left(const struct transaction_table *table)
{
	uint32_t kept = table->unproven_limit < table->count / 2 ? table->unproven_limit : table->count / 2;
	uint32_t unproven = table->unproven - table->lingering_unproven, taken = table->live - table->lingering;
	uint32_t room = left(table->count, taken + left(kept, unproven));
	uint32_t theirs = left(table->admitted_limit, table->admitted);

	return room < theirs ? room : theirs;
}

bool transaction_admits(const struct transaction_table *table, const struct accord_path *path)
{
	uint32_t places = crowd_places(table->seed, path);

	return crowd_admits(&table->admitted_crowd, places, places_left(table)) &&
	       crowd_admits(&table->untold_crowd, places, TRANSACTION_UNTOLD - table->untold);
}

void transaction_told(struct transaction_table *table, struct transaction *transaction)
{
	if (!transaction->untold)
		return;
	transaction->untold = false;
	table->untold--;
	crowd_leave(&table->untold_crowd, transaction->crowd);
}

static void leave_crowd(struct transaction_table *table, struct transaction *transaction)
{
	if (transaction->share.unproven)
		crowd_leave(&table->unproven_crowd, transaction->crowd);
	if (transaction->admitted) {
		table->admitted--;
		crowd_leave(&table->admitted_crowd, transaction->crowd);
	}
	transaction->admitted = false;
}

void transaction_free(struct transaction_table *table, struct transaction *transaction)
{
	uint32_t *link = &table->heads[transaction->head];

	if (transaction->state == TRANSACTION_LINGERING)
		end_lingering(table, transaction);
	while (*link != transaction->slot)
		link = &table->slots[*link].next;
	*link = transaction->next;
	transaction_told(table, transaction);
	leave_crowd(table, transaction);
	table->live--;
	table->unproven -= transaction->share.unproven;
	transaction->state = TRANSACTION_FREE;
	give_slot(table, transaction->slot);
}

void transaction_prove(struct transaction_table *table, struct slab *slab, struct transaction *transaction)
{
	leave_crowd(table, transaction);
	table->unproven -= transaction->share.unproven;
	slab_prove(slab, &transaction->share);
}

void transaction_learn(struct transaction *transaction, const struct accord_path *path)
{
	static const uint8_t unspecified[sizeof(path->local)];
	struct accord_path *ours = &transaction->path;

	if (path->socket != ACCORD_PATH_NO_SOCKET)
		ours->socket = path->socket;
	if (path->link_length && path->link_length <= ACCORD_MAX_LINK_HEADER) {
		ours->queue = path->queue;
		ours->link_length = path->link_length;
		memcpy(ours->link, path->link, sizeof(ours->link));
	}
	/* Of what the route promised and what the link has, the smaller. */
	if (path->mtu && (!ours->mtu || path->mtu < ours->mtu))
		ours->mtu = path->mtu;
	if (memcmp(ours->local, unspecified, sizeof(unspecified)) == 0)
		memcpy(ours->local, path->local, sizeof(ours->local));
	if (!ours->local_port)
		ours->local_port = path->local_port;
}

uint32_t transaction_datagram(const struct transaction *transaction)
{
	uint32_t overhead = transaction_overhead(transaction);

	if (transaction->alone || transaction->path.mtu < overhead + ACCORD_MIN_MTU_PACKET)
		return ACCORD_MIN_MTU_PACKET;
	if (transaction->path.mtu - overhead > ACCORD_MAX_PACKET)
		return ACCORD_MAX_PACKET;
	return transaction->path.mtu - overhead;
}
