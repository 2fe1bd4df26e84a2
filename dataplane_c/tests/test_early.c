// SPDX-License-Identifier: Apache-2.0
/* An answer that leaves before all of the proposal has come (PROTOCOL.md, section 7.2). */
#include "check.h"
#include "engine.h"
#include "world.h"

enum {
	ONE_WAY = 25000,
	SECOND = 1000000,
	FAVOURITE = 1 << 0 | 1 << 1 | 1 << 2,
	FAVOURITE_PACKETS = 3, /* the first of ten */
	PACKETS = 10,
};

/* The favourite in three packets, seven more of what ranks lower. */
static void begin(struct world *world)
{
	world_begin(world, NULL);
	world_node(world, 0, 0, ACCORD_PROTOCOL_UDP, 60);
	world_node(world, 0, 1, ACCORD_PROTOCOL_TCP, 44);
	world_node(world, 0, 2, ACCORD_PROTOCOL_TLS13, 3 * 1160 - 128);
	world_node(world, 0, 3, ACCORD_PROTOCOL_TLS13, 2320);
	world_node(world, 0, 4, ACCORD_PROTOCOL_HTTP, 1152);
	world_node(world, 0, 5, ACCORD_PROTOCOL_TLS13, 4 * 1160 - 40);
	world_node(world, 1, 0, ACCORD_PROTOCOL_UDP, 40);
	world_node(world, 1, 2, ACCORD_PROTOCOL_TLS13, 1722);
	world_node(world, 2, 0, ACCORD_PROTOCOL_UDP, 40);
	world_node(world, 2, 2, ACCORD_PROTOCOL_TLS13, 120);
	world->enough = FAVOURITE;
}

static void check_all_came_to_an_end(struct world *world)
{
	world_run(world, 5 * SECOND);
	for (uint32_t step = 0; step < world->steps; step++)
		CHECK_EQUAL(world->sides[step % 2].arrived[step], 1);
	for (int i = 0; i < 2; i++) {
		CHECK_EQUAL(world->sides[i].failed, 0);
		CHECK_EQUAL(world->sides[i].wrong, 0);
	}
	world_close(world, 0);
	for (int i = 0; i < 2; i++) {
		CHECK_EQUAL(world->sides[i].engine->slab.free_count, world->sides[i].engine->config.buffers);
		CHECK_EQUAL(world->sides[i].engine->slab.unproven_used, 0);
	}
}

static void each_packet_of_what_is_not_chosen_may_get_lost_and_costs_no_time(void)
{
	for (uint32_t lost = 0; lost <= PACKETS; lost++) {
		struct world world;
		bool needed = lost < FAVOURITE_PACKETS;

		begin(&world);
		if (lost < PACKETS)
			world.loss = UINT64_C(1) << lost;
		world_start(&world);
		world_run(&world, 3 * ONE_WAY + 1);
		CHECK_EQUAL(world.sides[INITIATOR].messages[1], !needed);
		CHECK_EQUAL(world.sides[RESPONDER].messages[2], !needed);
		check_all_came_to_an_end(&world);
		CHECK_EQUAL(world.sides[RESPONDER].messages[2], 1);
		CHECK_EQUAL(world.log[PACKETS - 1].from, INITIATOR);
		CHECK(world.log[PACKETS - 1].header[3] & ACCORD_FLAG_END);
		world_end(&world);
	}
}

static void what_comes_after_the_answer_is_acknowledged_and_never_stored(void)
{
	for (uint32_t lost = FAVOURITE_PACKETS; lost < PACKETS; lost++) {
		struct world world;
		uint32_t nodes, used;

		begin(&world);
		world.loss = UINT64_C(1) << lost;
		world_start(&world);
		world_run(&world, 3 * ONE_WAY + 1);
		nodes = world.sides[RESPONDER].nodes[0];
		CHECK(nodes < 6);
		used = world.sides[RESPONDER].engine->config.buffers - world.sides[RESPONDER].engine->slab.free_count;
		world_run(&world, 5 * SECOND);
		CHECK_EQUAL(world.sides[RESPONDER].nodes[0], nodes);
		CHECK_EQUAL(world.sides[RESPONDER].messages[0], 0);
		CHECK_EQUAL(world.sides[INITIATOR].arrived[0], 1);
		CHECK(world_counter(&world, RESPONDER, ACCORD_REASON_NOT_AWAITED) >= 1);
		CHECK(world.sides[RESPONDER].engine->config.buffers - world.sides[RESPONDER].engine->slab.free_count <= used);
		world_close(&world, 0);
		world_end(&world);
	}
}

static void any_two_packets_lost_either_way_still_come_to_an_end(void)
{
	for (uint32_t first = 0; first < 18; first++) {
		for (uint32_t second = 0; second < first; second++) {
			struct world world;

			begin(&world);
			world.loss = UINT64_C(1) << first | UINT64_C(1) << second;
			world_start(&world);
			check_all_came_to_an_end(&world);
			CHECK_EQUAL(world.sides[RESPONDER].messages[2], 1);
			world_end(&world);
		}
	}
}

/* The commit shows where it begins: its packets are all here, and nobody knows yet where the proposal ended. */
static void a_commit_is_whole_although_the_end_of_the_proposal_is_not_known(void)
{
	struct world world;

	begin(&world);
	world.loss = UINT64_C(1) << (PACKETS - 1);
	world_start(&world);
	world_run(&world, 3 * ONE_WAY + 1);
	CHECK_EQUAL(world.sides[RESPONDER].messages[2], 1);
	CHECK_EQUAL(world.sides[INITIATOR].arrived[0], 0);
	check_all_came_to_an_end(&world);
	world_end(&world);
}

static void a_late_packet_that_contradicts_the_proposal_ends_the_negotiation_all_the_same(void)
{
	struct world world;
	struct world_datagram *late = NULL;

	begin(&world);
	world.delay = UINT64_C(1) << (PACKETS - 1);
	world_start(&world);
	world_run(&world, ONE_WAY + 1);
	CHECK_EQUAL(world.sides[RESPONDER].nodes[0], 5);
	for (uint32_t i = 0; i < world.queued; i++)
		if (world.queue[i].to == RESPONDER)
			late = &world.queue[i];
	CHECK(late != NULL);
	if (late) {
		/* A first chunk of a node that has begun already; both bytes together leave the checksum as it was. */
		late->bytes[ACCORD_HEADER_BYTES + 1] |= ACCORD_CHUNK_FIRST;
		late->bytes[ACCORD_HEADER_BYTES + 9] -= ACCORD_CHUNK_FIRST;
	}
	world_run(&world, SECOND);
	CHECK_EQUAL(world.sides[RESPONDER].failed, 1);
	CHECK_EQUAL(world.sides[RESPONDER].reason, ACCORD_REASON_CONTRADICTION);
	world_close(&world, 0);
	world_end(&world);
}

int main(void)
{
	RUN(each_packet_of_what_is_not_chosen_may_get_lost_and_costs_no_time);
	RUN(what_comes_after_the_answer_is_acknowledged_and_never_stored);
	RUN(any_two_packets_lost_either_way_still_come_to_an_end);
	RUN(a_commit_is_whole_although_the_end_of_the_proposal_is_not_known);
	RUN(a_late_packet_that_contradicts_the_proposal_ends_the_negotiation_all_the_same);
	return check_report("test_early");
}
