// SPDX-License-Identifier: Apache-2.0
/*
 * Invariant: a flight is read exactly when a plain reading of PROTOCOL.md, section 7, finds nothing wrong with it; what
 * is read is inside it, and says the same when it is composed again; nodes that are composed, of whatever lengths, are
 * read again as they were, or are too long for a flight.
 *
 * The input is a script: a byte of what to do and for whom, and chunks, or lengths.
 */
#include "craft.h"
#include "descriptor.h"
#include "engine.h"
#include "script.h"

enum {
	IDS = 6,
	FIRST_AND_LAST = 3,
	MOST_PACKETS = ACCORD_FLIGHT_PACKETS + 1,
	DATA_UNIT = 4,
	MOST_CHUNKS = 8 * MOST_PACKETS,
	MOST_NODE = 5200, /* longer than a flight */
	FLIGHT_ROOM = MOST_PACKETS * (2 + ACCORD_MIN_MTU_PACKET),
};

enum way {
	COMPOSES = 0x40,
	WITHOUT_ROOM = 0x80,
};

enum bend {
	STRAIGHT,
	OTHER_STEP,
	OTHER_PLACE,
	OTHER_END,
	OTHER_SUM,
	CUT,
	BENDS,
};

static struct accord_engine *engine; /* for the protocols that it supports: none but the context's */
static struct craft craft;

/* What a flight was made of. */
static struct made {
	bool bad; /* whatever its chunks are */
	uint32_t count;
	struct {
		uint8_t node, flags;
		uint32_t place, protocol, length;
		uint8_t data[UINT8_MAX];
	} chunks[MOST_CHUNKS];
} made;

static const uint8_t *id_of(uint32_t choice)
{
	static uint8_t id[ACCORD_TRANSACTION_BYTES];

	memset(id, 0x11, sizeof(id));
	memset(id + 4, choice % 2 ? 0xff : 0, 4); /* TSNs that wrap */
	id[11] = (uint8_t)choice;
	return id;
}

/* ---- What should be read of it ---- */

/* Of the node that begins with this chunk. */
static bool is_whole(uint32_t begin)
{
	uint8_t node = made.chunks[begin].node;
	bool last = made.chunks[begin].flags & ACCORD_CHUNK_LAST;
	uint32_t before = begin, length = made.chunks[begin].length;
	static uint8_t whole[MOST_CHUNKS * UINT8_MAX * DATA_UNIT];

	memset(whole, 0, sizeof(whole));
	memcpy(whole, made.chunks[begin].data, sizeof(made.chunks[begin].data));
	for (uint32_t i = begin + 1; i < made.count; i++) {
		if (made.chunks[i].node != node)
			continue;
		/* The next one, in the next packet. */
		if (last || made.chunks[i].flags & ACCORD_CHUNK_FIRST ||
		    made.chunks[i].place != made.chunks[before].place + 1 ||
		    made.chunks[i].protocol != made.chunks[begin].protocol)
			return false;
		memcpy(whole + length, made.chunks[i].data, sizeof(made.chunks[i].data));
		length += made.chunks[i].length;
		last = made.chunks[i].flags & ACCORD_CHUNK_LAST;
		before = i;
	}
	if (!last)
		return false;
	return node || made.chunks[begin].protocol != ACCORD_PROTOCOL_UDP || !descriptor_check(whole, length, 0);
}

/* How many nodes; -1: it is no flight. */
static int expected(void)
{
	int count = 0;

	if (made.bad)
		return -1;
	for (uint32_t i = 0; i < made.count; i++) {
		uint8_t node = made.chunks[i].node;
		bool first = true;

		if (node != ACCORD_NODE_PADDING && (node >= ACCORD_MAX_NODES || !made.chunks[i].length))
			return -1;
		for (uint32_t other = 0; other < i; other++) {
			if (made.chunks[other].node != node)
				continue;
			if (made.chunks[other].place == made.chunks[i].place)
				return -1;
			first = false;
		}
		if (node == ACCORD_NODE_PADDING || !first)
			continue;
		if (!(made.chunks[i].flags & ACCORD_CHUNK_FIRST) || !is_whole(i))
			return -1;
		count++;
	}
	return count;
}

/* ---- Reading ---- */

static void note_chunk(uint32_t place, uint8_t node, uint8_t flags, uint32_t protocol, const uint8_t *data,
                       uint32_t length)
{
	made.chunks[made.count].node = node;
	made.chunks[made.count].flags = flags;
	made.chunks[made.count].place = place;
	made.chunks[made.count].protocol = protocol;
	made.chunks[made.count].length = length;
	memcpy(made.chunks[made.count++].data, data, UINT8_MAX); /* behind that, zeros */
}

/* A flight of chunks as the script has them. bent: what is wrong with one of its packets, and which. */
static uint32_t read_flight(struct script *script, const uint8_t *id, uint8_t *flight)
{
	static uint8_t data[UINT8_MAX * DATA_UNIT];
	const uint32_t packets = 1 + pull(script) % MOST_PACKETS;
	const uint8_t bent = pull(script);
	uint32_t length = 0;

	made.count = 0;
	made.bad = packets > ACCORD_FLIGHT_PACKETS || (bent % BENDS == CUT && bent >> 4);
	for (uint32_t place = 0; place < packets; place++) {
		const enum bend how = bent >> 4 == place ? (enum bend)(bent % BENDS) : STRAIGHT;

		craft_header(&craft, id, how == OTHER_STEP ? ACCORD_STEP_ANSWER + 2 : ACCORD_STEP_ANSWER,
		             (place + 1 == packets) != (how == OTHER_END) ? ACCORD_FLAG_END : 0, place + (how == OTHER_PLACE));
		for (uint32_t chunks = pull(script) % 8; chunks; chunks--) {
			const uint8_t node = pull(script), how_sent = pull(script);
			const uint8_t flags = how_sent & 0x80 ? how_sent & 3 : FIRST_AND_LAST;
			uint32_t size = pull(script), protocol = how_sent & 4 ? 6 : ACCORD_PROTOCOL_UDP;

			if (node == ACCORD_NODE_PADDING)
				protocol = ACCORD_PROTOCOL_PADDING;
			memset(data, 0, sizeof(data));
			if (how_sent & 8)
				size *= DATA_UNIT; /* of zeros */
			else
				pull_bytes(script, data, size);
			if (craft.length + ACCORD_CHUNK_HEADER_BYTES + size > ACCORD_MIN_MTU_PACKET)
				continue;
			craft_chunk(&craft, node, flags, protocol, data, size);
			note_chunk(place, node, flags, protocol, data, size);
		}
		/* A packet by itself may be of any step, and have any TSN. */
		made.bad |= craft.length == ACCORD_HEADER_BYTES || how == OTHER_END || how == OTHER_SUM ||
		            (packets > 1 && (how == OTHER_STEP || how == OTHER_PLACE));
		craft_seal(&craft);
		if (how == OTHER_SUM)
			craft.bytes[31] ^= 1;
		length = (uint32_t)(craft_flight(&craft, flight + length) - flight);
	}
	return bent % BENDS == CUT ? length - (bent >> 4) : length;
}

/* These nodes go into a flight of the responder's, and come out of it. */
static void compose(const uint8_t *id, const struct accord_node_out *nodes, uint32_t count, uint32_t most)
{
	static uint8_t composed[ACCORD_FLIGHT_BYTES], room[ACCORD_FLIGHT_BYTES];
	struct accord_node_in again[ACCORD_MAX_NODES];
	int length = accord_flight_compose(id, ACCORD_STEP_ANSWER, 0, 1, nodes, count, composed, most);

	if (length < 0) {
		HOLD(length == -ACCORD_REASON_MESSAGE_TOO_LONG);
		return;
	}
	HOLD((uint32_t)length <= most);
	HOLD(accord_engine_read(engine, composed, (uint32_t)length, again, room) == (int)count);
	for (uint32_t i = 0; i < count; i++)
		HOLD(again[i].node == nodes[i].node && again[i].length == nodes[i].length &&
		     again[i].protocol == nodes[i].protocol && !memcmp(again[i].data, nodes[i].data, nodes[i].length));
}

/* What a flight from any bytes holds goes into one of the responder's, which holds the same. */
static void read_message(struct script *script, uint8_t with)
{
	static uint8_t flight[FLIGHT_ROOM], room[FLIGHT_ROOM];
	struct accord_node_in nodes[ACCORD_MAX_NODES];
	struct accord_node_out out[ACCORD_MAX_NODES];
	const uint32_t bytes = read_flight(script, id_of(with % IDS), flight);
	int count = accord_engine_read(engine, flight, bytes, nodes, room);

	HOLD((count < 0 ? -1 : count) == expected());
	for (int i = 0; i < count; i++) {
		HOLD(nodes[i].data >= room && nodes[i].data + nodes[i].length <= room + bytes);
		HOLD(!nodes[i].stored || !descriptor_check(nodes[i].data, nodes[i].length, nodes[i].node));
		out[i] = (struct accord_node_out){
			.node = nodes[i].node, .protocol = nodes[i].protocol, .length = nodes[i].length, .data = nodes[i].data};
	}
	if (count > 0)
		compose(id_of(with % IDS), out, (uint32_t)count, with & WITHOUT_ROOM ? pull(script) : ACCORD_FLIGHT_BYTES);
}

/* Nodes of any length, up to more than there is room for. */
static void compose_message(struct script *script, uint8_t with)
{
	static const uint8_t zeros[MOST_NODE];
	struct accord_node_out nodes[COMPOSES];
	const uint32_t count = with % COMPOSES;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t length = pull(script) | (uint32_t)pull(script) << 8;

		/* A descriptor has a head. */
		length = sizeof(struct accord_descriptor) + length % (MOST_NODE - sizeof(struct accord_descriptor));
		nodes[i] = (struct accord_node_out){.node = (uint8_t)(i + 1), .protocol = 99, .length = length, .data = zeros};
	}
	compose(id_of(with % IDS), nodes, count, ACCORD_FLIGHT_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static const struct accord_engine_config config = {.transactions = 1, .buffers = 1, .events = 160};
	struct script script = {.bytes = bytes, .left = size};

	if (!engine)
		engine = accord_engine_new(&config);
	while (script.left) {
		const uint8_t with = pull(&script);

		if (with & COMPOSES)
			compose_message(&script, with);
		else
			read_message(&script, with);
	}
	return 0;
}
