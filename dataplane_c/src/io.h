/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one back-end interface. A back end takes packets from one kind of kernel interface and hands them, one
 * by one and without copying, to a sink; it sends packets to the paths that they came from. No back end blocks,
 * and none takes memory after it was opened.
 */
#ifndef ACCORD_IO_H
#define ACCORD_IO_H

#include "core.h"

enum accord_io_constant {
	ACCORD_IO_BATCH = 64, /* packets of one receive call, and of one system call */
};

/* Where received packets go. Data and path are valid during the call only. */
struct accord_sink {
	/* From the Accord header on. A frame's path comes with ACCORD_PATH_NO_SOCKET and interface 0, which is the
	 * port's own; a socket tells the index of the interface that the packet came in by. */
	void (*packet)(void *context, struct accord_path *path, int interface, const uint8_t *packet, uint32_t length);
	/* Something was received that is no packet of ours. */
	void (*drop)(void *context, enum accord_reason reason);
	void *context;
};

/* Does a datagram begin as a negotiation packet does? What else is in it, the engine checks. */
int accord_io_is_ours(const uint8_t *packet, uint32_t length);

struct accord_io;

struct accord_io_operations {
	/* Hands up to limit packets (of each queue) to the sink; returns how many were taken in, ours or not. */
	uint32_t (*receive)(struct accord_io *io, const struct accord_sink *sink, uint32_t limit);
	/* Queues one packet. Returns 0 or a negative reason: then it was not sent, and another way may be tried. */
	int (*send)(struct accord_io *io, const struct accord_path *path, const uint8_t *packet, uint32_t length);
	/* Puts what was queued on the wire. */
	void (*flush)(struct accord_io *io);
	/* File descriptors to wait on for reading. */
	uint32_t (*fds)(const struct accord_io *io, int32_t *fds, uint32_t limit);
	/* As accord_port_rings. */
	uint32_t (*rings)(struct accord_io *io, struct accord_ring_statistics *rings, uint32_t limit);
	void (*close)(struct accord_io *io);
};

/* The first member of every back end. */
struct accord_io {
	const struct accord_io_operations *operations;
};

#endif
