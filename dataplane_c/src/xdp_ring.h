/* SPDX-License-Identifier: Apache-2.0 */
/* One AF_XDP socket: its memory, its rings, its queue. What goes through them is io_xdp.c's. */
#ifndef ACCORD_XDP_RING_H
#define ACCORD_XDP_RING_H

#include <stddef.h>

#include "core.h"
#include "xsk_setup.h"

struct xdp_ring {
	struct xsk_rings rings;
	uint8_t *area;
	size_t area_bytes;
	uint64_t *free; /* transmit frames that the kernel does not have */
	uint32_t free_count, in_flight;
	int fd; /* -1: there is none yet */
	int joined;
	struct accord_ring_statistics statistics;
	int down; /* the last kick failed for good: the link is down, or the interface gone */
};

/*
 * Half of the frames, of so many bytes each, are the kernel's to receive into, the other half are free to be sent. What
 * was taken when it fails is for xdp_ring_close, as long as fd was -1 before.
 */
int xdp_ring_open(struct xdp_ring *ring, const struct accord_netdev *netdev, uint32_t queue, uint32_t frames,
                  uint32_t frame_bytes, struct accord_failure *failure);
/* As pthread_create wants it; closed is a struct xdp_ring. Returns NULL. */
void *xdp_ring_close(void *closed);

/* What needs privilege: an AF_XDP socket that is not bound yet, and busy polling of one (see io_xdp.h). */
int accord_io_xdp_socket(struct accord_failure *failure);
int accord_io_xdp_busy_poll_one(int fd, uint32_t microseconds, struct accord_failure *failure);

#endif /* ACCORD_XDP_RING_H */
