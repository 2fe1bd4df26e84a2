/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An initiator that waits for the program to speak first sends no segment, and of none there is no socket for it to
 * speak on. So it is asked for one: by a segment that it has, of no length, as keepalives are. A TCP answers that with
 * what it has (RFC 9293, section 3.10.7.4): a bare acknowledgement, which is the first segment.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "birth_program.h"
#include "checksum.h"

enum {
	OPTIONS_BYTES = 12, /* two NOPs and timestamps: RFC 7323, appendix A */
	TCP_NOPS = 0x01010000,
	TCP_TIMESTAMPS = 8 << 8 | 10, /* kind, length */
	HOPS = 64,
	IPV6 = 6u << 28,
};

struct segment {
	struct tcphdr tcp;
	uint32_t options[OPTIONS_BYTES / 4];
};

static uint32_t segment_bytes(const struct accord_tcp_state *state)
{
	return state->timestamps ? sizeof(struct segment) : sizeof(struct tcphdr);
}

static struct segment segment_of(const struct accord_tcp_state *state, uint32_t timestamp)
{
	const size_t address_bytes = state->family == 4 ? 4 : 16;
	const uint32_t bytes = segment_bytes(state);
	const uint8_t ends[4] = {0, IPPROTO_TCP, 0, (uint8_t)bytes};
	struct segment made = {
		.tcp = {.source = htons(state->local_port),
	            .dest = htons(state->remote_port),
	            .seq = htonl(state->local_isn),
	            .ack_seq = htonl(state->remote_isn + 1),
	            .doff = (uint16_t)(bytes / 4 & 0xf),
	            .ack = 1,
	            .window = htons((uint16_t)(state->local_window >> state->local_scale))},
		.options = {htonl(TCP_NOPS | TCP_TIMESTAMPS), htonl(timestamp), 0},
	};
	uint64_t sum = checksum_scan(state->local, (uint32_t)address_bytes).sum;

	sum += checksum_scan(state->remote, (uint32_t)address_bytes).sum;
	sum += checksum_scan(ends, sizeof(ends)).sum;
	sum += checksum_scan((const uint8_t *)&made, bytes).sum;
	made.tcp.check = htons((uint16_t)~checksum_fold(sum));
	return made;
}

/* The kernel fills in what is 0, the checksum too. */
static void rouse_ipv4(int fd, const struct accord_tcp_state *state, const struct segment *segment, uint32_t bytes)
{
	struct sockaddr_in peer = {.sin_family = AF_INET};
	struct {
		struct iphdr ip;
		struct segment segment;
	} packet = {.ip = {.version = 4, .ihl = 5, .ttl = HOPS, .protocol = IPPROTO_TCP}, .segment = *segment};

	memcpy(&peer.sin_addr, state->remote, sizeof(peer.sin_addr));
	memcpy(&packet.ip.saddr, state->local, sizeof(packet.ip.saddr));
	memcpy(&packet.ip.daddr, state->remote, sizeof(packet.ip.daddr));
	sendto(fd, &packet, sizeof(packet.ip) + bytes, MSG_DONTWAIT, (struct sockaddr *)&peer, sizeof(peer));
}

static void rouse_ipv6(int fd, const struct accord_tcp_state *state, const struct segment *segment, uint32_t bytes)
{
	struct sockaddr_in6 peer = {.sin6_family = AF_INET6, .sin6_scope_id = state->scope};
	struct {
		struct ip6_hdr ip;
		struct segment segment;
	} packet = {.segment = *segment};

	packet.ip.ip6_flow = htonl(IPV6);
	packet.ip.ip6_plen = htons((uint16_t)bytes);
	packet.ip.ip6_nxt = IPPROTO_TCP;
	packet.ip.ip6_hlim = HOPS;
	memcpy(&peer.sin6_addr, state->remote, sizeof(peer.sin6_addr));
	memcpy(&packet.ip.ip6_src, state->local, sizeof(packet.ip.ip6_src));
	memcpy(&packet.ip.ip6_dst, state->remote, sizeof(packet.ip.ip6_dst));
	sendto(fd, &packet, sizeof(packet.ip) + bytes, MSG_DONTWAIT, (struct sockaddr *)&peer, sizeof(peer));
}

void accord_birth_rouse(const struct accord_tcp_state *state, uint32_t timestamp)
{
	const struct segment segment = segment_of(state, timestamp);
	/* Of IPPROTO_RAW: it receives nothing, and headers are included. */
	int fd = socket(state->family == 4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);

	if (fd < 0)
		return;
	if (state->family == 4)
		rouse_ipv4(fd, state, &segment, segment_bytes(state));
	else
		rouse_ipv6(fd, state, &segment, segment_bytes(state));
	close(fd);
}
