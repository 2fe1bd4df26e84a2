# SPDX-License-Identifier: Apache-2.0
"""The simulated port: what ``datapath.port.Port`` is to an endpoint, between a real engine and the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from accord.datapath.engine import Engine
from accord.datapath.path import Path
from accord.datapath.port import PortReport, Rung
from accord.wire.constants import Protocol, Reason
from sim import loop as virtual
from sim.kernel import Kernel, SimSocket
from sim.network import begins, is_packet, transaction_of

_MTU: Final = 1500
Send = Callable[[Path, bytes], None]


class SimPort:
    """One host's. ``send`` is the network's side."""

    _numbers = 0

    def __init__(self, kernel: Kernel, send: Send) -> None:
        SimPort._numbers -= 1
        self._number = SimPort._numbers  # below zero: no socket has such a number
        self.report = PortReport(rung=Rung.PACKET, queues=1, program_id=0, refusals={})
        self.attached = True
        self._kernel = kernel
        self._send = send
        self._inbox: deque[tuple[Path, bytes]] = deque()
        self._unreachable: deque[Path] = deque()
        self._datagrams: list[tuple[Path, bytes]] = []
        self._sockets: dict[int, int] = {}
        self._indexes = 0
        self._exposed: set[int] = set()
        self._closed = False
        virtual.register(self._number, self)

    # ---- the network's side ----

    def arrive(self, path: Path, data: bytes) -> bool:
        """A datagram for this host; False: nobody has that port."""
        if self._closed:
            return True
        if path.context == Protocol.UDP:
            index = self._sockets.get(path.local_port)
            if index is None:
                return False
            path = Path(path.family, path.context, path.local, path.local_port, path.remote, path.remote_port, index)
        if not is_packet(data):
            self._datagrams.append((path, data))
            self._kernel.loop.ready_to_read(self._number)
            return True
        if begins(data) and self._kernel.attentive:
            self._kernel.heard[transaction_of(data)] = self._kernel.loop.now_us
        self._inbox.append((path, data))
        self._kernel.loop.ready_to_read(self._number)
        return True

    def unreachable(self, path: Path) -> None:
        """ICMP came back for a packet on this path."""
        if not self._closed:
            self._unreachable.append(path)
            self._kernel.loop.ready_to_read(self._number)

    @property
    def readable(self) -> bool:
        """For the loop."""
        return bool(self._inbox or self._unreachable or self._datagrams)

    writable = False

    # ---- Port ----

    def fds(self) -> list[int]:
        """One ring."""
        return [self._number]

    def poll(self, engine: Engine, now: int) -> int:
        """Packets in, packets out."""
        moved = len(self._inbox)
        while self._inbox:
            path, data = self._inbox.popleft()
            engine.input(now, path, data)
        while sent := engine.output(now):
            moved += len(sent)
            for path, data in sent:
                self._send(path, data)
        return moved

    def datagrams(self) -> list[tuple[Path, bytes]]:
        """What shares the negotiations' ports."""
        found, self._datagrams = self._datagrams, []
        return found

    def errors(self) -> list[Path]:
        """ICMP, as hints."""
        found = list(self._unreachable)
        self._unreachable.clear()
        return found

    def add_socket(self, sock: SimSocket) -> int:
        """Its port is read from now on."""
        self._indexes += 1
        self._sockets[sock.getsockname()[1]] = self._indexes
        return self._indexes

    def remove_socket(self, index: int) -> None:
        """No longer."""
        self._sockets = {port: kept for port, kept in self._sockets.items() if kept != index}

    def expose(self, port: int, exposed: bool = True) -> None:
        """SYNs to it may be suppressed."""
        (self._exposed.add if exposed else self._exposed.discard)(port)

    def suppress(self, wanted: bool) -> None:
        """Drop SYNs that a proposal has made superfluous."""
        self._kernel.suppresses = self._kernel.suppresses and wanted

    def counters(self) -> dict[Reason, int]:
        """None are kept."""
        return {}

    def heartbeat(self) -> None:
        """Alive as long as the host is."""

    def cookies(self, ring: Any) -> None:
        """The engine makes them all."""

    def follow(self, engine: Engine, now: int) -> None:
        """There is no program that would answer for it."""

    def quiet(self) -> None:
        """Nothing is read from a ring in the background."""

    def reopen(self, *_: Any, **__: Any) -> None:
        """There is nothing to be left."""

    def close(self) -> None:
        """Nothing arrives any more."""
        self._closed = True
        virtual.unregister(self._number)
