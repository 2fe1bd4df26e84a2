// SPDX-License-Identifier: Apache-2.0
/* Where an engine lives: one block of memory, its parts one after the other, taken once. */
#include <stdlib.h>

#include "engine.h"
#include "pieces.h"

enum {
	SMALLEST_PAGE = 4096,
	/* The most that the limits below allow. */
	LONGEST_BUFFER = sizeof(struct slab_head) + ACCORD_MAX_PACKET + SLAB_GRAIN,
};

_Static_assert(1ull * ENGINE_MAX_BUFFERS * LONGEST_BUFFER / PIECE_UNIT < UINT32_MAX, "a place in the slab has 32 bits");

enum part {
	PART_ENGINE,
	PART_SLOTS,
	PART_HEADS,
	PART_TIMER_ENTRIES,
	PART_TIMER_PLACES,
	PART_EVENTS,
	PART_SCRATCH,
	PART_STRANGERS,
	PART_PARTIALS,
	PART_SLOT_HEADS,
	PART_KEPT,
	PART_BUFFERS,
	PARTS,
};

static bool complete_config(struct accord_engine_config *config)
{
	if (!config->transactions)
		config->transactions = 1024;
	if (!config->unproven)
		config->unproven = config->transactions < 256 ? config->transactions : 256;
	if (!config->unproven_per_network)
		config->unproven_per_network = (config->unproven + 3) / 4;
	if (!config->proven_per_network)
		config->proven_per_network = (config->transactions + 15) / 16;
	if (!config->buffers)
		config->buffers = 4096;
	if (!config->buffer_bytes)
		config->buffer_bytes = 2048;
	if (!config->events)
		config->events = 4096;
	return config->transactions <= ENGINE_MAX_TRANSACTIONS && config->unproven <= config->transactions &&
	       config->buffers <= ENGINE_MAX_BUFFERS && config->buffer_bytes >= ACCORD_MIN_MTU_PACKET &&
	       config->buffer_bytes <= ACCORD_MAX_PACKET && config->events <= ENGINE_MAX_EVENTS &&
	       config->events >= PACKET_MAX_CHUNKS + ENGINE_EVENTS_PER_PACKET && config->congestion < ACCORD_CONGESTIONS &&
	       config->slots <= SLOTS_LIMIT;
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
		[PART_STRANGERS] = config->strangers_per_second ? ENGINE_STRANGERS * sizeof(struct stranger) : 0,
		[PART_PARTIALS] = config->strangers_per_second ? ENGINE_PARTIALS * sizeof(struct partial) : 0,
		[PART_SLOT_HEADS] = transaction_power(config->slots) * sizeof(uint32_t),
		[PART_KEPT] = config->slots * sizeof(struct slot),
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
	/* Now, and not when a flood comes to a part that nobody has used yet. */
	for (uint64_t at = 0; at < bytes; at += SMALLEST_PAGE)
		*(volatile uint8_t *)(memory + at) = 0;
	engine = (struct accord_engine *)(void *)(memory + starts[PART_ENGINE]);
	engine->config = whole;
	engine->bytes = bytes;
	engine->scratch = memory + starts[PART_SCRATCH];
	engine->strangers = (struct stranger *)(void *)(memory + starts[PART_STRANGERS]);
	partials_init(&engine->partials, (struct partial *)(void *)(memory + starts[PART_PARTIALS]),
	              whole.strangers_per_second ? ENGINE_PARTIALS : 0);
	load_init(&engine->load, whole.strangers_per_second, whole.unproven, 0);
	engine->events.ring = (struct event *)(void *)(memory + starts[PART_EVENTS]);
	engine->events.size = whole.events;
	slots_init(&engine->slots, (struct slot *)(void *)(memory + starts[PART_KEPT]),
	           (uint32_t *)(void *)(memory + starts[PART_SLOT_HEADS]), whole.slots, whole.seed);
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
