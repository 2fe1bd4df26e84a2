// SPDX-License-Identifier: Apache-2.0
/*
 * Invariant: the parser takes exactly the packets that the specification's sections 3, 3.1 and 21.1 allow, as read
 * below by somebody who has never seen the parser; what it says of them lies within them, and written again is the same
 * packet. Both ways to sum a packet come to the same.
 *
 * The input is a byte of what to mend, so that the fuzzer need not find a checksum, and a packet.
 */
#include "checksum.h"
#include "craft.h"
#include "packet.h"
#include "script.h"

enum mend {
	MEND_MAGIC = 1,
	MEND_TSN = 2,
	MEND_STEP = 4,
	MEND_NOTHING = 8, /* not even the checksum */
};

static uint32_t number(const uint8_t *at, int bytes)
{
	uint32_t value = 0;

	while (bytes-- > 0)
		value = value << 8 | *at++;
	return value;
}

/* RFC 1071, section 1: the sum over all, with the checksum in it, is all ones. */
static bool checksum_right(const uint8_t *bytes, uint32_t length)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < length; i++)
		sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* MUST-10, 11, 12 and the rules of padding. */
static bool chunks_allowed(const uint8_t *at, uint32_t left)
{
	bool seen[256] = {false};

	while (left) {
		uint32_t length;
		bool padding;

		if (left < 8)
			return false;
		length = number(at + 2, 2);
		padding = at[0] == 255;
		if (padding != (number(at + 4, 4) == 0) || seen[at[0]])
			return false;
		if (!padding && (at[0] > 63 || !length))
			return false;
		seen[at[0]] = true;
		if (left - 8 < length)
			return false;
		at += 8 + length;
		left -= 8 + length;
	}
	return true;
}

/* MUST-140 and 141: the first packet of a proposal, or nothing but a cookie. */
static bool cookie_allowed(const uint8_t *bytes, uint32_t length, uint32_t ahead)
{
	uint32_t flags = number(bytes + 2, 2) & 31;

	if (ahead)
		return false;
	if (length == 48)
		return bytes[1] == 1 && flags == 16;
	return bytes[1] == 0 && flags & 1 && !(flags & 8) && chunks_allowed(bytes + 48, length - 48);
}

/* MUST-2, 3, 5, 7, 8, 9 and 16, in the words of the specification. */
static bool allowed(const uint8_t *bytes, uint32_t length)
{
	uint32_t flags, tsn, ack_tsn, ack_count, ahead;
	bool initiator, ack, end, more, pure = length == 32;

	if (length < 32 || length > 9000 || bytes[0] != 4 || number(bytes + 4, 4) != 0x41435244)
		return false;
	if (!checksum_right(bytes, length))
		return false;
	flags = number(bytes + 2, 2);
	initiator = flags & 1;
	ack = flags & 2;
	end = flags & 4;
	more = flags & 8;
	tsn = number(bytes + 20, 4);
	ack_tsn = number(bytes + 24, 4);
	ack_count = number(bytes + 28, 2);
	if (ack ? !ack_count : ack_tsn || ack_count)
		return false;
	if (flags & 16)
		return length >= 48 && cookie_allowed(bytes, length, tsn - number(bytes + (initiator ? 8 : 12), 4));
	if (pure && (!ack || end))
		return false;
	if (more && length != 1200)
		return false;
	if (bytes[1] >= 10 || (bytes[1] % 2 == 0) != initiator)
		return false;
	ahead = tsn - number(bytes + (initiator ? 8 : 12), 4);
	if (pure ? ahead > 256 : ahead >= 256)
		return false;
	return chunks_allowed(bytes + 32, length - 32);
}

static void check_again(const struct packet *packet, const uint8_t *bytes, uint32_t length)
{
	static uint8_t again[9000];
	const struct packet_fields fields = {
		.transaction = packet->transaction,
		.sender = packet->sender,
		.flags = packet->flags,
		.step = packet->step,
		.offset = packet->offset,
		.ack_tsn = packet->ack_tsn,
		.ack_count = packet->ack_count,
	};
	uint32_t at = 32;

	HOLD(packet->cookie == (packet->flags & ACCORD_FLAG_COOKIE ? bytes + 32 : NULL));
	packet_write_header(again, &fields);
	at += packet->cookie ? 16 : 0;
	for (uint32_t i = 0; i < packet->chunk_count; i++) {
		const struct chunk *chunk = &packet->chunks[i];

		HOLD(chunk->data == bytes + at + 8 && chunk->length <= length - at - 8);
		packet_write_chunk(again + at, chunk->node, chunk->flags, chunk->length, chunk->protocol);
		/* Other flags of a chunk are ignored. */
		HOLD((again[at + 1] & 3) == (bytes[at + 1] & 3));
		again[at + 1] = bytes[at + 1];
		HOLD(!memcmp(again + at, bytes + at, 8));
		at += 8u + chunk->length;
	}
	HOLD(at == length);
	packet_seal(again, 32, packet->ack_tsn, packet->ack_count);
	if (packet->flags & ACCORD_FLAG_MORE)
		again[3] |= ACCORD_FLAG_MORE;
	/* So are other flags of the header; the checksum was held against another reading of it. */
	HOLD((again[3] & 31) == (bytes[3] & 31));
	memcpy(again + 2, bytes + 2, 2);
	memcpy(again + 30, bytes + 30, 2);
	HOLD(!memcmp(again, bytes, 32));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	static struct craft craft;
	struct checksum wide, narrow;
	struct packet packet;
	uint8_t *exact, mend = size ? bytes[0] : 0;

	craft.length = size > 1 ? (uint32_t)(size - 1) : 0;
	if (craft.length > 9100)
		return 0;
	if (craft.length)
		memcpy(craft.bytes, bytes + 1, craft.length);
	if (craft.length >= 32) {
		if (mend & MEND_MAGIC)
			memcpy(craft.bytes + 4, "ACRD", 4);
		if (mend & MEND_STEP)
			craft.bytes[3] = (uint8_t)((craft.bytes[3] & ~1) | (craft.bytes[1] % 2 == 0));
		if (mend & MEND_TSN) {
			memcpy(craft.bytes + 20, craft.bytes + (craft.bytes[3] & 1 ? 8 : 12), 4);
			craft.bytes[23] = (uint8_t)(craft.bytes[23] + (mend >> 4));
		}
		if (!(mend & MEND_NOTHING))
			craft_seal(&craft);
	}
	/* Of exactly its size, so that the sanitizer sees a read beyond it. */
	exact = malloc(craft.length ? craft.length : 1);
	memcpy(exact, craft.bytes, craft.length);
	wide = checksum_scan(exact, craft.length);
	narrow = checksum_scan_narrow(exact, craft.length);
	HOLD(wide.fingerprint == narrow.fingerprint && checksum_fold(wide.sum) == checksum_fold(narrow.sum));
	if (packet_parse(&packet, exact, craft.length) == ACCORD_REASON_OK) {
		HOLD(allowed(exact, craft.length));
		check_again(&packet, exact, craft.length);
	} else {
		HOLD(!allowed(exact, craft.length));
	}
	free(exact);
	return 0;
}
