/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Makes messages out of the live frames of BPF_PROG_TEST_RUN, each with a transaction ID of its own. The kernel
 * hands a frame out again as it came back, so everything that differs between two packets is written each time.
 */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "accord/wire.h"
#include "generate.h"

char _license[] SEC("license") = "Dual BSD/GPL";

enum {
	/* Of the packets of load.c: where its chunks begin. */
	CHUNK_0 = ACCORD_HEADER_BYTES,
	CHUNK_1 = CHUNK_0 + ACCORD_CHUNK_HEADER_BYTES + 382,
	CHUNK_2 = CHUNK_1 + ACCORD_CHUNK_HEADER_BYTES + 382,
	PACKET = CHUNK_2 + ACCORD_CHUNK_HEADER_BYTES + 380,
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct generate_plan);
} plan SEC(".maps");

/* The index of the interface that packets leave by; 0: they are not made. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} way SEC(".maps");

SEC("xdp")
int generate(struct xdp_md *context)
{
	__u8 *packet = (void *)(long)context->data + GENERATE_PACKET_AT;
	struct accord_header *header = (void *)packet;
	struct generate_plan *now;
	__u32 key = 0, shift, index, id, sum, interface;
	volatile __u32 *chosen;

	chosen = bpf_map_lookup_elem(&way, &key);
	interface = chosen ? *chosen : 0;
	if (!interface)
		return XDP_DROP;
	now = bpf_map_lookup_elem(&plan, &key);
	if (!now || packet + PACKET > (__u8 *)(long)context->data_end)
		return XDP_ABORTED;
	shift = now->shift & 31;
	index = now->next & ((1u << shift) - 1);
	id = now->next >> shift;
	if (index >= GENERATE_MOST)
		return XDP_ABORTED;
	now->next++;
	sum = now->sums[index] + (id >> 16) + (id & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	packet[3] = now->flags[index];
	*(__be32 *)(void *)(packet + 16) = bpf_htonl(id);
	packet[23] = index; /* of the TSN: the first one ends in a zero byte */
	header->checksum = bpf_htons(~sum);
	packet[CHUNK_0 + 1] = packet[CHUNK_1 + 1] = packet[CHUNK_2 + 1] = now->chunk_flags[index];
	return bpf_redirect(interface, 0);
}
