/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunk data in packet buffers, so that small packets do not cost whole ones: piece behind piece, of whichever node.
 * Each node has a list of its own, in the order of TSNs.
 */
#ifndef ACCORD_PIECES_H
#define ACCORD_PIECES_H

#include <stdbool.h>
#include <stdint.h>

#include "packet.h"
#include "slab.h"

enum piece_constant {
	PIECE_UNIT = 8, /* bytes; every piece starts at a multiple, with a head of so many */
};

/* A place in the slab, in units of PIECE_UNIT: with 32 bits, below 32 GiB. At the first there is a buffer's head. */
#define PIECE_NONE 0u

struct piece_list {
	uint32_t head, tail; /* PIECE_NONE: none */
};

/* Where a transaction's next piece goes. */
struct piece_fill {
	uint32_t buffer; /* SLAB_NONE: to a new one */
	uint32_t left;   /* units of it, heads of pieces included; 0 where there is none */
	uint32_t place;  /* where they begin */
};

/* Are so many buffers enough for any chunks that have so many bytes together? Each that is taken is the last, or gets
 * full but for a piece's head, and costs a head more where it splits a chunk. */
static inline bool pieces_fit(const struct slab *slab, uint32_t buffers, uint32_t bytes, uint32_t chunks)
{
	return bytes + chunks * SLAB_GRAIN < (uint64_t)buffers * (slab->capacity - 2 * SLAB_GRAIN);
}
/* Buffers that storing these bytes of chunks, one after the other, would take. */
uint32_t pieces_need(const struct piece_fill *fill, const struct slab *slab, const uint16_t *lengths, uint32_t count);
/* Store a chunk's data. Memory was made sure of. offset: of its TSN. */
void pieces_store(struct slab *slab, struct slab_share *share, struct piece_fill *fill, struct piece_list *list,
                  const struct chunk *chunk, uint16_t offset);
/* Where a node's descriptor begins: header, children and TLVs, all of them; in the first piece, or, where that ends
 * too early, copied together into room for DESCRIPTOR_PREFIX_BYTES. */
const uint8_t *pieces_prefix(const struct slab *slab, uint32_t head, uint8_t *room);
/* Copy up to limit bytes of a list, and give all of it back. Returns how many were copied. */
uint32_t pieces_take(struct piece_fill *fill, struct slab *slab, struct slab_share *share, uint32_t head, uint8_t *to,
                     uint32_t limit);
void pieces_release(struct piece_fill *fill, struct slab *slab, struct slab_share *share, uint32_t head);

#endif /* ACCORD_PIECES_H */
