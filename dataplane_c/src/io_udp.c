/* SPDX-License-Identifier: Apache-2.0 */
#include "io_udp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <linux/errqueue.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>

#include "address.h"
#include "io_direct.h"

enum {
	/* Datagrams of others that wait for Python. When they are all in use the sockets are not read: the
	 * kernel's buffers hold the rest, and a slow reader loses what it would have lost anyway. */
	SLOTS = 256,
	SLOT_BYTES = 65536,
	ERRORS = 64,
	ERRORS_PER_SOCKET = 16, /* read at one time */
	CONTROL_BYTES = 256,
};

struct accord_udp {
	struct accord_io io;
	struct accord_sockets sockets;
	struct accord_direct direct;

	/*
	 * A ring of slots. [base, next) was handed out, [next, tail) waits, the rest is free; positions grow for
	 * ever, order[] says which slot a position means, so that packets of ours leave no holes.
	 */
	uint32_t base, next, tail;
	uint16_t order[SLOTS];
	struct accord_datagram slot[SLOTS];
	uint8_t *data; /* SLOTS * SLOT_BYTES; pages are taken when they are first used */

	uint32_t error_first, error_count;
	struct accord_path error[ERRORS];

	struct mmsghdr message[ACCORD_IO_BATCH];
	struct iovec vector[ACCORD_IO_BATCH];
	struct sockaddr_storage from[ACCORD_IO_BATCH];
	uint8_t control[ACCORD_IO_BATCH][CONTROL_BYTES] __attribute__((aligned(sizeof(struct cmsghdr))));
};

int accord_io_is_ours(const uint8_t *packet, uint32_t length)
{
	const uint32_t magic = htonl(ACCORD_MAGIC);

	return length >= ACCORD_HEADER_BYTES && packet[0] >= ACCORD_VERSION_FIRST && packet[0] <= ACCORD_VERSION_LAST &&
	       !memcmp(packet + 4, &magic, sizeof(magic));
}

/* ---- errors ---- */

static void push_error(struct accord_udp *udp, const struct accord_path *path)
{
	if (udp->error_count == ERRORS) /* the oldest are the least news */
		udp->error_first++, udp->error_count--;
	udp->error[(udp->error_first + udp->error_count++) % ERRORS] = *path;
}

int accord_udp_error(struct accord_udp *udp, struct accord_path *path)
{
	if (!udp->error_count)
		return 0;
	*path = udp->error[udp->error_first++ % ERRORS];
	udp->error_count--;
	return -ACCORD_REASON_UNREACHABLE;
}

/* "Fragmentation needed" is news about the path's MTU, not about the peer (and the kernel keeps it). */
static int is_unreachable(const struct sock_extended_err *error)
{
	if (error->ee_origin == SO_EE_ORIGIN_ICMP)
		return error->ee_type == ICMP_DEST_UNREACH && error->ee_code != ICMP_FRAG_NEEDED;
	return error->ee_origin == SO_EE_ORIGIN_ICMP6 && error->ee_type == ICMPV6_DEST_UNREACH;
}

static struct accord_path path_of_socket(const struct accord_udp *udp, int index)
{
	const struct accord_path path = {
		.context = ACCORD_PROTOCOL_UDP,
		.local_port = udp->sockets.socket[index].port,
		.socket = (int16_t)index,
	};

	return path;
}

static void read_errors(struct accord_udp *udp, int index)
{
	for (int i = 0; i < ERRORS_PER_SOCKET; i++) {
		struct accord_path path = path_of_socket(udp, index);
		uint8_t packet[1], control[CONTROL_BYTES] __attribute__((aligned(sizeof(struct cmsghdr))));
		struct sockaddr_storage to = {0};
		struct iovec vector = {packet, sizeof(packet)};
		struct msghdr message = {
			.msg_name = &to, /* where the packet that was refused went */
			.msg_namelen = sizeof(to),
			.msg_iov = &vector,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control),
		};

		if (recvmsg(udp->sockets.socket[index].fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			return;
		if (accord_address_remote(&path, &to))
			continue;
		for (struct cmsghdr *each = CMSG_FIRSTHDR(&message); each; each = CMSG_NXTHDR(&message, each)) {
			struct sock_extended_err error;

			if (!(each->cmsg_level == IPPROTO_IP && each->cmsg_type == IP_RECVERR) &&
			    !(each->cmsg_level == IPPROTO_IPV6 && each->cmsg_type == IPV6_RECVERR))
				continue;
			memcpy(&error, CMSG_DATA(each), sizeof(error));
			if (is_unreachable(&error))
				push_error(udp, &path);
		}
	}
}

/* ---- receipt ---- */

static struct accord_datagram *slot_at(struct accord_udp *udp, uint32_t position)
{
	return &udp->slot[udp->order[position % SLOTS]];
}

static void swap_slots(struct accord_udp *udp, uint32_t one, uint32_t other)
{
	uint16_t kept = udp->order[one % SLOTS];

	udp->order[one % SLOTS] = udp->order[other % SLOTS];
	udp->order[other % SLOTS] = kept;
}

static void prepare_message(struct accord_udp *udp, uint32_t i, uint8_t *data)
{
	struct msghdr *header = &udp->message[i].msg_hdr;

	udp->vector[i] = (struct iovec){data, SLOT_BYTES};
	header->msg_name = &udp->from[i];
	header->msg_namelen = sizeof(udp->from[i]);
	header->msg_iov = &udp->vector[i];
	header->msg_iovlen = 1;
	header->msg_control = udp->control[i];
	header->msg_controllen = sizeof(udp->control[i]);
}

static uint32_t receive_socket(struct accord_udp *udp, int index, const struct accord_sink *sink, uint32_t limit)
{
	uint32_t room = SLOTS - (udp->tail - udp->base), kept = 0;
	int count;

	if (limit > ACCORD_IO_BATCH)
		limit = ACCORD_IO_BATCH;
	if (limit > room)
		limit = room;
	if (!limit)
		return 0;
	for (uint32_t i = 0; i < limit; i++)
		prepare_message(udp, i, (uint8_t *)slot_at(udp, udp->tail + i)->data);
	count = recvmmsg(udp->sockets.socket[index].fd, udp->message, limit, MSG_DONTWAIT, NULL);
	/* An ICMP error fails the next call, once. Whoever sees nothing come takes the socket for empty. */
	if (count < 0 && errno != EAGAIN)
		count = recvmmsg(udp->sockets.socket[index].fd, udp->message, limit, MSG_DONTWAIT, NULL);
	for (int i = 0; i < count; i++) {
		struct accord_datagram *slot = slot_at(udp, udp->tail + (uint32_t)i);
		int interface = 0;

		slot->path = path_of_socket(udp, index);
		slot->length = udp->message[i].msg_len;
		if (accord_address_remote(&slot->path, &udp->from[i]))
			continue;
		accord_address_local(&slot->path, &udp->message[i].msg_hdr, &interface);
		if (accord_io_is_ours(slot->data, slot->length)) {
			sink->packet(sink->context, &slot->path, interface, slot->data, slot->length);
		} else {
			sink->drop(sink->context, ACCORD_REASON_NOT_OURS_MAGIC);
			swap_slots(udp, udp->tail + kept++, udp->tail + (uint32_t)i);
		}
	}
	udp->tail += kept;
	return count > 0 ? (uint32_t)count : 0;
}

static uint32_t receive_direct(struct accord_udp *udp, uint32_t which, const struct accord_sink *sink, uint32_t limit)
{
	struct accord_path path;

	for (int i = 0; i < ERRORS_PER_SOCKET && accord_direct_error(&udp->direct, which, &path); i++)
		push_error(udp, &path);
	return accord_direct_receive(&udp->direct, which, sink, limit);
}

static uint32_t udp_receive(struct accord_io *io, const struct accord_sink *sink, uint32_t limit)
{
	struct accord_udp *udp = (struct accord_udp *)io;
	struct epoll_event ready[ACCORD_IO_BATCH];
	uint32_t moved = 0;
	int count = epoll_wait(udp->sockets.epoll, ready, ACCORD_IO_BATCH, 0);

	for (int i = 0; i < count; i++) {
		int index = (int)ready[i].data.u32;

		if (index >= ACCORD_SOCKETS) {
			moved += receive_direct(udp, (uint32_t)index - ACCORD_SOCKETS, sink, limit);
			continue;
		}
		if (udp->sockets.socket[index].fd < 0)
			continue;
		if (ready[i].events & EPOLLERR)
			read_errors(udp, index);
		if (ready[i].events & EPOLLIN)
			moved += receive_socket(udp, index, sink, limit);
	}
	return moved;
}

void accord_udp_recycle(struct accord_udp *udp)
{
	udp->base = udp->next;
}

uint32_t accord_udp_datagrams(struct accord_udp *udp, struct accord_datagram *datagrams, uint32_t limit)
{
	uint32_t count = 0;

	while (count < limit && udp->next != udp->tail)
		datagrams[count++] = *slot_at(udp, udp->next++);
	return count;
}

/* ---- sending ---- */

enum accord_reason accord_udp_send_reason(int error)
{
	switch (error) {
	case EAGAIN:
	case ENOBUFS:
	case ENOMEM:
		return ACCORD_REASON_NO_MEMORY;
	case EMSGSIZE:
		return ACCORD_REASON_LONG_PACKET;
	default:
		return ACCORD_REASON_UNREACHABLE;
	}
}

/* A path outlives the socket that it learnt, whose index may be another port's by now. */
static int sending_socket(const struct accord_udp *udp, const struct accord_path *path)
{
	int port = accord_sockets_port(&udp->sockets, path->socket);

	if (port >= 0 && (!path->local_port || path->local_port == port))
		return path->socket;
	return accord_sockets_find(&udp->sockets, path);
}

static int udp_send(struct accord_io *io, const struct accord_path *path, const uint8_t *packet, uint32_t length)
{
	struct accord_udp *udp = (struct accord_udp *)io;
	uint8_t control[CMSG_SPACE(sizeof(struct in6_pktinfo))] __attribute__((aligned(sizeof(struct cmsghdr))));
	struct iovec vector = {(void *)(uintptr_t)packet, length};
	struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
	const struct accord_socket *socket;
	struct sockaddr_storage to;
	int result, index;

	if (path->context == ACCORD_PROTOCOL_DIRECT) {
		result = accord_direct_send(&udp->direct, path, packet, length);
		if (result == -ACCORD_REASON_UNREACHABLE)
			push_error(udp, path);
		return result;
	}
	index = sending_socket(udp, path);
	if (index < 0)
		return -ACCORD_REASON_NO_SOCKET;
	socket = &udp->sockets.socket[index];
	message.msg_name = &to;
	message.msg_namelen = accord_address_to(path, socket->family, &to);
	if (!message.msg_namelen)
		return -ACCORD_REASON_NO_SOCKET;
	accord_address_from(path, socket->family, &message, control);
	/* An ICMP error for an earlier packet, maybe another peer's, fails the next call: once. */
	for (int attempt = 0; attempt < 2; attempt++) {
		if (sendmsg(socket->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
			return 0;
		if (errno != ECONNREFUSED && errno != EHOSTUNREACH && errno != ENETUNREACH)
			break;
	}
	if (errno == EHOSTUNREACH || errno == ENETUNREACH)
		push_error(udp, path); /* no route: sooner known than by a time-out */
	return -(int)accord_udp_send_reason(errno);
}

static void udp_flush(struct accord_io *io)
{
	(void)io;
}

static uint32_t udp_fds(const struct accord_io *io, int32_t *fds, uint32_t limit)
{
	(void)io, (void)fds, (void)limit;
	return 0; /* whoever registered a socket waits on it */
}

static uint32_t udp_rings(struct accord_io *io, struct accord_ring_statistics *rings, uint32_t limit)
{
	(void)io, (void)rings, (void)limit;
	return 0;
}

static void udp_close(struct accord_io *io)
{
	struct accord_udp *udp = (struct accord_udp *)io;

	accord_direct_close(&udp->direct);
	accord_sockets_close(&udp->sockets);
	if (udp->data)
		munmap(udp->data, (size_t)SLOTS * SLOT_BYTES);
	free(udp);
}

static const struct accord_io_operations operations = {
	.receive = udp_receive,
	.send = udp_send,
	.flush = udp_flush,
	.fds = udp_fds,
	.rings = udp_rings,
	.close = udp_close,
};

struct accord_io *accord_udp_io(struct accord_udp *udp)
{
	return &udp->io;
}

void accord_udp_open_direct(struct accord_udp *udp, int deaf)
{
	accord_direct_open(&udp->direct, deaf);
	for (uint32_t i = 0; i < ACCORD_DIRECT_SOCKETS; i++) {
		struct epoll_event interest = {.events = EPOLLIN, .data.u32 = ACCORD_SOCKETS + i};

		if (udp->direct.fd[i] >= 0)
			epoll_ctl(udp->sockets.epoll, EPOLL_CTL_ADD, udp->direct.fd[i], &interest);
	}
}

uint32_t accord_udp_direct_fds(const struct accord_udp *udp, int32_t *fds, uint32_t limit)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < ACCORD_DIRECT_SOCKETS && count < limit; i++)
		if (udp->direct.fd[i] >= 0)
			fds[count++] = udp->direct.fd[i];
	return count;
}

struct accord_sockets *accord_udp_sockets(struct accord_udp *udp)
{
	return &udp->sockets;
}

struct accord_udp *accord_udp_new(void)
{
	struct accord_udp *udp = calloc(1, sizeof(*udp));
	void *data;
	int opened;

	if (!udp)
		return NULL;
	udp->io.operations = &operations;
	udp->direct = (struct accord_direct){{-1, -1}};
	opened = accord_sockets_open(&udp->sockets);
	data = mmap(NULL, (size_t)SLOTS * SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
	            -1, 0);
	if (data != MAP_FAILED)
		udp->data = data;
	if (opened || !udp->data) {
		udp_close(&udp->io);
		return NULL;
	}
	for (uint32_t i = 0; i < SLOTS; i++) {
		udp->order[i] = (uint16_t)i;
		udp->slot[i].data = udp->data + (size_t)i * SLOT_BYTES;
	}
	return udp;
}
