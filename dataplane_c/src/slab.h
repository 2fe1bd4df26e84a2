/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packet buffers: one slab of fixed size, and who may take how many of it.
 *
 * A transaction whose peer's address is unproven is guaranteed a few buffers, so that honest peers get
 * through while hostile ones hold all they can (docs: no peer evicts another). Beyond the guarantee,
 * unproven transactions together are held to a part of what is left; the others share all of it.
 */
#ifndef ACCORD_SLAB_H
#define ACCORD_SLAB_H

#include <stdbool.h>
#include <stdint.h>

enum slab_constant {
	SLAB_GRAIN = 16, /* bytes; every buffer starts at a multiple */
};

#define SLAB_NONE UINT32_MAX

enum sent_state {
	SENT_NOT_YET,
	SENT_IN_FLIGHT,
	SENT_LOST,
	SENT_ARRIVED, /* acknowledged, and kept to probe with: see outbox_awaits */
};

/* In front of each buffer's bytes. */
struct slab_head {
	uint64_t queued_at, sent_at; /* transmit: microseconds */
	union {
		uint32_t next;     /* while free */
		uint32_t datagram; /* transmit: serial number of the datagram that it shared, latest; 0: went alone */
	};
	uint32_t order;  /* transmit: serial number of its latest transmission */
	uint16_t length; /* transmit: of the packet */
	union {
		uint16_t references; /* receive: pieces in it */
		uint16_t superseded; /* transmit: so many transmissions ago it left before probes; 0: that is judged */
	};
	uint16_t transmissions;
	uint8_t state; /* enum sent_state */
	uint8_t probe; /* to be sent again regardless of the window */
};

/* What one transaction holds. */
struct slab_share {
	uint32_t held;
	bool unproven;
};

struct slab {
	uint8_t *memory;
	uint32_t stride, count, capacity; /* capacity: bytes of one buffer that may be used */
	uint32_t free_head, free_count;
	uint32_t guarantee;                     /* buffers, of each unproven transaction */
	uint32_t common_limit, common_used;     /* beyond the guarantees, all transactions */
	uint32_t unproven_limit, unproven_used; /* of these, the unproven ones */
};

/* Bytes of one buffer with its head. */
uint32_t slab_stride(uint32_t buffer_bytes);
/* memory: count * slab_stride(buffer_bytes) bytes, aligned to SLAB_GRAIN. */
void slab_init(struct slab *slab, void *memory, uint32_t count, uint32_t buffer_bytes, uint32_t unproven);
/* Of a limit. */
static inline uint32_t slab_left(uint32_t limit, uint32_t used)
{
	return limit > used ? limit - used : 0;
}
/* How many buffers this share could take now. */
static inline uint32_t slab_available(const struct slab *slab, const struct slab_share *share)
{
	uint32_t common = slab_left(slab->common_limit, slab->common_used);

	if (share->unproven) {
		uint32_t unproven = slab_left(slab->unproven_limit, slab->unproven_used);

		common = unproven < common ? unproven : common;
		common += slab_left(slab->guarantee, share->held);
	}
	return common < slab->free_count ? common : slab->free_count;
}
/* SLAB_NONE when slab_available is 0. */
uint32_t slab_take(struct slab *slab, struct slab_share *share);
void slab_give(struct slab *slab, struct slab_share *share, uint32_t buffer);
/* The holder is no longer unproven. */
void slab_prove(struct slab *slab, struct slab_share *share);

static inline struct slab_head *slab_head(const struct slab *slab, uint32_t buffer)
{
	return (struct slab_head *)(void *)(slab->memory + (uint64_t)buffer * slab->stride);
}

static inline uint8_t *slab_bytes(const struct slab *slab, uint32_t buffer)
{
	return (uint8_t *)(slab_head(slab, buffer) + 1);
}

#endif /* ACCORD_SLAB_H */
