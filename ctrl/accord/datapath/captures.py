# SPDX-License-Identifier: Apache-2.0
"""SYNs of unmodified programs, taken at TC egress (``dataplane_c/src/captures.h``): whose, where to, and their answers.

Whose SYNs are candidates is said by cgroup, and by the broker; where a SYN is held is said destination by destination
in memory that is shared with the program, where the heartbeat is, too. What it holds or only tells of comes by a ring.
"""

from __future__ import annotations

import enum
import ipaddress
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from accord.datapath._core import ffi, lib
from accord.wire import tcp_header
from accord.wire.constants import Reason
from accord.wire.errors import error
from accord.wire.tcp_header import TcpHeader, TcpParameters

OBJECT_PATH: Final = Path(__file__).with_name("accord_capture.bpf.o")
"""The TC program, compiled when the package was built."""

_ETHERNET: Final = 14
_IPV6: Final = 40
_IP_TCP: Final = 6
_TTL: Final = 64
_IPV4_HEADER = struct.Struct("!BBHHHBBH4s4s")
_IPV6_HEADER = struct.Struct("!IHBB16s16s")
_DONT_FRAGMENT: Final = 0x4000

_MENDS: Final = {
    Reason.NO_PRIVILEGE: "run the daemon as root, with an interface: accord daemon --iface IF",
    Reason.FOREIGN_PROGRAM: "see: tc filter show dev IF egress",
    Reason.LOAD_FAILED: "accord doctor says what this kernel has; or ./build.py build",
    Reason.NO_KERNEL_SUPPORT: "boot Linux 6.1 or later, with CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS",
    Reason.MAP_MISMATCH: "./build.py build",
    Reason.BAD_CONFIG: "give a cgroup of version 2",
}


class Fate(enum.IntEnum):
    """What became of a SYN of a marked cgroup: ``enum accord_capture_fate``."""

    HELD = lib.ACCORD_CAPTURE_HELD
    ASKED = lib.ACCORD_CAPTURE_ASKED
    LEFT_ALONE = lib.ACCORD_CAPTURE_LEFT_ALONE
    REPEATED = lib.ACCORD_CAPTURE_REPEATED
    WITH_DATA = lib.ACCORD_CAPTURE_WITH_DATA
    STALE = lib.ACCORD_CAPTURE_STALE
    RING_FULL = lib.ACCORD_CAPTURE_RING_FULL
    UNREADABLE = lib.ACCORD_CAPTURE_UNREADABLE
    ANSWERED = lib.ACCORD_CAPTURE_ANSWERED


class Say(enum.IntEnum):
    """What is done with SYNs to a destination."""

    ASK = 0
    """They leave, and are told of."""
    HOLD = lib.ACCORD_CAPTURE_HOLD
    """They are taken."""
    LEAVE = lib.ACCORD_CAPTURE_LEAVE
    """They leave."""


@dataclass(frozen=True, slots=True)
class Captured:
    """One SYN. ``frame`` is Ethernet, IP and TCP, with the TCP checksum that it would have on the wire."""

    held: bool
    """It has not left."""
    interface: int
    source: str
    destination: str
    port: int
    """The destination's."""
    frame: bytes
    own: TcpParameters
    """What the kernel says of its end."""

    def answer(self, peer: TcpParameters) -> bytes:
        """The frame of the SYN-ACK with the peer's numbers, as the interface would receive it."""
        own = self.own
        header = TcpHeader(own.port, own.isn + 1 & 0xFFFFFFFF, own.timestamp or 0, peer)
        segment = tcp_header.encode(header, self.destination, self.source)
        here, there = (ipaddress.ip_address(each).packed for each in (self.source, self.destination))
        if len(here) == 4:
            total = _IPV4_HEADER.size + len(segment)
            fields = (0x45, 0, total, 0, _DONT_FRAGMENT, _TTL, _IP_TCP)
            ip = _IPV4_HEADER.pack(*fields, _ip_checksum(_IPV4_HEADER.pack(*fields, 0, there, here)), there, here)
        else:
            ip = _IPV6_HEADER.pack(6 << 28, len(segment), _IP_TCP, _TTL, there, here)
        return self.frame[6:12] + self.frame[:6] + self.frame[12:14] + ip + segment


def decode(frame: bytes, *, held: bool = True, interface: int = 0) -> Captured:
    """What is in a captured frame. Raises ``PeerError`` or ``ValueError`` for what is no SYN that can be negotiated."""
    near, far, at = _addresses(frame)
    header = tcp_header.decode(frame[at:], tcp_header.DEFAULT_MSS_IPV6 if ":" in far else tcp_header.DEFAULT_MSS_IPV4)
    if header.acknowledgement is not None:
        raise ValueError("a SYN-ACK")
    return Captured(held, interface, near, far, header.destination_port, completed(frame), header.sender)


def completed(frame: bytes) -> bytes:
    """A frame of IP and TCP with the TCP checksum that it would have on the wire, whatever its options are.

    Raises ``ValueError`` for what is shorter than its headers say.
    """
    near, far, at = _addresses(frame)
    return frame[:at] + tcp_header.with_checksum(frame[at:], near, far)


def _addresses(frame: bytes) -> tuple[str, str, int]:
    """Source, destination, and where the TCP header begins, all of whose fixed part is there."""
    ip = frame[_ETHERNET:]
    kind, version = frame[12:_ETHERNET], ip[0] >> 4 if ip else 0
    if kind == b"\x08\x00" and version == 4:
        length, addresses = (ip[0] & 0x0F) * 4, (ip[12:16], ip[16:20])
    elif kind == b"\x86\xdd" and version == 6:
        length, addresses = _IPV6, (ip[8:24], ip[24:40])
    else:
        raise ValueError("neither IPv4 nor IPv6")
    if len(ip) < length + tcp_header.HEADER_BYTES:
        raise ValueError(f"{len(frame)} bytes are no TCP over IP")
    near, far = (str(ipaddress.ip_address(each)) for each in addresses)
    return near, far, _ETHERNET + length


def _ip_checksum(header: bytes) -> int:
    """RFC 1071."""
    return ~(int.from_bytes(header, "big") % 0xFFFF) & 0xFFFF


class Captures:
    """The TC program on one interface. Raises ``AccordError``: what is missing, and its mend."""

    def __init__(self, interface: int) -> None:
        """``interface``: its index; a broker has its own."""
        pointer = ffi.new("struct accord_captures **")
        failure = ffi.new("struct accord_failure *")
        self._pointer: Any = None
        _check(lib.accord_captures_open(os.fsencode(OBJECT_PATH), interface, pointer, failure), failure)
        self._pointer = pointer[0]
        self._record = ffi.new("struct accord_captured *")

    def close(self) -> None:
        """Detach it. Twice does no harm."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            lib.accord_captures_close(pointer)

    def fileno(self) -> int:
        """Readable when ``take`` has something."""
        return int(lib.accord_captures_fd(self._pointer))

    def heartbeat(self) -> None:
        """A sign of life; without one for 450 ms every SYN passes."""
        lib.accord_captures_heartbeat(self._pointer)

    def quiet(self) -> None:
        """From now on every SYN passes, until the next heartbeat."""
        lib.accord_captures_quiet(self._pointer)

    def mark(self, cgroup: int) -> int:
        """Sockets of this cgroup, an open directory, are candidates from now on; its ID. Raises ``AccordError``."""
        found = ffi.new("uint64_t *")
        failure = ffi.new("struct accord_failure *")
        _check(lib.accord_captures_mark(self._pointer, cgroup, found, failure), failure)
        return int(found[0])

    def unmark(self, cgroup: int) -> None:
        """By its ID. Raises ``AccordError``."""
        failure = ffi.new("struct accord_failure *")
        _check(lib.accord_captures_unmark(self._pointer, cgroup, failure), failure)

    def say(self, address: str, port: int, word: Say, seconds: float = 0.0) -> None:
        """What is done with SYNs to a destination, for so long."""
        packed = ipaddress.ip_address(address).packed
        family = 4 if len(packed) == 4 else 6
        lib.accord_captures_say(self._pointer, family, packed, port, word, round(seconds * 1000))

    def fates(self) -> dict[Fate, int]:
        """What became of SYNs since the program was loaded."""
        counts = ffi.new("uint64_t[]", lib.ACCORD_CAPTURE_FATES)
        lib.accord_captures_fates(self._pointer, counts)
        return {fate: int(counts[fate]) for fate in Fate}

    def take(self) -> tuple[bytes, bool, int] | None:
        """The oldest SYN that was not taken yet: frame, whether it is held, interface index; None: there is none."""
        if not lib.accord_captures_take(self._pointer, self._record):
            return None
        record = self._record
        return (
            bytes(ffi.buffer(record.frame, min(record.bytes, len(record.frame)))),
            bool(record.held),
            record.interface,
        )

    def release(self, frame: bytes) -> None:
        """Let a SYN go. Raises ``AccordError``."""
        self._send(frame, inward=False)

    def hand_in(self, frame: bytes) -> None:
        """Give this host a SYN-ACK, as if it had come in by the interface.

        Raises ``AccordError``: also when it has left instead, as the program is attached no more (CANNOT_INSTALL).
        """
        before = self.fates()[Fate.ANSWERED]
        self._send(frame, inward=True)  # the program has seen it when this returns
        if self.fates()[Fate.ANSWERED] == before:
            raise error(
                Reason.CANNOT_INSTALL,
                "the TC program is not attached any more",
                "leave clsact and its filters on the interface as they are, and restart the daemon",
            )

    def _send(self, frame: bytes, *, inward: bool) -> None:
        sent = ffi.new("struct accord_capture_frame *", {"bytes": len(frame)})
        ffi.memmove(sent.frame, frame, min(len(frame), len(sent.frame)))
        failure = ffi.new("struct accord_failure *")
        _check(lib.accord_captures_send(self._pointer, sent, inward, failure), failure)

    def test_run(self, frame: bytes, mark: int = 0, repeat: int = 1) -> tuple[int, int]:
        """Verdict and ns of one frame, from a socket of this process; for tests. Raises ``HostError``."""
        verdict, duration = ffi.new("int32_t *"), ffi.new("uint32_t *")
        result = lib.accord_captures_test_run(self._pointer, frame, len(frame), mark, repeat, verdict, duration)
        if result < 0:
            raise error(Reason(-result), f"BPF_PROG_TEST_RUN of {len(frame)} bytes")
        return int(verdict[0]), int(duration[0])


def _check(result: int, failure: Any) -> int:
    if result < 0:
        reason = Reason(-result)
        raise error(reason, str(ffi.string(failure.detail).decode("utf-8", "replace")), _MENDS.get(reason, ""))
    return result
