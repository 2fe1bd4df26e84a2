/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_XDP: one UMEM and one socket for each receive queue, fed by the XDP program. The UMEMs are not shared: each
 * queue needs frames of its own to receive into, and an answer leaves by the queue that its packet came in by, so
 * sharing would join no more than the free lists of transmission, and a burst on one queue could then starve all.
 */
#ifndef ACCORD_IO_XDP_H
#define ACCORD_IO_XDP_H

#include "io.h"
#include "netdev.h"

/*
 * Opens the rings, one for each of netdev's queues, and puts the sockets into the program's map; the program should be
 * attached already, as some drivers make their AF_XDP queues only then. frames: of each UMEM, half of them for each
 * direction; 0: 4096.
 */
int accord_io_xdp_open(const struct accord_netdev *netdev, struct accord_program *program, uint32_t frames,
                       struct accord_io **io, struct accord_failure *failure);

/*
 * From now on each receive runs the driver's queues itself. Fails where the kernel will not have it (Linux 5.11
 * with CONFIG_NET_RX_BUSY_POLL, CAP_NET_ADMIN); the rings then go on by interrupts.
 */
int accord_io_xdp_busy_poll(struct accord_io *io, uint32_t microseconds, struct accord_failure *failure);

/* Bytes of the longest frame that a ring takes on this interface. */
uint32_t accord_io_xdp_frame_limit(const struct accord_netdev *netdev);

#endif
