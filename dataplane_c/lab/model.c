/* SPDX-License-Identifier: Apache-2.0 */
#include "model.h"

#define GOLDEN 0x9e3779b97f4a7c15ULL
#define SECOND_NS 1000000000ULL
#define ETHERNET_BYTES 14

/* The output function of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators,
 * OOPSLA 2014): any element of the sequence can be had without the ones before it. */
static uint64_t mix(uint64_t value)
{
	value ^= value >> 30;
	value *= 0xbf58476d1ce4e5b9ULL;
	value ^= value >> 27;
	value *= 0x94d049bb133111ebULL;
	return value ^ (value >> 31);
}

void model_init(struct model *model, uint64_t seed, unsigned direction)
{
	*model = (struct model){.seed = mix(mix(seed + GOLDEN) + direction)};
}

double model_chance(const struct model *model, uint64_t index, enum model_draw draw)
{
	uint64_t bits = mix(model->seed + GOLDEN * (index * MODEL_DRAWS + (uint64_t)draw + 1));

	return (double)(bits >> 11) * 0x1p-53; /* a double holds 53 bits exactly */
}

/* Serialise one copy; returns when its last bit is out. */
static uint64_t transmit(struct model *model, uint64_t now, uint32_t bytes)
{
	uint64_t start = model->free_at > now ? model->free_at : now;

	if (model->settings.rate_bps == 0)
		return now;
	model->free_at = start + (uint64_t)bytes * 8 * SECOND_NS / model->settings.rate_bps;
	return model->free_at;
}

static uint64_t delay(const struct model *model, uint64_t index, enum model_draw draw)
{
	const struct model_settings *settings = &model->settings;
	double spread = 2 * model_chance(model, index, draw) - 1;

	return (uint64_t)((int64_t)settings->delay_ns + (int64_t)(spread * (double)settings->jitter_ns));
}

unsigned model_frame(struct model *model, uint64_t now, uint32_t bytes, uint64_t when[2])
{
	const struct model_settings *settings = &model->settings;
	struct model_counters *counters = &model->counters;
	uint64_t index = model->index++;
	unsigned copies = 1;
	unsigned room, copy;

	counters->received++;
	counters->received_bytes += bytes;
	if (settings->mtu && bytes > settings->mtu + ETHERNET_BYTES) {
		counters->too_long++;
		return 0;
	}
	if (model_chance(model, index, MODEL_DRAW_LOSS) < settings->loss) {
		counters->lost++;
		copies--;
	}
	if (model_chance(model, index, MODEL_DRAW_DUPLICATE) < settings->duplicate) {
		counters->duplicated++;
		copies++;
	}
	room = model->queued < settings->limit ? settings->limit - model->queued : 0;
	if (copies > room) {
		counters->overflowed += copies - room;
		copies = room;
	}
	for (copy = 0; copy < copies; copy++)
		when[copy] =
			transmit(model, now, bytes) + delay(model, index, copy ? MODEL_DRAW_JITTER_COPY : MODEL_DRAW_JITTER);
	if (copies && settings->delay_ns && model_chance(model, index, MODEL_DRAW_REORDER) < settings->reorder) {
		counters->reordered++;
		when[0] = settings->rate_bps ? model->free_at : now;
	}
	return copies;
}
