// SPDX-License-Identifier: Apache-2.0
/*
 * Bind flags name neither XDP_ZEROCOPY nor XDP_COPY: the kernel then tries the first and falls back to the
 * second; naming one would take the fallback away.
 */
#include "xdp_ring.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ask.h"
#include "failure.h"
#include "io.h"

/* Linux 5.11; the C library's headers have them since glibc 2.33. */
#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#define SO_BUSY_POLL_BUDGET 70
#endif

/* Newer than Debian 12's <linux/if_xdp.h>: packets per transmit call in copy mode, 32 by default. */
#ifndef XDP_MAX_TX_SKB_BUDGET
#define XDP_MAX_TX_SKB_BUDGET 9
#endif

enum {
	TX_BUDGET = 256,
	/* A ring that was closed a moment ago is torn down asynchronously. */
	BIND_RETRY_MS = 200,
	BIND_PAUSE_MS = 10,
};

static int take_memory(struct xdp_ring *ring, uint32_t frames, uint32_t bytes, struct accord_failure *failure)
{
	void *area;

	ring->area_bytes = (size_t)frames * bytes;
	area = mmap(NULL, ring->area_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ring->free = calloc(frames / 2, sizeof(*ring->free));
	if (area == MAP_FAILED || !ring->free)
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, ENOMEM, "a UMEM of %zu bytes", ring->area_bytes);
	ring->area = area;
	/* A child would share the packets of others; and pinned pages that are copied on write are lost to the rings. */
	madvise(area, ring->area_bytes, MADV_DONTFORK);
	return 0;
}

static int register_umem(struct xdp_ring *ring, uint32_t frames, uint32_t bytes, struct accord_failure *failure)
{
	const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
	int result = xsk_setup(ring->fd, ring->area, ring->area_bytes, bytes, frames / 2, &ring->rings);

	/* Without CAP_IPC_LOCK the pages count against a limit, which CAP_SYS_RESOURCE may lift. */
	if (result == -ENOBUFS && !setrlimit(RLIMIT_MEMLOCK, &unlimited))
		result = xsk_setup(ring->fd, ring->area, ring->area_bytes, bytes, frames / 2, &ring->rings);
	if (result)
		return accord_fail(failure, accord_reason_of_errno(-result, ACCORD_REASON_NO_KERNEL_SUPPORT), -result,
		                   "registering a UMEM of %zu bytes (see ulimit -l)", ring->area_bytes);
	return 0;
}

int accord_io_xdp_socket(struct accord_failure *failure)
{
	const struct accord_request request = {.kind = ACCORD_ASK_RING};
	int fd, result;

	if (accord_privilege_asks()) {
		result = accord_ask(request, NULL, 0, -1, NULL, 0, &fd, failure);
		return result < 0 ? result : fd;
	}
	fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	return fd >= 0 ? fd
	               : accord_fail(failure, accord_reason_of_errno(errno, ACCORD_REASON_NO_KERNEL_SUPPORT), errno,
	                             "socket(AF_XDP)");
}

static int bind_ring(struct xdp_ring *ring, const struct accord_netdev *netdev, uint32_t queue,
                     struct accord_failure *failure)
{
	const struct timespec pause = {.tv_nsec = BIND_PAUSE_MS * 1000000L};
	const int budget = TX_BUDGET;
	int result;

	for (int waited = 0;; waited += BIND_PAUSE_MS) {
		result = xsk_bind(ring->fd, netdev->index, queue);
		if (result != -EBUSY || waited >= BIND_RETRY_MS)
			break;
		nanosleep(&pause, NULL);
	}
	if (result)
		return accord_fail(failure, accord_reason_of_errno(-result, ACCORD_REASON_NO_KERNEL_SUPPORT), -result,
		                   "binding AF_XDP to %s, queue %u", netdev->name, queue);
	/* Fails on kernels that do not know it; then a kick sends 32. */
	setsockopt(ring->fd, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &budget, sizeof(budget));
	return 0;
}

/* Half of the frames to the kernel for receipt, the other half to the free list for transmission. */
static void distribute(struct xdp_ring *ring, uint32_t frames, uint32_t bytes)
{
	uint32_t index = 0, half = frames / 2;

	xsk_ring_prod__reserve(&ring->rings.fill, half, &index);
	for (uint32_t i = 0; i < half; i++) {
		*xsk_ring_prod__fill_addr(&ring->rings.fill, index + i) = (uint64_t)i * bytes;
		ring->free[i] = (uint64_t)(half + i) * bytes;
	}
	xsk_ring_prod__submit(&ring->rings.fill, half);
	ring->free_count = half;
}

int xdp_ring_open(struct xdp_ring *ring, const struct accord_netdev *netdev, uint32_t queue, uint32_t frames,
                  uint32_t frame_bytes, struct accord_failure *failure)
{
	int result = take_memory(ring, frames, frame_bytes, failure);

	if (!result) {
		ring->fd = accord_io_xdp_socket(failure);
		result = ring->fd < 0 ? ring->fd : register_umem(ring, frames, frame_bytes, failure);
	}
	if (!result)
		result = bind_ring(ring, netdev, queue, failure);
	if (!result)
		distribute(ring, frames, frame_bytes);
	return result;
}

int accord_io_xdp_busy_poll_one(int fd, uint32_t microseconds, struct accord_failure *failure)
{
	const struct accord_request request = {.kind = ACCORD_ASK_BUSY_POLL, .mode = microseconds};
	const struct {
		const char *name;
		int option, value;
	} wanted[] = {
		/* The kernel leaves the queue to us while we poll it often enough, and takes it back when we do not. */
		{"SO_PREFER_BUSY_POLL", SO_PREFER_BUSY_POLL, 1},
		{"SO_BUSY_POLL", SO_BUSY_POLL, (int)microseconds},
		{"SO_BUSY_POLL_BUDGET", SO_BUSY_POLL_BUDGET, ACCORD_IO_BATCH},
	};

	if (accord_privilege_asks())
		return accord_ask(request, NULL, 0, fd, NULL, 0, NULL, failure);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
		if (setsockopt(fd, SOL_SOCKET, wanted[i].option, &wanted[i].value, sizeof(wanted[i].value)))
			return accord_fail(failure, accord_reason_of_errno(errno, ACCORD_REASON_NO_KERNEL_SUPPORT), errno,
			                   "busy polling: setsockopt(%s)", wanted[i].name);
	return 0;
}

void *xdp_ring_close(void *closed)
{
	struct xdp_ring *ring = closed;

	xsk_unmap(&ring->rings);
	if (ring->fd >= 0)
		close(ring->fd);
	if (ring->area)
		munmap(ring->area, ring->area_bytes);
	free(ring->free);
	return NULL;
}
