// SPDX-License-Identifier: Apache-2.0
#include "outbox.h"

#include <string.h>

#include "packet.h"

/* ---- Acknowledgements and losses ---- */

bool outbox_sent(const struct transaction *transaction, uint32_t ack_tsn, uint16_t count)
{
	uint32_t from = ack_tsn - packet_first_tsn(transaction->id, transaction->role);
	uint32_t sent = transaction->outbox.sent;

	return from < sent && count <= sent - from;
}

static bool is_outstanding(const struct outbox *outbox, const struct slab *slab, uint16_t offset)
{
	uint32_t buffer = outbox->buffers[offset];

	return buffer != SLAB_NONE && slab_head(slab, buffer)->state != SENT_ARRIVED;
}

static bool awaits_answer(const struct transaction *transaction, uint8_t step)
{
	return transaction->state == TRANSACTION_LIVE && transaction->role == ROLE_INITIATOR &&
	       step == ACCORD_STEP_PROPOSAL && transaction->outbox.step == ACCORD_STEP_PROPOSAL &&
	       !transaction->reassembly.steps[ACCORD_STEP_ANSWER / 2].complete;
}

static void datagram_lost(struct transaction *transaction, const struct slab_head *head)
{
	if (!head->datagram || head->datagram == transaction->lost_datagram)
		return;
	transaction->lost_datagram = head->datagram;
	transaction->lost_datagrams++;
}

uint32_t outbox_acknowledge(struct transaction *transaction, struct slab *slab, uint64_t now, uint32_t ack_tsn,
                            uint16_t count)
{
	uint32_t from = ack_tsn - packet_first_tsn(transaction->id, transaction->role);
	struct outbox *outbox = &transaction->outbox;
	struct recovery *recovery = &transaction->recovery;
	uint32_t acked = 0, arrived = 0, sample_order = 0;
	uint64_t sample = UINT64_MAX;

	for (uint32_t offset = from; offset < from + count; offset++) {
		uint32_t buffer = outbox->buffers[offset];
		struct slab_head *head;
		uint8_t step;

		if (buffer == SLAB_NONE || slab_head(slab, buffer)->state == SENT_ARRIVED)
			continue;
		head = slab_head(slab, buffer);
		step = slab_bytes(slab, buffer)[offsetof(struct accord_header, step)];
		recovery->in_flight -= head->state == SENT_IN_FLIGHT;
		acked++;
		if (head->datagram)
			transaction->lost_datagrams = 0;
		/* Of the latest transmission alone (RFC 9002 section 5.1): what is acknowledged beside a packet that
		 * was sent again may have waited for it. And Karn: which transmission it was is not known then. */
		if (head->order >= sample_order) {
			sample_order = head->order;
			sample = head->transmissions == 1 ? now - head->sent_at : UINT64_MAX;
		}
		if ((head->transmissions == 1 || now - head->sent_at >= recovery->min_us) &&
		    head->order + 1 > recovery->acked_order)
			recovery->acked_order = head->order + 1;
		if (awaits_answer(transaction, step)) {
			head->state = SENT_ARRIVED;
			head->probe = 0;
			outbox->retained++;
		} else {
			outbox->buffers[offset] = SLAB_NONE;
			slab_give(slab, &transaction->share, buffer);
		}
		if (--outbox->unacknowledged[step / 2] == 0)
			arrived |= 1u << step;
	}
	while (outbox->oldest < outbox->total && !is_outstanding(outbox, slab, outbox->oldest))
		outbox->oldest++;
	if (!acked)
		return 0;
	if (sample != UINT64_MAX)
		recovery_on_sample(recovery, sample);
	recovery_on_acked(recovery, acked);
	/* RFC 9002 section 6.2.1: the probe timer starts anew when an acknowledgement brings something. */
	recovery->timer_base = now;
	outbox_detect_losses(transaction, slab, now);
	return arrived;
}

void outbox_detect_losses(struct transaction *transaction, struct slab *slab, uint64_t now)
{
	struct outbox *outbox = &transaction->outbox;
	struct recovery *recovery = &transaction->recovery;
	uint64_t delay = recovery_loss_delay(recovery);

	recovery->loss_time = 0;
	for (uint16_t offset = outbox->oldest; offset < outbox->sent; offset++) {
		struct slab_head *head;

		if (outbox->buffers[offset] == SLAB_NONE)
			continue;
		head = slab_head(slab, outbox->buffers[offset]);
		if (head->state != SENT_IN_FLIGHT || head->order + 1 >= recovery->acked_order)
			continue;
		if (head->order + 1 + RECOVERY_PACKET_THRESHOLD <= recovery->acked_order || head->sent_at + delay <= now) {
			head->state = SENT_LOST;
			datagram_lost(transaction, head);
			recovery->in_flight--;
			recovery_on_lost(recovery, head->sent_at, now);
		} else if (!recovery->loss_time || head->sent_at + delay < recovery->loss_time) {
			recovery->loss_time = head->sent_at + delay;
		}
	}
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
		if (!is_outstanding(outbox, slab, offset))
			continue;
		slab_head(slab, outbox->buffers[offset])->probe = 1;
		datagram_lost(transaction, slab_head(slab, outbox->buffers[offset]));
		probes++;
	}
}

/* ---- Sending ---- */

uint16_t outbox_pick(const struct transaction *transaction, const struct slab *slab)
{
	const struct outbox *outbox = &transaction->outbox;
	bool open = transaction->recovery.in_flight < transaction->recovery.window;

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

void outbox_on_sent(struct transaction *transaction, struct slab *slab, uint64_t now, uint16_t offset)
{
	struct outbox *outbox = &transaction->outbox;
	struct recovery *recovery = &transaction->recovery;
	struct slab_head *head = slab_head(slab, outbox->buffers[offset]);

	if (head->transmissions)
		transaction->retransmitted++;
	head->transmissions++;
	if (head->state != SENT_ARRIVED) {
		recovery->in_flight += head->state != SENT_IN_FLIGHT;
		head->state = SENT_IN_FLIGHT;
	}
	head->probe = 0;
	head->datagram = 0;
	head->order = recovery->next_order++;
	head->sent_at = now;
	recovery->timer_base = now;
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
