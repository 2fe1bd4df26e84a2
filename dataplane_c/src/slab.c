// SPDX-License-Identifier: Apache-2.0
#include "slab.h"

#include <string.h>

uint32_t slab_stride(uint32_t buffer_bytes)
{
	uint32_t bytes = (uint32_t)sizeof(struct slab_head) + buffer_bytes;

	return (bytes + SLAB_GRAIN - 1) / SLAB_GRAIN * SLAB_GRAIN;
}

void slab_init(struct slab *slab, void *memory, uint32_t count, uint32_t buffer_bytes, uint32_t unproven)
{
	uint32_t pool = count / 4 * 3;

	memset(slab, 0, sizeof(*slab));
	slab->memory = memory;
	slab->stride = slab_stride(buffer_bytes);
	slab->capacity = buffer_bytes;
	slab->count = count;
	/* Unproven peers may hold three quarters in all, half of that by guarantee: six buffers each of the
	 * default sizes, which a proposal of two packets and an answer of three need five of. */
	slab->guarantee = unproven ? pool / 2 / unproven : 0;
	slab->common_limit = count - slab->guarantee * unproven;
	slab->unproven_limit = pool - slab->guarantee * unproven;
	slab->free_head = SLAB_NONE;
	for (uint32_t buffer = count; buffer-- > 0;) {
		slab_head(slab, buffer)->next = slab->free_head;
		slab->free_head = buffer;
	}
	slab->free_count = count;
}

uint32_t slab_take(struct slab *slab, struct slab_share *share)
{
	uint32_t buffer = slab->free_head;

	if (slab_available(slab, share) == 0)
		return SLAB_NONE;
	if (!share->unproven || share->held >= slab->guarantee) {
		slab->common_used++;
		slab->unproven_used += share->unproven;
	}
	share->held++;
	slab->free_head = slab_head(slab, buffer)->next;
	slab->free_count--;
	memset(slab_head(slab, buffer), 0, sizeof(struct slab_head));
	return buffer;
}

void slab_give(struct slab *slab, struct slab_share *share, uint32_t buffer)
{
	share->held--;
	if (!share->unproven || share->held >= slab->guarantee) {
		slab->common_used--;
		slab->unproven_used -= share->unproven;
	}
	slab_head(slab, buffer)->next = slab->free_head;
	slab->free_head = buffer;
	slab->free_count++;
}

void slab_prove(struct slab *slab, struct slab_share *share)
{
	uint32_t beyond = slab_left(share->held, slab->guarantee);

	if (!share->unproven)
		return;
	slab->unproven_used -= beyond;
	slab->common_used += share->held - beyond;
	share->unproven = false;
}
