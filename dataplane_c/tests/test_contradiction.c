// SPDX-License-Identifier: Apache-2.0
/* Packets that do not go together, and those that do in any order. */
#include "bench.h"

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

/* An answer may leave before all of the proposal is in, so a commit may overtake the rest of the proposal. */
static void a_packet_that_closes_the_gap_completes_both_messages_in_order(void)
{
	struct bench bench;
	struct craft craft;

	bench_begin(&bench);
	craft_header(&craft, ID, 0, 0, 0);
	craft_chunk(&craft, 0, F | L, ACCORD_PROTOCOL_UDP, CONTEXT, sizeof(CONTEXT));
	CHECK_EQUAL(give(&bench, &craft), 0);
	craft_header(&craft, ID, 2, END, 2);
	craft_chunk(&craft, 0, F | L, ACCORD_PROTOCOL_UDP, CONTEXT, sizeof(CONTEXT));
	craft_chunk(&craft, 1, F | L, ACCORD_PROTOCOL_TCP, LEAF, sizeof(LEAF));
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_NODE), 3);
	CHECK_EQUAL(count_events(&bench, ACCORD_EVENT_MESSAGE), 0);
	/* Node 1 is that of the commit by now: what is late of the proposal's is acknowledged, not stored. */
	craft_header(&craft, ID, 0, END, 1);
	craft_chunk(&craft, 1, F | L, ACCORD_PROTOCOL_TCP, LEAF, sizeof(LEAF));
	CHECK_EQUAL(give(&bench, &craft), 0);
	take_events(&bench);
	CHECK_EQUAL(bench.count, 2);
	CHECK_EQUAL(bench.events[0].kind, ACCORD_EVENT_MESSAGE);
	CHECK_EQUAL(bench.events[0].step, 0);
	CHECK_EQUAL(bench.events[1].kind, ACCORD_EVENT_MESSAGE);
	CHECK_EQUAL(bench.events[1].step, 2);
	bench_end(&bench);
}

int main(void)
{
	RUN(each_contradicting_pair_fails_its_transaction_for_its_reason);
	RUN(a_descriptor_that_is_not_well_formed_fails_its_transaction);
	RUN(a_message_over_64_kib_fails_although_nothing_of_it_is_stored);
	RUN(any_order_of_arrival_gives_the_same_descriptors);
	RUN(a_packet_that_closes_the_gap_completes_both_messages_in_order);
	return check_report("test_contradiction");
}
