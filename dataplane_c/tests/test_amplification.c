// SPDX-License-Identifier: Apache-2.0
/*
 * Random and mutated first packets from unproven addresses, bytes both ways summed for each source, IP and UDP headers
 * included: never more than three times as many go out as came in while there are places, never more without one, none
 * for a packet that is wrong by itself.
 *
 *   test_amplification [PACKETS]    as many for each level; make amplification PACKETS=1000000
 */
#include <stdlib.h>

#include "bench.h"
#include "cookie.h"

enum {
	SOURCES = 256,
	HEADERS = 28, /* IPv4 and UDP */
	LONGEST = 1500,
	ANSWER = 4000,
	DEFAULT_PACKETS = 20000,
};

static uint32_t packets = DEFAULT_PACKETS;

static const struct accord_cookie_ring RING = {.keys = {{{1, 2}, 7, 1}}, .slot = 5};

struct source {
	uint64_t in, out;
};

struct campaign {
	struct bench bench;
	struct source sources[SOURCES];
	uint64_t random;
	uint64_t sound, challenges, answers; /* seen: the campaign reaches what it is about */
};

static void from(struct campaign *campaign, uint32_t source)
{
	campaign->bench.path = test_path(4, false);
	campaign->bench.path.remote[1] = 1;
	campaign->bench.path.remote[2] = (uint8_t)source;
}

/* A proposal, of one packet or the first of several, of any length. */
static void draw(struct campaign *campaign, struct craft *craft)
{
	static const uint8_t zeros[LONGEST];
	uint8_t id[ACCORD_TRANSACTION_BYTES];
	uint64_t *random = &campaign->random;

	for (int i = 0; i < ACCORD_TRANSACTION_BYTES; i++)
		id[i] = (uint8_t)test_random(random);
	craft_header(craft, id, 0, test_below(random, 4) ? END : 0, test_below(random, 8) ? 0 : test_below(random, 5));
	craft_chunk(craft, 0, F | L, ACCORD_PROTOCOL_UDP, zeros, 4 + test_below(random, 30));
	if (test_below(random, 4))
		craft_chunk(craft, 1, F | L, ACCORD_PROTOCOL_TCP, zeros, 1 + test_below(random, 1100));
}

static void mutate(struct campaign *campaign, struct craft *craft)
{
	uint64_t *random = &campaign->random;

	switch (test_below(random, 6)) {
	case 0: /* noise */
		craft->length = 1 + test_below(random, LONGEST);
		for (uint32_t i = 0; i < craft->length; i++)
			craft->bytes[i] = (uint8_t)test_random(random);
		return;
	case 1: /* cut */
		craft->length = 1 + test_below(random, craft->length);
		break;
	case 2: /* flags, cookies among them */
		craft->bytes[3] ^= (uint8_t)(1u << test_below(random, 8));
		break;
	case 3: /* bytes */
		for (uint32_t i = test_below(random, 4); i > 0; i--)
			craft->bytes[test_below(random, craft->length)] ^= (uint8_t)test_random(random);
		break;
	default:
		break;
	}
	if (craft->length >= ACCORD_HEADER_BYTES && test_below(random, 8))
		craft_seal(craft);
}

/* A responder with a long answer to whatever is whole. */
static void answer(struct campaign *campaign)
{
	static const uint8_t descriptor[ANSWER] = {0};
	const struct accord_node_out node = {
		.node = 1, .protocol = ACCORD_PROTOCOL_TCP, .length = ANSWER, .data = descriptor};
	struct bench *bench = &campaign->bench;

	take_events(bench);
	for (uint32_t i = 0; i < bench->count; i++) {
		const struct accord_event *event = &bench->events[i];

		if (event->kind == ACCORD_EVENT_MESSAGE)
			campaign->answers += !accord_engine_send(bench->engine, bench->now, event->handle, 1, &node, 1, 0);
		if (event->kind == ACCORD_EVENT_FAILED)
			accord_engine_close(bench->engine, bench->now, event->handle, 0);
	}
}

static uint64_t drain_to(struct campaign *campaign)
{
	struct bench *bench = &campaign->bench;
	struct accord_packet_out out[16];
	uint64_t bytes = 0;
	uint32_t count;

	while ((count = accord_engine_output(bench->engine, bench->now, out, 16)) > 0)
		for (uint32_t i = 0; i < count; i++) {
			campaign->sources[out[i].path->remote[2]].out += out[i].length + HEADERS;
			bytes += out[i].length;
		}
	return bytes;
}

static void run(struct campaign *campaign, uint32_t level, uint64_t factor)
{
	struct bench *bench = &campaign->bench;

	memset(campaign, 0, sizeof(*campaign));
	campaign->random = 88172645463325252 + level;
	bench_begin_with(
		bench, (struct accord_engine_config){
				   .transactions = 512, .unproven = 256, .buffers = 4096, .events = 4096, .unproven_per_network = 64});
	accord_engine_cookies(bench->engine, &RING);
	accord_engine_level(bench->engine, bench->now, level);
	for (uint32_t i = 0; i < packets; i++) {
		uint32_t source = test_below(&campaign->random, SOURCES);
		uint64_t sent = drain_to(campaign); /* what is due of those before */
		struct source *mine = &campaign->sources[source];
		struct packet packet;
		struct craft craft;
		uint32_t reason;

		from(campaign, source);
		draw(campaign, &craft);
		mutate(campaign, &craft);
		reason = packet_parse(&packet, craft.bytes, craft.length);
		mine->in += craft.length + HEADERS;
		accord_engine_input(bench->engine, bench->now, &bench->path, craft.bytes, craft.length);
		if (level == ACCORD_LEVEL_COOKIE)
			sent = drain_to(campaign);
		else
			answer(campaign);
		campaign->sound += !reason;
		campaign->challenges += level == ACCORD_LEVEL_COOKIE && sent;
		if (reason && level == ACCORD_LEVEL_COOKIE)
			CHECK_EQUAL(sent, 0); /* silence */
		CHECK(level != ACCORD_LEVEL_COOKIE || sent <= craft.length);
		CHECK(mine->out <= factor * mine->in);
		bench->now += test_below(&campaign->random, 200000);
	}
	drain_to(campaign);
	for (uint32_t source = 0; source < SOURCES; source++)
		CHECK(campaign->sources[source].out <= factor * campaign->sources[source].in);
	CHECK(campaign->sound > packets / 3 && campaign->sound < packets);
	accord_engine_free(bench->engine);
}

static void while_there_are_places_three_times_as_many_bytes_leave_at_most(void)
{
	static struct campaign campaign;

	run(&campaign, ACCORD_LEVEL_STATE, ACCORD_AMPLIFICATION);
	CHECK(campaign.answers > packets / 20);
}

static void without_a_place_no_more_bytes_leave_than_came(void)
{
	static struct campaign campaign;

	run(&campaign, ACCORD_LEVEL_COOKIE, 1);
	CHECK(campaign.challenges > packets / 5);
	CHECK_EQUAL(campaign.answers, 0);
}

int main(int count, char **arguments)
{
	if (count > 1)
		packets = (uint32_t)strtoul(arguments[1], NULL, 10);
	RUN(while_there_are_places_three_times_as_many_bytes_leave_at_most);
	RUN(without_a_place_no_more_bytes_leave_than_came);
	return check_report("test_amplification");
}
