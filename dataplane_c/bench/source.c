// SPDX-License-Identifier: Apache-2.0
#include "source.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

enum {
	EVENT_BATCH = 64,
	/* Negotiations that wait for a packet which a full ring has lost. */
	MAX_OPEN = 128,
};

struct source {
	struct bare *bare;
	uint64_t dropped; /* by it */
	/* Ours, if it is none. */
	struct accord_port *port;
	struct accord_engine *engine;
	uint64_t messages;
	int fd;
	uint32_t handles[MAX_OPEN], next;
};

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000;
}

static struct source *new_source(void)
{
	struct source *source = calloc(1, sizeof(*source));

	if (!source) {
		fprintf(stderr, "receive: no memory\n");
		exit(1);
	}
	source->fd = -1;
	return source;
}

/* Several have the same port, each on its own interface. */
static int open_udp(const char *interface)
{
	const struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(load_path().local_port)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface, (socklen_t)strlen(interface)) ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address))) {
		fprintf(stderr, "receive: UDP port on %s: %s\n", interface, strerror(errno));
		exit(1);
	}
	return fd;
}

struct source *source_ours(enum accord_rung rung, const char *interface, const char *object_path)
{
	const struct accord_port_config config = {
		.interface = interface, .object_path = object_path, .first_rung = rung, .last_rung = rung};
	const struct accord_engine_config engine_config = {0};
	struct source *source = new_source();
	struct accord_port_report report;

	source->engine = accord_engine_new(&engine_config);
	source->fd = open_udp(interface);
	if (!source->engine || accord_port_open(&config, &report, &source->port) ||
	    accord_port_add_socket(source->port, source->fd) < 0) {
		fprintf(stderr, "receive: %s: %s\n", interface, source->engine ? report.detail[rung] : "no memory");
		exit(1);
	}
	accord_engine_support(source->engine, load_protocols, LOAD_CHUNKS - 1);
	return source;
}

struct source *source_bare(enum bare_kind kind, const char *interface, const char *object_path, uint32_t flags)
{
	struct accord_failure failure = {0};
	struct accord_netdev netdev;
	struct source *source = new_source();

	if (accord_netdev_open(interface, &netdev, &failure)) {
		fprintf(stderr, "receive: %s\n", failure.detail);
		exit(1);
	}
	source->bare = bare_open(kind, &netdev, object_path, flags);
	return source;
}

/* The least that a user does: every message is looked at, every negotiation forgotten when it is whole. */
static void use(struct source *source, uint64_t now)
{
	static struct accord_event events[EVENT_BATCH];
	uint32_t count;

	while ((count = accord_engine_events(source->engine, events, EVENT_BATCH)) > 0)
		for (uint32_t i = 0; i < count; i++) {
			uint32_t *oldest = &source->handles[source->next % MAX_OPEN];

			if (events[i].kind == ACCORD_EVENT_MESSAGE) {
				source->messages++;
				accord_engine_close(source->engine, now, events[i].handle, 0);
			} else if (events[i].kind == ACCORD_EVENT_OPENED) {
				if (*oldest)
					accord_engine_close(source->engine, now, *oldest, 0); /* mostly gone long ago */
				*oldest = events[i].handle;
				source->next++;
			}
		}
}

uint32_t source_receive(struct source *source)
{
	uint32_t count;
	uint64_t now;

	if (source->bare) {
		count = bare_receive(source->bare);
		source->dropped += count;
		return count;
	}
	now = now_us();
	count = (uint32_t)accord_port_poll(source->port, source->engine, now);
	if (count)
		use(source, now);
	return count;
}

struct source_total source_total(const struct source *source)
{
	struct source_total total = {.packets = source->dropped, .messages = source->messages};
	uint64_t counters[ACCORD_REASON_LIMIT];

	if (source->bare)
		return total;
	accord_engine_counters(source->engine, counters);
	for (uint32_t reason = 0; reason < ACCORD_REASON_LIMIT; reason++)
		total.packets += counters[reason];
	return total;
}

void source_heartbeat(struct source *source)
{
	if (source->bare)
		bare_heartbeat(source->bare);
	else
		accord_port_heartbeat(source->port);
}

void source_close(struct source *source)
{
	if (source->bare) {
		bare_close(source->bare);
	} else {
		accord_port_close(source->port);
		accord_engine_free(source->engine);
		close(source->fd);
	}
	free(source);
}
