/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of events, in order. A NODE event owns its descriptor's pieces until it is taken out. */
#ifndef ACCORD_EVENT_H
#define ACCORD_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"

struct event {
	uint32_t handle; /* 0: withdrawn, its transaction was closed */
	uint32_t protocol, length, head;
	uint16_t kind, reason, order;
	uint8_t step, node;
};

struct event_queue {
	struct event *ring;
	uint32_t size, first, count;
};

static inline uint32_t event_room(const struct event_queue *queue)
{
	return queue->size - queue->count;
}

static inline struct event *event_at(const struct event_queue *queue, uint32_t index)
{
	uint32_t at = queue->first + index; /* both below the size: no division */

	return &queue->ring[at < queue->size ? at : at - queue->size];
}

static inline struct event *event_first(const struct event_queue *queue)
{
	return &queue->ring[queue->first];
}

/* A new one at the end, with what it held before in it; there is room. */
static inline struct event *event_push(struct event_queue *queue)
{
	return event_at(queue, queue->count++);
}

static inline void event_drop(struct event_queue *queue)
{
	if (++queue->first == queue->size)
		queue->first = 0;
	queue->count--;
}

#endif /* ACCORD_EVENT_H */
