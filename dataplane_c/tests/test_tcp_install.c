// SPDX-License-Identifier: Apache-2.0
/*
 * TCP connections without a SYN, under sanitizers: in a network namespace of the test's own, which takes root. Without
 * it, what remains is that the refusal is told.
 */
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/tcp.h>

#include "check.h"
#include "tcp_install.h"

enum {
	STATE_ESTABLISHED = 1,
	STATE_CLOSE = 7,
};

static const struct accord_tcp_state one_side = {
	.family = 4,
	.service = 1,
	.sack = 1,
	.timestamps = 1,
	.local_scale = 7,
	.remote_scale = 7,
	.local_port = 4001,
	.remote_port = 4002,
	.remote_mss = 1460,
	.local_isn = 0xffffffff, /* wraps at once */
	.remote_isn = 1000,
	.local_window = 65535,
	.remote_window = 65535,
	.timestamp = 1000,
	.local = {127, 0, 0, 1},
	.remote = {127, 0, 0, 1},
};

static struct accord_tcp_state other_side(void)
{
	struct accord_tcp_state other = one_side;

	other.local_port = one_side.remote_port;
	other.remote_port = one_side.local_port;
	other.local_isn = one_side.remote_isn;
	other.remote_isn = one_side.local_isn;
	return other;
}

static int is_alone(void)
{
	struct ifreq loopback = {.ifr_name = "lo"};
	int fd, up;

	if (unshare(CLONE_NEWNET))
		return 0;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	loopback.ifr_flags = IFF_UP;
	up = !ioctl(fd, SIOCSIFFLAGS, &loopback);
	close(fd);
	return up;
}

static int tcp(void)
{
	return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
}

static int state_of(int fd)
{
	struct tcp_info info = {0};
	socklen_t bytes = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) ? -1 : info.tcpi_state;
}

static int in_repair(int fd)
{
	socklen_t bytes = sizeof(int);
	int value = -1;

	getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &value, &bytes);
	return value;
}

static void two_installed_sides_talk_and_end_without_a_segment(void)
{
	const struct accord_tcp_state other = other_side();
	struct accord_failure failure = {0};
	int left = tcp(), right = tcp();
	char got[8] = {0};

	CHECK_EQUAL(accord_tcp_install_here(&one_side, left, &failure), 0);
	CHECK_EQUAL(accord_tcp_install_here(&other, right, &failure), 0);
	CHECK_EQUAL(state_of(left), STATE_ESTABLISHED);
	/* Loopback delivers before send returns. */
	CHECK_EQUAL(send(left, "there", 5, 0), 5);
	CHECK_EQUAL(recv(right, got, sizeof(got), 0), 5);
	CHECK(memcmp(got, "there", 5) == 0);
	CHECK_EQUAL(send(right, "back", 4, 0), 4);
	CHECK_EQUAL(recv(left, got, sizeof(got), 0), 4);
	CHECK_EQUAL(accord_tcp_silence_here(left, &failure), 0);
	CHECK_EQUAL(state_of(left), STATE_CLOSE);
	CHECK_EQUAL(in_repair(left), 0);
	/* The other has heard nothing of it. */
	CHECK_EQUAL(recv(right, got, sizeof(got), 0), -1);
	CHECK_EQUAL(errno, EAGAIN);
	CHECK_EQUAL(accord_tcp_silence_here(right, &failure), 0);
	close(left);
	close(right);
}

static void who_has_said_something_to_a_side_that_gives_up_is_reset(void)
{
	const struct accord_tcp_state other = other_side();
	struct accord_failure failure = {0};
	int left = tcp(), right = tcp();
	char got[8] = {0};

	CHECK_EQUAL(accord_tcp_install_here(&one_side, left, &failure), 0);
	CHECK_EQUAL(accord_tcp_install_here(&other, right, &failure), 0);
	CHECK_EQUAL(send(left, "there", 5, 0), 5);
	CHECK_EQUAL(accord_tcp_silence_here(right, &failure), 0);
	CHECK_EQUAL(in_repair(right), 0);
	close(right);
	CHECK_EQUAL(recv(left, got, sizeof(got), 0), -1);
	CHECK_EQUAL(errno, ECONNRESET);
	close(left);
}

static void a_state_that_the_kernel_refuses_leaves_the_socket_as_it_was(void)
{
	struct accord_tcp_state states[] = {one_side, one_side, one_side};

	states[0].local[0] = 192; /* not an address of this host */
	states[1].remote_scale = 15;
	states[2].local_scale = 15;
	for (uint32_t i = 0; i < sizeof(states) / sizeof(*states); i++) {
		struct accord_failure failure = {0};
		int fd = tcp();

		CHECK(accord_tcp_install_here(&states[i], fd, &failure) < 0);
		CHECK(failure.reason != ACCORD_REASON_OK);
		CHECK(failure.detail[0] != 0);
		CHECK_EQUAL(state_of(fd), STATE_CLOSE);
		CHECK_EQUAL(in_repair(fd), 0);
		close(fd);
	}
}

static void every_mss_gives_a_connection_or_a_reason(void)
{
	static const uint16_t sizes[] = {0, 1, 87, 88, 536, 1460, 32767, 32768, UINT16_MAX};

	for (uint32_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct accord_tcp_state state = one_side;
		struct accord_failure failure = {0};
		int fd = tcp(), result;

		state.remote_mss = sizes[i];
		result = accord_tcp_install_here(&state, fd, &failure);
		CHECK_EQUAL(state_of(fd), result ? STATE_CLOSE : STATE_ESTABLISHED);
		CHECK_EQUAL(result < 0, failure.reason != ACCORD_REASON_OK);
		if (!result)
			CHECK_EQUAL(accord_tcp_silence_here(fd, &failure), 0);
		close(fd);
	}
}

static void the_numbers_of_a_route_are_those_of_the_longest_segment_there(void)
{
	struct accord_tcp_numbers numbers = {0};
	struct accord_failure failure = {0};

	CHECK_EQUAL(accord_tcp_numbers_here(&one_side, &numbers, &failure), 0);
	CHECK_EQUAL(numbers.mss, 65535 - 40); /* loopback has more, an IP packet has not */
	CHECK(numbers.window > 0);
}

static void a_socket_that_is_not_tcp_is_told_of(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct accord_failure failure = {0};

	CHECK(accord_tcp_install_here(&one_side, fd, &failure) < 0);
	CHECK(strstr(failure.detail, "TCP_REPAIR") != NULL);
	CHECK(failure.error != 0);
	CHECK(accord_tcp_silence_here(fd, NULL) < 0);
	CHECK(accord_tcp_install_here(&one_side, -1, NULL) < 0);
	close(fd);
}

int main(void)
{
	RUN(a_socket_that_is_not_tcp_is_told_of);
	if (is_alone()) {
		RUN(two_installed_sides_talk_and_end_without_a_segment);
		RUN(who_has_said_something_to_a_side_that_gives_up_is_reset);
		RUN(a_state_that_the_kernel_refuses_leaves_the_socket_as_it_was);
		RUN(every_mss_gives_a_connection_or_a_reason);
		RUN(the_numbers_of_a_route_are_those_of_the_longest_segment_there);
	} else {
		printf("skip  the rest of test_tcp_install: needs root\n");
	}
	return check_report("test_tcp_install");
}
