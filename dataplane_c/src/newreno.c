// SPDX-License-Identifier: Apache-2.0
/* NewReno as RFC 9002 has it (section 7.3 and appendix B), in packets. */
#include "congestion.h"

/* One packet more for each window of them that is acknowledged. */
static void grow(struct congestion *congestion, uint32_t packets, uint64_t now, uint32_t srtt_us)
{
	struct newreno *own = &congestion->newreno;

	(void)now;
	(void)srtt_us;
	own->credit += packets;
	while (own->credit >= congestion->window) {
		own->credit -= congestion->window;
		congestion->window++;
	}
}

static uint32_t shrink(struct congestion *congestion, uint64_t now)
{
	(void)now;
	congestion->newreno.credit = 0;
	return congestion->window / 2;
}

const struct congestion_algorithm newreno_algorithm = {.name = "newreno", .grow = grow, .shrink = shrink};
