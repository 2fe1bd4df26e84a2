/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IP protocol 253 by the kernel: two raw sockets, IPv4 and IPv6. They send what has no link header yet, as an
 * initiator's first packet has none; they receive what the XDP program left to the kernel; and while they are
 * open the kernel does not answer our packets with "protocol unreachable". Needs CAP_NET_RAW.
 */
#ifndef ACCORD_IO_DIRECT_H
#define ACCORD_IO_DIRECT_H

#include "io.h"

enum accord_direct_constant {
	ACCORD_DIRECT_SOCKETS = 2,
};

struct accord_direct {
	int fd[ACCORD_DIRECT_SOCKETS]; /* -1: not to be had */
};

struct sock_extended_err;

/* deaf: somebody else gets copies of all frames, so these sockets receive none. A socket that cannot be had is
 * missed when something is to be sent by it. */
/* One of them, for good deaf or not; -1. The part that needs privilege. */
int accord_direct_socket(int family, int deaf);
void accord_direct_open(struct accord_direct *direct, int deaf);
void accord_direct_close(struct accord_direct *direct);
/* Takes what waits on one of the sockets; returns how many packets that was. */
uint32_t accord_direct_receive(const struct accord_direct *direct, uint32_t which, const struct accord_sink *sink,
                               uint32_t limit);
/* The path of a packet of ours that ICMP called undeliverable; 0 when there is (no) more to read. */
int accord_direct_error(const struct accord_direct *direct, uint32_t which, struct accord_path *path);
/* Returns 0, or a negative reason: NO_SOCKET, LONG_PACKET, NO_MEMORY, UNREACHABLE. */
int accord_direct_send(const struct accord_direct *direct, const struct accord_path *path, const uint8_t *packet,
                       uint32_t length);

#endif
