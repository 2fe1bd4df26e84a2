/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An AF_XDP socket's UMEM and rings, on a socket that somebody else may have made: the libxdp that Debian 12 has makes
 * its own, which needs CAP_NET_RAW. The rings themselves are worked with by libxdp's <xdp/xsk.h>.
 */
#ifndef ACCORD_XSK_SETUP_H
#define ACCORD_XSK_SETUP_H

#include <stddef.h>

#include <xdp/xsk.h>

enum {
	XSK_RINGS = 4,
};

struct xsk_rings {
	struct xsk_ring_prod fill, tx;
	struct xsk_ring_cons completion, rx;
	struct {
		void *memory;
		size_t bytes;
	} maps[XSK_RINGS]; /* not to be looked into */
};

/* Register the UMEM, make the four rings of so many descriptors, map them. Returns 0 or a negative errno. */
int xsk_setup(int fd, void *area, size_t area_bytes, uint32_t frame_bytes, uint32_t size, struct xsk_rings *rings);
void xsk_unmap(struct xsk_rings *rings);
/* The last step: to a queue of an interface. Returns 0 or a negative errno. */
int xsk_bind(int fd, int interface, uint32_t queue);

#endif
