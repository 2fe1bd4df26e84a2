/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Round-trip time, probe time-out and congestion window of one transaction, after RFC 9002. Two
 * departures: a retransmission keeps its TSN, so Karn's rule holds for samples; and the window counts
 * packets, of which there are at most ACCORD_MAX_PACKETS.
 */
#ifndef ACCORD_RECOVERY_H
#define ACCORD_RECOVERY_H

#include <stdbool.h>
#include <stdint.h>

enum recovery_constant {
	RECOVERY_GRANULARITY_US = 1000,   /* RFC 9002 section 6.1.2 */
	RECOVERY_INITIAL_RTT_US = 333000, /* RFC 9002 section 6.2.2 */
	RECOVERY_MAX_ACK_DELAY_US = 25000,
	RECOVERY_PACKET_THRESHOLD = 3, /* RFC 9002 section 6.1.1 */
	RECOVERY_MIN_WINDOW = 2,       /* packets; RFC 9002 section 7.2 */
	RECOVERY_PROBES = 2,           /* packets per time-out; RFC 9002 section 6.2.4 */
	RECOVERY_COLLAPSE = 3,         /* time-outs in a row after which the window starts anew */
	RECOVERY_MAX_BACKOFF = 8,      /* doublings */
	/* Longer intervals only if the round-trip time asks for them: a negotiation has ten seconds in all,
	 * and plain doubling would leave it four attempts. */
	RECOVERY_MAX_INTERVAL_US = 2000000,
};

struct recovery {
	uint32_t srtt_us, rttvar_us, latest_us, min_us; /* zero before the first sample */
	uint32_t window, threshold;                     /* packets; threshold: slow start ends here */
	uint32_t credit;                                /* packets acknowledged towards one more of window */
	uint32_t in_flight;                             /* packets */
	uint32_t timeouts;                              /* in a row */
	uint32_t next_order;                            /* serial number of the next transmission */
	uint32_t acked_order;                           /* one past the latest that was acknowledged; 0: none */
	uint64_t epoch;                                 /* losses of what was sent before it count no more */
	uint64_t timer_base;                            /* when the probe timer was started */
	uint64_t loss_time;                             /* when a packet will count as lost; 0: none may */
};

void recovery_init(struct recovery *recovery);
void recovery_on_sample(struct recovery *recovery, uint64_t rtt_us);
void recovery_on_acked(struct recovery *recovery, uint32_t packets);
void recovery_on_lost(struct recovery *recovery, uint64_t sent_at, uint64_t now);
/* The probe timer ran out: probes follow. */
void recovery_on_timeout(struct recovery *recovery, uint64_t now);
/* Probe time-out without backoff, microseconds. */
uint32_t recovery_pto(const struct recovery *recovery);
/* When the probe timer, if something is waited for, runs out. */
uint64_t recovery_deadline(const struct recovery *recovery);
/* How long after its transmission a packet that others overtook counts as lost, microseconds. */
uint32_t recovery_loss_delay(const struct recovery *recovery);

#endif /* ACCORD_RECOVERY_H */
