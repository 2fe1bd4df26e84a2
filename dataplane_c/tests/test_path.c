// SPDX-License-Identifier: Apache-2.0
/* Packets that share a datagram as far as the path's MTU goes, and paths that are smaller than they look. */
#include <string.h>

#include "check.h"
#include "craft.h"
#include "engine.h"
#include "world.h"

enum {
	SECOND = 1000000,
	IPV4_UDP = 28,
	JUMBO = 9000,
};

static void world_of_mtu(struct world *world, uint16_t initiators, uint16_t responders)
{
	world_begin(world, NULL);
	world->batch = WORLD_BATCH;
	world->sides[INITIATOR].path.mtu = initiators;
	world->sides[RESPONDER].path.mtu = responders;
}

/* A message each way that goes far beyond the initial window, and a commit. */
static void long_script(struct world *world, uint32_t bytes)
{
	world_node(world, 0, 0, ACCORD_PROTOCOL_UDP, 12);
	world_node(world, 0, 2, ACCORD_PROTOCOL_TLS13, bytes);
	world_node(world, 1, 0, ACCORD_PROTOCOL_UDP, 40);
	world_node(world, 1, 2, ACCORD_PROTOCOL_TLS13, bytes);
	world_node(world, 2, 0, ACCORD_PROTOCOL_UDP, 40);
}

static uint32_t longest_of(const struct world *world, enum side from)
{
	uint32_t longest = 0;

	for (uint32_t i = 0; i < world->logged; i++)
		if (world->log[i].from == from && world->log[i].shared > longest)
			longest = world->log[i].shared;
	return longest;
}

static void end(struct world *world)
{
	world_close(world, 0);
	for (int side = 0; side < 2; side++)
		CHECK_EQUAL(world->sides[side].engine->slab.free_count, world->sides[side].engine->config.buffers);
	world_end(world);
}

/* For every MTU: the fewest packets that fill a datagram, and one more byte than they take. */
static void datagrams_are_as_long_as_whole_packets_in_the_mtu_allow(void)
{
	static const uint16_t mtus[] = {0,    576,  1280, 1427, 1428, 1492, 1500, 2427, 2428, 3627,
	                                3628, 4000, 4352, 6028, 8428, 8999, 9000, 9216, 65535};

	for (uint32_t i = 0; i < sizeof(mtus) / sizeof(*mtus); i++) {
		struct world world;
		uint32_t room = mtus[i] > IPV4_UDP ? mtus[i] - IPV4_UDP : 0;

		if (room > ACCORD_MAX_PACKET)
			room = ACCORD_MAX_PACKET;
		if (room < ACCORD_MIN_MTU_PACKET)
			room = ACCORD_MIN_MTU_PACKET;
		world_of_mtu(&world, mtus[i], mtus[i]);
		long_script(&world, 60000);
		world_start(&world);
		world_run(&world, 5 * SECOND);
		CHECK(world_done(&world));
		for (int side = 0; side < 2; side++) {
			CHECK(longest_of(&world, (enum side)side) <= room);
			CHECK(longest_of(&world, (enum side)side) > room - ACCORD_MIN_MTU_PACKET);
			CHECK_EQUAL(world_counter(&world, (enum side)side, ACCORD_REASON_MTU_BLACK_HOLE), 0);
			CHECK_EQUAL(world_counter(&world, (enum side)side, ACCORD_REASON_DUPLICATE), 0);
		}
		end(&world);
	}
}

static void the_initial_window_travels_in_packets_of_their_own(void)
{
	struct world world;

	world_of_mtu(&world, JUMBO, JUMBO);
	long_script(&world, 60000);
	world_start(&world);
	world_run(&world, 5 * SECOND);
	CHECK(world_done(&world));
	for (uint32_t i = 0; i < ACCORD_INITIAL_WINDOW; i++)
		CHECK_EQUAL(world.log[i].shared, world.log[i].length);
	CHECK(world.sides[INITIATOR].datagrams < world.sides[INITIATOR].packets);
	end(&world);
}

static void the_smaller_of_what_both_ends_of_a_path_say_counts(void)
{
	struct world world;

	world_of_mtu(&world, 4000, JUMBO);
	long_script(&world, 60000);
	world_start(&world);
	/* The route promised 4000; the acknowledgements come in by a link of 9000. */
	world.sides[INITIATOR].path.mtu = JUMBO;
	world_run(&world, 5 * SECOND);
	CHECK(world_done(&world));
	CHECK(longest_of(&world, INITIATOR) <= 4000 - IPV4_UDP);
	CHECK(longest_of(&world, RESPONDER) > 4000 - IPV4_UDP);
	end(&world);
}

static uint32_t count_long(const struct world *world, enum side from, uint32_t logged)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < logged; i++)
		count += world->log[i].from == from && world->log[i].shared > ACCORD_MIN_MTU_PACKET;
	return count;
}

static void on_a_path_that_loses_long_datagrams_two_are_lost_and_then_none_is_sent(void)
{
	for (uint32_t longest = ACCORD_MIN_MTU_PACKET; longest < 2 * ACCORD_MIN_MTU_PACKET; longest += 200) {
		struct world world;
		uint32_t until[2] = {0, 0};

		world_of_mtu(&world, JUMBO, JUMBO);
		long_script(&world, 60000);
		world.longest = longest;
		world_start(&world);
		for (int millisecond = 0; millisecond < 9000; millisecond++) {
			for (int side = 0; side < 2; side++)
				if (!until[side] && world_counter(&world, (enum side)side, ACCORD_REASON_MTU_BLACK_HOLE))
					until[side] = world.logged;
			world_run(&world, 1000);
		}
		CHECK(world_done(&world));
		for (int side = 0; side < 2; side++) {
			struct accord_transaction_info info;

			CHECK(until[side] > 0);
			CHECK(count_long(&world, (enum side)side, until[side]) >= 2 * 2);
			CHECK_EQUAL(count_long(&world, (enum side)side, until[side]),
			            count_long(&world, (enum side)side, world.logged));
			CHECK_EQUAL(world_counter(&world, (enum side)side, ACCORD_REASON_MTU_BLACK_HOLE), 1);
			CHECK_EQUAL(accord_engine_info(world.sides[side].engine, world.sides[side].handle, &info), 0);
			CHECK_EQUAL(info.datagram_bytes, ACCORD_MIN_MTU_PACKET);
		}
		end(&world);
	}
}

/* Every set of losses among twelve datagrams in a row, wherever they begin: the first flight, the first shared
 * datagrams, the acknowledgements that come back meanwhile, the ends. */
static void every_pattern_of_losses_ends_in_delivery(void)
{
	for (uint32_t shift = 0; shift < 33; shift += 3) {
		for (uint64_t pattern = 0; pattern < 1 << 12; pattern += shift ? 5 : 1) {
			struct world world;

			if (__builtin_popcountll(pattern) > 4)
				continue;
			world_of_mtu(&world, 4000, 4000);
			world_node(&world, 0, 0, ACCORD_PROTOCOL_UDP, 12);
			world_node(&world, 0, 2, ACCORD_PROTOCOL_TLS13, 22000);
			world_node(&world, 1, 0, ACCORD_PROTOCOL_UDP, 40);
			world.loss = pattern << shift;
			world_start(&world);
			world_run(&world, 9 * SECOND);
			if (!world_done(&world))
				fprintf(stderr, "losses %#llx\n", (unsigned long long)world.loss);
			CHECK(world_done(&world));
			end(&world);
		}
	}
}

/* The same where long datagrams never arrive. */
static void every_pattern_of_losses_on_a_smaller_path_ends_in_delivery(void)
{
	for (uint64_t pattern = 0; pattern < 1 << 10; pattern++) {
		struct world world;

		if (__builtin_popcountll(pattern) > 4)
			continue;
		world_of_mtu(&world, JUMBO, JUMBO);
		world_node(&world, 0, 0, ACCORD_PROTOCOL_UDP, 12);
		world_node(&world, 0, 2, ACCORD_PROTOCOL_TLS13, 30000);
		world_node(&world, 1, 0, ACCORD_PROTOCOL_UDP, 40);
		world.longest = 1400;
		world.loss = pattern << 8;
		world_start(&world);
		world_run(&world, 9 * SECOND);
		if (!world_done(&world))
			fprintf(stderr, "losses %#llx\n", (unsigned long long)world.loss);
		CHECK(world_done(&world));
		CHECK_EQUAL(world_counter(&world, INITIATOR, ACCORD_REASON_MTU_BLACK_HOLE), 1);
		end(&world);
	}
}

static void losses_by_chance_do_not_make_a_path_small_while_long_datagrams_arrive(void)
{
	uint32_t small = 0;

	for (uint32_t bit = 0; bit < 24; bit++) {
		struct world world;

		world_of_mtu(&world, 4000, 4000);
		long_script(&world, 60000);
		world.loss = UINT64_C(1) << bit;
		world_start(&world);
		world_run(&world, 9 * SECOND);
		CHECK(world_done(&world));
		small += world_counter(&world, INITIATOR, ACCORD_REASON_MTU_BLACK_HOLE) > 0;
		end(&world);
	}
	CHECK_EQUAL(small, 0);
}

/* ---- Receipt, of datagrams made by hand ---- */

static void craft_proposal(struct craft *craft, const uint8_t *id, uint32_t offset, uint16_t flags, uint32_t bytes,
                           uint32_t data_flags)
{
	uint8_t data[4096] = {0};

	craft_header(craft, id, 0, flags, offset);
	craft_chunk(craft, 0, (uint8_t)data_flags, ACCORD_PROTOCOL_UDP, data, bytes);
	craft_seal(craft);
}

static void a_shared_datagram_is_as_good_as_its_packets_one_by_one(void)
{
	struct craft one, other;
	struct world world;
	struct accord_event events[8];
	struct accord_transaction_info info;

	world_begin(&world, NULL);
	craft_proposal(&one, world.id, 0, 8, 1200 - 40, 1);
	craft_proposal(&other, world.id, 1, 4, 100, 2);
	memcpy(one.bytes + one.length, other.bytes, other.length);
	CHECK_EQUAL(one.length, 1200);
	CHECK_EQUAL(accord_engine_input(world.sides[RESPONDER].engine, world.now, &world.sides[RESPONDER].path, one.bytes,
	                                one.length + other.length),
	            0);
	CHECK_EQUAL(accord_engine_events(world.sides[RESPONDER].engine, events, 8), 3);
	CHECK_EQUAL(events[1].kind, ACCORD_EVENT_NODE);
	CHECK_EQUAL(events[1].length, 1260);
	CHECK_EQUAL(events[2].kind, ACCORD_EVENT_MESSAGE);
	CHECK_EQUAL(accord_engine_info(world.sides[RESPONDER].engine, events[0].handle, &info), 0);
	CHECK_EQUAL(info.packets_received, 2);
	CHECK_EQUAL(info.bytes_received, 1340);
	/* One IP and one UDP header came, so for the amplification limit one counts: three times 1368 bytes, less
	 * what each packet of an answer may need. */
	CHECK(accord_engine_budget(world.sides[RESPONDER].engine, events[0].handle) <= 3 * (1340 + IPV4_UDP));
	CHECK_EQUAL(world.sides[RESPONDER].engine->table.slots[0].wire_received, 1340 + IPV4_UDP);
	world_end(&world);
}

static void a_bad_packet_in_a_shared_datagram_leaves_the_others_good(void)
{
	struct craft one, other;
	struct world world;

	world_begin(&world, NULL);
	craft_proposal(&one, world.id, 0, 8, 1200 - 40, 1);
	craft_proposal(&other, world.id, 1, 4, 100, 2);
	other.bytes[50] ^= 1;
	memcpy(one.bytes + one.length, other.bytes, other.length);
	CHECK_EQUAL(accord_engine_input(world.sides[RESPONDER].engine, world.now, &world.sides[RESPONDER].path, one.bytes,
	                                one.length + other.length),
	            -ACCORD_REASON_BAD_CHECKSUM);
	CHECK_EQUAL(world_counter(&world, RESPONDER, ACCORD_REASON_OK), 1);
	CHECK_EQUAL(accord_engine_transactions(world.sides[RESPONDER].engine), 1);
	world_end(&world);
}

static void more_is_no_flag_of_a_packet_of_another_length(void)
{
	for (uint32_t bytes = 1100; bytes < 1160; bytes++) {
		struct craft craft;
		struct world world;

		world_begin(&world, NULL);
		craft_proposal(&craft, world.id, 0, 8 | 4, bytes, 3);
		CHECK_EQUAL(accord_engine_input(world.sides[RESPONDER].engine, world.now, &world.sides[RESPONDER].path,
		                                craft.bytes, craft.length),
		            -ACCORD_REASON_BAD_FLAGS);
		CHECK_EQUAL(accord_engine_transactions(world.sides[RESPONDER].engine), 0);
		world_end(&world);
	}
}

/* So much of the proposal leaves twice for a long answer that some of it does in one call. */
static void what_leaves_twice_in_one_flight_shares_datagrams_as_it_says(void)
{
	for (uint32_t bytes = 1000; bytes < 32000; bytes += 3100)
		for (uint32_t batch = 2; batch <= WORLD_BATCH; batch += 7) {
			struct world world;

			world_of_mtu(&world, JUMBO, JUMBO);
			world.batch = batch;
			world.sides[RESPONDER].proven_late = true;
			long_script(&world, bytes);
			world.expected = 60000;
			world_start(&world);
			world_run(&world, 5 * SECOND);
			CHECK(world_done(&world));
			end(&world);
		}
}

static void every_truncation_of_a_shared_datagram_is_survived(void)
{
	struct craft one, other;
	struct world world;

	world_begin(&world, NULL);
	craft_proposal(&one, world.id, 0, 8, 1200 - 40, 1);
	craft_proposal(&other, world.id, 1, 4, 100, 2);
	memcpy(one.bytes + one.length, other.bytes, other.length);
	for (uint32_t length = 0; length < one.length + other.length; length++) {
		uint8_t exact[1400];
		int result;

		memcpy(exact, one.bytes, length);
		result =
			accord_engine_input(world.sides[RESPONDER].engine, world.now, &world.sides[RESPONDER].path, exact, length);
		CHECK(result < 0 || length == 1200);
	}
	world_end(&world);
}

int main(void)
{
	RUN(datagrams_are_as_long_as_whole_packets_in_the_mtu_allow);
	RUN(the_initial_window_travels_in_packets_of_their_own);
	RUN(the_smaller_of_what_both_ends_of_a_path_say_counts);
	RUN(on_a_path_that_loses_long_datagrams_two_are_lost_and_then_none_is_sent);
	RUN(every_pattern_of_losses_ends_in_delivery);
	RUN(every_pattern_of_losses_on_a_smaller_path_ends_in_delivery);
	RUN(losses_by_chance_do_not_make_a_path_small_while_long_datagrams_arrive);
	RUN(a_shared_datagram_is_as_good_as_its_packets_one_by_one);
	RUN(a_bad_packet_in_a_shared_datagram_leaves_the_others_good);
	RUN(more_is_no_flag_of_a_packet_of_another_length);
	RUN(what_leaves_twice_in_one_flight_shares_datagrams_as_it_says);
	RUN(every_truncation_of_a_shared_datagram_is_survived);
	return check_report("test_path");
}
