/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A NIC that strips VLAN tags in hardware does so before XDP: behind one, tagged traffic looks untagged here,
 * and answers would leave untagged. Switch it off (`ethtool -K IF rxvlan off`) where both kinds are in use.
 */
#include "io_xdp.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "failure.h"
#include "frame.h"
#include "xdp_ring.h"

enum {
	DEFAULT_FRAMES = 4096,
	MIN_FRAMES = 2 * ACCORD_IO_BATCH,
	MAX_FRAMES = 65536,
	SMALL_FRAME = 2048,
	LARGE_FRAME = 4096, /* a page is the most that an aligned UMEM allows */
	CACHE_LINE = 64,    /* of most processors; elsewhere some are asked for twice, or not */
	HEADROOM = 256,     /* XDP_PACKET_HEADROOM, at the start of each frame on receipt */
	/* EAGAIN from a kick means "kick again": enough rounds for a whole ring at 32 a kick. */
	MAX_KICKS = 64,
};

struct io_xdp {
	struct accord_io io;
	struct accord_program *program;
	uint32_t frame_bytes, mtu_bytes, ring_size, count;
	int busy_polls;
	struct xdp_ring rings[];
};

static uint32_t frame_size(const struct accord_netdev *netdev)
{
	return netdev->mtu + ACCORD_MAX_LINK_HEADER + HEADROOM <= SMALL_FRAME ? SMALL_FRAME : LARGE_FRAME;
}

uint32_t accord_io_xdp_frame_limit(const struct accord_netdev *netdev)
{
	return frame_size(netdev) - HEADROOM;
}

/* Give transmitted frames back to the free list. */
static void reap(struct xdp_ring *ring)
{
	uint32_t index, count = xsk_ring_cons__peek(&ring->rings.completion, ring->in_flight, &index);

	for (uint32_t i = 0; i < count; i++)
		ring->free[ring->free_count++] = *xsk_ring_cons__comp_addr(&ring->rings.completion, index + i);
	xsk_ring_cons__release(&ring->rings.completion, count);
	ring->in_flight -= count;
}

/* Where the kernel polls for us, this runs the driver's receive queue once (SO_BUSY_POLL of a socket that does
 * not block); else it goes on where it ran out of frames. */
static void wake_receiver(struct xdp_ring *ring)
{
	ring->statistics.receive_wakeups++;
	recvfrom(ring->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
}

/*
 * Have a frame's cache lines come while the one before it is worked on: another processor has just written them, and
 * they are all read once, and copied, and read no more.
 */
static void fetch(const struct xdp_ring *ring, const struct xdp_desc *descriptor)
{
	const uint8_t *frame = xsk_umem__get_data(ring->area, descriptor->addr);

	for (uint32_t at = 0; at < descriptor->len; at += CACHE_LINE)
		__builtin_prefetch(frame + at, 0, 0);
}

static uint32_t receive_ring(struct io_xdp *xdp, uint32_t queue, const struct accord_sink *sink, uint32_t limit)
{
	const struct accord_frame_tag untagged = {0, 0};
	struct xdp_ring *ring = &xdp->rings[queue];
	uint32_t rx, fill, count;

	if (xdp->busy_polls)
		wake_receiver(ring);
	count = xsk_ring_cons__peek(&ring->rings.rx, limit, &rx);
	if (!count) {
		/* Nothing to reap by, so the driver may be waiting for us. */
		if (!xdp->busy_polls && xsk_ring_prod__needs_wakeup(&ring->rings.fill))
			wake_receiver(ring);
		return 0;
	}
	/* Never short: there are as many receive frames as the fill ring has room for. */
	if (xsk_ring_prod__reserve(&ring->rings.fill, count, &fill) != count) {
		xsk_ring_cons__cancel(&ring->rings.rx, count);
		return 0;
	}
	for (uint32_t i = 0; i < count; i++) {
		const struct xdp_desc *descriptor = xsk_ring_cons__rx_desc(&ring->rings.rx, rx + i);
		const uint8_t *packet;
		struct accord_path path;
		uint32_t length;
		int result;

		if (i + 1 < count)
			fetch(ring, xsk_ring_cons__rx_desc(&ring->rings.rx, rx + i + 1));
		result = accord_frame_parse(xsk_umem__get_data(ring->area, descriptor->addr), descriptor->len, untagged, &path,
		                            &packet, &length);
		path.queue = (uint16_t)queue;
		if (result < 0)
			sink->drop(sink->context, (enum accord_reason) - result);
		else
			sink->packet(sink->context, &path, 0, packet, length);
		*xsk_ring_prod__fill_addr(&ring->rings.fill, fill + i) = descriptor->addr;
	}
	xsk_ring_cons__release(&ring->rings.rx, count);
	xsk_ring_prod__submit(&ring->rings.fill, count);
	ring->statistics.received += count;
	if (!xdp->busy_polls && xsk_ring_prod__needs_wakeup(&ring->rings.fill))
		wake_receiver(ring);
	return count;
}

static uint32_t xdp_receive(struct accord_io *io, const struct accord_sink *sink, uint32_t limit)
{
	struct io_xdp *xdp = (struct io_xdp *)io;
	uint32_t count = 0;

	for (uint32_t queue = 0; queue < xdp->count; queue++)
		count += receive_ring(xdp, queue, sink, limit);
	return count;
}

static int xdp_send(struct accord_io *io, const struct accord_path *path, const uint8_t *packet, uint32_t length)
{
	struct io_xdp *xdp = (struct io_xdp *)io;
	struct xdp_desc *descriptor;
	struct xdp_ring *ring;
	uint64_t address;
	uint32_t index;
	int built;

	if (path->queue >= xdp->count)
		return -ACCORD_REASON_NO_SOCKET;
	if (accord_frame_bytes(path, length) - path->link_length > xdp->mtu_bytes)
		return -ACCORD_REASON_LONG_PACKET;
	ring = &xdp->rings[path->queue];
	if (ring->down)
		return -ACCORD_REASON_NO_SOCKET;
	if (!ring->free_count)
		reap(ring);
	if (!ring->free_count)
		return -ACCORD_REASON_NO_MEMORY;
	address = ring->free[ring->free_count - 1];
	built = accord_frame_build(path, packet, length, xsk_umem__get_data(ring->area, address), xdp->frame_bytes);
	if (built < 0)
		return built;
	if (xsk_ring_prod__reserve(&ring->rings.tx, 1, &index) != 1)
		return -ACCORD_REASON_NO_MEMORY;
	descriptor = xsk_ring_prod__tx_desc(&ring->rings.tx, index);
	descriptor->addr = address;
	descriptor->len = (uint32_t)built;
	descriptor->options = 0;
	ring->free_count--;
	ring->in_flight++;
	ring->statistics.sent++;
	xsk_ring_prod__submit(&ring->rings.tx, 1);
	return 0;
}

/* Tell the kernel that there is something to send. */
static void kick(struct xdp_ring *ring)
{
	for (int kicks = 0; kicks < MAX_KICKS && xsk_ring_prod__needs_wakeup(&ring->rings.tx); kicks++) {
		ring->down = 0;
		ring->statistics.send_wakeups++;
		if (sendto(ring->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0)
			return;
		if (errno == EAGAIN)
			continue;
		/* What is left in the ring goes with a later flush. */
		ring->down = errno != ENOBUFS && errno != EBUSY;
		return;
	}
}

static void xdp_flush(struct accord_io *io)
{
	struct io_xdp *xdp = (struct io_xdp *)io;

	for (uint32_t queue = 0; queue < xdp->count; queue++) {
		struct xdp_ring *ring = &xdp->rings[queue];

		if (!ring->in_flight)
			continue;
		kick(ring);
		reap(ring);
	}
}

static uint32_t xdp_fds(const struct accord_io *io, int32_t *fds, uint32_t limit)
{
	const struct io_xdp *xdp = (const struct io_xdp *)io;
	uint32_t count = 0;

	while (count < xdp->count && count < limit) {
		fds[count] = xdp->rings[count].fd;
		count++;
	}
	return count;
}

static uint32_t xdp_rings(struct accord_io *io, struct accord_ring_statistics *rings, uint32_t limit)
{
	struct io_xdp *xdp = (struct io_xdp *)io;
	uint32_t count = 0;

	for (; count < xdp->count && count < limit; count++) {
		struct xdp_ring *ring = &xdp->rings[count];
		struct xdp_statistics kernel = {0}; /* kernels before 5.9 fill the first three only */
		socklen_t bytes = sizeof(kernel);

		getsockopt(ring->fd, SOL_XDP, XDP_STATISTICS, &kernel, &bytes);
		rings[count] = ring->statistics;
		rings[count].queue = count;
		rings[count].size = ring->rings.rx.size;
		rings[count].receive_dropped = kernel.rx_dropped;
		rings[count].receive_ring_full = kernel.rx_ring_full;
		rings[count].fill_ring_empty = kernel.rx_fill_ring_empty_descs;
		rings[count].receive_bad_address = kernel.rx_invalid_descs;
		rings[count].send_bad_address = kernel.tx_invalid_descs;
		rings[count].send_ring_empty = kernel.tx_ring_empty_descs;
	}
	return count;
}

/*
 * Closing an AF_XDP socket waits until no CPU can still be delivering to it, ten milliseconds and more, and a NIC may
 * have dozens of queues. No ring knows of another, so they wait side by side.
 */
static void xdp_close(struct accord_io *io)
{
	struct io_xdp *xdp = (struct io_xdp *)io;
	pthread_t threads[ACCORD_MAX_QUEUES];
	uint32_t started = 0;

	for (uint32_t queue = 0; queue < xdp->count; queue++)
		if (xdp->rings[queue].joined)
			accord_program_join(xdp->program, queue, -1);
	while (started + 1 < xdp->count && !pthread_create(&threads[started], NULL, xdp_ring_close, &xdp->rings[started]))
		started++;
	for (uint32_t queue = started; queue < xdp->count; queue++)
		xdp_ring_close(&xdp->rings[queue]);
	for (uint32_t queue = 0; queue < started; queue++)
		pthread_join(threads[queue], NULL);
	free(xdp);
}

static const struct accord_io_operations operations = {
	.receive = xdp_receive,
	.send = xdp_send,
	.flush = xdp_flush,
	.fds = xdp_fds,
	.rings = xdp_rings,
	.close = xdp_close,
};

static uint32_t power_of_two(uint32_t frames)
{
	uint32_t power = MIN_FRAMES;

	while (power < MAX_FRAMES && power < frames)
		power *= 2;
	return power;
}

static int open_ring(struct io_xdp *xdp, const struct accord_netdev *netdev, uint32_t queue, uint32_t frames,
                     struct accord_failure *failure)
{
	struct xdp_ring *ring = &xdp->rings[queue];
	int result = xdp_ring_open(ring, netdev, queue, frames, xdp->frame_bytes, failure);

	if (result)
		return result;
	if (accord_program_join(xdp->program, queue, ring->fd))
		return accord_fail(failure, ACCORD_REASON_NO_SOCKET, 0, "queue %u does not fit the map xsks", queue);
	ring->joined = 1;
	return 0;
}

int accord_io_xdp_open(const struct accord_netdev *netdev, struct accord_program *program, uint32_t frames,
                       struct accord_io **io, struct accord_failure *failure)
{
	struct io_xdp *xdp = calloc(1, sizeof(*xdp) + netdev->queues * sizeof(*xdp->rings));
	int result = 0;

	if (!xdp)
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, ENOMEM, "AF_XDP sockets");
	frames = power_of_two(frames ? frames : DEFAULT_FRAMES);
	xdp->io.operations = &operations;
	xdp->program = program;
	xdp->count = netdev->queues;
	xdp->frame_bytes = frame_size(netdev);
	xdp->mtu_bytes = netdev->mtu;
	for (uint32_t queue = 0; queue < xdp->count; queue++)
		xdp->rings[queue].fd = -1;
	for (uint32_t queue = 0; queue < xdp->count && !result; queue++)
		result = open_ring(xdp, netdev, queue, frames, failure);
	if (result) {
		xdp_close(&xdp->io);
		return result;
	}
	*io = &xdp->io;
	return 0;
}

int accord_io_xdp_busy_poll(struct accord_io *io, uint32_t microseconds, struct accord_failure *failure)
{
	struct io_xdp *xdp = (struct io_xdp *)io;
	int result = 0;

	for (uint32_t queue = 0; queue < xdp->count && !result; queue++)
		result = accord_io_xdp_busy_poll_one(xdp->rings[queue].fd, microseconds, failure);
	xdp->busy_polls = !result;
	return result;
}
