/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one direction of a link does to the frames that cross it: drops, duplicates, reorders, serialises
 * at a rate, delays. Sans-IO: time is an argument, nanoseconds of any monotonic clock, and chance is a
 * pure function of (seed, direction, index of the frame), so a run can be repeated and a test can predict
 * which frames are lost.
 *
 * The order of events is that of Linux's netem, so that both kinds of lab behave alike: first duplication
 * and loss, then the transmitter's rate, then delay +- jitter (uniform). A reordered frame skips the delay.
 * Jitter moves each frame by itself, so frames that are less than it apart may overtake each other.
 */
#ifndef ACCORD_LAB_MODEL_H
#define ACCORD_LAB_MODEL_H

#include <stdint.h>

struct model_settings {
	uint64_t delay_ns;
	uint64_t jitter_ns;              /* at most the delay */
	double loss, duplicate, reorder; /* probabilities, 0..1 */
	uint64_t rate_bps;               /* bits of whole Ethernet frames (no preamble, no FCS) per second; 0: no limit */
	uint32_t mtu;                    /* bytes of an IP packet; longer ones are dropped in silence; 0: any */
	uint32_t limit;                  /* frames in the link at once; more are dropped */
};

struct model_counters {
	uint64_t received, received_bytes;    /* from the sending side */
	uint64_t delivered, delivered_bytes;  /* to the receiving side */
	uint64_t lost, duplicated, reordered; /* by chance */
	uint64_t too_long;                    /* over the MTU */
	uint64_t overflowed;                  /* no room: over the limit, or no buffer */
	uint64_t refused;                     /* the interface would not take it */
	uint64_t oversize;                    /* longer than a buffer */
	uint64_t unfinished;                  /* the sender left the checksum to hardware that is not there */
};

/* Which draw of a frame: each has its own, whether it is used or not, so that changing one setting does
 * not shift the others. */
enum model_draw {
	MODEL_DRAW_LOSS,
	MODEL_DRAW_DUPLICATE,
	MODEL_DRAW_REORDER,
	MODEL_DRAW_JITTER,
	MODEL_DRAW_JITTER_COPY,
	MODEL_DRAWS = 8,
};

struct model {
	struct model_settings settings;
	struct model_counters counters;
	uint64_t seed;
	uint64_t index;   /* of the next frame */
	uint64_t free_at; /* when the transmitter has sent what it has */
	uint32_t queued;  /* frames in the link: counted by the owner of the schedule */
};

void model_init(struct model *model, uint64_t seed, unsigned direction);
/* Uniform in [0, 1). */
double model_chance(const struct model *model, uint64_t index, enum model_draw draw);
/* One frame arrived at now. Returns how many copies leave (0, 1 or 2) and when each does. */
unsigned model_frame(struct model *model, uint64_t now, uint32_t bytes, uint64_t when[2]);

#endif
