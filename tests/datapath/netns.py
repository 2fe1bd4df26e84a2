# SPDX-License-Identifier: Apache-2.0
"""Two hosts and a wire: network namespaces without names, held by file descriptors, and a veth pair.

        near (192.0.2.1, 2001:db8::1)  near0 ------ far0  far (192.0.2.2, 2001:db8::2)

What has no name is gone when its descriptors are, however the test ends.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # <sched.h>
_libc = ctypes.CDLL(None, use_errno=True)


def _in_thread(function: Callable[[], T]) -> T:
    """Linux keeps the namespace per thread, so a change of it ends with the thread."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(function())
        except BaseException as raised:
            errors.append(raised)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _make_namespace() -> int:
    def body() -> int:
        if _libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return _in_thread(body)


@dataclass
class Host:
    """One namespace with one interface."""

    interface: str
    address4: str
    address6: str
    fd: int = field(default_factory=_make_namespace)
    index: int = 0
    mac: str = ""

    def run(self, function: Callable[[], T]) -> T:
        """Call it inside, in a thread of its own."""

        def body() -> T:
            if _libc.setns(self.fd, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            return function()

        return _in_thread(body)

    def command(self, *words: str) -> str:
        """Run a program inside; returns what it printed."""
        return self.run(lambda: subprocess.run(words, check=True, capture_output=True, text=True, timeout=20).stdout)

    def address(self, family: int) -> str:
        """The host's address of family 4 or 6."""
        return self.address4 if family == 4 else self.address6

    def udp(self, family: int, port: int = 0, address: str | None = None) -> socket.socket:
        """A bound, non-blocking UDP socket inside."""

        def body() -> socket.socket:
            kind = socket.AF_INET if family == 4 else socket.AF_INET6
            sock = socket.socket(kind, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            if family == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((self.address(family) if address is None else address, port))
            return sock

        return self.run(body)

    def raw(self) -> socket.socket:
        """An AF_PACKET socket on the interface that sees what comes in, and waits for 5 s at most."""

        def body() -> socket.socket:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
            sock.bind((self.interface, 0x0003))
            sock.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
            sock.setsockopt(263, 8, 1)  # PACKET_AUXDATA
            sock.settimeout(5)
            return sock

        return self.run(body)

    def set(self, path: str, value: str) -> None:
        """Write a sysctl of this namespace, for example ``ipv4/ip_forward``."""
        self.run(lambda: Path("/proc/sys/net", path).write_text(value))

    def snmp(self, protocol: str, counter: str) -> int:
        """A counter of the namespace's IPv4, ICMP or UDP, as /proc/net/snmp names it."""

        def body() -> int:
            lines = [line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()]
            names, values = [line for line in lines if line[0] == f"{protocol}:"]
            return int(values[names.index(counter)])

        return self.run(body)

    def snmp6(self, counter: str, *, less: str | None = None) -> int:
        """A counter of /proc/net/snmp6, or by how much it is above another one, both read at once."""

        def body() -> int:
            text = Path("/proc/thread-self/net/snmp6").read_text()
            values = dict(line.split() for line in text.splitlines())
            return int(values[counter]) - (int(values[less]) if less else 0)

        return self.run(body)

    def xdp_id(self) -> int:
        """The ID of the XDP program on the interface, 0 when there is none."""

        def body() -> int:
            with IPRoute() as route:
                link = route.link("get", index=self.index)[0]
                xdp: Any = link.get_attr("IFLA_XDP")
                return int(xdp.get_attr("IFLA_XDP_PROG_ID") or 0)

        return self.run(body)


def receive_frame(sock: socket.socket) -> bytes:
    """One frame from a ``raw`` socket, with the VLAN tag that the kernel took out put back."""
    frame, control, _, _ = sock.recvmsg(65536, 256)
    for level, kind, data in control:
        if (level, kind) == (263, 8):
            status = int.from_bytes(data[0:4], "little")
            if status & 0x10:  # TP_STATUS_VLAN_VALID; then tp_vlan_tci, tp_vlan_tpid of struct tpacket_auxdata
                tag = data[18:20][::-1] + data[16:18][::-1]
                frame = frame[:12] + tag + frame[12:]
    return frame


@contextmanager
def two_hosts(queues: int = 1, mtu: int = 1500) -> Iterator[tuple[Host, Host]]:
    """``near`` and ``far``, connected by interfaces of so many queues each way; both gone at the end."""
    near = Host("near0", "192.0.2.1", "2001:db8::1")
    far = Host("far0", "192.0.2.2", "2001:db8::2")

    def connect() -> None:
        with IPRoute() as route:
            both = {"num_tx_queues": queues, "num_rx_queues": queues, "mtu": mtu}
            peer = {"ifname": far.interface, "net_ns_fd": far.fd, "address": "02:00:00:00:00:02", **both}
            route.link("add", ifname=near.interface, kind="veth", address="02:00:00:00:00:01", peer=peer, **both)

    def configure(host: Host) -> None:
        with IPRoute() as route:
            host.index = route.link_lookup(ifname=host.interface)[0]
            for index in (1, host.index):
                route.link("set", index=index, state="up")
            route.addr("add", index=host.index, address=host.address4, prefixlen=24)
            route.addr("add", index=host.index, address=host.address6, prefixlen=64, flags=0x02)  # IFA_F_NODAD
            host.mac = route.link("get", index=host.index)[0].get_attr("IFLA_ADDRESS")

    def await_link(host: Host) -> None:
        """The kernel notes a carrier later, in a work queue; until then the interface drops all that is sent."""
        give_up = time.monotonic() + 20
        with IPRoute() as route:
            while route.link("get", index=host.index)[0].get_attr("IFLA_QDISC") == "noop":
                assert time.monotonic() < give_up, f"{host.interface} has no link"
                time.sleep(0.001)

    try:
        near.run(connect)
        for host in (near, far):
            host.set("ipv4/conf/all/forwarding", "0")
            host.run(partial(configure, host))
        for host in (near, far):
            host.run(partial(await_link, host))
        yield near, far
    finally:
        os.close(near.fd)
        os.close(far.fd)
