// SPDX-License-Identifier: Apache-2.0
/* Packets that are wrong by themselves: dropped for a reason that is counted, and without an answer. */
#include "bench.h"

static void a_proposal_made_by_hand_is_understood(void)
{
	struct bench bench;
	struct craft craft;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	CHECK_EQUAL(accord_engine_deadline(bench.engine), 0);
	take_events(&bench);
	CHECK_EQUAL(bench.count, 4);
	CHECK_EQUAL(bench.events[0].kind, ACCORD_EVENT_OPENED);
	CHECK(memcmp(bench.events[0].transaction, ID, sizeof(ID)) == 0);
	CHECK_EQUAL(bench.events[0].path.remote_port, 40000);
	CHECK_EQUAL(bench.events[1].kind, ACCORD_EVENT_NODE);
	CHECK_EQUAL(bench.events[1].node, 0);
	CHECK_EQUAL(bench.events[2].kind, ACCORD_EVENT_NODE);
	CHECK_EQUAL(bench.events[2].protocol, ACCORD_PROTOCOL_TCP);
	CHECK(bench.events[2].length == sizeof(LEAF) && memcmp(bench.events[2].data, LEAF, sizeof(LEAF)) == 0);
	CHECK_EQUAL(bench.events[3].kind, ACCORD_EVENT_MESSAGE);
	bench_end(&bench);
}

struct packet_case {
	const char *name;
	uint32_t reason;
	void (*spoil)(struct craft *craft); /* of a sound proposal */
	bool unsealed;
};

#define SPOIL(name, ...) \
	static void name(struct craft *craft) \
	{ \
		__VA_ARGS__; \
	}

SPOIL(nothing, (void)craft)
SPOIL(to_nothing, craft->length = 0)
SPOIL(to_31_bytes, craft->length = 31)
SPOIL(to_header, craft->length = 32)
SPOIL(version_3, craft->bytes[0] = 3)
SPOIL(version_5, craft->bytes[0] = 5)
SPOIL(version_255, craft->bytes[0] = 255)
SPOIL(magic, craft->bytes[7] ^= 1)
SPOIL(stun_magic, memcpy(craft->bytes + 4, "\x21\x12\xa4\x42", 4))
SPOIL(one_bit, craft->bytes[40] ^= 4)
SPOIL(no_checksum, craft->bytes[30] = craft->bytes[31] = 0)
SPOIL(greased_flags, craft->bytes[2] = 0xa0)
SPOIL(greased_chunk_flags, craft->bytes[33] |= 0xf0)
SPOIL(odd_step, craft->bytes[1] = 1)
SPOIL(step_10, craft->bytes[1] = ACCORD_MAX_STEPS)
SPOIL(step_254, craft->bytes[1] = 254)
SPOIL(responder_flag, craft->bytes[3] &= 0xfe)
SPOIL(tsn_before_first, craft->bytes[23]--)
SPOIL(tsn_256_after, craft->bytes[22]++)
SPOIL(ack_tsn_without_flag, craft->bytes[27] = 1)
SPOIL(ack_count_without_flag, craft->bytes[29] = 1)
SPOIL(ack_flag_without_count, craft->bytes[3] |= 2)
SPOIL(ack_of_the_unsent, craft_acknowledge(craft, 0x10000001, 1))
SPOIL(later_step, craft->bytes[1] = 2)
SPOIL(half_a_chunk_header, craft_put(craft, 1, 7))
SPOIL(one_byte_more, craft_put(craft, 0, 1))
SPOIL(one_byte_less, craft->length--)
SPOIL(chunk_length_over, craft->bytes[34] = 0xff)
SPOIL(node_64, craft->bytes[32] = 64)
SPOIL(node_254, craft->bytes[32] = 254)
SPOIL(node_twice, craft->bytes[32 + 8 + 5] = 0)
SPOIL(padding_with_protocol, craft_chunk(craft, 255, F | L, 6, "xxxx", 4))
SPOIL(protocol_0_node_3, craft_chunk(craft, 3, F | L, 0, "xxxx", 4))
SPOIL(padding_twice, craft_chunk(craft, 255, F | L, 0, "", 0); craft_chunk(craft, 255, F | L, 0, "", 0))
SPOIL(padding_once, craft_chunk(craft, 255, F | L, 0, "", 0))
SPOIL(empty_chunk, craft_chunk(craft, 3, F | L, 6, "", 0))
SPOIL(to_9001_bytes, craft_put(craft, 255, 1); craft_put(craft, 3, 1); craft_put(craft, 9001 - craft->length - 6, 2);
      craft_put(craft, 0, 4); memset(craft->bytes + craft->length, 0, 9001); craft->length = 9001)

static const struct packet_case packet_cases[] = {
	{"nothing wrong", ACCORD_REASON_OK, nothing, false},
	{"unknown header flags", ACCORD_REASON_OK, greased_flags, false},
	{"unknown chunk flags", ACCORD_REASON_OK, greased_chunk_flags, false},
	{"empty padding", ACCORD_REASON_OK, padding_once, false},
	{"no bytes", ACCORD_REASON_SHORT_PACKET, to_nothing, true},
	{"31 bytes", ACCORD_REASON_SHORT_PACKET, to_31_bytes, false},
	{"9001 bytes", ACCORD_REASON_LONG_PACKET, to_9001_bytes, false},
	{"a header alone that acknowledges nothing", ACCORD_REASON_BAD_FLAGS, to_header, false},
	{"version 3", ACCORD_REASON_BAD_VERSION, version_3, false},
	{"version 5", ACCORD_REASON_BAD_VERSION, version_5, false},
	{"version 255", ACCORD_REASON_BAD_VERSION, version_255, false},
	{"another magic", ACCORD_REASON_BAD_MAGIC, magic, false},
	{"STUN's magic", ACCORD_REASON_BAD_MAGIC, stun_magic, false},
	{"one bit flipped", ACCORD_REASON_BAD_CHECKSUM, one_bit, true},
	{"checksum zero", ACCORD_REASON_BAD_CHECKSUM, no_checksum, true},
	{"an odd step from the initiator", ACCORD_REASON_BAD_STEP, odd_step, false},
	{"step 10", ACCORD_REASON_BAD_STEP, step_10, false},
	{"step 254", ACCORD_REASON_BAD_STEP, step_254, false},
	{"an even step from the responder", ACCORD_REASON_BAD_STEP, responder_flag, false},
	{"a TSN before the first", ACCORD_REASON_BAD_TSN, tsn_before_first, false},
	{"a TSN 256 after the first", ACCORD_REASON_BAD_TSN, tsn_256_after, false},
	{"an ack TSN without the ACK flag", ACCORD_REASON_BAD_FLAGS, ack_tsn_without_flag, false},
	{"an ack count without the ACK flag", ACCORD_REASON_BAD_FLAGS, ack_count_without_flag, false},
	{"the ACK flag without a count", ACCORD_REASON_BAD_FLAGS, ack_flag_without_count, false},
	{"an acknowledgement of what was never sent", ACCORD_REASON_BAD_ACK, ack_of_the_unsent, false},
	{"a commit of which nobody knows the proposal", ACCORD_REASON_UNKNOWN_TRANSACTION, later_step, false},
	{"seven bytes of a chunk header", ACCORD_REASON_BAD_CHUNK, half_a_chunk_header, false},
	{"one byte too many", ACCORD_REASON_BAD_CHUNK, one_byte_more, false},
	{"one byte too few", ACCORD_REASON_BAD_CHUNK, one_byte_less, false},
	{"a chunk longer than its packet", ACCORD_REASON_BAD_CHUNK, chunk_length_over, false},
	{"node 64", ACCORD_REASON_BAD_CHUNK, node_64, false},
	{"node 254", ACCORD_REASON_BAD_CHUNK, node_254, false},
	{"two chunks of one node", ACCORD_REASON_BAD_CHUNK, node_twice, false},
	{"padding of another protocol", ACCORD_REASON_BAD_CHUNK, padding_with_protocol, false},
	{"the padding protocol on a node", ACCORD_REASON_BAD_CHUNK, protocol_0_node_3, false},
	{"two padding chunks", ACCORD_REASON_BAD_CHUNK, padding_twice, false},
	{"a chunk without data", ACCORD_REASON_BAD_CHUNK, empty_chunk, false},
};

static void each_spoilt_first_packet_gets_its_reason_and_silence(void)
{
	for (uint32_t i = 0; i < sizeof(packet_cases) / sizeof(packet_cases[0]); i++) {
		const struct packet_case *row = &packet_cases[i];
		struct bench bench;
		struct craft craft;
		uint32_t packets;
		int result;

		bench_begin(&bench);
		craft_proposal(&craft, ID);
		craft_seal(&craft);
		row->spoil(&craft);
		if (!row->unsealed)
			craft_seal(&craft);
		result = accord_engine_input(bench.engine, bench.now, &bench.path, craft.bytes, craft.length);
		if (result != -(int)row->reason)
			fprintf(stderr, "a proposal with %s:\n", row->name);
		CHECK_EQUAL(result, -(int)row->reason);
		CHECK_EQUAL(counted(&bench, row->reason), 1);
		take_events(&bench);
		if (row->reason) {
			CHECK_EQUAL(bench.count, 0);
			CHECK_EQUAL(accord_engine_transactions(bench.engine), 0);
			CHECK_EQUAL(accord_engine_deadline(bench.engine), UINT64_MAX);
			CHECK_EQUAL(drain(&bench, &packets), 0);
		}
		bench_end(&bench);
	}
}

static void every_truncation_of_a_proposal_is_dropped_in_silence(void)
{
	struct craft craft;

	craft_proposal(&craft, ID);
	for (uint32_t length = 0; length < craft.length; length++) {
		struct bench bench;
		struct craft cut = craft;
		uint32_t packets;

		bench_begin(&bench);
		cut.length = length;
		if (length >= ACCORD_HEADER_BYTES)
			craft_seal(&cut);
		/* Between its two chunks the packet could be cut, and be another sound packet. */
		if (length == 32 + 8 + sizeof(CONTEXT)) {
			CHECK_EQUAL(accord_engine_input(bench.engine, bench.now, &bench.path, cut.bytes, length), 0);
			take_events(&bench);
		} else {
			CHECK(accord_engine_input(bench.engine, bench.now, &bench.path, cut.bytes, length) < 0);
			CHECK_EQUAL(drain(&bench, &packets), 0);
			CHECK_EQUAL(accord_engine_transactions(bench.engine), 0);
		}
		bench_end(&bench);
	}
}

int main(void)
{
	RUN(a_proposal_made_by_hand_is_understood);
	RUN(each_spoilt_first_packet_gets_its_reason_and_silence);
	RUN(every_truncation_of_a_proposal_is_dropped_in_silence);
	return check_report("test_malformed");
}
