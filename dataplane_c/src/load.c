// SPDX-License-Identifier: Apache-2.0
#include "load.h"

#include <string.h>

enum {
	MILLION = 1000000,
};

void load_init(struct load *load, uint32_t budget, uint32_t places, uint64_t now)
{
	memset(load, 0, sizeof(*load));
	load->budget = budget;
	load->tokens = (uint64_t)budget * MILLION;
	load->places = places;
	load->paid_at = load->window = load->since = now;
}

static void set_level(struct load *load, uint64_t now, uint32_t level)
{
	if (level == ACCORD_LEVEL_ANSWER && !load->budget)
		level = level > load->level ? ACCORD_LEVEL_COOKIE : ACCORD_LEVEL_STATE;
	if (level < load->floor)
		level = load->floor;
	if (level == load->level)
		return;
	if (level > load->level)
		load->raised[level]++;
	load->level = level;
	load->since = now;
}

/* The window has passed. */
static void judge(struct load *load, uint64_t now)
{
	bool few = load->strangers <= load->places / 8 + load->budget / 2;
	bool room = load->most_taken <= load->places / 2;

	if (!few || (!room && (load->level == ACCORD_LEVEL_ANSWER || !load->budget)))
		return;
	if (load->level == ACCORD_LEVEL_COOKIE)
		set_level(load, now, ACCORD_LEVEL_ANSWER);
	else
		set_level(load, now, ACCORD_LEVEL_STATE);
}

void load_note(struct load *load, uint64_t now, uint64_t strangers, uint32_t taken)
{
	if (now - load->window >= LOAD_CALM_US) {
		judge(load, now);
		/* Of a time in which nobody asked there is nothing to be told. */
		load->last = now - load->window < 2 * LOAD_CALM_US ? load->strangers : 0;
		load->window = now;
		load->strangers = 0;
		load->most_taken = 0;
	}
	load->strangers += strangers;
	if (taken > load->most_taken)
		load->most_taken = taken;
}

void load_raise(struct load *load, uint64_t now, uint32_t level)
{
	if (level > load->level)
		set_level(load, now, level);
}

bool load_spend(struct load *load, uint64_t now)
{
	uint64_t full = (uint64_t)load->budget * MILLION, passed = now - load->paid_at;

	/* Longer than that fills it anyway, and would not fit the product. */
	load->tokens += (passed < MILLION ? passed : MILLION) * load->budget;
	load->paid_at = now;
	if (load->tokens > full)
		load->tokens = full;
	if (load->tokens < MILLION)
		return false;
	load->tokens -= MILLION;
	return true;
}
