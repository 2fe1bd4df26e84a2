/* SPDX-License-Identifier: Apache-2.0 */
#include "io_packet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>

#include "ask.h"
#include "failure.h"
#include "frame.h"

enum {
	FRAME_ROOM = ACCORD_MAX_PACKET + 128,
	RECEIVE_BUFFER = 4 << 20,
};

struct io_packet {
	struct accord_io io;
	int fd;
	uint32_t mtu_bytes, queued;
	struct accord_ring_statistics statistics;
	int down; /* the interface refused to send; until a frame comes in, others may try */
	struct mmsghdr receiving[ACCORD_IO_BATCH], sending[ACCORD_IO_BATCH];
	struct iovec receiving_vectors[ACCORD_IO_BATCH], sending_vectors[ACCORD_IO_BATCH];
	uint8_t control[ACCORD_IO_BATCH][CMSG_SPACE(sizeof(struct tpacket_auxdata))]
		__attribute__((aligned(sizeof(struct cmsghdr))));
	uint8_t received[ACCORD_IO_BATCH][FRAME_ROOM], sent[ACCORD_IO_BATCH][FRAME_ROOM];
};

/*
 * Lets through what can be a negotiation packet: to this host's link address, UDP or IP protocol 253, and the
 * magic cookie where it has to be. The rare frames whose headers vary in length (in-band VLAN tags, IPv6
 * extension headers) go through unchecked; accord_frame_parse has the last word on all of them. The first VLAN
 * tag is no longer in the frame at this place. A load beyond the packet's end drops it (bpf(4)).
 */
enum {
	IP = ETH_HLEN,
	MAGIC_AT = 4,
	ACCEPT = 0x40000
};

static struct sock_filter magic_filter[] = {
	/*  0 */ BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE)),
	/*  1 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_HOST, 0, 26),
	/*  2 */ BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 2 * ETH_ALEN),
	/*  3 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_8021Q, 25, 0),
	/*  4 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_8021AD, 24, 0),
	/*  5 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 10),
	/* IPv4: no fragment; UDP or 253; the cookie behind ihl and the UDP header */
	/*  6 */ BPF_STMT(BPF_LD | BPF_H | BPF_ABS, IP + 6),
	/*  7 */ BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x3fff, 20, 0),
	/*  8 */ BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, IP),
	/*  9 */ BPF_STMT(BPF_LD | BPF_B | BPF_ABS, IP + 9),
	/* 10 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ACCORD_PROTOCOL_DIRECT, 3, 0),
	/* 11 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ACCORD_PROTOCOL_UDP, 0, 16),
	/* 12 */ BPF_STMT(BPF_LD | BPF_W | BPF_IND, IP + ACCORD_FRAME_UDP_BYTES + MAGIC_AT),
	/* 13 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ACCORD_MAGIC, 15, 14),
	/* 14 */ BPF_STMT(BPF_LD | BPF_W | BPF_IND, IP + MAGIC_AT),
	/* 15 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ACCORD_MAGIC, 13, 12),
	/* IPv6 */
	/* 16 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IPV6, 0, 11),
	/* 17 */ BPF_STMT(BPF_LD | BPF_B | BPF_ABS, IP + 6),
	/* 18 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ACCORD_PROTOCOL_UDP, 0, 2),
	/* 19 */ BPF_STMT(BPF_LD | BPF_W | BPF_ABS, IP + ACCORD_FRAME_IPV6_BYTES + ACCORD_FRAME_UDP_BYTES + MAGIC_AT),
	/* 20 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ACCORD_MAGIC, 8, 7),
	/* 21 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ACCORD_PROTOCOL_DIRECT, 0, 2),
	/* 22 */ BPF_STMT(BPF_LD | BPF_W | BPF_ABS, IP + ACCORD_FRAME_IPV6_BYTES + MAGIC_AT),
	/* 23 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ACCORD_MAGIC, 5, 4),
	/* 24 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_HOPOPTS, 4, 0),
	/* 25 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_ROUTING, 3, 0),
	/* 26 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_FRAGMENT, 2, 0),
	/* 27 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_DSTOPTS, 1, 0),
	/* 28 */ BPF_STMT(BPF_RET | BPF_K, 0),
	/* 29 */ BPF_STMT(BPF_RET | BPF_K, ACCEPT),
};

static struct accord_frame_tag stripped_tag(struct msghdr *message)
{
	struct accord_frame_tag tag = {0, 0};

	for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each; each = CMSG_NXTHDR(message, each)) {
		struct tpacket_auxdata auxiliary;

		if (each->cmsg_level != SOL_PACKET || each->cmsg_type != PACKET_AUXDATA)
			continue;
		memcpy(&auxiliary, CMSG_DATA(each), sizeof(auxiliary));
		if (!(auxiliary.tp_status & TP_STATUS_VLAN_VALID))
			continue;
		tag.control = auxiliary.tp_vlan_tci;
		tag.type = auxiliary.tp_status & TP_STATUS_VLAN_TPID_VALID ? auxiliary.tp_vlan_tpid : ETH_P_8021Q;
	}
	return tag;
}

static uint32_t packet_receive(struct accord_io *io, const struct accord_sink *sink, uint32_t limit)
{
	struct io_packet *socket = (struct io_packet *)io;
	int count;

	if (limit > ACCORD_IO_BATCH)
		limit = ACCORD_IO_BATCH;
	for (uint32_t i = 0; i < limit; i++)
		socket->receiving[i].msg_hdr.msg_controllen = sizeof(socket->control[i]);
	count = recvmmsg(socket->fd, socket->receiving, limit, MSG_DONTWAIT, NULL);
	if (count > 0) {
		socket->down = 0;
		socket->statistics.received += (uint32_t)count;
	}
	for (int i = 0; i < count; i++) {
		struct mmsghdr *message = &socket->receiving[i];
		const uint8_t *packet;
		struct accord_path path;
		uint32_t length;
		int result;

		if (message->msg_hdr.msg_flags & MSG_TRUNC) {
			sink->drop(sink->context, ACCORD_REASON_LONG_PACKET);
			continue;
		}
		result = accord_frame_parse(socket->received[i], message->msg_len, stripped_tag(&message->msg_hdr), &path,
		                            &packet, &length);
		if (result < 0)
			sink->drop(sink->context, (enum accord_reason) - result);
		else
			sink->packet(sink->context, &path, 0, packet, length);
	}
	return count > 0 ? (uint32_t)count : 0;
}

/* A device whose queue is full loses the rest, as on any link; the engine sends it again. */
static void packet_flush(struct accord_io *io)
{
	struct io_packet *socket = (struct io_packet *)io;
	uint32_t done = 0;

	while (done < socket->queued) {
		int count = sendmmsg(socket->fd, socket->sending + done, socket->queued - done, MSG_DONTWAIT);

		socket->statistics.send_wakeups++;
		if (count <= 0) {
			socket->down = errno != EAGAIN && errno != ENOBUFS;
			break;
		}
		done += (uint32_t)count;
	}
	socket->statistics.sent += done;
	socket->queued = 0;
}

static int packet_send(struct accord_io *io, const struct accord_path *path, const uint8_t *packet, uint32_t length)
{
	struct io_packet *socket = (struct io_packet *)io;
	int built;

	if (socket->down)
		return -ACCORD_REASON_NO_SOCKET;
	if (accord_frame_bytes(path, length) - path->link_length > socket->mtu_bytes)
		return -ACCORD_REASON_LONG_PACKET;
	if (socket->queued == ACCORD_IO_BATCH)
		packet_flush(io);
	built = accord_frame_build(path, packet, length, socket->sent[socket->queued], FRAME_ROOM);
	if (built < 0)
		return built;
	socket->sending_vectors[socket->queued++].iov_len = (size_t)built;
	return 0;
}

static uint32_t packet_fds(const struct accord_io *io, int32_t *fds, uint32_t limit)
{
	if (!limit)
		return 0;
	fds[0] = ((const struct io_packet *)io)->fd;
	return 1;
}

static uint32_t packet_rings(struct accord_io *io, struct accord_ring_statistics *rings, uint32_t limit)
{
	struct io_packet *socket = (struct io_packet *)io;
	struct tpacket_stats kernel = {0};
	socklen_t bytes = sizeof(kernel);

	if (!limit)
		return 0;
	/* Reading sets the kernel's to zero. */
	if (!getsockopt(socket->fd, SOL_PACKET, PACKET_STATISTICS, &kernel, &bytes))
		socket->statistics.receive_dropped += kernel.tp_drops;
	rings[0] = socket->statistics;
	rings[0].size = ACCORD_IO_BATCH;
	return 1;
}

static void packet_close(struct accord_io *io)
{
	struct io_packet *socket = (struct io_packet *)io;

	if (socket->fd >= 0)
		close(socket->fd);
	free(socket);
}

static const struct accord_io_operations operations = {
	.receive = packet_receive,
	.send = packet_send,
	.flush = packet_flush,
	.fds = packet_fds,
	.rings = packet_rings,
	.close = packet_close,
};

static int attach_filter(int fd, struct sock_filter *filter, size_t length)
{
	const struct sock_fprog program = {.len = (uint16_t)length, .filter = filter};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

static void prepare_batches(struct io_packet *socket)
{
	for (uint32_t i = 0; i < ACCORD_IO_BATCH; i++) {
		socket->receiving_vectors[i] = (struct iovec){socket->received[i], FRAME_ROOM};
		socket->receiving[i].msg_hdr.msg_iov = &socket->receiving_vectors[i];
		socket->receiving[i].msg_hdr.msg_iovlen = 1;
		socket->receiving[i].msg_hdr.msg_control = socket->control[i];
		socket->sending_vectors[i] = (struct iovec){socket->sent[i], 0};
		socket->sending[i].msg_hdr.msg_iov = &socket->sending_vectors[i];
		socket->sending[i].msg_hdr.msg_iovlen = 1;
	}
}

static int call_failed(struct accord_failure *failure, const char *call, int interface, int fd)
{
	int error = errno;

	if (fd >= 0)
		close(fd);
	return accord_fail(failure, accord_reason_of_errno(error, ACCORD_REASON_NO_KERNEL_SUPPORT), error,
	                   "%s for interface %d", call, interface);
}

int accord_io_packet_socket(int interface, struct accord_failure *failure)
{
	const struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = interface,
	};
	const struct accord_request request = {.kind = ACCORD_ASK_PACKET, .number = (uint32_t)interface};
	const int on = 1, buffer = RECEIVE_BUFFER;
	int fd, result;

	if (accord_privilege_asks()) {
		result = accord_ask(request, NULL, 0, -1, NULL, 0, &fd, failure);
		return result < 0 ? result : fd;
	}
	/* Protocol 0: nothing comes in before the filter is there and the socket is bound. */
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return call_failed(failure, "socket(AF_PACKET)", interface, fd);
	if (attach_filter(fd, magic_filter, sizeof(magic_filter) / sizeof(*magic_filter)) ||
	    setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof(on)))
		return call_failed(failure, "SO_ATTACH_FILTER on AF_PACKET", interface, fd);
	if (setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)))
		return call_failed(failure, "PACKET_AUXDATA", interface, fd);
	if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)))
		return call_failed(failure, "PACKET_IGNORE_OUTGOING", interface, fd);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer)); /* as much as net.core.rmem_max allows */
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)))
		return call_failed(failure, "bind of AF_PACKET", interface, fd);
	return fd;
}

int accord_io_packet_open(const struct accord_netdev *netdev, struct accord_io **io, struct accord_failure *failure)
{
	struct io_packet *packet = calloc(1, sizeof(*packet));
	int result;

	if (!packet)
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, ENOMEM, "AF_PACKET buffers");
	packet->io.operations = &operations;
	packet->mtu_bytes = netdev->mtu;
	prepare_batches(packet);
	packet->fd = accord_io_packet_socket(netdev->index, failure);
	if (packet->fd < 0) {
		result = packet->fd;
		packet_close(&packet->io);
		return result;
	}
	*io = &packet->io;
	return 0;
}
