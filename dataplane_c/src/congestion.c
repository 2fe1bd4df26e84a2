// SPDX-License-Identifier: Apache-2.0
#include "congestion.h"

#include <string.h>

static const struct congestion_algorithm *const ALGORITHMS[ACCORD_CONGESTIONS] = {
	[ACCORD_CONGESTION_NEWRENO] = &newreno_algorithm,
	[ACCORD_CONGESTION_CUBIC] = &cubic_algorithm,
};

void congestion_init(struct congestion *congestion, enum accord_congestion algorithm, uint32_t window)
{
	memset(congestion, 0, sizeof(*congestion));
	congestion->algorithm = ALGORITHMS[algorithm];
	congestion->window = window;
	congestion->threshold = UINT32_MAX;
}

/* RFC 9002 section 7.3.1: slow start, up to its threshold; what is left over is the algorithm's. */
void congestion_on_acked(struct congestion *congestion, uint32_t packets, uint64_t now, uint32_t srtt_us)
{
	if (congestion->window < congestion->threshold) {
		uint32_t room = congestion->threshold - congestion->window;
		uint32_t slow = packets < room ? packets : room;

		congestion->window += slow;
		packets -= slow;
	}
	if (packets)
		congestion->algorithm->grow(congestion, packets, now, srtt_us);
	if (congestion->window > ACCORD_MAX_PACKETS)
		congestion->window = ACCORD_MAX_PACKETS;
}

/* RFC 9002 section 7.3.2: losses among what was sent before the last reduction are part of it. */
void congestion_on_lost(struct congestion *congestion, uint64_t sent_at, uint64_t now)
{
	uint32_t window;

	if (!congestion_counts(congestion, sent_at))
		return;
	congestion->epoch = now;
	congestion->spare = true;
	window = congestion->algorithm->shrink(congestion, now);
	congestion->window = window > CONGESTION_MIN_WINDOW ? window : CONGESTION_MIN_WINDOW;
	congestion->threshold = congestion->window;
}

void congestion_on_persistent(struct congestion *congestion)
{
	congestion->window = CONGESTION_MIN_WINDOW;
	congestion->epoch = 0; /* RFC 9002, appendix B.8 */
}
