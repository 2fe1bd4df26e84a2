/* SPDX-License-Identifier: Apache-2.0 */
#include "io_direct.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/errqueue.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>

#include "address.h"
#include "ask.h"
#include "io_udp.h"

enum {
	MAGIC_AT = 4,
	ACCEPT = 0x40000,
	IPV4_MOST = 60, /* bytes of an IPv4 header with options: a raw socket has it before the packet, IPv6's not */
	CONTROL_BYTES = 256,
};

/* A load beyond the packet's end drops it (bpf(4)). */
static struct sock_filter magic_ipv4[] = {
	BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0),
	BPF_STMT(BPF_LD | BPF_W | BPF_IND, MAGIC_AT),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ACCORD_MAGIC, 0, 1),
	BPF_STMT(BPF_RET | BPF_K, ACCEPT),
	BPF_STMT(BPF_RET | BPF_K, 0),
};
static struct sock_filter magic_ipv6[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, MAGIC_AT),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ACCORD_MAGIC, 0, 1),
	BPF_STMT(BPF_RET | BPF_K, ACCEPT),
	BPF_STMT(BPF_RET | BPF_K, 0),
};
static struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};

#define PROGRAM(filter) ((struct sock_fprog){sizeof(filter) / sizeof(*(filter)), filter})

int accord_direct_socket(int family, int deaf)
{
	const struct accord_request request = {
		.kind = ACCORD_ASK_DIRECT,
		.number = (uint32_t)family,
		.mode = (uint32_t)deaf,
	};
	struct sock_fprog filter = deaf ? PROGRAM(nothing) : family == AF_INET ? PROGRAM(magic_ipv4) : PROGRAM(magic_ipv6);
	const int on = 1;
	int fd;

	if (accord_privilege_asks())
		return accord_ask(request, NULL, 0, -1, NULL, 0, &fd, NULL) < 0 ? -1 : fd;
	/* Protocol first, filter second: what comes between the two is checked once more on receipt. */
	fd = socket(family, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, ACCORD_PROTOCOL_DIRECT);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter));
	setsockopt(fd, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof(on));
	if (family == AF_INET) {
		setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
		setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on));
	} else {
		setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
		setsockopt(fd, IPPROTO_IPV6, IPV6_RECVERR, &on, sizeof(on));
	}
	return fd;
}

void accord_direct_open(struct accord_direct *direct, int deaf)
{
	direct->fd[0] = accord_direct_socket(AF_INET, deaf);
	direct->fd[1] = accord_direct_socket(AF_INET6, deaf);
}

void accord_direct_close(struct accord_direct *direct)
{
	for (int i = 0; i < ACCORD_DIRECT_SOCKETS; i++) {
		if (direct->fd[i] >= 0)
			close(direct->fd[i]);
		direct->fd[i] = -1;
	}
}

static struct accord_path empty_path(void)
{
	const struct accord_path path = {.context = ACCORD_PROTOCOL_DIRECT, .socket = ACCORD_PATH_NO_SOCKET};

	return path;
}

/* Where a raw socket of IPv6 has ports in its addresses, it means the protocol. */
static int take_remote(struct accord_path *path, const struct sockaddr_storage *from)
{
	int result = accord_address_remote(path, from);

	path->remote_port = 0;
	return result;
}

/* Bytes of the IP header in front of a packet, or -1. */
static int header_bytes(uint32_t which, const uint8_t *data, uint32_t length)
{
	uint32_t bytes;

	if (which)
		return 0;
	bytes = length ? (data[0] & 15u) * 4 : 0;
	return bytes >= sizeof(struct in_addr) * 5 && bytes <= length ? (int)bytes : -1;
}

uint32_t accord_direct_receive(const struct accord_direct *direct, uint32_t which, const struct accord_sink *sink,
                               uint32_t limit)
{
	uint32_t taken = 0;

	for (; taken < limit; taken++) {
		uint8_t data[IPV4_MOST + ACCORD_MAX_PACKET];
		uint8_t control[CONTROL_BYTES] __attribute__((aligned(sizeof(struct cmsghdr))));
		struct sockaddr_storage from = {0};
		struct iovec vector = {data, sizeof(data)};
		struct msghdr message = {
			.msg_name = &from,
			.msg_namelen = sizeof(from),
			.msg_iov = &vector,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control),
		};
		struct accord_path path = empty_path();
		ssize_t length = recvmsg(direct->fd[which], &message, MSG_DONTWAIT);
		int interface = 0, header;

		if (length < 0)
			break;
		header = header_bytes(which, data, (uint32_t)length);
		if (header < 0 || message.msg_flags & MSG_TRUNC || take_remote(&path, &from)) {
			sink->drop(sink->context, ACCORD_REASON_MALFORMED_FRAME);
			continue;
		}
		accord_address_local(&path, &message, &interface);
		if (accord_io_is_ours(data + header, (uint32_t)(length - header)))
			sink->packet(sink->context, &path, interface, data + header, (uint32_t)(length - header));
		else
			sink->drop(sink->context, ACCORD_REASON_NOT_OURS_MAGIC);
	}
	return taken;
}

/* A kernel that does not know the protocol says so: IPv4 as unreachable, IPv6 as a problem with a parameter. */
static int is_refusal(const struct sock_extended_err *error)
{
	if (error->ee_origin == SO_EE_ORIGIN_ICMP)
		return error->ee_type == ICMP_DEST_UNREACH && error->ee_code != ICMP_FRAG_NEEDED;
	return error->ee_origin == SO_EE_ORIGIN_ICMP6 &&
	       (error->ee_type == ICMPV6_DEST_UNREACH ||
	        (error->ee_type == ICMPV6_PARAMPROB && error->ee_code == ICMPV6_UNK_NEXTHDR));
}

int accord_direct_error(const struct accord_direct *direct, uint32_t which, struct accord_path *path)
{
	for (;;) {
		uint8_t packet[1], control[CONTROL_BYTES] __attribute__((aligned(sizeof(struct cmsghdr))));
		struct sockaddr_storage to = {0}; /* where the packet that was refused went */
		struct iovec vector = {packet, sizeof(packet)};
		struct msghdr message = {
			.msg_name = &to,
			.msg_namelen = sizeof(to),
			.msg_iov = &vector,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control),
		};

		*path = empty_path();
		if (recvmsg(direct->fd[which], &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			return 0;
		if (take_remote(path, &to))
			continue;
		for (struct cmsghdr *each = CMSG_FIRSTHDR(&message); each; each = CMSG_NXTHDR(&message, each)) {
			struct sock_extended_err error;

			if (!(each->cmsg_level == IPPROTO_IP && each->cmsg_type == IP_RECVERR) &&
			    !(each->cmsg_level == IPPROTO_IPV6 && each->cmsg_type == IPV6_RECVERR))
				continue;
			memcpy(&error, CMSG_DATA(each), sizeof(error));
			if (is_refusal(&error))
				return 1;
		}
	}
}

int accord_direct_send(const struct accord_direct *direct, const struct accord_path *path, const uint8_t *packet,
                       uint32_t length)
{
	sa_family_t family = path->family == 4 ? AF_INET : AF_INET6;
	int fd = direct->fd[path->family != 4];
	uint8_t control[CMSG_SPACE(sizeof(struct in6_pktinfo))] __attribute__((aligned(sizeof(struct cmsghdr))));
	struct iovec vector = {(void *)(uintptr_t)packet, length};
	struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
	struct sockaddr_storage to;

	if (fd < 0)
		return -ACCORD_REASON_NO_SOCKET;
	message.msg_name = &to;
	message.msg_namelen = accord_address_to(path, family, &to);
	accord_address_from(path, family, &message, control);
	/* An ICMP error for an earlier packet, maybe another peer's, fails the next call: once. */
	for (int attempt = 0; attempt < 2; attempt++)
		if (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
			return 0;
	return -(int)accord_udp_send_reason(errno);
}
