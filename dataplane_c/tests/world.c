// SPDX-License-Identifier: Apache-2.0
#include "world.h"

#include <stdlib.h>
#include <string.h>

#include "packet.h"

enum {
	DESCRIPTORS = WORLD_MAX_STEPS * WORLD_MAX_NODES,
};

uint64_t test_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

uint32_t test_below(uint64_t *state, uint32_t limit)
{
	return (uint32_t)(test_random(state) % limit);
}

struct accord_path test_path(uint8_t family, bool initiator)
{
	struct accord_path path = {
		.family = family,
		.context = ACCORD_PROTOCOL_UDP,
		.local_port = initiator ? 40000 : 443,
		.remote_port = initiator ? 443 : 40000,
		.socket = ACCORD_PATH_NO_SOCKET,
		.link_length = 14,
	};
	static const uint8_t v4[] = {192, 0, 2}, v6[] = {0x20, 0x01, 0x0d, 0xb8};
	const uint8_t *prefix = family == 4 ? v4 : v6;
	uint32_t bytes = family == 4 ? sizeof(v4) : sizeof(v6), last = family == 4 ? 3 : 15;

	memcpy(path.local, prefix, bytes);
	memcpy(path.remote, prefix, bytes);
	path.local[last] = initiator ? 1 : 2;
	path.remote[last] = initiator ? 2 : 1;
	return path;
}

void world_begin(struct world *world, const struct accord_engine_config *config)
{
	static const struct accord_engine_config small = {
		.transactions = 4, .unproven = 2, .buffers = 512, .buffer_bytes = 1200, .events = 256, .seed = 7};
	static const uint32_t protocols[] = {ACCORD_PROTOCOL_HTTP, ACCORD_PROTOCOL_TCP, ACCORD_PROTOCOL_TLS13};

	memset(world, 0, sizeof(*world));
	for (int side = 0; side < 2; side++) {
		world->sides[side].engine = accord_engine_new(config ? config : &small);
		world->sides[side].path = test_path(4, side == INITIATOR);
		accord_engine_support(world->sides[side].engine, protocols, 3);
	}
	for (int i = 0; i < ACCORD_TRANSACTION_BYTES; i++)
		world->id[i] = (uint8_t)(17 * i + 3);
	world->now = 1000000;
	world->one_way = 25000;
	world->batch = 3;
	world->queue = calloc(WORLD_QUEUE, sizeof(*world->queue));
	world->log = calloc(WORLD_LOG, sizeof(*world->log));
}

void world_drain(struct world *world)
{
	while (world->queued)
		free(world->queue[--world->queued].bytes);
}

void world_end(struct world *world)
{
	for (uint32_t step = 0; step < WORLD_MAX_STEPS; step++)
		for (uint32_t i = 0; i < world->script[step].count; i++)
			free((void *)(uintptr_t)world->script[step].nodes[i].data);
	accord_engine_free(world->sides[0].engine);
	accord_engine_free(world->sides[1].engine);
	world_drain(world);
	free(world->queue);
	free(world->log);
}

void world_node(struct world *world, uint32_t step, uint8_t node, uint32_t protocol, uint32_t length)
{
	struct world_message *message = &world->script[step];
	uint8_t *data = calloc(1, length);
	uint64_t state = 1000 * step + node + 1;

	for (uint32_t i = 4; i < length; i++)
		data[i] = (uint8_t)test_random(&state);
	message->nodes[message->count++] =
		(struct accord_node_out){.node = node, .protocol = protocol, .length = length, .data = data};
	if (step >= world->steps)
		world->steps = step + 1;
}

static struct world_side *side_of(struct world *world, uint32_t step)
{
	return &world->sides[step % 2 ? RESPONDER : INITIATOR];
}

static void send_step(struct world *world, uint32_t step)
{
	struct world_side *side = side_of(world, step);
	struct world_message *message = &world->script[step];
	int result = accord_engine_send(side->engine, world->now, side->handle, (uint8_t)step, message->nodes,
	                                message->count, message->packets_min);

	side->wrong += result != 0;
}

void world_start(struct world *world)
{
	struct world_side *side = &world->sides[INITIATOR];

	side->handle = (uint32_t)accord_engine_open(side->engine, world->now, world->id, &side->path);
	if (world->expected)
		accord_engine_expect(side->engine, side->handle, world->expected);
	send_step(world, 0);
}

static void check_node(struct world *world, struct world_side *side, const struct accord_event *event)
{
	const struct world_message *message = &world->script[event->step];

	side->nodes[event->step]++;
	side->wrong += side->messages[event->step] != 0;
	for (uint32_t i = 0; i < message->count; i++) {
		if (message->nodes[i].node != event->node)
			continue;
		side->wrong += message->nodes[i].protocol != event->protocol || message->nodes[i].length != event->length ||
		               memcmp(message->nodes[i].data, event->data, event->length) != 0;
		return;
	}
	side->wrong++;
}

static void act(struct world *world, struct world_side *side, const struct accord_event *event)
{
	switch (event->kind) {
	case ACCORD_EVENT_OPENED:
		side->handle = event->handle;
		side->opened++;
		if (!side->proven_late)
			accord_engine_prove(side->engine, side->handle);
		break;
	case ACCORD_EVENT_NODE:
		check_node(world, side, event);
		if (event->step == ACCORD_STEP_PROPOSAL && world->enough) {
			bool before = (world->met & world->enough) == world->enough;

			world->met |= UINT64_C(1) << event->node;
			if (!before && (world->met & world->enough) == world->enough)
				send_step(world, ACCORD_STEP_ANSWER);
		}
		break;
	case ACCORD_EVENT_SKIPPED:
		side->skipped[event->step]++;
		break;
	case ACCORD_EVENT_MESSAGE:
		side->messages[event->step]++;
		if (event->step == ACCORD_STEP_COMMIT)
			accord_engine_prove(side->engine, side->handle);
		if (event->step + 1u < world->steps && (event->step != ACCORD_STEP_PROPOSAL || !world->enough))
			send_step(world, event->step + 1u);
		break;
	case ACCORD_EVENT_ARRIVED:
		side->arrived[event->step]++;
		break;
	case ACCORD_EVENT_CHALLENGED:
		break; /* the counters tell */
	case ACCORD_EVENT_FAILED:
		side->failed++;
		side->reason = event->reason;
		break;
	default:
		side->wrong++;
	}
}

static void enqueue(struct world *world, enum side to, const struct accord_packet_out *packets, uint32_t count,
                    uint64_t arrives)
{
	struct world_datagram *datagram;

	if (world->queued == WORLD_QUEUE)
		abort();
	datagram = &world->queue[world->queued++];
	datagram->to = to;
	datagram->arrives = arrives;
	datagram->length = 0;
	datagram->bytes = malloc(ACCORD_MAX_PACKET);
	for (uint32_t i = 0; i < count; i++) {
		memcpy(datagram->bytes + datagram->length, packets[i].data, packets[i].length);
		datagram->length += packets[i].length;
	}
	datagram->bytes = realloc(datagram->bytes, datagram->length);
}

/* Packets of one call: each with bytes of its own, and announcing the next one if that shares its datagram. */
static bool sound(const struct accord_packet_out *packets, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct packet packet;

		if (packet_parse(&packet, packets[i].data, packets[i].length) != ACCORD_REASON_OK ||
		    !packets[i].joined != !(packet.flags & ACCORD_FLAG_MORE) || (packets[i].joined && i + 1 == count))
			return false;
		for (uint32_t before = 0; before < i; before++)
			if (packets[before].data == packets[i].data)
				return false;
	}
	return true;
}

/* One datagram; returns how many packets are in it. */
static uint32_t transmit(struct world *world, enum side from, const struct accord_packet_out *packets)
{
	uint64_t bit = world->sent < 64 ? UINT64_C(1) << world->sent : 0;
	uint64_t arrives = world->now + world->one_way;
	uint32_t count = 1, length = packets[0].length;
	bool dropped;

	for (; packets[count - 1].joined; count++)
		length += packets[count].length;
	dropped = world->cut || world->loss & bit || (world->longest && length > world->longest);
	world->sent++;
	world->sides[from].datagrams++;
	world->sides[from].packets += count;
	world->sides[from].bytes += length;
	for (uint32_t i = 0; i < count && world->logged < WORLD_LOG; i++) {
		world->log[world->logged].from = from;
		world->log[world->logged].length = packets[i].length;
		world->log[world->logged].shared = length;
		world->log[world->logged].dropped = dropped;
		world->log[world->logged].at = world->now;
		memcpy(world->log[world->logged++].header, packets[i].data, ACCORD_HEADER_BYTES);
	}
	if (dropped)
		return count;
	if (world->delay & bit)
		arrives += world->one_way * 3 / 2;
	enqueue(world, !from, packets, count, arrives);
	if (world->duplicate & bit)
		enqueue(world, !from, packets, count, arrives + 1);
	return count;
}

void world_pump(struct world *world)
{
	bool busy = true;

	while (busy) {
		busy = false;
		for (int i = 0; i < 2; i++) {
			struct world_side *side = &world->sides[i];
			struct accord_event events[3];
			struct accord_packet_out packets[WORLD_BATCH];
			uint32_t count;

			/* Timers run in output, and may have events to tell: so events come second. */
			while ((count = accord_engine_output(side->engine, world->now, packets, world->batch)) > 0) {
				busy = true;
				side->wrong += !sound(packets, count);
				for (uint32_t p = 0; p < count;)
					p += transmit(world, (enum side)i, &packets[p]);
			}
			while ((count = accord_engine_events(side->engine, events, 3)) > 0) {
				busy = true;
				for (uint32_t e = 0; e < count; e++)
					act(world, side, &events[e]);
			}
		}
	}
}

static uint32_t next_datagram(const struct world *world)
{
	uint32_t best = 0;

	for (uint32_t i = 1; i < world->queued; i++)
		if (world->queue[i].arrives < world->queue[best].arrives)
			best = i;
	return best;
}

void world_run(struct world *world, uint64_t duration)
{
	uint64_t end = world->now + duration;

	for (;;) {
		uint64_t next = UINT64_MAX;

		world_pump(world);
		for (int i = 0; i < 2; i++) {
			uint64_t deadline = accord_engine_deadline(world->sides[i].engine);

			/* A deadline that has passed with nothing done about it would be a busy loop. */
			if (deadline <= world->now) {
				world->sides[i].wrong++;
				return;
			}
			next = deadline < next ? deadline : next;
		}
		if (world->queued && world->queue[next_datagram(world)].arrives < next)
			next = world->queue[next_datagram(world)].arrives;
		if (next > end) {
			world->now = end;
			return;
		}
		world->now = next;
		while (world->queued && world->queue[next_datagram(world)].arrives <= world->now) {
			uint32_t index = next_datagram(world);
			struct world_datagram datagram = world->queue[index];
			struct world_side *side = &world->sides[datagram.to];

			memmove(&world->queue[index], &world->queue[index + 1], (--world->queued - index) * sizeof(*world->queue));
			accord_engine_input(side->engine, world->now, &side->path, datagram.bytes, datagram.length);
			free(datagram.bytes);
		}
	}
}

bool world_done(const struct world *world)
{
	for (uint32_t step = 0; step < world->steps; step++) {
		const struct world_side *from = &world->sides[step % 2 ? RESPONDER : INITIATOR];
		const struct world_side *to = &world->sides[step % 2 ? INITIATOR : RESPONDER];
		uint32_t count = world->script[step].count;

		if (to->messages[step] != 1 || from->arrived[step] != 1 || to->nodes[step] + to->skipped[step] != count ||
		    from->wrong || to->wrong || from->failed || to->failed)
			return false;
	}
	return true;
}

void world_close(struct world *world, uint64_t linger)
{
	for (int i = 0; i < 2; i++)
		accord_engine_close(world->sides[i].engine, world->now, world->sides[i].handle, linger);
}

uint64_t world_counter(const struct world *world, enum side side, uint32_t reason)
{
	uint64_t counters[ACCORD_REASON_LIMIT];

	accord_engine_counters(world->sides[side].engine, counters);
	return counters[reason];
}
