/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Round-trip time, probe time-out and pace of one transaction, after RFC 9002; the window is congestion.h's.
 * docs/PROTOCOL.md, section 4.3, says where this departs from it and why.
 *
 * A packet that is sent again keeps its TSN. What RFC 9002 calls a packet number, that of a transmission, is its
 * *order*, which is never on the wire.
 */
#ifndef ACCORD_RECOVERY_H
#define ACCORD_RECOVERY_H

#include <stdbool.h>
#include <stdint.h>

#include "congestion.h"

enum recovery_constant {
	RECOVERY_GRANULARITY_US = 1000,   /* RFC 9002 section 6.1.2 */
	RECOVERY_INITIAL_RTT_US = 333000, /* RFC 9002 section 6.2.2 */
	/* The least that a remembered round trip counts for in time-outs: a busy host takes some milliseconds to answer. */
	RECOVERY_REMEMBERED_MIN_US = 50000,
	RECOVERY_MAX_ACK_DELAY_US = 25000,
	RECOVERY_PACKET_THRESHOLD = 3, /* RFC 9002 section 6.1.1 */
	RECOVERY_PROBES = 2,           /* packets per time-out; RFC 9002 section 6.2.4 */
	RECOVERY_PERSISTENT = 3,       /* probe time-outs; RFC 9002 section 7.6.1 */
	RECOVERY_MAX_BACKOFF = 8,      /* doublings */
	/* Longer intervals only if the round-trip time asks for them: a negotiation has ten seconds in all, and plain
	 * doubling would leave it four attempts. Linux sends SYNs a second apart (tcp_syn_linear_timeouts). */
	RECOVERY_MAX_INTERVAL_US = 1000000,
	/* Per cent of a window in a round trip: RFC 9002 section 7.7 has 125, and more while the window doubles
	 * in each, so that it is the window, not the pace, that decides. */
	RECOVERY_PACE = 125,
	RECOVERY_PACE_SLOW_START = 200,
};

struct recovery {
	uint32_t srtt_us, rttvar_us, latest_us, min_us; /* zero before the first sample */
	struct congestion congestion;
	uint32_t in_flight;     /* packets */
	uint32_t timeouts;      /* in a row */
	uint32_t next_order;    /* of the next transmission */
	uint32_t acked_order;   /* one past the latest that was acknowledged; 0: none */
	uint64_t timer_base;    /* when the probe timer was started */
	uint64_t loss_time;     /* when a packet will count as lost; 0: none may */
	uint64_t missed_at;     /* a packet in flight left then, and the peer said that it has it not; 0: none */
	uint32_t remembered_us; /* round trip to go by before there is a sample; 0: not known */
	uint64_t pace;          /* when the next packet would leave if all of them kept to the pace */
	/* For persistent congestion. 0: none. */
	uint64_t sampled_at;         /* the first sample came */
	uint64_t silent_since;       /* the first transmission behind all that was acknowledged left */
	uint64_t sent_at, before_at; /* the latest transmission left; the latest of a moment before that */
};

void recovery_init(struct recovery *recovery, enum accord_congestion algorithm, uint32_t window);
void recovery_on_sample(struct recovery *recovery, uint64_t rtt_us, uint64_t now);
/* A packet leaves. paced: it keeps to the pace; probes and acknowledgements do not. */
void recovery_on_sent(struct recovery *recovery, uint64_t now, bool paced);
/* Of all that was sent from `since` to `until` nothing arrived, but something that was sent later. */
void recovery_on_silence(struct recovery *recovery, uint64_t since, uint64_t until);
/* The probe timer ran out: probes follow. */
void recovery_on_timeout(struct recovery *recovery, uint64_t now);
/* Probe time-out without backoff, microseconds. */
uint32_t recovery_pto(const struct recovery *recovery);
/* When the probe timer, if something is waited for, runs out. */
uint64_t recovery_deadline(const struct recovery *recovery);
/*
 * When what the peer says it has not should have been there by the time threshold, and is worth a probe before the
 * probe timer runs out (RFC 9002 section 6.2.3). Only the first in a row, so that a path that is slow for once is not
 * asked again and again. UINT64_MAX: there is nothing such.
 */
uint64_t recovery_early(const struct recovery *recovery);
/* When an answer of which nothing comes any more counts as held back by its sender's amplification limit. */
uint64_t recovery_stalled(const struct recovery *recovery);
/* How long after its transmission a packet that others overtook counts as lost, microseconds. */
uint32_t recovery_loss_delay(const struct recovery *recovery);
/* Does the window let another packet go? */
static inline bool recovery_open(const struct recovery *recovery)
{
	return recovery->in_flight < recovery->congestion.window || recovery->congestion.spare;
}
/* When the pace lets the next packet go; a time that has passed: now. */
uint64_t recovery_pace_time(const struct recovery *recovery);

#endif /* ACCORD_RECOVERY_H */
