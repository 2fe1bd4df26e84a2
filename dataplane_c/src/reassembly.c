// SPDX-License-Identifier: Apache-2.0
#include "reassembly.h"

#include <stddef.h>
#include <string.h>

#include "descriptor.h"

/* A run of one chunk's bytes in a buffer; the bytes follow it. Aligned to its size. */
struct piece {
	uint32_t next; /* of the same node: place in the slab, in units of sizeof(struct piece), plus one */
	uint16_t length;
	uint16_t offset; /* TSN offset of the chunk */
};
_Static_assert(SLAB_GRAIN % sizeof(struct piece) == 0, "pieces are addressed in units of their size");

static struct piece *piece_at(const struct slab *slab, uint32_t place)
{
	return (struct piece *)(void *)(slab->memory + (uint64_t)(place - 1) * sizeof(struct piece));
}

static uint32_t piece_buffer(const struct slab *slab, uint32_t place)
{
	return (place - 1) / (slab->stride / (uint32_t)sizeof(struct piece));
}

static uint32_t aligned(uint32_t bytes)
{
	return (bytes + (uint32_t)sizeof(struct piece) - 1) / (uint32_t)sizeof(struct piece) *
	       (uint32_t)sizeof(struct piece);
}

/* Bytes of data that fit behind what is used of a buffer. */
static uint32_t room_after(const struct slab *slab, uint32_t used)
{
	used += (uint32_t)sizeof(struct piece);
	return used < slab->capacity ? slab->capacity - used : 0;
}

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
	reassembly->latest = -1;
	reassembly->fill = SLAB_NONE;
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
	uint32_t bytes = reassembly->steps[packet->step / 2].bytes;
	uint32_t reason = check_step(reassembly, packet);

	for (uint32_t i = 0; !reason && i < packet->chunk_count; i++) {
		const struct chunk *chunk = &packet->chunks[i];

		if (chunk->node == ACCORD_NODE_PADDING)
			continue;
		bytes += chunk->length;
		reason = check_chunk(reassembly_latest(reassembly, chunk->node), packet, chunk);
	}
	if (!reason && bytes > ACCORD_MAX_MESSAGE_BYTES)
		reason = ACCORD_REASON_MESSAGE_TOO_LONG;
	return reason;
}

uint32_t reassembly_need(const struct reassembly *reassembly, const struct slab *slab, const uint16_t *lengths,
                         uint32_t count)
{
	uint32_t used = reassembly->fill == SLAB_NONE ? slab->capacity : reassembly->fill_used;
	uint32_t buffers = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t left = lengths[i];

		while (left) {
			uint32_t take = room_after(slab, used);

			if (!take) {
				buffers++;
				used = 0;
				continue;
			}
			take = left < take ? left : take;
			used += aligned((uint32_t)sizeof(struct piece) + take);
			left -= take;
		}
	}
	return buffers;
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
}

struct node_in *reassembly_begin(struct reassembly *reassembly, struct slab *slab, struct slab_share *share,
                                 const struct packet *packet, const struct chunk *chunk)
{
	struct node_in *node = &reassembly->nodes[chunk->node];

	if (reassembly_latest(reassembly, chunk->node))
		pieces_release(reassembly, slab, share, node->head);
	reassembly->met |= UINT64_C(1) << chunk->node;
	forget(node, chunk->protocol, (int8_t)packet->step);
	return node;
}

/* Pieces of a node stay in the order of their TSNs; mostly they arrive in it, and nothing has to be looked at. */
static void link_piece(struct slab *slab, struct node_in *node, struct piece *piece, uint32_t place)
{
	uint32_t *link = &node->head;

	if (node->tail != PIECE_NONE && piece->offset == node->high)
		link = &piece_at(slab, node->tail)->next;
	else
		while (*link != PIECE_NONE && piece_at(slab, *link)->offset <= piece->offset)
			link = &piece_at(slab, *link)->next;
	piece->next = piece->offset == node->high ? PIECE_NONE : *link;
	*link = place;
	if (piece->next == PIECE_NONE)
		node->tail = place;
}

static void store(struct reassembly *reassembly, struct slab *slab, struct slab_share *share, struct node_in *node,
                  uint16_t offset, const uint8_t *data, uint32_t left)
{
	while (left) {
		uint32_t take = reassembly->fill == SLAB_NONE ? 0 : room_after(slab, reassembly->fill_used);
		struct slab_head *head;
		struct piece *piece;
		uint8_t *at;

		if (!take) {
			reassembly->fill = slab_take(slab, share);
			reassembly->fill_used = 0;
			if (reassembly->fill == SLAB_NONE)
				return; /* not reached: reassembly_need was asked first */
			continue;
		}
		take = left < take ? left : take;
		head = slab_head(slab, reassembly->fill);
		head->references++;
		at = (uint8_t *)(head + 1) + reassembly->fill_used;
		piece = (struct piece *)(void *)at;
		piece->length = (uint16_t)take;
		piece->offset = offset;
		memcpy(piece + 1, data, take);
		reassembly->fill_used += aligned((uint32_t)sizeof(struct piece) + take);
		link_piece(slab, node, piece, (uint32_t)((uint64_t)(at - slab->memory) / sizeof(struct piece)) + 1);
		data += take;
		left -= take;
	}
}

void reassembly_add(struct reassembly *reassembly, struct slab *slab, struct slab_share *share, struct node_in *node,
                    const struct packet *packet, const struct chunk *chunk)
{
	int16_t offset = (int16_t)packet->offset;

	reassembly->steps[packet->step / 2].bytes += chunk->length;
	if (node->step > (int8_t)packet->step)
		return;
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
	if (node->status == NODE_STORED)
		store(reassembly, slab, share, node, packet->offset, chunk->data, chunk->length);
}

bool reassembly_completes(struct reassembly *reassembly, const struct ackrange *range, uint8_t step)
{
	struct step_in *message = &reassembly->steps[step / 2];
	int32_t base = 0;

	if (message->complete || message->end < 0)
		return false;
	if (step >= 2) {
		if (message[-1].end < 0)
			return false;
		base = message[-1].end + 1;
	}
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

const uint8_t *pieces_prefix(const struct slab *slab, uint32_t head, uint8_t *room)
{
	const struct piece *piece = piece_at(slab, head); /* what is whole has one */
	const uint8_t *bytes = (const uint8_t *)(piece + 1);

	if (piece->length >= sizeof(struct accord_descriptor) &&
	    piece->length >= sizeof(struct accord_descriptor) + bytes[0] + load16(bytes + 2))
		return bytes;
	pieces_copy(slab, head, room, DESCRIPTOR_PREFIX_BYTES);
	return room;
}

uint32_t pieces_copy(const struct slab *slab, uint32_t head, uint8_t *to, uint32_t limit)
{
	uint32_t done = 0;

	while (head != PIECE_NONE && done < limit) {
		const struct piece *piece = piece_at(slab, head);
		uint32_t take = piece->length < limit - done ? piece->length : limit - done;

		memcpy(to + done, piece + 1, take);
		done += take;
		head = piece->next;
	}
	return done;
}

void pieces_release(struct reassembly *reassembly, struct slab *slab, struct slab_share *share, uint32_t head)
{
	while (head != PIECE_NONE) {
		uint32_t buffer = piece_buffer(slab, head);

		head = piece_at(slab, head)->next;
		if (--slab_head(slab, buffer)->references == 0) {
			if (buffer == reassembly->fill)
				reassembly->fill = SLAB_NONE;
			slab_give(slab, share, buffer);
		}
	}
}

void reassembly_release(struct reassembly *reassembly, struct slab *slab, struct slab_share *share)
{
	for (uint64_t left = reassembly->met; left; left &= left - 1) {
		struct node_in *node = &reassembly->nodes[__builtin_ctzll(left)];

		pieces_release(reassembly, slab, share, node->head);
		node->head = node->tail = PIECE_NONE;
	}
}
