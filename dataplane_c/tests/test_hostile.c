// SPDX-License-Identifier: Apache-2.0
/* A responder, and once an initiator, that is sent what it should not be. Packets are made by hand. */
#include <string.h>

#include "check.h"
#include "craft.h"
#include "engine.h"
#include "world.h"

enum {
	F = ACCORD_CHUNK_FIRST,
	L = ACCORD_CHUNK_LAST,
	END = ACCORD_FLAG_END,
	SECOND = 1000000,
};

static const uint8_t ID[ACCORD_TRANSACTION_BYTES] = {0xff, 0xff, 0xff, 0xfe, 0x10, 0, 0, 1, 9, 9, 9, 9};
static const uint8_t CONTEXT[] = {1, 0, 0, 0, 1}; /* a descriptor with one child */
static const uint8_t LEAF[] = {0, 0, 0, 0, 'd', 'a', 't', 'a'};

struct bench {
	struct accord_engine *engine;
	struct accord_path path;
	uint64_t now;
	uint32_t handle;
	struct accord_event events[128];
	uint32_t count;
};

static void bench_begin_with(struct bench *bench, struct accord_engine_config config)
{
	static const uint32_t protocols[] = {ACCORD_PROTOCOL_TCP, ACCORD_PROTOCOL_TLS13};

	memset(bench, 0, sizeof(*bench));
	bench->engine = accord_engine_new(&config);
	bench->path = test_path(4, false);
	bench->now = 5 * SECOND;
	accord_engine_support(bench->engine, protocols, 2);
}

static void bench_begin(struct bench *bench)
{
	bench_begin_with(bench, (struct accord_engine_config){
								.transactions = 4, .unproven = 2, .buffers = 64, .buffer_bytes = 1200, .events = 128});
}

static void bench_end(struct bench *bench)
{
	struct accord_engine *engine = bench->engine;

	if (bench->handle)
		accord_engine_close(engine, bench->now, bench->handle, 0);
	CHECK_EQUAL(accord_engine_transactions(engine), 0);
	CHECK_EQUAL(engine->slab.free_count, engine->config.buffers);
	CHECK_EQUAL(engine->table.unproven, 0);
	accord_engine_free(engine);
}

static int give(struct bench *bench, struct craft *craft)
{
	craft_seal(craft);
	return accord_engine_input(bench->engine, bench->now, &bench->path, craft->bytes, craft->length);
}

static void take_events(struct bench *bench)
{
	bench->count = accord_engine_events(bench->engine, bench->events, 128);
	for (uint32_t i = 0; i < bench->count; i++)
		if (bench->events[i].kind == ACCORD_EVENT_OPENED)
			bench->handle = bench->events[i].handle;
}

static uint32_t count_events(const struct bench *bench, uint16_t kind)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < bench->count; i++)
		count += bench->events[i].kind == kind;
	return count;
}

static uint16_t failure(const struct bench *bench)
{
	for (uint32_t i = 0; i < bench->count; i++)
		if (bench->events[i].kind == ACCORD_EVENT_FAILED)
			return bench->events[i].reason;
	return 0;
}

/* Bytes of all packets that the engine now has to send. */
static uint64_t drain(struct bench *bench, uint32_t *packets)
{
	struct accord_packet_out out[16];
	uint64_t bytes = 0;
	uint32_t count;

	*packets = 0;
	while ((count = accord_engine_output(bench->engine, bench->now, out, 16)) > 0) {
		*packets += count;
		for (uint32_t i = 0; i < count; i++)
			bytes += out[i].length;
	}
	return bytes;
}

static uint64_t counted(const struct bench *bench, uint32_t reason)
{
	uint64_t counters[ACCORD_REASON_LIMIT];

	accord_engine_counters(bench->engine, counters);
	return counters[reason];
}

/* A proposal of one packet: context and one node. */
static void craft_proposal(struct craft *craft, const uint8_t *id)
{
	craft_header(craft, id, 0, END, 0);
	craft_chunk(craft, 0, F | L, ACCORD_PROTOCOL_UDP, CONTEXT, sizeof(CONTEXT));
	craft_chunk(craft, 1, F | L, ACCORD_PROTOCOL_TCP, LEAF, sizeof(LEAF));
}

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

/* ---- One packet, wrong by itself ---- */

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
SPOIL(step_8, craft->bytes[1] = 8)
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
	{"step 8", ACCORD_REASON_BAD_STEP, step_8, false},
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

/* ---- Two packets that contradict each other ---- */

/* One packet of step 0 or 2, with one chunk (protocol TCP if not said otherwise) and a context chunk or not. */
struct pair_packet {
	uint8_t step, offset, end, node, flags;
	uint32_t protocol;
	const char *data;
};

struct pair_case {
	const char *name;
	uint32_t reason; /* of the second packet */
	bool fails;      /* and of the transaction */
	struct pair_packet one, other;
};

static const struct pair_case pair_cases[] = {
	{"first and last half in order", 0, false, {0, 0, 0, 1, F, 6, "....1"}, {0, 1, 0, 1, L, 6, "2"}},
	{"last and first half", 0, false, {0, 1, 0, 1, L, 6, "2"}, {0, 0, 0, 1, F, 6, "....1"}},
	{"the same packet twice", ACCORD_REASON_DUPLICATE, false, {0, 0, 0, 1, F, 6, "x"}, {0, 0, 0, 1, F, 6, "x"}},
	{"one TSN with other data", ACCORD_REASON_CONTRADICTION, true, {0, 0, 0, 1, F, 6, "x"}, {0, 0, 0, 1, F, 6, "y"}},
	{"one TSN with other length", ACCORD_REASON_CONTRADICTION, true, {0, 0, 0, 1, F, 6, "x"}, {0, 0, 0, 1, F, 6, "xx"}},
	{"one TSN with and without END",
     ACCORD_REASON_CONTRADICTION,
     true,
     {0, 0, 0, 1, F, 6, "x"},
     {0, 0, 1, 1, F, 6, "x"}},
	{"one TSN in two steps", ACCORD_REASON_CONTRADICTION, true, {0, 0, 0, 1, F, 6, "x"}, {2, 0, 0, 1, F, 6, "x"}},
	{"END at two TSNs", ACCORD_REASON_CONTRADICTION, true, {0, 1, 1, 1, F, 6, "x"}, {0, 0, 1, 2, F, 6, "x"}},
	{"a TSN beyond END", ACCORD_REASON_CONTRADICTION, true, {0, 1, 1, 1, F, 6, "x"}, {0, 2, 0, 2, F, 6, "x"}},
	{"END below a TSN of the step",
     ACCORD_REASON_CONTRADICTION,
     true,
     {0, 2, 0, 1, F, 6, "x"},
     {0, 1, 1, 2, F, 6, "x"}},
	{"a later step below END", ACCORD_REASON_CONTRADICTION, true, {0, 5, 1, 1, F, 6, "x"}, {2, 3, 0, 2, F, 6, "x"}},
	{"a later step below an earlier one",
     ACCORD_REASON_CONTRADICTION,
     true,
     {0, 5, 0, 1, F, 6, "x"},
     {2, 4, 0, 1, F, 6, "x"}},
	{"an earlier step above a later one",
     ACCORD_REASON_CONTRADICTION,
     true,
     {2, 4, 0, 1, F, 6, "x"},
     {0, 5, 0, 1, F, 6, "x"}},
	{"step 4 after step 0", ACCORD_REASON_BAD_STEP, false, {0, 0, 0, 1, F, 6, "x"}, {4, 1, 0, 1, F, 6, "x"}},
	{"a node that changes its protocol",
     ACCORD_REASON_CONTRADICTION,
     true,
     {0, 0, 0, 1, F, 6, "x"},
     {0, 1, 0, 1, L, 772, "x"}},
	{"an unsupported node that changes its protocol",
     ACCORD_REASON_CONTRADICTION,
     true,
     {0, 0, 0, 1, F, 77, "x"},
     {0, 1, 0, 1, L, 6, "x"}},
	{"two first chunks", ACCORD_REASON_CONTRADICTION, true, {0, 0, 0, 1, F, 6, "x"}, {0, 1, 0, 1, F, 6, "x"}},
	{"two last chunks", ACCORD_REASON_CONTRADICTION, true, {0, 1, 0, 1, L, 6, "x"}, {0, 2, 0, 1, L, 6, "x"}},
	{"a node that begins twice, whole",
     ACCORD_REASON_CONTRADICTION,
     true,
     {0, 0, 0, 1, F, 6, "x"},
     {0, 1, 0, 1, F | L, 6, "x"}},
	{"a chunk before the first", ACCORD_REASON_BAD_CHUNK, true, {0, 1, 0, 1, F, 6, "x"}, {0, 0, 0, 1, 0, 6, "x"}},
	{"a chunk after the last", ACCORD_REASON_BAD_CHUNK, true, {0, 1, 0, 1, L, 6, "x"}, {0, 2, 0, 1, 0, 6, "x"}},
	{"a first chunk after a middle one",
     ACCORD_REASON_BAD_CHUNK,
     true,
     {0, 1, 0, 1, 0, 6, "x"},
     {0, 2, 0, 1, F, 6, "x"}},
	{"a last chunk before a middle one",
     ACCORD_REASON_BAD_CHUNK,
     true,
     {0, 2, 0, 1, 0, 6, "x"},
     {0, 1, 0, 1, L, 6, "x"}},
	{"a last chunk before the first", ACCORD_REASON_BAD_CHUNK, true, {0, 2, 0, 1, F, 6, "x"}, {0, 1, 0, 1, L, 6, "x"}},
	{"a message that ends within a node",
     ACCORD_REASON_BAD_CHUNK,
     true,
     {0, 0, 0, 1, F, 6, "x"},
     {0, 1, 1, 2, F | L, 6, "...."}},
	{"an unsupported node that never ends",
     ACCORD_REASON_BAD_CHUNK,
     true,
     {0, 0, 0, 1, F, 77, "x"},
     {0, 1, 1, 2, F | L, 77, "...."}},
};

static void craft_pair_packet(struct craft *craft, const struct pair_packet *packet)
{
	uint8_t data[16] = {0};
	uint32_t length = (uint32_t)strlen(packet->data);

	/* Dots are zero bytes: a descriptor's header. */
	for (uint32_t i = 0; i < length; i++)
		data[i] = packet->data[i] == '.' ? 0 : (uint8_t)packet->data[i];
	craft_header(craft, ID, packet->step, packet->end ? END : 0, packet->offset);
	craft_chunk(craft, packet->node, packet->flags, packet->protocol, data, length);
}

static void each_contradicting_pair_fails_its_transaction_for_its_reason(void)
{
	for (uint32_t i = 0; i < sizeof(pair_cases) / sizeof(pair_cases[0]); i++) {
		const struct pair_case *row = &pair_cases[i];
		struct bench bench;
		struct craft craft;
		uint32_t packets;
		int result;

		/* Step 2 cannot come first: let a packet of step 0 precede where the pair begins with it. */
		bench_begin(&bench);
		if (row->one.step) {
			craft_pair_packet(&craft, &(struct pair_packet){0, 0, 0, 9, F, 6, "z"});
			CHECK_EQUAL(give(&bench, &craft), 0);
		}
		craft_pair_packet(&craft, &row->one);
		CHECK_EQUAL(give(&bench, &craft), 0);
		take_events(&bench);
		drain(&bench, &packets);
		craft_pair_packet(&craft, &row->other);
		result = give(&bench, &craft);
		if (result != -(int)row->reason)
			fprintf(stderr, "%s:\n", row->name);
		CHECK_EQUAL(result, -(int)row->reason);
		take_events(&bench);
		CHECK_EQUAL(failure(&bench), row->fails ? row->reason : 0);
		if (row->fails) {
			CHECK_EQUAL(drain(&bench, &packets), 0);
			CHECK_EQUAL(bench.engine->slab.free_count, 64);
			CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_CLOSED);
			CHECK_EQUAL(accord_engine_deadline(bench.engine), UINT64_MAX);
		}
		bench_end(&bench);
	}
}

static void a_descriptor_that_is_not_well_formed_fails_its_transaction(void)
{
	static const uint8_t truncated[] = {9, 0, 0, 0, 1}, unsorted[] = {2, 0, 0, 0, 3, 2};

	for (int split = 0; split < 2; split++) {
		struct bench bench;
		struct craft craft;

		bench_begin(&bench);
		craft_header(&craft, ID, 0, split ? 0 : END, 0);
		craft_chunk(&craft, 1, split ? F : F | L, 6, split ? unsorted : truncated, 5);
		if (split) {
			CHECK_EQUAL(give(&bench, &craft), 0);
			craft_header(&craft, ID, 0, END, 1);
			craft_chunk(&craft, 1, L, 6, unsorted + 5, 1);
		}
		CHECK_EQUAL(give(&bench, &craft), split ? -ACCORD_REASON_NOT_CANONICAL : -ACCORD_REASON_BAD_DESCRIPTOR);
		take_events(&bench);
		CHECK_EQUAL(failure(&bench), split ? ACCORD_REASON_NOT_CANONICAL : ACCORD_REASON_BAD_DESCRIPTOR);
		CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_NODE), 0);
		bench_end(&bench);
	}
}

static void a_message_over_64_kib_fails_although_nothing_of_it_is_stored(void)
{
	static const uint8_t data[8000];
	struct bench bench;
	struct craft craft;
	int result = 0;

	bench_begin(&bench);
	for (uint8_t i = 0; i < 9; i++) {
		CHECK_EQUAL(result, 0);
		craft_header(&craft, ID, 0, 0, i);
		craft_chunk(&craft, 1, i ? 0 : F, 77, data, sizeof(data));
		result = give(&bench, &craft);
	}
	CHECK_EQUAL(result, -ACCORD_REASON_MESSAGE_TOO_LONG);
	CHECK_EQUAL(bench.engine->slab.free_count, 64);
	take_events(&bench);
	CHECK_EQUAL(failure(&bench), ACCORD_REASON_MESSAGE_TOO_LONG);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_SKIPPED), 1);
	bench_end(&bench);
}

static void any_order_of_arrival_gives_the_same_descriptors(void)
{
	/* Eight packets of a jumbo size that spans several buffers each, in 200 orders. */
	uint64_t random = 99;
	static uint8_t descriptor[8 * 5000];

	for (uint32_t i = 4; i < sizeof(descriptor); i++)
		descriptor[i] = (uint8_t)test_random(&random);
	for (int round = 0; round < 200; round++) {
		uint8_t order[8] = {0, 1, 2, 3, 4, 5, 6, 7};
		struct bench bench;
		struct craft craft;

		bench_begin(&bench);
		for (int i = 7; i > 0; i--) {
			uint8_t other = (uint8_t)test_below(&random, (uint32_t)i + 1), swap = order[i];

			order[i] = order[other];
			order[other] = swap;
		}
		for (int i = 0; i < 8; i++) {
			uint8_t at = order[i];

			craft_header(&craft, ID, 0, at == 7 ? END : 0, at);
			craft_chunk(&craft, 1, (uint8_t)((at == 0 ? F : 0) | (at == 7 ? L : 0)), 6, descriptor + at * 5000, 5000);
			CHECK_EQUAL(give(&bench, &craft), 0);
		}
		take_events(&bench);
		CHECK_EQUAL(bench.count, 3);
		CHECK_EQUAL(bench.events[1].kind, ACCORD_EVENT_NODE);
		CHECK_EQUAL(bench.events[1].length, sizeof(descriptor));
		CHECK_EQUAL(bench.events[1].order, 0);
		CHECK(memcmp(bench.events[1].data, descriptor, sizeof(descriptor)) == 0);
		bench_end(&bench);
	}
}

/* ---- Acknowledgements ---- */

static void an_acknowledgement_of_the_unsent_ends_the_negotiation_on_either_side(void)
{
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	struct bench bench;
	struct craft craft;
	uint32_t packets;

	bench_begin(&bench);
	bench.path = test_path(4, true);
	bench.handle = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);
	craft_header(&craft, ID, 1, 0, 0);
	craft_acknowledge(&craft, 0xfffffffe, 1);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_BAD_STEP);
	CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 0, &node, 1, 3), 0);
	craft_seal(&craft);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_BAD_STEP); /* queued, but not sent */
	drain(&bench, &packets);
	CHECK_EQUAL(packets, 3);
	craft_acknowledge(&craft, 0xfffffffe, 3);
	CHECK_EQUAL(give(&bench, &craft), 0);
	craft_acknowledge(&craft, 0xffffffff, 3);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_BAD_ACK);
	take_events(&bench);
	CHECK_EQUAL(bench.count, 2);
	CHECK_EQUAL(bench.events[0].kind, ACCORD_EVENT_ARRIVED);
	CHECK_EQUAL(failure(&bench), ACCORD_REASON_BAD_ACK);
	bench_end(&bench);
}

static void repetitions_and_gaps_are_acknowledged_at_once_and_single_packets_later(void)
{
	struct bench bench;
	struct craft craft;
	uint32_t packets;

	bench_begin(&bench);
	craft_header(&craft, ID, 0, 0, 0);
	craft_chunk(&craft, 1, F, 6, "abcdefghijklmnopqrstuvwxyz", 26);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(drain(&bench, &packets), 0);
	CHECK_EQUAL(accord_engine_deadline(bench.engine), bench.now + 25000);
	bench.now += 24999;
	CHECK_EQUAL(drain(&bench, &packets), 0);
	bench.now += 1;
	CHECK_EQUAL(drain(&bench, &packets), 32);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_DUPLICATE);
	CHECK_EQUAL(drain(&bench, &packets), 32);
	craft_header(&craft, ID, 0, 0, 2);
	craft_chunk(&craft, 1, 0, 6, "x", 1);
	CHECK_EQUAL(give(&bench, &craft), 0);
	CHECK_EQUAL(drain(&bench, &packets), 32);
	/* The gap closes, and then every second packet in order. */
	for (uint8_t i = 0; i < 5; i++) {
		static const uint8_t offsets[] = {1, 3, 4, 5, 6}, acknowledgements[] = {1, 0, 1, 0, 1};

		craft_header(&craft, ID, 0, 0, offsets[i]);
		craft_chunk(&craft, 1, 0, 6, "x", 1);
		CHECK_EQUAL(give(&bench, &craft), 0);
		drain(&bench, &packets);
		CHECK_EQUAL(packets, acknowledgements[i]);
	}
	bench_end(&bench);
}

static void arrivals_in_several_ranges_are_all_reported(void)
{
	struct bench bench;
	struct craft craft;
	struct accord_packet_out out[8];
	uint32_t count;

	/* 2, 4, 5, 0 in one batch: 0 is acknowledged first, then the others. */
	static const uint8_t offsets[] = {2, 4, 5, 0};

	bench_begin(&bench);
	for (int i = 0; i < 4; i++) {
		craft_header(&craft, ID, 0, 0, offsets[i]);
		craft_chunk(&craft, 1, offsets[i] ? 0 : F, 6, "abcdefghijklmnopqrstuvwxyz", 26);
		CHECK_EQUAL(give(&bench, &craft), 0);
	}
	take_events(&bench);
	count = accord_engine_output(bench.engine, bench.now, out, 8);
	CHECK_EQUAL(count, 3);
	CHECK_EQUAL(out[0].data[27], 0xfe);
	CHECK_EQUAL(out[0].data[29], 1);
	CHECK_EQUAL(out[1].data[27], 0x02); /* 0xfffffffe + 4 */
	CHECK_EQUAL(out[1].data[29], 2);
	CHECK_EQUAL(out[2].data[27], 0x00);
	CHECK_EQUAL(out[2].data[29], 1);
	bench_end(&bench);
}

static void the_answer_carries_the_acknowledgement_and_a_commit_is_acknowledged_at_once(void)
{
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	struct bench bench;
	struct craft craft;
	struct accord_packet_out out[8];
	uint32_t packets;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 1, &node, 1, 0), 0);
	CHECK_EQUAL(accord_engine_output(bench.engine, bench.now, out, 8), 1);
	CHECK_EQUAL(out[0].data[3], ACCORD_FLAG_ACK | ACCORD_FLAG_END);
	CHECK_EQUAL(out[0].data[29], 1);
	CHECK_EQUAL(out[0].data[27], 0xfe);
	bench.now += 100000;
	CHECK_EQUAL(drain(&bench, &packets), 0);
	craft_header(&craft, ID, 2, END, 1);
	craft_acknowledge(&craft, 0x10000001, 1);
	craft_chunk(&craft, 0, F | L, 17, CONTEXT, sizeof(CONTEXT));
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(bench.events[0].kind, ACCORD_EVENT_ARRIVED);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_MESSAGE), 1);
	CHECK_EQUAL(drain(&bench, &packets), 32);
	bench_end(&bench);
}

static void an_abort_is_acknowledged_at_once(void)
{
	static const uint8_t abort_descriptor[] = {0, 0, 0, 5, 0x80, 0x01, 0, 1, 131};
	struct bench bench;
	struct craft craft;
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	uint32_t packets;

	bench_begin(&bench);
	bench.path = test_path(4, true);
	bench.handle = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);
	accord_engine_send(bench.engine, bench.now, bench.handle, 0, &node, 1, 0);
	drain(&bench, &packets);
	craft_header(&craft, ID, 1, END, 0);
	craft_acknowledge(&craft, 0xfffffffe, 1);
	craft_chunk(&craft, 0, F | L, 17, abort_descriptor, sizeof(abort_descriptor));
	CHECK_EQUAL(give(&bench, &craft), 0);
	CHECK_EQUAL(drain(&bench, &packets), 32);
	bench_end(&bench);
}

/* ---- Quota, memory, amplification ---- */

static void over_the_quota_a_first_packet_is_met_with_silence_until_one_is_proven(void)
{
	struct bench bench;
	struct craft craft;
	uint8_t id[ACCORD_TRANSACTION_BYTES];
	uint32_t handles[4] = {0}, packets;

	bench_begin(&bench);
	memcpy(id, ID, sizeof(id));
	for (uint8_t i = 0; i < 4; i++) {
		id[11] = i;
		craft_proposal(&craft, id);
		CHECK_EQUAL(give(&bench, &craft), i < 2 ? 0 : -ACCORD_REASON_QUOTA);
		if (i < 2) {
			take_events(&bench);
			handles[i] = bench.handle;
		}
	}
	CHECK_EQUAL(drain(&bench, &packets), 0);
	CHECK_EQUAL(accord_engine_prove(bench.engine, handles[0]), 0);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	handles[2] = bench.handle;
	CHECK_EQUAL(accord_engine_prove(bench.engine, handles[1]), 0);
	id[11] = 7;
	craft_proposal(&craft, id);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	/* The table has four slots. */
	CHECK_EQUAL(accord_engine_prove(bench.engine, handles[2]), 0);
	id[11] = 8;
	craft_proposal(&craft, id);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_NO_MEMORY);
	for (int i = 0; i < 3; i++)
		CHECK_EQUAL(accord_engine_close(bench.engine, bench.now, handles[i], 0), 0);
	bench_end(&bench);
}

static void peers_that_send_first_chunks_only_cannot_keep_an_honest_one_out(void)
{
	struct bench bench;
	struct craft craft;
	uint8_t id[ACCORD_TRANSACTION_BYTES], data[1000] = {0};
	uint32_t handles[8];

	bench_begin_with(&bench,
	                 (struct accord_engine_config){
						 .transactions = 16, .unproven = 8, .buffers = 128, .buffer_bytes = 1200, .events = 1024});
	memcpy(id, ID, sizeof(id));
	for (uint8_t peer = 0; peer < 7; peer++) {
		int result = 0;

		id[11] = peer;
		for (uint32_t offset = 0; offset < 60 && !result; offset++) {
			craft_header(&craft, id, 0, 0, offset);
			craft_chunk(&craft, (uint8_t)(1 + offset), F, 6, data, sizeof(data));
			result = give(&bench, &craft);
		}
		take_events(&bench);
		handles[peer] = bench.handle;
	}
	CHECK(counted(&bench, ACCORD_REASON_NO_MEMORY) > 0);
	CHECK(bench.engine->slab.free_count >= 128 / 4 + bench.engine->slab.guarantee);
	id[11] = 99;
	craft_proposal(&craft, id);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_MESSAGE), 1);
	for (int i = 0; i < 7; i++)
		accord_engine_close(bench.engine, bench.now, handles[i], 0);
	bench_end(&bench);
}

static void events_that_nobody_takes_stop_input_and_are_not_lost(void)
{
	struct bench bench;
	struct craft craft;
	uint32_t accepted = 0, packets;
	int result;

	bench_begin(&bench);
	for (uint8_t offset = 0; offset < 200; offset++) {
		craft_header(&craft, ID, 0, 0, offset);
		craft_chunk(&craft, offset % 64, F | L, 77, "x", 1);
		if (offset == 64)
			break;
		result = give(&bench, &craft);
		accepted += result == 0;
	}
	/* 64 nodes make fewer events than the queue of 128 holds with its reserve; fill it by openings. */
	for (uint8_t i = 0; i < 4; i++) {
		uint8_t id[ACCORD_TRANSACTION_BYTES];

		memcpy(id, ID, sizeof(id));
		id[10] = i + 1;
		craft_header(&craft, id, 0, 0, 0);
		for (uint8_t node = 0; node < 50; node++)
			craft_chunk(&craft, node, F | L, 77, "x", 1);
		result = give(&bench, &craft);
		if (i)
			CHECK(result == -ACCORD_REASON_NO_MEMORY || result == -ACCORD_REASON_QUOTA);
	}
	CHECK_EQUAL(accepted, 64);
	take_events(&bench);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_SKIPPED) >= 64, 1);
	drain(&bench, &packets);
	while (bench.count) {
		for (uint32_t i = 0; i < bench.count; i++)
			if (bench.events[i].kind == ACCORD_EVENT_OPENED && bench.events[i].handle != bench.handle)
				accord_engine_close(bench.engine, bench.now, bench.events[i].handle, 0);
		take_events(&bench);
	}
	bench_end(&bench);
}

static void an_unproven_peer_is_never_sent_more_than_three_times_its_bytes(void)
{
	for (uint8_t family = 4; family <= 6; family += 2) {
		for (uint32_t pad = 0; pad < 1160; pad += 29) {
			uint32_t overhead = family == 4 ? 28 : 48;
			static const uint8_t answer[20000];
			struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(answer), .data = answer};
			uint64_t in = 0, out = 0;
			struct bench bench;
			struct craft craft;
			uint32_t packets;

			bench_begin(&bench);
			bench.path = test_path(family, false);
			craft_proposal(&craft, ID);
			if (pad)
				craft_chunk(&craft, 255, 3, 0, answer, pad);
			CHECK_EQUAL(give(&bench, &craft), 0);
			in += craft.length + overhead;
			take_events(&bench);
			CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 1, &node, 1, 0), 0);
			for (int round = 0; round < 30; round++) {
				out += drain(&bench, &packets);
				out += packets * overhead;
				CHECK(out <= 3 * in);
				if (round % 4 == 3) {
					CHECK(give(&bench, &craft) == -ACCORD_REASON_DUPLICATE);
					in += craft.length + overhead;
				}
				bench.now += 150000;
			}
			CHECK(out > 2 * in || in > 20000 / 3);
			/* Proven, the rest goes out. */
			CHECK_EQUAL(accord_engine_prove(bench.engine, bench.handle), 0);
			bench.now += 2 * SECOND;
			CHECK(drain(&bench, &packets) > 1200);
			bench_end(&bench);
		}
	}
}

static void a_message_within_the_budget_leaves_at_once_whatever_its_nodes(void)
{
	uint64_t random = 4242;

	for (int round = 0; round < 300; round++) {
		static const uint8_t zeros[65536];
		struct accord_node_out nodes[8];
		struct bench bench;
		struct craft craft;
		uint32_t count = 1 + test_below(&random, 8), packets;
		int64_t budget, left;
		uint64_t bytes;

		bench_begin(&bench);
		craft_header(&craft, ID, 0, END, 0);
		for (uint8_t i = 0; i < count; i++)
			craft_chunk(&craft, i, 3, i ? 6 : 17, zeros, 4 + test_below(&random, 100));
		if (round % 3)
			craft_chunk(&craft, 255, 3, 0, zeros, test_below(&random, 300));
		if (round % 2)
			craft_chunk(&craft, 63, 3, 99, zeros, 1 + test_below(&random, 2000));
		CHECK_EQUAL(give(&bench, &craft), 0);
		take_events(&bench);
		budget = left = accord_engine_budget(bench.engine, bench.handle);
		CHECK(budget >= 0);
		if (budget < 4 * count) {
			bench_end(&bench);
			continue;
		}
		for (uint32_t i = 0; i < count; i++) {
			int64_t spare = left - 4 * (int64_t)(count - i);
			uint32_t length = i + 1 == count ? (uint32_t)left : 4 + test_below(&random, (uint32_t)spare + 1);

			nodes[i] =
				(struct accord_node_out){.node = (uint8_t)i, .protocol = i ? 6 : 17, .length = length, .data = zeros};
			left -= length;
		}
		CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 1, nodes, count, 0), 0);
		bytes = drain(&bench, &packets);
		CHECK(bytes >= (uint64_t)budget);
		CHECK_EQUAL(bench.engine->table.slots[0].outbox.sent, bench.engine->table.slots[0].outbox.total);
		bench_end(&bench);
	}
}

/* ---- Who may speak ---- */

static void packets_from_another_address_or_port_do_not_belong_to_the_transaction(void)
{
	struct bench bench;
	struct craft craft;
	struct accord_path path;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	path = bench.path;
	bench.path.remote_port++;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.path = path;
	bench.path.remote[3]++;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.path = test_path(6, false);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.path = path;
	bench.path.context = ACCORD_PROTOCOL_DIRECT;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.path = path;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_DUPLICATE);
	bench_end(&bench);
}

static void the_way_back_is_learnt_from_valid_packets_only(void)
{
	struct bench bench;
	struct craft craft;
	struct accord_transaction_info info;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	bench.path.link_length = 0;
	bench.path.socket = 3;
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	bench.path.link_length = 14;
	bench.path.link[0] = 0xee;
	bench.path.queue = 5;
	bench.path.socket = ACCORD_PATH_NO_SOCKET;
	craft.bytes[33] ^= 1;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_CONTRADICTION);
	accord_engine_info(bench.engine, bench.handle, &info);
	CHECK_EQUAL(info.path.link_length, 0);
	accord_engine_close(bench.engine, bench.now, bench.handle, 0);
	bench.handle = 0;
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	bench.path.socket = 3;
	bench.path.link_length = 0;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_DUPLICATE);
	take_events(&bench);
	accord_engine_info(bench.engine, bench.handle, &info);
	CHECK_EQUAL(info.path.link_length, 14);
	CHECK_EQUAL(info.path.link[0], 0xee);
	CHECK_EQUAL(info.path.queue, 5);
	CHECK_EQUAL(info.path.socket, 3);
	bench_end(&bench);
}

/* ---- The end ---- */

static void a_closed_transaction_lingers_to_acknowledge_and_then_is_gone(void)
{
	struct bench bench;
	struct craft craft;
	uint32_t packets, handle;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	handle = bench.handle;
	drain(&bench, &packets);
	CHECK_EQUAL(accord_engine_close(bench.engine, bench.now, handle, 3 * SECOND), 0);
	CHECK_EQUAL(accord_engine_close(bench.engine, bench.now, handle, 0), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.now += SECOND;
	CHECK(drain(&bench, &packets) <= 32);
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_DUPLICATE);
	CHECK_EQUAL(drain(&bench, &packets), 32);
	take_events(&bench);
	CHECK_EQUAL(bench.count, 0);
	CHECK_EQUAL(accord_engine_transactions(bench.engine), 1);
	CHECK_EQUAL(accord_engine_deadline(bench.engine), bench.now + 2 * SECOND);
	bench.now += 2 * SECOND;
	drain(&bench, &packets);
	CHECK_EQUAL(accord_engine_transactions(bench.engine), 0);
	CHECK_EQUAL(accord_engine_prove(bench.engine, handle), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.handle = 0;
	bench_end(&bench);
}

static void what_was_sent_before_closing_still_goes_out_and_is_repeated(void)
{
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	struct bench bench;
	struct craft craft;
	uint32_t packets;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 1, &node, 1, 0), 0);
	CHECK_EQUAL(accord_engine_close(bench.engine, bench.now, bench.handle, 5 * SECOND), 0);
	bench.handle = 0;
	CHECK_EQUAL(drain(&bench, &packets), 32 + 8 + sizeof(CONTEXT));
	bench.now += 1100000;
	CHECK_EQUAL(drain(&bench, &packets), 32 + 8 + sizeof(CONTEXT));
	craft_header(&craft, ID, 0, 0, 1);
	craft_acknowledge(&craft, 0x10000001, 1);
	CHECK_EQUAL(give(&bench, &craft), 0);
	bench.now += 2 * SECOND;
	CHECK_EQUAL(drain(&bench, &packets), 0);
	bench.now += 2 * SECOND;
	drain(&bench, &packets);
	bench_end(&bench);
}

static void a_failed_transaction_lingers_in_silence(void)
{
	struct bench bench;
	struct craft craft;
	uint32_t packets;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	CHECK_EQUAL(give(&bench, &craft), 0);
	craft.bytes[32 + 8] ^= 1;
	CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_CONTRADICTION);
	take_events(&bench);
	CHECK_EQUAL(accord_engine_close(bench.engine, bench.now, bench.handle, SECOND), 0);
	bench.handle = 0;
	for (int i = 0; i < 10; i++) {
		CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_CLOSED);
		CHECK_EQUAL(drain(&bench, &packets), 0);
	}
	bench.now += SECOND;
	drain(&bench, &packets);
	bench_end(&bench);
}

static void a_slow_proposal_ends_with_its_lifetime_and_an_unanswered_one_in_a_time_out(void)
{
	struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	struct bench bench;
	struct craft craft;
	uint32_t packets;

	bench_begin(&bench);
	craft_proposal(&craft, ID);
	craft.bytes[3] &= (uint8_t)~END;
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	for (int second = 0; second < 9; second++) {
		bench.now += SECOND;
		drain(&bench, &packets);
		give(&bench, &craft);
		take_events(&bench);
		CHECK_EQUAL(failure(&bench), 0);
	}
	bench.now += SECOND;
	drain(&bench, &packets);
	take_events(&bench);
	CHECK_EQUAL(failure(&bench), ACCORD_REASON_LIFETIME);
	bench_end(&bench);

	bench_begin(&bench);
	bench.path = test_path(6, true);
	bench.handle = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);
	CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 0, &node, 1, 0), 0);
	for (int tenth = 0; tenth < 99; tenth++) {
		drain(&bench, &packets);
		bench.now += SECOND / 10;
	}
	drain(&bench, &packets);
	take_events(&bench);
	CHECK_EQUAL(failure(&bench), 0);
	bench.now += SECOND / 10;
	CHECK_EQUAL(drain(&bench, &packets), 0);
	take_events(&bench);
	CHECK_EQUAL(failure(&bench), ACCORD_REASON_TIMEOUT);
	CHECK_EQUAL(counted(&bench, ACCORD_REASON_TIMEOUT), 1);
	bench_end(&bench);
}

static void a_handle_of_a_closed_transaction_is_refused_for_long_after(void)
{
	struct bench bench;
	uint32_t old;

	bench_begin(&bench);
	bench.path = test_path(4, true);
	old = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);
	CHECK(old != 0);
	CHECK_EQUAL(accord_engine_open(bench.engine, bench.now, ID, &bench.path), -ACCORD_REASON_CONTRADICTION);
	CHECK_EQUAL(accord_engine_close(bench.engine, bench.now, old, 0), 0);
	for (int i = 0; i < 10000; i++) {
		bench.handle = (uint32_t)accord_engine_open(bench.engine, bench.now, ID, &bench.path);
		CHECK(bench.handle != old);
		CHECK(bench.handle != 0);
		CHECK_EQUAL(accord_engine_prove(bench.engine, old), -ACCORD_REASON_UNKNOWN_TRANSACTION);
		accord_engine_close(bench.engine, bench.now, bench.handle, 0);
	}
	CHECK_EQUAL(accord_engine_prove(bench.engine, 0), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	CHECK_EQUAL(accord_engine_prove(bench.engine, UINT32_MAX), -ACCORD_REASON_UNKNOWN_TRANSACTION);
	bench.handle = 0;
	bench_end(&bench);
}

static void a_message_of_ours_that_makes_no_sense_is_refused(void)
{
	static const uint8_t bad[] = {5, 0, 0, 0};
	struct accord_node_out nodes[2] = {
		{.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT},
		{.node = 1, .protocol = 6, .length = sizeof(LEAF), .data = LEAF},
	};
	struct accord_engine *engine;
	struct bench bench;

	bench_begin(&bench);
	engine = bench.engine;
	bench.path = test_path(4, true);
	bench.handle = (uint32_t)accord_engine_open(engine, bench.now, ID, &bench.path);
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 1, nodes, 2, 0), -ACCORD_REASON_BAD_STEP);
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 2, nodes, 2, 0), -ACCORD_REASON_BAD_STEP);
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 0, nodes, 0, 0), -ACCORD_REASON_TOO_MANY_NODES);
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 0, nodes, 2, 257), -ACCORD_REASON_NO_MEMORY);
	CHECK_EQUAL(engine->slab.free_count, engine->config.buffers);
	nodes[1].node = 0;
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 0, nodes, 2, 0), -ACCORD_REASON_DUPLICATE_NODE);
	nodes[1].node = 64;
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 0, nodes, 2, 0), -ACCORD_REASON_BAD_CHUNK);
	nodes[1] = (struct accord_node_out){.node = 1, .protocol = 6, .length = sizeof(bad), .data = bad};
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 0, nodes, 2, 0), -ACCORD_REASON_BAD_DESCRIPTOR);
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 0, nodes, 1, 0), 0);
	CHECK_EQUAL(accord_engine_send(engine, bench.now, bench.handle, 0, nodes, 1, 0), -ACCORD_REASON_BAD_STEP);
	bench_end(&bench);
}

int main(void)
{
	RUN(a_proposal_made_by_hand_is_understood);
	RUN(each_spoilt_first_packet_gets_its_reason_and_silence);
	RUN(every_truncation_of_a_proposal_is_dropped_in_silence);
	RUN(each_contradicting_pair_fails_its_transaction_for_its_reason);
	RUN(a_descriptor_that_is_not_well_formed_fails_its_transaction);
	RUN(a_message_over_64_kib_fails_although_nothing_of_it_is_stored);
	RUN(any_order_of_arrival_gives_the_same_descriptors);
	RUN(an_acknowledgement_of_the_unsent_ends_the_negotiation_on_either_side);
	RUN(repetitions_and_gaps_are_acknowledged_at_once_and_single_packets_later);
	RUN(arrivals_in_several_ranges_are_all_reported);
	RUN(the_answer_carries_the_acknowledgement_and_a_commit_is_acknowledged_at_once);
	RUN(an_abort_is_acknowledged_at_once);
	RUN(over_the_quota_a_first_packet_is_met_with_silence_until_one_is_proven);
	RUN(peers_that_send_first_chunks_only_cannot_keep_an_honest_one_out);
	RUN(events_that_nobody_takes_stop_input_and_are_not_lost);
	RUN(an_unproven_peer_is_never_sent_more_than_three_times_its_bytes);
	RUN(a_message_within_the_budget_leaves_at_once_whatever_its_nodes);
	RUN(packets_from_another_address_or_port_do_not_belong_to_the_transaction);
	RUN(the_way_back_is_learnt_from_valid_packets_only);
	RUN(a_closed_transaction_lingers_to_acknowledge_and_then_is_gone);
	RUN(what_was_sent_before_closing_still_goes_out_and_is_repeated);
	RUN(a_failed_transaction_lingers_in_silence);
	RUN(a_slow_proposal_ends_with_its_lifetime_and_an_unanswered_one_in_a_time_out);
	RUN(a_handle_of_a_closed_transaction_is_refused_for_long_after);
	RUN(a_message_of_ours_that_makes_no_sense_is_refused);
	return check_report("test_hostile");
}
