# SPDX-License-Identifier: Apache-2.0
"""The network between simulated hosts: delay, and the faults that the scenario names. It writes the trace."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Callable
from typing import Final

from accord.wire.constants import Packet, PacketFlag, Protocol
from sim.chance import digest, mix, share
from sim.loop import VirtualLoop
from sim.scenario import Fault, Scenario, Trouble
from sim.tcp import Address, Kind, Segment

_HEADER: Final = struct.Struct(">BBHI12sIIHH")
_CHUNK: Final = struct.Struct(">BBHI")
_PACKET_BYTES: Final = 1200
_MORE: Final = 8
_INITIATOR: Final = 1
_STEPS: Final = {0: "proposal", 1: "answer", 2: "commit", 3: "refusal"}
Deliver = Callable[[], None]


class Network:
    """Everything that leaves a host passes here. ``hosts`` are given by address."""

    def __init__(self, loop: VirtualLoop, scenario: Scenario, *, keep_ladder: bool) -> None:
        self.ladder: list[str] = []
        self.packets = 0
        self.passed: Counter[tuple[str, int]] = Counter()
        """IP bytes of datagrams that were delivered to, and sent by, a responder: see ``judge.amplification``."""
        self.over = False
        """What is still said is no part of the run: its coroutines are let go of."""
        self._loop = loop
        self._scenario = scenario
        self._hash = hashlib.sha256()
        self._keep = keep_ladder
        self._counts: Counter[tuple[int, int, str]] = Counter()
        self._faults: dict[tuple[int, int], list[Fault]] = {}
        for fault in scenario.faults:
            self._faults.setdefault((fault.a, fault.b), []).append(fault)
            if fault.trouble is Trouble.PARTITION:
                self._faults.setdefault((fault.b, fault.a), []).append(fault)

    @property
    def now_us(self) -> int:
        """Virtual microseconds."""
        return self._loop.now_us

    @property
    def trace_hash(self) -> str:
        """Of everything that was sent and what became of it, in order."""
        return self._hash.hexdigest()

    def note(self, text: str) -> None:
        """A line that is no packet: a crash, an outcome. It belongs to the trace."""
        if not self.over:
            self._hash.update(f"{self._loop.now_us} {text}\n".encode())
        self.remark(text)

    def remark(self, text: str) -> None:
        """For people only."""
        if self._keep and not self.over:
            self.ladder.append(f"{self._loop.now_us / 1000:>10.2f} ms  {text}")

    # ---- datagrams ----

    def datagram(
        self, source: tuple[int, Address], target: tuple[int, Address], data: bytes, deliver: Callable[[bytes], None]
    ) -> None:
        """``source`` and ``target``: host and address. ``deliver`` is called for each copy that arrives."""
        way = (source[0], target[0])
        nth = self._next(way, "datagram")
        faults = self._active(way)
        what = f"{source[1][1]:>5} -> {target[1][1]:<5} {_describe(data)}"
        if not self._scenario.opaque:
            self._hash.update(digest(data))
        for fault in faults:
            at = nth - 1
            masked = fault.trouble is Trouble.MASK and at < 64 and int(fault.amount) >> at & 1
            if masked or fault.trouble is Trouble.PARTITION or self._strikes(fault, Trouble.LOSS, way, nth):
                self._line(way, what, f"lost ({fault.trouble.value})")
                return
        for fault in faults:
            if self._strikes(fault, Trouble.FLIP, way, nth):
                data = _flip(data, mix(self._scenario.seed, *way, nth, 1))
                what += " [bit flipped]"
            elif self._strikes(fault, Trouble.FORGERY, way, nth):
                data = _forge(data, mix(self._scenario.seed, *way, nth, 2))
                what += " [forged]"
        copies = 1 + sum(self._strikes(fault, Trouble.DUPLICATION, way, nth) for fault in faults)
        for copy in range(copies):
            delay = self._delay(way, nth, copy, faults)
            self._line(way, what, f"arrives {(self._loop.now_us + delay) / 1000:.2f}")
            arriving = data
            self._loop.later(delay / 1_000_000, lambda arriving=arriving: deliver(arriving))

    # ---- TCP ----

    def segment(self, way: tuple[int, int], segment: Segment, deliver: Callable[[Segment], None]) -> None:
        """A segment from one host to another. A path that corrupts it loses it: TCP's checksum sees to that."""
        nth = self._next(way, "segment")
        faults = self._active(way)
        option = "" if segment.option is None else f" option {segment.option[0]:#x}"
        length = f" {len(segment.data)} bytes" if segment.data else ""
        what = f"{segment.source[1]:>5} -> {segment.destination[1]:<5} TCP {segment.kind.value}{length}{option}"
        for fault in faults:
            lost = any(self._strikes(fault, kind, way, -nth) for kind in (Trouble.LOSS, Trouble.FLIP))
            if lost or fault.trouble is Trouble.PARTITION:
                self._line(way, what, f"lost ({fault.trouble.value})")
                return
        strips = segment.kind in (Kind.SYN, Kind.SYN_ACK) and any(f.trouble is Trouble.STRIP for f in faults)
        if strips and segment.option is not None:
            segment = Segment(segment.kind, segment.source, segment.destination, segment.seq, segment.ack)
            what += " [stripped]"
        delay = self._delay(way, -nth, 0, faults)
        self._line(way, what, f"arrives {(self._loop.now_us + delay) / 1000:.2f}")
        self._loop.later(delay / 1_000_000, deliver, segment)

    # ---- fates ----

    def _next(self, way: tuple[int, int], kind: str) -> int:
        self.packets += 1
        self._loop.happens()
        self._counts[*way, kind] += 1
        return self._counts[*way, kind]

    def _active(self, way: tuple[int, int]) -> list[Fault]:
        now = self._loop.now_us
        return [fault for fault in self._faults.get(way, ()) if fault.begin <= now < fault.end]

    def _strikes(self, fault: Fault, trouble: Trouble, way: tuple[int, int], nth: int) -> bool:
        if fault.trouble is not trouble:
            return False
        return share(self._scenario.seed, *way, nth, hash_of(trouble), fault.begin) < fault.amount

    def _delay(self, way: tuple[int, int], nth: int, copy: int, faults: list[Fault]) -> int:
        delay = self._scenario.delays[way[0]][way[1]]
        late = copy > 0 or any(self._strikes(fault, Trouble.REORDERING, way, nth) for fault in faults)
        if late:
            seed = mix(self._scenario.seed, *way, nth, 3 + copy)
            # Mostly overtaken by a few packets; now and then by a whole negotiation, or by the end of its lingering.
            delay += seed % (40_000 if seed & 0x30000000 else 15_000_000)
        return delay

    def _line(self, way: tuple[int, int], what: str, fate: str) -> None:
        self.note(f"{way[0]} -> {way[1]}  {what}  {fate}")


_NUMBERS: Final = {trouble: number for number, trouble in enumerate(Trouble)}


def hash_of(trouble: Trouble) -> int:
    """A number for each kind, the same in every process."""
    return _NUMBERS[trouble]


def transaction_of(data: bytes) -> bytes:
    """The 12 bytes of a datagram's first packet."""
    return data[8:20]


def from_initiator(data: bytes) -> bool:
    """Its sender says that it has proposed."""
    return bool(int.from_bytes(data[2:4], "big") & _INITIATOR)


def is_packet(data: bytes) -> bool:
    """It has a header with the magic cookie."""
    return len(data) >= Packet.HEADER_BYTES and int.from_bytes(data[4:8], "big") == Packet.MAGIC


def bears_cookie(data: bytes) -> bool:
    """The initiator has been challenged, and shows it."""
    return bool(int.from_bytes(data[2:4], "big") & PacketFlag.COOKIE)


def begins(data: bytes) -> bool:
    """A proposal's packet, as the XDP program looks for one."""
    return is_packet(data) and data[1] == 0 and from_initiator(data) and len(data) > Packet.HEADER_BYTES


def ip_bytes(data: bytes, context: int, family: int = 4) -> int:
    """With IP, and UDP where there is any."""
    header = 20 if family == 4 else 40
    return len(data) + header + (8 if context == Protocol.UDP else 0)


def _describe(data: bytes) -> str:
    if not is_packet(data):
        return f"{len(data)} bytes"
    words, at = [], 0
    while at < len(data):
        end = at + _PACKET_BYTES if int.from_bytes(data[at + 2 : at + 4], "big") & _MORE else len(data)
        words.append(_describe_packet(data[at:end]))
        at = end
    return " | ".join(words)


def _describe_packet(data: bytes) -> str:
    if len(data) < Packet.HEADER_BYTES:
        return f"{len(data)} bytes"
    _, step, flags, _, transaction, tsn, ack, count, _ = _HEADER.unpack_from(data)
    first = int.from_bytes(transaction[:4] if flags & _INITIATOR else transaction[4:8], "big")
    theirs = int.from_bytes(transaction[4:8] if flags & _INITIATOR else transaction[:4], "big")
    shown = bool(flags & PacketFlag.COOKIE)  # whatever it binds is not in the trace, so nor is the cookie
    chunks, at = [], Packet.HEADER_BYTES + Packet.COOKIE_BYTES * shown
    while at + _CHUNK.size <= len(data):
        node, _, length, protocol = _CHUNK.unpack_from(data, at)
        chunks.append(f"{node}:{protocol:x}/{length}")
        at += _CHUNK.size + length
    words = [
        transaction[:3].hex(),
        _STEPS.get(step, f"step {step}") if chunks else "challenge" if shown else "ack",
        str(tsn - first & 0xFFFFFFFF),
    ]
    if flags & 2:
        words.append(f"acks {ack - theirs & 0xFFFFFFFF}+{count}")
    return " ".join([*words, *chunks]) + (" END" if flags & 4 else "")


def _flip(data: bytes, seed: int) -> bytes:
    at = seed % (len(data) * 8)
    changed = bytearray(data)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def _forge(data: bytes, seed: int) -> bytes:
    """One bit of one of the first packet's chunks, or of its step where it has none, and the checksum made good."""
    end = min(len(data), _PACKET_BYTES) if int.from_bytes(data[2:4], "big") & _MORE else len(data)
    chunks, at = [], int(Packet.HEADER_BYTES)
    while at + _CHUNK.size <= end:
        length = _CHUNK.unpack_from(data, at)[2]
        chunks.append((at, min(end, at + _CHUNK.size + length)))
        at += _CHUNK.size + length
    begin, behind = chunks[seed % len(chunks)] if chunks else (1, 2)
    if behind - begin > _CHUNK.size and seed >> 60:  # mostly what it carries, now and then its own header
        begin += _CHUNK.size
    changed = bytearray(data)
    changed[begin + (seed >> 16) % (behind - begin)] ^= 1 << (seed >> 32) % 8
    changed[30:32] = b"\0\0"
    changed[30:32] = _checksum(bytes(changed[:end])).to_bytes(2, "big")
    return bytes(changed)


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
