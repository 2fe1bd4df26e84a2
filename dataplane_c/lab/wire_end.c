/* SPDX-License-Identifier: Apache-2.0 */
#include "wire_end.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23 /* Linux 4.20 */
#endif

enum {
	RECEIVE_BUFFER = 64 << 20, /* bytes: the frames of tens of milliseconds at line rate */
	MAC_BYTES = 12,            /* both addresses: a VLAN tag comes after them */
};

static const char *configure(struct wire_end *end, const char *interface)
{
	struct ifreq request = {0};
	struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	struct packet_mreq membership = {.mr_type = PACKET_MR_PROMISC};
	int on = 1;
	int bytes = RECEIVE_BUFFER;

	if (strlen(interface) >= IFNAMSIZ) {
		errno = ENAMETOOLONG;
		return "interface name";
	}
	memcpy(request.ifr_name, interface, strlen(interface));
	if (ioctl(end->fd, SIOCGIFINDEX, &request) < 0)
		return "SIOCGIFINDEX";
	end->index = (unsigned)request.ifr_ifindex;
	if (ioctl(end->fd, SIOCGIFMTU, &request) < 0)
		return "SIOCGIFMTU";
	end->mtu = (uint32_t)request.ifr_mtu;
	/* FORCE passes over net.core.rmem_max, which is a few hundred kilobytes. */
	if (setsockopt(end->fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
		return "SO_RCVBUFFORCE";
	if (setsockopt(end->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) < 0)
		return "PACKET_IGNORE_OUTGOING";
	if (setsockopt(end->fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) < 0)
		return "PACKET_AUXDATA";
	/* When the kernel took a frame in, so that the time until we run is no part of the delay. */
	if (setsockopt(end->fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) < 0)
		return "SO_TIMESTAMPNS";
	membership.mr_ifindex = (int)end->index;
	if (setsockopt(end->fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership, sizeof(membership)) < 0)
		return "PACKET_ADD_MEMBERSHIP";
	/* Bound last: until here the socket has protocol 0 and receives nothing. */
	address.sll_ifindex = (int)end->index;
	if (bind(end->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return "bind";
	return NULL;
}

const char *wire_end_open(struct wire_end *end, const char *interface)
{
	const char *failed;

	*end = (struct wire_end){.fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
	if (end->fd < 0)
		return "socket(AF_PACKET)";
	failed = configure(end, interface);
	if (failed)
		wire_end_close(end);
	return failed;
}

void wire_end_close(struct wire_end *end)
{
	int error = errno;

	if (end->fd >= 0)
		close(end->fd);
	end->fd = -1;
	errno = error;
}

/* The kernel takes the outer VLAN tag out of a frame before a packet socket sees it (packet(7)). */
static void put_tag_back(uint8_t *memory, struct schedule_frame *frame, const struct tpacket_auxdata *auxdata)
{
	uint16_t tag[2];

	if (!(auxdata->tp_status & TP_STATUS_VLAN_VALID) || frame->length < MAC_BYTES)
		return;
	tag[0] = htons(auxdata->tp_status & TP_STATUS_VLAN_TPID_VALID ? auxdata->tp_vlan_tpid : ETH_P_8021Q);
	tag[1] = htons(auxdata->tp_vlan_tci);
	frame->offset = (uint16_t)(frame->offset - sizeof(tag));
	frame->length += sizeof(tag);
	memmove(memory + frame->offset, memory + frame->offset + sizeof(tag), MAC_BYTES);
	memcpy(memory + frame->offset + MAC_BYTES, tag, sizeof(tag));
}

uint64_t wire_end_now(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Frames bear wall-clock times, which may be stepped. Both clocks at one moment turn one into the other. */
struct moment {
	uint64_t wall, monotonic;
};

static uint64_t monotonic(const struct moment *now, const struct timespec *then)
{
	uint64_t age = now->wall - ((uint64_t)then->tv_sec * 1000000000 + (uint64_t)then->tv_nsec);

	/* From the future, or over a second old: a step came in between. The frame counts as new. */
	return age < 1000000000 ? now->monotonic - age : now->monotonic;
}

union control {
	struct cmsghdr align;
	uint8_t bytes[CMSG_SPACE(sizeof(struct tpacket_auxdata)) + CMSG_SPACE(sizeof(struct timespec))];
};

static void read_control(struct msghdr *header, uint8_t *memory, struct schedule_frame *frame,
                         struct wire_end_batch *batch, uint32_t at, const struct moment *now)
{
	struct cmsghdr *message;

	for (message = CMSG_FIRSTHDR(header); message; message = CMSG_NXTHDR(header, message)) {
		if (message->cmsg_level == SOL_PACKET && message->cmsg_type == PACKET_AUXDATA) {
			struct tpacket_auxdata auxdata;

			memcpy(&auxdata, CMSG_DATA(message), sizeof(auxdata));
			batch->unfinished[at] = auxdata.tp_status & TP_STATUS_CSUMNOTREADY;
			put_tag_back(memory, frame, &auxdata);
		} else if (message->cmsg_level == SOL_SOCKET && message->cmsg_type == SCM_TIMESTAMPNS) {
			struct timespec then;

			memcpy(&then, CMSG_DATA(message), sizeof(then));
			batch->arrived[at] = monotonic(now, &then);
		}
	}
}

uint32_t wire_end_receive(struct wire_end *end, struct schedule *schedule, struct wire_end_batch *batch)
{
	struct mmsghdr messages[WIRE_END_BATCH];
	struct iovec vectors[WIRE_END_BATCH];
	union control controls[WIRE_END_BATCH];
	struct moment now;
	uint32_t capacity = schedule->buffer_bytes - WIRE_END_HEADROOM;
	int received;

	memset(messages, 0, sizeof(messages));
	for (uint32_t i = 0; i < WIRE_END_BATCH; i++) {
		batch->buffer[i] = schedule_take(schedule);
		vectors[i].iov_base = schedule_memory(schedule, batch->buffer[i]) + WIRE_END_HEADROOM;
		vectors[i].iov_len = capacity;
		messages[i].msg_hdr.msg_iov = &vectors[i];
		messages[i].msg_hdr.msg_iovlen = 1;
		messages[i].msg_hdr.msg_control = &controls[i];
		messages[i].msg_hdr.msg_controllen = sizeof(controls[i]);
	}
	/* An error (the interface went down, say) is reported once and then forgotten: nothing to do. */
	received = recvmmsg(end->fd, messages, WIRE_END_BATCH, MSG_DONTWAIT, NULL);
	batch->count = received > 0 ? (uint32_t)received : 0;
	now.wall = wire_end_now(CLOCK_REALTIME);
	now.monotonic = wire_end_now(CLOCK_MONOTONIC);
	for (uint32_t i = WIRE_END_BATCH; i-- > batch->count;)
		schedule_give_back(schedule, batch->buffer[i]);
	for (uint32_t i = 0; i < batch->count; i++) {
		struct schedule_frame *frame = &schedule->frames[batch->buffer[i]];

		frame->offset = WIRE_END_HEADROOM;
		frame->length = messages[i].msg_len;
		batch->arrived[i] = now.monotonic;
		batch->unfinished[i] = false;
		batch->oversize[i] = messages[i].msg_hdr.msg_flags & MSG_TRUNC;
		if (!batch->oversize[i])
			read_control(&messages[i].msg_hdr, schedule_memory(schedule, batch->buffer[i]), frame, batch, i, &now);
	}
	return batch->count;
}

uint32_t wire_end_send(struct wire_end *end, const struct schedule *schedule, const uint32_t *buffers, uint32_t count)
{
	struct mmsghdr messages[WIRE_END_BATCH];
	struct iovec vectors[WIRE_END_BATCH];
	int sent;

	memset(messages, 0, sizeof(messages));
	for (uint32_t i = 0; i < count; i++) {
		const struct schedule_frame *frame = &schedule->frames[buffers[i]];

		vectors[i].iov_base = schedule_memory(schedule, buffers[i]) + frame->offset;
		vectors[i].iov_len = frame->length;
		messages[i].msg_hdr.msg_iov = &vectors[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	sent = sendmmsg(end->fd, messages, count, MSG_DONTWAIT);
	return sent > 0 ? (uint32_t)sent : 0;
}

void wire_end_statistics(struct wire_end *end)
{
	struct tpacket_stats statistics = {0};
	socklen_t length = sizeof(statistics);

	/* Reading resets the kernel's counter (packet(7)). */
	if (getsockopt(end->fd, SOL_PACKET, PACKET_STATISTICS, &statistics, &length) == 0)
		end->kernel_dropped += statistics.tp_drops;
}
