// SPDX-License-Identifier: Apache-2.0
/*
 * Invariant: whatever comes in, and whatever the user does, no memory is touched that should not be, an unproven
 * peer is sent at most three times its bytes, and a stranger no more than came, time always gets on, and in the end
 * every buffer is back.
 *
 * The input is a script for one engine that plays both roles: a byte of what to do, a byte of with what, and for
 * packets a byte of length and so many bytes. Packets are raw, or get a header that leads somewhere and a good
 * checksum, so that the fuzzer need not find those.
 */
#include "craft.h"
#include "descriptor.h"
#include "engine.h"
#include "packet.h"
#include "script.h"
#include "small.h"

enum {
	IDS = 3,
	HANDLES = 8,
};

enum action {
	RAW_PACKET,
	CRAFTED_PACKET,
	REPEATED_PACKET,
	LATER,
	OPEN,
	SEND,
	CLOSE,
	PROVE,
	EVENTS,
	OUTPUT,
	ECHO_OUTPUT,
	COOKIES,
	LEVEL,
	CHALLENGE,
	ACTIONS,
};

struct fuzzed {
	struct accord_engine *engine;
	uint64_t now;
	uint32_t handles[HANDLES];
	uint32_t next_handle;
	struct craft craft;
	struct accord_cookie_ring ring;
	/* By address of the remote end. */
	struct accord_path paths[2];
};

static const uint8_t *id_of(uint8_t choice)
{
	static const uint8_t ids[IDS][ACCORD_TRANSACTION_BYTES] = {
		{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x80, 1},
		{0, 0, 0, 0, 0, 0, 0, 0, 2},
		{1, 2, 3, 4, 5, 6, 7, 8, 3},
	};

	return ids[choice % IDS];
}

/* length byte: its lower half counts bytes, in its upper quarter in larger units. */
static uint32_t expand(uint8_t length)
{
	return length < 192 ? length : (length - 191u) * 24;
}

static void check(struct fuzzed *fuzzed)
{
	struct accord_engine *engine = fuzzed->engine;
	uint32_t held = 0, live = 0, unproven = 0;

	for (uint32_t slot = 0; slot < engine->table.count; slot++) {
		const struct transaction *transaction = &engine->table.slots[slot];

		if (transaction->state == TRANSACTION_FREE)
			continue;
		live++;
		held += transaction->share.held;
		unproven += transaction->share.unproven;
		HOLD(!transaction->share.unproven ||
		     transaction->wire_sent <= ACCORD_AMPLIFICATION * transaction->wire_received);
		HOLD(transaction->outbox.oldest <= transaction->outbox.total &&
		     transaction->outbox.sent <= transaction->outbox.total);
		HOLD(transaction->recovery.congestion.window >= CONGESTION_MIN_WINDOW);
	}
	HOLD(live == engine->table.live && unproven == engine->table.unproven);
	HOLD(unproven <= engine->config.unproven);
	HOLD(held + engine->slab.free_count == engine->config.buffers);
}

static void give(struct fuzzed *fuzzed, const struct accord_path *path, const uint8_t *bytes, uint32_t length)
{
	/* Of exactly its size, so that the sanitizer sees a read beyond it. */
	uint8_t *exact = malloc(length ? length : 1);
	const struct accord_engine *engine = fuzzed->engine;
	uint32_t replies = engine->reply_count, said = 0;

	if (length)
		memcpy(exact, bytes, length);
	accord_engine_input(fuzzed->engine, fuzzed->now, path, exact, length);
	for (uint32_t i = replies; i < engine->reply_count; i++)
		said += engine->replies[(engine->reply + i) % ENGINE_REPLIES].length;
	HOLD(said <= length);
	free(exact);
}

/* The cookie that the engine would ask the packet for; or that it is asked for. */
static void insert_cookie(const struct fuzzed *fuzzed, struct craft *craft, const struct accord_path *path)
{
	uint8_t cookie[ACCORD_COOKIE_BYTES];
	struct packet packet;

	if (craft->bytes[1] % 2 && craft->length == ACCORD_HEADER_BYTES) { /* a challenge: any cookie will do */
		memset(craft->bytes + craft->length, 0x77, ACCORD_COOKIE_BYTES);
		craft->length += ACCORD_COOKIE_BYTES;
		craft->bytes[3] |= ACCORD_FLAG_COOKIE;
		return;
	}
	craft_seal(craft);
	if (packet_parse(&packet, craft->bytes, craft->length) || !cookie_ring_usable(&fuzzed->ring))
		return;
	cookie_make(&fuzzed->ring, path, &packet, cookie);
	memmove(craft->bytes + 48, craft->bytes + 32, craft->length - 32);
	memcpy(craft->bytes + 32, cookie, sizeof(cookie));
	craft->length += ACCORD_COOKIE_BYTES;
	craft->bytes[3] |= ACCORD_FLAG_COOKIE;
}

/* Returns whether another packet is to follow in the datagram. */
static bool craft_packet(const struct fuzzed *fuzzed, struct craft *craft, struct script *script, uint8_t with,
                         const struct accord_path *path)
{
	const uint8_t *id = id_of(with);
	uint8_t step = pull(script) % 9, flags = pull(script), offset = pull(script), ack = pull(script);
	const uint8_t *theirs = id + (step % 2 ? 0 : 4);

	craft_header(craft, id, step, flags & (ACCORD_FLAG_END | ACCORD_FLAG_MORE), offset);
	if (flags & ACCORD_FLAG_ACK)
		craft_acknowledge(craft, load32(theirs) + ack % 16, ack / 16);
	for (uint32_t chunks = flags >> 4; chunks; chunks--) {
		uint8_t node = pull(script), form = pull(script), length = pull(script);
		static const uint32_t protocols[] = {17, 6, 0x304, 99};
		uint8_t *header = craft->bytes + craft->length;

		craft->length += 8 + pull_bytes(script, header + 8, expand(length));
		packet_write_chunk(header, node & 0x80 ? 255 : node % 65, form & 3,
		                   (uint16_t)(craft->bytes + craft->length - header - 8),
		                   node & 0x80 ? 0 : protocols[form >> 2 & 3]);
	}
	if (flags & ACCORD_FLAG_MORE && craft->length + ACCORD_CHUNK_HEADER_BYTES <= ACCORD_MIN_MTU_PACKET) {
		uint32_t rest = ACCORD_MIN_MTU_PACKET - craft->length;

		memset(craft->bytes + craft->length, 0, rest);
		packet_write_chunk(craft->bytes + craft->length, 255, 3, (uint16_t)(rest - ACCORD_CHUNK_HEADER_BYTES), 0);
		craft->length += rest;
	}
	if (flags & 1)
		insert_cookie(fuzzed, craft, path);
	craft_seal(craft);
	return flags & ACCORD_FLAG_MORE && craft->length == ACCORD_MIN_MTU_PACKET;
}

static void craft_datagram(struct fuzzed *fuzzed, struct script *script, uint8_t with, const struct accord_path *path)
{
	struct craft *all = &fuzzed->craft;
	static struct craft next;
	bool more = craft_packet(fuzzed, all, script, with, path);

	while (more && all->length + ACCORD_MIN_MTU_PACKET < ACCORD_MAX_PACKET) {
		more = craft_packet(fuzzed, &next, script, with, path);
		if (all->length + next.length > sizeof(all->bytes))
			return;
		memcpy(all->bytes + all->length, next.bytes, next.length);
		all->length += next.length;
	}
}

static void send_message(struct fuzzed *fuzzed, struct script *script, uint32_t handle)
{
	static const uint8_t zeros[6000];
	uint8_t step = pull(script), count = pull(script);
	struct accord_node_out nodes[8];

	for (uint32_t i = 0; i < count % 8; i++)
		nodes[i] = (struct accord_node_out){
			.node = (uint8_t)i, .protocol = i ? 6 : 17, .length = pull(script) * 20u, .data = zeros};
	accord_engine_send(fuzzed->engine, fuzzed->now, handle, step, nodes, count % 8, count >> 5);
}

static void take_events(struct fuzzed *fuzzed)
{
	struct accord_event events[16];
	uint32_t count = accord_engine_events(fuzzed->engine, events, 16);
	uint32_t sum = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (events[i].kind == ACCORD_EVENT_OPENED)
			fuzzed->handles[fuzzed->next_handle++ % HANDLES] = events[i].handle;
		/* Only what was checked is delivered; read all of it. */
		if (events[i].kind == ACCORD_EVENT_NODE)
			HOLD(descriptor_check(events[i].data, events[i].length, events[i].node) == 0);
		for (uint32_t at = 0; at < events[i].length; at++)
			sum += events[i].data[at];
	}
	HOLD(sum != UINT32_MAX);
}

static void put_out(struct fuzzed *fuzzed, bool echo)
{
	struct accord_packet_out packets[4];
	static uint8_t copies[4 * (ACCORD_MIN_MTU_PACKET + ACCORD_COOKIE_BYTES)];
	uint32_t ends[4], copied = 0, count = accord_engine_output(fuzzed->engine, fuzzed->now, packets, 4);

	for (uint32_t i = 0; i < count; i++) {
		struct packet packet;

		HOLD(packets[i].length <= ENGINE_STRANGER_BYTES);
		HOLD(packet_parse(&packet, packets[i].data, packets[i].length) == ACCORD_REASON_OK);
		HOLD(packet.cookie || packets[i].length <= ACCORD_MIN_MTU_PACKET);
		/* What shares a datagram is full, says so, and is of one transaction. */
		HOLD(!packets[i].joined == !(packet.flags & ACCORD_FLAG_MORE));
		HOLD(!packets[i].joined || (i + 1 < count && packets[i].path == packets[i + 1].path));
		memcpy(copies + copied, packets[i].data, packets[i].length);
		copied += packets[i].length;
		ends[i] = copied;
	}
	for (uint32_t i = 0, from = 0; echo && i < count; i++) {
		if (packets[i].joined)
			continue;
		give(fuzzed, &fuzzed->paths[0], copies + from, ends[i] - from);
		from = ends[i];
	}
	if (!count) {
		/* What could be done now was done. */
		HOLD(accord_engine_deadline(fuzzed->engine) > fuzzed->now || fuzzed->engine->events.count ||
		     fuzzed->engine->stranger_count);
	}
}

/* One key, another, both, or none; the slot goes on. */
static void read_ring(struct fuzzed *fuzzed, uint8_t with)
{
	for (uint32_t i = 0; i < 2; i++)
		fuzzed->ring.keys[i] = (struct accord_cookie_key){.words = {i, 7}, .id = i + 1, .used = with >> i & 1};
	fuzzed->ring.current = with >> 2 & 1;
	fuzzed->ring.slot += with >> 3;
}

static void act(struct fuzzed *fuzzed, struct script *script)
{
	uint8_t action = pull(script) % ACTIONS, with = pull(script);
	const struct accord_path *path = &fuzzed->paths[with >> 7];
	uint32_t handle = fuzzed->handles[with % HANDLES];

	switch (action) {
	case RAW_PACKET:
		fuzzed->craft.length = pull_bytes(script, fuzzed->craft.bytes, expand(pull(script)));
		break;
	case CRAFTED_PACKET:
		craft_datagram(fuzzed, script, with & 0x7f, path);
		break;
	case LATER:
		fuzzed->now += (uint64_t)with * with * 100;
		break;
	case OPEN: {
		int64_t result = accord_engine_open(fuzzed->engine, fuzzed->now, id_of(with), path);

		if (result > 0)
			fuzzed->handles[fuzzed->next_handle++ % HANDLES] = (uint32_t)result;
		break;
	}
	case SEND:
		send_message(fuzzed, script, handle);
		break;
	case CLOSE:
		accord_engine_close(fuzzed->engine, fuzzed->now, handle, (uint64_t)(with >> 3) * 100000);
		break;
	case PROVE:
		accord_engine_budget(fuzzed->engine, handle);
		accord_engine_prove(fuzzed->engine, handle);
		break;
	case EVENTS:
		take_events(fuzzed);
		break;
	case COOKIES:
		read_ring(fuzzed, with);
		accord_engine_cookies(fuzzed->engine, &fuzzed->ring);
		break;
	case LEVEL:
		accord_engine_level(fuzzed->engine, fuzzed->now, with % ACCORD_LEVELS);
		break;
	case CHALLENGE:
		craft_seal(&fuzzed->craft);
		accord_engine_challenge(fuzzed->engine, path, fuzzed->craft.bytes, fuzzed->craft.length);
		break;
	case OUTPUT:
	case ECHO_OUTPUT:
		put_out(fuzzed, action == ECHO_OUTPUT);
		break;
	default:
		break;
	}
	if (action == RAW_PACKET || action == CRAFTED_PACKET || action == REPEATED_PACKET)
		give(fuzzed, path, fuzzed->craft.bytes, fuzzed->craft.length);
	check(fuzzed);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct accord_engine_config config = small_config(4);
	static const uint32_t protocols[] = {6, 0x304};
	static struct fuzzed fuzzed;
	struct script script = {.bytes = bytes, .left = size};

	memset(&fuzzed, 0, sizeof(fuzzed));
	fuzzed.engine = accord_engine_new(&config);
	fuzzed.paths[0] =
		(struct accord_path){.family = 4, .context = 17, .remote_port = 9, .mtu = 9000, .remote = {127, 0, 0, 1}};
	fuzzed.paths[1] = (struct accord_path){.family = 6, .context = 17, .remote_port = 9, .link_length = 14};
	accord_engine_support(fuzzed.engine, protocols, 2);
	while (script.left)
		act(&fuzzed, &script);

	/* Close everything; what only lingers goes with time. */
	for (uint32_t slot = 0; slot < config.transactions; slot++)
		accord_engine_close(fuzzed.engine, fuzzed.now, fuzzed.engine->table.slots[slot].handle, 0);
	fuzzed.now += 100000000;
	while (fuzzed.engine->table.live)
		put_out(&fuzzed, false);
	HOLD(fuzzed.engine->slab.free_count == config.buffers);
	HOLD(fuzzed.engine->slab.common_used == 0 && fuzzed.engine->slab.unproven_used == 0);
	HOLD(fuzzed.engine->timer.count == 0);
	accord_engine_free(fuzzed.engine);
	return 0;
}
