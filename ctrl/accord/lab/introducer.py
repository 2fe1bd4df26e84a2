# SPDX-License-Identifier: Apache-2.0
"""A rendezvous server for tests and examples: tells two UDP sockets each other's address as it sees them.

Accord has none of its own: an application brings the one that it has. This one is for two that name the same meeting.
A request is the meeting's name; the answer, once there are two, is a JSON object: ``{"you": [address, port], "peer":
[address, port]}``. Both are single datagrams; whoever asks repeats until it has the answer. Nobody is authenticated.

    python -m accord.lab.introducer serve ADDRESS PORT
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections import OrderedDict

_NAME_BYTES = 200
_MEETINGS = 1024
_AGAIN_SECONDS = 0.25

Address = tuple[str, int]


class Introducer:
    """Who has asked for which meeting. Bounded; the meeting that was asked for least recently goes first."""

    def __init__(self) -> None:
        self._meetings: OrderedDict[bytes, list[Address]] = OrderedDict()

    def ask(self, name: bytes, who: Address) -> list[tuple[Address, bytes]]:
        """A request: the datagrams that go out in return, each with its destination."""
        if not 0 < len(name) <= _NAME_BYTES:
            return []
        asked = self._meetings.setdefault(name, [])
        self._meetings.move_to_end(name)
        if len(self._meetings) > _MEETINGS:
            self._meetings.popitem(last=False)
        if who not in asked:
            asked[:] = [*asked[-1:], who]
        if len(asked) < 2:
            return []
        one, other = asked
        return [(to, json.dumps({"you": to, "peer": peer}).encode()) for to, peer in ((one, other), (other, one))]


def serve(address: str, port: int) -> None:
    """Until the process ends."""
    introducer = Introducer()
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, port))
        print(f"introducing on {address} port {port}", flush=True)
        while True:
            name, who = sock.recvfrom(_NAME_BYTES + 1)
            for to, answer in introducer.ask(name, (who[0], who[1])):
                sock.sendto(answer, to)


def introduce(sock: socket.socket, server: Address, name: str, seconds: float = 30.0) -> tuple[Address, Address]:
    """Ask from a bound socket: this side's address as the server sees it, and the peer's.

    Raises ``TimeoutError`` when nobody else asked for the meeting in time.
    """
    deadline = time.monotonic() + seconds
    sock.settimeout(_AGAIN_SECONDS)
    while time.monotonic() < deadline:
        sock.sendto(name.encode(), server)
        try:
            answer, who = sock.recvfrom(1500)
        except TimeoutError:
            continue
        if who[:2] == server:
            found = json.loads(answer)
            return (found["you"][0], found["you"][1]), (found["peer"][0], found["peer"][1])
    raise TimeoutError(f"nobody else came to {name}")


if __name__ == "__main__":
    serve(sys.argv[2], int(sys.argv[3]))
