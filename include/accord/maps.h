/* SPDX-License-Identifier: Apache-2.0 */
/* What the XDP program and the C core share through BPF maps. Bump the layout on every change. */
#ifndef ACCORD_MAPS_H
#define ACCORD_MAPS_H

#ifndef ACCORD_CDEF
#include <linux/types.h>
#endif

enum accord_map_constant {
	ACCORD_MAP_LAYOUT = 5,
	ACCORD_MAX_QUEUES = 64,
	ACCORD_MAX_PORTS = 4096, /* UDP destination ports that are steered, when not all are */
	ACCORD_HEARD_BITS = 14,  /* of the index of map "heard" */
	ACCORD_HEARD_SLOTS = 1 << ACCORD_HEARD_BITS,
	ACCORD_COOKIE_KEYS = 4, /* of a ring */
};

enum accord_settings_flag {
	ACCORD_SETTINGS_ANY_PORT = 0x1, /* steer the magic cookie on every UDP port */
	/* Proposals are taken just now: note their IDs, and read the options of SYNs. Clear: neither is done. */
	ACCORD_SETTINGS_SUPPRESS = 0x2,
	/* First packets of proposals without a cookie are answered by one, here; those with a wrong one are dropped. */
	ACCORD_SETTINGS_CHALLENGE = 0x4,
};

enum accord_port_flag {
	ACCORD_PORT_STEERED = 0x1,
	ACCORD_PORT_SUPPRESS = 0x2, /* a service is exposed here: SYNs to the same TCP port may be suppressed */
};

/* Of SipHash. */
struct accord_cookie_key {
	__u64 words[2]; /* its 16 bytes as two little-endian numbers */
	__u32 id;       /* one byte on the wire */
	__u32 used;     /* 0: no key */
};

/* What a cookie is made and checked with. Neither the program nor the engine looks at a clock for it. */
struct accord_cookie_ring {
	struct accord_cookie_key keys[ACCORD_COOKIE_KEYS];
	__u32 current; /* the element that cookies are made with */
	__u32 slot;    /* the present time slot, 16 bits of it */
};

/* What the program did with first packets on one receive queue, since it was loaded: nobody else writes there. */
struct accord_challenges {
	__u64 answered; /* by a cookie */
	__u64 refused;  /* dropped, for theirs was wrong */
	__u64 passed;   /* to the daemon, for theirs was right */
	__u64 reserved[5];
};

/* Map "settings": one element, memory-mapped, written by the daemon without a system call, but for what the program
 * counts at the end. */
struct accord_settings {
	__u32 layout;       /* ACCORD_MAP_LAYOUT; anything else: pass */
	__u32 flags;        /* enum accord_settings_flag */
	__u64 heartbeat_ns; /* CLOCK_BOOTTIME of the daemon's last sign of life */
	__u32 frame_limit;  /* bytes of the longest frame that fits an AF_XDP ring; longer ones pass */
	__u8 address[6];    /* Ethernet address of the interface: frames to others pass */
	__u8 reserved[38];
	struct accord_cookie_ring cookies;
	__u8 padding[24];
	struct accord_challenges challenges[ACCORD_MAX_QUEUES];
};

/*
 * Low bits of accord_heard.state; the rest of it is when the slot was written, CLOCK_BOOTTIME in ns, so that no two
 * contents of a slot have the same state. 0: never written.
 */
enum accord_heard_state {
	ACCORD_HEARD_PROPOSAL = 0x1, /* the first packet of the proposal was handed over */
	ACCORD_HEARD_SYN = 0x2,      /* a SYN with the ID came before any */
	ACCORD_HEARD_SPENT = 0x4,    /* a SYN with the ID was suppressed */
	ACCORD_HEARD_BUSY = 0x8,     /* another CPU is writing the slot: it holds nothing */
	ACCORD_HEARD_FLAGS = 0xf,
};

/* Map "heard": transactions of which something came lately; a cache line, found by accord_heard_index. */
struct accord_heard {
	__u64 state;
	__u8 transaction[12];
	__be32 isn;                       /* of the SYN that came first */
	__be32 source[4], destination[4]; /* IPv4 in the first, the rest zero */
	__be16 port;                      /* where it went: UDP's of a proposal, 0 in context IP 253; TCP's of a SYN */
	__u8 family;                      /* 4 or 6 */
	__u8 reserved[5];
};

#ifndef ACCORD_CDEF
/*
 * Transaction IDs are random, so any of their bits will do; the multiplication is for senders of IDs that are not.
 * There is no key: who knows a victim's ID, and so its slot, can overwrite it, and then the SYN passes, as it does
 * where there is no Accord; who does not know it can at best write all of the slots, to the same end.
 */
static inline __u32 accord_heard_index(const __u32 *transaction)
{
	return (transaction[0] ^ transaction[1] ^ transaction[2]) * 0x9e3779b1u >> (32 - ACCORD_HEARD_BITS);
}
#endif

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
 * Map "ports": hash, key __u16 UDP destination port in network order, value __u8 of enum accord_port_flag.
 * Map "heard": array, memory-mapped; read by the daemon, written by the program alone.
 * Map "xsks": XSKMAP, index is the receive queue. */

#endif /* ACCORD_MAPS_H */
