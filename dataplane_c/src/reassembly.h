/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks into node descriptors. Each node is put together by itself, so it can be delivered while packets
 * of earlier nodes are missing (HotNets 2009, section 3.3).
 */
#ifndef ACCORD_REASSEMBLY_H
#define ACCORD_REASSEMBLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ackrange.h"
#include "packet.h"
#include "pieces.h"
#include "slab.h"

enum reassembly_constant {
	REASSEMBLY_STEPS = ACCORD_MAX_STEPS / 2, /* steps of one direction; step / 2 is the index */
};

enum node_status {
	NODE_UNSEEN,
	NODE_STORED,  /* arriving */
	NODE_SKIPPED, /* of an unsupported protocol: followed, not stored */
	NODE_DELIVERED,
};

/* One node of the latest step in which it was met. TSN offsets; -1: not known yet. */
struct node_in {
	uint32_t protocol;
	struct piece_list pieces;
	uint32_t bytes;
	int16_t first, last; /* of the chunks that bore F and L */
	int16_t low, high;   /* of any chunk */
	uint16_t count;      /* chunks */
	int8_t step;         /* the latest in which it was met */
	uint8_t status;      /* enum node_status */
};

/* One message of the peer's. TSN offsets; -1: not known yet. */
struct step_in {
	int16_t low, high, end;
	uint32_t bytes; /* of descriptors */
	bool complete;
};

struct reassembly {
	struct step_in steps[REASSEMBLY_STEPS];
	uint64_t met;  /* node IDs, one bit each */
	int8_t latest; /* highest step met; -1: none */
	int8_t closed; /* highest step that nobody waits for any more: what still comes of it is not stored; -1: none */
	struct piece_fill fill;
	/* Of those met; the others mean nothing, not even zero. Few of many are ever touched. */
	struct node_in nodes[ACCORD_MAX_NODES];
};
_Static_assert((int)ACCORD_MAX_NODES == 64, "a bit for each node");

void reassembly_init(struct reassembly *reassembly);
/* Does this packet, of a TSN not seen before, agree with what came before it? Returns enum accord_reason. */
uint32_t reassembly_check(const struct reassembly *reassembly, const struct packet *packet);
/* The node, as of the latest step in which it was met; NULL: never. */
static inline const struct node_in *reassembly_latest(const struct reassembly *reassembly, uint8_t node)
{
	return reassembly->met >> node & 1 ? &reassembly->nodes[node] : NULL;
}
/* How many nodes of a step were met. */
uint32_t reassembly_count(const struct reassembly *reassembly, uint8_t step);
/* Enter a checked packet's step, TSN and END. */
void reassembly_enter(struct reassembly *reassembly, const struct packet *packet);
/* A node's first chunk of a step: what was left of an older step goes. */
struct node_in *reassembly_begin(struct reassembly *reassembly, struct slab *slab, struct slab_share *share,
                                 const struct packet *packet, const struct chunk *chunk);
/* The node that a checked chunk belongs to, ready for this step. */
static inline struct node_in *reassembly_node(struct reassembly *reassembly, struct slab *slab,
                                              struct slab_share *share, const struct packet *packet,
                                              const struct chunk *chunk)
{
	struct node_in *node = &reassembly->nodes[chunk->node];

	if (reassembly->met >> chunk->node & 1 && node->step >= (int8_t)packet->step)
		return node;
	return reassembly_begin(reassembly, slab, share, packet, chunk);
}
/* Enter a checked chunk of the node's step. Its data is to be stored unless the node is skipped. */
static inline void reassembly_add(struct node_in *node, const struct packet *packet, const struct chunk *chunk)
{
	int16_t offset = (int16_t)packet->offset;

	if (chunk->flags & ACCORD_CHUNK_FIRST)
		node->first = offset;
	if (chunk->flags & ACCORD_CHUNK_LAST)
		node->last = offset;
	if (node->low < 0 || offset < node->low)
		node->low = offset;
	if (offset > node->high)
		node->high = offset;
	node->count++;
	node->bytes += chunk->length;
}
/* Mostly a checked chunk is stored, and goes on where its node has been: then reassembly_go_on does all of the above.
 */
static inline bool reassembly_goes_on(const struct reassembly *reassembly, const struct packet *packet,
                                      const struct chunk *chunk)
{
	const struct node_in *node = reassembly_latest(reassembly, chunk->node);

	return node && node->step == (int8_t)packet->step && node->status == NODE_STORED &&
	       (int16_t)packet->offset > node->high;
}
static inline struct node_in *reassembly_go_on(struct reassembly *reassembly, const struct packet *packet,
                                               const struct chunk *chunk)
{
	struct node_in *node = &reassembly->nodes[chunk->node];

	node->high = (int16_t)packet->offset;
	if (chunk->flags & ACCORD_CHUNK_LAST)
		node->last = node->high; /* not FIRST, which is before all others */
	node->count++;
	node->bytes += chunk->length;
	return node;
}
static inline bool node_whole(const struct node_in *node)
{
	return node->last >= node->first && node->first >= 0 && node->count == node->last - node->first + 1;
}
static inline bool reassembly_is_complete(const struct reassembly *reassembly, uint8_t step)
{
	return reassembly->steps[step / 2].complete;
}
/* Is this the moment at which the message is complete? True once per step. */
bool reassembly_completes(struct reassembly *reassembly, const struct ackrange *range, uint8_t step);
/* This side has answered without all of this step: what is missing of it is acknowledged, and not stored. */
void reassembly_close(struct reassembly *reassembly, struct slab *slab, struct slab_share *share, uint8_t step);
static inline bool reassembly_is_closed(const struct reassembly *reassembly, uint8_t step)
{
	return (int8_t)step <= reassembly->closed;
}
/* Of a complete message: did all nodes come to their end? */
bool reassembly_sound(const struct reassembly *reassembly, uint8_t step);
/* Give back everything that has not been delivered. */
void reassembly_release(struct reassembly *reassembly, struct slab *slab, struct slab_share *share);

#endif /* ACCORD_REASSEMBLY_H */
