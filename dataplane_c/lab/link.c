/* SPDX-License-Identifier: Apache-2.0 */
#include "link.h"

#include <string.h>

static bool enqueue(struct link *link, enum link_direction direction, uint64_t when, uint32_t buffer)
{
	if (!schedule_push(&link->schedule, when, buffer)) {
		link->models[direction].counters.overflowed++;
		return false;
	}
	link->schedule.frames[buffer].direction = (uint8_t)direction;
	link->models[direction].queued++;
	return true;
}

/* A second copy of a frame. There is a buffer for it: what the heap and this batch hold is less than all. */
static void enqueue_copy(struct link *link, enum link_direction direction, uint64_t when, uint32_t original)
{
	struct schedule *schedule = &link->schedule;
	uint32_t copy;

	if (schedule->free_count == 0) {
		link->models[direction].counters.overflowed++;
		return;
	}
	copy = schedule_take(schedule);
	schedule->frames[copy] = schedule->frames[original];
	memcpy(schedule_memory(schedule, copy) + schedule->frames[copy].offset,
	       schedule_memory(schedule, original) + schedule->frames[original].offset, schedule->frames[original].length);
	if (!enqueue(link, direction, when, copy))
		schedule_give_back(schedule, copy);
}

static void frame_in(struct link *link, enum link_direction direction, uint64_t arrived, uint32_t buffer)
{
	struct model *model = &link->models[direction];
	uint64_t when[2] = {0, 0};
	unsigned copies;

	/* The socket hands frames over in their order; the clocks' jitter must not undo it. */
	if (arrived > link->arrived[direction])
		link->arrived[direction] = arrived;
	copies = model_frame(model, link->arrived[direction], link->schedule.frames[buffer].length, when);

	if (copies == 2)
		enqueue_copy(link, direction, when[1], buffer);
	if (copies == 0 || !enqueue(link, direction, when[0], buffer))
		schedule_give_back(&link->schedule, buffer);
}

uint32_t link_receive(struct link *link, enum link_direction direction)
{
	struct model_counters *counters = &link->models[direction].counters;
	struct wire_end_batch batch;
	uint32_t received = wire_end_receive(&link->ends[direction], &link->schedule, &batch);

	for (uint32_t i = 0; i < received; i++) {
		counters->unfinished += batch.unfinished[i];
		if (batch.oversize[i]) {
			counters->oversize++;
			schedule_give_back(&link->schedule, batch.buffer[i]);
			continue;
		}
		frame_in(link, direction, batch.arrived[i], batch.buffer[i]);
	}
	return received;
}

static void send_all(struct link *link, enum link_direction direction, const uint32_t *buffers, uint32_t count)
{
	struct model *model = &link->models[direction];
	struct wire_end *end = &link->ends[LINK_DIRECTIONS - 1 - direction];
	uint32_t done = 0;

	while (done < count) {
		uint32_t sent = wire_end_send(end, &link->schedule, buffers + done, count - done);

		for (uint32_t i = 0; i < sent; i++)
			model->counters.delivered_bytes += link->schedule.frames[buffers[done + i]].length;
		model->counters.delivered += sent;
		done += sent;
		if (done < count) {
			model->counters.refused++;
			done++;
		}
	}
	for (uint32_t i = 0; i < count; i++)
		schedule_give_back(&link->schedule, buffers[i]);
	model->queued -= count;
}

void link_release(struct link *link)
{
	uint32_t batch[LINK_DIRECTIONS][WIRE_END_BATCH] = {{0}};
	uint32_t count[LINK_DIRECTIONS] = {0, 0};
	uint64_t now = link_now();
	uint32_t popped;

	/* One batch only: receiving must go on while a long queue drains. */
	for (popped = 0; popped < WIRE_END_BATCH && schedule_next(&link->schedule) <= now; popped++) {
		uint32_t buffer = schedule_pop(&link->schedule);
		uint8_t direction = link->schedule.frames[buffer].direction;

		batch[direction][count[direction]++] = buffer;
	}
	for (int direction = 0; direction < LINK_DIRECTIONS; direction++)
		send_all(link, (enum link_direction)direction, batch[direction], count[direction]);
}
