// SPDX-License-Identifier: Apache-2.0
/* CUBIC (RFC 9438) in integers: C = 0.4, beta = 0.7, time in milliseconds. */
#include "congestion.h"

enum cubic_constant {
	CUBIC_UNIT = 1024, /* of a packet */
	CUBIC_FARTHEST_MS = 20000,
};

/* The largest whole number whose cube is not above. */
static uint32_t cube_root(uint64_t value)
{
	uint32_t low = 0, high = CUBIC_FARTHEST_MS;

	while (low < high) {
		uint64_t middle = (low + high + 1) / 2;

		if (middle * middle * middle <= value)
			low = (uint32_t)middle;
		else
			high = (uint32_t)middle - 1;
	}
	return low;
}

/* Section 4.2: W_cubic, so long after this stage of congestion avoidance began. */
static int64_t window_at(const struct cubic *own, uint64_t after_us)
{
	int64_t distance = (int64_t)(after_us / 1000) - own->plateau_ms;

	if (distance > CUBIC_FARTHEST_MS)
		distance = CUBIC_FARTHEST_MS;
	/* 0.4 packets for the cube of a second, which is 10^9 of the cube of a millisecond. */
	return own->most + distance * distance * distance * (4 * CUBIC_UNIT) / INT64_C(10000000000);
}

static void begin(struct congestion *congestion, uint64_t now)
{
	struct cubic *own = &congestion->cubic;

	own->began = now;
	own->window = own->reno = congestion->window * CUBIC_UNIT;
	if (own->most < own->window)
		own->most = own->window;
	if (!own->before)
		own->before = own->window;
	own->plateau_ms = cube_root((uint64_t)(own->most - own->window) * 2500000000 / CUBIC_UNIT);
}

/* Sections 4.2 to 4.5. */
static void grow(struct congestion *congestion, uint32_t packets, uint64_t now, uint32_t srtt_us)
{
	struct cubic *own = &congestion->cubic;

	if (!own->began || own->window / CUBIC_UNIT != congestion->window) /* the latter: slow start came between */
		begin(congestion, now);
	for (; packets; packets--) {
		/* alpha = 3 (1 - beta) / (1 + beta) until there is as much as before, then 1 */
		uint64_t alpha = own->reno < own->before ? CUBIC_UNIT * 9 / 17 : CUBIC_UNIT;
		int64_t target = window_at(own, now - own->began + srtt_us);

		own->reno += (uint32_t)(alpha * CUBIC_UNIT / own->window);
		if (target > (int64_t)own->window * 3 / 2)
			target = (int64_t)own->window * 3 / 2;
		if (window_at(own, now - own->began) < (int64_t)own->reno)
			own->window = own->reno > own->window ? own->reno : own->window;
		else if (target > (int64_t)own->window)
			own->window += (uint32_t)((target - own->window) * CUBIC_UNIT / own->window);
	}
	if (own->window > ACCORD_MAX_PACKETS * CUBIC_UNIT)
		own->window = ACCORD_MAX_PACKETS * CUBIC_UNIT;
	congestion->window = own->window / CUBIC_UNIT;
}

/* Sections 4.6 and 4.7. */
static uint32_t shrink(struct congestion *congestion, uint64_t now)
{
	struct cubic *own = &congestion->cubic;
	uint32_t window = congestion->window * CUBIC_UNIT;

	(void)now;
	own->most = window < own->most ? (uint32_t)((uint64_t)window * 17 / 20) : window; /* fast convergence */
	own->before = window;
	own->began = 0;
	return congestion->window * 7 / 10;
}

const struct congestion_algorithm cubic_algorithm = {.name = "cubic", .grow = grow, .shrink = shrink};
