/* SPDX-License-Identifier: Apache-2.0 */
#include "sockets.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "address.h"

int accord_sockets_open(struct accord_sockets *sockets)
{
	memset(sockets->first, 0xff, sizeof(sockets->first)); /* ACCORD_PATH_NO_SOCKET */
	sockets->count = 0;
	sockets->epoll = epoll_create1(EPOLL_CLOEXEC);
	return sockets->epoll < 0 ? -ACCORD_REASON_NO_MEMORY : 0;
}

void accord_sockets_close(struct accord_sockets *sockets)
{
	if (sockets->epoll >= 0)
		close(sockets->epoll);
}

int accord_sockets_port(const struct accord_sockets *sockets, int index)
{
	if (index < 0 || (uint32_t)index >= sockets->count || sockets->socket[index].fd < 0)
		return -ACCORD_REASON_NO_SOCKET;
	return sockets->socket[index].port;
}

int accord_sockets_use(const struct accord_sockets *sockets, uint16_t port)
{
	return sockets->first[port] != ACCORD_PATH_NO_SOCKET;
}

int16_t accord_sockets_find(const struct accord_sockets *sockets, const struct accord_path *path)
{
	static const uint8_t any[16];
	int16_t found = ACCORD_PATH_NO_SOCKET;

	for (int16_t index = sockets->first[path->local_port]; index != ACCORD_PATH_NO_SOCKET;
	     index = sockets->socket[index].next) {
		const struct accord_socket *socket = &sockets->socket[index];

		if (socket->family == (path->family == 4 ? AF_INET : AF_INET6) &&
		    !memcmp(socket->local, path->local, sizeof(any)))
			return index;
		/* A wildcard of IPv6 may take IPv4 as well, but one of IPv4 itself comes before it. */
		if (!memcmp(socket->local, any, sizeof(any)) && (path->family == 4 || socket->family == AF_INET6) &&
		    (found == ACCORD_PATH_NO_SOCKET || socket->family == AF_INET))
			found = index;
	}
	return found;
}

static int option(int fd, int level, int name)
{
	const int on = 1;

	return setsockopt(fd, level, name, &on, sizeof(on));
}

/* Fills in what the kernel knows of fd, and asks for the control messages. */
static int inspect(struct accord_socket *socket, int fd)
{
	struct sockaddr_storage bound = {0};
	socklen_t bytes = sizeof(bound), integer = sizeof(int);
	struct accord_path path = {0};
	int protocol = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &integer) || protocol != IPPROTO_UDP ||
	    getsockname(fd, (struct sockaddr *)&bound, &bytes) || accord_address_remote(&path, &bound) || !path.remote_port)
		return -ACCORD_REASON_BAD_CONFIG; /* not a bound UDP socket */
	if (bound.ss_family == AF_INET6) {
		if (option(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO) || option(fd, IPPROTO_IPV6, IPV6_RECVERR))
			return -ACCORD_REASON_NO_KERNEL_SUPPORT;
		option(fd, IPPROTO_IP, IP_RECVERR); /* of IPv4 on it; nothing to be had when it is IPv6 only */
	} else if (option(fd, IPPROTO_IP, IP_PKTINFO) || option(fd, IPPROTO_IP, IP_RECVERR)) {
		return -ACCORD_REASON_NO_KERNEL_SUPPORT;
	}
	socket->fd = fd;
	socket->family = bound.ss_family;
	socket->port = path.remote_port;
	memcpy(socket->local, path.remote, sizeof(socket->local));
	return 0;
}

int accord_sockets_add(struct accord_sockets *sockets, int fd)
{
	struct epoll_event interest = {.events = EPOLLIN};
	struct accord_socket inspected;
	uint32_t index = 0;
	int result = inspect(&inspected, fd);

	if (result)
		return result;
	while (index < sockets->count && sockets->socket[index].fd >= 0)
		index++;
	if (index == ACCORD_SOCKETS)
		return -ACCORD_REASON_NO_MEMORY;
	interest.data.u32 = index;
	if (epoll_ctl(sockets->epoll, EPOLL_CTL_ADD, fd, &interest))
		return errno == EEXIST ? -ACCORD_REASON_BAD_CONFIG : -ACCORD_REASON_NO_MEMORY;
	inspected.next = sockets->first[inspected.port];
	sockets->first[inspected.port] = (int16_t)index;
	sockets->socket[index] = inspected;
	if (index == sockets->count)
		sockets->count++;
	return (int)index;
}

static int only_user(const struct accord_sockets *sockets, int index)
{
	for (uint32_t other = 0; other < sockets->count; other++)
		if (other != (uint32_t)index && sockets->socket[other].fd == sockets->socket[index].fd)
			return 0;
	return 1;
}

int accord_sockets_replace(struct accord_sockets *sockets, int index, int fd)
{
	struct epoll_event interest = {.events = EPOLLIN, .data.u32 = (uint32_t)index};
	int port = accord_sockets_port(sockets, index), result;
	struct accord_socket inspected;

	if (port < 0)
		return port;
	result = inspect(&inspected, fd);
	if (result)
		return result;
	if (inspected.port != port || inspected.family != sockets->socket[index].family)
		return -ACCORD_REASON_BAD_CONFIG;
	if (epoll_ctl(sockets->epoll, EPOLL_CTL_ADD, fd, &interest))
		return errno == EEXIST ? -ACCORD_REASON_BAD_CONFIG : -ACCORD_REASON_NO_MEMORY;
	if (only_user(sockets, index))
		epoll_ctl(sockets->epoll, EPOLL_CTL_DEL, sockets->socket[index].fd, NULL);
	inspected.next = sockets->socket[index].next;
	sockets->socket[index] = inspected;
	return 0;
}

int accord_sockets_remove(struct accord_sockets *sockets, int index)
{
	int port = accord_sockets_port(sockets, index);
	int16_t *link;

	if (port < 0)
		return port;
	/* Had its owner closed it first, the kernel took it out by itself, and the number may be another's by now. */
	if (only_user(sockets, index))
		epoll_ctl(sockets->epoll, EPOLL_CTL_DEL, sockets->socket[index].fd, NULL);
	for (link = &sockets->first[port]; *link != index; link = &sockets->socket[*link].next)
		;
	*link = sockets->socket[index].next;
	sockets->socket[index].fd = -1;
	return port;
}
