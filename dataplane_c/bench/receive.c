// SPDX-License-Identifier: Apache-2.0
/*
 * How many packets a second come in, over each kind of kernel interface: into our engine, and into loops that drop
 * them. All of them are open all the time, each on an interface of its own, and one generator turns from one to the
 * next after some milliseconds, so that what is compared saw the machine in the same state. A block has every kind of
 * a group once in the order below and once in the other, behind slices of our engine and of the loop that drops that
 * do not count: it follows upon a rest.
 *
 *   receive OBJECT REDIRECT_OBJECT GENERATE_OBJECT NAMESPACE MODE LOAD SECONDS BLOCKS ROUNDS INDEX:INTERFACE...
 *
 * Run it in the namespace of the interfaces, of which there is one for each kind, all with the same Ethernet address;
 * INDEX is that of the other end, in NAMESPACE, a path. MODE: native or generic. LOAD: proposal or long (load.h).
 * SECONDS: of a slice.
 *
 * Prints one JSON object a round. By kind, two slices a block: packets a second taken, and offered; what part of those
 * that our engine took came out again as whole messages. "drain_", one a block: nanoseconds for each packet of a ring
 * that is full when it begins. "line", one a block: how far apart the two processors are. "again": slices that were
 * taken again because the one side or the other had stood still.
 */
#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/if_link.h>

#include "generator.h"
#include "line.h"
#include "load.h"
#include "source.h"

enum {
	RECEIVER_CPU = 0,
	GENERATOR_CPU = 1,
	SETTLE_US = 2000, /* more than a ring's turn */
	FILL_US = 3000,   /* the same of a ring that nobody empties */
	FULL = 1024,      /* packets: half of it */
	LAST_US = 300,    /* until what is on its way has come */
	PATIENCE_S = 20,
	/* So long nothing comes, or the receiver does not run, only when somebody else has the processor: a real-time
	 * thread, the scheduler's share for the others, the host. */
	STOOD_STILL_US = 1000,
	/* So long something is tried again: ten times the share that a scheduler gives others at a time. */
	AGAIN_US = 500000,
	POLLS_PER_CLOCK = 2,
	MAX_BLOCKS = 64,
};

/* Of each that the others are compared with. After a rest its caches are cold, the generator's frames are new ones, and
 * our engine, which has a state, would pay for that in one of its two slices in each block, being the first. */
#define WARM_UP_S 0.01

enum kind {
	XDP,
	XDP_BARE,
	XDP_READ,
	XDP_REDIRECT,
	PACKET,
	PACKET_BARE,
	UDP,
	UDP_BARE,
	KINDS
};

static const char *const names[KINDS] = {"xdp",    "xdp_bare",    "xdp_read", "xdp_redirect",
                                         "packet", "packet_bare", "udp",      "udp_bare"};

/* [from, to) of the kinds. */
static const struct {
	int from, to;
} groups[] = {{XDP, PACKET}, {PACKET, UDP}, {UDP, KINDS}};

/* From our engine, which has to do all of it, to a loop that reads. */
static const enum kind drained[] = {XDP, XDP_BARE, XDP_READ};

/* A message of the load has 2^shift packets. */
static uint32_t shift;

struct slice {
	double taken, made, whole;
};

struct way {
	struct source *source;
	uint32_t index; /* of the generator's end */
	struct slice slices[2 * MAX_BLOCKS];
	double drain_ns[MAX_BLOCKS];
};

struct spent {
	uint64_t us, pause_us; /* the longest */
	struct source_total total;
};

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000;
}

static struct spent spend(struct source *source, uint64_t duration_us)
{
	const struct source_total before = source_total(source);
	uint64_t begun = now_us(), now = begun, came = begun;
	struct spent spent = {0};

	while (now - begun < duration_us) {
		uint32_t count = 0;

		for (int i = 0; i < POLLS_PER_CLOCK; i++)
			count += source_receive(source);
		now = now_us();
		if (now - came > spent.pause_us)
			spent.pause_us = now - came;
		if (count)
			came = now;
	}
	spent.us = now - begun;
	spent.total = source_total(source);
	spent.total.packets -= before.packets;
	spent.total.messages -= before.messages;
	return spent;
}

/* Until packets come that way. */
static void turn_to(struct generator *generator, struct way *way, const char *name)
{
	uint64_t give_up = now_us() + PATIENCE_S * UINT64_C(1000000);

	source_heartbeat(way->source);
	generator_send(generator, way->index);
	while (!spend(way->source, SETTLE_US).total.packets) {
		if (now_us() > give_up) {
			fprintf(stderr, "receive: %s: nothing comes in for %d s\n", name, PATIENCE_S);
			exit(1);
		}
		source_heartbeat(way->source);
	}
}

static void turn_away(struct generator *generator, struct way *way)
{
	generator_send(generator, 0);
	spend(way->source, LAST_US);
}

/* Returns how often it had to be taken again. */
static int take(struct generator *generator, struct way *way, const char *name, double seconds, struct slice *slice)
{
	uint64_t made, give_up;
	struct spent spent;
	int attempts = 0;

	turn_to(generator, way, name);
	give_up = now_us() + AGAIN_US;
	do {
		source_heartbeat(way->source);
		spend(way->source, SETTLE_US);
		made = generator_made(generator);
		spent = spend(way->source, (uint64_t)(seconds * 1e6));
		made = generator_made(generator) - made;
		attempts++;
	} while (now_us() < give_up && (spent.pause_us > STOOD_STILL_US || !spent.total.packets));
	turn_away(generator, way);
	slice->taken = (double)spent.total.packets / (double)spent.us * 1e6;
	slice->made = (double)made / (double)spent.us * 1e6;
	slice->whole = spent.total.packets ? (double)(spent.total.messages << shift) / (double)spent.total.packets : 0;
	return attempts - 1;
}

static void stay_awake(uint64_t duration_us)
{
	uint64_t until = now_us() + duration_us;

	while (now_us() < until)
		; /* a processor that has slept is slow at first */
}

/* The generator fills the ring, then makes packets for nobody; what is in the ring is taken out. Again if that was not
 * much: it stood still. 0: so often that there is no figure. */
static double drain_ns(struct generator *generator, struct way *way, const char *name)
{
	for (uint64_t give_up = now_us() + AGAIN_US; now_us() < give_up;) {
		struct timespec from, to;
		uint64_t packets;

		turn_to(generator, way, name);
		stay_awake(FILL_US);
		generator_send(generator, 0);
		stay_awake(LAST_US);
		packets = source_total(way->source).packets;
		clock_gettime(CLOCK_MONOTONIC, &from);
		while (source_receive(way->source))
			;
		clock_gettime(CLOCK_MONOTONIC, &to);
		packets = source_total(way->source).packets - packets;
		if (packets >= FULL)
			return ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / (double)packets;
	}
	return 0;
}

/* While it is measured, nobody else gets the receiver's processor, as the generator's thread has its own. */
static void set_urgent(int urgent)
{
	const struct sched_param parameter = {.sched_priority = urgent};

	sched_setscheduler(0, urgent ? SCHED_FIFO : SCHED_OTHER, &parameter);
}

/* Real-time threads may have 95 % of each second (sched(7)), and others have work, too. */
static void rest(uint64_t duration_us)
{
	const struct timespec pause = {.tv_sec = (time_t)(duration_us / 1000000u),
	                               .tv_nsec = (long)(duration_us % 1000000u) * 1000};

	nanosleep(&pause, NULL);
}

/* Returns how many slices were taken again. */
static int take_block(struct generator *generator, struct way *ways, long block, double seconds)
{
	uint64_t started = now_us();
	struct slice unused;
	int again = 0;

	generator_start(generator, GENERATOR_CPU);
	set_urgent(1);
	for (int kind = XDP; kind <= XDP_BARE; kind++)
		take(generator, &ways[kind], names[kind], WARM_UP_S, &unused);
	for (size_t group = 0; group < sizeof(groups) / sizeof(*groups); group++) {
		for (int kind = groups[group].from; kind < groups[group].to; kind++)
			again += take(generator, &ways[kind], names[kind], seconds, &ways[kind].slices[2 * block]);
		for (int kind = groups[group].to - 1; kind >= groups[group].from; kind--)
			again += take(generator, &ways[kind], names[kind], seconds, &ways[kind].slices[2 * block + 1]);
	}
	for (size_t i = 0; i < sizeof(drained) / sizeof(*drained); i++)
		ways[drained[i]].drain_ns[block] = drain_ns(generator, &ways[drained[i]], names[drained[i]]);
	set_urgent(0);
	generator_stop(generator);
	rest(now_us() - started);
	return again;
}

static void print_round(const struct way *ways, long blocks, const double *lines, int again)
{
	printf("{\"again\": %d, \"line\": [", again);
	for (long block = 0; block < blocks; block++)
		printf("%s%.1f", block ? ", " : "", lines[block]);
	printf("]");
	for (int kind = 0; kind < KINDS; kind++) {
		printf(", \"%s\": [", names[kind]);
		for (long i = 0; i < 2 * blocks; i++) {
			const struct slice *slice = &ways[kind].slices[i];

			printf("%s[%.0f, %.0f, %.3f]", i ? ", " : "", slice->taken, slice->made, slice->whole);
		}
		printf("]");
	}
	for (size_t i = 0; i < sizeof(drained) / sizeof(*drained); i++) {
		printf(", \"drain_%s\": [", names[drained[i]]);
		for (long block = 0; block < blocks; block++)
			printf("%s%.1f", block ? ", " : "", ways[drained[i]].drain_ns[block]);
		printf("]");
	}
	printf("}\n");
	fflush(stdout);
}

static struct source *open_source(enum kind kind, const char *interface, char **objects, bool native)
{
	const uint32_t flags = native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;

	switch (kind) {
	case XDP:
		return source_ours(native ? ACCORD_RUNG_XDP_NATIVE : ACCORD_RUNG_XDP_GENERIC, interface, objects[0]);
	case XDP_BARE:
		return source_bare(BARE_XDP, interface, objects[0], flags);
	case XDP_READ:
		return source_bare(BARE_XDP_READ, interface, objects[0], flags);
	case XDP_REDIRECT:
		return source_bare(BARE_XDP_REDIRECT, interface, objects[1], flags);
	case PACKET:
		return source_ours(ACCORD_RUNG_PACKET, interface, objects[0]);
	case PACKET_BARE:
		return source_bare(BARE_PACKET, interface, NULL, 0);
	case UDP:
		return source_ours(ACCORD_RUNG_UDP, interface, objects[0]);
	default:
		return source_bare(BARE_UDP, interface, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	static struct way ways[KINDS];
	struct accord_failure failure = {0};
	struct accord_netdev netdev;
	struct generator *generator;
	bool enough = argc == 10 + (int)KINDS;
	double seconds = enough ? strtod(argv[7], NULL) : 0;
	long blocks = enough ? strtol(argv[8], NULL, 10) : 0, rounds = enough ? strtol(argv[9], NULL, 10) : 0;
	cpu_set_t cpus;

	if (rounds < 1 || blocks < 1 || blocks > MAX_BLOCKS || seconds <= 0) {
		fprintf(stderr,
		        "usage: receive OBJECT REDIRECT_OBJECT GENERATE_OBJECT NAMESPACE MODE LOAD SECONDS BLOCKS ROUNDS "
		        "INDEX:INTERFACE... (%d of them)\n",
		        (int)KINDS);
		return 2;
	}
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
		fprintf(stderr, "receive: generator and receiver need a processor each, and there is one\n");
		return 1;
	}
	CPU_ZERO(&cpus);
	CPU_SET(RECEIVER_CPU, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	for (int kind = 0; kind < KINDS; kind++) {
		char *interface;

		ways[kind].index = (uint32_t)strtoul(argv[10 + kind], &interface, 10);
		if (*interface++ != ':' || accord_netdev_open(interface, &netdev, &failure)) {
			fprintf(stderr, "receive: %s: %s\n", argv[10 + kind], failure.detail);
			return 1;
		}
		ways[kind].source = open_source((enum kind)kind, interface, &argv[1], strcmp(argv[5], "generic") != 0);
	}
	for (uint32_t packets = strcmp(argv[6], "long") ? LOAD_PROPOSAL : LOAD_LONG; packets > 1; packets /= 2)
		shift++;
	generator = generator_open(argv[3], argv[4], netdev.address, shift);
	for (long round = 0; round < rounds; round++) {
		double lines[MAX_BLOCKS];
		int again = 0;

		for (long block = 0; block < blocks; block++) {
			lines[block] = line_ns(GENERATOR_CPU);
			again += take_block(generator, ways, block, seconds);
		}
		print_round(ways, blocks, lines, again);
	}
	for (int kind = 0; kind < KINDS; kind++)
		source_close(ways[kind].source);
	generator_close(generator);
	return 0;
}
