// SPDX-License-Identifier: Apache-2.0
/* Slots of answers that nothing else is kept of: single use, fixed memory, a short life, and nobody is evicted. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "slots.h"

enum {
	COUNT = 5, /* no power of two */
	HEADS = 8,
};

static struct slot memory[COUNT];
static uint32_t heads[HEADS];
static struct slots slots;

static struct accord_path path_to(uint8_t last)
{
	struct accord_path path = {.family = 4, .context = ACCORD_PROTOCOL_UDP, .remote_port = 4000};

	path.remote[3] = last;
	return path;
}

static const uint8_t *id_of(uint32_t number)
{
	static uint8_t id[ACCORD_TRANSACTION_BYTES];

	memcpy(id, &number, sizeof(number));
	return id;
}

static struct slot *take(uint64_t now, uint32_t number)
{
	struct accord_path path = path_to(1);
	struct slot *slot = slots_take(&slots, now, id_of(number), &path);

	if (slot) {
		slot->length = 4;
		memset(slot->seed, 0xaa, sizeof(slot->seed));
		memset(slot->proposal, 0xbb, 4);
	}
	return slot;
}

static void anew(void)
{
	slots_init(&slots, memory, heads, COUNT, 7);
}

static void a_slot_is_found_by_its_id_and_its_peers_address(void)
{
	struct accord_path here = path_to(1), there = path_to(2), other_port = here;
	struct slot *slot;

	anew();
	other_port.remote_port++;
	slot = take(0, 1);
	CHECK(slot && slots_find(&slots, id_of(1), &here) == slot);
	CHECK(slots_find(&slots, id_of(1), NULL) == slot);
	CHECK(!slots_find(&slots, id_of(1), &there));
	CHECK(!slots_find(&slots, id_of(1), &other_port));
	CHECK(!slots_find(&slots, id_of(2), &here));
	there = here;
	there.family = 6;
	CHECK(!slots_find(&slots, id_of(1), &there));
}

static void when_none_is_free_nobody_gets_one_and_nobody_loses_one(void)
{
	anew();
	for (uint32_t number = 0; number < COUNT; number++)
		CHECK(take(number, number));
	for (uint32_t number = COUNT; number < 100; number++)
		CHECK(!take(number, number));
	CHECK_EQUAL(slots.taken, COUNT);
	for (uint32_t number = 0; number < COUNT; number++)
		CHECK(slots_find(&slots, id_of(number), NULL));
}

static void a_slot_lives_for_ten_seconds_and_not_longer(void)
{
	anew();
	for (uint32_t number = 0; number < COUNT; number++)
		take(number * 1000, number);
	slots_expire(&slots, SLOTS_LIFE_US - 1);
	CHECK_EQUAL(slots.taken, COUNT);
	slots_expire(&slots, SLOTS_LIFE_US);
	CHECK_EQUAL(slots.taken, COUNT - 1);
	CHECK(!slots_find(&slots, id_of(0), NULL));
	CHECK(take(SLOTS_LIFE_US + 1000, 100)); /* in the place of the second, which expires by this */
	CHECK(!slots_find(&slots, id_of(1), NULL));
	CHECK_EQUAL(slots.taken, COUNT - 1);
}

static void an_emptied_slot_holds_no_secret_and_its_handle_is_nobodys(void)
{
	struct slot *slot;
	uint32_t handle;

	anew();
	slot = take(0, 1);
	handle = slot->handle;
	CHECK(handle && slots_of(&slots, handle) == slot);
	slots_empty(&slots, slot);
	CHECK(!slots_of(&slots, handle));
	for (uint32_t i = 0; i < sizeof(slot->seed); i++)
		CHECK_EQUAL(slot->seed[i], 0);
	CHECK_EQUAL(slot->proposal[0], 0);
	CHECK(take(0, 1) == slot);
	CHECK(!slots_of(&slots, handle));
	CHECK(!slots_of(&slots, 0));
	CHECK(!slots_of(&slots, UINT32_MAX));
	slot->handle = UINT32_MAX - (slots.mask - slot->place); /* the last generation */
	slots_empty(&slots, slot);
	slot = take(0, 1);
	CHECK(slot->handle > slots.mask);
}

static void whatever_comes_and_goes_in_whatever_order_nothing_is_lost(void)
{
	uint32_t live[COUNT], count = 0, random = 1;
	uint64_t now = 0;

	anew();
	for (uint32_t round = 1; round < 20000; round++) {
		random = random * 1664525 + 1013904223;
		if (random >> 31 && count < COUNT) {
			CHECK(take(now, round));
			live[count++] = round;
		} else if (count) {
			uint32_t gone = random >> 8 & 0xff;

			gone %= count;
			slots_empty(&slots, slots_find(&slots, id_of(live[gone]), NULL));
			live[gone] = live[--count];
		}
		CHECK_EQUAL(slots.taken, count);
		for (uint32_t i = 0; i < count; i++)
			CHECK(slots_find(&slots, id_of(live[i]), NULL));
	}
	slots_expire(&slots, UINT64_MAX);
	CHECK_EQUAL(slots.taken, 0);
	for (uint32_t number = 0; number < COUNT; number++)
		CHECK(take(0, number));
}

static void without_slots_nobody_gets_one(void)
{
	slots_init(&slots, memory, heads, 0, 7);
	CHECK(!take(0, 1));
	CHECK(!slots_find(&slots, id_of(1), NULL));
	CHECK(!slots_of(&slots, 1));
	slots_expire(&slots, UINT64_MAX);
}

static void restored_slots_are_found_and_expire_in_order_and_none_lives_longer_than_it_would_have(void)
{
	static uint8_t image[COUNT * sizeof(struct slot)];
	struct accord_path path = path_to(1);
	struct slot *slot;
	uint32_t count;

	anew();
	for (uint32_t number = 0; number < COUNT; number++)
		CHECK(take(number * 1000, number));
	count = slots_image(&slots, image, COUNT);
	CHECK_EQUAL(count, COUNT);
	CHECK_EQUAL(slots_image(&slots, image, 1), 1);

	slots_init(&slots, memory, heads, COUNT, 8);         /* another process hashes otherwise */
	CHECK(!slots_restore(&slots, SLOTS_LIFE_US, image)); /* the first has expired by then */
	for (uint32_t number = 1; number < COUNT; number++)
		CHECK(slots_restore(&slots, SLOTS_LIFE_US, image + number * sizeof(*slot)));
	CHECK(!slots_restore(&slots, SLOTS_LIFE_US, image + sizeof(*slot))); /* a second time */
	for (uint32_t number = 1; number < COUNT; number++) {
		slot = slots_find(&slots, id_of(number), &path);
		CHECK(slot && slots_of(&slots, slot->handle) == slot);
		CHECK(slot && slot->expires == SLOTS_LIFE_US + number * 1000 && slot->path.socket == ACCORD_PATH_NO_SOCKET);
		CHECK(slot && slot->seed[0] == 0xaa && slot->proposal[3] == 0xbb);
	}
	slots_expire(&slots, SLOTS_LIFE_US + 1000);
	CHECK_EQUAL(slots.taken, COUNT - 2);
	slots_expire(&slots, UINT64_MAX);
	CHECK_EQUAL(slots.taken, 0);
}

static void what_is_restored_is_bounded_whatever_the_copy_says(void)
{
	static uint8_t image[sizeof(struct slot)];
	struct slot wrong;

	anew();
	CHECK(take(0, 1));
	CHECK_EQUAL(slots_image(&slots, image, COUNT), 1);
	memcpy(&wrong, image, sizeof(wrong));
	wrong.expires = UINT64_MAX;
	wrong.handle = wrong.place = wrong.next = wrong.sooner = wrong.later = 77;
	anew();
	CHECK(slots_restore(&slots, 5, (const uint8_t *)&wrong));
	slots_expire(&slots, 5 + SLOTS_LIFE_US);
	CHECK_EQUAL(slots.taken, 0);
	wrong.length = sizeof(wrong.proposal) + 1;
	CHECK(!slots_restore(&slots, 5, (const uint8_t *)&wrong));
	slots_init(&slots, memory, heads, 0, 7);
	CHECK(!slots_restore(&slots, 5, image));
}

int main(void)
{
	RUN(a_slot_is_found_by_its_id_and_its_peers_address);
	RUN(when_none_is_free_nobody_gets_one_and_nobody_loses_one);
	RUN(a_slot_lives_for_ten_seconds_and_not_longer);
	RUN(an_emptied_slot_holds_no_secret_and_its_handle_is_nobodys);
	RUN(whatever_comes_and_goes_in_whatever_order_nothing_is_lost);
	RUN(without_slots_nobody_gets_one);
	RUN(restored_slots_are_found_and_expire_in_order_and_none_lives_longer_than_it_would_have);
	RUN(what_is_restored_is_bounded_whatever_the_copy_says);
	return check_report("test_slots");
}
