// SPDX-License-Identifier: Apache-2.0
/*
 * How many packets a second come in, over each kind of kernel interface: into our engine, and into a loop that
 * drops them. Prints one JSON object a round: packets per second, taken and offered, and what part of the packets
 * that our engine took came out again as whole messages. "line" is how far apart the two processors are.
 *
 *   receive OBJECT REDIRECT_OBJECT GENERATE_OBJECT NAMESPACE FROM_INTERFACE TO_INTERFACE MODE SECONDS ROUNDS
 *
 * Run it in the namespace of TO_INTERFACE; FROM_INTERFACE is in NAMESPACE, a path. MODE: native or generic.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/if_link.h>

#include "bare.h"
#include "generator.h"
#include "line.h"
#include "load.h"

enum {
	RECEIVER_CPU = 0,
	GENERATOR_CPU = 1,
	WARM_UP_MS = 5,
	PATIENCE_S = 5,
	HEARTBEAT_EVERY_MS = ACCORD_HEARTBEAT_MS / 4,
	POLLS_PER_CLOCK = 16,
	EVENT_BATCH = 64,
	/* Negotiations that wait for a packet which a full ring has lost. */
	MAX_OPEN = 128,
};

struct counts {
	uint64_t packets, messages;
};

struct source {
	/* One batch: what came. */
	struct counts (*receive)(struct source *source);
	void (*heartbeat)(struct source *source);
	void (*close)(struct source *source);
	struct bare *bare;
	struct accord_port *port;
	struct accord_engine *engine;
	uint64_t taken; /* by the engine, so far */
	int fd;
	uint32_t handles[MAX_OPEN], next;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- ours ---- */

static uint64_t taken(const struct accord_engine *engine)
{
	uint64_t counters[ACCORD_REASON_LIMIT], sum = 0;

	accord_engine_counters(engine, counters);
	for (uint32_t reason = 0; reason < ACCORD_REASON_LIMIT; reason++)
		sum += counters[reason];
	return sum;
}

/* The least that a user does: every message is looked at, every negotiation forgotten when it is whole. */
static uint64_t use(struct source *source)
{
	static struct accord_event events[EVENT_BATCH];
	uint64_t messages = 0, now = now_ns() / 1000;
	uint32_t count;

	while ((count = accord_engine_events(source->engine, events, EVENT_BATCH)) > 0)
		for (uint32_t i = 0; i < count; i++) {
			uint32_t *oldest = &source->handles[source->next % MAX_OPEN];

			if (events[i].kind == ACCORD_EVENT_MESSAGE) {
				messages++;
				accord_engine_close(source->engine, now, events[i].handle, 0);
			} else if (events[i].kind == ACCORD_EVENT_OPENED) {
				if (*oldest)
					accord_engine_close(source->engine, now, *oldest, 0); /* mostly gone long ago */
				*oldest = events[i].handle;
				source->next++;
			}
		}
	return messages;
}

static struct counts ours_receive(struct source *source)
{
	struct counts counts = {0};

	if (accord_port_poll(source->port, source->engine, now_ns() / 1000)) {
		counts.messages = use(source);
		counts.packets = taken(source->engine) - source->taken;
		source->taken += counts.packets;
	}
	return counts;
}

static void ours_heartbeat(struct source *source)
{
	accord_port_heartbeat(source->port);
}

static void ours_close(struct source *source)
{
	accord_port_close(source->port);
	accord_engine_free(source->engine);
	close(source->fd);
}

static struct source ours(enum accord_rung rung, const char *interface, const char *object_path)
{
	const struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(load_path().local_port)};
	const struct accord_port_config config = {
		.interface = interface, .object_path = object_path, .first_rung = rung, .last_rung = rung};
	const struct accord_engine_config engine_config = {0};
	struct source source = {.receive = ours_receive, .heartbeat = ours_heartbeat, .close = ours_close};
	struct accord_port_report report;

	source.engine = accord_engine_new(&engine_config);
	source.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (!source.engine || bind(source.fd, (const struct sockaddr *)&address, sizeof(address))) {
		fprintf(stderr, "receive: UDP port: %s\n", strerror(errno));
		exit(1);
	}
	if (accord_port_open(&config, &report, &source.port) || accord_port_add_socket(source.port, source.fd) < 0) {
		fprintf(stderr, "receive: %s\n", report.detail[rung]);
		exit(1);
	}
	accord_engine_support(source.engine, load_protocols, LOAD_CHUNKS - 1);
	return source;
}

/* ---- bare ---- */

static struct counts drop(struct source *source)
{
	return (struct counts){.packets = bare_receive(source->bare)};
}

static void drop_heartbeat(struct source *source)
{
	bare_heartbeat(source->bare);
}

static void drop_close(struct source *source)
{
	bare_close(source->bare);
}

static struct source bare(enum bare_kind kind, const struct accord_netdev *netdev, const char *object_path,
                          uint32_t flags)
{
	return (struct source){.receive = drop,
	                       .heartbeat = drop_heartbeat,
	                       .close = drop_close,
	                       .bare = bare_open(kind, netdev, object_path, flags)};
}

/* ---- the measurement ---- */

static struct counts spend(struct source *source, uint64_t duration_ns)
{
	uint64_t begun = now_ns(), now = begun, beat = 0;
	struct counts all = {0};

	while (now - begun < duration_ns) {
		if (now - beat > HEARTBEAT_EVERY_MS * 1000000u) {
			source->heartbeat(source);
			beat = now;
		}
		for (int i = 0; i < POLLS_PER_CLOCK; i++) {
			struct counts counts = source->receive(source);

			all.packets += counts.packets;
			all.messages += counts.messages;
		}
		now = now_ns();
	}
	return all;
}

/* While it is measured, nobody else gets the receiver's processor, as the generator's thread has its own. */
static void set_urgent(int urgent)
{
	const struct sched_param parameter = {.sched_priority = urgent};

	sched_setscheduler(0, urgent ? SCHED_FIFO : SCHED_OTHER, &parameter);
}

/* Real-time threads may have 95 % of each second (sched(7)), and who has used them up stands still for a while. */
static void rest(uint64_t duration_ns)
{
	const struct timespec pause = {.tv_sec = (time_t)(duration_ns / 1000000000u),
	                               .tv_nsec = (long)(duration_ns % 1000000000u)};

	nanosleep(&pause, NULL);
}

static void measure(const char *name, struct source source, struct generator *generator, double seconds, int last)
{
	uint64_t started = now_ns(), begun, made, give_up;
	struct counts counts = {0};
	double elapsed;

	source.heartbeat(&source);
	generator_start(generator, GENERATOR_CPU);
	give_up = now_ns() + PATIENCE_S * UINT64_C(1000000000);
	while (!counts.packets && now_ns() < give_up)
		counts = spend(&source, WARM_UP_MS * 1000000u);
	set_urgent(1);
	spend(&source, WARM_UP_MS * 1000000u);
	begun = now_ns();
	made = generator_made(generator);
	counts = spend(&source, (uint64_t)(seconds * 1e9));
	elapsed = (double)(now_ns() - begun) / 1e9;
	made = generator_made(generator) - made;
	set_urgent(0);
	generator_stop(generator);
	source.close(&source);
	rest(now_ns() - started);
	if (!counts.packets) {
		fprintf(stderr, "receive: %s: nothing comes in\n", name);
		exit(1);
	}
	printf("\"%s\": [%.0f, %.0f, %.3f]%s", name, (double)counts.packets / elapsed, (double)made / elapsed,
	       (double)(counts.messages * LOAD_PROPOSAL) / (double)counts.packets, last ? "" : ", ");
}

int main(int argc, char **argv)
{
	struct accord_failure failure = {0};
	struct accord_netdev netdev;
	struct generator *generator;
	double seconds = argc == 10 ? strtod(argv[8], NULL) : 0;
	long rounds = argc == 10 ? strtol(argv[9], NULL, 10) : 0;
	int native;
	enum accord_rung rung;
	uint32_t flags;
	cpu_set_t cpus;

	if (rounds < 1 || seconds <= 0) {
		fprintf(stderr, "usage: receive OBJECT REDIRECT_OBJECT GENERATE_OBJECT NAMESPACE FROM_INTERFACE TO_INTERFACE "
		                "MODE SECONDS ROUNDS\n");
		return 2;
	}
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
		fprintf(stderr, "receive: generator and receiver need a processor each, and there is one\n");
		return 1;
	}
	if (accord_netdev_open(argv[6], &netdev, &failure)) {
		fprintf(stderr, "receive: %s\n", failure.detail);
		return 1;
	}
	native = strcmp(argv[7], "generic") != 0;
	rung = native ? ACCORD_RUNG_XDP_NATIVE : ACCORD_RUNG_XDP_GENERIC;
	flags = native ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE;
	CPU_ZERO(&cpus);
	CPU_SET(RECEIVER_CPU, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	generator = generator_open(argv[3], argv[4], argv[5], netdev.address);
	for (long round = 0; round < rounds; round++) {
		printf("{\"line\": [%.1f], ", line_ns(GENERATOR_CPU));
		measure("xdp", ours(rung, argv[6], argv[1]), generator, seconds, 0);
		measure("xdp_bare", bare(BARE_XDP, &netdev, argv[1], flags), generator, seconds, 0);
		measure("xdp_read", bare(BARE_XDP_READ, &netdev, argv[1], flags), generator, seconds, 0);
		measure("xdp_redirect", bare(BARE_XDP_REDIRECT, &netdev, argv[2], flags), generator, seconds, 0);
		measure("packet", ours(ACCORD_RUNG_PACKET, argv[6], argv[1]), generator, seconds, 0);
		measure("packet_bare", bare(BARE_PACKET, &netdev, NULL, 0), generator, seconds, 0);
		measure("udp", ours(ACCORD_RUNG_UDP, argv[6], argv[1]), generator, seconds, 0);
		measure("udp_bare", bare(BARE_UDP, &netdev, NULL, 0), generator, seconds, 1);
		printf("}\n");
		fflush(stdout);
	}
	generator_close(generator);
	return 0;
}
