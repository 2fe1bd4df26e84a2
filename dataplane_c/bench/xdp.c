// SPDX-License-Identifier: Apache-2.0
/*
 * What the XDP program costs a packet, by BPF_PROG_TEST_RUN. Prints one JSON object a round: nanoseconds of a run.
 *
 *   xdp OBJECT EMPTY_OBJECT ROUNDS REPEAT
 *
 * Run it in a network namespace that does not forward: what a host's own packets cost.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>

#include "frame.h"
#include "load.h"
#include "loader.h"

enum {
	ROOM = 2048,
	FRAME_LIMIT = 1792, /* of a ring of frames of 2048 bytes */
	TCP_BYTES = 32,     /* with the timestamps that nearly every segment has */
	PAYLOAD = 256,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
};

struct frame {
	const char *name;
	uint32_t verdict, length;
	uint8_t bytes[ROOM];
};

static const uint8_t link_header[] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1};

/* Ethernet, IP and the first words of TCP or UDP: as far as anybody looks who does not want the packet. */
static uint32_t foreign(uint8_t *frame, uint8_t family, uint8_t protocol)
{
	uint32_t length = (protocol == PROTOCOL_TCP ? TCP_BYTES : ACCORD_FRAME_UDP_BYTES) + PAYLOAD;
	uint8_t *at = frame;

	memset(frame, 0, ROOM);
	memcpy(at, link_header, sizeof(link_header));
	at += sizeof(link_header);
	at[0] = family == 4 ? 0x08 : 0x86;
	at[1] = family == 4 ? 0x00 : 0xdd;
	at += 2;
	if (family == 4) {
		const uint8_t addresses[] = {192, 0, 2, 1, 192, 0, 2, 2};

		at[0] = 0x45;
		at[2] = (uint8_t)((ACCORD_FRAME_IPV4_BYTES + length) >> 8);
		at[3] = (uint8_t)(ACCORD_FRAME_IPV4_BYTES + length);
		at[6] = 0x40; /* DF */
		at[8] = 64;
		at[9] = protocol;
		memcpy(at + 12, addresses, sizeof(addresses));
		at += ACCORD_FRAME_IPV4_BYTES;
	} else {
		at[0] = 0x60;
		at[4] = (uint8_t)(length >> 8);
		at[5] = (uint8_t)length;
		at[6] = protocol;
		at[7] = 64;
		inet_pton(AF_INET6, "2001:db8::1", at + 8);
		inet_pton(AF_INET6, "2001:db8::2", at + 24);
		at += ACCORD_FRAME_IPV6_BYTES;
	}
	at[0] = 0xc3, at[1] = 0x50; /* from 50000 */
	at[2] = 0x01, at[3] = 0xbb; /* to 443: QUIC, or HTTPS */
	if (protocol == PROTOCOL_UDP) {
		at[4] = (uint8_t)(length >> 8);
		at[5] = (uint8_t)length;
		at[ACCORD_FRAME_UDP_BYTES] = 0x41; /* a QUIC packet with a short header */
	} else {
		at[12] = TCP_BYTES / 4 << 4;
		at[13] = 0x10; /* ACK */
	}
	return (uint32_t)(at - frame) + length;
}

/* Linux's SYN, bare or with options behind its own: ours, or NOPs and ours so that they have to be walked. */
static uint32_t syn(uint8_t *frame, uint32_t nops, int with_option)
{
	static const uint8_t linux_options[] = {2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7};
	static const uint8_t option[ACCORD_TCP_OPTION_BYTES] = {ACCORD_TCP_OPTION_KIND,
	                                                        ACCORD_TCP_OPTION_BYTES,
	                                                        ACCORD_TCP_OPTION_EXID >> 8,
	                                                        ACCORD_TCP_OPTION_EXID & 0xff,
	                                                        's',
	                                                        'y',
	                                                        'n'};
	uint8_t *ip = frame + ETH_HLEN, *tcp = ip + ACCORD_FRAME_IPV4_BYTES, *at = tcp + 20;
	uint32_t length;

	foreign(frame, 4, PROTOCOL_TCP);
	if (!nops) {
		memcpy(at, linux_options, sizeof(linux_options));
		at += sizeof(linux_options);
	}
	memset(at, 1, nops);
	at += nops;
	if (with_option) {
		memcpy(at, option, sizeof(option));
		at += sizeof(option);
	}
	length = (uint32_t)(at - tcp);
	tcp[12] = (uint8_t)(length / 4 << 4);
	tcp[13] = 0x02; /* SYN */
	ip[2] = 0;
	ip[3] = (uint8_t)(ACCORD_FRAME_IPV4_BYTES + length);
	return (uint32_t)(at - frame);
}

static uint32_t arp(uint8_t *frame)
{
	memset(frame, 0, ROOM);
	memset(frame, 0xff, 6);
	memcpy(frame + 6, link_header + 6, 6);
	frame[12] = 0x08;
	frame[13] = 0x06;
	return ETH_ZLEN;
}

static uint32_t ours(uint8_t *frame)
{
	struct accord_path path = load_path(), back = path;
	uint8_t packet[LOAD_PACKET];
	uint32_t length = load_packet(packet, 1, 0, LOAD_PROPOSAL, false);

	back.local_port = path.remote_port;
	back.remote_port = path.local_port;
	memcpy(back.local, path.remote, sizeof(back.local));
	memcpy(back.remote, path.local, sizeof(back.remote));
	memcpy(back.link, link_header, sizeof(link_header));
	back.link[12] = 0x08;
	back.link_length = ETH_HLEN;
	return (uint32_t)accord_frame_build(&back, packet, length, frame, ROOM);
}

static struct accord_program *open_ours(const char *object_path)
{
	struct accord_program *program;
	struct accord_settings *settings;
	struct accord_failure failure = {0};
	int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (accord_program_open(object_path, &program, &failure)) {
		fprintf(stderr, "%s\n", failure.detail);
		exit(1);
	}
	settings = accord_program_settings(program);
	memcpy(settings->address, link_header, sizeof(settings->address));
	settings->frame_limit = FRAME_LIMIT;
	settings->flags = ACCORD_SETTINGS_SUPPRESS;
	if (accord_program_steer(program, 443, ACCORD_PORT_STEERED | ACCORD_PORT_SUPPRESS) ||
	    accord_program_join(program, 0, fd)) {
		fprintf(stderr, "the maps of %s do not take a port and a socket\n", object_path);
		exit(1);
	}
	return program;
}

static int open_empty(const char *object_path)
{
	struct bpf_object *object = bpf_object__open_file(object_path, NULL);

	if (libbpf_get_error(object) || bpf_object__load(object)) {
		fprintf(stderr, "%s does not load\n", object_path);
		exit(1);
	}
	return bpf_program__fd(bpf_object__next_program(object, NULL));
}

static uint32_t time_ours(struct accord_program *program, const struct frame *frame, uint32_t repeat)
{
	static uint8_t output[ROOM];
	uint32_t length = ROOM, verdict, duration;

	accord_program_heartbeat(program);
	if (accord_program_test_run(program, frame->bytes, frame->length, repeat, output, &length, &verdict, &duration)) {
		fprintf(stderr, "BPF_PROG_TEST_RUN failed\n");
		exit(1);
	}
	if (verdict != frame->verdict) {
		fprintf(stderr, "verdict %u on %s, not %u\n", verdict, frame->name, frame->verdict);
		exit(1);
	}
	return duration;
}

static uint32_t time_empty(int fd, const struct frame *frame, uint32_t repeat)
{
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame->bytes, .data_size_in = frame->length,
	            .repeat = (int)repeat);

	if (bpf_prog_test_run_opts(fd, &options)) {
		fprintf(stderr, "BPF_PROG_TEST_RUN failed\n");
		exit(1);
	}
	return options.duration;
}

int main(int argc, char **argv)
{
	static struct frame frames[] = {
		{.name = "tcp", .verdict = XDP_PASS},        {.name = "udp", .verdict = XDP_PASS},
		{.name = "arp", .verdict = XDP_PASS},        {.name = "tcp6", .verdict = XDP_PASS},
		{.name = "udp6", .verdict = XDP_PASS},       {.name = "ours", .verdict = XDP_REDIRECT},
		{.name = "syn", .verdict = XDP_PASS},        {.name = "syn_option", .verdict = XDP_PASS},
		{.name = "syn_walked", .verdict = XDP_PASS},
	};
	const size_t count = sizeof(frames) / sizeof(*frames);
	struct accord_program *program;
	long rounds = argc == 5 ? strtol(argv[3], NULL, 10) : 0, runs = argc == 5 ? strtol(argv[4], NULL, 10) : 0;
	uint32_t repeat = (uint32_t)runs;
	int empty;

	if (rounds < 1 || runs < 1 || runs > INT32_MAX) {
		fprintf(stderr, "usage: xdp OBJECT EMPTY_OBJECT ROUNDS REPEAT\n");
		return 2;
	}
	frames[0].length = foreign(frames[0].bytes, 4, PROTOCOL_TCP);
	frames[1].length = foreign(frames[1].bytes, 4, PROTOCOL_UDP);
	frames[2].length = arp(frames[2].bytes);
	frames[3].length = foreign(frames[3].bytes, 6, PROTOCOL_TCP);
	frames[4].length = foreign(frames[4].bytes, 6, PROTOCOL_UDP);
	frames[5].length = ours(frames[5].bytes);
	frames[6].length = syn(frames[6].bytes, 0, 0);
	frames[7].length = syn(frames[7].bytes, 0, 1);
	frames[8].length = syn(frames[8].bytes, 24, 1);
	program = open_ours(argv[1]);
	empty = open_empty(argv[2]);
	for (long round = 0; round < rounds; round++) {
		printf("{\"empty\": %u", time_empty(empty, &frames[0], repeat));
		for (size_t i = 0; i < count; i++)
			printf(", \"%s\": %u", frames[i].name, time_ours(program, &frames[i], repeat));
		printf("}\n");
	}
	accord_program_close(program);
	return 0;
}
