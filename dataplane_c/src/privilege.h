/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What needs privilege, and how a process without any has it done (part of core.h; docs/OPERATIONS.md, "Privileges").
 *
 * Two processes: the *broker* keeps its capabilities and looks at no packet; the *worker* has none and does the rest.
 * They share a SOCK_SEQPACKET pair. A request is struct accord_request and what belongs to its kind, a reply struct
 * accord_reply and the same; descriptors ride beside both. One request is answered before the next is read, so answers
 * come in the order of their requests.
 */
#ifndef ACCORD_PRIVILEGE_H
#define ACCORD_PRIVILEGE_H

enum accord_ask_kind {
	ACCORD_ASK_LOAD = 1,       /* the XDP program; -> its ID, the map "settings" */
	ACCORD_ASK_ATTACH,         /* number: interface index; mode: XDP_FLAGS_* */
	ACCORD_ASK_UNLOAD,         /* detaches */
	ACCORD_ASK_ATTACHED,       /* -> 0 or 1 */
	ACCORD_ASK_HEARD,          /* -> the map "heard" */
	ACCORD_ASK_STEER,          /* number: UDP port; mode: enum accord_port_flag */
	ACCORD_ASK_JOIN,           /* number: queue; its AF_XDP socket; none: leaves */
	ACCORD_ASK_COUNTERS,       /* -> uint64_t[ACCORD_REASON_LIMIT] */
	ACCORD_ASK_RING,           /* -> an AF_XDP socket */
	ACCORD_ASK_BUSY_POLL,      /* mode: microseconds; an AF_XDP socket */
	ACCORD_ASK_PACKET,         /* number: interface index; -> an AF_PACKET socket, bound and filtered */
	ACCORD_ASK_DIRECT,         /* number: AF_INET or AF_INET6; mode: deaf; -> a raw socket for IP protocol 253 */
	ACCORD_ASK_BELL,           /* -> a netlink socket that hears of changed interfaces */
	ACCORD_ASK_BIND,           /* struct accord_bind; a TCP or UDP socket */
	ACCORD_ASK_TCP_NUMBERS,    /* struct accord_tcp_state; -> struct accord_tcp_numbers */
	ACCORD_ASK_TCP_INSTALL,    /* struct accord_tcp_state; a socket, as accord_tcp_install */
	ACCORD_ASK_TCP_SILENCE,    /* a socket that was installed: its connection ends without a segment */
	ACCORD_ASK_SYNS,           /* the sockops program, loaded and attached; -> the map "syns" */
	ACCORD_ASK_SYNS_ANSWER,    /* a TCP socket whose SYN-ACKs may be marked */
	ACCORD_ASK_SYNS_HEAR,      /* marks are for what the XDP program of ACCORD_ASK_LOAD hears */
	ACCORD_ASK_BIRTHS,         /* the TC program of births, loaded and attached */
	ACCORD_ASK_LISTENING,      /* number: TCP port that somebody is to listen on */
	ACCORD_ASK_BIRTH,          /* struct accord_tcp_state */
	ACCORD_ASK_BIRTH_END,      /* struct accord_tcp_state; mode: enum accord_birth_look; -> struct accord_birth */
	ACCORD_ASK_CAPTURE,        /* the TC program, loaded and attached; -> the map "capture" */
	ACCORD_ASK_CAPTURE_RING,   /* -> the ring "captured" */
	ACCORD_ASK_CAPTURE_MARK,   /* a directory of cgroup2; -> uint64_t, its ID */
	ACCORD_ASK_CAPTURE_UNMARK, /* uint64_t */
	ACCORD_ASK_CAPTURE_SEND,   /* struct accord_capture_frame; mode 0: a SYN outward, 1: a SYN-ACK inward */
	ACCORD_ASK_BOUNDARY,       /* kinds from here on are answered outside of the C core */
};

enum accord_ask_limit {
	ACCORD_ASK_BYTES = 8192, /* of a request or a reply */
	ACCORD_ASK_FDS = 2,
	ACCORD_BROKER_WAITS = 8, /* other descriptors */
};

struct accord_request {
	uint32_t kind; /* enum accord_ask_kind */
	uint32_t number;
	uint32_t mode;
	uint32_t reserved; /* 0 */
};

struct accord_reply {
	int32_t result; /* >= 0, or a negative enum accord_reason */
	struct accord_failure failure;
};

/* A request whose answer nobody has waited for yet. */
struct accord_ahead {
	struct accord_reply reply;
	uint32_t answered; /* reply is what it came to */
};

struct accord_bind {
	uint8_t family; /* 4 or 6 */
	uint8_t reserved;
	uint16_t port;
	uint32_t scope;
	uint8_t address[16];
};

/* A connection that no SYN opens. Ports and numbers in host order; addresses as in struct accord_path. */
struct accord_tcp_state {
	uint8_t family;           /* 4 or 6 */
	uint8_t service;          /* to be bound; the local port is shared with its listener and other connections */
	uint8_t sack, timestamps; /* agreed */
	uint8_t local_scale, remote_scale;
	uint16_t local_port, remote_port;
	uint16_t remote_mss;
	uint32_t scope;
	uint32_t local_isn, remote_isn;
	uint32_t local_window, remote_window;
	uint32_t timestamp; /* TSval of now; even: "in milliseconds" */
	uint8_t local[16], remote[16];
};

/* What the kernel would put into its own SYN between these addresses. */
struct accord_tcp_numbers {
	uint32_t mss, window;
};

/* ---- The worker's side ---- */

/* From now on what needs privilege is asked for at the other end of this socket; -1: done by this process itself. */
void accord_privilege_from(int32_t fd);

/* This process has to ask. */
int accord_privilege_asks(void);

/* Ask for one of the kinds that the C core does not know. Returns the result, a negative reason with failure filled
 * in; *length: room for the answer, then how long it was; fds: room for ACCORD_ASK_FDS, then those that came, else
 * -1. */
int accord_privilege_ask(const struct accord_request *request, const uint8_t *data, uint32_t data_length,
                         uint8_t *answer, uint32_t *length, int32_t *fds, struct accord_failure *failure);

/* These do it or ask for it. They return 0 or what is said, or a negative reason; the failure's detail then names the
 * call and its error is the errno. */
int accord_tcp_numbers(const struct accord_tcp_state *state, struct accord_tcp_numbers *numbers,
                       struct accord_failure *failure);
/*
 * Begin to make a socket ESTABLISHED that is in state CLOSE: bound to the local port, or not bound, for a service. What
 * comes of it accord_tcp_installed returns, once the kernel has it or has refused: a broker works meanwhile, and so may
 * the caller. The memory of ahead is written to until then, or until the next request of this process.
 */
void accord_tcp_install(const struct accord_tcp_state *state, int32_t fd, struct accord_ahead *ahead);
int accord_tcp_installed(struct accord_ahead *ahead, struct accord_failure *failure);
/* End a connection without a segment, or, where data has come that nobody has read, with the reset that closing it
 * sends. The descriptor is the caller's to close, at once. */
int accord_tcp_silence(int32_t fd, struct accord_failure *failure);
int accord_bind(int32_t fd, const struct accord_bind *address, struct accord_failure *failure);
/* Returns a descriptor: rtnetlink(7), group RTMGRP_LINK. */
int accord_link_bell(struct accord_failure *failure);

/*
 * Give everything up: user and group IDs (where they are not this process's already), supplementary groups, all
 * capability sets and the bounding set; no new privileges, no core dumps or ptrace by others; and the process ends with
 * its parent, the broker, even when it hangs. What cannot be given up is a failure. keep_memlock: CAP_IPC_LOCK stays if
 * it is there, for UMEMs where RLIMIT_MEMLOCK cannot be raised.
 */
int accord_privilege_drop(uint32_t user, uint32_t group, uint32_t keep_memlock, struct accord_failure *failure);

/* ---- The broker's side ---- */

struct accord_broker_config {
	const char *interface;    /* the only one; NULL: none */
	const char *object_path;  /* of accord_xdp.bpf.o */
	const char *sockops_path; /* of accord_sockops.bpf.o */
	const char *capture_path; /* of accord_capture.bpf.o */
	const char *cgroup;       /* where that is attached; NULL: nowhere */
	const char *births_path;  /* of accord_born.bpf.o; NULL: there are none */
	uint32_t rungs;           /* bits 1 << enum accord_rung: what may be asked for */
	const uint8_t *ports;     /* 65536 bits, lowest first: local ports that may be bound and installed on; NULL: all */
	struct accord_program *spare; /* loaded in advance, for the first time that one is asked for; taken over; or NULL */
};

struct accord_broker;

/* A request that the C core does not answer. */
struct accord_pending {
	struct accord_request request;
	uint32_t length;
	int32_t fds[2];
	uint8_t data[8192];
};

/* Takes over fd, its end of the pair. NULL: no memory. */
struct accord_broker *accord_broker_new(const struct accord_broker_config *config, int32_t fd);
void accord_broker_free(struct accord_broker *broker);
/* Answer one request. Returns 1 when it did, 2 for one that pending describes and accord_broker_answer answers, 0 when
 * there is none, -1 when the worker is gone. */
int accord_broker_step(struct accord_broker *broker, struct accord_pending *pending);
/* Answer requests until something else is to be done: as accord_broker_step, or 3 when one of the other descriptors is
 * readable. All of it without Python, whose loop takes longer than a request to get going again. */
int accord_broker_serve(struct accord_broker *broker, struct accord_pending *pending, const int32_t *others,
                        uint32_t count);
void accord_broker_answer(struct accord_broker *broker, const struct accord_reply *reply, const uint8_t *data,
                          uint32_t length, const int32_t *fds, uint32_t fd_count);
/* The interface with this index is the one that was configured, or was when it was last asked for. */
int accord_broker_knows(struct accord_broker *broker, int32_t interface);
/* Requests so far, and how many of them were refused as malformed or against the configuration. */
void accord_broker_counts(const struct accord_broker *broker, uint64_t *asked, uint64_t *refused);

#endif
