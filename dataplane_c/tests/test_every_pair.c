// SPDX-License-Identifier: Apache-2.0
/* Small worlds, searched through: every pair of chunks, every TSN around a wrap, every acknowledgement around what was
 * sent. */
#include "bench.h"

/* First TSNs: nothing is special, both wraps are near, the sign of 32 bits changes. */
static const uint32_t firsts[] = {0x01020304, 0xfffffffe, 0xffffff80, 0, 0x7fffffff};

struct piece {
	uint8_t offset, node, flags;
	bool end;
	char data;
};

enum {
	PIECES = 3 * 2 * 4 * 2 * 2,
};

static struct piece piece_of(uint32_t number)
{
	return (struct piece){
		.offset = (uint8_t)(number % 3),
		.node = (uint8_t)(1 + number / 3 % 2),
		.flags = (uint8_t)(number / 6 % 4),
		.end = number / 24 % 2,
		.data = number / 48 ? 'b' : 'a',
	};
}

static void identify(uint8_t id[ACCORD_TRANSACTION_BYTES], uint32_t first)
{
	memcpy(id, ID, ACCORD_TRANSACTION_BYTES);
	for (int i = 0; i < 8; i++)
		id[i] = (uint8_t)(first >> (24 - 8 * (i % 4)));
}

static int give_piece(struct bench *bench, const uint8_t *id, const struct piece *piece)
{
	const char descriptor[] = {0, 0, 0, 0, piece->data};
	struct craft craft;

	craft_header(&craft, id, 0, piece->end ? END : 0, piece->offset);
	craft_chunk(&craft, piece->node, piece->flags, ACCORD_PROTOCOL_TCP, descriptor, sizeof(descriptor));
	return give(bench, &craft);
}

/* A message that ends at the packet with END, and has all before it, holds whole nodes (MUST-10). */
static bool whole(const struct piece *one, const struct piece *other)
{
	if (one->node != other->node)
		return one->flags == (F | L) && other->flags == (F | L);
	return (one->flags | other->flags) == (F | L);
}

/* By MUST-10, 11 and 14, of two packets, the first of which was taken: may the second be? */
static bool together(const struct piece *one, const struct piece *other)
{
	const struct piece *low = one->offset < other->offset ? one : other, *high = low == one ? other : one;

	if (one->offset == other->offset)
		return !memcmp(one, other, sizeof(*one));
	if (low->end)
		return false;
	if (one->node == other->node && (low->flags & L || high->flags & F))
		return false;
	return !(high->end && high->offset == 1) || whole(one, other);
}

static bool alone(const struct piece *piece)
{
	return !(piece->end && piece->offset == 0) || piece->flags == (F | L);
}

static void every_pair_of_chunks_is_taken_exactly_when_the_rules_let_both_be_of_one_message(void)
{
	for (uint32_t i = 0; i < PIECES * PIECES; i++) {
		const struct piece one = piece_of(i % PIECES), other = piece_of(i / PIECES);
		struct bench bench;
		uint8_t id[ACCORD_TRANSACTION_BYTES];
		int result;

		identify(id, firsts[i % (sizeof(firsts) / sizeof(*firsts))]);
		bench_begin(&bench);
		result = give_piece(&bench, id, &one);
		CHECK_EQUAL(result, alone(&one) ? 0 : -ACCORD_REASON_BAD_CHUNK);
		take_events(&bench);
		CHECK_EQUAL(failure(&bench), alone(&one) ? 0 : ACCORD_REASON_BAD_CHUNK);
		if (alone(&one)) {
			result = give_piece(&bench, id, &other);
			take_events(&bench);
			if (!together(&one, &other))
				CHECK(result == -ACCORD_REASON_CONTRADICTION || result == -ACCORD_REASON_BAD_CHUNK);
			else
				CHECK_EQUAL(result, one.offset == other.offset ? -ACCORD_REASON_DUPLICATE : 0);
			CHECK_EQUAL(failure(&bench), together(&one, &other) ? 0 : -result);
		}
		if (check_failures) {
			fprintf(stderr, "pair %u\n", i);
			return;
		}
		bench_end(&bench);
	}
}

static void a_tsn_is_taken_exactly_within_the_window_wherever_that_begins(void)
{
	for (uint32_t i = 0; i < sizeof(firsts) / sizeof(*firsts); i++) {
		for (int32_t ahead = -300; ahead < 600; ahead++) {
			const bool within = ahead >= 0 && ahead < ACCORD_MAX_PACKETS;
			uint8_t id[ACCORD_TRANSACTION_BYTES];
			struct bench bench;
			struct craft craft;

			identify(id, firsts[i]);
			bench_begin(&bench);
			craft_header(&craft, id, 0, 0, (uint32_t)ahead);
			craft_chunk(&craft, 1, 0, ACCORD_PROTOCOL_TCP, "x", 1);
			CHECK_EQUAL(give(&bench, &craft), within ? 0 : -ACCORD_REASON_BAD_TSN);
			CHECK_EQUAL(accord_engine_transactions(bench.engine), within);
			/* The same again of a transaction that there is, and half of all numbers away from it. */
			craft_header(&craft, id, 0, 0, 1);
			craft_chunk(&craft, 2, 0, ACCORD_PROTOCOL_TCP, "x", 1);
			if (ahead != 1)
				CHECK_EQUAL(give(&bench, &craft), 0);
			craft_header(&craft, id, 0, 0, (uint32_t)ahead ^ 0x80000000);
			craft_chunk(&craft, 1, 0, ACCORD_PROTOCOL_TCP, "x", 1);
			CHECK_EQUAL(give(&bench, &craft), -ACCORD_REASON_BAD_TSN);
			take_events(&bench);
			CHECK_EQUAL(failure(&bench), 0);
			bench_end(&bench);
		}
	}
}

/* The negotiation is dropped, and its congestion window has not moved (MUST-19). */
static void an_acknowledgement_is_believed_exactly_if_all_of_it_was_sent_wherever_tsns_begin(void)
{
	const struct accord_node_out node = {.node = 0, .protocol = 17, .length = sizeof(CONTEXT), .data = CONTEXT};
	const uint32_t places = sizeof(firsts) / sizeof(*firsts);

	for (uint32_t i = 0; i < places * 3 * 12 * 8; i++) {
		const uint32_t sent = 1 + i / places % 3, count = 1 + i / places / 36 % 8;
		const int32_t from = (int32_t)(i / places / 3 % 12) - 4;
		const bool true_one = from >= 0 && (uint32_t)from + count <= sent;
		uint8_t id[ACCORD_TRANSACTION_BYTES];
		struct bench bench;
		struct craft craft;
		uint32_t packets, window;

		identify(id, firsts[i % places]);
		bench_begin(&bench);
		bench.path = test_path(4, true);
		bench.handle = (uint32_t)accord_engine_open(bench.engine, bench.now, id, &bench.path);
		CHECK_EQUAL(accord_engine_send(bench.engine, bench.now, bench.handle, 0, &node, 1, sent), 0);
		drain(&bench, &packets);
		CHECK_EQUAL(packets, sent);
		window = bench.engine->table.slots[0].recovery.congestion.window;
		craft_header(&craft, id, 1, 0, 0);
		craft_acknowledge(&craft, firsts[i % places] + (uint32_t)from, (uint16_t)count);
		CHECK_EQUAL(give(&bench, &craft), true_one ? 0 : -ACCORD_REASON_BAD_ACK);
		take_events(&bench);
		CHECK_EQUAL(failure(&bench), true_one ? 0 : ACCORD_REASON_BAD_ACK);
		if (!true_one)
			CHECK_EQUAL(bench.engine->table.slots[0].recovery.congestion.window, window);
		bench_end(&bench);
	}
}

int main(void)
{
	RUN(every_pair_of_chunks_is_taken_exactly_when_the_rules_let_both_be_of_one_message);
	RUN(a_tsn_is_taken_exactly_within_the_window_wherever_that_begins);
	RUN(an_acknowledgement_is_believed_exactly_if_all_of_it_was_sent_wherever_tsns_begin);
	return check_report("test_every_pair");
}
