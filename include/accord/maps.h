/* SPDX-License-Identifier: Apache-2.0 */
/* What the XDP program and the C core share through BPF maps. Bump the layout on every change. */
#ifndef ACCORD_MAPS_H
#define ACCORD_MAPS_H

#ifndef ACCORD_CDEF
#include <linux/types.h>
#endif

enum accord_map_constant {
	ACCORD_MAP_LAYOUT = 3,
	ACCORD_MAX_QUEUES = 64,
	ACCORD_MAX_PORTS = 4096, /* UDP destination ports that are steered, when not all are */
};

enum accord_settings_flag {
	ACCORD_SETTINGS_ANY_PORT = 0x1, /* steer the magic cookie on every UDP port */
};

/* Map "settings": one element, memory-mapped, written by the daemon without a system call. */
struct accord_settings {
	__u32 layout;       /* ACCORD_MAP_LAYOUT; anything else: pass */
	__u32 flags;        /* enum accord_settings_flag */
	__u64 heartbeat_ns; /* CLOCK_BOOTTIME of the daemon's last sign of life */
	__u32 frame_limit;  /* bytes of the longest frame that fits an AF_XDP ring; longer ones pass */
	__u8 address[6];    /* Ethernet address of the interface: frames to others pass */
	__u8 reserved[2];
};

enum accord_watch_constant {
	ACCORD_WATCH_BYTES = 128, /* of a frame, at most, behind its record: the common headers and a transaction ID */
};

/* Map "watch": one element, memory-mapped, written by whoever watches the verdicts; zeros: nobody does. */
struct accord_watch {
	__u64 until_ns;   /* CLOCK_BOOTTIME when the lease ends; renewed by the watcher */
	__u64 reasons[4]; /* bit enum accord_reason % 64 of element / 64: of these the watcher wants to hear */
	__u32 owner;      /* process ID of the watcher */
	__u32 reserved;
};

/* What goes into the rings of map "samples"; the first bytes of the frame follow. */
struct accord_verdict {
	__u64 at_ns; /* CLOCK_BOOTTIME */
	__u32 interface;
	__u32 queue;
	__u32 frame_bytes;
	__u16 reason;  /* enum accord_reason */
	__u16 verdict; /* enum xdp_action */
};

/* Map "samples": perf event array, index is the CPU.
 * Map "counters": per CPU, index is enum accord_reason.
 * Map "ports": hash, key __u16 UDP destination port in network order, value __u8 1.
 * Map "xsks": XSKMAP, index is the receive queue. */

#endif /* ACCORD_MAPS_H */
