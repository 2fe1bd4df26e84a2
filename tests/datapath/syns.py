# SPDX-License-Identifier: Apache-2.0
"""SYNs and SYN-ACKs between two hosts: sockets, what was on the wire as scapy reads it, a proposal as if heard."""

from __future__ import annotations

import mmap
import socket
import struct
import time

from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from accord.datapath._core import lib
from accord.datapath.port import Port
from accord.datapath.syn_option import SynFate, SynOptions
from tests.datapath.netns import Host

FAMILIES = (4, 6)
PORT = 443
ACCORD = 254
UNASKED = SynFate(written=False, no_room=False, syns=0, marked=False)
SYN, ACK = 0x02, 0x10


def stream(host: Host, family: int = 4, protocol: int = 0) -> socket.socket:
    """A TCP socket of that host, or one of another stream protocol."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    return host.run(lambda: socket.socket(kind, socket.SOCK_STREAM, protocol))


def bound(host: Host, family: int = 4) -> socket.socket:
    """One at ``PORT``."""
    sock = stream(host, family)
    sock.settimeout(5)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host.address(family), PORT))
    return sock


def listening(host: Host, family: int = 4, options: SynOptions | None = None) -> socket.socket:
    """A listener on ``PORT``; with ``options``, one that answers."""
    sock = bound(host, family)
    if options is not None:
        options.answer(sock)
    sock.listen(1024)
    return sock


def segments(wire: socket.socket) -> list[TCP]:
    """What has come in by now, without waiting: TCP only."""
    found = []
    wire.setblocking(False)
    try:
        while True:
            frame = Ether(wire.recv(65536))
            if TCP in frame:
                found.append(frame[TCP])
    except BlockingIOError:
        return found


def borne(segment: TCP) -> list[tuple[int, bytes]]:
    """ExID and transaction ID of each option of ours, as scapy sees them."""
    return [(int.from_bytes(value[:2], "big"), bytes(value[2:])) for kind, value in segment.options if kind == ACCORD]


def flags(segment: TCP) -> int:
    """SYN and ACK."""
    return int(segment.flags) & (SYN | ACK)


def syns(found: list[TCP]) -> list[TCP]:
    """Those with SYN and not ACK."""
    return [segment for segment in found if flags(segment) == SYN]


def pretend_heard(port: Port, transaction: bytes, seconds_ago: float = 0.0) -> None:
    """Write into the XDP program's table what it writes itself when a proposal with this ID comes."""
    first, second, third = struct.unpack("=3I", transaction)
    index = (first ^ second ^ third) * 0x9E3779B1 % (1 << 32) >> (32 - lib.ACCORD_HEARD_BITS)
    at = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int(seconds_ago * 1e9)
    state = at & ~lib.ACCORD_HEARD_FLAGS | lib.ACCORD_HEARD_PROPOSAL
    with mmap.mmap(lib.accord_port_heard_fd(port.pointer), lib.ACCORD_HEARD_SLOTS * 64) as table:
        struct.pack_into("=Q12s", table, index * 64, state, transaction)
