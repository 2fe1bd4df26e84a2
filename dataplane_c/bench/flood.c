// SPDX-License-Identifier: Apache-2.0
/*
 * A flood of packets of a negotiation, made from one frame; bench/flood.py says what it is for. One JSON object a run.
 *
 *   flood OBJECT INTERFACE drop SECONDS
 *       Drop every packet that comes in, for so long: packets a second.
 *   flood OBJECT INTERFACE KIND FRAME HEADER_AT ID_AT FAMILY RATE SECONDS CPU [KEY_ID KEY SLOT]
 *       Send. KIND: proposals, replayed, validated. FRAME: a file, whose packet has zeros for its transaction ID, TSN,
 *       checksum and cookie, and its IPv4 header for source and checksum (replayed: which is sent as it is). RATE:
 *       packets a second; 0: as many as go. KEY: 32 hexadecimal digits. ID_AT: where, in the packet, a chunk has zeros
 *       for its transaction ID; 0: nowhere.
 *   flood OBJECT INTERFACE KIND FRAME HEADER_AT ID_AT FAMILY RATE SECONDS CPU slices NAMESPACE PEER PROGRAM
 * MILLISECONDS Send, and at the other end of the wire, interface PEER in the network namespace of that path, put
 * XDP_DROP, XDP_TX and the program of that ID in turn, for a slice of so long each.
 *
 * Frames are made, and, where the receiver runs no other processor, received by CPU: what is measured at the full rate
 * is what one processor does of both.
 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "accord/wire.h"
#include "flood.h"
#include "measure.h"
#include "slices.h"

/* Newer than Debian 12's <linux/bpf.h> in some of its kernels' headers. */
#ifndef BPF_F_TEST_XDP_LIVE_FRAMES
#define BPF_F_TEST_XDP_LIVE_FRAMES (1U << 1)
#endif

enum {
	FRAMES_PER_CALL = 1 << 30, /* until a signal ends the call: each takes the kernel some 20 ms to begin and end */
	FRAMES_PER_BATCH = 64,
	ETHERNET_BYTES = 14,
	IPV4_BYTES = 20,
};

struct flood {
	struct bpf_object *object;
	int plan_fd, arrived_fd;
	struct flood_plan plan;
	uint8_t frame[FLOOD_ROOM];
	uint32_t length;
	atomic_bool stop, ended;
	int error;
	struct slices slices;
	int slices_link;
};

static int program(const struct flood *flood, const char *name)
{
	return bpf_program__fd(bpf_object__find_program_by_name(flood->object, name));
}

static void load(struct flood *flood, const char *path)
{
	flood->object = bpf_object__open_file(path, NULL);
	if (libbpf_get_error(flood->object) || bpf_object__load(flood->object))
		give_up(path, errno);
	flood->plan_fd = bpf_object__find_map_fd_by_name(flood->object, "plan");
	flood->arrived_fd = bpf_object__find_map_fd_by_name(flood->object, "arrived");
}

/* RFC 1071, in the order of memory. */
static uint32_t sum_of(const uint8_t *bytes, uint32_t length)
{
	uint64_t sum = 0;
	uint16_t word;

	for (uint32_t i = 0; i + 1 < length; i += 2) {
		memcpy(&word, bytes + i, 2);
		sum += word;
	}
	if (length % 2) {
		word = 0;
		memcpy(&word, bytes + length - 1, 1);
		sum += word;
	}
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint32_t)sum;
}

static void read_frame(struct flood *flood, const char *path)
{
	FILE *file = fopen(path, "rb");
	uint32_t front = flood->plan.header_at + ACCORD_HEADER_BYTES + ACCORD_COOKIE_BYTES, chunks;

	if (!file)
		give_up(path, errno);
	flood->length = (uint32_t)fread(flood->frame, 1, FLOOD_ROOM - FLOOD_SPARE, file);
	fclose(file);
	if (flood->length <= front)
		give_up(path, EINVAL);
	memcpy(flood->plan.front, flood->frame, sizeof(flood->plan.front));
	flood->plan.frame_bytes = flood->length - ETHERNET_BYTES;
	flood->plan.sum = sum_of(flood->frame + flood->plan.header_at, flood->length - flood->plan.header_at);
	flood->plan.ip_sum = sum_of(flood->frame + ETHERNET_BYTES, IPV4_BYTES);
	chunks = flood->length - front;
	flood->plan.bound =
		htobe32((uint32_t)be16toh((uint16_t)sum_of(flood->frame + front, chunks)) << 16 | (chunks & 0xffff));
	memmove(flood->frame + FLOOD_SPARE, flood->frame, flood->length);
	flood->length += FLOOD_SPARE; /* each one is cut: flood.bpf.c */
}

static void *run(void *argument)
{
	struct flood *flood = argument;
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = flood->frame, .data_size_in = flood->length,
	            .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .repeat = FRAMES_PER_CALL, .batch_size = FRAMES_PER_BATCH);

	while (!flood->error && !atomic_load(&flood->stop))
		if (bpf_prog_test_run_opts(program(flood, "flood_generate"), &options) && errno != EINTR)
			flood->error = errno;
	atomic_store(&flood->ended, true);
	return NULL;
}

static void interrupt(int number)
{
	(void)number;
}

static void watch_slices(const struct flood *flood, uint64_t nanoseconds)
{
	printf("\"slices\": [");
	slices_take(&flood->slices, flood->slices_link, nanoseconds);
	printf("], ");
}

static void send_for(struct flood *flood, uint64_t nanoseconds, int cpu)
{
	const struct sigaction action = {.sa_handler = interrupt};
	pthread_attr_t attributes;
	pthread_t thread;
	cpu_set_t cpus;
	int error;

	sigaction(SIGUSR1, &action, NULL); /* without SA_RESTART, and not ignored: it is there to interrupt */
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	pthread_attr_init(&attributes);
	pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
	error = pthread_create(&thread, &attributes, run, flood);
	if (error)
		give_up("a thread", error);
	if (flood->slices.program)
		watch_slices(flood, nanoseconds);
	else
		pause_ns(nanoseconds);
	atomic_store(&flood->stop, true);
	while (!atomic_load(&flood->ended)) { /* again: the first may come in between two calls */
		pthread_kill(thread, SIGUSR1);
		pause_ns(1000000);
	}
	pthread_join(thread, NULL);
	if (flood->error)
		give_up("live frames of BPF_PROG_TEST_RUN", flood->error);
}

static uint32_t whole_number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (!*text || *end || value > UINT32_MAX)
		give_up(text, EINVAL);
	return (uint32_t)value;
}

static double number(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (!*text || *end)
		give_up(text, EINVAL);
	return value;
}

static void read_key(struct flood *flood, char **arguments)
{
	uint8_t key[16];

	flood->plan.key.id = whole_number(arguments[0]);
	if (strlen(arguments[1]) != 2 * sizeof(key))
		give_up("the key", EINVAL);
	for (size_t i = 0; i < sizeof(key); i++) {
		const char digits[] = {arguments[1][2 * i], arguments[1][2 * i + 1], '\0'};
		char *end;

		key[i] = (uint8_t)strtoul(digits, &end, 16);
		if (*end)
			give_up("the key", EINVAL);
	}
	memcpy(flood->plan.key.words, key, sizeof(key));
	flood->plan.slot = whole_number(arguments[2]);
}

static void read_slices(struct flood *flood, char **arguments)
{
	flood->slices = (struct slices){
		.namespace = arguments[1],
		.interface = arguments[2],
		.program = whole_number(arguments[3]),
		.milliseconds = whole_number(arguments[4]),
		.drop_fd = program(flood, "flood_drop"),
		.bounce_fd = program(flood, "flood_bounce"),
		.arrived_fd = flood->arrived_fd,
		.plan_fd = flood->plan_fd,
	};
}

static int drop(struct flood *flood, uint32_t interface, double seconds)
{
	struct flood_arrived before, after;
	uint64_t began;

	attach(program(flood, "flood_drop"), interface);
	printf("attached\n");
	fflush(stdout);
	while (!arrived(flood->arrived_fd).packets)
		pause_ns(1000000);
	pause_ns(100000000);
	before = arrived(flood->arrived_fd);
	began = now_ns();
	pause_ns((uint64_t)(seconds * 1e9));
	after = arrived(flood->arrived_fd);
	printf("{\"packets_per_second\": %.0f}\n",
	       (double)(after.packets - before.packets) * 1e9 / (double)(now_ns() - began));
	return 0;
}

int main(int count, char **arguments)
{
	static const char *const kinds[] = {"proposals", "replayed", "validated"};
	static struct flood flood;
	struct flood_arrived back;
	uint32_t interface, key = 0;
	double rate, seconds;
	uint64_t began;

	if (count != 5 && count != 11 && count != 14 && count != 16)
		give_up("arguments: see the beginning of flood.c", EINVAL);
	interface = if_nametoindex(arguments[2]);
	load(&flood, arguments[1]);
	if (count == 5)
		return drop(&flood, interface, number(arguments[4]));
	flood.plan.interface = interface;
	for (uint32_t kind = 0; kind < 3; kind++)
		if (strcmp(arguments[3], kinds[kind]) == 0)
			flood.plan.kind = kind;
	flood.plan.header_at = whole_number(arguments[5]);
	flood.plan.id_at = whole_number(arguments[6]);
	flood.plan.family = whole_number(arguments[7]);
	rate = number(arguments[8]);
	seconds = number(arguments[9]);
	flood.plan.picoseconds = rate > 0 ? (uint64_t)(1e12 / rate) : 0;
	if (count == 14)
		read_key(&flood, arguments + 11);
	if (count == 16)
		read_slices(&flood, arguments + 11);
	read_frame(&flood, arguments[4]);
	if (bpf_map_update_elem(flood.plan_fd, &key, &flood.plan, BPF_ANY))
		give_up("map plan", errno);
	attach(program(&flood, "flood_sink"), interface);
	if (flood.slices.program)
		flood.slices_link = slices_attach(&flood.slices);
	printf("attached\n");
	fflush(stdout);
	printf("{");
	began = now_ns();
	send_for(&flood, (uint64_t)(seconds * 1e9), (int)whole_number(arguments[10]));
	if (bpf_map_lookup_elem(flood.plan_fd, &key, &flood.plan))
		give_up("map plan", errno);
	seconds = (double)(now_ns() - began) / 1e9;
	pause_ns(100000000); /* what is on its way */
	back = arrived(flood.arrived_fd);
	printf("\"made\": %" PRIu64 ", \"made_bytes\": %" PRIu64 ", \"seconds\": %.6f, \"answers\": %" PRIu64
	       ", \"answer_bytes\": %" PRIu64 "}\n",
	       (uint64_t)flood.plan.made, (uint64_t)flood.plan.made_bytes, seconds, (uint64_t)back.packets,
	       (uint64_t)back.bytes);
	fflush(stdout);
	getchar(); /* honest hosts may still be answered here, which takes a program on this end of the wire */
	return 0;
}
