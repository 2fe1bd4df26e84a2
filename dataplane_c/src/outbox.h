/* SPDX-License-Identifier: Apache-2.0 */
/* Packets from being queued to being acknowledged: what to send next, what is lost, what arrived. */
#ifndef ACCORD_OUTBOX_H
#define ACCORD_OUTBOX_H

#include <stdint.h>

#include "slab.h"
#include "transaction.h"

enum outbox_constant {
	OUTBOX_SPARE =
		140, /* per cent of an expected long answer that there is to be room for: packets of either side get lost */
	OUTBOX_VARIES =
		32, /* bytes by which an answer may be longer than the last one: signatures are not all of a length */
	OUTBOX_NEARLY = 2,   /* packets that a responder has left at its limit, when it is time to lift that */
	OUTBOX_NEARLIER = 3, /* one more for so many that have come: of what lifts it, something may get lost */
};

/* Does this range acknowledge only what was sent? */
bool outbox_sent(const struct transaction *transaction, uint32_t ack_tsn, uint16_t count);
/* Queued, and not acknowledged. */
bool outbox_is_outstanding(const struct outbox *outbox, const struct slab *slab, uint32_t offset);
/* That the peer has not this packet does not count any more: it arrived, is lost, or has been sent again. */
static inline void outbox_forget_missed(struct transaction *transaction, uint32_t offset)
{
	if (transaction->outbox.missed == offset + 1) {
		transaction->outbox.missed = 0;
		transaction->recovery.missed_at = 0;
	}
}
/* Its packet counts as lost: so does the datagram that it shared. */
void outbox_datagram_lost(struct transaction *transaction, const struct slab_head *head);
/* acknowledge.c: enter an acknowledgement. Returns a bit mask of steps (1 << step) that arrived whole by it. */
uint32_t outbox_acknowledge(struct transaction *transaction, struct slab *slab, uint64_t now, uint32_t ack_tsn,
                            uint16_t count);
/* Mark what counts as lost, and set recovery.loss_time for what may soon (RFC 9002 section 6.1). */
void outbox_detect_losses(struct transaction *transaction, struct slab *slab, uint64_t now);
/*
 * Is there anything to probe for: packets in flight, or an answer that the amplification limit may be
 * holding back? The latter is the deadlock of RFC 9002 section 6.2.2.1: the proposal arrived, part of the
 * answer got lost, and the responder may not repeat it before it hears more of the initiator. So an
 * initiator keeps its proposal until the answer is whole, and repeats a packet of it.
 */
bool outbox_awaits(const struct transaction *transaction);
/* When, if it awaits something, it has waited for long enough. */
uint64_t outbox_deadline(const struct transaction *transaction);
/*
 * The responder to an unproven address has to stop at ACCORD_AMPLIFICATION times what came from there. What it may have
 * sent so far can be counted here: when that is nearly all that it was allowed and its message is not whole, packets
 * of the proposal leave again, as many as it takes for three times as many of its packets, and no more bytes than
 * came from there. So a message of any length arrives in a few round trips, from a peer of which it was not known that
 * its answers are long (RFC 9000 section 8.1 leaves it to padding).
 */
void outbox_unlock(struct transaction *transaction, const struct slab *slab);
/* The proposal is queued, and it is known how long the answer will be: if it makes no room for that by itself, repeat
 * as much of it in the same flight as does. Padding would do, too, but each packet of it would have to arrive before
 * there is an answer. */
void outbox_expect(struct transaction *transaction, const struct slab *slab);
/* Mark the first unacknowledged packets to be sent again regardless of the window. */
void outbox_probe(struct transaction *transaction, struct slab *slab);
/* The deadline is over: probe, or, if that is why, for what the peer says it has not and what left with that. */
void outbox_on_timeout(struct transaction *transaction, struct slab *slab, uint64_t now);
/* The responder wants to see the proposal again, its first packet with this cookie: as if nothing of it had been sent,
 * unless some of it was acknowledged. False: no room for the cookie, nothing was done. */
bool outbox_begin_anew(struct transaction *transaction, struct slab *slab, uint64_t now, const uint8_t *cookie);
/* The answer is whole, or no longer wanted: give the proposal's packets back. */
void outbox_release_retained(struct transaction *transaction, struct slab *slab);
/* Is there anything that an open window would let go? */
bool outbox_waits(const struct transaction *transaction, const struct slab *slab);
/* TSN offset of the packet to send next; total when there is none that window and pace let go. */
uint16_t outbox_pick(const struct transaction *transaction, const struct slab *slab, uint64_t now);
/* When the pace will let go what the window would; UINT64_MAX: nothing waits for the pace alone. */
uint64_t outbox_paced_until(const struct transaction *transaction, const struct slab *slab, uint64_t now);
/* The picked packet goes out now. */
void outbox_on_sent(struct transaction *transaction, struct slab *slab, uint64_t now, uint16_t offset);
/* When the oldest unacknowledged packet was queued; UINT64_MAX: there is none. */
uint64_t outbox_oldest(const struct transaction *transaction, const struct slab *slab);
void outbox_release(struct transaction *transaction, struct slab *slab);

#endif /* ACCORD_OUTBOX_H */
