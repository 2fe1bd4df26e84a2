/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames that wait for their time: buffers from one fixed piece of memory, and a binary heap over them.
 * Equal times leave in the order of arrival. Nothing is allocated after schedule_init.
 */
#ifndef ACCORD_LAB_SCHEDULE_H
#define ACCORD_LAB_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct schedule_frame {
	uint32_t length;
	uint16_t offset; /* of the frame in its buffer: room in front for a VLAN tag */
	uint8_t direction;
};

struct schedule_entry {
	uint64_t when;
	uint64_t order;
	uint32_t buffer;
};

struct schedule {
	uint32_t capacity; /* entries */
	uint32_t count;    /* entries in the heap */
	uint32_t buffers;  /* capacity and those that the owner may hold outside the heap */
	uint32_t free_count;
	uint32_t buffer_bytes;
	uint64_t order;
	struct schedule_entry *heap;
	struct schedule_frame *frames; /* by buffer */
	uint32_t *free_list;
	uint8_t *memory;
	size_t memory_bytes;
};

/* held: buffers that the owner may hold at once without having scheduled them. False: no memory. */
bool schedule_init(struct schedule *schedule, uint32_t capacity, uint32_t held, uint32_t buffer_bytes);
void schedule_free(struct schedule *schedule);

/* A buffer's number; there is always one while the owner holds fewer than it said. */
uint32_t schedule_take(struct schedule *schedule);
void schedule_give_back(struct schedule *schedule, uint32_t buffer);
uint8_t *schedule_memory(const struct schedule *schedule, uint32_t buffer);

/* False: full, the buffer stays the owner's. */
bool schedule_push(struct schedule *schedule, uint64_t when, uint32_t buffer);
/* When the earliest is due; UINT64_MAX: there is none. */
uint64_t schedule_next(const struct schedule *schedule);
/* Takes the earliest out of the heap; its buffer is the owner's again. There must be one. */
uint32_t schedule_pop(struct schedule *schedule);

#endif
