// SPDX-License-Identifier: Apache-2.0
/* What acknowledgements say of the packets that were sent: which have arrived, which are lost, how far it is. */
#include "outbox.h"
#include "packet.h"

static bool awaits_answer(const struct transaction *transaction, uint8_t step)
{
	return transaction->state == TRANSACTION_LIVE && transaction->role == ROLE_INITIATOR &&
	       step == ACCORD_STEP_PROPOSAL && transaction->outbox.step == ACCORD_STEP_PROPOSAL &&
	       !transaction->reassembly.steps[ACCORD_STEP_ANSWER / 2].complete;
}

/* When did the first transmission leave that is newer than all that was acknowledged? 0: there is none. */
static uint64_t silent_since(const struct transaction *transaction, const struct slab *slab)
{
	const struct outbox *outbox = &transaction->outbox;
	uint64_t since = 0;

	for (uint16_t offset = outbox->oldest; offset < outbox->sent; offset++) {
		const struct slab_head *head;

		if (outbox->buffers[offset] == SLAB_NONE)
			continue;
		head = slab_head(slab, outbox->buffers[offset]);
		if (head->state == SENT_IN_FLIGHT && head->order >= transaction->recovery.acked_order &&
		    head->sent_at > transaction->recovery.sampled_at && (!since || head->sent_at < since))
			since = head->sent_at;
	}
	return since;
}

/* The first transmission that was acknowledged now left then. Was everything before it lost for a long time? */
static void notice_silence(struct transaction *transaction, const struct slab *slab, uint64_t first)
{
	const struct outbox *outbox = &transaction->outbox;
	struct recovery *recovery = &transaction->recovery;
	uint64_t until = 0;

	/* Of a packet that was sent several times only the latest transmission is known, hence before_at. */
	if (first == recovery->sent_at)
		until = recovery->before_at;
	for (uint16_t offset = outbox->oldest; !until && offset < outbox->sent; offset++) {
		const struct slab_head *head;

		if (outbox->buffers[offset] == SLAB_NONE)
			continue;
		head = slab_head(slab, outbox->buffers[offset]);
		if (head->state == SENT_LOST && head->sent_at < first && head->sent_at > until)
			until = head->sent_at;
	}
	recovery_on_silence(recovery, recovery->silent_since, until);
}

/* Is it the window that holds the sender back, rather than that there is nothing to send (RFC 9002 section 7.8)?
 * The pace is part of the window in this, the amplification limit is not. */
static bool is_limited(const struct transaction *transaction, const struct slab *slab)
{
	if (transaction->recovery.in_flight >= transaction->recovery.congestion.window)
		return true;
	return outbox_waits(transaction, slab) && transaction_may_send(transaction, ACCORD_MIN_MTU_PACKET);
}

/* Something newer has arrived, and a probe time-out is longer than the delay of RFC 9002 section 6.1.2: what the
 * probe repeated was lost. */
static void judge_superseded(struct recovery *recovery, struct slab_head *head, uint64_t now)
{
	if (!head->superseded || head->order - head->superseded + 1 >= recovery->acked_order)
		return;
	head->superseded = 0;
	congestion_on_lost(&recovery->congestion, head->sent_at, now);
}

/* What one acknowledgement brings. */
struct gain {
	uint32_t packets;
	uint32_t landed, counted; /* of those: were in flight; and left after the present recovery period began */
	uint32_t sample_order;
	uint64_t sample; /* UINT64_MAX: none */
	uint64_t first;  /* when the first of the transmissions that landed left; UINT64_MAX: unknown */
	bool certain;    /* it is known which transmissions landed */
};

/* What was declared lost and has come all the same changes nothing any more. */
static void enter_landed(struct recovery *recovery, struct gain *gain, struct slab_head *head, uint64_t now)
{
	uint64_t epoch = recovery->congestion.epoch;

	recovery->in_flight--;
	gain->landed++;
	gain->counted += congestion_counts(&recovery->congestion, head->sent_at);
	/* Of the latest transmission alone (RFC 9002 section 5.1): what is acknowledged beside a packet that
	 * was sent again may have waited for it. And Karn: which transmission it was is not known then. */
	if (head->order >= gain->sample_order) {
		gain->sample_order = head->order;
		gain->sample = head->transmissions == 1 ? now - head->sent_at : UINT64_MAX;
	}
	if (head->transmissions > 1 && now - head->sent_at < recovery->min_us) {
		gain->certain = false; /* an earlier transmission, of which nothing is known any more */
		return;
	}
	if (head->order + 1 > recovery->acked_order)
		recovery->acked_order = head->order + 1;
	if (head->sent_at < gain->first)
		gain->first = head->sent_at;
	judge_superseded(recovery, head, now);
	if (recovery->congestion.epoch != epoch)
		gain->counted = 0;
}

static void enter_gain(struct transaction *transaction, struct slab *slab, const struct gain *gain,
                       uint32_t acked_order, bool limited, uint64_t now)
{
	struct recovery *recovery = &transaction->recovery;
	uint64_t epoch = recovery->congestion.epoch;
	uint32_t counted = gain->counted;

	/* RFC 9002 section 5.1: only of what is newer than all that was acknowledged before. */
	if (gain->sample != UINT64_MAX && gain->sample_order >= acked_order)
		recovery_on_sample(recovery, gain->sample, now);
	/* RFC 9002 section 6.2.1: the probe timer starts anew when an acknowledgement brings something. */
	recovery->timeouts = 0;
	recovery->timer_base = now;
	outbox_detect_losses(transaction, slab, now);
	if (gain->certain && gain->landed)
		notice_silence(transaction, slab, gain->first);
	recovery->silent_since = silent_since(transaction, slab);
	if (!recovery->congestion.epoch) /* no recovery period, or not any more */
		counted = gain->landed;
	else if (recovery->congestion.epoch != epoch) /* one that began just now */
		counted = 0;
	if (limited)
		congestion_on_acked(&recovery->congestion, counted, now, recovery->srtt_us);
}

/* A range is told as far as it goes: the peer had not the packet behind it. */
static void note_missed(struct transaction *transaction, const struct slab *slab, uint32_t offset)
{
	struct outbox *outbox = &transaction->outbox;
	const struct slab_head *head;

	if (offset >= outbox->sent || outbox->buffers[offset] == SLAB_NONE)
		return;
	head = slab_head(slab, outbox->buffers[offset]);
	if (head->state != SENT_IN_FLIGHT)
		return;
	outbox->missed = (uint16_t)(offset + 1);
	transaction->recovery.missed_at = head->sent_at;
}

uint32_t outbox_acknowledge(struct transaction *transaction, struct slab *slab, uint64_t now, uint32_t ack_tsn,
                            uint16_t count)
{
	uint32_t from = ack_tsn - packet_first_tsn(transaction->id, transaction->role);
	uint32_t acked_order = transaction->recovery.acked_order, arrived = 0;
	struct gain gain = {.sample = UINT64_MAX, .first = UINT64_MAX, .certain = true};
	struct outbox *outbox = &transaction->outbox;
	bool limited = is_limited(transaction, slab);

	for (uint32_t offset = from; offset < from + count; offset++) {
		struct slab_head *head;
		uint8_t step;

		if (!outbox_is_outstanding(outbox, slab, offset))
			continue;
		outbox_forget_missed(transaction, offset);
		head = slab_head(slab, outbox->buffers[offset]);
		step = slab_bytes(slab, outbox->buffers[offset])[offsetof(struct accord_header, step)];
		gain.packets++;
		if (head->state == SENT_IN_FLIGHT)
			enter_landed(&transaction->recovery, &gain, head, now);
		if (head->datagram)
			transaction->lost_datagrams = 0;
		if (awaits_answer(transaction, step)) {
			transaction->acknowledged += head->length + transaction_overhead(transaction);
			head->state = SENT_ARRIVED;
			head->probe = 0;
			outbox->retained++;
		} else {
			slab_give(slab, &transaction->share, outbox->buffers[offset]);
			outbox->buffers[offset] = SLAB_NONE;
		}
		if (--outbox->unacknowledged[step / 2] == 0)
			arrived |= 1u << step;
	}
	while (outbox->oldest < outbox->total && !outbox_is_outstanding(outbox, slab, outbox->oldest))
		outbox->oldest++;
	if (gain.packets)
		enter_gain(transaction, slab, &gain, acked_order, limited, now);
	note_missed(transaction, slab, from + count);
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
		if (head->state == SENT_IN_FLIGHT)
			judge_superseded(recovery, head, now);
		if (head->state != SENT_IN_FLIGHT || head->order + 1 >= recovery->acked_order)
			continue;
		if (head->order + 1 + RECOVERY_PACKET_THRESHOLD <= recovery->acked_order || head->sent_at + delay <= now) {
			head->state = SENT_LOST;
			outbox_forget_missed(transaction, offset);
			outbox_datagram_lost(transaction, head);
			recovery->in_flight--;
			congestion_on_lost(&recovery->congestion, head->sent_at, now);
		} else if (!recovery->loss_time || head->sent_at + delay < recovery->loss_time) {
			recovery->loss_time = head->sent_at + delay;
		}
	}
}
