# SPDX-License-Identifier: Apache-2.0
"""The numbers of ``include/accord/wire.h``, for Python.

Written down here a second time, because an import should need no compiler; a test compiles the header and
compares every name and value of it with what stands here. Names are the header's without their prefix.
"""

from __future__ import annotations

import enum
from typing import Final


class Packet(enum.IntEnum):
    """``enum accord_packet_constant``: versions, the magic cookie, sizes in bytes."""

    VERSION = 4
    VERSION_LAST = 15
    MAGIC = 0x41435244
    TRANSACTION_BYTES = 12
    HEADER_BYTES = 32
    CHUNK_HEADER_BYTES = 8
    COOKIE_BYTES = 16

    # The value of VERSION today, so an alias; the first byte range that RFC 9443 leaves unassigned.
    VERSION_FIRST = 4


class PacketFlag(enum.IntFlag):
    """``enum accord_packet_flag``: bits of the packet header's flags field."""

    INITIATOR = 0x0001
    ACK = 0x0002
    END = 0x0004
    MORE = 0x0008
    COOKIE = 0x0010


class ChunkFlag(enum.IntFlag):
    """``enum accord_chunk_flag``: a node's first and last chunk (HotNets 2009, Figure 3)."""

    FIRST = 0x01
    LAST = 0x02


class CookieKind(enum.IntEnum):
    """``enum accord_cookie_kind``: what a cookie proves."""

    ADDRESS = 1
    ANSWER = 2
    SLOT = 3


class NodeFlag(enum.IntFlag):
    """``enum accord_node_flag``: bits of a node descriptor's flags byte."""

    PLACEHOLDER = 0x01


PACKET_FLAGS_KNOWN: Final = 0x001F
CHUNK_FLAGS_KNOWN: Final = 0x03
NODE_FLAGS_KNOWN: Final = 0x01

DESCRIPTOR_HEADER_BYTES: Final = 4
"""Size of ``struct accord_descriptor``: child count u8, flags u8, TLV length u16."""
TLV_HEADER_BYTES: Final = 4
"""Size of ``struct accord_tlv``: type u16, length u16."""


class TlvType(enum.IntEnum):
    """``enum accord_tlv_type``: parameters of Accord's own in a node descriptor."""

    COOKIE = 0x0001
    PRUNED = 0x0002
    PREFERENCE = 0x0003
    WORD = 0x000B
    OUTLINE = 0x000D
    REASON = 0x8001
    SERVICE = 0x8002
    TRANSCRIPT = 0x8003
    MAC = 0x8004
    PLACEHOLDER = 0x8005
    ELABORATES = 0x8006
    CONTINUES = 0x8007
    PEER = 0x8008
    RENEGOTIATES = 0x8009
    DATA_PATH = 0x800A
    REPEAT = 0x800C


TLV_CRITICAL: Final = 0x8000
"""The bit of a TLV type that makes a receiver abort when it does not know the type."""


class Protocol(enum.IntEnum):
    """``enum accord_protocol``: protocol IDs. Private plug-ins use plain ints of the private range."""

    PADDING = 0
    TCP = 6
    UDP = 17
    SCTP = 132
    DIRECT = 253
    MPTCP = 0x0106
    TLS13 = 0x0304
    QUIC = 0x0500
    HTTP = 0x0800
    COMPRESSION = 0x0810
    FRAMING = 0x0820
    INNER = 0x0900
    WIREGUARD = 0x0A10
    SUBGRAPH = 0x0B00
    GREASE = 0x0A0A0A0A
    PRIVATE_FIRST = 0x7E000000
    PRIVATE_LAST = 0x7EFFFFFF


class Word(enum.IntEnum):
    """``enum accord_word``: what a policy says of a protocol, or of an option inside one; weakest first."""

    FORBIDDEN = 0
    AVOID = 1
    NEUTRAL = 2
    PREFERRED = 3
    REQUIRED = 4


class NodeId(enum.IntEnum):
    """``enum accord_node_id``: node IDs that mean something by themselves."""

    CONTEXT = 0
    PADDING = 255


class Step(enum.IntEnum):
    """``enum accord_step``: the common exchange (HotNets 2009, Figure 1); even steps are the initiator's."""

    PROPOSAL = 0
    ANSWER = 1
    COMMIT = 2


class TcpOption(enum.IntEnum):
    """``enum accord_tcp_option``: the option on a SYN (RFC 6994)."""

    KIND = 254
    EXID = 0xACC0
    EXID_ADOPT = 0xACC1
    EXID_WISHES = 0xACC2
    BYTES = 16


class Limit(enum.IntEnum):
    """``enum accord_limit``: each is enforced before memory is taken. Units are in the names."""

    MAX_NODES = 64
    MAX_EDGES = 256
    MAX_TLV_BYTES = 1024
    MAX_MESSAGE_BYTES = 65536
    MAX_STEPS = 10
    MAX_LIFETIME_MS = 10000
    MIN_MTU_PACKET = 1200
    MAX_PACKET = 9000
    INITIAL_WINDOW = 10
    AMPLIFICATION = 3
    HEARTBEAT_MS = 450
    SUPPRESS_MS = 400
    MARK_MS = 1000
    MAX_CHALLENGES = 2
    COOKIE_SLOT_S = 4

    # The same number as MAX_EDGES, so an alias: packets of one direction of one transaction.
    MAX_PACKETS = 256
    # Likewise: slots after its own in which a cookie is good.
    COOKIE_SLOTS = 2


class Party(enum.IntEnum):
    """``enum accord_party``: whose fault a reason is."""

    NONE = 0
    OURS = 1
    PEER = 2
    PATH = 3
    HOST = 4
    USER = 5


REASON_LIMIT: Final = 256
"""Counters are arrays of this many elements, by reason."""


class Reason(enum.IntEnum):
    """``enum accord_reason``: every drop, prune, fallback and abort has a name that is counted.

    ``party`` says whose fault it is, ``text`` what happened, as a clause without a full stop.
    """

    party: Party
    text: str

    def __new__(cls, value: int, party: Party = Party.NONE, text: str = "") -> Reason:
        """A member of the value; ``party`` and ``text`` become its attributes."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.party = party
        member.text = text
        return member

    OK = 0, Party.NONE, "no error"
    # Steering: verdicts of the XDP program.
    STEERED = 1, Party.NONE, "negotiation packet handed to the daemon"
    NOT_IP = 2, Party.NONE, "neither IPv4 nor IPv6"
    NOT_OURS_PROTOCOL = 3, Party.NONE, "neither UDP nor IP protocol 253"
    NOT_OURS_PORT = 4, Party.NONE, "a port that nobody registered"
    NOT_OURS_MAGIC = 5, Party.NONE, "no magic cookie: somebody else's datagram"
    FRAGMENT = 6, Party.PATH, "an IP fragment, left to the kernel"
    MALFORMED_FRAME = 7, Party.PEER, "Ethernet, VLAN or IP header does not parse"
    TOO_MANY_EXTENSIONS = 8, Party.PEER, "more IPv6 extension headers or VLAN tags than are walked"
    STALE_HEARTBEAT = 9, Party.OURS, "the daemon was silent for too long, so everything passes"
    NO_SOCKET = 10, Party.OURS, "no AF_XDP socket on this receive queue"
    MAP_MISMATCH = 11, Party.OURS, "map missing or of another layout"
    NOT_LOCAL = 12, Party.NONE, "addressed to another host or to a group"
    SYN_SUPPRESSED = 13, Party.NONE, "a SYN whose negotiation packet came first: dropped"
    SYN_FIRST = 14, Party.NONE, "a SYN that came before its negotiation packet: passed"
    SYN_REPEATED = 15, Party.NONE, "a SYN of a transaction that has had one already: passed"
    SYN_ADOPT = 16, Party.NONE, "a SYN whose connection the negotiation adopts: passed"
    BAD_TCP_OPTION = 17, Party.PEER, "a SYN with TCP options that do not parse: passed"
    SYN_LATE = 18, Party.PATH, "a SYN that came too long after its negotiation packet: passed"
    SYN_ELSEWHERE = 19, Party.PATH, "a SYN between other addresses or ports than its negotiation packet: passed"
    # Packets.
    SHORT_PACKET = 32, Party.PEER, "shorter than a header"
    BAD_VERSION = 33, Party.PEER, "a protocol version that we do not speak"
    BAD_MAGIC = 34, Party.PEER, "no magic cookie"
    BAD_CHECKSUM = 35, Party.PATH, "checksum does not match"
    BAD_FLAGS = 36, Party.PEER, "header fields contradict each other"
    BAD_STEP = 37, Party.PEER, "a step number that is not this side's to send, or too high"
    BAD_TSN = 38, Party.PEER, "a TSN outside the window of this transaction"
    BAD_ACK = 39, Party.PEER, "acknowledges what was never sent"
    BAD_CHUNK = 40, Party.PEER, "a chunk that does not fit its packet or its node"
    CONTRADICTION = 41, Party.PEER, "a repeated TSN or chunk with other contents"
    DUPLICATE = 42, Party.PATH, "a packet that was already received"
    UNKNOWN_TRANSACTION = 43, Party.PEER, "no such transaction here, and not the start of one"
    LONG_PACKET = 44, Party.PEER, "longer than a packet may be"
    # Transport.
    NO_MEMORY = 64, Party.OURS, "a fixed table or slab is full"
    QUOTA = 65, Party.OURS, "no free slot for a negotiation from an unproven address"
    MESSAGE_TOO_LONG = 66, Party.PEER, "message over 64 KiB or over its packet limit"
    TIMEOUT = 67, Party.PATH, "no answer in time"
    LIFETIME = 68, Party.PEER, "the negotiation took longer than its lifetime"
    AMPLIFICATION = 69, Party.OURS, "sending more would amplify towards an unproven address"
    UNREACHABLE = 70, Party.PATH, "the peer or its port cannot be reached"
    CLOSED = 71, Party.NONE, "closed by this side"
    MTU_BLACK_HOLE = 72, Party.PATH, "longer datagrams got lost twice, so short ones are sent"
    CHALLENGED = 73, Party.NONE, "a cookie was asked for: the responder is under load"
    BAD_COOKIE = 74, Party.PEER, "a cookie that was not made here for this packet"
    OVER_BUDGET = 75, Party.OURS, "more than this host spends on one peer or network at a time"
    OTHER_MACHINE = 76, Party.OURS, "the answer was another machine's, behind the same address"
    SLOT_GONE = 77, Party.OURS, "the answer is not remembered any more"
    # Descriptors and graphs.
    BAD_DESCRIPTOR = 96, Party.PEER, "a node descriptor that does not parse"
    NOT_CANONICAL = 97, Party.PEER, "a node descriptor in other than its one valid encoding"
    UNKNOWN_CRITICAL_TLV = 98, Party.PEER, "a critical TLV of a type that is not known"
    BAD_TLV = 99, Party.PEER, "a TLV with a value of the wrong form, or on the wrong node"
    TOO_MANY_NODES = 100, Party.PEER, "more nodes or edges than a graph may have"
    DANGLING_CHILD = 101, Party.PEER, "an edge to a node that is not there"
    CYCLE = 102, Party.PEER, "the graph has a cycle"
    DUPLICATE_NODE = 103, Party.PEER, "two nodes with one ID"
    NO_CONTEXT = 104, Party.PEER, "the first node is missing or is no context"
    UNREACHABLE_NODE = 105, Party.PEER, "a node that no path from the context reaches"
    NOT_PROPOSED = 106, Party.PEER, "the answer holds what was never proposed"
    BAD_ELABORATION = 107, Party.PEER, "a placeholder was filled with what it does not stand for"
    UNFILLED = 108, Party.PEER, "a placeholder that nobody can fill"
    TOO_MANY_STEPS = 109, Party.PEER, "the negotiation needs more steps than there may be"
    NOT_AWAITED = 110, Party.NONE, "the choice was made before this node had come, and does not depend on it"
    # Choice: why a node was pruned, a negotiation aborted or another way taken.
    UNSUPPORTED = 128, Party.NONE, "a protocol that this host does not support"
    NOT_PREFERRED = 129, Party.NONE, "another stack is preferred"
    POLICY = 130, Party.USER, "forbidden by this host's policy"
    NO_COMMON_STACK = 131, Party.PEER, "no stack that both sides support and allow"
    INSECURE = 132, Party.USER, "security is required and no security protocol is left"
    HANDSHAKE_FAILED = 133, Party.PEER, "a protocol's own handshake failed"
    BAD_CERTIFICATE = 134, Party.PEER, "the certificate does not verify"
    CERTIFICATE_EXPIRED = 135, Party.PEER, "the certificate has expired or is not valid yet"
    CERTIFICATE_NAME = 136, Party.PEER, "the certificate is for another name"
    BAD_MAC = 137, Party.PEER, "the transcript MAC does not verify: somebody changed the negotiation"
    BAD_TRANSCRIPT = 138, Party.PEER, "the two sides did not see the same messages"
    ADDRESS_TRANSLATED = 139, Party.PATH, "an address translator is on the path"
    NO_SERVICE = 140, Party.PEER, "nothing is exposed on this port"
    BACKEND_FAILED = 141, Party.PEER, "the service behind the port does not answer"
    PLUGIN_FAILED = 142, Party.OURS, "a protocol plug-in raised an error"
    CANNOT_INSTALL = 143, Party.HOST, "the kernel refused to install the negotiated state"
    LEGACY_FIRST = 144, Party.NONE, "the plain connection was ready first"
    LEGACY_PEER = 145, Party.NONE, "the peer does not speak Accord"
    SHUTDOWN = 146, Party.NONE, "the daemon is stopping"
    DOWNGRADE = 147, Party.PEER, "a weaker stack than both sides would have chosen"
    STREAM_BROKEN = 148, Party.PEER, "the stream broke off or was tampered with, after the commit"
    OPTION_NO_ROOM = 149, Party.NONE, "no room on the SYN for the option"
    OPTION_DROPPED = 150, Party.PATH, "the path drops SYNs with the option"
    OPTION_STRIPPED = 151, Party.PATH, "the path takes the option off the SYN"
    SILENT_PEER = 152, Party.PATH, "plain TCP is answered, proposals are not, several times over"
    NOT_ADOPTABLE = 153, Party.PEER, "the connection of the parallel SYN is not this daemon's to adopt"
    KNOWN_LEGACY = 154, Party.NONE, "the peer is remembered not to speak Accord"
    PEER_PROPOSED = 155, Party.NONE, "both sides proposed, and the other's negotiation goes on"
    NOT_MERGED = 156, Party.PEER, "the answer is not what both sides' proposals come to"
    WRONG_KEY = 157, Party.PEER, "sealed to a key that is not, or no longer, the peer's"
    REPLAYED = 158, Party.PEER, "a sealed request that may have come before, so it is not served early"
    # Host and user.
    NO_PRIVILEGE = 160, Party.HOST, "a privilege is missing"
    NO_KERNEL_SUPPORT = 161, Party.HOST, "this kernel or NIC does not offer it"
    FOREIGN_PROGRAM = 162, Party.HOST, "another XDP program is attached already"
    NO_INTERFACE = 163, Party.USER, "no such network interface"
    LOAD_FAILED = 164, Party.HOST, "the kernel refused a BPF object"
    DATA_PATH_FAILED = 165, Party.PATH, "the data path does not lead to the host that was negotiated with"
    DAEMON_FAILED = 166, Party.OURS, "the daemon failed, outside of any negotiation"
    # Re-negotiation.
    NO_ASSOCIATION = 167, Party.PEER, "no association that can be re-negotiated is known by that name and proof"
    RENEGOTIATING = 168, Party.NONE, "the association is being re-negotiated already, or will be by that side"
    # Inside protocols.
    REQUIRED_MISSING = 169, Party.USER, "a policy requires what is not to be had"
    DECOMPRESSION_BOMB = 170, Party.PEER, "compressed data that unpacks to more than was agreed"
    PLUGIN_TIMEOUT = 171, Party.OURS, "a protocol plug-in took too long and was stopped"
    PLUGIN_MEMORY = 172, Party.OURS, "a protocol plug-in wanted more memory than there is for it"
    FORCED_FALLBACK = (
        173,
        Party.PATH,
        "both ends speak Accord, and what they said to each other got lost or was kept back",
    )
    BAD_CONFIG = 192, Party.USER, "the configuration is wrong"
    NOT_PERMITTED = 193, Party.USER, "this user may not do that"
    NO_DAEMON = 194, Party.USER, "no daemon is running"


def reason_of(value: int) -> Reason | None:
    """The reason of a number that came from a peer or a counter; None when there is none."""
    return _REASONS.get(value)


_REASONS: Final[dict[int, Reason]] = {int(each): each for each in Reason}


def protocol_name(protocol: int) -> str:
    """A protocol ID as a short word: ``tcp``, ``tls``, ``udp``, ``grease``, else its number in hexadecimal."""
    name = _PROTOCOL_NAMES.get(protocol)
    if name is not None:
        return name
    return "grease" if is_grease_protocol(protocol) else f"0x{protocol:x}"


_PROTOCOL_NAMES: Final[dict[int, str]] = {
    Protocol.PADDING: "padding",
    Protocol.TCP: "tcp",
    Protocol.UDP: "udp",
    Protocol.SCTP: "sctp",
    Protocol.DIRECT: "direct",
    Protocol.MPTCP: "mptcp",
    Protocol.TLS13: "tls",
    Protocol.QUIC: "quic",
    Protocol.HTTP: "http",
    Protocol.COMPRESSION: "compression",
    Protocol.FRAMING: "framing",
    Protocol.INNER: "inner",
    Protocol.WIREGUARD: "wireguard",
    Protocol.SUBGRAPH: "subgraph",
}


def is_grease_protocol(protocol: int) -> bool:
    """Whether the protocol ID is one of those that never mean anything (as RFC 8701 does for TLS)."""
    return protocol & 0x0F0F0F0F == Protocol.GREASE


def is_grease_tlv(tlv_type: int) -> bool:
    """Whether the TLV type is one of those that never mean anything."""
    return tlv_type & 0x0F0F == 0x0A0A


def is_private_protocol(protocol: int) -> bool:
    """Whether the protocol ID is of the range for experiments and private plug-ins."""
    return Protocol.PRIVATE_FIRST <= protocol <= Protocol.PRIVATE_LAST
