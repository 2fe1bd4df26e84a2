// SPDX-License-Identifier: Apache-2.0
/* The sockets that the broker makes, and what it does to the worker's. */
#include "broker.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <linux/if_xdp.h>

#include "failure.h"
#include "io_direct.h"
#include "io_packet.h"
#include "xdp_ring.h"

enum {
	BUSY_POLL_MOST_US = 1000, /* of the configuration */
};

int broker_integer_of(int fd, int level, int option)
{
	socklen_t bytes = sizeof(int);
	int value = -1;

	return getsockopt(fd, level, option, &value, &bytes) ? -1 : value;
}

static int give(struct turn *turn, int fd)
{
	if (fd < 0)
		return fd;
	turn->fd = fd;
	return 0;
}

int broker_ring(struct turn *turn)
{
	if (!broker_allows_rung(turn, BROKER_XDP_RUNGS))
		return broker_refuse(turn, "the configuration wants no AF_XDP");
	return give(turn, accord_io_xdp_socket(&turn->reply.failure));
}

int broker_busy_poll(struct turn *turn)
{
	if (broker_integer_of(turn->message->fds[0], SOL_SOCKET, SO_DOMAIN) != AF_XDP ||
	    turn->request.mode > BUSY_POLL_MOST_US)
		return broker_refuse(turn, "not an AF_XDP socket, or too long");
	return accord_io_xdp_busy_poll_one(turn->message->fds[0], turn->request.mode, &turn->reply.failure);
}

int broker_packet(struct turn *turn)
{
	if (!broker_allows_rung(turn, 1 << ACCORD_RUNG_PACKET))
		return broker_refuse(turn, "the configuration wants no AF_PACKET");
	if (!accord_broker_knows(turn->broker, (int)turn->request.number))
		return broker_refuse(turn, "not the configured interface");
	return give(turn, accord_io_packet_socket((int)turn->request.number, &turn->reply.failure));
}

int broker_direct(struct turn *turn)
{
	int family = (int)turn->request.number, fd;

	if (!broker_allows_rung(turn, BROKER_FRAME_RUNGS) || (family != AF_INET && family != AF_INET6))
		return broker_refuse(turn, "no such socket for IP protocol 253");
	fd = accord_direct_socket(family, turn->request.mode != 0);
	if (fd < 0)
		return accord_fail(&turn->reply.failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "socket(SOCK_RAW)");
	return give(turn, fd);
}

int broker_bell(struct turn *turn)
{
	return give(turn, accord_link_bell(&turn->reply.failure));
}

int broker_bind(struct turn *turn)
{
	const struct accord_bind *address = turn->data;
	int fd = turn->message->fds[0], protocol = broker_integer_of(fd, SOL_SOCKET, SO_PROTOCOL);
	int domain = broker_integer_of(fd, SOL_SOCKET, SO_DOMAIN);

	if ((protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) ||
	    (address->family == 4 ? domain != AF_INET : address->family != 6 || domain != AF_INET6))
		return broker_refuse(turn, "not a TCP or UDP socket of the address's family");
	if (!broker_allows_port(turn, address->port))
		return broker_refuse(turn, "not a port of the configuration ([daemon] ports)");
	return accord_bind(fd, address, &turn->reply.failure);
}
