/* SPDX-License-Identifier: Apache-2.0 */
#include "ask.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "failure.h"

static int broker = -1;

/* At most one: its answer is the next that comes, so whoever asks for something else takes that first. */
static struct accord_ahead *unanswered;

void accord_privilege_from(int32_t fd)
{
	broker = fd;
}

int accord_privilege_asks(void)
{
	return broker >= 0;
}

void accord_message_close(struct accord_message *message)
{
	for (int i = 0; i < ACCORD_ASK_FDS; i++) {
		if (message->fds[i] >= 0)
			close(message->fds[i]);
		message->fds[i] = -1;
	}
}

/* More descriptors than there is room for, the kernel closes itself. */
static void take_descriptors(struct accord_message *message, struct msghdr *header)
{
	for (struct cmsghdr *each = CMSG_FIRSTHDR(header); each; each = CMSG_NXTHDR(header, each))
		if (each->cmsg_level == SOL_SOCKET && each->cmsg_type == SCM_RIGHTS)
			memcpy(message->fds, CMSG_DATA(each), each->cmsg_len - CMSG_LEN(0));
}

int accord_message_receive(int socket, struct accord_message *message, int flags)
{
	uint8_t control[CMSG_SPACE(sizeof(message->fds))] __attribute__((aligned(sizeof(struct cmsghdr))));
	struct iovec vector = {message->bytes, sizeof(message->bytes)};
	struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control};
	ssize_t length;

	for (int i = 0; i < ACCORD_ASK_FDS; i++)
		message->fds[i] = -1;
	do {
		header.msg_controllen = sizeof(control);
		length = recvmsg(socket, &header, flags | MSG_CMSG_CLOEXEC);
	} while (length < 0 && errno == EINTR);
	if (length < 0)
		return -1;
	take_descriptors(message, &header);
	/* Cut short, so it is nothing that was agreed on: one byte is no message either. */
	message->length = header.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? 1 : (uint32_t)length;
	return (int)length;
}

int accord_message_send(int socket, const void *head, uint32_t head_length, const void *data, uint32_t length,
                        const int *fds, uint32_t fd_count, int flags)
{
	uint8_t control[CMSG_SPACE(ACCORD_ASK_FDS * sizeof(int))] __attribute__((aligned(sizeof(struct cmsghdr)))) = {0};
	struct iovec vectors[] = {{(void *)(uintptr_t)head, head_length}, {(void *)(uintptr_t)data, length}};
	struct msghdr header = {.msg_iov = vectors, .msg_iovlen = 2};
	ssize_t sent;

	if (fd_count) {
		struct cmsghdr *rights = (struct cmsghdr *)(void *)control;

		header.msg_control = control;
		header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
	}
	do
		sent = sendmsg(socket, &header, flags | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -1 : 0;
}

static int gone(struct accord_failure *failure, int error)
{
	return accord_fail(failure, ACCORD_REASON_NO_PRIVILEGE, error, "asking the privileged process");
}

/* The reply into message; its result, or a negative reason. */
static int take_reply(struct accord_message *message, struct accord_failure *failure)
{
	struct accord_reply reply;
	int got = accord_message_receive(broker, message, 0);

	if (got < (int)sizeof(reply) || message->length < sizeof(reply)) {
		if (got >= 0)
			accord_message_close(message);
		return gone(failure, got < 0 ? errno : EPIPE);
	}
	memcpy(&reply, message->bytes, sizeof(reply));
	if (reply.result < 0 && failure)
		*failure = reply.failure;
	return reply.result;
}

static void take_unanswered(void)
{
	struct accord_message message = {.length = 0};
	struct accord_ahead *ahead = unanswered;

	if (!ahead)
		return;
	unanswered = NULL;
	ahead->reply.result = take_reply(&message, &ahead->reply.failure);
	ahead->answered = 1;
	accord_message_close(&message);
}

void accord_ask_ahead(struct accord_request request, const void *data, uint32_t length, int fd,
                      struct accord_ahead *ahead)
{
	take_unanswered();
	memset(ahead, 0, sizeof(*ahead));
	if (accord_message_send(broker, &request, sizeof(request), data, length, &fd, fd >= 0, 0)) {
		ahead->reply.result = gone(&ahead->reply.failure, errno);
		ahead->answered = 1;
		return;
	}
	unanswered = ahead;
}

int accord_ask_answer(struct accord_ahead *ahead, struct accord_failure *failure)
{
	if (ahead == unanswered)
		take_unanswered();
	if (!ahead->answered)
		return gone(failure, EINVAL);
	if (ahead->reply.result < 0 && failure)
		*failure = ahead->reply.failure;
	return ahead->reply.result;
}

/* Ask and wait. As take_reply. */
static int exchange(const struct accord_request *request, const void *data, uint32_t length, const int *fds,
                    uint32_t fd_count, struct accord_message *message, struct accord_failure *failure)
{
	take_unanswered();
	message->length = 0;
	for (int i = 0; i < ACCORD_ASK_FDS; i++)
		message->fds[i] = -1;
	if (accord_message_send(broker, request, sizeof(*request), data, length, fds, fd_count, 0))
		return gone(failure, errno);
	return take_reply(message, failure);
}

int accord_ask(struct accord_request request, const void *data, uint32_t length, int fd, void *answer,
               uint32_t answer_length, int *got, struct accord_failure *failure)
{
	struct accord_message message;
	int result = exchange(&request, data, length, &fd, fd >= 0, &message, failure);

	if (got)
		*got = -1;
	if (result < 0)
		return result;
	if (message.length != sizeof(struct accord_reply) + answer_length) {
		accord_message_close(&message);
		return gone(failure, EPROTO);
	}
	if (answer_length)
		memcpy(answer, message.bytes + sizeof(struct accord_reply), answer_length);
	if (got) {
		*got = message.fds[0];
		message.fds[0] = -1;
	}
	accord_message_close(&message);
	return result;
}

int accord_privilege_ask(const struct accord_request *request, const uint8_t *data, uint32_t data_length,
                         uint8_t *answer, uint32_t *length, int32_t *fds, struct accord_failure *failure)
{
	struct accord_message message;
	int result = exchange(request, data, data_length, NULL, 0, &message, failure);

	if (result < 0)
		return result;
	message.length -= (uint32_t)sizeof(struct accord_reply);
	if (message.length > *length) {
		accord_message_close(&message);
		return gone(failure, EMSGSIZE);
	}
	memcpy(answer, message.bytes + sizeof(struct accord_reply), message.length);
	*length = message.length;
	memcpy(fds, message.fds, sizeof(message.fds));
	return result;
}
