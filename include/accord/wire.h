/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire format of the Accord negotiation protocol: the only place where it is written down as code.
 * docs/PROTOCOL.md says the same in words, with the rules; tests hold the two, the C core, the BPF
 * program, Python and the scapy layer against each other.
 *
 * Included by the C core, by BPF, and (through the preprocessor, with ACCORD_CDEF set) by cffi. So:
 * enums and structs only, no inline code; every multi-byte field on the wire is big-endian.
 */
#ifndef ACCORD_WIRE_H
#define ACCORD_WIRE_H

#ifndef ACCORD_CDEF
#include <linux/types.h>
#define ACCORD_PACKED __attribute__((packed))
#define ACCORD_ASSERT_SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type)
#else
#define ACCORD_PACKED
#define ACCORD_ASSERT_SIZE(type, bytes) struct accord_no_such_##type
#endif

/* ---- Packets -------------------------------------------------------------------------------- */

enum accord_packet_constant {
	/* RFC 9443 leaves first bytes 4..15 unassigned: the version lives there, starting at 4. */
	ACCORD_VERSION = 4,
	ACCORD_VERSION_FIRST = 4,
	ACCORD_VERSION_LAST = 15,
	/* "ACRD". Fixed bytes at offset 4, as STUN has its own there (RFC 8489 section 5). */
	ACCORD_MAGIC = 0x41435244,
	ACCORD_TRANSACTION_BYTES = 12,
	ACCORD_HEADER_BYTES = 32,
	ACCORD_CHUNK_HEADER_BYTES = 8,
	ACCORD_COOKIE_BYTES = 16,
};

enum accord_packet_flag {
	ACCORD_FLAG_INITIATOR = 0x0001, /* sent by the side that proposed: tells directions apart */
	ACCORD_FLAG_ACK = 0x0002,       /* ack_tsn and ack_count mean something; else both are zero */
	ACCORD_FLAG_END = 0x0004,       /* the last packet of this step's message */
	ACCORD_FLAG_MORE = 0x0008,      /* in the same datagram, behind MIN_MTU_PACKET bytes, another packet begins */
	ACCORD_FLAG_COOKIE = 0x0010,    /* a cookie stands between header and chunks */
	ACCORD_FLAGS_KNOWN = 0x001f,    /* other bits: sent as zero, ignored on receipt, greased */
};

/* A packet without chunks is a pure acknowledgement: it consumes no TSN and is not acknowledged. */
struct accord_header {
	__u8 version;
	__u8 step;
	__be16 flags;
	__be32 magic;
	__u8 transaction[12];
	/* Of this packet; of the next one to be sent, in a pure acknowledgement. A direction's first TSN is
	 * bytes 0..3 (initiator) or 4..7 (responder) of the transaction ID, so both sides know it. */
	__be32 tsn;
	__be32 ack_tsn;   /* first TSN of the one contiguous range that this packet acknowledges */
	__be16 ack_count; /* its length, >= 1 with ACCORD_FLAG_ACK */
	__be16 checksum;  /* RFC 1071, over header and chunks; no pseudo-header, so a NAT cannot hurt it */
} ACCORD_PACKED;
ACCORD_ASSERT_SIZE(accord_header, 32);

/*
 * Behind the header of a packet with ACCORD_FLAG_COOKIE. In step 1 and without chunks it is a *challenge*: the
 * responder keeps nothing yet, and wants to see the first packet of the proposal again with this behind its header.
 */
struct accord_cookie {
	__u8 key;     /* which of the responder's keys */
	__u8 kind;    /* enum accord_cookie_kind */
	__be16 slot;  /* when it was made: ACCORD_COOKIE_SLOT_S seconds each */
	__be32 bound; /* checksum (RFC 1071) of the first packet's chunks, then their length: 16 bits each */
	__be64 mac;   /* SipHash-2-4 over addresses, ports, transaction ID and the eight bytes before */
} ACCORD_PACKED;
ACCORD_ASSERT_SIZE(accord_cookie, 16);

enum accord_cookie_kind {
	ACCORD_COOKIE_ADDRESS = 1, /* proves that the initiator receives at its address */
	/* In TLV_REPEAT; bound is not of a packet. */
	ACCORD_COOKIE_ANSWER = 2, /* bound: first bytes of T(0); the answer can be made from it again, anywhere */
	ACCORD_COOKIE_SLOT = 3,   /* bound: the machine that can make the answer again */
};

enum accord_chunk_flag {
	ACCORD_CHUNK_FIRST = 0x01,
	ACCORD_CHUNK_LAST = 0x02,
	ACCORD_CHUNK_FLAGS_KNOWN = 0x03,
};

/* Several chunks share a packet; a node larger than one packet spans consecutive TSNs. */
struct accord_chunk {
	__u8 node;
	__u8 flags;
	__be16 length; /* of the data that follows; no padding between chunks */
	__be32 protocol;
} ACCORD_PACKED;
ACCORD_ASSERT_SIZE(accord_chunk, 8);

/* ---- Node descriptors: what the chunks of one node carry, joined ------------------------------ */

struct accord_descriptor {
	__u8 child_count;  /* child node IDs follow, one byte each, strictly ascending */
	__u8 flags;        /* enum accord_node_flag */
	__be16 tlv_length; /* then the TLVs, types strictly ascending; then the payload, to the end */
} ACCORD_PACKED;
ACCORD_ASSERT_SIZE(accord_descriptor, 4);

enum accord_node_flag {
	ACCORD_NODE_PLACEHOLDER = 0x01, /* to be elaborated in a later step */
	ACCORD_NODE_FLAGS_KNOWN = 0x01, /* other bits MUST be zero: one valid encoding */
};

struct accord_tlv {
	__be16 type;   /* enum accord_tlv_type */
	__be16 length; /* of the value that follows; no padding */
} ACCORD_PACKED;
ACCORD_ASSERT_SIZE(accord_tlv, 4);

enum accord_tlv_type {
	ACCORD_TLV_COOKIE = 0x0001,       /* context node: opaque to the initiator */
	ACCORD_TLV_PRUNED = 0x0002,       /* context node: (node ID u8, reason u8) pairs, ascending */
	ACCORD_TLV_PREFERENCE = 0x0003,   /* any node but the context: u8, higher is preferred */
	ACCORD_TLV_WORD = 0x000b,         /* any node but the context: u8 of enum accord_word, on its protocol */
	ACCORD_TLV_OUTLINE = 0x000d,      /* context node of a proposal: what its nodes are, without their payloads */
	ACCORD_TLV_CRITICAL = 0x8000,     /* bit: a receiver that does not know the type aborts */
	ACCORD_TLV_REASON = 0x8001,       /* context node: the message is an abort; u8 of enum accord_reason */
	ACCORD_TLV_SERVICE = 0x8002,      /* context node: u16 service port, where the context has no ports */
	ACCORD_TLV_TRANSCRIPT = 0x8003,   /* context node of a commit: 32 bytes, the transcript hash so far */
	ACCORD_TLV_MAC = 0x8004,          /* security node: 32 bytes, keyed by its exporter over the transcript */
	ACCORD_TLV_PLACEHOLDER = 0x8005,  /* placeholder: u8 who fills it, then u32 protocol IDs, ascending */
	ACCORD_TLV_ELABORATES = 0x8006,   /* new node: u8, the placeholder that it is in place of */
	ACCORD_TLV_CONTINUES = 0x8007,    /* context node: u8 node IDs, ascending, that have more to say */
	ACCORD_TLV_PEER = 0x8008,         /* context node: 32 bytes, peer to peer: who proposes; what was merged */
	ACCORD_TLV_RENEGOTIATES = 0x8009, /* context node of a proposal: which association it is about, and the proof */
	ACCORD_TLV_DATA_PATH = 0x800a,    /* context node of a proposal: the address that the stack's connection is from */
	ACCORD_TLV_REPEAT = 0x800c,       /* context node of an answer: a cookie; of its commit: that, and what it asks */
};

/* Protocol IDs: below 256 the IP protocol number itself; above, ours. */
enum accord_protocol {
	ACCORD_PROTOCOL_PADDING = 0, /* never supported, never stored: makes a packet longer, nothing else */
	ACCORD_PROTOCOL_TCP = 6,
	ACCORD_PROTOCOL_UDP = 17,       /* as first node: the context is this UDP 5-tuple */
	ACCORD_PROTOCOL_SCTP = 132,     /* a plan: the kernels set the association up after the commit */
	ACCORD_PROTOCOL_DIRECT = 253,   /* as first node: the context is IP protocol 253 (RFC 3692) */
	ACCORD_PROTOCOL_MPTCP = 0x0106, /* a plan: the kernels set the connection up after the commit (IPPROTO_MPTCP) */
	ACCORD_PROTOCOL_TLS13 = 0x0304,
	ACCORD_PROTOCOL_QUIC = 0x0500,
	ACCORD_PROTOCOL_HTTP = 0x0800,
	ACCORD_PROTOCOL_COMPRESSION = 0x0810, /* a stream, in blocks of deflate (RFC 1951) */
	ACCORD_PROTOCOL_FRAMING = 0x0820,     /* messages on a stream, each behind its length */
	ACCORD_PROTOCOL_INNER = 0x0900,       /* another negotiation, sealed; the context node of that one too */
	ACCORD_PROTOCOL_WIREGUARD = 0x0a10,   /* a tunnel with keys of its own, and a TCP connection through it */
	ACCORD_PROTOCOL_SUBGRAPH = 0x0b00,    /* a placeholder for any number of nodes */
	/* Reserved for ever, to be proposed now and then so that peers keep ignoring the unknown
	 * (RFC 8701): the IDs (id & 0x0f0f0f0f) == 0x0a0a0a0a, and TLV types (t & 0x0f0f) == 0x0a0a. */
	ACCORD_PROTOCOL_GREASE = 0x0a0a0a0a,
	ACCORD_PROTOCOL_PRIVATE_FIRST = 0x7e000000, /* experiments and private plug-ins */
	ACCORD_PROTOCOL_PRIVATE_LAST = 0x7effffff,
};

/* What a policy says of a protocol, or of an option inside one; weakest first. */
enum accord_word {
	ACCORD_WORD_FORBIDDEN = 0,
	ACCORD_WORD_AVOID = 1,
	ACCORD_WORD_NEUTRAL = 2, /* what is not mentioned is */
	ACCORD_WORD_PREFERRED = 3,
	ACCORD_WORD_REQUIRED = 4,
};

enum accord_node_id {
	ACCORD_NODE_CONTEXT = 0,   /* the first node of every message */
	ACCORD_NODE_PADDING = 255, /* the node ID that padding chunks bear */
};

/* The steps of the common exchange (HotNets 2009, Figure 1); even steps are the initiator's. */
enum accord_step {
	ACCORD_STEP_PROPOSAL = 0,
	ACCORD_STEP_ANSWER = 1,
	ACCORD_STEP_COMMIT = 2,
};

/* ---- TCP option on a SYN (RFC 6994): kind, length, ExID, transaction ID ---------------------- */

enum accord_tcp_option {
	ACCORD_TCP_OPTION_KIND = 254,
	ACCORD_TCP_OPTION_EXID = 0xacc0,        /* FALLBACK: a SYN that the negotiation makes superfluous */
	ACCORD_TCP_OPTION_EXID_ADOPT = 0xacc1,  /* ADOPT: its connection becomes the negotiated TCP node */
	ACCORD_TCP_OPTION_EXID_WISHES = 0xacc2, /* WISHES: never on a SYN, only in a TCP node */
	ACCORD_TCP_OPTION_BYTES = 16,
};

/* ---- Limits, each enforced before memory is taken ------------------------------------------- */

enum accord_limit {
	ACCORD_MAX_NODES = 64, /* node IDs are 0..63 */
	ACCORD_MAX_EDGES = 256,
	ACCORD_MAX_TLV_BYTES = 1024,      /* of one node, all TLVs together */
	ACCORD_MAX_MESSAGE_BYTES = 65536, /* sum of a message's descriptors */
	ACCORD_MAX_STEPS = 10,            /* steps 0..9 */
	ACCORD_MAX_PACKETS = 256,         /* TSNs of one direction of one transaction */
	ACCORD_MAX_LIFETIME_MS = 10000,   /* of a negotiation, first packet to commit */
	ACCORD_MIN_MTU_PACKET = 1200,     /* bytes of an Accord packet until the path is known to carry more */
	ACCORD_MAX_PACKET = 9000,         /* bytes of a packet, and of a datagram that several share: jumbo */
	ACCORD_INITIAL_WINDOW = 10,       /* packets (RFC 6928) */
	ACCORD_AMPLIFICATION = 3,         /* bytes out per byte in before the address is proven (RFC 9000 section 8) */
	ACCORD_HEARTBEAT_MS = 450,        /* a daemon silent for longer: every packet passes */
	ACCORD_SUPPRESS_MS = 400,         /* from a proposal to the SYN that it suppresses; SYNs are repeated after 1 s */
	ACCORD_MARK_MS = 1000,            /* from a proposal to the SYN-ACK that is marked */
	ACCORD_MAX_CHALLENGES = 2,        /* that one proposal answers */
	ACCORD_COOKIE_SLOT_S = 4, /* seconds; a cookie is good in its own slot and in the next ACCORD_COOKIE_SLOTS */
	ACCORD_COOKIE_SLOTS = 2,
};

/* ---- Reasons: every drop, prune, fallback and abort has a name -------------------------------- */

/* Whose fault it is. */
enum accord_party {
	ACCORD_PARTY_NONE,
	ACCORD_PARTY_OURS,
	ACCORD_PARTY_PEER,
	ACCORD_PARTY_PATH,
	ACCORD_PARTY_HOST,
	ACCORD_PARTY_USER,
};

/* X(name, value, party, text). Values are on the wire and in counters: never renumbered. */
#define ACCORD_REASONS(X) \
	X(OK, 0, NONE, "no error") \
	/* steering: verdicts of the XDP program */ \
	X(STEERED, 1, NONE, "negotiation packet handed to the daemon") \
	X(NOT_IP, 2, NONE, "neither IPv4 nor IPv6") \
	X(NOT_OURS_PROTOCOL, 3, NONE, "neither UDP nor IP protocol 253") \
	X(NOT_OURS_PORT, 4, NONE, "a port that nobody registered") \
	X(NOT_OURS_MAGIC, 5, NONE, "no magic cookie: somebody else's datagram") \
	X(FRAGMENT, 6, PATH, "an IP fragment, left to the kernel") \
	X(MALFORMED_FRAME, 7, PEER, "Ethernet, VLAN or IP header does not parse") \
	X(TOO_MANY_EXTENSIONS, 8, PEER, "more IPv6 extension headers or VLAN tags than are walked") \
	X(STALE_HEARTBEAT, 9, OURS, "the daemon was silent for too long, so everything passes") \
	X(NO_SOCKET, 10, OURS, "no AF_XDP socket on this receive queue") \
	X(MAP_MISMATCH, 11, OURS, "map missing or of another layout") \
	X(NOT_LOCAL, 12, NONE, "addressed to another host or to a group") \
	X(SYN_SUPPRESSED, 13, NONE, "a SYN whose negotiation packet came first: dropped") \
	X(SYN_FIRST, 14, NONE, "a SYN that came before its negotiation packet: passed") \
	X(SYN_REPEATED, 15, NONE, "a SYN of a transaction that has had one already: passed") \
	X(SYN_ADOPT, 16, NONE, "a SYN whose connection the negotiation adopts: passed") \
	X(BAD_TCP_OPTION, 17, PEER, "a SYN with TCP options that do not parse: passed") \
	X(SYN_LATE, 18, PATH, "a SYN that came too long after its negotiation packet: passed") \
	X(SYN_ELSEWHERE, 19, PATH, "a SYN between other addresses or ports than its negotiation packet: passed") \
	/* packets */ \
	X(SHORT_PACKET, 32, PEER, "shorter than a header") \
	X(BAD_VERSION, 33, PEER, "a protocol version that we do not speak") \
	X(BAD_MAGIC, 34, PEER, "no magic cookie") \
	X(BAD_CHECKSUM, 35, PATH, "checksum does not match") \
	X(BAD_FLAGS, 36, PEER, "header fields contradict each other") \
	X(BAD_STEP, 37, PEER, "a step number that is not this side's to send, or too high") \
	X(BAD_TSN, 38, PEER, "a TSN outside the window of this transaction") \
	X(BAD_ACK, 39, PEER, "acknowledges what was never sent") \
	X(BAD_CHUNK, 40, PEER, "a chunk that does not fit its packet or its node") \
	X(CONTRADICTION, 41, PEER, "a repeated TSN or chunk with other contents") \
	X(DUPLICATE, 42, PATH, "a packet that was already received") \
	X(UNKNOWN_TRANSACTION, 43, PEER, "no such transaction here, and not the start of one") \
	X(LONG_PACKET, 44, PEER, "longer than a packet may be") \
	/* transport */ \
	X(NO_MEMORY, 64, OURS, "a fixed table or slab is full") \
	X(QUOTA, 65, OURS, "no free slot for a negotiation from an unproven address") \
	X(MESSAGE_TOO_LONG, 66, PEER, "message over 64 KiB or over its packet limit") \
	X(TIMEOUT, 67, PATH, "no answer in time") \
	X(LIFETIME, 68, PEER, "the negotiation took longer than its lifetime") \
	X(AMPLIFICATION, 69, OURS, "sending more would amplify towards an unproven address") \
	X(UNREACHABLE, 70, PATH, "the peer or its port cannot be reached") \
	X(CLOSED, 71, NONE, "closed by this side") \
	X(MTU_BLACK_HOLE, 72, PATH, "longer datagrams got lost twice, so short ones are sent") \
	X(CHALLENGED, 73, NONE, "a cookie was asked for: the responder is under load") \
	X(BAD_COOKIE, 74, PEER, "a cookie that was not made here for this packet") \
	X(OVER_BUDGET, 75, OURS, "more than this host spends on one peer or network at a time") \
	X(OTHER_MACHINE, 76, OURS, "the answer was another machine's, behind the same address") \
	X(SLOT_GONE, 77, OURS, "the answer is not remembered any more") \
	/* descriptors and graphs */ \
	X(BAD_DESCRIPTOR, 96, PEER, "a node descriptor that does not parse") \
	X(NOT_CANONICAL, 97, PEER, "a node descriptor in other than its one valid encoding") \
	X(UNKNOWN_CRITICAL_TLV, 98, PEER, "a critical TLV of a type that is not known") \
	X(BAD_TLV, 99, PEER, "a TLV with a value of the wrong form, or on the wrong node") \
	X(TOO_MANY_NODES, 100, PEER, "more nodes or edges than a graph may have") \
	X(DANGLING_CHILD, 101, PEER, "an edge to a node that is not there") \
	X(CYCLE, 102, PEER, "the graph has a cycle") \
	X(DUPLICATE_NODE, 103, PEER, "two nodes with one ID") \
	X(NO_CONTEXT, 104, PEER, "the first node is missing or is no context") \
	X(UNREACHABLE_NODE, 105, PEER, "a node that no path from the context reaches") \
	X(NOT_PROPOSED, 106, PEER, "the answer holds what was never proposed") \
	X(BAD_ELABORATION, 107, PEER, "a placeholder was filled with what it does not stand for") \
	X(UNFILLED, 108, PEER, "a placeholder that nobody can fill") \
	X(TOO_MANY_STEPS, 109, PEER, "the negotiation needs more steps than there may be") \
	X(NOT_AWAITED, 110, NONE, "the choice was made before this node had come, and does not depend on it") \
	/* choice: why a node was pruned, a negotiation aborted or another way taken */ \
	X(UNSUPPORTED, 128, NONE, "a protocol that this host does not support") \
	X(NOT_PREFERRED, 129, NONE, "another stack is preferred") \
	X(POLICY, 130, USER, "forbidden by this host's policy") \
	X(NO_COMMON_STACK, 131, PEER, "no stack that both sides support and allow") \
	X(INSECURE, 132, USER, "security is required and no security protocol is left") \
	X(HANDSHAKE_FAILED, 133, PEER, "a protocol's own handshake failed") \
	X(BAD_CERTIFICATE, 134, PEER, "the certificate does not verify") \
	X(CERTIFICATE_EXPIRED, 135, PEER, "the certificate has expired or is not valid yet") \
	X(CERTIFICATE_NAME, 136, PEER, "the certificate is for another name") \
	X(BAD_MAC, 137, PEER, "the transcript MAC does not verify: somebody changed the negotiation") \
	X(BAD_TRANSCRIPT, 138, PEER, "the two sides did not see the same messages") \
	X(ADDRESS_TRANSLATED, 139, PATH, "an address translator is on the path") \
	X(NO_SERVICE, 140, PEER, "nothing is exposed on this port") \
	X(BACKEND_FAILED, 141, PEER, "the service behind the port does not answer") \
	X(PLUGIN_FAILED, 142, OURS, "a protocol plug-in raised an error") \
	X(CANNOT_INSTALL, 143, HOST, "the kernel refused to install the negotiated state") \
	X(LEGACY_FIRST, 144, NONE, "the plain connection was ready first") \
	X(LEGACY_PEER, 145, NONE, "the peer does not speak Accord") \
	X(SHUTDOWN, 146, NONE, "the daemon is stopping") \
	X(DOWNGRADE, 147, PEER, "a weaker stack than both sides would have chosen") \
	X(STREAM_BROKEN, 148, PEER, "the stream broke off or was tampered with, after the commit") \
	X(OPTION_NO_ROOM, 149, NONE, "no room on the SYN for the option") \
	X(OPTION_DROPPED, 150, PATH, "the path drops SYNs with the option") \
	X(OPTION_STRIPPED, 151, PATH, "the path takes the option off the SYN") \
	X(SILENT_PEER, 152, PATH, "plain TCP is answered, proposals are not, several times over") \
	X(NOT_ADOPTABLE, 153, PEER, "the connection of the parallel SYN is not this daemon's to adopt") \
	X(KNOWN_LEGACY, 154, NONE, "the peer is remembered not to speak Accord") \
	X(PEER_PROPOSED, 155, NONE, "both sides proposed, and the other's negotiation goes on") \
	X(NOT_MERGED, 156, PEER, "the answer is not what both sides' proposals come to") \
	X(WRONG_KEY, 157, PEER, "sealed to a key that is not, or no longer, the peer's") \
	X(REPLAYED, 158, PEER, "a sealed request that may have come before, so it is not served early") \
	/* host and user */ \
	X(NO_PRIVILEGE, 160, HOST, "a privilege is missing") \
	X(NO_KERNEL_SUPPORT, 161, HOST, "this kernel or NIC does not offer it") \
	X(FOREIGN_PROGRAM, 162, HOST, "another XDP program is attached already") \
	X(NO_INTERFACE, 163, USER, "no such network interface") \
	X(LOAD_FAILED, 164, HOST, "the kernel refused a BPF object") \
	X(DATA_PATH_FAILED, 165, PATH, "the data path does not lead to the host that was negotiated with") \
	X(DAEMON_FAILED, 166, OURS, "the daemon failed, outside of any negotiation") \
	/* re-negotiation */ \
	X(NO_ASSOCIATION, 167, PEER, "no association that can be re-negotiated is known by that name and proof") \
	X(RENEGOTIATING, 168, NONE, "the association is being re-negotiated already, or will be by that side") \
	/* inside protocols */ \
	X(REQUIRED_MISSING, 169, USER, "a policy requires what is not to be had") \
	X(DECOMPRESSION_BOMB, 170, PEER, "compressed data that unpacks to more than was agreed") \
	X(PLUGIN_TIMEOUT, 171, OURS, "a protocol plug-in took too long and was stopped") \
	X(PLUGIN_MEMORY, 172, OURS, "a protocol plug-in wanted more memory than there is for it") \
	/* fallbacks that somebody may have forced */ \
	X(FORCED_FALLBACK, 173, PATH, \
	  "both ends speak Accord, and what they said to each other got lost or was kept back") \
	X(BAD_CONFIG, 192, USER, "the configuration is wrong") \
	X(NOT_PERMITTED, 193, USER, "this user may not do that") \
	X(NO_DAEMON, 194, USER, "no daemon is running")

enum accord_reason {
#define ACCORD_REASON_ENUM(name, value, party, text) ACCORD_REASON_##name = value,
	ACCORD_REASONS(ACCORD_REASON_ENUM)
#undef ACCORD_REASON_ENUM
	ACCORD_REASON_LIMIT = 256, /* counters are arrays of this many */
};

#endif /* ACCORD_WIRE_H */
