/* SPDX-License-Identifier: Apache-2.0 */
/* The link: two ends, what each direction does to frames, and the frames that are on their way. */
#ifndef ACCORD_LAB_LINK_H
#define ACCORD_LAB_LINK_H

#include "model.h"
#include "schedule.h"
#include "wire_end.h"

enum link_direction {
	LINK_UP,   /* client to server: received at end 0, sent at end 1 */
	LINK_DOWN, /* server to client: received at end 1, sent at end 0 */
	LINK_DIRECTIONS,
};

struct link {
	struct wire_end ends[LINK_DIRECTIONS]; /* ends[direction] is where its frames come in */
	struct model models[LINK_DIRECTIONS];
	uint64_t arrived[LINK_DIRECTIONS]; /* when the last frame came in, link_now() */
	struct schedule schedule;
};

/* CLOCK_MONOTONIC, nanoseconds. */
static inline uint64_t link_now(void)
{
	return wire_end_now(CLOCK_MONOTONIC);
}

/* Read what has come in at this direction's end and schedule it. Returns frames read. */
uint32_t link_receive(struct link *link, enum link_direction direction);
/* Send what is due. */
void link_release(struct link *link);

#endif
