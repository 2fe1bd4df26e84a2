/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process with the capabilities: it answers requests and does nothing else. What is not exactly as privilege.h
 * has it, or not what the configuration allows, is refused and counted; the worker is not believed.
 */
#include "broker.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "birth_program.h"
#include "capture_program.h"
#include "failure.h"
#include "loader.h"
#include "sockops.h"

int broker_refuse(struct turn *turn, const char *why)
{
	turn->broker->refused++;
	return accord_fail(&turn->reply.failure, ACCORD_REASON_NO_PRIVILEGE, 0,
	                   "the privileged process refuses request %u: %s", turn->request.kind, why);
}

enum descriptors {
	NO_FD,
	ONE_FD,
	MAYBE_FD,
};

static const struct {
	int (*act)(struct turn *turn);
	uint32_t length; /* of the kind's own data */
	enum descriptors descriptors;
} kinds[ACCORD_ASK_BOUNDARY] = {
	[ACCORD_ASK_LOAD] = {broker_load, 0, NO_FD},
	[ACCORD_ASK_ATTACH] = {broker_attach, 0, NO_FD},
	[ACCORD_ASK_UNLOAD] = {broker_unload, 0, NO_FD},
	[ACCORD_ASK_ATTACHED] = {broker_attached, 0, NO_FD},
	[ACCORD_ASK_HEARD] = {broker_heard, 0, NO_FD},
	[ACCORD_ASK_STEER] = {broker_steer, 0, NO_FD},
	[ACCORD_ASK_JOIN] = {broker_join, 0, MAYBE_FD},
	[ACCORD_ASK_COUNTERS] = {broker_counters, 0, NO_FD},
	[ACCORD_ASK_RING] = {broker_ring, 0, NO_FD},
	[ACCORD_ASK_BUSY_POLL] = {broker_busy_poll, 0, ONE_FD},
	[ACCORD_ASK_PACKET] = {broker_packet, 0, NO_FD},
	[ACCORD_ASK_DIRECT] = {broker_direct, 0, NO_FD},
	[ACCORD_ASK_BELL] = {broker_bell, 0, NO_FD},
	[ACCORD_ASK_BIND] = {broker_bind, sizeof(struct accord_bind), ONE_FD},
	[ACCORD_ASK_TCP_NUMBERS] = {broker_numbers, sizeof(struct accord_tcp_state), NO_FD},
	[ACCORD_ASK_TCP_INSTALL] = {broker_install, sizeof(struct accord_tcp_state), ONE_FD},
	[ACCORD_ASK_TCP_SILENCE] = {broker_silence, 0, ONE_FD},
	[ACCORD_ASK_SYNS] = {broker_syns, 0, NO_FD},
	[ACCORD_ASK_SYNS_ANSWER] = {broker_syns_answer, 0, ONE_FD},
	[ACCORD_ASK_SYNS_HEAR] = {broker_syns_hear, 0, NO_FD},
	[ACCORD_ASK_BIRTHS] = {broker_births, 0, NO_FD},
	[ACCORD_ASK_LISTENING] = {broker_listening, 0, NO_FD},
	[ACCORD_ASK_BIRTH] = {broker_birth, sizeof(struct accord_tcp_state), NO_FD},
	[ACCORD_ASK_BIRTH_END] = {broker_birth_end, sizeof(struct accord_tcp_state), NO_FD},
	[ACCORD_ASK_CAPTURE] = {broker_capture, 0, NO_FD},
	[ACCORD_ASK_CAPTURE_RING] = {broker_capture_ring, 0, NO_FD},
	[ACCORD_ASK_CAPTURE_MARK] = {broker_capture_mark, 0, ONE_FD},
	[ACCORD_ASK_CAPTURE_UNMARK] = {broker_capture_unmark, sizeof(uint64_t), NO_FD},
	[ACCORD_ASK_CAPTURE_SEND] = {broker_capture_send, sizeof(struct accord_capture_frame), NO_FD},
};

static int act(struct turn *turn)
{
	uint32_t kind = turn->request.kind;
	int fds = (turn->message->fds[0] >= 0) + (turn->message->fds[1] >= 0);

	if (turn->message->length < sizeof(turn->request) || turn->request.reserved || kind >= ACCORD_ASK_BOUNDARY ||
	    !kinds[kind].act)
		return broker_refuse(turn, "it is none");
	if (turn->message->length != sizeof(turn->request) + kinds[kind].length)
		return broker_refuse(turn, "it has another length");
	if (kinds[kind].descriptors == MAYBE_FD ? fds > 1 : fds != (kinds[kind].descriptors == ONE_FD))
		return broker_refuse(turn, "it has other descriptors");
	return kinds[kind].act(turn);
}

void accord_broker_answer(struct accord_broker *broker, const struct accord_reply *reply, const uint8_t *data,
                          uint32_t length, const int32_t *fds, uint32_t fd_count)
{
	/* A worker that asks and does not listen loses answers, not memory of ours. */
	accord_message_send(broker->fd, reply, sizeof(*reply), data, length, fds, fd_count, MSG_DONTWAIT);
}

int accord_broker_step(struct accord_broker *broker, struct accord_pending *pending)
{
	struct accord_message message;
	struct turn turn = {.broker = broker, .message = &message, .fd = -1};
	int got = accord_message_receive(broker->fd, &message, MSG_DONTWAIT);

	if (got <= 0)
		return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? 0 : -1;
	broker->asked++;
	if (message.length >= sizeof(turn.request)) {

		_Static_assert(sizeof(struct accord_capture_frame) >= sizeof(struct accord_tcp_state), "the longest kind");
		uint8_t aligned[sizeof(struct accord_capture_frame)] __attribute__((aligned(8))) = {0};

		memcpy(&turn.request, message.bytes, sizeof(turn.request));
		if (turn.request.kind >= ACCORD_ASK_BOUNDARY && !turn.request.reserved) {
			pending->request = turn.request;
			pending->length = message.length - (uint32_t)sizeof(turn.request);
			memcpy(pending->data, message.bytes + sizeof(turn.request), pending->length);
			memcpy(pending->fds, message.fds, sizeof(pending->fds));
			return 2;
		}
		if (message.length - sizeof(turn.request) <= sizeof(aligned))
			memcpy(aligned, message.bytes + sizeof(turn.request), message.length - sizeof(turn.request));
		turn.data = aligned;
		turn.reply.result = act(&turn);
	} else {
		turn.reply.result = act(&turn);
	}
	accord_broker_answer(broker, &turn.reply, (const uint8_t *)&turn.answer,
	                     turn.reply.result < 0 ? 0 : turn.answer_length, &turn.fd, turn.fd >= 0);
	if (turn.fd >= 0 && !turn.lasts)
		close(turn.fd);
	accord_message_close(&message);
	return 1;
}

int accord_broker_serve(struct accord_broker *broker, struct accord_pending *pending, const int32_t *others,
                        uint32_t count)
{
	struct pollfd waits[1 + ACCORD_BROKER_WAITS] = {{.fd = broker->fd, .events = POLLIN}};

	if (count > ACCORD_BROKER_WAITS)
		count = ACCORD_BROKER_WAITS;
	for (uint32_t i = 0; i < count; i++)
		waits[1 + i] = (struct pollfd){.fd = others[i], .events = POLLIN};
	for (;;) {
		if (poll(waits, 1 + count, -1) < 0)
			continue; /* EINTR: a signal is in one of the others */
		if (waits[0].revents) {
			int done = accord_broker_step(broker, pending);

			if (done < 0 || done == 2)
				return done;
		}
		for (uint32_t i = 0; i < count; i++)
			if (waits[1 + i].revents)
				return 3;
	}
}

struct accord_broker *accord_broker_new(const struct accord_broker_config *config, int32_t fd)
{
	struct accord_broker *broker = calloc(1, sizeof(*broker));

	if (!broker)
		return NULL;
	broker->fd = fd;
	broker->rungs = config->rungs;
	broker->spare = config->spare;
	broker->interface = config->interface ? strdup(config->interface) : NULL;
	broker->object_path = strdup(config->object_path);
	broker->capture_path = strdup(config->capture_path);
	broker->cgroup = config->cgroup ? strdup(config->cgroup) : NULL;
	broker->sockops_path = config->cgroup ? strdup(config->sockops_path) : NULL;
	broker->births_path = config->births_path ? strdup(config->births_path) : NULL;
	if (config->ports)
		memcpy(broker->ports, config->ports, sizeof(broker->ports));
	else
		memset(broker->ports, 0xff, sizeof(broker->ports));
	if (!broker->object_path || (config->interface && !broker->interface) ||
	    (config->cgroup && (!broker->cgroup || !broker->sockops_path)) ||
	    (config->births_path && !broker->births_path) || !broker->capture_path) {
		accord_broker_free(broker);
		return NULL;
	}
	return broker;
}

void accord_broker_free(struct accord_broker *broker)
{
	if (!broker)
		return;
	accord_program_close(broker->program);
	accord_program_close(broker->spare);
	accord_sockops_close(broker->sockops);
	accord_birth_program_close(broker->births);
	accord_capture_program_close(broker->capture);
	if (broker->fd >= 0)
		close(broker->fd);
	free(broker->interface);
	free(broker->object_path);
	free(broker->sockops_path);
	free(broker->births_path);
	free(broker->capture_path);
	free(broker->cgroup);
	free(broker);
}

void accord_broker_counts(const struct accord_broker *broker, uint64_t *asked, uint64_t *refused)
{
	*asked = broker->asked;
	*refused = broker->refused;
}
