// SPDX-License-Identifier: Apache-2.0
#include "recovery.h"

#include <string.h>

#include "core.h"

static uint32_t larger(uint32_t one, uint32_t other)
{
	return one > other ? one : other;
}

void recovery_init(struct recovery *recovery, enum accord_congestion algorithm, uint32_t window)
{
	memset(recovery, 0, sizeof(*recovery));
	congestion_init(&recovery->congestion, algorithm, window);
}

/* RFC 9002 section 5.3. The ack delay is unknown here and stays in the sample. */
void recovery_on_sample(struct recovery *recovery, uint64_t rtt_us, uint64_t now)
{
	uint32_t rtt = (uint32_t)(rtt_us < 1 ? 1 : rtt_us > 60000000 ? 60000000 : rtt_us);
	uint32_t deviation;

	recovery->latest_us = rtt;
	if (!recovery->srtt_us) {
		recovery->min_us = recovery->srtt_us = rtt;
		recovery->rttvar_us = rtt / 2;
		recovery->sampled_at = now;
		return;
	}
	if (rtt < recovery->min_us)
		recovery->min_us = rtt;
	deviation = rtt > recovery->srtt_us ? rtt - recovery->srtt_us : recovery->srtt_us - rtt;
	recovery->rttvar_us = (uint32_t)((UINT64_C(3) * recovery->rttvar_us + deviation) / 4);
	recovery->srtt_us = (uint32_t)((UINT64_C(7) * recovery->srtt_us + rtt) / 8);
}

/* Microseconds between two packets at the present pace. 0: there is none yet. */
static uint64_t pace_interval(const struct recovery *recovery)
{
	const struct congestion *congestion = &recovery->congestion;
	uint64_t pace = congestion->window < congestion->threshold ? RECOVERY_PACE_SLOW_START : RECOVERY_PACE;

	return UINT64_C(100) * (recovery->srtt_us ? recovery->srtt_us : recovery->remembered_us) /
	       (pace * congestion->window);
}

/*
 * RFC 9002 section 7.7: a leaky bucket of the initial window's size, which the first packets, and those after a while
 * of silence, find empty.
 */
uint64_t recovery_pace_time(const struct recovery *recovery)
{
	uint64_t burst = (ACCORD_INITIAL_WINDOW - 1) * pace_interval(recovery);

	return recovery->pace > burst ? recovery->pace - burst : 0;
}

void recovery_on_sent(struct recovery *recovery, uint64_t now, bool paced)
{
	recovery->timer_base = now;
	recovery->congestion.spare = false;
	if (recovery->silent_since <= recovery->sampled_at)
		recovery->silent_since = now;
	if (now != recovery->sent_at) {
		recovery->before_at = recovery->sent_at;
		recovery->sent_at = now;
	}
	if (paced)
		recovery->pace = (recovery->pace > now ? recovery->pace : now) + pace_interval(recovery);
}

/* RFC 9002 section 7.6. Before the first sample nobody knows what is long. */
void recovery_on_silence(struct recovery *recovery, uint64_t since, uint64_t until)
{
	if (!recovery->sampled_at || since <= recovery->sampled_at || until <= since)
		return;
	if (until - since > RECOVERY_PERSISTENT * (uint64_t)recovery_pto(recovery))
		congestion_on_persistent(&recovery->congestion);
}

void recovery_on_timeout(struct recovery *recovery, uint64_t now)
{
	recovery->timer_base = now;
	recovery->timeouts++;
}

/* RFC 9002 section 6.2.1. */
uint32_t recovery_pto(const struct recovery *recovery)
{
	uint32_t srtt = recovery->srtt_us, rttvar = recovery->rttvar_us;

	/* RFC 9002 section 6.2.2. */
	if (!srtt) {
		srtt = RECOVERY_INITIAL_RTT_US;
		if (recovery->remembered_us)
			srtt = larger(recovery->remembered_us, RECOVERY_REMEMBERED_MIN_US);
		rttvar = srtt / 2;
	}

	return srtt + larger(4 * rttvar, RECOVERY_GRANULARITY_US) + RECOVERY_MAX_ACK_DELAY_US;
}

static uint64_t backed_off(const struct recovery *recovery, uint64_t interval)
{
	interval <<= recovery->timeouts < RECOVERY_MAX_BACKOFF ? recovery->timeouts : RECOVERY_MAX_BACKOFF;
	if (interval > RECOVERY_MAX_INTERVAL_US)
		interval = larger(recovery_pto(recovery), RECOVERY_MAX_INTERVAL_US);
	return recovery->timer_base + interval;
}

uint64_t recovery_early(const struct recovery *recovery)
{
	if (!recovery->missed_at || !recovery->srtt_us || recovery->timeouts)
		return UINT64_MAX;
	return recovery->missed_at + recovery_loss_delay(recovery) + RECOVERY_MAX_ACK_DELAY_US;
}

uint64_t recovery_deadline(const struct recovery *recovery)
{
	return backed_off(recovery, recovery_pto(recovery));
}

uint64_t recovery_stalled(const struct recovery *recovery)
{
	if (!recovery->srtt_us)
		return recovery_deadline(recovery);
	return backed_off(recovery, recovery_loss_delay(recovery) + RECOVERY_MAX_ACK_DELAY_US);
}

/* RFC 9002 section 6.1.2: 9/8 of the round-trip time. */
uint32_t recovery_loss_delay(const struct recovery *recovery)
{
	uint32_t rtt = larger(recovery->srtt_us, recovery->latest_us);

	return larger(rtt + rtt / 8, RECOVERY_GRANULARITY_US);
}
