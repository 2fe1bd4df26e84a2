/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the TC program and the privileged process share: connections whose sockets are to be born from their first
 * segment, in the port's own listener (docs/PROTOCOL.md, section 9.2).
 */
#ifndef ACCORD_BIRTHS_H
#define ACCORD_BIRTHS_H

#ifndef ACCORD_CDEF
#include <linux/types.h>
#endif

enum accord_births_constant {
	ACCORD_BIRTHS_LAYOUT = 1,     /* bump it on every change of this file */
	ACCORD_BIRTHS_ENTRIES = 8192, /* connections between their answer and what came of them, all of it taken at once */
	ACCORD_BIRTH_SECONDS = 10,    /* an entry's deadline: ACCORD_MAX_LIFETIME_MS, which bounds its negotiation too */
	ACCORD_BIRTH_MIN_MSS4 = 536,  /* less the kernel would not take: bpf_sk_assign_tcp_reqsk */
	ACCORD_BIRTH_MIN_MSS6 = 1220,
};

/* What became of an entry. It serves one segment: whoever changes it from WAITING has the socket to make. */
enum accord_birth_fate {
	ACCORD_BIRTH_WAITING = 1, /* no such segment has come yet */
	ACCORD_BIRTH_BORN,        /* the listener has the connection */
	ACCORD_BIRTH_DESERTED,    /* the segment came, and nobody listened any more: the kernel answers with a reset */
	ACCORD_BIRTH_REFUSED,     /* the kernel would not make the socket, and answers likewise */
};

/* Map "births", a hash, made whole when it is loaded. Ports in network order; an IPv4 address is followed by zeros. */
struct accord_birth_key {
	__u32 family; /* 4 or 6 */
	__be16 local_port, remote_port;
	__u8 local[16], remote[16];
};

struct accord_birth {
	__u64 expected_ns, until_ns; /* CLOCK_BOOTTIME */
	__u32 fate;                  /* enum accord_birth_fate */
	__u32 early;                 /* segments of the peer's that came before its first: dropped, and sent again */
	__u32 local_isn, remote_isn;
	__u32 timestamp; /* our TSval at expected_ns, in milliseconds */
	__u16 mss;       /* the peer's */
	__u8 local_scale, remote_scale;
	__u8 scaled, sack, timestamps;
	__u8 reserved[5]; /* 0 */
};

#endif /* ACCORD_BIRTHS_H */
