// SPDX-License-Identifier: Apache-2.0
#include "flight.h"

#include <string.h>

#include "descriptor.h"
#include "engine.h"

enum {
	LENGTH_BYTES = 2,
	WHOLE = ACCORD_CHUNK_FIRST | ACCORD_CHUNK_LAST,
};

uint32_t flight_bare(const struct packet *packet, const uint8_t *bytes, uint8_t *bare)
{
	uint32_t skipped = packet->cookie ? ACCORD_COOKIE_BYTES : 0, length = packet->length - skipped;
	uint8_t *flags = bare + offsetof(struct accord_header, flags);

	if (length > ACCORD_MIN_MTU_PACKET)
		return 0;
	memcpy(bare, bytes, ACCORD_HEADER_BYTES);
	memcpy(bare + ACCORD_HEADER_BYTES, bytes + ACCORD_HEADER_BYTES + skipped, length - ACCORD_HEADER_BYTES);
	store16(flags, load16(flags) & (uint16_t)~ACCORD_FLAG_COOKIE);
	packet_seal(bare, length, 0, 0);
	return length;
}

bool flight_add(struct flight *flight, const uint8_t *bare, uint32_t length)
{
	if (flight->packets == ACCORD_FLIGHT_PACKETS || flight->length + LENGTH_BYTES + length > sizeof(flight->bytes))
		return false;
	store16(flight->bytes + flight->length, (uint16_t)length);
	memcpy(flight->bytes + flight->length + LENGTH_BYTES, bare, length);
	flight->length += LENGTH_BYTES + length;
	flight->packets++;
	return true;
}

const uint8_t *flight_next(const uint8_t **at, const uint8_t *end, uint32_t *length)
{
	const uint8_t *packet = *at + LENGTH_BYTES;

	if (end - *at < LENGTH_BYTES)
		return NULL;
	*length = load16(*at);
	if (*length > end - packet)
		return NULL;
	*at = packet + *length;
	return packet;
}

/* ---- Reading ---- */

/* A node whose chunks are being counted, then copied. */
struct reading {
	struct accord_node_in *node;
	uint32_t packet; /* its latest chunk's */
	bool over;
};

struct reader {
	const struct accord_engine *engine;
	struct accord_node_in *nodes;
	uint32_t count;
	struct reading readings[ACCORD_MAX_NODES];
	int8_t places[ACCORD_MAX_NODES]; /* by node ID; -1: none */
	struct packet packets[ACCORD_FLIGHT_PACKETS];
	uint32_t packet_count;
};

/* Packets that follow on each other, of one step, of which the last one is its message's. */
static uint32_t read_packets(struct reader *reader, const uint8_t *flight, uint32_t length)
{
	const uint8_t *at = flight, *end = flight + length;

	while (at < end) {
		struct packet *packet = &reader->packets[reader->packet_count];
		const struct packet *first = reader->packets;
		const uint8_t *bytes;
		uint32_t bytes_length, reason;

		if (reader->packet_count && first[reader->packet_count - 1].flags & ACCORD_FLAG_END)
			return ACCORD_REASON_BAD_FLAGS;
		bytes = reader->packet_count < ACCORD_FLIGHT_PACKETS ? flight_next(&at, end, &bytes_length) : NULL;
		if (!bytes)
			return ACCORD_REASON_MESSAGE_TOO_LONG;
		reason = packet_parse(packet, bytes, bytes_length);
		if (reason)
			return reason;
		if (packet->step != first->step || packet->offset != first->offset + reader->packet_count)
			return ACCORD_REASON_BAD_TSN;
		reader->packet_count++;
	}
	if (!reader->packet_count || !(reader->packets[reader->packet_count - 1].flags & ACCORD_FLAG_END))
		return ACCORD_REASON_BAD_FLAGS;
	return ACCORD_REASON_OK;
}

/* MUST-10, MUST-11: first its beginning, then its other chunks, one in each of the packets that follow. */
static uint32_t count_chunk(struct reader *reader, const struct chunk *chunk, uint32_t packet)
{
	struct reading *reading;

	if (chunk->flags & ACCORD_CHUNK_FIRST) {
		if (reader->places[chunk->node] >= 0)
			return ACCORD_REASON_BAD_CHUNK;
		reader->places[chunk->node] = (int8_t)reader->count;
		reading = &reader->readings[reader->count];
		reading->node = &reader->nodes[reader->count++];
		*reading->node = (struct accord_node_in){
			.node = chunk->node,
			.stored = engine_supports(reader->engine, chunk->node, chunk->protocol),
			.protocol = chunk->protocol,
		};
	} else {
		if (reader->places[chunk->node] < 0)
			return ACCORD_REASON_BAD_CHUNK;
		reading = &reader->readings[reader->places[chunk->node]];
		if (reading->over || reading->packet + 1 != packet || reading->node->protocol != chunk->protocol)
			return ACCORD_REASON_BAD_CHUNK;
	}
	reading->packet = packet;
	reading->over = chunk->flags & ACCORD_CHUNK_LAST;
	reading->node->length += chunk->length;
	return ACCORD_REASON_OK;
}

/* One whose chunks are all there gets its place in the room, of as many bytes as the flight has. */
static uint32_t lay_out(struct reader *reader, uint8_t *room)
{
	for (uint32_t i = 0; i < reader->count; i++) {
		if (!reader->readings[i].over)
			return ACCORD_REASON_BAD_CHUNK;
		reader->nodes[i].data = room;
		room += reader->nodes[i].length;
		reader->nodes[i].length = 0;
	}
	return ACCORD_REASON_OK;
}

static void copy_chunk(struct reader *reader, const struct chunk *chunk)
{
	struct accord_node_in *node = &reader->nodes[reader->places[chunk->node]];

	memcpy((uint8_t *)node->data + node->length, chunk->data, chunk->length);
	node->length += chunk->length;
}

int accord_engine_read(const struct accord_engine *engine, const uint8_t *flight, uint32_t length,
                       struct accord_node_in *nodes, uint8_t *room)
{
	struct reader reader = {.engine = engine, .nodes = nodes};
	uint32_t reason;

	memset(reader.places, -1, sizeof(reader.places));
	reason = read_packets(&reader, flight, length);
	for (uint32_t p = 0; !reason && p < reader.packet_count; p++)
		for (uint32_t i = 0; !reason && i < reader.packets[p].chunk_count; i++)
			if (reader.packets[p].chunks[i].node != ACCORD_NODE_PADDING)
				reason = count_chunk(&reader, &reader.packets[p].chunks[i], p);
	if (!reason)
		reason = lay_out(&reader, room);
	for (uint32_t p = 0; !reason && p < reader.packet_count; p++)
		for (uint32_t i = 0; i < reader.packets[p].chunk_count; i++)
			if (reader.packets[p].chunks[i].node != ACCORD_NODE_PADDING)
				copy_chunk(&reader, &reader.packets[p].chunks[i]);
	for (uint32_t i = 0; !reason && i < reader.count; i++)
		if (nodes[i].stored)
			reason = descriptor_check(nodes[i].data, nodes[i].length, nodes[i].node);
	return reason ? -(int)reason : (int)reader.count;
}

/* ---- Composing ---- */

/* A message that is being cut into packets. */
struct composer {
	struct flight flight;
	struct packet_fields fields;
	uint16_t heard; /* of the other side's packets */
	uint8_t packet[ACCORD_MIN_MTU_PACKET];
	uint32_t used; /* 0: none is open */
};

static void begin_packet(struct composer *composer)
{
	packet_write_header(composer->packet, &composer->fields);
	composer->fields.offset++;
	composer->used = ACCORD_HEADER_BYTES;
}

static bool end_packet(struct composer *composer, uint16_t flags)
{
	uint8_t *at = composer->packet + offsetof(struct accord_header, flags);

	store16(at, load16(at) | flags);
	packet_seal(composer->packet, composer->used, packet_first_tsn(composer->fields.transaction, ROLE_INITIATOR),
	            composer->heard);
	if (!flight_add(&composer->flight, composer->packet, composer->used))
		return false;
	composer->used = 0;
	return true;
}

static bool put_node(struct composer *composer, const struct accord_node_out *node)
{
	uint32_t done = 0;

	do {
		uint32_t left = node->length - done, room, take;
		uint8_t flags = done ? 0 : ACCORD_CHUNK_FIRST;

		/* At most one chunk of a node in a packet, and none that is empty. */
		if (composer->used && (done || composer->used + ACCORD_CHUNK_HEADER_BYTES >= ACCORD_MIN_MTU_PACKET) &&
		    !end_packet(composer, 0))
			return false;
		if (!composer->used)
			begin_packet(composer);
		room = ACCORD_MIN_MTU_PACKET - composer->used - ACCORD_CHUNK_HEADER_BYTES;
		take = left < room ? left : room;
		if (take == left)
			flags |= ACCORD_CHUNK_LAST;
		packet_write_chunk(composer->packet + composer->used, node->node, flags, (uint16_t)take, node->protocol);
		memcpy(composer->packet + composer->used + ACCORD_CHUNK_HEADER_BYTES, node->data + done, take);
		composer->used += ACCORD_CHUNK_HEADER_BYTES + take;
		done += take;
	} while (done < node->length);
	return true;
}

int accord_flight_compose(const uint8_t *transaction, uint8_t step, uint16_t sent, uint16_t heard,
                          const struct accord_node_out *nodes, uint32_t count, uint8_t *bytes, uint32_t room)
{
	struct composer composer = {
		.fields = {.transaction = transaction, .sender = ROLE_RESPONDER, .step = step, .offset = sent},
		.heard = heard,
	};

	for (uint32_t i = 0; i < count; i++)
		if (!put_node(&composer, &nodes[i]))
			return -ACCORD_REASON_MESSAGE_TOO_LONG;
	if (!composer.used || !end_packet(&composer, ACCORD_FLAG_END) || composer.flight.length > room)
		return -ACCORD_REASON_MESSAGE_TOO_LONG;
	memcpy(bytes, composer.flight.bytes, composer.flight.length);
	return (int)composer.flight.length;
}
