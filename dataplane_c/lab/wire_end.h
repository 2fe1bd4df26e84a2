/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of the link: an AF_PACKET socket on an interface. Frames go in and out whole, Ethernet header
 * and VLAN tag included.
 */
#ifndef ACCORD_LAB_WIRE_END_H
#define ACCORD_LAB_WIRE_END_H

#include <stdint.h>
#include <time.h>

#include "schedule.h"

enum wire_end_constant {
	WIRE_END_BATCH = 64,
	WIRE_END_HEADROOM = 4,     /* one VLAN tag, which the kernel takes out of a frame and we put back */
	WIRE_END_LINK_HEADER = 22, /* Ethernet and two VLAN tags */
};

struct wire_end {
	int fd;
	unsigned index; /* of the interface */
	uint32_t mtu;
	uint64_t kernel_dropped; /* the socket's receive queue was full */
};

struct wire_end_batch {
	uint32_t count;
	uint32_t buffer[WIRE_END_BATCH];
	uint64_t arrived[WIRE_END_BATCH]; /* when the kernel took the frame in, CLOCK_MONOTONIC */
	bool oversize[WIRE_END_BATCH], unfinished[WIRE_END_BATCH];
};

/* Nanoseconds. */
uint64_t wire_end_now(clockid_t clock);
/* NULL, or which call failed, with errno set. */
const char *wire_end_open(struct wire_end *end, const char *interface);
void wire_end_close(struct wire_end *end);
/* Fills the batch with buffers that it takes from the schedule; returns how many. */
uint32_t wire_end_receive(struct wire_end *end, struct schedule *schedule, struct wire_end_batch *batch);
/* Sends; returns how many the interface took. Stops for good at one that it refused: skip that one. */
uint32_t wire_end_send(struct wire_end *end, const struct schedule *schedule, const uint32_t *buffers, uint32_t count);
/* Adds what the kernel dropped since the last call to kernel_dropped. */
void wire_end_statistics(struct wire_end *end);

#endif
