# SPDX-License-Identifier: Apache-2.0
"""Two hosts on one bare wire: for what happens to an interface, to its daemon, and to the traffic of others.

        client (192.0.2.1, 2001:db8::1)  acc0 ------ acc0  server (192.0.2.2, 2001:db8::2)

Unlike a ``Lab`` there is no link with a delay in between, so that the interface itself may be taken down, renamed or
deleted. The namespaces have no names: they are gone when their descriptors and processes are, however a run ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute

from accord.lab.namespace import in_thread, processes
from accord.wire.constants import Reason
from accord.wire.errors import HostError

T = TypeVar("T")

INTERFACE = "acc0"
_CLONE_NEWNET = 0x40000000  # sched.h
_libc = ctypes.CDLL(None, use_errno=True)


class PairHost:
    """One of the two. Use as given by ``pair``."""

    def __init__(self, name: str, address4: str, address6: str, mac: str) -> None:
        self.name = name
        self.interface = INTERFACE
        self.address4 = address4
        self.address6 = address6
        self.mac = mac
        self.processes: list[subprocess.Popen[Any]] = []
        self.fd = in_thread(_new_namespace)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """What ``function(*arguments)`` returns or raises, called inside, in a thread of its own."""

        def body() -> T:
            if _libc.setns(self.fd, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            return function(*arguments)

        return in_thread(body)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """``subprocess.Popen`` inside; the process is killed at the end, unless it has ended before."""
        process: subprocess.Popen[Any] = self.call(lambda: subprocess.Popen(argv, **options))
        self.processes.append(process)
        return process

    def run(self, *argv: str, timeout: float = 30) -> str:
        """Run a command inside; what it printed. Raises ``CalledProcessError``."""

        def body() -> str:
            return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=timeout).stdout

        return self.call(body)

    def end(self) -> None:
        """Kill what was started here, what that has started in turn, and forget the namespace."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        self.processes.clear()
        there = os.fstat(self.fd)
        for pid in processes([(there.st_dev, there.st_ino)]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.close(self.fd)


def _new_namespace() -> int:
    if _libc.unshare(_CLONE_NEWNET):
        code = ctypes.get_errno()
        raise HostError(Reason.NO_PRIVILEGE, f"a network namespace: {os.strerror(code)}", "run it as root, with sudo")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def pair(queues: int = 1) -> Iterator[tuple[PairHost, PairHost]]:
    """``client`` and ``server``, connected; each end of the wire has so many receive and transmit queues.

    Raises ``HostError`` without the privilege.
    """
    client = PairHost("client", "192.0.2.1", "2001:db8::1", "02:00:00:00:00:01")
    try:
        server = PairHost("server", "192.0.2.2", "2001:db8::2", "02:00:00:00:00:02")
    except BaseException:
        client.end()
        raise
    try:
        connect(client, server, queues)
        yield client, server
    finally:
        server.end()
        client.end()


def connect(client: PairHost, server: PairHost, queues: int = 1) -> None:
    """Lay the wire; again, when it was deleted."""

    def lay() -> None:
        with IPRoute() as route:
            count = {"num_tx_queues": queues, "num_rx_queues": queues}
            peer = {"ifname": server.interface, "net_ns_fd": server.fd, "address": server.mac, **count}
            route.link("add", ifname=client.interface, kind="veth", address=client.mac, peer=peer, **count)

    client.call(lay)
    for host in (client, server):
        host.call(_configure, host)


def _configure(host: PairHost) -> None:
    Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
    with IPRoute() as route:
        index = route.link_lookup(ifname=host.interface)[0]
        for each in (1, index):
            route.link("set", index=each, state="up")
        route.addr("add", index=index, address=host.address4, prefixlen=24)
        route.addr("add", index=index, address=host.address6, prefixlen=64, flags=0x02)  # IFA_F_NODAD
