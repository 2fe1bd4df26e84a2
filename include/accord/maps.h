/* SPDX-License-Identifier: Apache-2.0 */
/* What the XDP program and the C core share through BPF maps. Bump the layout on every change. */
#ifndef ACCORD_MAPS_H
#define ACCORD_MAPS_H

#ifndef ACCORD_CDEF
#include <linux/types.h>
#endif

enum accord_map_constant {
	ACCORD_MAP_LAYOUT = 2,
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

/* Map "counters": per CPU, index is enum accord_reason.
 * Map "ports": hash, key __u16 UDP destination port in network order, value __u8 1.
 * Map "xsks": XSKMAP, index is the receive queue. */

#endif /* ACCORD_MAPS_H */
