# SPDX-License-Identifier: Apache-2.0
"""Invariant: the C engine, Python, scapy and the XDP program read the same bytes as the same packet, or all as none:
what the engine takes is what scapy sees in it, of what it refuses scapy can say why, the descriptors that it delivers
are those that Python takes but for what stands in their TLVs, the frame's parser finds what scapy put into it, and the
XDP program redirects what has the magic cookie, and nothing else.

The input is a byte of how the packet is wrapped and mended, and a packet.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

from accord.datapath._core import ffi, lib
from accord.datapath.engine import Engine, EventKind
from accord.datapath.path import Path
from accord.datapath.xdp_test import Program, Verdict
from accord.scapy_layer import Accord, AccordChunk, AccordNode, is_accord
from accord.wire.constants import Reason
from accord.wire.errors import PeerError
from accord.wire.node import decode_descriptor

NEEDS_ROOT = True

SUPPORTED = (6, 17, 253, 0x304, 0x800)
PORT = 443
HERE = Path(4, 17, "192.0.2.2", PORT, "192.0.2.1", 40000)
MENDS_CHECKSUM, MENDS_MAGIC, OVER_IPV6, DIRECT, TAGGED, ELSEWHERE = 1, 2, 4, 8, 16, 32
# What Python looks into and the C core leaves to it: the values of Accord's own TLVs.
OF_TLVS = frozenset({Reason.UNKNOWN_CRITICAL_TLV, Reason.BAD_TLV})


def one(data: bytes) -> None:
    """See above."""
    if not data:
        return
    how, packet = data[0], _mended(data[0], data[1:])
    _transport(packet)
    _frame(how, packet)


def _mended(how: int, packet: bytes) -> bytes:
    packet = packet[:1200]
    if how & MENDS_MAGIC and len(packet) >= 32:
        packet = b"\x04" + packet[1:4] + b"ACRD" + packet[8:20] + packet[8:12] + packet[24:]
    if how & MENDS_CHECKSUM and len(packet) >= 32:
        bare = packet[:30] + b"\0\0" + packet[32:]
        total = sum(struct.unpack(f">{(len(bare) + 1) // 2}H", bare + b"\0" * (len(bare) % 2)))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        packet = packet[:30] + struct.pack(">H", ~total & 0xFFFF) + packet[32:]
    return packet


# ---- the packet: engine, scapy, Python ----


def _transport(packet: bytes) -> None:
    engine = Engine(transactions=1, unproven=1, buffers=8, events=128)
    engine.support(SUPPORTED)
    verdict = engine.input(1, HERE, packet)
    delivered = [event for event in engine.events() if event.kind is EventKind.NODE]
    seen = _as_scapy_sees(packet)
    begins = isinstance(seen, list)
    if verdict is Reason.OK:
        assert begins, f"taken, though {seen}"
    elif verdict not in (Reason.BAD_DESCRIPTOR, Reason.NOT_CANONICAL, Reason.NO_MEMORY):
        assert not begins, f"{verdict.name}, though scapy sees a first packet"
    if not isinstance(seen, list):
        return
    whole = [chunk for chunk in seen if int(chunk.flags) & 3 == 3 and chunk.protocol in SUPPORTED and chunk.node != 255]
    heard = [(event.node, event.protocol, event.data) for event in delivered]
    for chunk in whole:
        said = (chunk.node, chunk.protocol, bytes(chunk.data))
        taken = _as_python_sees(*said)
        _as_scapy_says(said[2], taken)
        if verdict is Reason.OK:
            assert taken, f"delivered, and Python refuses it: {said}"
            assert said in heard, f"not delivered: {said}"
        elif not taken:
            break
    if verdict in (Reason.BAD_DESCRIPTOR, Reason.NOT_CANONICAL):
        assert not all(_as_python_sees(chunk.node, chunk.protocol, bytes(chunk.data)) for chunk in whole)


def _as_scapy_sees(packet: bytes) -> list[Any] | str:
    """The chunks, if this is a first packet of a negotiation; else why not. From the specification's section 3."""
    if not is_accord(packet) or packet[0] != 4:
        return "no header"
    front = 48 if packet[3] & 16 else 32
    if len(packet) < front:
        return "its cookie is cut short"
    seen: Any = Accord(packet)
    flags = int(seen.flags)
    if not seen.checksum_ok:
        return "its checksum is wrong"
    if flags & 8 and len(packet) != 1200:
        return "it has MORE and another length"
    if bool(flags & 2) != bool(seen.ack_count) or (not flags & 2 and seen.ack_tsn):
        return "ACK and its fields contradict each other"
    if seen.step != 0 or not flags & 1 or not seen.chunks:
        return "it is no beginning of a proposal"
    if flags & 2:
        return "it acknowledges what was never sent"
    ahead = (seen.tsn - int.from_bytes(seen.transaction[:4], "big")) % 2**32
    if ahead >= (1 if flags & 16 else 256):
        return "its TSN is too far ahead"
    if flags & 16 and flags & 8:
        return "it has a cookie, and another packet behind it"
    if not all(isinstance(chunk, AccordChunk) for chunk in seen.chunks):
        return "its chunks do not parse"
    if sum(8 + len(chunk.data) for chunk in seen.chunks) != len(packet) - front:
        return "its chunks do not fill it"
    numbers = [chunk.node for chunk in seen.chunks]
    if len(set(numbers)) != len(numbers):
        return "two chunks of one node"
    for chunk in seen.chunks:
        if chunk.length != len(chunk.data) or (chunk.node == 255) != (chunk.protocol == 0):
            return "a chunk that is cut short, or half padding"
        if chunk.node != 255 and (chunk.node > 63 or not chunk.data):
            return "a chunk of no node, or with nothing in it"
    # The message has begun and ended in this one packet: every node of it has to be whole.
    if flags & 4 and ahead == 0 and any(int(chunk.flags) & 3 != 3 for chunk in seen.chunks if chunk.node != 255):
        return "the message is over, and a node is not whole"
    return list(seen.chunks)


def _as_python_sees(number: int, protocol: int, descriptor: bytes) -> bool:
    """Whether the C core should take it: Python does, or objects only to what the core leaves to it."""
    try:
        decode_descriptor(number, protocol, descriptor)
    except PeerError as refusal:
        return refusal.reason in OF_TLVS
    return True


def _as_scapy_says(descriptor: bytes, taken: bool) -> None:
    """What Python and the core take, scapy takes apart and puts together to the same bytes."""
    if not taken:
        return
    node: Any = AccordNode(descriptor)
    assert node.child_count == len(node.children)
    assert sum(4 + len(tlv.value) for tlv in node.tlvs) == node.tlv_length
    node.child_count = node.tlv_length = None
    for tlv in node.tlvs:
        tlv.length = None
    node.clear_cache()
    assert bytes(node) == descriptor


# ---- the frame: its parser, scapy, the XDP program ----


@cache
def _program() -> Program:
    program = Program()
    program.steer(PORT)
    program.join()
    program.heartbeat(-3_600_000)
    return program


def _frame(how: int, packet: bytes) -> None:
    ether: Any = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    if how & TAGGED:
        ether = ether / Dot1Q(vlan=7)
    ip: Any = IPv6(src="2001:db8::1", dst="2001:db8::2") if how & OVER_IPV6 else IP(src="192.0.2.1", dst="192.0.2.2")
    port = PORT + 1 if how & ELSEWHERE else PORT
    if how & DIRECT:
        ip = ip.__class__(bytes(ip))
        setattr(ip, "nh" if how & OVER_IPV6 else "proto", 253)
        if not how & OVER_IPV6:
            ip.len = ip.chksum = None
        else:
            ip.plen = None
        frame = bytes(ether / ip / bytes(packet))
    else:
        frame = bytes(ether / ip / UDP(sport=40000, dport=port) / bytes(packet))
    found = _as_the_core_parses(frame)
    assert found == packet, "the frame's parser finds something else in it"
    run = _program().run(frame)
    assert run.output == frame, "the XDP program changed it"
    ours = len(packet) >= 32 and 4 <= packet[0] <= 15 and packet[4:8] == b"ACRD"
    ours = ours and (bool(how & DIRECT) or port == PORT)
    assert run.verdict is (Verdict.REDIRECT if ours else Verdict.PASS), f"{run.verdict.name}, {run.reason}"


def _as_the_core_parses(frame: bytes) -> bytes | None:
    path = ffi.new("struct accord_path *")
    begin, length = ffi.new("uint8_t const **"), ffi.new("uint32_t *")
    data = ffi.from_buffer("uint8_t[]", frame)
    tag = ffi.new("struct accord_frame_tag *")
    if lib.accord_frame_parse(data, len(frame), tag[0], path, begin, length):
        return None
    return bytes(ffi.buffer(begin[0], length[0]))
