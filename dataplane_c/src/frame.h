/* SPDX-License-Identifier: Apache-2.0 */
/* Ethernet, VLAN tags, IP and UDP around a packet: off on receipt, on again with all checksums. */
#ifndef ACCORD_FRAME_H
#define ACCORD_FRAME_H

#include "core.h"

enum accord_frame_constant {
	ACCORD_FRAME_IPV4_BYTES = 20,
	ACCORD_FRAME_IPV6_BYTES = 40,
	ACCORD_FRAME_UDP_BYTES = 8,
	/* The most that is put in front of a packet. */
	ACCORD_FRAME_OVERHEAD = ACCORD_MAX_LINK_HEADER + ACCORD_FRAME_IPV6_BYTES + ACCORD_FRAME_UDP_BYTES,
};

/* An outer VLAN tag that the kernel took out of a frame and tells beside it; type 0: there was none. */
struct accord_frame_tag {
	uint16_t type, control; /* host order */
};

/*
 * Find the packet in a frame, by the rules of ebpf/parsing.h. Fills the path but for socket and queue: its
 * link header is the frame's with the addresses exchanged. The IPv4 header checksum is verified (the kernel
 * does not see the frame before us), UDP's is not: it may still be partial, and a packet has its own.
 * Returns 0 or a negative reason.
 */
int accord_frame_parse(const uint8_t *frame, uint32_t length, struct accord_frame_tag tag, struct accord_path *path,
                       const uint8_t **packet, uint32_t *packet_length);

/* Bytes of the frame that would carry a packet of so many bytes on this path. */
uint32_t accord_frame_bytes(const struct accord_path *path, uint32_t packet_length);

/* Build that frame; path->link_length is not 0. Returns its length, or a negative reason when room is short. */
int accord_frame_build(const struct accord_path *path, const uint8_t *packet, uint32_t length, uint8_t *frame,
                       uint32_t room);

#endif
