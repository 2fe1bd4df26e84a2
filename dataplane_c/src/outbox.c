// SPDX-License-Identifier: Apache-2.0
#include "outbox.h"

#include <string.h>

#include "packet.h"

/* ---- What there is to send ---- */

static uint16_t pick(const struct transaction *transaction, const struct slab *slab, bool open)
{
	const struct outbox *outbox = &transaction->outbox;

	for (uint16_t offset = outbox->retained ? 0 : outbox->oldest; offset < outbox->total; offset++) {
		const struct slab_head *head;

		if (outbox->buffers[offset] == SLAB_NONE)
			continue;
		head = slab_head(slab, outbox->buffers[offset]);
		if (head->probe || (open && (head->state == SENT_NOT_YET || head->state == SENT_LOST)))
			return offset;
		if (offset >= outbox->sent)
			break;
	}
	return outbox->total;
}

bool outbox_waits(const struct transaction *transaction, const struct slab *slab)
{
	return pick(transaction, slab, true) != transaction->outbox.total;
}

bool outbox_sent(const struct transaction *transaction, uint32_t ack_tsn, uint16_t count)
{
	uint32_t from = ack_tsn - packet_first_tsn(transaction->id, transaction->role);
	uint32_t sent = transaction->outbox.sent;

	return from < sent && count <= sent - from;
}

bool outbox_is_outstanding(const struct outbox *outbox, const struct slab *slab, uint32_t offset)
{
	uint32_t buffer = outbox->buffers[offset];

	return buffer != SLAB_NONE && slab_head(slab, buffer)->state != SENT_ARRIVED;
}

void outbox_datagram_lost(struct transaction *transaction, const struct slab_head *head)
{
	if (!head->datagram || head->datagram == transaction->lost_datagram)
		return;
	transaction->lost_datagram = head->datagram;
	transaction->lost_datagrams++;
}

bool outbox_awaits(const struct transaction *transaction)
{
	return transaction->recovery.in_flight || transaction->outbox.retained;
}

void outbox_release_retained(struct transaction *transaction, struct slab *slab)
{
	struct outbox *outbox = &transaction->outbox;

	for (uint16_t offset = 0; outbox->retained && offset < outbox->sent; offset++) {
		uint32_t buffer = outbox->buffers[offset];

		if (buffer == SLAB_NONE || slab_head(slab, buffer)->state != SENT_ARRIVED)
			continue;
		outbox->buffers[offset] = SLAB_NONE;
		slab_give(slab, &transaction->share, buffer);
		outbox->retained--;
	}
}

static void probe_retained(struct outbox *outbox, struct slab *slab)
{
	for (uint16_t offset = 0; offset < outbox->sent; offset++) {
		if (outbox->buffers[offset] == SLAB_NONE)
			continue;
		slab_head(slab, outbox->buffers[offset])->probe = 1;
		return;
	}
}

void outbox_probe(struct transaction *transaction, struct slab *slab)
{
	struct outbox *outbox = &transaction->outbox;
	uint32_t probes = 0;

	if (!transaction->recovery.in_flight) {
		probe_retained(outbox, slab);
		return;
	}
	for (uint16_t offset = outbox->oldest; offset < outbox->sent && probes < RECOVERY_PROBES; offset++) {
		if (!outbox_is_outstanding(outbox, slab, offset))
			continue;
		slab_head(slab, outbox->buffers[offset])->probe = 1;
		outbox_datagram_lost(transaction, slab_head(slab, outbox->buffers[offset]));
		probes++;
	}
}

/* ---- Sending ---- */

uint16_t outbox_pick(const struct transaction *transaction, const struct slab *slab, uint64_t now)
{
	const struct recovery *recovery = &transaction->recovery;

	return pick(transaction, slab, recovery_open(recovery) && recovery_pace_time(recovery) <= now);
}

uint64_t outbox_paced_until(const struct transaction *transaction, const struct slab *slab, uint64_t now)
{
	const struct recovery *recovery = &transaction->recovery;
	uint64_t until = recovery_pace_time(recovery);

	return recovery_open(recovery) && until > now && outbox_waits(transaction, slab) ? until : UINT64_MAX;
}

/* A probe leaves while the transmission before it may still arrive: that one will have to be judged. */
static void supersede(const struct recovery *recovery, struct slab_head *head)
{
	uint32_t ago = recovery->next_order - head->order + head->superseded;

	if (head->state != SENT_IN_FLIGHT || !(head->superseded || congestion_counts(&recovery->congestion, head->sent_at)))
		head->superseded = 0;
	else
		head->superseded = ago < UINT16_MAX ? (uint16_t)ago : UINT16_MAX;
}

void outbox_on_sent(struct transaction *transaction, struct slab *slab, uint64_t now, uint16_t offset)
{
	struct outbox *outbox = &transaction->outbox;
	struct recovery *recovery = &transaction->recovery;
	struct slab_head *head = slab_head(slab, outbox->buffers[offset]);

	supersede(recovery, head);
	if (head->transmissions)
		transaction->retransmitted++;
	head->transmissions++;
	if (head->state != SENT_ARRIVED) {
		recovery->in_flight += head->state != SENT_IN_FLIGHT;
		head->state = SENT_IN_FLIGHT;
	}
	recovery_on_sent(recovery, now, !head->probe);
	head->probe = 0;
	head->datagram = 0;
	head->order = recovery->next_order++;
	head->sent_at = now;
	if (offset >= outbox->sent)
		outbox->sent = (uint16_t)(offset + 1);
}

uint64_t outbox_oldest(const struct transaction *transaction, const struct slab *slab)
{
	const struct outbox *outbox = &transaction->outbox;

	if (outbox->oldest >= outbox->total)
		return UINT64_MAX;
	return slab_head(slab, outbox->buffers[outbox->oldest])->queued_at;
}

void outbox_release(struct transaction *transaction, struct slab *slab)
{
	struct outbox *outbox = &transaction->outbox;

	for (uint16_t offset = outbox->retained ? 0 : outbox->oldest; offset < outbox->total; offset++) {
		if (outbox->buffers[offset] == SLAB_NONE)
			continue;
		slab_give(slab, &transaction->share, outbox->buffers[offset]);
		outbox->buffers[offset] = SLAB_NONE;
	}
	outbox->oldest = outbox->total;
	outbox->retained = 0;
}
