/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYNs of unmodified programs, as the process that negotiates for them sees it: it says of which cgroups, takes what
 * the TC program has put into the ring, and sends frames (part of core.h; accord/captures.h).
 */
#ifndef ACCORD_CAPTURES_SIDE_H
#define ACCORD_CAPTURES_SIDE_H

struct accord_captures;

/* What is sent: Ethernet, IP and TCP with complete checksums. */
struct accord_capture_frame {
	uint32_t bytes;
	uint8_t frame[136]; /* ACCORD_CAPTURE_FRAME_BYTES */
};

/* Load the program and attach it at the egress of this interface, or ask the broker, which has an interface and an
 * object of its own choice. The program is attached for as long as this process, or the broker, keeps it; one that was
 * killed leaves it behind, and then everything passes. */
int accord_captures_open(const char *object_path, int32_t interface, struct accord_captures **captures,
                         struct accord_failure *failure);
void accord_captures_close(struct accord_captures *captures);

/* SYNs of sockets of this cgroup's (a directory of cgroup2), and of those below it, are candidates from now on. */
int accord_captures_mark(struct accord_captures *captures, int32_t cgroup, uint64_t *id,
                         struct accord_failure *failure);
int accord_captures_unmark(struct accord_captures *captures, uint64_t id, struct accord_failure *failure);

/* CLOCK_BOOTTIME into the map: a store. Without one for ACCORD_HEARTBEAT_MS every SYN passes. */
void accord_captures_heartbeat(struct accord_captures *captures);
/* As if the last one were long ago. */
void accord_captures_quiet(struct accord_captures *captures);
/* What is done with SYNs to this address (4 or 16 bytes, as family says) and port for so many milliseconds; word 0:
 * they are asked about. Another destination's word may be lost by it. */
void accord_captures_say(struct accord_captures *captures, uint32_t family, const uint8_t *address, uint16_t port,
                         uint32_t word, uint32_t milliseconds);
/* By enum accord_capture_fate, ACCORD_CAPTURE_FATES of them. */
void accord_captures_fates(const struct accord_captures *captures, uint64_t *fates);

/* Readable when there is something to be taken. */
int accord_captures_fd(const struct accord_captures *captures);
/* The oldest one; 0: there is none. */
int accord_captures_take(struct accord_captures *captures, struct accord_captured *taken);

/* Let a SYN go as it was, or, inward, hand a SYN-ACK to this host as if it had come in by the interface. */
int accord_captures_send(struct accord_captures *captures, const struct accord_capture_frame *frame, uint32_t inward,
                         struct accord_failure *failure);

/* The attached program run once over a frame without sending it (BPF_PROG_TEST_RUN), from a socket of this process,
 * with this skb->mark; for tests. Returns 0, and its verdict, and nanoseconds of one of repeat runs. */
int accord_captures_test_run(struct accord_captures *captures, const uint8_t *frame, uint32_t bytes, uint32_t mark,
                             uint32_t repeat, int32_t *verdict, uint32_t *nanoseconds);

#endif
