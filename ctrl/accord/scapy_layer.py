# SPDX-License-Identifier: Apache-2.0
"""Accord for scapy: a second implementation of the wire format, for tests and for looking at captures.

    >>> from accord.scapy_layer import Accord, AccordChunk, AccordNode
    >>> IP() / UDP() / Accord(step=0, flags="I+E", chunks=[AccordChunk(node=0, protocol=17, data=AccordNode())])

Nothing else of the package imports this module, and it imports nothing of the package: its numbers are
written down from docs/PROTOCOL.md, so that a mistake in the one is not repeated in the other. Importing it
makes scapy dissect UDP payloads that bear the magic cookie, on any port, and IP protocol 253.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from scapy.fields import (
    ByteEnumField,
    ByteField,
    ConditionalField,
    FieldLenField,
    FieldListField,
    FlagsField,
    IntEnumField,
    IntField,
    PacketListField,
    ShortField,
    StrField,
    StrFixedLenField,
    StrLenField,
    XIntField,
    XShortEnumField,
    XShortField,
)
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, bind_layers
from scapy.utils import checksum as rfc1071

MAGIC = 0x41435244
HEADER_BYTES = 32
CHUNK_HEADER_BYTES = 8
PACKET_BYTES = 1200
COOKIE_BYTES = 16

PROTOCOLS = {
    0: "padding",
    6: "tcp",
    17: "udp",
    132: "sctp",
    253: "direct",
    0x0106: "mptcp",
    0x0304: "tls",
    0x0500: "quic",
    0x0800: "http",
    0x0900: "inner",
    0x0810: "compression",
    0x0820: "framing",
    0x0A10: "wireguard",
    0x0B00: "subgraph",
}
STEPS = {0: "proposal", 1: "answer", 2: "commit"}
TLV_TYPES = {
    0x0001: "cookie",
    0x0002: "pruned",
    0x0003: "preference",
    0x000B: "word",
    0x000D: "outline",
    0x8001: "reason",
    0x8002: "service",
    0x8003: "transcript",
    0x8004: "mac",
    0x8005: "placeholder",
    0x8006: "elaborates",
    0x8007: "continues",
    0x8008: "peer",
    0x8009: "renegotiates",
    0x800A: "data_path",
    0x800C: "repeat",
}
INITIATOR, ACK, END, MORE, COOKIE = 1, 2, 4, 8, 16
FIRST, LAST = 1, 2


class _Inner(Packet):
    """What is left over after the fields is the next element's, not a payload."""

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return b"", s


class AccordTlv(_Inner):
    """One TLV of a node descriptor."""

    name = "Accord TLV"
    fields_desc = [  # noqa: RUF012
        XShortEnumField("type", 1, TLV_TYPES),
        FieldLenField("length", None, length_of="value", fmt="!H"),
        StrLenField("value", b"", length_from=lambda tlv: tlv.length),
    ]


class AccordNode(Packet):
    """One node descriptor: what the chunks of a node carry, joined."""

    name = "Accord node"
    fields_desc = [  # noqa: RUF012
        FieldLenField("child_count", None, count_of="children", fmt="B"),
        FlagsField("flags", 0, 8, ["placeholder"]),
        FieldLenField("tlv_length", None, length_of="tlvs", fmt="!H"),
        FieldListField("children", [], ByteField("", 0), count_from=lambda node: node.child_count),
        PacketListField("tlvs", [], AccordTlv, length_from=lambda node: node.tlv_length),
        StrField("handshake", b""),
    ]


class AccordChunk(_Inner):
    """One chunk: a node's descriptor, or a part of it."""

    name = "Accord chunk"
    fields_desc = [  # noqa: RUF012
        ByteField("node", 0),
        FlagsField("flags", FIRST | LAST, 8, ["F", "L"]),
        FieldLenField("length", None, length_of="data", fmt="!H"),
        IntEnumField("protocol", 17, PROTOCOLS),
        StrLenField("data", b"", length_from=lambda chunk: chunk.length),
    ]


class Accord(Packet):
    """One packet, from the Accord header on. ``checksum=None`` is filled in. With MORE the next one is its payload."""

    name = "Accord"
    fields_desc = [  # noqa: RUF012
        ByteField("version", 4),
        ByteEnumField("step", 0, STEPS),
        FlagsField("flags", 0, 16, ["I", "A", "E", "M", "C"]),
        XIntField("magic", MAGIC),
        StrFixedLenField("transaction", bytes(12), 12),
        IntField("tsn", 0),
        IntField("ack_tsn", 0),
        ShortField("ack_count", 0),
        XShortField("checksum", None),
        ConditionalField(StrFixedLenField("cookie", bytes(16), 16), lambda packet: bool(packet.flags & COOKIE)),
        PacketListField("chunks", [], AccordChunk),
    ]

    def do_dissect(self, s: bytes) -> bytes:
        here = s[:PACKET_BYTES] if len(s) > PACKET_BYTES and s[3] & MORE else s
        rest: bytes = super().do_dissect(here)
        return rest + s[len(here) :]

    def guess_payload_class(self, payload: bytes) -> Any:
        return Accord if is_accord(payload) else super().guess_payload_class(payload)

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.flags & MORE:
            return self._sealed(pkt) + pay
        return self._sealed(pkt + pay)

    def _sealed(self, whole: bytes) -> bytes:
        if self.checksum is None and len(whole) >= HEADER_BYTES:
            whole = whole[:30] + struct.pack("!H", rfc1071(whole[:30] + b"\0\0" + whole[32:])) + whole[32:]
        return whole

    @property
    def checksum_ok(self) -> bool:
        """Of a packet as it was received."""
        data = self.original or bytes(self)
        return rfc1071(data) == 0

    def mysummary(self) -> str:
        return self.sprintf("Accord step %Accord.step% [%Accord.flags%] TSN %Accord.tsn%")


def is_accord(data: bytes) -> bool:
    """Whether a UDP payload is one of ours: a first byte of 4..15 and the magic cookie at offset 4."""
    return len(data) >= HEADER_BYTES and 4 <= data[0] <= 15 and data[4:8] == struct.pack("!I", MAGIC)


def _siphash(key: bytes, data: bytes) -> int:
    """SipHash-2-4 as in section 3 of its paper (Aumasson and Bernstein, INDOCRYPT 2012)."""
    mask = (1 << 64) - 1
    k0, k1 = struct.unpack("<2Q", key)
    v: list[int] = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(value: int, by: int) -> int:
        return (value << by | value >> (64 - by)) & mask

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0], v[2] = (v[0] + v[1]) & mask, (v[2] + v[3]) & mask
            v[1], v[3] = rotate(v[1], 13) ^ v[0], rotate(v[3], 16) ^ v[2]
            v[0] = rotate(v[0], 32)
            v[2], v[0] = (v[2] + v[1]) & mask, (v[0] + v[3]) & mask
            v[1], v[3] = rotate(v[1], 17) ^ v[2], rotate(v[3], 21) ^ v[0]
            v[2] = rotate(v[2], 32)

    whole = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", whole):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def cookie(frame: Any, key_id: int, key: bytes, slot: int) -> bytes:
    """The cookie that the first packet of a proposal in ``frame``, from its IP header on, is to be answered by."""
    ip, packet = (frame[IPv6] if IPv6 in frame else frame[IP]), frame[Accord]
    family = socket.AF_INET6 if IPv6 in frame else socket.AF_INET
    chunks = b"".join(bytes(chunk) for chunk in packet.chunks)
    front = struct.pack("!BBHHH", key_id, 1, slot & 0xFFFF, rfc1071(chunks) ^ 0xFFFF, len(chunks))
    ports = struct.pack("!HH", frame[UDP].sport, frame[UDP].dport) if UDP in frame else bytes(4)
    ends = socket.inet_pton(family, ip.src) + socket.inet_pton(family, ip.dst)
    return front + struct.pack("!Q", _siphash(key, ends + ports + packet.transaction + front))


def challenge(frame: Any, key_id: int, key: bytes, slot: int) -> Any:
    """The packet, without IP and UDP, that asks for that proposal again."""
    given = frame[Accord]
    tsn = first_tsn(given.transaction, initiator=False)
    made = cookie(frame, key_id, key, slot)
    return Accord(step=1, flags="C", transaction=given.transaction, tsn=tsn, cookie=made)


def first_tsn(transaction: bytes, initiator: bool) -> int:
    """Where a direction's TSNs begin."""
    return int.from_bytes(transaction[0:4] if initiator else transaction[4:8], "big")


def packets(
    transaction: bytes,
    step: int,
    nodes: Iterable[tuple[int, int, bytes]],
    *,
    tsn: int | None = None,
    limit: int = PACKET_BYTES,
    ack: tuple[int, int] | None = None,
) -> list[Any]:
    """A message as packets of at most ``limit`` bytes. ``nodes``: (ID, protocol, descriptor).

    ``tsn``: of the first packet; None: the direction's first. ``ack``: (first TSN, count) for each packet.
    """
    queue = [(node, protocol, bytes(data), True) for node, protocol, data in nodes]
    chunk_lists: list[list[AccordChunk]] = [[]]
    room = limit - HEADER_BYTES
    while queue:
        node, protocol, data, first = queue.pop(0)
        if room <= CHUNK_HEADER_BYTES:
            chunk_lists.append([])
            room = limit - HEADER_BYTES
        part, rest = data[: room - CHUNK_HEADER_BYTES], data[room - CHUNK_HEADER_BYTES :]
        flags = (FIRST if first else 0) | (0 if rest else LAST)
        chunk_lists[-1].append(AccordChunk(node=node, protocol=protocol, flags=flags, data=part))
        room -= CHUNK_HEADER_BYTES + len(part)
        if rest:
            queue.insert(0, (node, protocol, rest, False))
    initiator = step % 2 == 0
    begin = first_tsn(transaction, initiator) if tsn is None else tsn
    flags = (INITIATOR if initiator else 0) | (ACK if ack else 0)
    ack_tsn, ack_count = ack or (0, 0)
    return [
        Accord(
            step=step,
            flags=flags | (END if index == len(chunk_lists) - 1 else 0),
            transaction=transaction,
            tsn=(begin + index) % 2**32,
            ack_tsn=ack_tsn,
            ack_count=ack_count,
            chunks=chunks,
        )
        for index, chunks in enumerate(chunk_lists)
    ]


def descriptors(received: Sequence[Any]) -> list[tuple[int, int, bytes]]:
    """Nodes of one message as (ID, protocol, descriptor), from its packets in the order of their TSNs; no padding."""
    nodes: dict[int, tuple[int, bytes]] = {}
    for packet in received:
        for chunk in packet.chunks:
            if chunk.protocol != 0:
                nodes[chunk.node] = (chunk.protocol, nodes.get(chunk.node, (0, b""))[1] + chunk.data)
    return [(node, protocol, data) for node, (protocol, data) in nodes.items()]


def tcp_option(transaction: bytes) -> tuple[int, bytes]:
    """The option for a SYN, as an element of ``TCP(options=[...])`` (RFC 6994, ExID of 16 bits)."""
    return (254, struct.pack("!H", 0xACC0) + transaction)


def transaction_of(tcp: Any) -> bytes | None:
    """The transaction ID out of a TCP header's options; None when there is none."""
    for kind, value in tcp.options:
        if kind == 254 and len(value) == 14 and value[:2] == b"\xac\xc0":
            return bytes(value[2:])
    return None


def _register() -> None:
    guess_by_port = UDP.guess_payload_class

    def guess_payload_class(self: Any, payload: bytes) -> Any:
        return Accord if is_accord(payload) else guess_by_port(self, payload)

    UDP.guess_payload_class = guess_payload_class  # type: ignore[method-assign]
    bind_layers(IP, Accord, proto=253)
    bind_layers(IPv6, Accord, nh=253)


_register()

__all__ = [
    "Accord",
    "AccordChunk",
    "AccordNode",
    "AccordTlv",
    "descriptors",
    "first_tsn",
    "is_accord",
    "packets",
    "tcp_option",
    "transaction_of",
]
