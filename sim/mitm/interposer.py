# SPDX-License-Identifier: Apache-2.0
"""The simulator's man in the middle between real hosts: he carries a lab's frames in the place of its link.

Frames pass as they are, but for UDP datagrams over IPv4 with the magic cookie: what becomes of those is his affair.
"""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from accord.lab.lab import Lab
from accord.lab.topology import TO_CLIENT, TO_SERVER
from sim.mitm import wire
from sim.mitm.edits import Edit, Record
from sim.mitm.middle import Leg, Middle

_ALL = 0x0003  # ETH_P_ALL
_OUTGOING = 4  # PACKET_OUTGOING
_ETHERNET, _IPV4, _UDP = 14, b"\x08\x00", 17
_TURN_SECONDS = 0.05


@dataclass(frozen=True)
class Way:
    """The headers of one direction of a UDP flow; ``side`` is where its frames go out."""

    side: int
    ethernet: bytes
    ip: bytes
    ports: bytes

    @property
    def back(self) -> Way:
        ethernet = self.ethernet[6:12] + self.ethernet[:6] + self.ethernet[12:]
        ip = self.ip[:12] + self.ip[16:20] + self.ip[12:16]
        return Way(1 - self.side, ethernet, ip, self.ports[2:] + self.ports[:2])

    def frame(self, payload: bytes) -> bytes:
        length = 8 + len(payload)
        ip = self.ip[:2] + (20 + length).to_bytes(2, "big") + self.ip[4:10] + b"\0\0" + self.ip[12:20]
        ip = ip[:10] + wire.checksum(ip).to_bytes(2, "big") + ip[12:]
        return self.ethernet + ip + self.ports + length.to_bytes(2, "big") + b"\0\0" + payload  # no UDP checksum


class Interposer:
    """Takes the place of a lab's own link, until ``close``."""

    def __init__(self, lab: Lab) -> None:
        lab._processes[-1].kill()
        lab._processes[-1].wait()
        # 0: towards the client, 1: towards the server.
        self._sockets = [lab.link.call(_packet_socket, name) for name in (TO_CLIENT, TO_SERVER)]
        self._lock = threading.Lock()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._ends = threading.Event()
        self.middle = self._middle(None, None)
        self._thread = threading.Thread(target=self._run, name="interposer")
        self._thread.start()

    def edit(self, edit: Edit | None, other: Record | None = None) -> Middle:
        """From now on this is what he does."""
        with self._lock:
            self._timers.clear()
            self.middle = self._middle(edit, other)
        return self.middle

    def inject(self, way: Way, payload: bytes) -> None:
        """A datagram of his own."""
        self._send(way.side, way.frame(payload))

    def close(self) -> None:
        """He is gone, and so is the way between the hosts."""
        self._ends.set()
        self._thread.join()
        for sock in self._sockets:
            sock.close()

    def _middle(self, edit: Edit | None, other: Record | None) -> Middle:
        def carry(leg: Leg, data: bytes) -> None:
            self._send(leg.path.side, leg.path.frame(data))

        def later(seconds: float, callback: Callable[[], None]) -> None:
            heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), callback))

        return Middle(edit, other, carry, lambda leg: Leg(1 - leg.source, leg.path.back), later)

    def _run(self) -> None:
        while not self._ends.is_set():
            ready, _, _ = select.select(self._sockets, [], [], _TURN_SECONDS)
            with self._lock:
                for sock in ready:
                    frame, address = sock.recvfrom(65536)
                    if address[2] != _OUTGOING:
                        self._pass(1 - self._sockets.index(sock), frame)
                while self._timers and self._timers[0][0] <= time.monotonic():
                    heapq.heappop(self._timers)[2]()

    def _pass(self, side: int, frame: bytes) -> None:
        ip = frame[_ETHERNET:]
        plain = frame[12:14] == _IPV4 and len(ip) >= 28 and ip[0] == 0x45 and ip[9] == _UDP
        payload = ip[28 : int.from_bytes(ip[2:4], "big")] if plain else b""
        if int.from_bytes(payload[4:8], "big") == wire.MAGIC and len(payload) >= wire.HEADER.size:
            way = Way(side, frame[:_ETHERNET], ip[:20], ip[20:24])
            self.middle.datagram(Leg(1 - side, way), payload)
        else:
            self._send(side, frame)

    def _send(self, side: int, frame: bytes) -> None:
        self._sockets[side].send(frame)


def _packet_socket(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    sock.bind((interface, 0))
    return sock
