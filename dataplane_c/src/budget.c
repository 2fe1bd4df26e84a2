// SPDX-License-Identifier: Apache-2.0
/* How much a user may say before the peer has proven its address (RFC 9000 section 8, in whole packets). */
#include "engine.h"

/*
 * A floor, for a message of no more nodes than the peer's latest has (an answer holds only what was
 * proposed). Each packet may leave a chunk header's room unused, and adds a chunk header for the node that
 * it goes on with.
 */
int64_t accord_engine_budget(const struct accord_engine *engine, uint32_t handle)
{
	const struct transaction *transaction = transaction_of(&engine->table, handle);
	const uint64_t per_packet = ACCORD_HEADER_BYTES + 2 * ACCORD_CHUNK_HEADER_BYTES;
	uint64_t room = UINT64_MAX, packets, wire, bytes, rest, nodes = 0;

	if (!transaction)
		return -ACCORD_REASON_UNKNOWN_TRANSACTION;
	if (transaction->state != TRANSACTION_LIVE)
		return 0;
	packets = (uint64_t)ACCORD_MAX_PACKETS - transaction->outbox.total;
	wire = ACCORD_MIN_MTU_PACKET + transaction_overhead(transaction);
	if (transaction->share.unproven) {
		uint64_t spent = transaction->wire_sent;

		for (uint16_t offset = transaction->outbox.sent; offset < transaction->outbox.total; offset++)
			spent += slab_head(&engine->slab, transaction->outbox.buffers[offset])->length +
			         transaction_overhead(transaction);
		room = ACCORD_AMPLIFICATION * transaction->wire_received;
		room = room > spent ? room - spent : 0;
	}
	if (transaction->reassembly.latest >= 0)
		nodes = reassembly_count(&transaction->reassembly, (uint8_t)transaction->reassembly.latest);
	if (room / wire >= packets) {
		bytes = packets * (ACCORD_MIN_MTU_PACKET - per_packet);
	} else {
		rest = room % wire;
		bytes = room / wire * (ACCORD_MIN_MTU_PACKET - per_packet);
		if (rest > per_packet + transaction_overhead(transaction))
			bytes += rest - per_packet - transaction_overhead(transaction);
	}
	bytes = bytes > nodes * ACCORD_CHUNK_HEADER_BYTES ? bytes - nodes * ACCORD_CHUNK_HEADER_BYTES : 0;
	return (int64_t)(bytes < ACCORD_MAX_MESSAGE_BYTES ? bytes : ACCORD_MAX_MESSAGE_BYTES);
}
