// SPDX-License-Identifier: Apache-2.0
#include "reassembly.h"

#include <stddef.h>
#include <string.h>

static void forget(struct node_in *node, uint32_t protocol, int8_t step)
{
	memset(node, 0, sizeof(*node));
	node->protocol = protocol;
	node->step = step;
	node->first = node->last = node->low = node->high = -1;
}

void reassembly_init(struct reassembly *reassembly)
{
	memset(reassembly, 0, offsetof(struct reassembly, nodes));
	for (uint32_t step = 0; step < REASSEMBLY_STEPS; step++)
		reassembly->steps[step].low = reassembly->steps[step].high = reassembly->steps[step].end = -1;
	reassembly->latest = reassembly->closed = -1;
	reassembly->fill.buffer = SLAB_NONE;
}

uint32_t reassembly_count(const struct reassembly *reassembly, uint8_t step)
{
	uint32_t count = 0;

	for (uint64_t left = reassembly->met; left; left &= left - 1)
		count += reassembly->nodes[__builtin_ctzll(left)].step == (int8_t)step;
	return count;
}

/* TSNs of a step are consecutive and come right after those of this side's step before. */
static uint32_t check_step(const struct reassembly *reassembly, const struct packet *packet)
{
	uint32_t index = packet->step / 2;
	const struct step_in *step = &reassembly->steps[index];
	int32_t offset = packet->offset;

	/* Mostly the next one of the latest step. What came of others was checked against those of this one before. */
	if ((int8_t)packet->step == reassembly->latest && offset > step->high && step->high >= 0 && step->end < 0)
		return ACCORD_REASON_OK;
	if ((int32_t)packet->step > reassembly->latest + 2)
		return ACCORD_REASON_BAD_STEP;
	if (step->end >= 0 && (offset > step->end || packet->flags & ACCORD_FLAG_END))
		return ACCORD_REASON_CONTRADICTION;
	if (packet->flags & ACCORD_FLAG_END && step->high > offset)
		return ACCORD_REASON_CONTRADICTION;
	for (int32_t other = 0; other <= reassembly->latest / 2; other++) {
		const struct step_in *its = &reassembly->steps[other];

		if (other < (int32_t)index && (its->high >= offset || its->end >= offset))
			return ACCORD_REASON_CONTRADICTION;
		if (other > (int32_t)index && its->low >= 0 && its->low <= offset)
			return ACCORD_REASON_CONTRADICTION;
	}
	return ACCORD_REASON_OK;
}

static uint32_t check_chunk(const struct node_in *node, const struct packet *packet, const struct chunk *chunk)
{
	int32_t offset = packet->offset;

	/* Of an older step, the node is being replaced; of a newer one, this chunk comes too late to matter. */
	if (!node || node->step != (int8_t)packet->step)
		return ACCORD_REASON_OK;
	if (node->protocol != chunk->protocol)
		return ACCORD_REASON_CONTRADICTION;
	/* Mostly it goes on where the node has been. */
	if (!chunk->flags && offset > node->high && node->last < 0)
		return ACCORD_REASON_OK;
	if (chunk->flags & ACCORD_CHUNK_FIRST && node->first >= 0)
		return ACCORD_REASON_CONTRADICTION;
	if (chunk->flags & ACCORD_CHUNK_LAST && node->last >= 0)
		return ACCORD_REASON_CONTRADICTION;
	if (node->first >= 0 && offset < node->first)
		return ACCORD_REASON_BAD_CHUNK;
	if (node->last >= 0 && offset > node->last)
		return ACCORD_REASON_BAD_CHUNK;
	if (chunk->flags & ACCORD_CHUNK_FIRST && offset > node->low)
		return ACCORD_REASON_BAD_CHUNK;
	if (chunk->flags & ACCORD_CHUNK_LAST && offset < node->high)
		return ACCORD_REASON_BAD_CHUNK;
	return ACCORD_REASON_OK;
}

uint32_t reassembly_check(const struct reassembly *reassembly, const struct packet *packet)
{
	uint32_t reason = check_step(reassembly, packet);

	for (const struct chunk *chunk = packet->chunks; !reason && chunk < packet_end(packet); chunk++)
		if (chunk->node != ACCORD_NODE_PADDING)
			reason = check_chunk(reassembly_latest(reassembly, chunk->node), packet, chunk);
	if (!reason && reassembly->steps[packet->step / 2].bytes + packet->bytes > ACCORD_MAX_MESSAGE_BYTES)
		reason = ACCORD_REASON_MESSAGE_TOO_LONG;
	return reason;
}

void reassembly_enter(struct reassembly *reassembly, const struct packet *packet)
{
	struct step_in *step = &reassembly->steps[packet->step / 2];
	int16_t offset = (int16_t)packet->offset;

	if (packet->step > reassembly->latest)
		reassembly->latest = (int8_t)packet->step;
	if (step->low < 0 || offset < step->low)
		step->low = offset;
	if (offset > step->high)
		step->high = offset;
	if (packet->flags & ACCORD_FLAG_END)
		step->end = offset;
	step->bytes += packet->bytes;
}

struct node_in *reassembly_begin(struct reassembly *reassembly, struct slab *slab, struct slab_share *share,
                                 const struct packet *packet, const struct chunk *chunk)
{
	struct node_in *node = &reassembly->nodes[chunk->node];

	if (reassembly_latest(reassembly, chunk->node))
		pieces_release(&reassembly->fill, slab, share, node->pieces.head);
	reassembly->met |= UINT64_C(1) << chunk->node;
	forget(node, chunk->protocol, (int8_t)packet->step);
	return node;
}

void reassembly_close(struct reassembly *reassembly, struct slab *slab, struct slab_share *share, uint8_t step)
{
	if (reassembly_is_complete(reassembly, step))
		return;
	for (uint64_t left = reassembly->met; left; left &= left - 1) {
		struct node_in *node = &reassembly->nodes[__builtin_ctzll(left)];

		if (node->step > (int8_t)step || node->status != NODE_STORED)
			continue;
		pieces_release(&reassembly->fill, slab, share, node->pieces.head);
		node->pieces.head = node->pieces.tail = PIECE_NONE;
		node->status = NODE_SKIPPED;
	}
	reassembly->closed = (int8_t)step;
}

/*
 * Where a message begins: behind the end of the one before. If that was answered without its end, which has not come
 * yet, the context tells, which is the first node of each message (PROTOCOL.md, MUST-33). -1: not known.
 */
static int32_t begins(const struct reassembly *reassembly, uint8_t step)
{
	const struct node_in *context = reassembly_latest(reassembly, ACCORD_NODE_CONTEXT);

	if (step < 2)
		return 0;
	if (reassembly->steps[step / 2 - 1].end >= 0)
		return reassembly->steps[step / 2 - 1].end + 1;
	if (!reassembly_is_closed(reassembly, step - 2) || !context || context->step != (int8_t)step)
		return -1;
	return context->first;
}

bool reassembly_completes(struct reassembly *reassembly, const struct ackrange *range, uint8_t step)
{
	struct step_in *message = &reassembly->steps[step / 2];
	int32_t base = begins(reassembly, step);

	if (message->complete || message->end < 0 || base < 0)
		return false;
	if (!ackrange_holds(range, (uint32_t)base, (uint32_t)message->end))
		return false;
	message->complete = true;
	return true;
}

bool reassembly_sound(const struct reassembly *reassembly, uint8_t step)
{
	for (uint64_t left = reassembly->met; left; left &= left - 1) {
		const struct node_in *node = &reassembly->nodes[__builtin_ctzll(left)];

		if (node->step == (int8_t)step && !node_whole(node))
			return false;
	}
	return true;
}

void reassembly_release(struct reassembly *reassembly, struct slab *slab, struct slab_share *share)
{
	/* Mostly all of it has been delivered and taken. */
	for (uint64_t left = share->held ? reassembly->met : 0; left; left &= left - 1) {
		struct node_in *node = &reassembly->nodes[__builtin_ctzll(left)];

		pieces_release(&reassembly->fill, slab, share, node->pieces.head);
		node->pieces.head = node->pieces.tail = PIECE_NONE;
	}
}
