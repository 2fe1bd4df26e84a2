/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many packets of one transaction may be in flight (RFC 9002 section 7), in packets of at most
 * ACCORD_MIN_MTU_PACKET bytes. What all window algorithms have in common is here: slow start, that a window grows only
 * by what it held back, one reduction for each recovery period, persistent congestion. An algorithm is a table of
 * what is its own: how the window grows in congestion avoidance, and how far it shrinks.
 */
#ifndef ACCORD_CONGESTION_H
#define ACCORD_CONGESTION_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"

enum congestion_constant {
	CONGESTION_MIN_WINDOW = 2, /* packets; RFC 9002 section 7.2 */
};

struct newreno {
	uint32_t credit; /* packets acknowledged towards one more of window */
};

/* RFC 9438; windows in CUBIC_UNIT of a packet. */
struct cubic {
	uint64_t began;      /* this stage of congestion avoidance; 0: not yet */
	uint32_t window;     /* the window with its fraction */
	uint32_t before;     /* the window when it last had to shrink: cwnd_prior */
	uint32_t most;       /* W_max */
	uint32_t reno;       /* W_est */
	uint32_t plateau_ms; /* K */
};

struct congestion;

struct congestion_algorithm {
	const char *name;
	/* Congestion avoidance: so many packets were acknowledged. srtt_us: 0 before the first sample. */
	void (*grow)(struct congestion *congestion, uint32_t packets, uint64_t now, uint32_t srtt_us);
	/* A recovery period begins: the new window, before the bound below. */
	uint32_t (*shrink)(struct congestion *congestion, uint64_t now);
};

extern const struct congestion_algorithm newreno_algorithm, cubic_algorithm;

struct congestion {
	const struct congestion_algorithm *algorithm;
	uint32_t window, threshold; /* threshold: slow start ends here */
	uint64_t epoch;             /* the latest recovery period began; 0: there was none */
	bool spare; /* it has just begun: one packet may leave whatever the window (RFC 9002 section 7.3.2) */
	union {
		struct newreno newreno;
		struct cubic cubic;
	};
};

/* window: packets to begin with. */
void congestion_init(struct congestion *congestion, enum accord_congestion algorithm, uint32_t window);
/* Is an acknowledgement of what was sent then news of the path as it is since the window shrank? */
static inline bool congestion_counts(const struct congestion *congestion, uint64_t sent_at)
{
	return !congestion->epoch || sent_at > congestion->epoch;
}
/* So many packets that count were acknowledged, and the window was what held the sender back. */
void congestion_on_acked(struct congestion *congestion, uint32_t packets, uint64_t now, uint32_t srtt_us);
/* Something that was sent then is lost. */
void congestion_on_lost(struct congestion *congestion, uint64_t sent_at, uint64_t now);
/* All of a long time is lost (RFC 9002 section 7.6.2). */
void congestion_on_persistent(struct congestion *congestion);

#endif /* ACCORD_CONGESTION_H */
