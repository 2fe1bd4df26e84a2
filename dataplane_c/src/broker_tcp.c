// SPDX-License-Identifier: Apache-2.0
/* What the broker does to the worker's TCP sockets: connections without a SYN, and the option on one. */
#include "broker.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <linux/tcp.h>

#include "loader.h"
#include "sockops.h"
#include "tcp_install.h"

enum {
	STATE_CLOSE = 7,
	STATE_LISTEN = 10,
};

static int is_tcp(int fd)
{
	return broker_integer_of(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP;
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

int broker_numbers(struct turn *turn)
{
	const struct accord_tcp_state *state = turn->data;

	if (!broker_is_sane(state))
		return broker_refuse(turn, "no such connection");
	turn->answer_length = sizeof(turn->answer.numbers);
	return accord_tcp_numbers_here(state, &turn->answer.numbers, &turn->reply.failure);
}

int broker_install(struct turn *turn)
{
	const struct accord_tcp_state *state = turn->data;
	int fd = turn->message->fds[0];

	if (!broker_is_sane(state) || !state->local_port || !state->remote_port || !is_tcp(fd) ||
	    tcp_state_of(fd) != STATE_CLOSE)
		return broker_refuse(turn, "no such connection");
	if (state->service ? port_of(fd) || !broker_allows_port(turn, state->local_port) : port_of(fd) != state->local_port)
		return broker_refuse(turn, "not a port of the configuration, nor a socket that is bound to it");
	return accord_tcp_install_here(state, fd, &turn->reply.failure);
}

int broker_silence(struct turn *turn)
{
	int fd = turn->message->fds[0];

	if (!is_tcp(fd) || tcp_state_of(fd) == STATE_CLOSE)
		return broker_refuse(turn, "not a connection");
	return accord_tcp_silence_here(fd, &turn->reply.failure);
}

/* ---- the option on the SYN ---- */

static int heard_fd(const struct accord_broker *broker)
{
	return broker->program ? accord_program_heard_fd(broker->program) : -1;
}

int broker_syns(struct turn *turn)
{
	struct accord_broker *broker = turn->broker;
	int result;

	if (!broker->cgroup)
		return broker_refuse(turn, "there is no cgroup to attach the sockops program to");
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

int broker_syns_answer(struct turn *turn)
{
	int fd = turn->message->fds[0];

	if (!turn->broker->sockops)
		return broker_refuse(turn, "no sockops program is attached");
	if (!is_tcp(fd) || (tcp_state_of(fd) != STATE_CLOSE && tcp_state_of(fd) != STATE_LISTEN))
		return broker_refuse(turn, "not a TCP socket that listens or is going to");
	return accord_sockops_answer(turn->broker->sockops, fd, &turn->reply.failure);
}

int broker_syns_hear(struct turn *turn)
{
	struct accord_broker *broker = turn->broker;

	if (!broker->sockops || !broker->program)
		return broker_refuse(turn, "no sockops or no XDP program is attached");
	return accord_sockops_hear(broker->sockops, heard_fd(broker), &turn->reply.failure);
}
