/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three programs in turn under one flood that does not stop: XDP_DROP, XDP_TX and the one that is measured, for a slice
 * of time each. What a busy machine does to one of them it does to all.
 */
#ifndef ACCORD_BENCH_SLICES_H
#define ACCORD_BENCH_SLICES_H

#include <stdint.h>

struct slices {
	const char *namespace; /* of the host under the flood: a path */
	const char *interface; /* its end of the wire */
	uint32_t program;      /* the kernel's ID of the program that is measured */
	uint32_t milliseconds; /* of each slice */
	int drop_fd, bounce_fd, arrived_fd, plan_fd;
};

/* Attach in that namespace, and come back from it. The result is the link. */
int slices_attach(const struct slices *slices);
/* For so long, round by round; print them as a JSON array of arrays: packets a second that were dropped, that came back
 * to the flood's host as they were, and that came back answered, each with how many were made meanwhile. */
void slices_take(const struct slices *slices, int link, uint64_t nanoseconds);

#endif /* ACCORD_BENCH_SLICES_H */
