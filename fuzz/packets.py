# SPDX-License-Identifier: Apache-2.0
"""Changes of packets on their way, by the structure that they have: fields, chunks, descriptors, TLVs.

Written from the specification, and strict in nothing: what is changed need not be valid any more, but for its checksum,
which is made good where the edit says so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fuzz.bytes_in import BytesIn

_HEADER: Final = 32
_MOST_EDITS: Final = 8
_ALL: Final = 63
"""The number that stands for every packet."""
PROTOCOLS: Final = (6, 17, 253, 0x304, 0x500, 0x800, 0x810, 0x820, 0x900, 0xB00, 77, 0x7E0000C0, 0x0A0A0A0A)
TLV_TYPES: Final = (1, 2, 3, 11, 13, *range(0x8001, 0x800D), 0x0A0A, 0x8A0A)


@dataclass(frozen=True, slots=True)
class Edit:
    """One change."""

    packet: int
    kind: int
    at: int
    value: int
    data: bytes
    mend: bool
    """The checksum is right again afterwards."""


def read_edits(source: BytesIn) -> list[Edit]:
    """As many as the input has, and no more than eight."""
    found: list[Edit] = []
    while source.left and len(found) < _MOST_EDITS:
        first, kind, at, value = source.number(), source.number(), source.number(2), source.number()
        found.append(Edit(first & 63, kind, at, value, source.counted(), first & 0x80 == 0))
    return found


@dataclass
class Chunk:
    """One chunk, taken apart."""

    node: int
    flags: int
    protocol: int
    data: bytes

    def encode(self) -> bytes:
        """Its bytes."""
        return struct.pack(">BBHI", self.node, self.flags, len(self.data), self.protocol) + self.data


def edited(datagram: bytes, number: int, edits: Sequence[Edit], seen: Sequence[bytes]) -> Iterator[tuple[bool, bytes]]:
    """What arrives in place of a datagram: whether later than it would, and its bytes. ``seen``: those before it."""
    meant = [edit for edit in edits if edit.packet in (number, _ALL)]
    late, copies = False, 1
    for edit in meant:
        match edit.kind % 16:
            case 0:
                copies = 0
            case 1:
                copies = 2 + edit.value % 2
            case 2:
                late = True
            case 3:
                datagram = seen[edit.at % len(seen)] if seen else datagram
            case _:
                datagram = _changed(datagram, edit)
    for _ in range(copies):
        yield late, datagram


def _changed(datagram: bytes, edit: Edit) -> bytes:
    if len(datagram) < _HEADER:
        return datagram
    header, chunks = bytearray(datagram[:_HEADER]), chunks_of(datagram)
    chunk = chunks[edit.at % len(chunks)] if chunks else None
    match edit.kind % 16:
        case 4:
            changed = bytearray(datagram)
            changed[edit.at % len(changed)] ^= edit.value or 1
            return _sealed(bytes(changed), edit.mend)
        case 5:
            return _sealed(datagram[: edit.at % (len(datagram) + 1)], edit.mend)
        case 6:
            header[edit.at % 30] = edit.value
        case 7:
            begin = (20, 24, 28)[edit.at % 3]
            size = 2 if begin == 28 else 4
            moved = (int.from_bytes(header[begin : begin + size], "big") + edit.value - 128) % (1 << 8 * size)
            header[begin : begin + size] = moved.to_bytes(size, "big")
        case 8 if chunk is not None:
            chunks.remove(chunk)
        case 9 if chunk is not None:
            chunk.node = edit.value
        case 10 if chunk is not None:
            chunk.protocol = PROTOCOLS[edit.value % len(PROTOCOLS)]
        case 11 if chunk is not None:
            chunk.flags = edit.value
        case 12:
            made = bytes((0, 0, 0, 0)) + edit.data
            chunks.append(Chunk(edit.at % 64, 3, PROTOCOLS[edit.value % len(PROTOCOLS)], made))
        case 13 if chunk is not None:
            chunk.data = _children(chunk.data, edit)
        case 14 if chunk is not None:
            chunk.data = _tlvs(chunk.data, edit)
        case 15 if chunk is not None:
            chunk.data = _payload(chunk.data, edit)
    return _sealed(bytes(header) + b"".join(each.encode() for each in chunks), edit.mend)


def chunks_of(packet: bytes) -> list[Chunk]:
    """The chunks of a packet as far as they go."""
    found: list[Chunk] = []
    at = _HEADER
    while len(packet) - at >= 8:
        node, flags, length, protocol = struct.unpack_from(">BBHI", packet, at)
        found.append(Chunk(node, flags, protocol, packet[at + 8 : at + 8 + length]))
        at += 8 + length
    return found


def _sealed(packet: bytes, mend: bool) -> bytes:
    """RFC 1071."""
    if not mend or len(packet) < _HEADER:
        return packet
    bare = packet[:30] + b"\0\0" + packet[32:]
    total = sum(struct.unpack(f">{(len(bare) + 1) // 2}H", bare + b"\0" * (len(bare) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return packet[:30] + struct.pack(">H", ~total & 0xFFFF) + packet[32:]


def _children(descriptor: bytes, edit: Edit) -> bytes:
    """An edge more, or one less."""
    if len(descriptor) < 4:
        return descriptor
    count = descriptor[0]
    children, rest = set(descriptor[4 : 4 + count]), descriptor[4 + count :]
    children ^= {edit.value % 64}
    return bytes((len(children),)) + descriptor[1:4] + bytes(sorted(children)) + rest


def _tlvs(descriptor: bytes, edit: Edit) -> bytes:
    """A TLV more, one less, or one with another value."""
    if len(descriptor) < 4:
        return descriptor
    begin = 4 + descriptor[0]
    end = begin + int.from_bytes(descriptor[2:4], "big")
    found: dict[int, bytes] = {}
    at = begin
    while end - at >= 4:
        kind, length = struct.unpack_from(">HH", descriptor, at)
        found[kind] = descriptor[at + 4 : at + 4 + length]
        at += 4 + length
    kind = TLV_TYPES[edit.value % len(TLV_TYPES)]
    if kind in found and not edit.data:
        del found[kind]
    else:
        found[kind] = edit.data
    area = b"".join(struct.pack(">HH", kind, len(value)) + value for kind, value in sorted(found.items()))
    return descriptor[:2] + struct.pack(">H", len(area)) + descriptor[4:begin] + area + descriptor[end:]


def _payload(descriptor: bytes, edit: Edit) -> bytes:
    """Other handshake bytes, or other bytes within them."""
    if len(descriptor) < 4:
        return descriptor
    end = 4 + descriptor[0] + int.from_bytes(descriptor[2:4], "big")
    payload = descriptor[end:]
    if edit.value & 1 and payload:
        at = edit.value // 2 % len(payload)
        return descriptor[:end] + payload[:at] + edit.data + payload[at + len(edit.data) :]
    return descriptor[:end] + edit.data
