// SPDX-License-Identifier: Apache-2.0
#include "slots.h"

#include <string.h>

#include "hash.h"
#include "path.h"

void slots_init(struct slots *slots, struct slot *memory, uint32_t *heads, uint32_t count, uint64_t seed)
{
	uint32_t size = 1;

	while (size < count)
		size *= 2;
	*slots = (struct slots){
		.slots = memory,
		.heads = heads,
		.count = count,
		.mask = size - 1,
		.free = count ? 0 : SLOT_NONE,
		.first = SLOT_NONE,
		.last = SLOT_NONE,
		.seed = hash_mix(seed ^ UINT64_C(0x9e3779b97f4a7c15)),
	};
	/* All of it, so that a flood does not make the process larger. */
	memset(memory, 0, count * sizeof(*memory));
	for (uint32_t chain = 0; count && chain < size; chain++)
		heads[chain] = SLOT_NONE;
	for (uint32_t place = 0; place < count; place++) {
		memory[place].handle = memory[place].place = place;
		memory[place].next = place + 1 < count ? place + 1 : SLOT_NONE;
	}
}

static uint32_t *chain(const struct slots *slots, const uint8_t *id)
{
	uint64_t first, last;

	/* Of twelve bytes, with four in common. */
	memcpy(&first, id, sizeof(first));
	memcpy(&last, id + ACCORD_TRANSACTION_BYTES - sizeof(last), sizeof(last));
	return &slots->heads[hash_mix(hash_mix(slots->seed ^ first) ^ last) & slots->mask];
}

struct slot *slots_find(const struct slots *slots, const uint8_t *id, const struct accord_path *path)
{
	if (!slots->taken)
		return NULL;
	for (uint32_t place = *chain(slots, id); place != SLOT_NONE; place = slots->slots[place].next) {
		struct slot *slot = &slots->slots[place];

		if (memcmp(slot->id, id, sizeof(slot->id)) == 0 && (!path || path_same_remote(&slot->path, path)))
			return slot;
	}
	return NULL;
}

struct slot *slots_of(const struct slots *slots, uint32_t handle)
{
	uint32_t place = handle & slots->mask;

	if (place >= slots->count || !slots->slots[place].taken || slots->slots[place].handle != handle)
		return NULL;
	return &slots->slots[place];
}

struct slot *slots_take(struct slots *slots, uint64_t now, const uint8_t *id, const struct accord_path *path)
{
	uint32_t *head, handle;
	struct slot *slot;

	slots_expire(slots, now);
	if (slots->free == SLOT_NONE)
		return NULL;
	slot = &slots->slots[slots->free];
	slots->free = slot->next;
	handle = slot->handle + slots->mask + 1;
	slot->handle = handle > slots->mask ? handle : handle + slots->mask + 1;
	slot->taken = true;
	slot->tries = 0;
	slot->length = slot->credit = slot->answer_length = 0;
	slot->kept_length = 0;
	slot->packets = slot->answer_packets = 0;
	slot->expires = now + SLOTS_LIFE_US;
	slot->path = *path;
	memcpy(slot->id, id, sizeof(slot->id));
	slot->sooner = slots->last;
	slot->later = SLOT_NONE;
	*(slots->last == SLOT_NONE ? &slots->first : &slots->slots[slots->last].later) = slot->place;
	slots->last = slot->place;
	head = chain(slots, id);
	slot->next = *head;
	*head = slot->place;
	slots->taken++;
	return slot;
}

uint32_t slots_image(const struct slots *slots, uint8_t *image, uint32_t limit)
{
	uint32_t done = 0;

	for (uint32_t place = slots->first; place != SLOT_NONE && done < limit; place = slots->slots[place].later)
		memcpy(image + done++ * sizeof(struct slot), &slots->slots[place], sizeof(struct slot));
	return done;
}

static bool restore(struct slots *slots, uint64_t now, const struct slot *kept)
{
	struct slot *slot, own;

	if (kept->expires <= now || kept->length > sizeof(kept->proposal) || kept->kept_length > sizeof(kept->kept) ||
	    slots_find(slots, kept->id, &kept->path))
		return false;
	slot = slots_take(slots, now, kept->id, &kept->path);
	if (!slot)
		return false;
	own = *slot;
	*slot = *kept;
	/* What belongs to the place, and to the sockets, is this table's. */
	slot->handle = own.handle;
	slot->place = own.place;
	slot->next = own.next;
	slot->sooner = own.sooner;
	slot->later = own.later;
	slot->taken = true;
	slot->path.socket = ACCORD_PATH_NO_SOCKET;
	slot->path.link_length = 0;
	/* In the order of their expiry, and none longer than a slot lives. */
	if (own.sooner != SLOT_NONE && slots->slots[own.sooner].expires > slot->expires)
		slot->expires = slots->slots[own.sooner].expires;
	if (slot->expires > own.expires)
		slot->expires = own.expires;
	return true;
}

bool slots_restore(struct slots *slots, uint64_t now, const uint8_t *image)
{
	struct slot kept; /* an image is not aligned */
	bool done;

	memcpy(&kept, image, sizeof(kept));
	done = restore(slots, now, &kept);
	explicit_bzero(&kept, sizeof(kept)); /* refused or not, it has secrets */
	return done;
}

void slots_empty(struct slots *slots, struct slot *slot)
{
	uint32_t *link = chain(slots, slot->id);

	while (*link != slot->place)
		link = &slots->slots[*link].next;
	*link = slot->next;
	*(slot->sooner == SLOT_NONE ? &slots->first : &slots->slots[slot->sooner].later) = slot->later;
	*(slot->later == SLOT_NONE ? &slots->last : &slots->slots[slot->later].sooner) = slot->sooner;
	explicit_bzero(slot->seed, sizeof(slot->seed));
	explicit_bzero(slot->kept, slot->kept_length);
	explicit_bzero(slot->proposal, slot->length);
	slot->taken = false;
	slot->next = slots->free;
	slots->free = slot->place;
	slots->taken--;
}

void slots_expire(struct slots *slots, uint64_t now)
{
	while (slots->first != SLOT_NONE && slots->slots[slots->first].expires <= now)
		slots_empty(slots, &slots->slots[slots->first]);
}

uint64_t slots_deadline(const struct slots *slots)
{
	return slots->first == SLOT_NONE ? UINT64_MAX : slots->slots[slots->first].expires + SLOTS_LATE_US;
}
