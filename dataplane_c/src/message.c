// SPDX-License-Identifier: Apache-2.0
#include "message.h"

#include <string.h>

#include "packet.h"

/* A message being packed: the packet that is being filled, and where. */
struct packer {
	struct transaction *transaction;
	struct slab *slab;
	uint64_t now;
	uint32_t packets_min;
	uint32_t packets; /* begun so far */
	uint8_t step;
	struct slab_head *head; /* of the packet that is open; NULL: none */
	uint8_t *bytes;
	uint32_t used;
};

static uint32_t packer_room(const struct packer *packer)
{
	return packer->head ? ACCORD_MIN_MTU_PACKET - packer->used : 0;
}

static uint32_t packer_begin(struct packer *packer)
{
	struct outbox *outbox = &packer->transaction->outbox;
	struct packet_fields fields = {
		.transaction = packer->transaction->id,
		.sender = packer->transaction->role,
		.step = packer->step,
		.offset = outbox->total,
	};
	uint32_t buffer;

	if (outbox->total >= ACCORD_MAX_PACKETS)
		return ACCORD_REASON_MESSAGE_TOO_LONG;
	buffer = slab_take(packer->slab, &packer->transaction->share);
	if (buffer == SLAB_NONE)
		return ACCORD_REASON_NO_MEMORY;
	packer->head = slab_head(packer->slab, buffer);
	packer->head->state = SENT_NOT_YET;
	packer->head->queued_at = packer->now;
	packer->bytes = slab_bytes(packer->slab, buffer);
	packer->used = ACCORD_HEADER_BYTES;
	packer->packets++;
	packet_write_header(packer->bytes, &fields);
	outbox->buffers[outbox->total++] = buffer;
	outbox->unacknowledged[packer->step / 2]++;
	return ACCORD_REASON_OK;
}

static bool packer_pads(const struct packer *packer)
{
	return packer->packets <= packer->packets_min;
}

static void packer_end(struct packer *packer)
{
	uint32_t room = packer_room(packer);

	if (!packer->head)
		return;
	if (packer_pads(packer) && room >= ACCORD_CHUNK_HEADER_BYTES) {
		packet_write_chunk(packer->bytes + packer->used, ACCORD_NODE_PADDING, ACCORD_CHUNK_FIRST | ACCORD_CHUNK_LAST,
		                   (uint16_t)(room - ACCORD_CHUNK_HEADER_BYTES), ACCORD_PROTOCOL_PADDING);
		memset(packer->bytes + packer->used + ACCORD_CHUNK_HEADER_BYTES, 0, room - ACCORD_CHUNK_HEADER_BYTES);
		packer->used += room;
	}
	packer->head->length = (uint16_t)packer->used;
	packer->head = NULL;
}

static uint32_t packer_add(struct packer *packer, const struct accord_node_out *node)
{
	uint32_t done = 0;

	while (done < node->length) {
		uint32_t room = packer_room(packer);
		uint32_t left = node->length - done;
		uint32_t take, reason;
		uint8_t flags = 0;

		if (room <= ACCORD_CHUNK_HEADER_BYTES) {
			packer_end(packer);
			reason = packer_begin(packer);
			if (reason)
				return reason;
			continue;
		}
		room -= ACCORD_CHUNK_HEADER_BYTES;
		take = left < room ? left : room;
		/* A packet to be padded must not be left with less room than padding needs. */
		if (packer_pads(packer) && room > take && room - take < ACCORD_CHUNK_HEADER_BYTES) {
			if (room <= ACCORD_CHUNK_HEADER_BYTES) {
				packer_end(packer);
				continue;
			}
			take = room - ACCORD_CHUNK_HEADER_BYTES;
		}
		if (done == 0)
			flags |= ACCORD_CHUNK_FIRST;
		if (take == left)
			flags |= ACCORD_CHUNK_LAST;
		packet_write_chunk(packer->bytes + packer->used, node->node, flags, (uint16_t)take, node->protocol);
		memcpy(packer->bytes + packer->used + ACCORD_CHUNK_HEADER_BYTES, node->data + done, take);
		packer->used += ACCORD_CHUNK_HEADER_BYTES + take;
		done += take;
		/* At most one chunk of a node per packet. */
		if (done < node->length)
			packer_end(packer);
	}
	return ACCORD_REASON_OK;
}

static void withdraw(struct transaction *transaction, struct slab *slab, uint16_t from, uint8_t step)
{
	struct outbox *outbox = &transaction->outbox;

	while (outbox->total > from) {
		slab_give(slab, &transaction->share, outbox->buffers[--outbox->total]);
		outbox->unacknowledged[step / 2]--;
	}
}

uint32_t message_queue(struct transaction *transaction, struct slab *slab, uint64_t now, uint8_t step,
                       const struct accord_node_out *nodes, uint32_t count, uint32_t packets_min)
{
	struct outbox *outbox = &transaction->outbox;
	uint16_t from = outbox->total;
	struct packer packer = {
		.transaction = transaction,
		.slab = slab,
		.now = now,
		.packets_min = packets_min,
		.step = step,
	};
	uint32_t reason = ACCORD_REASON_OK;
	uint8_t *last;

	for (uint32_t i = 0; !reason && i < count; i++)
		reason = packer_add(&packer, &nodes[i]);
	packer_end(&packer);
	while (!reason && packer.packets < packets_min) {
		reason = packer_begin(&packer);
		packer_end(&packer);
	}
	if (reason) {
		withdraw(transaction, slab, from, step);
		return reason;
	}
	last = slab_bytes(slab, outbox->buffers[outbox->total - 1]) + offsetof(struct accord_header, flags);
	store16(last, load16(last) | ACCORD_FLAG_END);
	outbox->step = (int8_t)step;
	return ACCORD_REASON_OK;
}
