/* SPDX-License-Identifier: Apache-2.0 */
/* One turn of the broker, and what it can do; docs/OPERATIONS.md, "Privileges". */
#ifndef ACCORD_BROKER_H
#define ACCORD_BROKER_H

#include "ask.h"

enum broker_constant {
	BROKER_PORTS = 65536,
	BROKER_XDP_RUNGS = 1 << ACCORD_RUNG_XDP_NATIVE | 1 << ACCORD_RUNG_XDP_GENERIC,
	BROKER_FRAME_RUNGS = BROKER_XDP_RUNGS | 1 << ACCORD_RUNG_PACKET,
};

struct accord_broker {
	int fd;
	char *interface, *object_path, *sockops_path, *cgroup, *births_path, *capture_path;
	uint32_t rungs;
	uint8_t ports[BROKER_PORTS / 8];
	int known; /* index that the interface of that name had when it was last looked for; it may be renamed since */
	struct accord_program *program, *spare;
	struct accord_sockops *sockops;
	struct accord_birth_program *births;
	struct accord_capture_program *capture;
	uint64_t asked, refused;
};

/* One request being answered. */
struct turn {
	struct accord_broker *broker;
	struct accord_request request;
	struct accord_message *message; /* its descriptors are closed afterwards */
	const void *data;               /* as many bytes as the kind has */
	struct accord_reply reply;
	uint32_t answer_length;
	int fd;    /* to be passed back, -1: none */
	int lasts; /* and to stay open here */
	union {
		uint32_t id;
		uint64_t cgroup;
		struct accord_tcp_numbers numbers;
		struct accord_birth birth;
		uint64_t counters[ACCORD_REASON_LIMIT];
	} answer;
};

/* Against privilege.h or the configuration: nothing is done. Returns the reason. */
int broker_refuse(struct turn *turn, const char *why);

static inline int broker_allows_rung(const struct turn *turn, uint32_t rungs)
{
	return (turn->broker->rungs & rungs) != 0;
}

static inline int broker_allows_port(const struct turn *turn, uint16_t port)
{
	return port && turn->broker->ports[port / 8] & 1u << port % 8;
}

/* What a connection may be installed or expected by. */
static inline int broker_is_sane(const struct accord_tcp_state *state)
{
	return (state->family == 4 || state->family == 6) && state->service <= 1 && state->sack <= 1 &&
	       state->timestamps <= 1 && !(state->timestamp & 1);
}

/* A socket option that is a number; -1: it has none. */
int broker_integer_of(int fd, int level, int option);

/* What a kind asks for. Length and number of descriptors are as the kind has them. Each returns what the reply says. */
/* broker_program.c */
int broker_load(struct turn *turn);
int broker_attach(struct turn *turn);
int broker_unload(struct turn *turn);
int broker_attached(struct turn *turn);
int broker_heard(struct turn *turn);
int broker_steer(struct turn *turn);
int broker_join(struct turn *turn);
int broker_counters(struct turn *turn);
/* broker_socket.c */
int broker_ring(struct turn *turn);
int broker_busy_poll(struct turn *turn);
int broker_packet(struct turn *turn);
int broker_direct(struct turn *turn);
int broker_bell(struct turn *turn);
int broker_bind(struct turn *turn);
/* broker_tcp.c */
int broker_numbers(struct turn *turn);
int broker_install(struct turn *turn);
int broker_silence(struct turn *turn);
int broker_syns(struct turn *turn);
int broker_syns_answer(struct turn *turn);
int broker_syns_hear(struct turn *turn);
/* broker_birth.c */
int broker_births(struct turn *turn);
int broker_listening(struct turn *turn);
int broker_birth(struct turn *turn);
int broker_birth_end(struct turn *turn);
/* broker_capture.c */
int broker_capture(struct turn *turn);
int broker_capture_ring(struct turn *turn);
int broker_capture_mark(struct turn *turn);
int broker_capture_unmark(struct turn *turn);
int broker_capture_send(struct turn *turn);

#endif /* ACCORD_BROKER_H */
