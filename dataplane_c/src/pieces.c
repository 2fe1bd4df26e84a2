// SPDX-License-Identifier: Apache-2.0
#include "pieces.h"

#include <string.h>

#include "descriptor.h"

/* A run of one chunk's bytes in a buffer; the bytes follow it. Aligned to its size. */
struct piece {
	uint32_t next; /* of the same node */
	uint16_t length;
	uint16_t offset; /* TSN offset of the chunk */
};
_Static_assert(sizeof(struct piece) == PIECE_UNIT && SLAB_GRAIN % PIECE_UNIT == 0,
               "pieces are addressed in units of their size");

static struct piece *piece_at(const struct slab *slab, uint32_t place)
{
	return (struct piece *)(void *)(slab->memory + (uint64_t)place * sizeof(struct piece));
}

static uint32_t piece_buffer(const struct slab *slab, uint32_t place)
{
	return place / (slab->stride / (uint32_t)sizeof(struct piece));
}

/* Units that a piece of so many bytes takes, its head with them. */
static uint32_t units(uint32_t length)
{
	return (2 * (uint32_t)sizeof(struct piece) - 1 + length) / (uint32_t)sizeof(struct piece);
}

/* Bytes of data that a piece in so many units could have. */
static uint32_t room_in(uint32_t left)
{
	return left ? (left - 1) * (uint32_t)sizeof(struct piece) : 0;
}

/* Units of an empty buffer. */
static uint32_t whole(const struct slab *slab)
{
	return slab->capacity / (uint32_t)sizeof(struct piece);
}

uint32_t pieces_need(const struct piece_fill *fill, const struct slab *slab, const uint16_t *lengths, uint32_t count)
{
	uint32_t left = fill->left, buffers = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t data = lengths[i];

		while (data) {
			uint32_t take = room_in(left);

			if (!take) {
				buffers++;
				left = whole(slab);
				continue;
			}
			take = data < take ? data : take;
			left -= units(take);
			data -= take;
		}
	}
	return buffers;
}

/* Into the middle of its list, or to its beginning; of several pieces of a chunk, the one that came later behind. */
static void link_early(struct slab *slab, struct piece_list *list, struct piece *piece, uint32_t place)
{
	uint32_t *link = &list->head;

	while (*link != PIECE_NONE && piece_at(slab, *link)->offset <= piece->offset)
		link = &piece_at(slab, *link)->next;
	piece->next = *link;
	*link = place;
	if (piece->next == PIECE_NONE)
		list->tail = place;
}

/* There is room for it where the fill is. */
static inline void put(struct slab *slab, struct piece_fill *fill, struct piece_list *list, uint16_t offset,
                       const uint8_t *data, uint32_t length)
{
	uint32_t place = fill->place;
	struct piece *piece = piece_at(slab, place);

	slab_head(slab, fill->buffer)->references++;
	fill->left -= units(length);
	fill->place = place + units(length);
	piece->next = PIECE_NONE;
	piece->length = (uint16_t)length;
	piece->offset = offset;
	/* Mostly they come in their order. */
	if (list->tail != PIECE_NONE && piece_at(slab, list->tail)->offset <= offset) {
		piece_at(slab, list->tail)->next = place;
		list->tail = place;
	} else {
		link_early(slab, list, piece, place);
	}
	memcpy(piece + 1, data, length);
}

/* Over as many buffers as it takes. */
__attribute__((noinline)) static void store_split(struct slab *slab, struct slab_share *share, struct piece_fill *fill,
                                                  struct piece_list *list, const struct chunk *chunk, uint16_t offset)
{
	const uint8_t *data = chunk->data;
	uint32_t length = chunk->length;

	while (length > room_in(fill->left)) {
		uint32_t take = room_in(fill->left);

		if (take)
			put(slab, fill, list, offset, data, take);
		data += take;
		length -= take;
		fill->buffer = slab_take(slab, share);
		fill->left = fill->buffer == SLAB_NONE ? 0 : whole(slab);
		if (fill->buffer == SLAB_NONE)
			return; /* not reached: pieces_need was asked first */
		fill->place = (uint32_t)((slab_bytes(slab, fill->buffer) - slab->memory) / (int)sizeof(struct piece));
	}
	put(slab, fill, list, offset, data, length);
}

void pieces_store(struct slab *slab, struct slab_share *share, struct piece_fill *fill, struct piece_list *list,
                  const struct chunk *chunk, uint16_t offset)
{
	if (chunk->length <= room_in(fill->left))
		put(slab, fill, list, offset, chunk->data, chunk->length);
	else
		store_split(slab, share, fill, list, chunk, offset);
}

/* Copy up to limit bytes of a list. Returns how many. */
static uint32_t copy(const struct slab *slab, uint32_t head, uint8_t *to, uint32_t limit)
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

const uint8_t *pieces_prefix(const struct slab *slab, uint32_t head, uint8_t *room)
{
	const struct piece *piece = piece_at(slab, head); /* what is whole has one */
	const uint8_t *bytes = (const uint8_t *)(piece + 1);

	if (piece->length >= sizeof(struct accord_descriptor) &&
	    piece->length >= sizeof(struct accord_descriptor) + bytes[0] + load16(bytes + 2))
		return bytes;
	copy(slab, head, room, DESCRIPTOR_PREFIX_BYTES);
	return room;
}

/* One piece less in its buffer. */
static inline void leave(struct piece_fill *fill, struct slab *slab, struct slab_share *share, uint32_t buffer)
{
	if (--slab_head(slab, buffer)->references)
		return;
	if (buffer == fill->buffer)
		*fill = (struct piece_fill){.buffer = SLAB_NONE};
	slab_give(slab, share, buffer);
}

uint32_t pieces_take(struct piece_fill *fill, struct slab *slab, struct slab_share *share, uint32_t head, uint8_t *to,
                     uint32_t limit)
{
	uint32_t done = 0;

	while (head != PIECE_NONE) {
		const struct piece *piece = piece_at(slab, head);
		uint32_t take = piece->length < limit - done ? piece->length : limit - done;
		uint32_t buffer = piece_buffer(slab, head);

		memcpy(to + done, piece + 1, take);
		done += take;
		head = piece->next;
		leave(fill, slab, share, buffer);
	}
	return done;
}

void pieces_release(struct piece_fill *fill, struct slab *slab, struct slab_share *share, uint32_t head)
{
	while (head != PIECE_NONE) {
		uint32_t buffer = piece_buffer(slab, head);

		head = piece_at(slab, head)->next;
		leave(fill, slab, share, buffer);
	}
}
