# SPDX-License-Identifier: Apache-2.0
"""Two hosts on one wire, and a tap on that wire.

::

    namespace a                              namespace b
    10.99.0.1, fd99::1  acc0 ======== acc0   10.99.0.2, fd99::2
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyroute2 import IPRoute, NetNS, netns
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

_ETH_P_ALL = 3
_serial = itertools.count()


@dataclass(frozen=True)
class Host:
    """One namespace with one interface."""

    name: str
    ipv4: str
    ipv6: str
    interface: str = "acc0"

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is in this namespace; sockets that it makes stay there."""
        netns.pushns(self.name)
        try:
            yield
        finally:
            netns.popns()

    def setting(self, name: str, value: str) -> None:
        """Write a sysctl of this namespace."""
        with self.inside():
            Path("/proc/sys", name).write_text(value)

    def address(self, family: int) -> str:
        """The textual address of the family (4 or 6)."""
        return self.ipv4 if family == 4 else self.ipv6


@dataclass(frozen=True)
class Wire:
    """The two hosts."""

    a: Host
    b: Host


class Tap:
    """Sees every frame at one host's interface, by the kernel's own packet tap, from its making on."""

    def __init__(self, host: Host) -> None:
        with host.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            # 33: SO_RCVBUFFORCE; nothing may be missed.
            self._socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
            self._socket.bind((host.interface, _ETH_P_ALL))
        self._seen: list[TCP] = []

    def segments(self) -> list[TCP]:
        """All TCP segments until now, dissected by scapy; each with its IP header as ``underlayer``."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = Ether(self._socket.recv(1 << 17))
                if TCP in frame:
                    self._seen.append(frame[TCP])
        return list(self._seen)

    def flags(self) -> set[str]:
        """Every TCP flag that was seen, as scapy's letters."""
        return {letter for segment in self.segments() for letter in str(segment.flags)}

    def close(self) -> None:
        """Stop looking."""
        self._socket.close()


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """Both hosts, configured; gone afterwards, whatever happens."""
    mark = f"accord-tcp-{os.getpid()}-{next(_serial)}"
    a = Host(f"{mark}-a", "10.99.0.1", "fd99::1")
    b = Host(f"{mark}-b", "10.99.0.2", "fd99::2")
    try:
        for host in (a, b):
            netns.create(host.name)
        with NetNS(a.name) as there:
            there.link("add", ifname="acc0", kind="veth", peer={"ifname": "acc0", "net_ns_fd": b.name})
        for host in (a, b):
            host.setting("net/ipv6/conf/all/accept_dad", "0")
            host.setting("net/ipv6/conf/acc0/accept_dad", "0")
            with NetNS(host.name) as there:
                configure(there, host)
        yield Wire(a, b)
    finally:
        for host in (a, b):
            with contextlib.suppress(OSError):
                netns.remove(host.name)


def configure(route: IPRoute, host: Host) -> None:
    """Addresses, both interfaces up."""
    for interface in ("lo", host.interface):
        route.link("set", index=route.link_lookup(ifname=interface)[0], state="up")
    index = route.link_lookup(ifname=host.interface)[0]
    route.addr("add", index=index, address=host.ipv4, prefixlen=24)
    route.addr("add", index=index, address=host.ipv6, prefixlen=64)


@pytest.fixture
def tap(wire: Wire) -> Iterator[Tap]:
    """A tap at host b for one test."""
    tap = Tap(wire.b)
    yield tap
    tap.close()


def receive(connection: socket.socket, count: int, seconds: float = 5.0) -> bytes:
    """Exactly ``count`` bytes of a (non-blocking) socket, fewer if the peer finished; fails after ``seconds``."""
    connection.settimeout(seconds)
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            break
        data += part
    return data


def reset_on_close(connection: socket.socket) -> None:
    """Close with a reset, so that no TIME-WAIT is left for the next test."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
