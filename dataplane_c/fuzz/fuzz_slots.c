// SPDX-License-Identifier: Apache-2.0
/*
 * Invariant: whatever is kept, asked for, failed, settled and brought back in whatever order, the slots hold what a
 * plain list of them does; a live one gives way to nobody, one that is emptied holds nothing, and a commit comes up
 * only from the remote end of its slot, with its T(1), and until it is settled.
 *
 * The input is a script for an engine of five slots: a byte of what to do, one of with what, and what that needs.
 */
#include "craft.h"
#include "engine.h"
#include "script.h"
#include "small.h"

enum {
	SLOTS = 5, /* no power of two */
	PLACES = 8,
	IDS = 6,
	PATHS = 4,
	HANDLES = 16,
	FIRST_AND_LAST = 3,
	KEPT_UNIT = 5, /* a few are too long */
	MOST_PACKETS = ACCORD_FLIGHT_PACKETS + 1,
	FLIGHT_ROOM = MOST_PACKETS * (2 + ACCORD_MIN_MTU_PACKET),
};

enum action {
	KEEP,
	FIND,
	FIND_ANYWHERE,
	FIND_HANDLE,
	FAIL,
	SETTLE,
	COMMIT,
	BENT_COMMIT,
	RAW_COMMIT,
	PROPOSAL,
	LATER,
	ACTIONS,
};

/* What should be in a slot. */
struct kept {
	bool live;
	uint32_t handle, id, path, packets, length, kept_length, tries;
	uint64_t expires;
	uint8_t seed[ACCORD_SLOT_SEED], transcript[ACCORD_SLOT_TRANSCRIPT];
	uint8_t kept[UINT8_MAX * KEPT_UNIT], proposal[FLIGHT_ROOM];
};

struct fuzzed {
	struct accord_engine *engine;
	uint64_t now;
	struct kept list[SLOTS];
	uint32_t handles[HANDLES], next_handle;
	struct craft craft;
};

static struct fuzzed fuzzed;

/* Two of them differ in bytes that are not compared. */
static const struct accord_path paths[PATHS] = {
	{.family = 4, .context = 17, .remote_port = 9, .mtu = 1500, .remote = {127, 0, 0, 1}},
	{.family = 4, .context = 17, .remote_port = 9, .mtu = 9000, .remote = {127, 0, 0, 1, 5}, .local = {1}},
	{.family = 4, .context = 17, .remote_port = 10, .mtu = 1500, .remote = {127, 0, 0, 1}},
	{.family = 6, .context = 17, .remote_port = 9, .mtu = 1500, .remote = {127, 0, 0, 1}},
};

static const uint8_t *id_of(uint32_t choice)
{
	static uint8_t ids[IDS][ACCORD_TRANSACTION_BYTES];

	memset(ids[choice], 0x11, ACCORD_TRANSACTION_BYTES);
	/* Some differ in what the hash takes twice, some in its first bytes, some in its last. */
	ids[choice][choice * 2] = (uint8_t)choice;
	return ids[choice];
}

/* ---- The list ---- */

static bool same_place(uint32_t one, uint32_t other)
{
	return one == other || (one < 2 && other < 2);
}

static bool is_empty(const uint8_t *bytes, uint32_t length)
{
	for (uint32_t i = 0; i < length; i++)
		if (bytes[i])
			return false;
	return true;
}

static void forget(struct kept *kept)
{
	const struct slot *slot = &fuzzed.engine->slots.slots[kept->handle % PLACES];

	HOLD(slot->taken || (is_empty(slot->seed, sizeof(slot->seed)) && is_empty(slot->proposal, sizeof(slot->proposal)) &&
	                     is_empty(slot->kept, sizeof(slot->kept))));
	kept->live = false;
}

/* To be called after the engine has looked at its clock. */
static void expire(void)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		if (fuzzed.list[i].live && fuzzed.list[i].expires <= fuzzed.now)
			forget(&fuzzed.list[i]);
}

static struct kept *find(uint32_t id, uint32_t path)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		if (fuzzed.list[i].live && fuzzed.list[i].id == id && (path == PATHS || same_place(fuzzed.list[i].path, path)))
			return &fuzzed.list[i];
	return NULL;
}

static struct kept *find_handle(uint32_t handle)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		if (fuzzed.list[i].live && fuzzed.list[i].handle == handle)
			return &fuzzed.list[i];
	return NULL;
}

static struct kept *unused(void)
{
	for (uint32_t i = 0; i < SLOTS; i++)
		if (!fuzzed.list[i].live)
			return &fuzzed.list[i];
	return NULL;
}

static bool has_transaction(uint32_t id)
{
	return transaction_find(&fuzzed.engine->table, id_of(id), ROLE_RESPONDER) != NULL;
}

static void same(const struct kept *kept, const struct accord_slot *slot)
{
	const struct accord_path *path = &paths[kept->path];

	HOLD(slot->handle == kept->handle && slot->length == kept->length);
	HOLD(!memcmp(slot->proposal, kept->proposal, kept->length));
	HOLD(slot->kept_length == kept->kept_length && !memcmp(slot->kept, kept->kept, kept->kept_length));
	HOLD(!memcmp(slot->seed, kept->seed, sizeof(kept->seed)));
	HOLD(!memcmp(slot->transcript, kept->transcript, sizeof(kept->transcript)));
	/* Field by field: what is between them need not be copied. */
	HOLD(slot->path.family == path->family && slot->path.context == path->context);
	HOLD(slot->path.remote_port == path->remote_port && slot->path.mtu == path->mtu);
	HOLD(!memcmp(slot->path.remote, path->remote, sizeof(path->remote)));
	HOLD(!memcmp(slot->path.local, path->local, sizeof(path->local)));
}

/* ---- Packets ---- */

/* Behind its length, as one packet more of a flight of so many bytes. Returns the bytes that it has then. */
static uint32_t add_to(uint8_t *flight, uint32_t length)
{
	flight[length] = (uint8_t)(fuzzed.craft.length >> 8);
	flight[length + 1] = (uint8_t)fuzzed.craft.length;
	memcpy(flight + length + 2, fuzzed.craft.bytes, fuzzed.craft.length);
	return length + 2 + fuzzed.craft.length;
}

/* The packet at this place of a proposal of so many. */
static void craft_proposal(uint32_t id, uint32_t place, uint32_t packets, uint32_t fill)
{
	static const uint8_t zeros[ACCORD_MIN_MTU_PACKET];

	craft_header(&fuzzed.craft, id_of(id), ACCORD_STEP_PROPOSAL, place + 1 == packets ? ACCORD_FLAG_END : 0, place);
	if (!place)
		craft_chunk(&fuzzed.craft, 0, FIRST_AND_LAST, ACCORD_PROTOCOL_UDP, zeros, 4);
	if (fill || place)
		craft_chunk(&fuzzed.craft, ACCORD_NODE_PADDING, FIRST_AND_LAST, 0, zeros, fill * 4);
	craft_seal(&fuzzed.craft);
}

static void craft_commit(uint32_t id, uint32_t offset, const uint8_t *transcript)
{
	uint8_t context[8 + ACCORD_SLOT_TRANSCRIPT] = {0,
	                                               0,
	                                               0,
	                                               4 + ACCORD_SLOT_TRANSCRIPT,
	                                               ACCORD_TLV_TRANSCRIPT >> 8,
	                                               ACCORD_TLV_TRANSCRIPT & 0xff,
	                                               0,
	                                               ACCORD_SLOT_TRANSCRIPT};

	memcpy(context + 8, transcript, ACCORD_SLOT_TRANSCRIPT);
	craft_header(&fuzzed.craft, id_of(id), ACCORD_STEP_COMMIT, ACCORD_FLAG_END, offset);
	craft_chunk(&fuzzed.craft, 0, FIRST_AND_LAST, ACCORD_PROTOCOL_UDP, context, sizeof(context));
	craft_seal(&fuzzed.craft);
}

/* What comes up of it: the handle of its slot, or 0. */
static uint32_t give(uint32_t path)
{
	uint8_t *exact = malloc(fuzzed.craft.length ? fuzzed.craft.length : 1);
	struct accord_event events[16];
	uint32_t count, returned = 0;

	memcpy(exact, fuzzed.craft.bytes, fuzzed.craft.length);
	accord_engine_input(fuzzed.engine, fuzzed.now, &paths[path], exact, fuzzed.craft.length);
	free(exact);
	while ((count = accord_engine_events(fuzzed.engine, events, 16)))
		for (uint32_t i = 0; i < count; i++) {
			if (events[i].kind != ACCORD_EVENT_RETURNED)
				continue;
			HOLD(!returned && events[i].handle && events[i].length == 2 + fuzzed.craft.length);
			HOLD(!memcmp(events[i].data + 2, fuzzed.craft.bytes, fuzzed.craft.length));
			returned = events[i].handle;
		}
	return returned;
}

/* ---- Actions ---- */

static void keep(struct script *script, uint8_t with)
{
	const uint32_t id = with % IDS, path = with / IDS % PATHS;
	static struct kept made;
	struct accord_slot what = {0};
	struct kept *kept;
	int64_t handle;
	bool fits;

	made = (struct kept){.live = true, .id = id, .path = path, .packets = 1 + with / (IDS * PATHS) % MOST_PACKETS};
	for (uint32_t place = 0, fill = pull(script); place < made.packets; place++) {
		craft_proposal(id, place, made.packets, fill);
		made.length = add_to(made.proposal, made.length);
	}
	made.kept_length = (uint32_t)pull(script) * KEPT_UNIT;
	memset(made.kept, 0x55, made.kept_length);
	memset(made.seed, pull(script) | 1, sizeof(made.seed));
	memset(made.transcript, pull(script), sizeof(made.transcript));
	what.length = made.length;
	what.proposal = made.proposal;
	what.kept_length = made.kept_length;
	what.kept = made.kept;
	what.answer_packets = 1 + made.kept_length % (ACCORD_FLIGHT_PACKETS + 1);
	memcpy(what.seed, made.seed, sizeof(what.seed));
	memcpy(what.transcript, made.transcript, sizeof(what.transcript));
	fits = made.packets <= ACCORD_FLIGHT_PACKETS && made.kept_length <= ACCORD_SLOT_KEPT &&
	       what.answer_packets <= ACCORD_FLIGHT_PACKETS;
	handle = accord_engine_keep(fuzzed.engine, fuzzed.now, &paths[path], &what);
	if (!fits) {
		HOLD(handle == -ACCORD_REASON_LONG_PACKET);
		return;
	}
	expire();
	kept = unused();
	if (find(id, path) || has_transaction(id)) {
		HOLD(handle == -ACCORD_REASON_CONTRADICTION);
	} else if (!kept) {
		HOLD(handle == -ACCORD_REASON_NO_MEMORY);
	} else {
		HOLD(handle > 0 && handle <= UINT32_MAX && !find_handle((uint32_t)handle));
		made.handle = (uint32_t)handle;
		made.expires = fuzzed.now + SLOTS_LIFE_US;
		*kept = made;
		fuzzed.handles[fuzzed.next_handle++ % HANDLES] = made.handle;
	}
}

static void look(uint8_t with, bool anywhere)
{
	const uint32_t id = with % IDS, path = anywhere ? PATHS : with / IDS % PATHS;
	const struct kept *kept;
	struct accord_slot slot;
	int result = accord_engine_slot(fuzzed.engine, fuzzed.now, id_of(id), anywhere ? NULL : &paths[path], &slot);

	expire();
	kept = find(id, path);
	HOLD(result == (kept ? 0 : -ACCORD_REASON_SLOT_GONE));
	if (!kept)
		return;
	/* Anywhere: there may be several. */
	kept = find_handle(slot.handle);
	HOLD(kept && kept->id == id && (anywhere || same_place(kept->path, path)));
	same(kept, &slot);
}

static void look_by_handle(uint32_t handle)
{
	const struct kept *kept;
	struct accord_slot slot;
	int result = accord_engine_slot_of(fuzzed.engine, fuzzed.now, handle, &slot);

	expire();
	kept = find_handle(handle);
	HOLD(result == (kept ? 0 : -ACCORD_REASON_SLOT_GONE));
	if (kept)
		same(kept, &slot);
}

static void fail(uint32_t handle)
{
	struct kept *kept = find_handle(handle);
	int result = accord_engine_slot_failed(fuzzed.engine, handle);

	HOLD(result == (kept ? 0 : -ACCORD_REASON_SLOT_GONE));
	if (kept && ++kept->tries == SLOTS_TRIES)
		forget(kept);
}

/* The commit is used, whether or not there is room to acknowledge it. */
static void settle(uint32_t handle)
{
	static uint8_t flight[FLIGHT_ROOM];
	struct kept *kept = find_handle(handle);
	int result;

	craft_commit(kept ? kept->id : 0, kept ? kept->packets : 1, fuzzed.list[0].transcript);
	result = accord_engine_settle(fuzzed.engine, fuzzed.now, handle, flight, add_to(flight, 0));
	if (!kept) {
		HOLD(result == -ACCORD_REASON_SLOT_GONE);
		return;
	}
	HOLD(result <= 0 && (result < 0 || has_transaction(kept->id)));
	forget(kept);
}

/* bent: the bit of T(1) that is flipped; none: -1. */
static void commit(uint8_t with, int32_t bent)
{
	const uint32_t id = with % IDS, path = with / IDS % PATHS;
	uint8_t transcript[ACCORD_SLOT_TRANSCRIPT] = {0};
	struct kept *kept = find(id, path);
	bool known = has_transaction(id);
	uint32_t returned;

	if (kept)
		memcpy(transcript, kept->transcript, sizeof(transcript));
	if (bent >= 0)
		transcript[bent / 8 % (int32_t)sizeof(transcript)] ^= (uint8_t)(1u << bent % 8);
	craft_commit(id, kept ? kept->packets : 1, transcript);
	returned = give(path);
	if (!known)
		expire();
	kept = find(id, path);
	HOLD(returned == (kept && !known && bent < 0 ? kept->handle : 0));
	if (returned)
		kept->path = path; /* that is where its peer is */
}

/* A commit of any bytes behind the header. */
static void raw_commit(struct script *script, uint8_t with)
{
	const uint32_t id = with % IDS, path = with / IDS % PATHS;
	const uint8_t step = pull(script), offset = pull(script);
	bool known = has_transaction(id);
	struct kept *kept;
	uint32_t returned;

	look_by_handle(0); /* now, since nothing tells whether the packet gets as far as the slots */
	craft_header(&fuzzed.craft, id_of(id), step % 4, step & ACCORD_FLAG_END, offset % MOST_PACKETS);
	for (uint32_t length = pull(script); length && script->left; length--)
		craft_put(&fuzzed.craft, pull(script), 1);
	craft_seal(&fuzzed.craft);
	returned = give(path);
	if (!returned)
		return;
	kept = find(id, path);
	HOLD(kept && !known && returned == kept->handle);
	HOLD(memmem(fuzzed.craft.bytes, fuzzed.craft.length, kept->transcript, sizeof(kept->transcript)) != NULL);
	kept->path = path;
}

static void act(struct script *script)
{
	enum action action = pull(script) % ACTIONS;
	uint8_t with = pull(script);
	uint32_t handle = with & 0x80 ? with : fuzzed.handles[with % HANDLES];

	switch (action) {
	case KEEP:
		keep(script, with);
		break;
	case FIND:
	case FIND_ANYWHERE:
		look(with, action == FIND_ANYWHERE);
		break;
	case FIND_HANDLE:
		look_by_handle(handle);
		break;
	case FAIL:
		fail(handle);
		break;
	case SETTLE:
		settle(handle);
		break;
	case COMMIT:
		commit(with, -1);
		break;
	case BENT_COMMIT:
		commit(with, pull(script));
		break;
	case RAW_COMMIT:
		raw_commit(script, with);
		break;
	case PROPOSAL:
		look_by_handle(0);
		craft_proposal(with % IDS, 0, 1, with);
		HOLD(!give(with / IDS % PATHS));
		break;
	default:
		fuzzed.now += (uint64_t)with * with * 200;
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct accord_engine_config config = small_config(1000);
	static const struct accord_cookie_ring ring = {.keys = {{{1, 2}, 7, 1}}, .slot = 1000};
	struct script script = {.bytes = bytes, .left = size};
	struct accord_engine_usage usage;

	memset(&fuzzed, 0, sizeof(fuzzed));
	config.slots = SLOTS;
	fuzzed.engine = accord_engine_new(&config);
	accord_engine_cookies(fuzzed.engine, &ring);
	accord_engine_level(fuzzed.engine, fuzzed.now, ACCORD_LEVEL_ANSWER);
	while (script.left) {
		uint32_t live = 0;

		act(&script);
		for (uint32_t i = 0; i < SLOTS; i++)
			live += fuzzed.list[i].live;
		HOLD(fuzzed.engine->slots.taken == live);
	}
	fuzzed.now += (uint64_t)SLOTS_LIFE_US;
	look(0, true);
	accord_engine_usage(fuzzed.engine, &usage);
	HOLD(usage.slots == 0);
	accord_engine_free(fuzzed.engine);
	return 0;
}
