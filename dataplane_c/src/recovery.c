// SPDX-License-Identifier: Apache-2.0
#include "recovery.h"

#include <string.h>

#include "core.h"

static uint32_t larger(uint32_t one, uint32_t other)
{
	return one > other ? one : other;
}

void recovery_init(struct recovery *recovery)
{
	memset(recovery, 0, sizeof(*recovery));
	recovery->window = ACCORD_INITIAL_WINDOW;
	recovery->threshold = UINT32_MAX;
}

/* RFC 9002 section 5.3. The ack delay is unknown here and stays in the sample. */
void recovery_on_sample(struct recovery *recovery, uint64_t rtt_us)
{
	uint32_t rtt = (uint32_t)(rtt_us < 1 ? 1 : rtt_us > 60000000 ? 60000000 : rtt_us);
	uint32_t deviation;

	recovery->latest_us = rtt;
	if (!recovery->srtt_us) {
		recovery->min_us = recovery->srtt_us = rtt;
		recovery->rttvar_us = rtt / 2;
		return;
	}
	if (rtt < recovery->min_us)
		recovery->min_us = rtt;
	deviation = rtt > recovery->srtt_us ? rtt - recovery->srtt_us : recovery->srtt_us - rtt;
	recovery->rttvar_us = (uint32_t)((UINT64_C(3) * recovery->rttvar_us + deviation) / 4);
	recovery->srtt_us = (uint32_t)((UINT64_C(7) * recovery->srtt_us + rtt) / 8);
}

/* RFC 9002 section 7.3, in packets. */
void recovery_on_acked(struct recovery *recovery, uint32_t packets)
{
	recovery->timeouts = 0;
	if (recovery->window < recovery->threshold) {
		recovery->window += packets;
	} else {
		recovery->credit += packets;
		if (recovery->credit >= recovery->window) {
			recovery->credit -= recovery->window;
			recovery->window++;
		}
	}
	if (recovery->window > ACCORD_MAX_PACKETS)
		recovery->window = ACCORD_MAX_PACKETS;
}

/* Once per window: losses among what was sent before the last reduction are part of it. */
void recovery_on_lost(struct recovery *recovery, uint64_t sent_at, uint64_t now)
{
	if (recovery->epoch && sent_at <= recovery->epoch)
		return;
	recovery->epoch = now;
	recovery->threshold = recovery->window = larger(recovery->window / 2, RECOVERY_MIN_WINDOW);
	recovery->credit = 0;
}

void recovery_on_timeout(struct recovery *recovery, uint64_t now)
{
	recovery->timer_base = now;
	recovery->timeouts++;
	/* RFC 9002 section 7.6, with a run of time-outs as the sign of persistent congestion. */
	if (recovery->timeouts == RECOVERY_COLLAPSE) {
		recovery->threshold = larger(recovery->window / 2, RECOVERY_MIN_WINDOW);
		recovery->window = RECOVERY_MIN_WINDOW;
		recovery->credit = 0;
	}
}

/* RFC 9002 section 6.2.1. */
uint32_t recovery_pto(const struct recovery *recovery)
{
	uint32_t srtt = recovery->srtt_us ? recovery->srtt_us : RECOVERY_INITIAL_RTT_US;
	uint32_t rttvar = recovery->srtt_us ? recovery->rttvar_us : RECOVERY_INITIAL_RTT_US / 2;

	return srtt + larger(4 * rttvar, RECOVERY_GRANULARITY_US) + RECOVERY_MAX_ACK_DELAY_US;
}

uint64_t recovery_deadline(const struct recovery *recovery)
{
	uint32_t doublings = recovery->timeouts < RECOVERY_MAX_BACKOFF ? recovery->timeouts : RECOVERY_MAX_BACKOFF;
	uint64_t interval;

	interval = (uint64_t)recovery_pto(recovery) << doublings;
	if (interval > RECOVERY_MAX_INTERVAL_US)
		interval = larger(recovery_pto(recovery), RECOVERY_MAX_INTERVAL_US);
	return recovery->timer_base + interval;
}

/* RFC 9002 section 6.1.2: 9/8 of the round-trip time. */
uint32_t recovery_loss_delay(const struct recovery *recovery)
{
	uint32_t rtt = larger(recovery->srtt_us, recovery->latest_us);

	return larger(rtt + rtt / 8, RECOVERY_GRANULARITY_US);
}
