// SPDX-License-Identifier: Apache-2.0
/* What the broker does for unmodified programs: the TC program on the configured interface, and two kinds of frame. */
#include "broker.h"

#include <net/if.h>
#include <string.h>

#include <linux/if_ether.h>

#include "capture_program.h"

enum {
	IPV4_BYTES = 20,
	IPV6_BYTES = 40,
	TCP_BYTES = 20,
	TCP_DATA_OFFSET_AT = 12,
	TCP_FLAGS_AT = 13,
	TCP_OPENING = 0x17, /* FIN, SYN, RST, ACK */
	TCP_SYN = 0x02,
	TCP_SYN_ACK = 0x12,
};

int broker_capture(struct turn *turn)
{
	struct accord_broker *broker = turn->broker;
	int interface = broker->interface ? (int)if_nametoindex(broker->interface) : 0, result;

	if (!interface)
		return broker_refuse(turn, "the configuration has no interface, or it is gone");
	accord_capture_program_close(broker->capture);
	broker->capture = NULL;
	result = accord_capture_program_open(broker->capture_path, interface, &broker->capture, &turn->reply.failure);
	if (result)
		return result;
	turn->fd = accord_capture_program_map_fd(broker->capture);
	turn->lasts = 1;
	return 0;
}

int broker_capture_ring(struct turn *turn)
{
	if (!turn->broker->capture)
		return broker_refuse(turn, "no TC program is attached");
	turn->fd = accord_capture_program_ring_fd(turn->broker->capture);
	turn->lasts = 1;
	return 0;
}

int broker_capture_mark(struct turn *turn)
{
	if (!turn->broker->capture)
		return broker_refuse(turn, "no TC program is attached");
	turn->answer_length = sizeof(turn->answer.cgroup);
	return accord_capture_program_mark(turn->broker->capture, turn->message->fds[0], &turn->answer.cgroup,
	                                   &turn->reply.failure);
}

int broker_capture_unmark(struct turn *turn)
{
	uint64_t id;

	if (!turn->broker->capture)
		return broker_refuse(turn, "no TC program is attached");
	memcpy(&id, turn->data, sizeof(id));
	return accord_capture_program_unmark(turn->broker->capture, id, &turn->reply.failure);
}

/* Whole, without data, and a SYN or a SYN-ACK: the worker sends nothing else by this. */
static int is_opening(const struct accord_capture_frame *frame, int flags)
{
	const uint8_t *ip = frame->frame + ETH_HLEN;
	uint32_t at;

	if (frame->bytes > sizeof(frame->frame) || frame->bytes < ETH_HLEN + IPV4_BYTES + TCP_BYTES)
		return 0;
	if (frame->frame[12] == 0x08 && frame->frame[13] == 0x00 && ip[0] >> 4 == 4 && ip[9] == 6)
		at = ETH_HLEN + (ip[0] & 0xfu) * 4;
	else if (frame->frame[12] == 0x86 && frame->frame[13] == 0xdd && ip[0] >> 4 == 6 && ip[6] == 6)
		at = ETH_HLEN + IPV6_BYTES;
	else
		return 0;
	return at + TCP_BYTES <= frame->bytes && at + (frame->frame[at + TCP_DATA_OFFSET_AT] >> 4) * 4u == frame->bytes &&
	       (frame->frame[at + TCP_FLAGS_AT] & TCP_OPENING) == flags;
}

int broker_capture_send(struct turn *turn)
{
	const struct accord_capture_frame *frame = turn->data;
	uint32_t inward = turn->request.mode;

	if (!turn->broker->capture || inward > 1 || !is_opening(frame, inward ? TCP_SYN_ACK : TCP_SYN))
		return broker_refuse(turn, "neither a SYN to be let go nor a SYN-ACK to be handed in");
	return accord_capture_program_send(turn->broker->capture, frame, inward, &turn->reply.failure);
}
