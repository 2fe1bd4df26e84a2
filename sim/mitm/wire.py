# SPDX-License-Identifier: Apache-2.0
"""Packets and messages as somebody on the path reads and writes them (docs/PROTOCOL.md, sections 3, 5 and 8).

Written from the specification and not with ``accord.wire``: nothing is checked here, and anything can be said.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

HEADER: Final = struct.Struct(">BBHI12sIIHH")
_CHUNK: Final = struct.Struct(">BBHI")
_DESCRIPTOR: Final = struct.Struct(">BBH")
_TLV: Final = struct.Struct(">HH")
_VERSION: Final = 4
MAGIC: Final = 0x41435244
INITIATOR, ACK, END, MORE, COOKIE = 1, 2, 4, 8, 16
COOKIE_BYTES: Final = 16
_FIRST, _LAST = 1, 2
PACKET_BYTES: Final = 1200
_PADDING: Final = 255

PRUNED, REASON, TRANSCRIPT, MAC = 0x0002, 0x8001, 0x8003, 0x8004
ELABORATES, CONTINUES = 0x8006, 0x8007
UNSUPPORTED: Final = 128


class Chunk(NamedTuple):
    """One chunk."""

    node: int
    flags: int
    protocol: int
    data: bytes


class Packet(NamedTuple):
    """One packet. ``offset``: TSNs from the direction's first one."""

    step: int
    flags: int
    transaction: bytes
    offset: int
    ack_offset: int
    ack_count: int
    chunks: tuple[Chunk, ...]
    cookie: bytes = b""
    """Empty: none stands behind the header."""

    @property
    def challenge(self) -> bool:
        """A responder asks for its cookie, and says nothing else (section 21)."""
        return self.way == 1 and bool(self.cookie) and not self.chunks

    @property
    def way(self) -> int:
        """0 of the initiator, 1 of the responder."""
        return 0 if self.flags & INITIATOR else 1


@dataclass(frozen=True, slots=True)
class RawNode:
    """One node: whatever its descriptor says."""

    id: int
    protocol: int
    children: tuple[int, ...] = ()
    tlvs: tuple[tuple[int, bytes], ...] = ()
    payload: bytes = b""
    flags: int = 0

    @classmethod
    def decode(cls, node: int, protocol: int, data: bytes) -> RawNode:
        """Of a sound descriptor."""
        count, flags, length = _DESCRIPTOR.unpack_from(data)
        at = _DESCRIPTOR.size + count
        end, tlvs = at + length, []
        children = tuple(data[_DESCRIPTOR.size : at])
        while at < end:
            number, size = _TLV.unpack_from(data, at)
            tlvs.append((number, data[at + _TLV.size : at + _TLV.size + size]))
            at += _TLV.size + size
        return cls(node, protocol, children, tuple(tlvs), data[end:], flags)

    def encode(self) -> bytes:
        """The descriptor."""
        area = b"".join(_TLV.pack(number, len(value)) + value for number, value in self.tlvs)
        head = _DESCRIPTOR.pack(len(self.children), self.flags, len(area))
        return head + bytes(self.children) + area + self.payload

    def tlv(self, number: int) -> bytes | None:
        """One value."""
        return next((value for other, value in self.tlvs if other == number), None)

    def with_tlv(self, number: int, value: bytes | None) -> RawNode:
        """With another value; None: without it."""
        kept = [each for each in self.tlvs if each[0] != number]
        if value is not None:
            kept.append((number, value))
        return replace(self, tlvs=tuple(sorted(kept)))

    @property
    def pruned(self) -> dict[int, int]:
        """Node ID to reason."""
        value = self.tlv(PRUNED) or b""
        return dict(zip(value[::2], value[1::2], strict=False))

    def with_pruned(self, reasons: dict[int, int]) -> RawNode:
        """With these."""
        pairs = b"".join(bytes((node, reasons[node])) for node in sorted(reasons))
        return self.with_tlv(PRUNED, pairs or None)


Nodes = tuple[RawNode, ...]


def packets_of(datagram: bytes) -> list[bytes]:
    """Several may share a datagram."""
    found, at = [], 0
    while at < len(datagram):
        more = len(datagram) - at > PACKET_BYTES and int.from_bytes(datagram[at + 2 : at + 4], "big") & MORE
        end = at + PACKET_BYTES if more else len(datagram)
        found.append(datagram[at:end])
        at = end
    return found


def first_tsn(transaction: bytes, way: int) -> int:
    """Of a direction."""
    return int.from_bytes(transaction[4 * way : 4 * way + 4], "big")


def parse(data: bytes) -> Packet:
    """A sound packet."""
    _, step, flags, _, transaction, tsn, ack, count, _ = HEADER.unpack_from(data)
    way = 0 if flags & INITIATOR else 1
    chunks, at = [], HEADER.size
    cookie = data[at : at + COOKIE_BYTES] if flags & COOKIE else b""
    at += len(cookie)
    while at < len(data):
        node, bits, length, protocol = _CHUNK.unpack_from(data, at)
        at += _CHUNK.size
        chunks.append(Chunk(node, bits, protocol, data[at : at + length]))
        at += length
    offset = tsn - first_tsn(transaction, way) & 0xFFFFFFFF
    acked = ack - first_tsn(transaction, 1 - way) & 0xFFFFFFFF if flags & ACK else 0
    return Packet(step, flags, transaction, offset, acked, count, tuple(chunks), cookie)


def build(packet: Packet) -> bytes:
    """With a right checksum."""
    way = packet.way
    tsn = first_tsn(packet.transaction, way) + packet.offset & 0xFFFFFFFF
    ack = 0
    if packet.flags & ACK:
        ack = first_tsn(packet.transaction, 1 - way) + packet.ack_offset & 0xFFFFFFFF
    head = HEADER.pack(_VERSION, packet.step, packet.flags, MAGIC, packet.transaction, tsn, ack, packet.ack_count, 0)
    body = b"".join(_CHUNK.pack(c.node, c.flags, len(c.data), c.protocol) + c.data for c in packet.chunks)
    return sealed(head + packet.cookie + body)


def sealed(data: bytes) -> bytes:
    """The packet with its checksum made good."""
    zeroed = data[:30] + b"\0\0" + data[32:]
    return zeroed[:30] + checksum(zeroed).to_bytes(2, "big") + zeroed[32:]


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def acknowledgement(transaction: bytes, way: int, step: int, offset: int, acked: int, count: int) -> bytes:
    """A packet without chunks, from the side of ``way``: of ``count`` TSNs from the offset ``acked`` on."""
    flags = ACK | (INITIATOR if way == 0 else 0)
    return build(Packet(step, flags, transaction, offset, acked, count, ()))


def challenge(transaction: bytes, cookie: bytes) -> bytes:
    """The responder's way to ask for a cookie; whoever is on the path can say it too."""
    head = HEADER.pack(_VERSION, 1, COOKIE, MAGIC, transaction, first_tsn(transaction, 1), 0, 0, 0)
    return sealed(head + cookie)


def with_cookie(data: bytes, cookie: bytes) -> bytes:
    """A proposal's first packet, repeated with it."""
    packet = parse(data)
    return build(packet._replace(flags=packet.flags | COOKIE, cookie=cookie))


def cut(transaction: bytes, way: int, step: int, offset: int, nodes: Iterable[RawNode], at_least: int) -> list[bytes]:
    """A message in packets, the first with this offset; padded to ``at_least`` so many full ones."""
    flags = INITIATOR if way == 0 else 0
    packets: list[list[Chunk]] = [[]]
    room = PACKET_BYTES - HEADER.size
    for node in nodes:
        data, bits = node.encode(), _FIRST
        while True:
            if room <= _CHUNK.size or any(chunk.node == node.id for chunk in packets[-1]):
                packets.append([])
                room = PACKET_BYTES - HEADER.size
            piece, data = data[: room - _CHUNK.size], data[room - _CHUNK.size :]
            packets[-1].append(Chunk(node.id, bits | (0 if data else _LAST), node.protocol, piece))
            room -= _CHUNK.size + len(piece)
            bits = 0
            if not data:
                break
    while len(packets) < at_least:
        packets.append([Chunk(_PADDING, 0, 0, bytes(PACKET_BYTES - HEADER.size - _CHUNK.size))])
    last = len(packets) - 1
    return [
        build(Packet(step, flags | (END if i == last else 0), transaction, offset + i, 0, 0, tuple(chunks)))
        for i, chunks in enumerate(packets)
    ]


def joined(packets: Sequence[Packet]) -> Nodes:
    """The nodes of a whole message, in the order in which they begin."""
    data: dict[int, bytearray] = {}
    protocols: dict[int, int] = {}
    for chunk in (chunk for packet in packets for chunk in packet.chunks):
        if chunk.node != _PADDING:
            data.setdefault(chunk.node, bytearray()).extend(chunk.data)
            protocols[chunk.node] = chunk.protocol
    return tuple(RawNode.decode(node, protocols[node], bytes(found)) for node, found in data.items())


# ---- the transcript ----


def extend(previous: bytes, step: int, nodes: Iterable[RawNode], skipped: Collection[int] = ()) -> bytes:
    """T of a message; ``skipped``: IDs of nodes that were not stored."""
    ordered = sorted(nodes, key=lambda node: node.id)
    pieces = [b"accord transcript 1", previous, struct.pack(">BH", step, len(ordered))]
    for node in ordered:
        if node.id in skipped:
            pieces.append(struct.pack(">BIB", node.id, node.protocol, 0))
            continue
        bare = node.with_tlv(MAC, bytes(32)) if node.tlv(MAC) is not None else node
        data = bare.encode()
        pieces += (struct.pack(">BIBI", node.id, node.protocol, 1, len(data)), data)
    return hashlib.sha256(b"".join(pieces)).digest()


def transcripts(messages: Sequence[tuple[int, Nodes]]) -> Iterator[bytes]:
    """T after each message. What was not stored of the first one, the second one tells."""
    skipped: set[int] = set()
    if len(messages) > 1:
        skipped = {node for node, reason in messages[1][1][0].pruned.items() if reason == UNSUPPORTED}
    hashed = bytes(32)
    for number, (step, nodes) in enumerate(messages):
        hashed = extend(hashed, step, nodes, skipped if number == 0 else ())
        yield hashed
