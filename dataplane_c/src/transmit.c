// SPDX-License-Identifier: Apache-2.0
/*
 * The outgoing half: timers, then packets. A transaction that is due is worked off until nothing of it
 * can go now; what is held back by the window waits for an acknowledgement or the probe timer, what is
 * held back by the amplification limit waits for bytes of the peer's.
 */
#include "engine.h"
#include "outbox.h"
#include "packet.h"

/* Some of the initiator's next message is here, and some is missing. Of the proposal's rest nothing depends on it. */
static bool within_message(const struct transaction *transaction)
{
	const struct reassembly *reassembly = &transaction->reassembly;

	return reassembly->latest >= ACCORD_STEP_COMMIT && !reassembly_is_complete(reassembly, (uint8_t)reassembly->latest);
}

/* Has this negotiation come as far as its lifetime has to carry it? HotNets 2009, Figure 1: the responder
 * is there when the commit is whole, and the peer's address proven, by it or by a message before it; the initiator when
 * it has sent the commit. */
static bool committed(const struct transaction *transaction)
{
	if (transaction->continues)
		return false;
	if (transaction->role == ROLE_RESPONDER)
		return !transaction->share.unproven && !transaction->admitted && !within_message(transaction);
	return transaction->outbox.step >= ACCORD_STEP_COMMIT;
}

static uint64_t lifetime_end(const struct transaction *transaction)
{
	return committed(transaction) ? UINT64_MAX : transaction->created + TRANSACTION_LIFETIME_US;
}

static uint64_t delivery_end(const struct accord_engine *engine, const struct transaction *transaction)
{
	uint64_t oldest = outbox_oldest(transaction, &engine->slab);

	return oldest == UINT64_MAX ? UINT64_MAX : oldest + TRANSACTION_LIFETIME_US;
}

static bool acknowledgement_due(const struct transaction *transaction, uint64_t now)
{
	return transaction->ack_due <= now && transaction_may_send(transaction, ACCORD_HEADER_BYTES);
}

/* TSN offset of the packet that may leave now; total: none. */
static uint16_t packet_due(const struct accord_engine *engine, const struct transaction *transaction)
{
	const struct outbox *outbox = &transaction->outbox;
	uint16_t offset = outbox_pick(transaction, &engine->slab, engine->now);

	if (offset == outbox->total ||
	    !transaction_may_send(transaction, slab_head(&engine->slab, outbox->buffers[offset])->length))
		return outbox->total;
	return offset;
}

/* Has it packets that may have to leave, for the first time or again? Who only receives has none. */
static bool has_packets(const struct transaction *transaction)
{
	return transaction->outbox.oldest < transaction->outbox.total || transaction->outbox.retained;
}

static uint64_t earlier(uint64_t one, uint64_t other)
{
	return one < other ? one : other;
}

uint64_t transmit_deadline(const struct accord_engine *engine, const struct transaction *transaction)
{
	const struct recovery *recovery = &transaction->recovery;
	uint64_t due;

	if (transaction->state == TRANSACTION_LIVE)
		due = earlier(lifetime_end(transaction), delivery_end(engine, transaction));
	else if (transaction->state == TRANSACTION_LINGERING)
		due = transaction->expires;
	else
		return UINT64_MAX;

	if (acknowledgement_due(transaction, engine->now))
		return engine->now;
	if (transaction->ack_due > engine->now)
		due = earlier(due, transaction->ack_due);
	if (!has_packets(transaction))
		return due;
	if (packet_due(engine, transaction) != transaction->outbox.total)
		return engine->now;
	due = earlier(due, outbox_paced_until(transaction, &engine->slab, engine->now));
	/* One of the two (RFC 9002 section 6.2.1): what may count as lost soon is no reason for a probe yet. */
	if (recovery->loss_time)
		return earlier(due, recovery->loss_time);
	return outbox_awaits(transaction) ? earlier(due, outbox_deadline(transaction)) : due;
}

void transmit_schedule(struct accord_engine *engine, struct transaction *transaction)
{
	timer_set(&engine->timer, transaction->slot, transmit_deadline(engine, transaction));
}

/* Returns false when the transaction came to its end by it. */
static bool run_timers(struct accord_engine *engine, struct transaction *transaction)
{
	struct recovery *recovery = &transaction->recovery;
	uint64_t now = engine->now;

	if (transaction->state == TRANSACTION_LINGERING && transaction->expires <= now) {
		engine_forget(engine, transaction);
		return false;
	}
	if (transaction->state == TRANSACTION_LIVE) {
		bool waiting = outbox_oldest(transaction, &engine->slab) != UINT64_MAX || !transaction->packets_received;
		uint32_t reason = ACCORD_REASON_OK;

		if (delivery_end(engine, transaction) <= now)
			reason = ACCORD_REASON_TIMEOUT;
		else if (lifetime_end(transaction) <= now)
			reason = waiting ? ACCORD_REASON_TIMEOUT : ACCORD_REASON_LIFETIME;
		if (reason) {
			/* Without room for the event, try again when the user has taken some. */
			if (!engine_fail(engine, transaction, reason))
				timer_set(&engine->timer, transaction->slot, now + 1000);
			return false;
		}
	}
	if (recovery->loss_time) {
		if (recovery->loss_time <= now)
			outbox_detect_losses(transaction, &engine->slab, now);
	} else if (outbox_awaits(transaction) && outbox_deadline(transaction) <= now) {
		outbox_on_timeout(transaction, &engine->slab, now);
	}
	return true;
}

/* Put the range to be acknowledged, if any, into a packet that leaves now, and make it good. */
static void seal(struct transaction *transaction, uint8_t *bytes, uint32_t length)
{
	uint32_t first_tsn = packet_first_tsn(transaction->id, role_other(transaction->role));
	uint16_t first = 0;
	uint16_t count = ackrange_next(&transaction->range, &first);

	packet_seal(bytes, length, first_tsn + first, count);
	ackrange_reported(&transaction->range, first, count);
	if (!ackrange_has_news(&transaction->range)) {
		transaction->ack_due = UINT64_MAX;
		transaction->arrivals = 0;
	}
	transaction->packets_sent++;
	transaction->bytes_sent += length;
	transaction->wire_sent += length + transaction_overhead(transaction);
}

/* A datagram that packets of one transaction go into. */
struct datagram {
	uint32_t bytes;                 /* so far */
	uint32_t number;                /* order of its first packet, and one */
	struct accord_packet_out *last; /* NULL: closed */
	uint32_t last_buffer;
};

/*
 * Packets share a datagram as far as the path's MTU goes, once the initial window is through: what fits into
 * that is one flight anyway, and on a path that turns out smaller it would lose a time-out. What is sent again
 * goes alone.
 */
static bool may_share(const struct transaction *transaction, const struct slab_head *head, uint16_t offset)
{
	return offset >= ACCORD_INITIAL_WINDOW && head->transmissions == 0 && !transaction->alone;
}

/* A path that is smaller than its ends, and where nobody says so (RFC 8899 section 4.3). */
static void notice_black_hole(struct accord_engine *engine, struct transaction *transaction)
{
	if (transaction->alone || transaction->lost_datagrams < TRANSACTION_LOST_DATAGRAMS)
		return;
	transaction->alone = true;
	engine_count(engine, ACCORD_REASON_MTU_BLACK_HOLE);
}

static void join(struct accord_engine *engine, const struct transaction *transaction, struct datagram *datagram,
                 uint32_t buffer, struct accord_packet_out *out)
{
	struct slab_head *head = slab_head(&engine->slab, buffer);

	if (datagram->last && datagram->last->length == ACCORD_MIN_MTU_PACKET &&
	    datagram->bytes + out->length <= transaction_datagram(transaction)) {
		packet_join(slab_bytes(&engine->slab, datagram->last_buffer));
		datagram->last->joined = 1;
		slab_head(&engine->slab, datagram->last_buffer)->datagram = datagram->number;
		head->datagram = datagram->number;
		datagram->bytes += out->length;
	} else {
		datagram->bytes = out->length;
		datagram->number = head->order + 1;
	}
	datagram->last = out;
	datagram->last_buffer = buffer;
}

static void send_packet(struct accord_engine *engine, struct transaction *transaction, uint16_t offset,
                        struct datagram *datagram, struct accord_packet_out *out)
{
	uint32_t buffer = transaction->outbox.buffers[offset];
	bool shares = may_share(transaction, slab_head(&engine->slab, buffer), offset);

	out->path = &transaction->path;
	out->data = slab_bytes(&engine->slab, buffer);
	out->length = slab_head(&engine->slab, buffer)->length;
	out->joined = 0;
	seal(transaction, slab_bytes(&engine->slab, buffer), out->length);
	outbox_on_sent(transaction, &engine->slab, engine->now, offset);
	if (shares)
		join(engine, transaction, datagram, buffer, out);
	else
		datagram->last = NULL;
}

static void send_acknowledgement(struct transaction *transaction, struct accord_packet_out *out, uint8_t *bytes)
{
	const struct outbox *outbox = &transaction->outbox;
	struct packet_fields fields = {
		.transaction = transaction->id,
		.sender = transaction->role,
		.step = outbox->step >= 0 ? (uint8_t)outbox->step : transaction->role == ROLE_RESPONDER,
		.offset = outbox->sent,
	};

	packet_write_header(bytes, &fields);
	seal(transaction, bytes, ACCORD_HEADER_BYTES);
	out->path = &transaction->path;
	out->data = bytes;
	out->length = ACCORD_HEADER_BYTES;
	out->joined = 0;
}

/* Is this buffer among the packets of this call? Sealed again it would no longer be what was put there: the range that
 * it acknowledges changes, and a packet that shares its datagram would no longer be announced. */
static bool leaves_already(const struct accord_packet_out *packets, uint32_t count, const uint8_t *bytes)
{
	for (uint32_t i = 0; i < count; i++)
		if (packets[i].data == bytes)
			return true;
	return false;
}

/* Everything of one transaction that can go now. Returns how many packets that are, fewer than could go if `*again`: a
 * packet is to leave twice, which takes a call each. */
static uint32_t send_packets(struct accord_engine *engine, struct transaction *transaction,
                             struct accord_packet_out *packets, uint32_t limit, bool *again)
{
	struct datagram datagram = {0};
	uint16_t offset;
	uint32_t done = 0;

	while (done < limit && (offset = packet_due(engine, transaction)) != transaction->outbox.total) {
		uint32_t buffer = transaction->outbox.buffers[offset];

		*again = slab_head(&engine->slab, buffer)->transmissions &&
		         leaves_already(packets, done, slab_bytes(&engine->slab, buffer));
		if (*again)
			break;
		send_packet(engine, transaction, offset, &datagram, &packets[done++]);
	}
	return done;
}

uint32_t accord_engine_output(struct accord_engine *engine, uint64_t now, struct accord_packet_out *packets,
                              uint32_t limit)
{
	uint32_t done = 0, acknowledgements = 0;
	bool again = false;

	engine_see(engine, now);
	slots_expire(&engine->slots, engine->now);
	if (limit > ENGINE_OUTPUT_BATCH)
		limit = ENGINE_OUTPUT_BATCH;
	while (!again && done < limit && engine->timer.count && engine->timer.entries[0].due <= engine->now) {
		struct transaction *transaction = &engine->table.slots[engine->timer.entries[0].slot];

		if (!run_timers(engine, transaction))
			continue;
		notice_black_hole(engine, transaction);
		done += send_packets(engine, transaction, packets + done, limit - done, &again);
		/* One range to a packet: several, if news lies in several. */
		while (done < limit && acknowledgement_due(transaction, engine->now))
			send_acknowledgement(transaction, &packets[done++], engine->acknowledgements[acknowledgements++]);
		transmit_schedule(engine, transaction);
	}
	return done + stranger_output(engine, packets + done, limit - done);
}
