// SPDX-License-Identifier: Apache-2.0
/*
 * The broker under sanitizers: requests that are cut short, too long, or lie. Without a second process: the test is
 * the worker, at the other end of the pair. The broker is allowed nothing, so nothing of the host is touched.
 */
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/if_link.h>

#include "check.h"
#include "core.h"
#include "world.h"

enum {
	HEAD = sizeof(struct accord_request),
	MOST_FDS = 4, /* one more than two too many */
	FORBIDDEN = 53,
	FUZZ_MESSAGES = 20000,
};

struct talk {
	struct accord_broker *broker;
	struct accord_pending pending;
	struct accord_reply reply;
	uint32_t answer_length; /* behind the reply */
	int worker, got;        /* got: the descriptor that came, -1: none */
};

/* Bytes of a kind's own data. */
static uint32_t data_length(uint32_t kind)
{
	if (kind == ACCORD_ASK_BIND)
		return sizeof(struct accord_bind);
	if (kind == ACCORD_ASK_TCP_NUMBERS || kind == ACCORD_ASK_TCP_INSTALL || kind == ACCORD_ASK_BIRTH ||
	    kind == ACCORD_ASK_BIRTH_END)
		return sizeof(struct accord_tcp_state);
	if (kind == ACCORD_ASK_CAPTURE_SEND)
		return sizeof(struct accord_capture_frame);
	if (kind == ACCORD_ASK_CAPTURE_UNMARK)
		return sizeof(uint64_t);
	return 0;
}

static int takes_descriptor(uint32_t kind)
{
	return kind == ACCORD_ASK_BUSY_POLL || kind == ACCORD_ASK_BIND || kind == ACCORD_ASK_TCP_INSTALL ||
	       kind == ACCORD_ASK_TCP_SILENCE || kind == ACCORD_ASK_SYNS_ANSWER || kind == ACCORD_ASK_CAPTURE_MARK;
}

static uint32_t open_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	uint32_t count = 0;

	while (directory && readdir(directory))
		count++;
	closedir(directory);
	return count;
}

static void begin(struct talk *talk)
{
	static const uint8_t no_ports[65536 / 8];
	const struct accord_broker_config config = {.object_path = "/nonexistent",
	                                            .sockops_path = "/nonexistent",
	                                            .capture_path = "/nonexistent",
	                                            .ports = no_ports};
	int pair[2];

	memset(talk, 0, sizeof(*talk));
	CHECK_EQUAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	talk->worker = pair[1];
	talk->broker = accord_broker_new(&config, pair[0]);
	CHECK(talk->broker != NULL);
}

static void end(struct talk *talk)
{
	accord_broker_free(talk->broker);
	close(talk->worker);
}

static void put(struct talk *talk, const void *bytes, uint32_t length, const int *fds, uint32_t count)
{
	uint8_t control[CMSG_SPACE(MOST_FDS * sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec vector = {(void *)(uintptr_t)bytes, length};
	struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1};

	if (count) {
		struct cmsghdr *rights = (struct cmsghdr *)(void *)control;

		header.msg_control = control;
		header.msg_controllen = CMSG_SPACE(count * sizeof(int));
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
	}
	CHECK_EQUAL(sendmsg(talk->worker, &header, 0), length);
}

static void take(struct talk *talk)
{
	uint8_t bytes[ACCORD_ASK_BYTES], control[CMSG_SPACE(MOST_FDS * sizeof(int))] __attribute__((aligned(8)));
	struct iovec vector = {bytes, sizeof(bytes)};
	struct msghdr header = {
		.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	ssize_t length = recvmsg(talk->worker, &header, MSG_DONTWAIT);
	const struct cmsghdr *rights = CMSG_FIRSTHDR(&header);

	CHECK(length >= (ssize_t)sizeof(talk->reply));
	memcpy(&talk->reply, bytes, sizeof(talk->reply));
	talk->answer_length = (uint32_t)length - (uint32_t)sizeof(talk->reply);
	talk->got = -1;
	if (rights)
		memcpy(&talk->got, CMSG_DATA(rights), sizeof(talk->got));
}

/* Ask and hear. A descriptor that comes is closed again. */
static int ask(struct talk *talk, const void *bytes, uint32_t length, const int *fds, uint32_t count)
{
	put(talk, bytes, length, fds, count);
	CHECK_EQUAL(accord_broker_step(talk->broker, &talk->pending), 1);
	take(talk);
	if (talk->got >= 0)
		close(talk->got);
	return talk->reply.result;
}

static void refused(struct talk *talk, const void *bytes, uint32_t length, const int *fds, uint32_t count)
{
	uint64_t asked, before, after;

	accord_broker_counts(talk->broker, &asked, &before);
	CHECK_EQUAL(ask(talk, bytes, length, fds, count), -ACCORD_REASON_NO_PRIVILEGE);
	CHECK_EQUAL(talk->reply.failure.reason, ACCORD_REASON_NO_PRIVILEGE);
	CHECK(strstr(talk->reply.failure.detail, "refuses") != NULL);
	CHECK_EQUAL(talk->answer_length, 0);
	CHECK_EQUAL(talk->got, -1);
	accord_broker_counts(talk->broker, &asked, &after);
	CHECK_EQUAL(after, before + 1);
}

static void a_request_of_any_other_length_is_refused(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	uint32_t before;
	struct talk talk;

	begin(&talk);
	before = open_descriptors();
	for (uint32_t kind = 1; kind < ACCORD_ASK_BOUNDARY; kind++) {
		uint32_t whole = HEAD + data_length(kind);

		for (uint32_t length = 1; length <= whole + 9; length++) {
			/* Of exactly that length, so that a sanitizer sees a read beyond it on this side. */
			uint8_t *bytes = calloc(1, length);

			memcpy(bytes, &kind, length < sizeof(kind) ? length : sizeof(kind));
			if (length != whole)
				refused(&talk, bytes, length, &fd, (uint32_t)takes_descriptor(kind));
			free(bytes);
		}
	}
	CHECK_EQUAL(open_descriptors(), before);
	end(&talk);
	close(fd);
}

static void a_request_longer_than_any_is_refused(void)
{
	static const uint8_t bytes[4 * ACCORD_ASK_BYTES] = {ACCORD_ASK_BOUNDARY};
	struct talk talk;

	begin(&talk);
	refused(&talk, bytes, ACCORD_ASK_BYTES + 1, NULL, 0);
	refused(&talk, bytes, sizeof(bytes), NULL, 0);
	end(&talk);
}

static void a_request_with_another_number_of_descriptors_is_refused_and_keeps_none(void)
{
	int fds[MOST_FDS];
	uint32_t before;
	struct talk talk;

	begin(&talk);
	for (int i = 0; i < MOST_FDS; i++)
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	before = open_descriptors();
	for (uint32_t kind = 1; kind < ACCORD_ASK_BOUNDARY; kind++)
		for (uint32_t count = 0; count <= MOST_FDS; count++) {
			uint8_t bytes[HEAD + sizeof(struct accord_capture_frame)] = {0};

			memcpy(bytes, &kind, sizeof(kind));
			if (count != (uint32_t)takes_descriptor(kind) && !(kind == ACCORD_ASK_JOIN && count == 1))
				if (count)
					refused(&talk, bytes, HEAD + data_length(kind), fds, count);
		}
	CHECK_EQUAL(open_descriptors(), before);
	for (int i = 0; i < MOST_FDS; i++)
		close(fds[i]);
	end(&talk);
}

static void a_kind_that_is_none_and_a_reserved_field_are_refused(void)
{
	struct accord_request request = {.kind = 0};
	struct talk talk;

	begin(&talk);
	refused(&talk, &request, HEAD, NULL, 0);
	request.reserved = 1;
	for (request.kind = 0; request.kind < ACCORD_ASK_BOUNDARY + 3; request.kind++)
		refused(&talk, &request, HEAD, NULL, 0);
	request.kind = UINT32_MAX;
	refused(&talk, &request, HEAD, NULL, 0);
	end(&talk);
}

static void a_kind_beyond_the_core_is_handed_on_whole(void)
{
	uint8_t bytes[ACCORD_ASK_BYTES];
	struct talk talk;
	uint64_t random = 7;

	begin(&talk);
	for (uint32_t length = HEAD; length <= sizeof(bytes); length += length < 64 ? 1 : 509) {
		const struct accord_request request = {.kind = ACCORD_ASK_BOUNDARY + length, .number = length};

		for (uint32_t i = 0; i < length; i++)
			bytes[i] = (uint8_t)test_random(&random);
		memcpy(bytes, &request, sizeof(request));
		put(&talk, bytes, length, NULL, 0);
		CHECK_EQUAL(accord_broker_step(talk.broker, &talk.pending), 2);
		CHECK_EQUAL(talk.pending.length, length - HEAD);
		CHECK_EQUAL(talk.pending.request.number, length);
		CHECK(memcmp(talk.pending.data, bytes + HEAD, length - HEAD) == 0);
		CHECK(talk.pending.fds[0] == -1 && talk.pending.fds[1] == -1);
	}
	end(&talk);
}

/* What is well formed, and against the configuration. */
static void what_is_not_configured_is_refused(void)
{
	static const uint32_t kinds[] = {ACCORD_ASK_LOAD,     ACCORD_ASK_STEER,       ACCORD_ASK_JOIN,
	                                 ACCORD_ASK_COUNTERS, ACCORD_ASK_RING,        ACCORD_ASK_PACKET,
	                                 ACCORD_ASK_SYNS,     ACCORD_ASK_SYNS_HEAR,   ACCORD_ASK_DIRECT,
	                                 ACCORD_ASK_CAPTURE,  ACCORD_ASK_CAPTURE_RING};
	struct accord_request request = {0};
	struct talk talk;

	begin(&talk);
	for (uint32_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		request = (struct accord_request){.kind = kinds[i], .number = AF_INET};
		refused(&talk, &request, HEAD, NULL, 0);
	}
	for (uint32_t mode = 0; mode <= XDP_FLAGS_DRV_MODE; mode++) {
		request = (struct accord_request){.kind = ACCORD_ASK_ATTACH, .number = 1, .mode = mode};
		refused(&talk, &request, HEAD, NULL, 0);
	}
	request = (struct accord_request){.kind = ACCORD_ASK_ATTACHED};
	CHECK_EQUAL(ask(&talk, &request, HEAD, NULL, 0), 0);
	end(&talk);
}

static void with_data(struct talk *talk, uint32_t kind, const void *data, int fd)
{
	uint8_t bytes[HEAD + sizeof(struct accord_capture_frame)] = {0};
	const struct accord_request request = {.kind = kind};

	memcpy(bytes, &request, HEAD);
	memcpy(bytes + HEAD, data, data_length(kind));
	refused(talk, bytes, HEAD + data_length(kind), &fd, (uint32_t)takes_descriptor(kind));
}

static void sockets_that_are_not_what_they_should_be_are_refused(void)
{
	int files[] = {open("/dev/null", O_RDONLY | O_CLOEXEC), socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
	               socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0),
	               socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	const struct accord_request busy = {.kind = ACCORD_ASK_BUSY_POLL};
	const struct accord_request silence = {.kind = ACCORD_ASK_TCP_SILENCE};
	const struct accord_request answer = {.kind = ACCORD_ASK_SYNS_ANSWER};
	struct accord_tcp_state state = {.family = 4, .service = 1, .local_port = FORBIDDEN, .remote_port = 9};
	struct accord_bind address = {.family = 4, .port = FORBIDDEN};
	struct talk talk;

	begin(&talk);
	for (uint32_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		refused(&talk, &busy, HEAD, &files[i], 1);
		refused(&talk, &silence, HEAD, &files[i], 1);
		refused(&talk, &answer, HEAD, &files[i], 1);
		for (uint32_t family = 0; family < 256; family++) {
			address.family = (uint8_t)family;
			with_data(&talk, ACCORD_ASK_BIND, &address, files[i]);
		}
		with_data(&talk, ACCORD_ASK_TCP_INSTALL, &state, files[i]);
		close(files[i]);
	}
	end(&talk);
}

static void a_connection_that_cannot_be_is_refused(void)
{
	const struct accord_tcp_state good = {.family = 4, .service = 1, .local_port = 80, .remote_port = 9};
	struct accord_tcp_state states[] = {good, good, good, good, good, good, good};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
	struct talk talk;

	begin(&talk);
	states[0].family = 5;
	states[1].service = 2;
	states[2].sack = 2;
	states[3].timestamps = 2;
	states[4].timestamp = 1; /* TSval in microseconds, which only a kernel's own connection has */
	states[5].local_port = 0;
	states[6].remote_port = 0;
	for (uint32_t i = 0; i < sizeof(states) / sizeof(*states); i++) {
		with_data(&talk, ACCORD_ASK_TCP_INSTALL, &states[i], fd);
		if (i < 5)
			with_data(&talk, ACCORD_ASK_TCP_NUMBERS, &states[i], -1);
	}
	close(fd);
	end(&talk);
}

static void a_worker_that_does_not_listen_costs_neither_descriptors_nor_the_broker(void)
{
	const struct accord_request request = {.kind = ACCORD_ASK_BELL};
	uint32_t before;
	struct talk talk;
	uint64_t asked, refusals;

	begin(&talk);
	before = open_descriptors();
	for (int i = 0; i < 2000; i++) {
		put(&talk, &request, HEAD, NULL, 0);
		CHECK_EQUAL(accord_broker_step(talk.broker, &talk.pending), 1);
	}
	CHECK_EQUAL(open_descriptors(), before);
	accord_broker_counts(talk.broker, &asked, &refusals);
	CHECK_EQUAL(asked, 2000);
	CHECK_EQUAL(refusals, 0);
	end(&talk);
}

static void random_requests_are_answered_one_by_one(void)
{
	int files[] = {open("/dev/null", O_RDONLY | O_CLOEXEC), socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
	uint64_t random = 42;
	uint32_t before;
	struct talk talk;

	begin(&talk);
	before = open_descriptors();
	for (int i = 0; i < FUZZ_MESSAGES; i++) {
		uint8_t bytes[HEAD + sizeof(struct accord_capture_frame) + 8];
		uint32_t kind = (uint32_t)(test_random(&random) % (ACCORD_ASK_BOUNDARY + 1)), zero = 0, length;
		int step;

		for (uint32_t at = 0; at < sizeof(bytes); at++)
			bytes[at] = (uint8_t)test_random(&random);
		memcpy(bytes, &kind, sizeof(kind));
		if (test_random(&random) % 4)
			memcpy(bytes + HEAD - sizeof(zero), &zero, sizeof(zero));
		length =
			test_random(&random) % 2 ? HEAD + data_length(kind) : 1 + (uint32_t)(test_random(&random) % sizeof(bytes));
		put(&talk, bytes, length, files, (uint32_t)(test_random(&random) % 3));
		step = accord_broker_step(talk.broker, &talk.pending);
		CHECK(step == 1 || step == 2);
		if (step == 1) {
			take(&talk);
			if (talk.got >= 0)
				close(talk.got);
		} else {
			for (int which = 0; which < 2; which++)
				if (talk.pending.fds[which] >= 0)
					close(talk.pending.fds[which]);
		}
	}
	CHECK_EQUAL(open_descriptors(), before);
	CHECK_EQUAL(accord_broker_step(talk.broker, &talk.pending), 0);
	end(&talk);
	close(files[0]);
	close(files[1]);
}

static void the_end_of_the_worker_is_told(void)
{
	struct talk talk;

	begin(&talk);
	CHECK_EQUAL(accord_broker_step(talk.broker, &talk.pending), 0);
	shutdown(talk.worker, SHUT_RDWR);
	CHECK_EQUAL(accord_broker_step(talk.broker, &talk.pending), -1);
	end(&talk);
}

int main(void)
{
	RUN(a_request_of_any_other_length_is_refused);
	RUN(a_request_longer_than_any_is_refused);
	RUN(a_request_with_another_number_of_descriptors_is_refused_and_keeps_none);
	RUN(a_kind_that_is_none_and_a_reserved_field_are_refused);
	RUN(a_kind_beyond_the_core_is_handed_on_whole);
	RUN(what_is_not_configured_is_refused);
	RUN(sockets_that_are_not_what_they_should_be_are_refused);
	RUN(a_connection_that_cannot_be_is_refused);
	RUN(a_worker_that_does_not_listen_costs_neither_descriptors_nor_the_broker);
	RUN(random_requests_are_answered_one_by_one);
	RUN(the_end_of_the_worker_is_told);
	return check_report("test_broker");
}
