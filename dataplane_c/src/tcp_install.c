/* SPDX-License-Identifier: Apache-2.0 */
#include "tcp_install.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ask.h"
#include "failure.h"

enum {
	REPAIR_ON = 1,
	/* 0 would send a window probe, which a peer that is not ready answers with a reset. */
	REPAIR_OFF_NO_PROBE = -1,
	DISCARD = 9, /* RFC 863; nothing is sent to it: the port only has to be some port */
	/* What TCP_MAXSEG takes. */
	MIN_MSS = 88,
	MAX_MSS = 32767,
	STATE_ESTABLISHED = 1,
	/* Codes of struct tcp_repair_opt are option kinds (RFC 9293, 7323, 2018). */
	OPTION_MSS = 2,
	OPTION_WINDOW_SCALE = 3,
	OPTION_SACK_PERMITTED = 4,
	OPTION_TIMESTAMPS = 8,
	MAX_OPTIONS = 4,
};

/* The errno's text is added by who shows it. */
static int fail(struct accord_failure *failure, const char *call, int error)
{
	int result = accord_fail(failure, accord_reason_of_errno(error, ACCORD_REASON_CANNOT_INSTALL), 0, "%s", call);

	if (failure)
		failure->error = error;
	return result;
}

static int set(int fd, int option, const void *value, socklen_t bytes, const char *name, struct accord_failure *failure)
{
	char call[64];

	if (!setsockopt(fd, IPPROTO_TCP, option, value, bytes))
		return 0;
	snprintf(call, sizeof(call), "setsockopt(%s)", name);
	return fail(failure, call, errno);
}

static int set_number(int fd, int option, int value, const char *name, struct accord_failure *failure)
{
	return set(fd, option, &value, sizeof(value), name, failure);
}

static socklen_t fill_address(const struct accord_tcp_state *state, const uint8_t *address, uint16_t port,
                              struct sockaddr_storage *filled)
{
	struct sockaddr_in *ipv4 = (struct sockaddr_in *)filled;
	struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)filled;

	memset(filled, 0, sizeof(*filled));
	if (state->family == 4) {
		ipv4->sin_family = AF_INET;
		ipv4->sin_port = htons(port);
		memcpy(&ipv4->sin_addr, address, sizeof(ipv4->sin_addr));
		return sizeof(*ipv4);
	}
	ipv6->sin6_family = AF_INET6;
	ipv6->sin6_port = htons(port);
	ipv6->sin6_scope_id = state->scope;
	memcpy(&ipv6->sin6_addr, address, sizeof(ipv6->sin6_addr));
	return sizeof(*ipv6);
}

static int address_fails(const struct accord_tcp_state *state, const char *call, const uint8_t *address,
                         const char *more, struct accord_failure *failure)
{
	int error = errno;
	char text[INET6_ADDRSTRLEN] = "", whole[sizeof(failure->detail)];

	inet_ntop(state->family == 4 ? AF_INET : AF_INET6, address, text, sizeof(text));
	snprintf(whole, sizeof(whole), "%s(%s%s", call, text, more);
	return fail(failure, whole, error);
}

static int bind_local(const struct accord_tcp_state *state, int fd, uint16_t port, struct accord_failure *failure)
{
	struct sockaddr_storage local;
	socklen_t bytes = fill_address(state, state->local, port, &local);
	char more[24];

	if (!bind(fd, (struct sockaddr *)&local, bytes))
		return 0;
	snprintf(more, sizeof(more), port ? ", port %u)" : ")", port);
	return address_fails(state, "bind", state->local, more, failure);
}

/* In repair mode: connect() and close() change state and send nothing, and a port is bound in spite of others. */
static int open_scratch(const struct accord_tcp_state *state, struct accord_failure *failure)
{
	/* Never an MPTCP socket, which has no repair mode. */
	int fd = socket(state->family == 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP), result;

	if (fd < 0)
		return fail(failure, "socket(SOCK_STREAM, IPPROTO_TCP)", errno);
	result = set_number(fd, TCP_REPAIR, REPAIR_ON, "TCP_REPAIR on", failure);
	if (!result)
		result = bind_local(state, fd, 0, failure);
	if (!result)
		return fd;
	close(fd);
	return result;
}

int accord_tcp_numbers_here(const struct accord_tcp_state *state, struct accord_tcp_numbers *numbers,
                            struct accord_failure *failure)
{
	struct tcp_repair_window window = {0};
	struct tcp_info info = {0};
	struct sockaddr_storage remote;
	socklen_t info_bytes = sizeof(info), window_bytes = sizeof(window);
	socklen_t bytes = fill_address(state, state->remote, DISCARD, &remote);
	int fd = open_scratch(state, failure), result = 0;

	if (fd < 0)
		return fd;
	if (connect(fd, (struct sockaddr *)&remote, bytes))
		result = address_fails(state, "connect", state->remote, ") for its route", failure);
	else if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_bytes) ||
	         getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, &window_bytes))
		result = fail(failure, "getsockopt(TCP_INFO, TCP_REPAIR_WINDOW)", errno);
	numbers->mss = info.tcpi_advmss;
	numbers->window = window.rcv_wnd;
	close(fd);
	return result;
}

/* Before connect() only: afterwards the kernel answers EPERM. */
static int set_sequence(int fd, int queue, uint32_t sequence, struct accord_failure *failure)
{
	int result = set_number(fd, TCP_REPAIR_QUEUE, queue, "TCP_REPAIR_QUEUE", failure);

	return result ? result : set(fd, TCP_QUEUE_SEQ, &sequence, sizeof(sequence), "TCP_QUEUE_SEQ", failure);
}

static int set_options(const struct accord_tcp_state *state, int fd, struct accord_failure *failure)
{
	struct tcp_repair_opt options[MAX_OPTIONS] = {
		{OPTION_MSS, state->remote_mss},
		/* Without window scaling it has to be zero: connect() has chosen a scale for our windows already, and would
	     * go on dividing what it advertises by it. */
		{OPTION_WINDOW_SCALE, state->remote_scale | (uint32_t)state->local_scale << 16},
	};
	uint32_t count = 2;

	if (state->sack)
		options[count++] = (struct tcp_repair_opt){OPTION_SACK_PERMITTED, 0};
	if (state->timestamps)
		options[count++] = (struct tcp_repair_opt){OPTION_TIMESTAMPS, 0};
	return set(fd, TCP_REPAIR_OPTIONS, options, count * (socklen_t)sizeof(*options), "TCP_REPAIR_OPTIONS", failure);
}

/* Without it the send window is 0, and nothing ever flows. */
static int set_window(const struct accord_tcp_state *state, int fd, struct accord_failure *failure)
{
	const struct tcp_repair_window window = {
		.snd_wl1 = state->remote_isn,
		.snd_wnd = state->remote_window,
		.max_window = state->remote_window,
		.rcv_wnd = state->local_window,
		.rcv_wup = state->remote_isn + 1,
	};

	return set(fd, TCP_REPAIR_WINDOW, &window, sizeof(window), "TCP_REPAIR_WINDOW", failure);
}

static int verify(const struct accord_tcp_state *state, int fd, struct accord_failure *failure)
{
	struct tcp_info info = {0};
	socklen_t bytes = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes))
		return fail(failure, "getsockopt(TCP_INFO)", errno);
	if (info.tcpi_state == STATE_ESTABLISHED && !!(info.tcpi_options & TCPI_OPT_SACK) == !!state->sack &&
	    !!(info.tcpi_options & TCPI_OPT_TIMESTAMPS) == !!state->timestamps &&
	    info.tcpi_snd_wscale == state->remote_scale && info.tcpi_rcv_wscale == state->local_scale)
		return 0;
	return accord_fail(failure, ACCORD_REASON_CANNOT_INSTALL, 0,
	                   "the kernel took the TCP state but shows another one: state %u, options %x, scales %u and %u",
	                   info.tcpi_state, info.tcpi_options, info.tcpi_snd_wscale, info.tcpi_rcv_wscale);
}

static int install(const struct accord_tcp_state *state, int fd, struct accord_failure *failure)
{
	const int reuse = 1;
	int mss = state->remote_mss < MIN_MSS ? MIN_MSS : state->remote_mss > MAX_MSS ? MAX_MSS : state->remote_mss;
	struct sockaddr_storage remote;
	socklen_t bytes = fill_address(state, state->remote, state->remote_port, &remote);
	char more[48];
	int result = set_number(fd, TCP_REPAIR, REPAIR_ON, "TCP_REPAIR on", failure);

	if (!result && state->service)
		result = bind_local(state, fd, state->local_port, failure);
	if (!result)
		result = set_sequence(fd, TCP_SEND_QUEUE, state->local_isn + 1, failure);
	if (!result)
		result = set_sequence(fd, TCP_RECV_QUEUE, state->remote_isn + 1, failure);
	/* connect() in repair mode computes the size of what is sent once, from this or from the default of 536 or 1220
	 * bytes; the MSS of TCP_REPAIR_OPTIONS comes too late for it and only matters for path MTU discovery. */
	if (!result)
		result = set_number(fd, TCP_MAXSEG, mss, "TCP_MAXSEG", failure);
	if (!result && connect(fd, (struct sockaddr *)&remote, bytes)) {
		snprintf(more, sizeof(more), ", port %u) from port %u", state->remote_port, state->local_port);
		result = address_fails(state, "connect", state->remote, more, failure);
	}
	if (!result)
		result = set_options(state, fd, failure);
	if (!result)
		result = set_window(state, fd, failure);
	if (!result && state->timestamps)
		result = set(fd, TCP_TIMESTAMP, &state->timestamp, sizeof(state->timestamp), "TCP_TIMESTAMP", failure);
	if (!result)
		result = verify(state, fd, failure);
	/* From here on the kernel speaks for the socket. Nothing is sent by this itself. */
	if (!result)
		result = set_number(fd, TCP_REPAIR, REPAIR_OFF_NO_PROBE, "TCP_REPAIR off", failure);
	/* As a listener's connections have it, so that a service that starts anew is not kept from its port. Not before:
	 * repair mode uses this flag itself, and clears it. Nothing that has a socket refuses it. */
	if (!result && state->service)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
	return result;
}

/* tcp_disconnect() of a socket in repair mode sends neither FIN nor RST, whatever has arrived meanwhile. Whoever owns
 * the socket gets it back as it was made: in repair mode it could do more than its owner may. */
static int leave_silently(int fd, struct accord_failure *failure)
{
	const struct sockaddr nobody = {.sa_family = AF_UNSPEC};

	if (connect(fd, &nobody, sizeof(nobody)))
		return fail(failure, "connect(AF_UNSPEC)", errno);
	return set_number(fd, TCP_REPAIR, REPAIR_OFF_NO_PROBE, "TCP_REPAIR off", failure);
}

int accord_tcp_install_here(const struct accord_tcp_state *state, int fd, struct accord_failure *failure)
{
	int result = install(state, fd, failure);

	if (result)
		leave_silently(fd, NULL);
	return result;
}

/* The kernel has acknowledged it, so whoever sent it would wait for an answer until its keepalive finds nobody. */
static int holds_data(int fd)
{
	int bytes = 0;

	return !ioctl(fd, SIOCINQ, &bytes) && bytes > 0;
}

int accord_tcp_silence_here(int fd, struct accord_failure *failure)
{
	int result = set_number(fd, TCP_REPAIR, REPAIR_ON, "TCP_REPAIR on", failure);

	if (result)
		return result;
	/* Outside of repair mode close() sends a reset, as RFC 9293, section 3.6.1 has it. */
	if (holds_data(fd))
		return set_number(fd, TCP_REPAIR, REPAIR_OFF_NO_PROBE, "TCP_REPAIR off", failure);
	return leave_silently(fd, failure);
}

int accord_tcp_numbers(const struct accord_tcp_state *state, struct accord_tcp_numbers *numbers,
                       struct accord_failure *failure)
{
	const struct accord_request request = {.kind = ACCORD_ASK_TCP_NUMBERS};

	if (!accord_privilege_asks())
		return accord_tcp_numbers_here(state, numbers, failure);
	return accord_ask(request, state, sizeof(*state), -1, numbers, sizeof(*numbers), NULL, failure);
}

void accord_tcp_install(const struct accord_tcp_state *state, int32_t fd, struct accord_ahead *ahead)
{
	const struct accord_request request = {.kind = ACCORD_ASK_TCP_INSTALL};

	if (accord_privilege_asks()) {
		accord_ask_ahead(request, state, sizeof(*state), fd, ahead);
		return;
	}
	memset(ahead, 0, sizeof(*ahead));
	ahead->reply.result = accord_tcp_install_here(state, fd, &ahead->reply.failure);
	ahead->answered = 1;
}

int accord_tcp_installed(struct accord_ahead *ahead, struct accord_failure *failure)
{
	return accord_ask_answer(ahead, failure);
}

int accord_tcp_silence(int32_t fd, struct accord_failure *failure)
{
	const struct accord_request request = {.kind = ACCORD_ASK_TCP_SILENCE};

	return accord_privilege_asks() ? accord_ask(request, NULL, 0, fd, NULL, 0, NULL, failure)
	                               : accord_tcp_silence_here(fd, failure);
}
