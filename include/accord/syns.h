/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the sockops program and the daemon share: which sockets' SYNs bear the option, and what came of it.
 * (docs/PROTOCOL.md, section 10)
 */
#ifndef ACCORD_SYNS_H
#define ACCORD_SYNS_H

#ifndef ACCORD_CDEF
#include <linux/types.h>
#endif

enum accord_syns_constant {
	ACCORD_SYNS_LAYOUT = 1,       /* bump it on every change of this file */
	ACCORD_SYNS_SLOTS = 16384,    /* a power of two: connections between write() and forget() at any moment */
	ACCORD_SYN_SENT_SHIFT = 8,    /* in struct accord_syn's state: SYNs sent */
	ACCORD_SYN_SENT_MOST = 255,   /* counts no further */
	ACCORD_SYN_COOKIE_SHIFT = 16, /* and the socket's cookie, 48 bits: at a million sockets a second, nine years */
};

enum accord_syn_flag {
	ACCORD_SYN_ADOPT = 0x01,      /* asked for ExID ADOPT; else FALLBACK */
	ACCORD_SYN_CONNECTING = 0x02, /* connect() came to its SYN */
	ACCORD_SYN_RESERVED = 0x04,   /* there is room for the option */
	ACCORD_SYN_WRITTEN = 0x08,    /* the first SYN bears it */
	ACCORD_SYN_MARKED = 0x10,     /* the SYN-ACK bore ADOPT and the same transaction ID */
	ACCORD_SYN_SHARED = 0x20,     /* another program of the cgroup wants header options on this socket, too */
	ACCORD_SYN_SHARED_RETRANS = 0x40,
};

/*
 * One element of map "syns", an array: socket cookie modulo ACCORD_SYNS_SLOTS is the index. Memory-mapped: the daemon
 * asks and looks without a system call.
 *
 * The state is one word, so that whoever changes it says in the same step whose it is: the program, which may run for
 * an older socket on another CPU, cannot write into a slot that the daemon has just given away. 0: free.
 */
struct accord_syn {
	__u64 state; /* enum accord_syn_flag, SYNs, cookie */
	__u8 transaction[12];
	__u8 reserved[4];
};

/* Map "listeners": socket storage, inherited by accepted sockets; with it a listener's SYN-ACKs may be marked. */
struct accord_listener {
	__u32 shared; /* as ACCORD_SYN_SHARED; written by the program */
};

#endif /* ACCORD_SYNS_H */
