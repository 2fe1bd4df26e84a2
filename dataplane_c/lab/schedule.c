/* SPDX-License-Identifier: Apache-2.0 */
#include "schedule.h"

#include <stdlib.h>
#include <sys/mman.h>

bool schedule_init(struct schedule *schedule, uint32_t capacity, uint32_t held, uint32_t buffer_bytes)
{
	uint32_t buffers = capacity + held;

	*schedule = (struct schedule){.capacity = capacity, .buffers = buffers, .buffer_bytes = buffer_bytes};
	schedule->heap = calloc(capacity, sizeof(*schedule->heap));
	schedule->frames = calloc(buffers, sizeof(*schedule->frames));
	schedule->free_list = calloc(buffers, sizeof(*schedule->free_list));
	/* Mapped, not allocated: pages cost memory only once a frame has been in them. */
	schedule->memory_bytes = (size_t)buffers * buffer_bytes;
	schedule->memory =
		mmap(NULL, schedule->memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (schedule->memory == MAP_FAILED)
		schedule->memory = NULL;
	if (!schedule->heap || !schedule->frames || !schedule->free_list || !schedule->memory) {
		schedule_free(schedule);
		return false;
	}
	/* Last in, first out, so that a quiet link stays within a few warm pages. */
	while (schedule->free_count < buffers) {
		schedule->free_list[schedule->free_count] = buffers - 1 - schedule->free_count;
		schedule->free_count++;
	}
	return true;
}

void schedule_free(struct schedule *schedule)
{
	free(schedule->heap);
	free(schedule->frames);
	free(schedule->free_list);
	if (schedule->memory)
		munmap(schedule->memory, schedule->memory_bytes);
	*schedule = (struct schedule){0};
}

uint32_t schedule_take(struct schedule *schedule)
{
	return schedule->free_list[--schedule->free_count];
}

void schedule_give_back(struct schedule *schedule, uint32_t buffer)
{
	schedule->free_list[schedule->free_count++] = buffer;
}

uint8_t *schedule_memory(const struct schedule *schedule, uint32_t buffer)
{
	return schedule->memory + (size_t)buffer * schedule->buffer_bytes;
}

static bool earlier(const struct schedule_entry *a, const struct schedule_entry *b)
{
	return a->when < b->when || (a->when == b->when && a->order < b->order);
}

bool schedule_push(struct schedule *schedule, uint64_t when, uint32_t buffer)
{
	struct schedule_entry entry = {.when = when, .order = schedule->order, .buffer = buffer};
	uint32_t hole = schedule->count;

	if (schedule->count == schedule->capacity)
		return false;
	schedule->order++;
	schedule->count++;
	while (hole > 0 && earlier(&entry, &schedule->heap[(hole - 1) / 2])) {
		schedule->heap[hole] = schedule->heap[(hole - 1) / 2];
		hole = (hole - 1) / 2;
	}
	schedule->heap[hole] = entry;
	return true;
}

uint64_t schedule_next(const struct schedule *schedule)
{
	return schedule->count ? schedule->heap[0].when : UINT64_MAX;
}

uint32_t schedule_pop(struct schedule *schedule)
{
	uint32_t buffer = schedule->heap[0].buffer;
	struct schedule_entry last = schedule->heap[--schedule->count];
	uint32_t hole = 0;
	uint32_t child;

	while ((child = 2 * hole + 1) < schedule->count) {
		if (child + 1 < schedule->count && earlier(&schedule->heap[child + 1], &schedule->heap[child]))
			child++;
		if (!earlier(&schedule->heap[child], &last))
			break;
		schedule->heap[hole] = schedule->heap[child];
		hole = child;
	}
	schedule->heap[hole] = last;
	return buffer;
}
