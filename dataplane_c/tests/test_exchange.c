// SPDX-License-Identifier: Apache-2.0
/* Whole negotiations between two engines over a link that loses, doubles and reorders. */
#include <string.h>

#include "check.h"
#include "engine.h"
#include "world.h"

enum {
	SECOND = 1000000,
};

/* The common exchange with TLS in it: two packets, two packets, one packet. */
static void common_script(struct world *world)
{
	world_node(world, 0, 0, ACCORD_PROTOCOL_UDP, 12);
	world_node(world, 0, 1, ACCORD_PROTOCOL_TCP, 44);
	world_node(world, 0, 2, ACCORD_PROTOCOL_TLS13, 1540);
	world_node(world, 0, 3, ACCORD_PROTOCOL_HTTP, 20);
	world_node(world, 1, 0, ACCORD_PROTOCOL_UDP, 40);
	world_node(world, 1, 1, ACCORD_PROTOCOL_TCP, 44);
	world_node(world, 1, 2, ACCORD_PROTOCOL_TLS13, 1722);
	world_node(world, 1, 3, ACCORD_PROTOCOL_HTTP, 20);
	world_node(world, 2, 0, ACCORD_PROTOCOL_UDP, 40);
	world_node(world, 2, 2, ACCORD_PROTOCOL_TLS13, 120);
}

/* The one place where a test looks inside: is everything that was taken given back? */
static void check_nothing_leaked(struct world *world)
{
	world_close(world, 0);
	for (int i = 0; i < 2; i++) {
		struct accord_engine *engine = world->sides[i].engine;

		CHECK_EQUAL(accord_engine_transactions(engine), 0);
		CHECK_EQUAL(accord_engine_deadline(engine), UINT64_MAX);
		CHECK_EQUAL(engine->slab.free_count, engine->config.buffers);
		CHECK_EQUAL(engine->slab.common_used, 0);
		CHECK_EQUAL(engine->slab.unproven_used, 0);
		CHECK_EQUAL(engine->table.unproven, 0);
		CHECK_EQUAL(engine->events.count, 0);
	}
}

static void five_step_script(struct world *world, uint32_t steps)
{
	for (uint32_t step = 0; step < steps; step++) {
		world_node(world, step, 0, ACCORD_PROTOCOL_UDP, 12);
		world_node(world, step, 1, ACCORD_PROTOCOL_TCP, 44);
	}
	/* CONTINUES with node 1: the message is not the last one (HotNets 2009, section 2.3). */
	memcpy((uint8_t *)(uintptr_t)world->script[2].nodes[0].data, "\0\0\0\5\x80\7\0\1\1", 9);
}

static void a_message_that_is_no_commit_leaves_the_lifetime_running_and_a_commit_ends_it(void)
{
	struct world world;

	world_begin(&world, NULL);
	five_step_script(&world, 5);
	world_start(&world);
	world_run(&world, 20 * SECOND);
	CHECK(world_done(&world));
	CHECK_EQUAL(world.sides[INITIATOR].failed + world.sides[RESPONDER].failed, 0);
	check_nothing_leaked(&world);
	world_end(&world);

	/* The responder never answers step 2, the initiator never commits. */
	world_begin(&world, NULL);
	five_step_script(&world, 3);
	world_start(&world);
	world_run(&world, 9 * SECOND);
	CHECK_EQUAL(world.sides[INITIATOR].failed + world.sides[RESPONDER].failed, 0);
	world_run(&world, 2 * SECOND);
	CHECK_EQUAL(world.sides[INITIATOR].failed, 1);
	CHECK_EQUAL(world.sides[INITIATOR].reason, ACCORD_REASON_LIFETIME);
	CHECK_EQUAL(world.sides[RESPONDER].failed, 1);
	world_end(&world);
}

static void the_common_exchange_takes_six_packets_and_one_and_a_half_round_trips(void)
{
	struct world world;

	world_begin(&world, NULL);
	common_script(&world);
	world.sides[RESPONDER].proven_late = true;
	world_start(&world);
	world_run(&world, 4 * world.one_way - 1);
	CHECK(world_done(&world) == false);
	world_run(&world, 1);
	CHECK(world_done(&world));
	CHECK_EQUAL(world.sides[INITIATOR].packets, 3);
	CHECK_EQUAL(world.sides[RESPONDER].packets, 3);
	CHECK_EQUAL(world.sides[RESPONDER].messages[2], 1);
	world_run(&world, 20 * SECOND);
	CHECK(world_done(&world));
	CHECK_EQUAL(world.logged, 6);
	check_nothing_leaked(&world);
	world_end(&world);
}

static bool told_of_the_time_out(const struct world_side *side)
{
	return side->failed == 1 && (side->reason == ACCORD_REASON_TIMEOUT || side->reason == ACCORD_REASON_LIFETIME);
}

/* Either all arrived, or each end that had not all it needs was told; never silence. */
static void check_loss_mask(uint64_t loss, bool proven_late)
{
	struct world world;
	bool delivered;

	world_begin(&world, NULL);
	common_script(&world);
	world.sides[RESPONDER].proven_late = proven_late;
	world.loss = loss;
	world_start(&world);
	world_run(&world, 25 * SECOND);
	delivered = world_done(&world);
	if (!delivered && __builtin_popcountll(loss) < 7)
		fprintf(stderr, "loss mask %#llx:\n", (unsigned long long)loss);
	CHECK(delivered || __builtin_popcountll(loss) >= 7);
	if (!delivered) {
		CHECK(told_of_the_time_out(&world.sides[INITIATOR]));
		CHECK(!world.sides[RESPONDER].opened || !proven_late || told_of_the_time_out(&world.sides[RESPONDER]));
	}
	check_nothing_leaked(&world);
	world_end(&world);
}

static void every_loss_mask_ends_in_delivery_or_after_seven_losses_in_a_time_out(void)
{
	for (uint64_t loss = 0; loss < 1 << 11; loss++)
		check_loss_mask(loss, false);
}

static void the_same_holds_while_the_initiator_is_unproven(void)
{
	for (uint64_t loss = 0; loss < 1 << 11; loss++)
		check_loss_mask(loss, true);
}

static void an_answer_that_takes_the_whole_budget_survives_the_loss_of_any_two_packets(void)
{
	for (uint32_t one = 0; one < 12; one++) {
		for (uint32_t other = one; other < 12; other++) {
			struct world world;

			world_begin(&world, NULL);
			world_node(&world, 0, 0, ACCORD_PROTOCOL_UDP, 12);
			world_node(&world, 0, 1, ACCORD_PROTOCOL_TCP, 200);
			world.script[0].packets_min = 1;
			world_node(&world, 1, 0, ACCORD_PROTOCOL_UDP, 12);
			world_node(&world, 1, 1, ACCORD_PROTOCOL_TCP, 3400);
			world_node(&world, 2, 0, ACCORD_PROTOCOL_UDP, 12);
			world.sides[RESPONDER].proven_late = true;
			world.loss = UINT64_C(1) << one | UINT64_C(1) << other;
			world_start(&world);
			world_run(&world, 9 * SECOND);
			if (!world_done(&world))
				fprintf(stderr, "packets %u and %u lost:\n", one, other);
			CHECK(world_done(&world));
			check_nothing_leaked(&world);
			world_end(&world);
		}
	}
}

static void loss_doubling_and_reordering_together_end_in_delivery(void)
{
	uint64_t random = 2024;

	for (int round = 0; round < 400; round++) {
		struct world world;

		world_begin(&world, NULL);
		common_script(&world);
		world_node(&world, 1, 5, ACCORD_PROTOCOL_HTTP, 4 + test_below(&random, 12000));
		world_node(&world, 2, 6, ACCORD_PROTOCOL_HTTP, 4 + test_below(&random, 6000));
		world_node(&world, 3, 0, ACCORD_PROTOCOL_UDP, 4 + test_below(&random, 3000));
		world_node(&world, 4, 0, ACCORD_PROTOCOL_UDP, 4);
		world.loss = test_random(&random) & test_random(&random) & test_random(&random);
		world.duplicate = test_random(&random) & test_random(&random);
		world.delay = test_random(&random) & test_random(&random);
		world_start(&world);
		world_run(&world, 9 * SECOND);
		CHECK(world_done(&world));
		if (!world_done(&world))
			fprintf(stderr, "round %d\n", round);
		check_nothing_leaked(&world);
		world_end(&world);
	}
}

static void a_message_of_64_kib_arrives_and_more_is_refused(void)
{
	static uint8_t descriptor[65536 - 12 + 1];
	struct world world;
	struct accord_node_out nodes[2];

	world_begin(&world, NULL);
	common_script(&world);
	world_node(&world, 3, 0, ACCORD_PROTOCOL_UDP, 12);
	world_node(&world, 3, 9, ACCORD_PROTOCOL_HTTP, 65536 - 12);
	world_start(&world);
	world_run(&world, 9 * SECOND);
	CHECK(world_done(&world));
	nodes[0] = world.script[3].nodes[0];
	nodes[1] = (struct accord_node_out){
		.node = 9, .protocol = ACCORD_PROTOCOL_HTTP, .length = sizeof(descriptor), .data = descriptor};
	CHECK_EQUAL(
		accord_engine_send(world.sides[INITIATOR].engine, world.now, world.sides[INITIATOR].handle, 4, nodes, 2, 0),
		-ACCORD_REASON_MESSAGE_TOO_LONG);
	check_nothing_leaked(&world);
	world_end(&world);
}

static void sequence_numbers_wrap_around_between_any_two_packets(void)
{
	for (uint32_t before = 0; before < 8; before++) {
		for (uint64_t loss = 0; loss < 32; loss++) {
			struct world world;

			world_begin(&world, NULL);
			common_script(&world);
			memset(world.id, 0xff, 8);
			world.id[3] = world.id[7] = (uint8_t)-before;
			if (!before)
				memset(world.id, 0, 8);
			world.loss = loss;
			world_start(&world);
			world_run(&world, 9 * SECOND);
			CHECK(world_done(&world));
			check_nothing_leaked(&world);
			world_end(&world);
		}
	}
}

static void a_node_is_delivered_while_a_packet_of_an_earlier_one_is_missing(void)
{
	struct world world;

	world_begin(&world, NULL);
	world_node(&world, 0, 0, ACCORD_PROTOCOL_UDP, 12);
	world_node(&world, 0, 2, ACCORD_PROTOCOL_TLS13, 2000);
	world_node(&world, 0, 1, ACCORD_PROTOCOL_TCP, 44);
	world.loss = 1;
	world_start(&world);
	world_run(&world, world.one_way * 3 / 2);
	CHECK_EQUAL(world.sides[RESPONDER].nodes[0], 1);
	CHECK_EQUAL(world.sides[RESPONDER].messages[0], 0);
	world_run(&world, SECOND);
	CHECK(world_done(&world));
	world_end(&world);
}

static void a_protocol_without_support_is_acknowledged_and_skipped_once(void)
{
	struct world world;

	world_begin(&world, NULL);
	common_script(&world);
	world_node(&world, 0, 7, ACCORD_PROTOCOL_GREASE, 3000);
	world_start(&world);
	world_run(&world, SECOND);
	CHECK(world_done(&world));
	CHECK_EQUAL(world.sides[RESPONDER].skipped[0], 1);
	CHECK_EQUAL(world.sides[RESPONDER].nodes[0], 4);
	CHECK_EQUAL(world_counter(&world, RESPONDER, ACCORD_REASON_UNSUPPORTED), 4);
	world_end(&world);
}

static void padding_makes_full_packets_and_no_events(void)
{
	/* Every first-node length near the places where a packet just, or just not, fills up. */
	for (uint32_t length = 1140; length < 1175; length++) {
		struct world world;

		world_begin(&world, NULL);
		world_node(&world, 0, 0, ACCORD_PROTOCOL_UDP, length);
		world_node(&world, 0, 1, ACCORD_PROTOCOL_TCP, 5);
		world.script[0].packets_min = 3;
		world_start(&world);
		world_run(&world, SECOND / 10);
		CHECK(world_done(&world));
		CHECK_EQUAL(world.sides[INITIATOR].packets, 3);
		CHECK_EQUAL(world.sides[INITIATOR].bytes, 3 * ACCORD_MIN_MTU_PACKET);
		CHECK_EQUAL(world.sides[RESPONDER].skipped[0], 0);
		CHECK_EQUAL(world_counter(&world, RESPONDER, ACCORD_REASON_UNSUPPORTED), 0);
		world_end(&world);
	}
}

static void no_packet_is_longer_than_1200_bytes(void)
{
	struct world world;

	world_begin(&world, NULL);
	common_script(&world);
	world_node(&world, 2, 9, ACCORD_PROTOCOL_HTTP, 30000);
	world_start(&world);
	world_run(&world, 5 * SECOND);
	CHECK(world_done(&world));
	for (uint32_t i = 0; i < world.logged; i++)
		CHECK(world.log[i].length <= ACCORD_MIN_MTU_PACKET);
	world_end(&world);
}

static void at_most_ten_packets_leave_before_the_first_acknowledgement(void)
{
	struct world world;
	uint32_t early = 0;

	world_begin(&world, NULL);
	world_node(&world, 0, 0, ACCORD_PROTOCOL_UDP, 40000);
	world_start(&world);
	world_run(&world, 5 * SECOND);
	CHECK(world_done(&world));
	for (uint32_t i = 0; i < world.logged; i++)
		early += world.log[i].from == INITIATOR && world.log[i].at < 1000000 + 2 * world.one_way;
	CHECK_EQUAL(early, ACCORD_INITIAL_WINDOW);
	world_end(&world);
}

static void three_later_packets_cause_a_retransmission_with_their_acknowledgement(void)
{
	struct world world;
	uint32_t repeated = 0;

	world_begin(&world, NULL);
	world_node(&world, 0, 0, ACCORD_PROTOCOL_UDP, 9000);
	world.loss = 1 << 2;
	world_start(&world);
	world_run(&world, 4 * world.one_way);
	CHECK_EQUAL(world.sides[RESPONDER].messages[0], 1);
	/* One round trip after the first transmission; by its age alone it would count as lost an eighth later. */
	for (uint32_t i = 0; i < world.logged; i++)
		repeated += world.log[i].from == INITIATOR && world.log[i].at == 1000000 + 2 * world.one_way &&
		            world.log[i].header[23] == world.id[3] + 2;
	CHECK_EQUAL(repeated, 1);
	world_run(&world, SECOND);
	CHECK(world_done(&world));
	world_end(&world);
}

static void a_repeated_packet_gives_no_round_trip_sample(void)
{
	struct world world;
	struct accord_transaction_info info;

	world_begin(&world, NULL);
	world_node(&world, 0, 0, ACCORD_PROTOCOL_UDP, 100);
	world.loss = 1;
	world_start(&world);
	world_run(&world, SECOND + SECOND / 2);
	CHECK(world_done(&world));
	CHECK_EQUAL(accord_engine_info(world.sides[INITIATOR].engine, world.sides[INITIATOR].handle, &info), 0);
	CHECK_EQUAL(info.retransmitted, 1);
	CHECK_EQUAL(info.srtt_us, 0);
	world_end(&world);
}

static void a_lost_tail_is_repeated_by_the_probe_timer(void)
{
	struct world world;
	struct accord_transaction_info info;

	world_begin(&world, NULL);
	common_script(&world);
	world.loss = 1 << 4; /* the commit: round-trip time is known by then */
	world_start(&world);
	world_run(&world, 2 * world.one_way + 2 * 200000);
	CHECK(world_done(&world));
	CHECK_EQUAL(accord_engine_info(world.sides[INITIATOR].engine, world.sides[INITIATOR].handle, &info), 0);
	CHECK_EQUAL(info.retransmitted, 1);
	CHECK(info.srtt_us >= 50000 && info.srtt_us < 60000);
	world_end(&world);
}

static void both_roles_of_one_negotiation_may_live_in_one_engine(void)
{
	struct world world;
	struct accord_engine *other;

	world_begin(&world, NULL);
	common_script(&world);
	accord_engine_free(world.sides[RESPONDER].engine);
	world.sides[RESPONDER].engine = world.sides[INITIATOR].engine;
	/* One queue of events for both: told apart by the handle. */
	world.sides[INITIATOR].handle =
		(uint32_t)accord_engine_open(world.sides[INITIATOR].engine, world.now, world.id, &world.sides[INITIATOR].path);
	CHECK_EQUAL(accord_engine_send(world.sides[INITIATOR].engine, world.now, world.sides[INITIATOR].handle, 0,
	                               world.script[0].nodes, world.script[0].count, 0),
	            0);
	for (int round = 0; round < 20; round++) {
		struct accord_packet_out packets[8];
		struct accord_event events[32];
		uint32_t count = accord_engine_output(other = world.sides[0].engine, world.now, packets, 8);
		uint8_t copies[8][ACCORD_MIN_MTU_PACKET];
		uint32_t lengths[8];

		for (uint32_t i = 0; i < count; i++) {
			lengths[i] = packets[i].length;
			memcpy(copies[i], packets[i].data, lengths[i]);
		}
		world.now += 1000;
		for (uint32_t i = 0; i < count; i++) {
			bool from_initiator = copies[i][3] & ACCORD_FLAG_INITIATOR;

			accord_engine_input(other, world.now, &world.sides[from_initiator ? RESPONDER : INITIATOR].path, copies[i],
			                    lengths[i]);
		}
		count = accord_engine_events(other, events, 32);
		for (uint32_t i = 0; i < count; i++) {
			if (events[i].kind == ACCORD_EVENT_OPENED) {
				world.sides[RESPONDER].handle = events[i].handle;
				CHECK(events[i].handle != world.sides[INITIATOR].handle);
			}
			if (events[i].kind == ACCORD_EVENT_MESSAGE) {
				world.sides[events[i].step % 2 ? INITIATOR : RESPONDER].messages[events[i].step]++;
				if (events[i].step < 2)
					CHECK_EQUAL(accord_engine_send(other, world.now,
					                               world.sides[events[i].step % 2 ? INITIATOR : RESPONDER].handle,
					                               events[i].step + 1, world.script[events[i].step + 1].nodes,
					                               world.script[events[i].step + 1].count, 0),
					            0);
			}
			CHECK(events[i].kind != ACCORD_EVENT_FAILED);
		}
	}
	CHECK_EQUAL(world.sides[RESPONDER].messages[0], 1);
	CHECK_EQUAL(world.sides[INITIATOR].messages[1], 1);
	CHECK_EQUAL(world.sides[RESPONDER].messages[2], 1);
	CHECK_EQUAL(accord_engine_transactions(other), 2);
	world.sides[RESPONDER].engine = NULL;
	world_end(&world);
}

static void a_thousand_negotiations_in_sequence_leave_nothing_behind(void)
{
	struct world world;

	world_begin(&world, NULL);
	common_script(&world);
	for (uint32_t round = 0; round < 1000; round++) {
		for (int i = 0; i < 2; i++) {
			struct world_side *side = &world.sides[i];
			struct accord_engine *engine = side->engine;
			struct accord_path path = side->path;

			memset(side, 0, sizeof(*side));
			side->engine = engine;
			side->path = path;
		}
		memcpy(world.id, &round, sizeof(round));
		world.sent = world.logged = 0;
		world.loss = round % 256;
		world_start(&world);
		world_run(&world, round % 3 ? 9 * SECOND : world.one_way * (round % 7));
		CHECK(round % 3 == 0 || world_done(&world));
		world_close(&world, 0);
		CHECK_EQUAL(accord_engine_transactions(world.sides[INITIATOR].engine), 0);
		world_drain(&world);
	}
	/* If a buffer got lost each time, 512 would not have lasted. */
	CHECK_EQUAL(world_counter(&world, INITIATOR, ACCORD_REASON_NO_MEMORY), 0);
	CHECK_EQUAL(world_counter(&world, RESPONDER, ACCORD_REASON_NO_MEMORY), 0);
	world_end(&world);
}

static void an_engine_takes_the_bytes_that_it_announces_and_refuses_nonsense(void)
{
	struct accord_engine_config config = {0};
	uint64_t standard = accord_engine_bytes(&config);
	struct accord_engine *engine;

	CHECK(standard > 8 << 20 && standard < 32 << 20);
	config.buffer_bytes = 1199;
	CHECK_EQUAL(accord_engine_bytes(&config), 0);
	CHECK(!accord_engine_new(&config));
	config = (struct accord_engine_config){.transactions = 2, .unproven = 3};
	CHECK(!accord_engine_new(&config));
	config = (struct accord_engine_config){.events = 10};
	CHECK(!accord_engine_new(&config));
	/* Places in the buffers have 32 bits, in units of 8 bytes. */
	config = (struct accord_engine_config){.buffers = 1 << 20, .buffer_bytes = ACCORD_MAX_PACKET};
	CHECK(accord_engine_bytes(&config) > 8ull << 30 && accord_engine_bytes(&config) < 32ull << 30);
	config.buffers++;
	CHECK_EQUAL(accord_engine_bytes(&config), 0);
	CHECK(!accord_engine_new(&config));
	config = (struct accord_engine_config){.buffer_bytes = ACCORD_MAX_PACKET + 1};
	CHECK_EQUAL(accord_engine_bytes(&config), 0);
	CHECK(!accord_engine_new(&config));
	config = (struct accord_engine_config){.transactions = 1, .buffers = 4, .events = 128};
	engine = accord_engine_new(&config);
	CHECK(engine && accord_engine_bytes(&config) < standard);
	accord_engine_free(engine);
}

int main(void)
{
	RUN(a_message_that_is_no_commit_leaves_the_lifetime_running_and_a_commit_ends_it);
	RUN(the_common_exchange_takes_six_packets_and_one_and_a_half_round_trips);
	RUN(every_loss_mask_ends_in_delivery_or_after_seven_losses_in_a_time_out);
	RUN(the_same_holds_while_the_initiator_is_unproven);
	RUN(an_answer_that_takes_the_whole_budget_survives_the_loss_of_any_two_packets);
	RUN(loss_doubling_and_reordering_together_end_in_delivery);
	RUN(a_message_of_64_kib_arrives_and_more_is_refused);
	RUN(sequence_numbers_wrap_around_between_any_two_packets);
	RUN(a_node_is_delivered_while_a_packet_of_an_earlier_one_is_missing);
	RUN(a_protocol_without_support_is_acknowledged_and_skipped_once);
	RUN(padding_makes_full_packets_and_no_events);
	RUN(no_packet_is_longer_than_1200_bytes);
	RUN(at_most_ten_packets_leave_before_the_first_acknowledgement);
	RUN(three_later_packets_cause_a_retransmission_with_their_acknowledgement);
	RUN(a_repeated_packet_gives_no_round_trip_sample);
	RUN(a_lost_tail_is_repeated_by_the_probe_timer);
	RUN(both_roles_of_one_negotiation_may_live_in_one_engine);
	RUN(a_thousand_negotiations_in_sequence_leave_nothing_behind);
	RUN(an_engine_takes_the_bytes_that_it_announces_and_refuses_nonsense);
	return check_report("test_exchange");
}
