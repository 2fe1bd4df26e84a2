/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the TC program and the daemon share: whose SYNs are taken over, where to, and those that were.
 * (docs/OPERATIONS.md, "Unmodified programs")
 */
#ifndef ACCORD_CAPTURES_H
#define ACCORD_CAPTURES_H

#ifndef ACCORD_CDEF
#include <linux/types.h>
#endif

enum accord_captures_constant {
	ACCORD_CAPTURES_LAYOUT = 1, /* bump it on every change of this file */
	ACCORD_CAPTURE_CGROUPS = 1024,
	ACCORD_CAPTURE_SEEN = 16384, /* SYNs whose repetitions are told from them, the oldest forgotten first */
	ACCORD_CAPTURE_SLOTS = 4096, /* a power of two */
	ACCORD_CAPTURE_RING_BYTES = 262144,
	ACCORD_CAPTURE_FRAME_BYTES = 136, /* Ethernet 14, IPv4 at most 60, TCP at most 60 */
	ACCORD_CAPTURE_MARK = 0x41434344, /* of an skb: a SYN-ACK that is to be handed to this host itself */
};

/* What became of a SYN of a marked cgroup: the index of struct accord_capture.fates. */
enum accord_capture_fate {
	ACCORD_CAPTURE_HELD,       /* taken off the wire, and the daemon told */
	ACCORD_CAPTURE_ASKED,      /* on its way, and the daemon told: it knows nothing of where that leads */
	ACCORD_CAPTURE_LEFT_ALONE, /* on its way: the daemon has said so of the destination */
	ACCORD_CAPTURE_REPEATED,   /* on its way: it was here before */
	ACCORD_CAPTURE_WITH_DATA,  /* on its way: Fast Open */
	ACCORD_CAPTURE_STALE,      /* on its way: no sign of life of the daemon */
	ACCORD_CAPTURE_RING_FULL,  /* on its way: no room to tell the daemon */
	ACCORD_CAPTURE_UNREADABLE, /* on its way: IPv6 with extension headers, fragments, lengths that contradict */
	ACCORD_CAPTURE_ANSWERED,   /* a SYN-ACK was handed to this host; no SYN */
	ACCORD_CAPTURE_FATES = 16,
};

/* What is said of a destination; the low bits of struct accord_capture_slot.state. */
enum accord_capture_word {
	ACCORD_CAPTURE_HOLD = 0x1,
	ACCORD_CAPTURE_LEAVE = 0x2,
	ACCORD_CAPTURE_WORDS = 0x3,
};

/*
 * One destination, found by accord_capture_index. Written by the daemon alone: the state is 0 meanwhile, stored last
 * and read first and last.
 */
struct accord_capture_slot {
	__u64 state; /* CLOCK_BOOTTIME in ns until which it holds, its two low bits enum accord_capture_word; 0: free */
	__be32 address[4]; /* IPv4 in the first, the rest zero */
	__be16 port;
	__u16 family; /* 4 or 6 */
	__u8 reserved[36];
};

/* Map "capture": one element, memory-mapped. The daemon writes all but the fates. */
struct accord_capture {
	__u32 layout; /* ACCORD_CAPTURES_LAYOUT; anything else: pass */
	__u32 reserved;
	__u64 heartbeat_ns; /* CLOCK_BOOTTIME of the daemon's last sign of life */
	__u64 padding[6];
	__u64 fates[16];                        /* ACCORD_CAPTURE_FATES */
	struct accord_capture_slot slots[4096]; /* ACCORD_CAPTURE_SLOTS */
};

/* What is in the ring "captured". */
struct accord_captured {
	__u64 at_ns;     /* CLOCK_BOOTTIME */
	__u32 interface; /* its index */
	__u16 bytes;     /* of the frame */
	__u16 held;      /* 1: it is with the daemon alone; 0: it has left */
	__u8 frame[136]; /* ACCORD_CAPTURE_FRAME_BYTES: Ethernet, IP, TCP; the TCP checksum is as the kernel left it */
};

/* Map "cgroups": hash, key __u64 cgroup ID, value __u8.
 * Map "seen": LRU hash, key struct accord_capture_syn, value __u8. */
struct accord_capture_syn {
	__be32 source[4], destination[4];
	__be16 source_port, destination_port;
	__be32 isn;
};

#ifndef ACCORD_CDEF
/* No key: who makes many destinations share a slot makes them be asked about again, that is, left alone meanwhile. */
static inline __u32 accord_capture_index(const __u32 *address, __u16 port)
{
	return ((address[0] ^ address[1] ^ address[2] ^ address[3] ^ port) * 0x9e3779b1u) >> 20;
}
#endif

#endif /* ACCORD_CAPTURES_H */
