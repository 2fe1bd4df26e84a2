// SPDX-License-Identifier: Apache-2.0
#include "generator.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "frame.h"
#include "generate.h"
#include "load.h"

/* Newer than Debian 12's <linux/bpf.h> in some of its kernels' headers. */
#ifndef BPF_F_TEST_XDP_LIVE_FRAMES
#define BPF_F_TEST_XDP_LIVE_FRAMES (1U << 1)
#endif

_Static_assert((int)GENERATE_MOST == (int)LOAD_LONG, "no message of the load is longer");

enum {
	/* Beginning and ending a call takes the kernel some 20 ms, so there is one, and a signal ends it. */
	FRAMES_PER_CALL = 1 << 30,
	FRAMES_PER_BATCH = 64,
	FLAGS_AT = 3,
	ID_AT = 16,
	CHECKSUM_AT = 30,
	ROOM = 2048,
};

struct generator {
	char namespace_path[64];
	struct bpf_object *object;
	int program_fd, plan_fd, way_fd;
	uint8_t frame[ROOM];
	uint32_t length;
	struct generate_plan plan;
	pthread_t thread;
	atomic_bool stop, ended;
	int error;
};

__attribute__((noreturn)) static void give_up(const char *what, int error)
{
	fprintf(stderr, "generator: %s: %s\n", what, strerror(error));
	exit(1);
}

static void build_frame(struct generator *generator, const uint8_t to[6], uint32_t packets)
{
	struct accord_path there = load_path(), path = there;
	uint8_t packet[LOAD_PACKET];

	path.local_port = there.remote_port;
	path.remote_port = there.local_port;
	memcpy(path.local, there.remote, sizeof(path.local));
	memcpy(path.remote, there.local, sizeof(path.remote));
	memcpy(path.link, to, 6);
	path.link[6] = 2; /* any other local address */
	path.link[12] = 0x08;
	path.link_length = 14;
	for (uint32_t index = 0; index < packets; index++) {
		uint32_t sum = 0;

		load_packet(packet, 0, index, packets, false);
		generator->plan.flags[index] = packet[FLAGS_AT];
		generator->plan.chunk_flags[index] = packet[ACCORD_HEADER_BYTES + 1];
		packet[CHECKSUM_AT] = packet[CHECKSUM_AT + 1] = 0;
		for (uint32_t i = 0; i < LOAD_PACKET; i += 2)
			sum += (uint32_t)(packet[i] << 8 | packet[i + 1]);
		generator->plan.sums[index] = (sum & 0xffff) + (sum >> 16);
	}
	generator->length = (uint32_t)accord_frame_build(&path, packet, LOAD_PACKET, generator->frame, ROOM);
	/* RFC 768: no UDP checksum, which the generator would have to make anew. Nobody on the way looks at it but
	 * the kernel's UDP, which is so spared the work. */
	memset(generator->frame + GENERATE_PACKET_AT - 2, 0, 2);
}

static void interrupt(int number)
{
	(void)number;
}

struct generator *generator_open(const char *object_path, const char *namespace_path, const uint8_t to[6],
                                 uint32_t shift)
{
	struct generator *generator = calloc(1, sizeof(*generator));
	const struct sigaction action = {.sa_handler = interrupt};
	struct timespec now;

	if (!generator)
		give_up("memory", ENOMEM);
	snprintf(generator->namespace_path, sizeof(generator->namespace_path), "%s", namespace_path);
	build_frame(generator, to, UINT32_C(1) << shift);
	/* Without SA_RESTART, and not ignored: it is there to interrupt. */
	sigaction(SIGUSR1, &action, NULL);
	/* IDs are never those of a run before. */
	clock_gettime(CLOCK_MONOTONIC, &now);
	generator->plan.shift = shift;
	generator->plan.next = (uint64_t)now.tv_sec << 16 << shift;
	generator->object = bpf_object__open_file(object_path, NULL);
	if (libbpf_get_error(generator->object) || bpf_object__load(generator->object))
		give_up(object_path, errno);
	generator->program_fd = bpf_program__fd(bpf_object__next_program(generator->object, NULL));
	generator->plan_fd = bpf_object__find_map_fd_by_name(generator->object, "plan");
	generator->way_fd = bpf_object__find_map_fd_by_name(generator->object, "way");
	return generator;
}

static void *run(void *argument)
{
	struct generator *generator = argument;
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = generator->frame, .data_size_in = generator->length,
	            .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .repeat = FRAMES_PER_CALL, .batch_size = FRAMES_PER_BATCH);
	int namespace = open(generator->namespace_path, O_RDONLY | O_CLOEXEC);
	const struct sched_param first = {.sched_priority = 1};
	uint32_t key = 0;

	pthread_setschedparam(pthread_self(), SCHED_FIFO, &first);
	/* bpf_redirect finds the interface in the namespace of the thread that calls. */
	if (namespace < 0 || setns(namespace, CLONE_NEWNET))
		generator->error = errno;
	if (namespace >= 0)
		close(namespace);
	if (!generator->error && bpf_map_update_elem(generator->plan_fd, &key, &generator->plan, BPF_ANY))
		generator->error = errno;
	while (!generator->error && !atomic_load(&generator->stop))
		if (bpf_prog_test_run_opts(generator->program_fd, &options) && errno != EINTR)
			generator->error = errno;
	atomic_store(&generator->ended, true);
	return NULL;
}

void generator_start(struct generator *generator, int cpu)
{
	pthread_attr_t attributes;
	cpu_set_t cpus;
	int error;

	atomic_store(&generator->stop, false);
	atomic_store(&generator->ended, false);
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	/* There from the start: the caller may leave no time on its own processor. */
	pthread_attr_init(&attributes);
	pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
	error = pthread_create(&generator->thread, &attributes, run, generator);
	pthread_attr_destroy(&attributes);
	if (error)
		give_up("a thread", error);
}

void generator_send(struct generator *generator, uint32_t interface)
{
	uint32_t key = 0;

	if (bpf_map_update_elem(generator->way_fd, &key, &interface, BPF_ANY))
		give_up("map way", errno);
}

static void read_plan(struct generator *generator)
{
	uint32_t key = 0;

	if (bpf_map_lookup_elem(generator->plan_fd, &key, &generator->plan))
		give_up("map plan", errno);
}

uint64_t generator_made(struct generator *generator)
{
	read_plan(generator);
	return generator->plan.next;
}

void generator_stop(struct generator *generator)
{
	const struct timespec pause = {.tv_nsec = 1000000};

	atomic_store(&generator->stop, true);
	/* Again and again: the first may come in between two calls. */
	while (!atomic_load(&generator->ended)) {
		pthread_kill(generator->thread, SIGUSR1);
		nanosleep(&pause, NULL);
	}
	pthread_join(generator->thread, NULL);
	if (generator->error)
		give_up("live frames of BPF_PROG_TEST_RUN", generator->error);
	read_plan(generator);
}

void generator_close(struct generator *generator)
{
	bpf_object__close(generator->object);
	free(generator);
}
