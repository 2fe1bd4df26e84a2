// SPDX-License-Identifier: Apache-2.0
#include "outbox.h"

#include <string.h>

#include "packet.h"

/* ---- What there is to send ---- */

/* TSN offset of the packet of the proposal that was sent the fewest times; total: none is kept. */
static uint16_t repeatable(const struct transaction *transaction, const struct slab *slab)
{
	const struct outbox *outbox = &transaction->outbox;
	uint16_t found = outbox->total;

	if (outbox->step != ACCORD_STEP_PROPOSAL || outbox->sent < outbox->total)
		return outbox->total;
	for (uint16_t offset = 0; offset < outbox->sent; offset++) {
		if (outbox->buffers[offset] == SLAB_NONE)
			continue;
		if (found == outbox->total || slab_head(slab, outbox->buffers[offset])->transmissions <
		                                  slab_head(slab, outbox->buffers[found])->transmissions)
			found = offset;
	}
	return found;
}

/* Bytes of the proposal's packets that are kept, with UDP and IP, and how many they are. */
static uint32_t kept_of_proposal(const struct transaction *transaction, const struct slab *slab, uint32_t *packets)
{
	const struct outbox *outbox = &transaction->outbox;
	uint32_t bytes = 0;

	*packets = 0;
	for (uint16_t offset = 0; outbox->step == ACCORD_STEP_PROPOSAL && offset < outbox->total; offset++) {
		if (outbox->buffers[offset] == SLAB_NONE)
			continue;
		bytes += slab_head(slab, outbox->buffers[offset])->length + transaction_overhead(transaction);
		(*packets)++;
	}
	return bytes;
}

static uint16_t pick(const struct transaction *transaction, const struct slab *slab, bool open)
{
	const struct outbox *outbox = &transaction->outbox;

	if (outbox->repeats) {
		uint16_t offset = repeatable(transaction, slab);

		if (offset != outbox->total)
			return offset;
	}

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

uint64_t outbox_deadline(const struct transaction *transaction)
{
	const struct recovery *recovery = &transaction->recovery;
	uint64_t early, due;

	/* What is repeated then is no more than what has come, so it needs no longer patience than a loss. */
	if (!recovery->in_flight && transaction->range.highest >= 0 && transaction->role == ROLE_INITIATOR)
		return recovery_stalled(recovery);
	early = recovery_early(recovery);
	due = recovery_deadline(recovery);
	return early < due ? early : due;
}

/* Packets of the answer up to the highest that came, and how many of them are missing. */
static uint32_t seen_of_answer(const struct transaction *transaction, uint32_t *missing)
{
	const struct ackrange *range = &transaction->range;

	*missing = 0;
	for (int32_t offset = range->prefix; offset < range->highest; offset++)
		*missing += !ackrange_has(range, (uint32_t)offset);
	return (uint32_t)(range->highest + 1);
}

/* What the responder has heard, bytes with UDP and IP, as far as it is known here: what it has acknowledged, and what
 * was sent again since, unless it behaves as if that had not come. */
static uint64_t heard(const struct transaction *transaction)
{
	uint64_t heard = transaction->acknowledged + transaction->repeated;

	return heard > transaction->unheard ? heard - transaction->unheard : 0;
}

void outbox_unlock(struct transaction *transaction, const struct slab *slab)
{
	struct outbox *outbox = &transaction->outbox;
	const struct step_in *answer = &transaction->reassembly.steps[ACCORD_STEP_ANSWER / 2];
	uint64_t whole = ACCORD_MIN_MTU_PACKET + transaction_overhead(transaction);
	uint64_t allowed = ACCORD_AMPLIFICATION * heard(transaction);
	uint32_t missing, seen, wanted, packets;
	uint64_t each, gain;

	if (outbox->step != ACCORD_STEP_PROPOSAL || answer->complete)
		return;
	each = kept_of_proposal(transaction, slab, &packets);
	if (!packets)
		return;
	each /= packets;
	gain = ACCORD_AMPLIFICATION * each;
	seen = seen_of_answer(transaction, &missing);
	wanted = seen + 2 * missing; /* what is sent again may be lost again */
	if (answer->end < 0) {
		if (allowed >= (wanted + OUTBOX_NEARLY + seen / OUTBOX_NEARLIER) * whole)
			return;
		wanted += 2 * seen;
		if (wanted * whole < transaction->expected)
			wanted = (uint32_t)((transaction->expected + whole - 1) / whole);
	}
	for (allowed += outbox->repeats * gain; allowed < wanted * whole; allowed += gain) {
		/* As with acknowledgements that clock out a window: no more than comes in. */
		if (transaction->repeated + (outbox->repeats + 1) * each > transaction->wire_received)
			return;
		outbox->repeats++;
	}
}

void outbox_expect(struct transaction *transaction, const struct slab *slab)
{
	struct outbox *outbox = &transaction->outbox;
	uint64_t wanted = (uint64_t)transaction->expected * OUTBOX_SPARE / 100;
	uint32_t packets;
	uint64_t own = kept_of_proposal(transaction, slab, &packets), room = ACCORD_AMPLIFICATION * own;

	if (transaction->expected + OUTBOX_VARIES <= room)
		return;
	/* All of it is one flight. */
	for (; room < wanted && packets && outbox->total + outbox->repeats < ACCORD_INITIAL_WINDOW; outbox->repeats++)
		room += ACCORD_AMPLIFICATION * own / packets;
}

void outbox_release_retained(struct transaction *transaction, struct slab *slab)
{
	struct outbox *outbox = &transaction->outbox;

	outbox->repeats = 0;
	for (uint16_t offset = 0; outbox->retained && offset < outbox->sent; offset++) {
		uint32_t buffer = outbox->buffers[offset];

		if (buffer == SLAB_NONE || slab_head(slab, buffer)->state != SENT_ARRIVED)
			continue;
		outbox->buffers[offset] = SLAB_NONE;
		slab_give(slab, &transaction->share, buffer);
		outbox->retained--;
	}
}

/* The answer has stopped: its sender is at its limit, so it has heard no more than a third of what came from it. */
static void note_unheard(struct transaction *transaction)
{
	uint64_t whole = ACCORD_MIN_MTU_PACKET + transaction_overhead(transaction);
	uint64_t third = (uint64_t)(transaction->range.highest + 1) * whole / ACCORD_AMPLIFICATION;

	if (transaction->range.highest >= 0 && heard(transaction) > third)
		transaction->unheard += heard(transaction) - third;
}

/* As many as make room for one packet of the answer, of two if part of it is there. */
static void probe_proposal(struct transaction *transaction, const struct slab *slab)
{
	struct outbox *outbox = &transaction->outbox;
	uint32_t packets = transaction->range.highest < 0 ? 1 : RECOVERY_PROBES, kept;
	uint32_t gain = ACCORD_AMPLIFICATION * kept_of_proposal(transaction, slab, &kept);

	if (gain)
		outbox->repeats = (uint16_t)((packets * ACCORD_MIN_MTU_PACKET * kept + gain - 1) / gain);
	if (outbox->repeats < packets)
		outbox->repeats = (uint16_t)packets;
	note_unheard(transaction);
	outbox_unlock(transaction, slab);
}

/* until: of what left then, or before. */
static void probe_from(struct transaction *transaction, struct slab *slab, uint16_t offset, uint64_t until)
{
	struct outbox *outbox = &transaction->outbox;

	for (uint32_t probes = 0; offset < outbox->sent && probes < RECOVERY_PROBES; offset++) {
		struct slab_head *head;

		if (!outbox_is_outstanding(outbox, slab, offset))
			continue;
		head = slab_head(slab, outbox->buffers[offset]);
		if (head->sent_at > until)
			continue;
		head->probe = 1;
		outbox_datagram_lost(transaction, head);
		probes++;
	}
}

void outbox_probe(struct transaction *transaction, struct slab *slab)
{
	if (transaction->recovery.in_flight)
		probe_from(transaction, slab, transaction->outbox.oldest, UINT64_MAX);
	else
		probe_proposal(transaction, slab);
}

void outbox_on_timeout(struct transaction *transaction, struct slab *slab, uint64_t now)
{
	struct recovery *recovery = &transaction->recovery;
	bool early = recovery_early(recovery) <= now && recovery_deadline(recovery) > now;

	recovery_on_timeout(recovery, now);
	if (early)
		probe_from(transaction, slab, transaction->outbox.missed - 1, now - recovery_loss_delay(recovery));
	else
		outbox_probe(transaction, slab);
}

bool outbox_begin_anew(struct transaction *transaction, struct slab *slab, uint64_t now, const uint8_t *cookie)
{
	struct outbox *outbox = &transaction->outbox;
	struct recovery *recovery = &transaction->recovery;
	uint32_t first = outbox->buffers[0];
	struct slab_head *head;

	if (first == SLAB_NONE || slab_head(slab, first)->length + (uint32_t)ACCORD_COOKIE_BYTES > slab->capacity)
		return false;
	head = slab_head(slab, first);
	head->length = (uint16_t)packet_put_cookie(slab_bytes(slab, first), head->length, cookie);
	if (outbox->retained || transaction->range.highest >= 0)
		return true;
	/* A round trip like any other, unless it is not known which transmission was answered (Karn). */
	if (head->transmissions == 1 && !recovery->srtt_us)
		recovery_on_sample(recovery, now - head->sent_at, now);
	for (uint16_t offset = 0; offset < outbox->sent; offset++) {
		if (outbox->buffers[offset] == SLAB_NONE)
			continue;
		outbox_forget_missed(transaction, offset);
		head = slab_head(slab, outbox->buffers[offset]);
		recovery->in_flight -= head->state == SENT_IN_FLIGHT;
		head->state = SENT_NOT_YET;
		head->probe = 0;
		head->superseded = 0;
		head->datagram = 0;
	}
	recovery->loss_time = 0;
	recovery->timeouts = 0;
	recovery->timer_base = now;
	return true;
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

	if (outbox->repeats && offset == repeatable(transaction, slab)) {
		/* For the sake of its bytes: what is known of the packet itself stays as it is. */
		outbox->repeats--;
		transaction->repeated += head->length + transaction_overhead(transaction);
		transaction->retransmitted++;
		head->transmissions++;
		recovery->timer_base = now;
		return;
	}
	outbox_forget_missed(transaction, offset);
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
		outbox_forget_missed(transaction, offset);
		slab_give(slab, &transaction->share, outbox->buffers[offset]);
		outbox->buffers[offset] = SLAB_NONE;
	}
	outbox->oldest = outbox->total;
	outbox->retained = outbox->repeats = 0;
}
