/* SPDX-License-Identifier: Apache-2.0 */
/* What the host is asked before a birth is expected: who listens, by which interface, and is the kernel willing. */
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "birth_program.h"
#include "failure.h"

enum {
	STATE_LISTEN = 10, /* <linux/tcp.h>, <netinet/tcp.h>: not both at once */
	REPLY_BYTES = 32768,
	LOOPBACK_NET = 127,
};

static const char cookies_path[] = "/proc/sys/net/ipv4/tcp_syncookies";

/* The kernel looks at what was assigned to a segment where it would check a SYN cookie: with 0 it never does. */
static int check_cookies(struct accord_failure *failure)
{
	char value = '0';
	int fd = open(cookies_path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? 0 : read(fd, &value, 1);

	if (fd >= 0)
		close(fd);
	if (got == 1 && value != '0')
		return 0;
	return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, 0,
	                   got == 1 ? "net.ipv4.tcp_syncookies is 0, and the first segment would be reset"
	                            : "this kernel has no net.ipv4.tcp_syncookies");
}

/* One request, and what comes first of the answer. Returns its length, -1 with errno. */
static ssize_t exchange(int protocol, const void *request, size_t bytes, void *reply, int *more)
{
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, protocol), error;
	ssize_t got = -1;

	if (fd < 0)
		return -1;
	if (send(fd, request, bytes, 0) == (ssize_t)bytes)
		got = recv(fd, reply, REPLY_BYTES, 0);
	error = errno;
	if (more && got >= 0)
		*more = fd;
	else
		close(fd);
	errno = error;
	return got;
}

/* 0 when it is no error message; else its errno. */
static int error_in(const struct nlmsghdr *message, ssize_t got)
{
	const struct nlmsgerr *said = NLMSG_DATA(message);

	if (!NLMSG_OK(message, got))
		return EPROTO;
	return message->nlmsg_type == NLMSG_ERROR ? -said->error : 0;
}

/* Of an exchange, as an errno; 0: there is an answer. */
static int outcome(const struct nlmsghdr *message, ssize_t got)
{
	int error = errno;

	if (got >= 0)
		return error_in(message, got);
	return error ? error : EPROTO;
}

/* ---- who listens ---- */

struct diag_request {
	struct nlmsghdr header;
	struct inet_diag_req_v2 body;
};

static struct diag_request diag_request(uint8_t family, uint16_t flags)
{
	struct diag_request made = {
		.header = {.nlmsg_len = sizeof(made),
	               .nlmsg_type = SOCK_DIAG_BY_FAMILY,
	               .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags)},
		.body = {.sdiag_family = family, .sdiag_protocol = IPPROTO_TCP, .idiag_ext = 1 << (INET_DIAG_INFO - 1)},
	};

	made.body.id.idiag_cookie[0] = made.body.id.idiag_cookie[1] = (uint32_t)INET_DIAG_NOCOOKIE;
	return made;
}

/* Its upper-layer protocol is told by name, among the attributes. The kernel makes no such socket from outside. */
static int speaks_mptcp(const struct nlmsghdr *message)
{
	return memmem(message, message->nlmsg_len, "mptcp", sizeof("mptcp")) != NULL;
}

static int is_reached(const struct inet_diag_msg *listener)
{
	const uint8_t *address = (const uint8_t *)listener->id.idiag_src;

	if (listener->idiag_family == AF_INET)
		return address[0] != LOOPBACK_NET;
	return memcmp(address, &in6addr_loopback, sizeof(in6addr_loopback)) != 0;
}

struct listeners {
	int reached, unreached, mptcp;
};

static int count(int fd, char *reply, ssize_t got, struct listeners *found)
{
	for (;;) {
		ssize_t left = got;

		for (const struct nlmsghdr *each = (void *)reply; NLMSG_OK(each, left); each = NLMSG_NEXT(each, left)) {
			if (each->nlmsg_type == NLMSG_DONE)
				return 0;
			if (each->nlmsg_type == NLMSG_ERROR)
				return error_in(each, left);
			if (speaks_mptcp(each))
				found->mptcp++;
			else if (is_reached(NLMSG_DATA(each)))
				found->reached++;
			else
				found->unreached++;
		}
		got = recv(fd, reply, REPLY_BYTES, 0);
		if (got <= 0)
			return got < 0 ? errno : EPROTO;
	}
}

static int listing(uint8_t family, uint16_t port, struct listeners *found)
{
	char reply[REPLY_BYTES] __attribute__((aligned(8)));
	struct diag_request request = diag_request(family, NLM_F_DUMP);
	int fd = -1, error;
	ssize_t got;

	request.body.idiag_states = 1u << STATE_LISTEN;
	request.body.id.idiag_sport = htons(port);
	got = exchange(NETLINK_SOCK_DIAG, &request, sizeof(request), reply, &fd);
	if (got < 0)
		return errno;
	error = count(fd, reply, got, found);
	close(fd);
	return error;
}

int accord_birth_listens(uint16_t port, struct accord_failure *failure)
{
	struct listeners found = {0};
	int result = check_cookies(failure), error;

	if (result)
		return result;
	error = listing(AF_INET, port, &found);
	if (!error)
		error = listing(AF_INET6, port, &found);
	if (error)
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, error, "asking who listens on TCP port %u%s", port,
		                   error == ENOENT ? ", which takes the module tcp_diag" : "");
	if (found.reached)
		return 0;
	if (found.mptcp)
		return accord_fail(failure, ACCORD_REASON_CANNOT_INSTALL, 0,
		                   "the program on TCP port %u listens with MPTCP, and cannot be given connections", port);
	return accord_fail(failure, ACCORD_REASON_BACKEND_FAILED, 0, "nobody listens on TCP port %u%s", port,
	                   found.unreached ? ", but on loopback" : "");
}

/* What the kernel would find for the connection's first segment: it is asked with that one's addresses and ports. */
static int check_listener(const struct accord_tcp_state *state, struct accord_failure *failure)
{
	char reply[REPLY_BYTES] __attribute__((aligned(8)));
	struct diag_request request = diag_request(state->family == 4 ? AF_INET : AF_INET6, 0);
	const struct nlmsghdr *message = (void *)reply;
	const struct inet_diag_msg *found = NLMSG_DATA(message);
	int error;
	ssize_t got;

	request.body.id.idiag_sport = htons(state->local_port);
	request.body.id.idiag_dport = htons(state->remote_port);
	request.body.id.idiag_if = state->scope;
	memcpy(request.body.id.idiag_src, state->local, sizeof(state->local));
	memcpy(request.body.id.idiag_dst, state->remote, sizeof(state->remote));
	got = exchange(NETLINK_SOCK_DIAG, &request, sizeof(request), reply, NULL);
	error = outcome(message, got);
	if (error == ENOENT)
		return accord_fail(failure, ACCORD_REASON_BACKEND_FAILED, 0, "nobody listens on TCP port %u",
		                   state->local_port);
	if (error || message->nlmsg_len < NLMSG_LENGTH(sizeof(*found)))
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, error ? error : EPROTO,
		                   "asking who listens on TCP port %u", state->local_port);
	if (found->idiag_state != STATE_LISTEN)
		return accord_fail(failure, ACCORD_REASON_CANNOT_INSTALL, 0,
		                   "there is a connection between these ports already");
	if (speaks_mptcp(message))
		return accord_fail(failure, ACCORD_REASON_CANNOT_INSTALL, 0, "the program on TCP port %u listens with MPTCP",
		                   state->local_port);
	return 0;
}

/* ---- by which interface ---- */

struct route_request {
	struct nlmsghdr header;
	struct rtmsg body;
	char attributes[2 * RTA_SPACE(16)];
};

static void add_address(struct route_request *request, uint16_t type, const uint8_t *address, size_t bytes)
{
	struct rtattr *attribute = (void *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = (uint16_t)RTA_LENGTH(bytes);
	memcpy(RTA_DATA(attribute), address, bytes);
	request->header.nlmsg_len = (uint32_t)(NLMSG_ALIGN(request->header.nlmsg_len) + RTA_SPACE(bytes));
}

static int interface_in(const struct nlmsghdr *message)
{
	const struct rtmsg *body = NLMSG_DATA(message);
	int left = (int)RTM_PAYLOAD(message), interface = 0;

	for (const struct rtattr *each = RTM_RTA(body); RTA_OK(each, left); each = RTA_NEXT(each, left))
		if (each->rta_type == RTA_OIF && RTA_PAYLOAD(each) == sizeof(interface))
			memcpy(&interface, RTA_DATA(each), sizeof(interface));
	return interface;
}

/* Segments are taken to come from where answers to them go. On another interface the first one would meet no program,
 * and be reset. */
static int check_interface(const struct accord_tcp_state *state, int interface, struct accord_failure *failure)
{
	char reply[REPLY_BYTES] __attribute__((aligned(8)));
	const size_t bytes = state->family == 4 ? 4 : 16;
	struct route_request request = {
		.header = {.nlmsg_len = NLMSG_LENGTH(sizeof(request.body)),
	               .nlmsg_type = RTM_GETROUTE,
	               .nlmsg_flags = NLM_F_REQUEST},
		.body = {.rtm_family = state->family == 4 ? AF_INET : AF_INET6,
	             .rtm_dst_len = (uint8_t)(bytes * 8),
	             .rtm_src_len = (uint8_t)(bytes * 8)},
	};
	const struct nlmsghdr *message = (void *)reply;
	int found = (int)state->scope, error;
	ssize_t got;

	if (!found) {
		add_address(&request, RTA_DST, state->remote, bytes);
		add_address(&request, RTA_SRC, state->local, bytes);
		got = exchange(NETLINK_ROUTE, &request, request.header.nlmsg_len, reply, NULL);
		error = outcome(message, got);
		if (error)
			return accord_fail(failure, ACCORD_REASON_CANNOT_INSTALL, error, "asking for the route to the peer");
		found = interface_in(message);
	}
	if (found == interface)
		return 0;
	return accord_fail(failure, ACCORD_REASON_CANNOT_INSTALL, 0,
	                   "the peer is reached by interface %d, and the daemon's is %d", found, interface);
}

int accord_birth_possible(const struct accord_tcp_state *state, int interface, struct accord_failure *failure)
{
	const uint16_t least = state->family == 4 ? ACCORD_BIRTH_MIN_MSS4 : ACCORD_BIRTH_MIN_MSS6;
	int result = check_cookies(failure);

	if (!result && state->remote_mss < least)
		result = accord_fail(failure, ACCORD_REASON_CANNOT_INSTALL, 0,
		                     "the peer's MSS is %u, and has to be %u at least", state->remote_mss, least);
	if (!result)
		result = check_interface(state, interface, failure);
	return result ? result : check_listener(state, failure);
}
