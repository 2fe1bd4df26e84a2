/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process with the capabilities: it answers requests and does nothing else. What is not exactly as privilege.h
 * has it, or not what the configuration allows, is refused and counted; the worker is not believed.
 */
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <linux/tcp.h>

#include "ask.h"
#include "failure.h"
#include "io_direct.h"
#include "io_packet.h"
#include "io_xdp.h"
#include "loader.h"
#include "sockops.h"
#include "tcp_install.h"

enum {
	STATE_CLOSE = 7,
	STATE_LISTEN = 10,
	XDP_RUNGS = 1 << ACCORD_RUNG_XDP_NATIVE | 1 << ACCORD_RUNG_XDP_GENERIC,
	FRAME_RUNGS = XDP_RUNGS | 1 << ACCORD_RUNG_PACKET,
	BUSY_POLL_MOST_US = 1000, /* of the configuration */
	PORT_BITS = 65536,
	PORT_FLAGS = ACCORD_PORT_STEERED | ACCORD_PORT_SUPPRESS,
};

struct accord_broker {
	int fd;
	char *interface, *object_path, *sockops_path, *cgroup;
	uint32_t rungs;
	uint8_t ports[PORT_BITS / 8];
	int known; /* index that the interface of that name had when it was last looked for; it may be renamed since */
	struct accord_program *program, *spare;
	struct accord_sockops *sockops;
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
		struct accord_tcp_numbers numbers;
		uint64_t counters[ACCORD_REASON_LIMIT];
	} answer;
};

static int refuse(struct turn *turn, const char *why)
{
	turn->broker->refused++;
	return accord_fail(&turn->reply.failure, ACCORD_REASON_NO_PRIVILEGE, 0,
	                   "the privileged process refuses request %u: %s", turn->request.kind, why);
}

static int allowed_rung(const struct turn *turn, uint32_t rungs)
{
	return (turn->broker->rungs & rungs) != 0;
}

static int allowed_port(const struct turn *turn, uint16_t port)
{
	return port && turn->broker->ports[port / 8] & 1u << port % 8;
}

int accord_broker_knows(struct accord_broker *broker, int32_t interface)
{
	int named = broker->interface ? (int)if_nametoindex(broker->interface) : 0;

	if (named)
		broker->known = named;
	return interface > 0 && interface == broker->known;
}

static int integer_of(int fd, int level, int option)
{
	socklen_t bytes = sizeof(int);
	int value = -1;

	return getsockopt(fd, level, option, &value, &bytes) ? -1 : value;
}

static int is_tcp(int fd)
{
	return integer_of(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP;
}

static int tcp_state_of(int fd)
{
	struct tcp_info info = {0};
	socklen_t bytes = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) ? -1 : info.tcpi_state;
}

static int port_of(int fd)
{
	struct sockaddr_storage bound = {0};
	socklen_t bytes = sizeof(bound);

	if (getsockname(fd, (struct sockaddr *)&bound, &bytes))
		return -1;
	if (bound.ss_family == AF_INET)
		return ntohs(((const struct sockaddr_in *)(const void *)&bound)->sin_port);
	return bound.ss_family == AF_INET6 ? ntohs(((const struct sockaddr_in6 *)(const void *)&bound)->sin6_port) : -1;
}

/* ---- the XDP program ---- */

static int do_load(struct turn *turn)
{
	struct accord_broker *broker = turn->broker;
	int result;

	if (!allowed_rung(turn, XDP_RUNGS) || !broker->interface)
		return refuse(turn, "the configuration wants no XDP program");
	accord_program_close(broker->program);
	broker->program = broker->spare;
	broker->spare = NULL;
	if (!broker->program) {
		result = accord_program_open(broker->object_path, &broker->program, &turn->reply.failure);
		if (result)
			return result;
	}
	turn->answer.id = accord_program_id(broker->program);
	turn->answer_length = sizeof(turn->answer.id);
	turn->fd = accord_program_settings_fd(broker->program);
	turn->lasts = 1;
	return 0;
}

static int do_attach(struct turn *turn)
{
	uint32_t mode = turn->request.mode;

	if (!turn->broker->program)
		return refuse(turn, "no program is loaded");
	if (!(mode == XDP_FLAGS_DRV_MODE && allowed_rung(turn, 1 << ACCORD_RUNG_XDP_NATIVE)) &&
	    !(mode == XDP_FLAGS_SKB_MODE && allowed_rung(turn, 1 << ACCORD_RUNG_XDP_GENERIC)))
		return refuse(turn, "not a mode of the configuration");
	if (!accord_broker_knows(turn->broker, (int)turn->request.number))
		return refuse(turn, "not the configured interface");
	return accord_program_attach(turn->broker->program, (int)turn->request.number, mode, &turn->reply.failure);
}

static int do_unload(struct turn *turn)
{
	accord_program_close(turn->broker->program);
	turn->broker->program = NULL;
	return 0;
}

static int do_attached(struct turn *turn)
{
	return turn->broker->program ? accord_program_attached(turn->broker->program) : 0;
}

static int do_heard(struct turn *turn)
{
	if (!turn->broker->program)
		return refuse(turn, "no program is loaded");
	turn->fd = accord_program_heard_fd(turn->broker->program);
	turn->lasts = 1;
	return 0;
}

static int do_steer(struct turn *turn)
{
	if (!turn->broker->program)
		return refuse(turn, "no program is loaded");
	if (!turn->request.number || turn->request.number >= PORT_BITS || turn->request.mode & ~PORT_FLAGS)
		return refuse(turn, "no such port, or nothing that is done with one");
	return accord_program_steer(turn->broker->program, (uint16_t)turn->request.number, turn->request.mode);
}

static int do_join(struct turn *turn)
{
	if (!turn->broker->program)
		return refuse(turn, "no program is loaded");
	return accord_program_join(turn->broker->program, turn->request.number, turn->message->fds[0]);
}

static int do_counters(struct turn *turn)
{
	if (!turn->broker->program)
		return refuse(turn, "no program is loaded");
	turn->answer_length = sizeof(turn->answer.counters);
	return accord_program_counters(turn->broker->program, turn->answer.counters);
}

/* ---- sockets ---- */

static int give(struct turn *turn, int fd)
{
	if (fd < 0)
		return fd;
	turn->fd = fd;
	return 0;
}

static int do_ring(struct turn *turn)
{
	if (!allowed_rung(turn, XDP_RUNGS))
		return refuse(turn, "the configuration wants no AF_XDP");
	return give(turn, accord_io_xdp_socket(&turn->reply.failure));
}

static int do_busy_poll(struct turn *turn)
{
	if (integer_of(turn->message->fds[0], SOL_SOCKET, SO_DOMAIN) != AF_XDP || turn->request.mode > BUSY_POLL_MOST_US)
		return refuse(turn, "not an AF_XDP socket, or too long");
	return accord_io_xdp_busy_poll_one(turn->message->fds[0], turn->request.mode, &turn->reply.failure);
}

static int do_packet(struct turn *turn)
{
	if (!allowed_rung(turn, 1 << ACCORD_RUNG_PACKET))
		return refuse(turn, "the configuration wants no AF_PACKET");
	if (!accord_broker_knows(turn->broker, (int)turn->request.number))
		return refuse(turn, "not the configured interface");
	return give(turn, accord_io_packet_socket((int)turn->request.number, &turn->reply.failure));
}

static int do_direct(struct turn *turn)
{
	int family = (int)turn->request.number, fd;

	if (!allowed_rung(turn, FRAME_RUNGS) || (family != AF_INET && family != AF_INET6))
		return refuse(turn, "no such socket for IP protocol 253");
	fd = accord_direct_socket(family, turn->request.mode != 0);
	if (fd < 0)
		return accord_fail(&turn->reply.failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "socket(SOCK_RAW)");
	return give(turn, fd);
}

static int do_bell(struct turn *turn)
{
	return give(turn, accord_link_bell(&turn->reply.failure));
}

static int do_bind(struct turn *turn)
{
	const struct accord_bind *address = turn->data;
	int fd = turn->message->fds[0], protocol = integer_of(fd, SOL_SOCKET, SO_PROTOCOL);
	int domain = integer_of(fd, SOL_SOCKET, SO_DOMAIN);

	if ((protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) ||
	    (address->family == 4 ? domain != AF_INET : address->family != 6 || domain != AF_INET6))
		return refuse(turn, "not a TCP or UDP socket of the address's family");
	if (!allowed_port(turn, address->port))
		return refuse(turn, "not a port of the configuration ([daemon] ports)");
	return accord_bind(fd, address, &turn->reply.failure);
}

/* ---- TCP ---- */

static int is_sane(const struct accord_tcp_state *state)
{
	return (state->family == 4 || state->family == 6) && state->service <= 1 && state->sack <= 1 &&
	       state->timestamps <= 1 && !(state->timestamp & 1);
}

static int do_numbers(struct turn *turn)
{
	const struct accord_tcp_state *state = turn->data;

	if (!is_sane(state))
		return refuse(turn, "no such connection");
	turn->answer_length = sizeof(turn->answer.numbers);
	return accord_tcp_numbers_here(state, &turn->answer.numbers, &turn->reply.failure);
}

static int do_install(struct turn *turn)
{
	const struct accord_tcp_state *state = turn->data;
	int fd = turn->message->fds[0];

	if (!is_sane(state) || !state->local_port || !state->remote_port || !is_tcp(fd) || tcp_state_of(fd) != STATE_CLOSE)
		return refuse(turn, "no such connection");
	if (state->service ? port_of(fd) || !allowed_port(turn, state->local_port) : port_of(fd) != state->local_port)
		return refuse(turn, "not a port of the configuration, nor a socket that is bound to it");
	return accord_tcp_install_here(state, fd, &turn->reply.failure);
}

static int do_silence(struct turn *turn)
{
	int fd = turn->message->fds[0];

	if (!is_tcp(fd) || tcp_state_of(fd) == STATE_CLOSE)
		return refuse(turn, "not a connection");
	return accord_tcp_silence_here(fd, &turn->reply.failure);
}

/* ---- the option on the SYN ---- */

static int heard_fd(const struct accord_broker *broker)
{
	return broker->program ? accord_program_heard_fd(broker->program) : -1;
}

static int do_syns(struct turn *turn)
{
	struct accord_broker *broker = turn->broker;
	int result;

	if (!broker->cgroup)
		return refuse(turn, "there is no cgroup to attach the sockops program to");
	if (!broker->sockops) {
		result = accord_sockops_open(broker->sockops_path, broker->cgroup, heard_fd(broker), &broker->sockops,
		                             &turn->reply.failure);
		if (result)
			return result;
	}
	turn->fd = accord_sockops_syns_fd(broker->sockops);
	turn->lasts = 1;
	return 0;
}

static int do_syns_answer(struct turn *turn)
{
	int fd = turn->message->fds[0];

	if (!turn->broker->sockops)
		return refuse(turn, "no sockops program is attached");
	if (!is_tcp(fd) || (tcp_state_of(fd) != STATE_CLOSE && tcp_state_of(fd) != STATE_LISTEN))
		return refuse(turn, "not a TCP socket that listens or is going to");
	return accord_sockops_answer(turn->broker->sockops, fd, &turn->reply.failure);
}

static int do_syns_hear(struct turn *turn)
{
	struct accord_broker *broker = turn->broker;

	if (!broker->sockops || !broker->program)
		return refuse(turn, "no sockops or no XDP program is attached");
	return accord_sockops_hear(broker->sockops, heard_fd(broker), &turn->reply.failure);
}

/* ---- turns ---- */

enum descriptors {
	NO_FD,
	ONE_FD,
	MAYBE_FD,
};

static const struct {
	int (*act)(struct turn *turn);
	uint32_t length; /* of the kind's own data */
	enum descriptors descriptors;
} kinds[ACCORD_ASK_BOUNDARY] = {
	[ACCORD_ASK_LOAD] = {do_load, 0, NO_FD},
	[ACCORD_ASK_ATTACH] = {do_attach, 0, NO_FD},
	[ACCORD_ASK_UNLOAD] = {do_unload, 0, NO_FD},
	[ACCORD_ASK_ATTACHED] = {do_attached, 0, NO_FD},
	[ACCORD_ASK_HEARD] = {do_heard, 0, NO_FD},
	[ACCORD_ASK_STEER] = {do_steer, 0, NO_FD},
	[ACCORD_ASK_JOIN] = {do_join, 0, MAYBE_FD},
	[ACCORD_ASK_COUNTERS] = {do_counters, 0, NO_FD},
	[ACCORD_ASK_RING] = {do_ring, 0, NO_FD},
	[ACCORD_ASK_BUSY_POLL] = {do_busy_poll, 0, ONE_FD},
	[ACCORD_ASK_PACKET] = {do_packet, 0, NO_FD},
	[ACCORD_ASK_DIRECT] = {do_direct, 0, NO_FD},
	[ACCORD_ASK_BELL] = {do_bell, 0, NO_FD},
	[ACCORD_ASK_BIND] = {do_bind, sizeof(struct accord_bind), ONE_FD},
	[ACCORD_ASK_TCP_NUMBERS] = {do_numbers, sizeof(struct accord_tcp_state), NO_FD},
	[ACCORD_ASK_TCP_INSTALL] = {do_install, sizeof(struct accord_tcp_state), ONE_FD},
	[ACCORD_ASK_TCP_SILENCE] = {do_silence, 0, ONE_FD},
	[ACCORD_ASK_SYNS] = {do_syns, 0, NO_FD},
	[ACCORD_ASK_SYNS_ANSWER] = {do_syns_answer, 0, ONE_FD},
	[ACCORD_ASK_SYNS_HEAR] = {do_syns_hear, 0, NO_FD},
};

static int act(struct turn *turn)
{
	uint32_t kind = turn->request.kind;
	int fds = (turn->message->fds[0] >= 0) + (turn->message->fds[1] >= 0);

	if (turn->message->length < sizeof(turn->request) || turn->request.reserved || kind >= ACCORD_ASK_BOUNDARY ||
	    !kinds[kind].act)
		return refuse(turn, "it is none");
	if (turn->message->length != sizeof(turn->request) + kinds[kind].length)
		return refuse(turn, "it has another length");
	if (kinds[kind].descriptors == MAYBE_FD ? fds > 1 : fds != (kinds[kind].descriptors == ONE_FD))
		return refuse(turn, "it has other descriptors");
	return kinds[kind].act(turn);
}

void accord_broker_answer(struct accord_broker *broker, const struct accord_reply *reply, const uint8_t *data,
                          uint32_t length, const int32_t *fds, uint32_t fd_count)
{
	/* A worker that asks and does not listen loses answers, not memory of ours. */
	accord_message_send(broker->fd, reply, sizeof(*reply), data, length, fds, fd_count, MSG_DONTWAIT);
}

int accord_broker_step(struct accord_broker *broker, struct accord_pending *pending)
{
	struct accord_message message;
	struct turn turn = {.broker = broker, .message = &message, .fd = -1};
	int got = accord_message_receive(broker->fd, &message, MSG_DONTWAIT);

	if (got <= 0)
		return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? 0 : -1;
	broker->asked++;
	if (message.length >= sizeof(turn.request)) {
		uint8_t aligned[sizeof(struct accord_tcp_state)] __attribute__((aligned(8))) = {0};

		memcpy(&turn.request, message.bytes, sizeof(turn.request));
		if (turn.request.kind >= ACCORD_ASK_BOUNDARY && !turn.request.reserved) {
			pending->request = turn.request;
			pending->length = message.length - (uint32_t)sizeof(turn.request);
			memcpy(pending->data, message.bytes + sizeof(turn.request), pending->length);
			memcpy(pending->fds, message.fds, sizeof(pending->fds));
			return 2;
		}
		if (message.length - sizeof(turn.request) <= sizeof(aligned))
			memcpy(aligned, message.bytes + sizeof(turn.request), message.length - sizeof(turn.request));
		turn.data = aligned;
		turn.reply.result = act(&turn);
	} else {
		turn.reply.result = act(&turn);
	}
	accord_broker_answer(broker, &turn.reply, (const uint8_t *)&turn.answer,
	                     turn.reply.result < 0 ? 0 : turn.answer_length, &turn.fd, turn.fd >= 0);
	if (turn.fd >= 0 && !turn.lasts)
		close(turn.fd);
	accord_message_close(&message);
	return 1;
}

int accord_broker_serve(struct accord_broker *broker, struct accord_pending *pending, const int32_t *others,
                        uint32_t count)
{
	struct pollfd waits[1 + ACCORD_BROKER_WAITS] = {{.fd = broker->fd, .events = POLLIN}};

	if (count > ACCORD_BROKER_WAITS)
		count = ACCORD_BROKER_WAITS;
	for (uint32_t i = 0; i < count; i++)
		waits[1 + i] = (struct pollfd){.fd = others[i], .events = POLLIN};
	for (;;) {
		if (poll(waits, 1 + count, -1) < 0)
			continue; /* EINTR: a signal is in one of the others */
		if (waits[0].revents) {
			int done = accord_broker_step(broker, pending);

			if (done < 0 || done == 2)
				return done;
		}
		for (uint32_t i = 0; i < count; i++)
			if (waits[1 + i].revents)
				return 3;
	}
}

struct accord_broker *accord_broker_new(const struct accord_broker_config *config, int32_t fd)
{
	struct accord_broker *broker = calloc(1, sizeof(*broker));

	if (!broker)
		return NULL;
	broker->fd = fd;
	broker->rungs = config->rungs;
	broker->spare = config->spare;
	broker->interface = config->interface ? strdup(config->interface) : NULL;
	broker->object_path = strdup(config->object_path);
	broker->cgroup = config->cgroup ? strdup(config->cgroup) : NULL;
	broker->sockops_path = config->cgroup ? strdup(config->sockops_path) : NULL;
	if (config->ports)
		memcpy(broker->ports, config->ports, sizeof(broker->ports));
	else
		memset(broker->ports, 0xff, sizeof(broker->ports));
	if (!broker->object_path || (config->interface && !broker->interface) ||
	    (config->cgroup && (!broker->cgroup || !broker->sockops_path))) {
		accord_broker_free(broker);
		return NULL;
	}
	return broker;
}

void accord_broker_free(struct accord_broker *broker)
{
	if (!broker)
		return;
	accord_program_close(broker->program);
	accord_program_close(broker->spare);
	accord_sockops_close(broker->sockops);
	if (broker->fd >= 0)
		close(broker->fd);
	free(broker->interface);
	free(broker->object_path);
	free(broker->sockops_path);
	free(broker->cgroup);
	free(broker);
}

void accord_broker_counts(const struct accord_broker *broker, uint64_t *asked, uint64_t *refused)
{
	*asked = broker->asked;
	*refused = broker->refused;
}
