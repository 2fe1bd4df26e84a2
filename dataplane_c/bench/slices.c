// SPDX-License-Identifier: Apache-2.0
#include "slices.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "measure.h"

enum {
	PROGRAMS = 3,
	SETTLE_NS = 10000000, /* what the program before has sent back is on its way */
};

static void enter(int namespace, const char *path)
{
	if (namespace < 0 || setns(namespace, CLONE_NEWNET))
		give_up(path, errno);
	close(namespace);
}

int slices_attach(const struct slices *slices)
{
	static const char mine[] = "/proc/thread-self/ns/net";
	int back = open(mine, O_RDONLY | O_CLOEXEC), link;
	uint32_t interface;

	enter(open(slices->namespace, O_RDONLY | O_CLOEXEC), slices->namespace);
	interface = if_nametoindex(slices->interface);
	if (!interface)
		give_up(slices->interface, errno);
	link = attach(slices->drop_fd, interface);
	enter(back, mine);
	return link;
}

static uint64_t made(const struct slices *slices)
{
	struct flood_plan plan;
	uint32_t key = 0;

	if (bpf_map_lookup_elem(slices->plan_fd, &key, &plan))
		give_up("map plan", errno);
	return plan.made;
}

static void one(const struct slices *slices, int link, int program)
{
	struct flood_arrived before;
	uint64_t began, made_before;
	double seconds;

	if (bpf_link_update(link, program, NULL))
		give_up("putting another XDP program in place", errno);
	pause_ns(SETTLE_NS);
	before = arrived(slices->arrived_fd);
	made_before = made(slices);
	began = now_ns();
	pause_ns((uint64_t)slices->milliseconds * 1000000);
	seconds = (double)(now_ns() - began) / 1e9;
	printf("[%.0f, %.0f]", (double)(arrived(slices->arrived_fd).packets - before.packets) / seconds,
	       (double)(made(slices) - made_before) / seconds);
}

void slices_take(const struct slices *slices, int link, uint64_t nanoseconds)
{
	const uint64_t end = now_ns() + nanoseconds;
	const int programs[PROGRAMS] = {slices->drop_fd, slices->bounce_fd, bpf_prog_get_fd_by_id(slices->program)};
	const char *between = "[";

	if (programs[PROGRAMS - 1] < 0)
		give_up("the program to be measured", errno);
	do {
		for (int i = 0; i < PROGRAMS; i++) {
			printf("%s", i ? ", " : between);
			one(slices, link, programs[i]);
			between = "], [";
		}
	} while (now_ns() < end);
	printf("]");
	close(programs[PROGRAMS - 1]);
}
