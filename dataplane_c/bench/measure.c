// SPDX-License-Identifier: Apache-2.0
#include "measure.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>

enum {
	MAX_CPUS = 1024,
};

void give_up(const char *what, int error)
{
	fprintf(stderr, "flood: %s: %s\n", what, strerror(error));
	exit(1);
}

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void pause_ns(uint64_t nanoseconds)
{
	const struct timespec pause = {.tv_sec = (time_t)(nanoseconds / 1000000000u),
	                               .tv_nsec = (long)(nanoseconds % 1000000000u)};

	nanosleep(&pause, NULL);
}

struct flood_arrived arrived(int map_fd)
{
	static struct flood_arrived each[MAX_CPUS];
	struct flood_arrived sum = {0};
	uint32_t key = 0;
	int cpus = libbpf_num_possible_cpus();

	if (cpus > MAX_CPUS || bpf_map_lookup_elem(map_fd, &key, each))
		give_up("map arrived", errno);
	for (int cpu = 0; cpu < cpus; cpu++) {
		sum.packets += each[cpu].packets;
		sum.bytes += each[cpu].bytes;
	}
	return sum;
}

int attach(int program_fd, uint32_t interface)
{
	LIBBPF_OPTS(bpf_link_create_opts, options, .flags = XDP_FLAGS_DRV_MODE);
	int link = bpf_link_create(program_fd, (int)interface, BPF_XDP, &options);

	if (link < 0)
		give_up("attaching an XDP program", errno);
	return link;
}
