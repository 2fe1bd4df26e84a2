/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Numbers of other people's protocols, and how far the parsers walk. */
#ifndef ACCORD_EBPF_CONSTS_H
#define ACCORD_EBPF_CONSTS_H

enum {
	/* A third tag or a seventh extension header has no use on a real network, and each is a round of
	 * parsing that a sender gets for free. */
	MAX_VLAN_TAGS = 2,
	MAX_EXTENSIONS = 6,

	MIN_IHL = 5,              /* RFC 791 section 3.1: 32-bit words */
	IPV4_FRAGMENTED = 0x3fff, /* more fragments, or an offset */
	IPV6_FRAGMENTED = 0xfff9, /* RFC 8200 section 4.5: an offset, or more fragments */

	/* <linux/in.h> and <linux/socket.h> do not both compile for BPF. */
	FAMILY_IPV4 = 2,
	FAMILY_IPV6 = 10,

	PROTOCOL_HOP_BY_HOP = 0,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	PROTOCOL_ROUTING = 43,
	PROTOCOL_FRAGMENT = 44,
	PROTOCOL_DESTINATION = 60,
	PROTOCOL_MOBILITY = 135,
	PROTOCOL_HIP = 139,
	PROTOCOL_SHIM6 = 140,

	TCP_FLAGS_AT = 13,           /* RFC 9293 section 3.1 */
	TCP_FLAGS_OF_OPENING = 0x17, /* FIN, SYN, RST, ACK: of a SYN, the second alone */
	TCP_FLAG_OF_SYN = 0x02,
	TCP_OPTION_END = 0,
	TCP_OPTION_NOP = 1,
	TCP_OPTIONS_BYTES = 40, /* at most: 60 bytes of header, 20 of which are fixed */
};

#endif
