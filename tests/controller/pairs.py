# SPDX-License-Identifier: Apache-2.0
"""Two controllers in one process, joined over loopback by a relay that may hold packets back.

::

    client ── UDP ── relay ── one socket, whoever the client is ── UDP ── server

Without privileges: the UDP back end, and QUIC where a stack is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from accord.controller.association import Association
from accord.controller.controller import Controller
from accord.controller.exposed import Exposed
from accord.controller.peers.memory import GAP_SECONDS, MISSES, Learnt, Peers
from accord.controller.settings.config import DaemonConfig, ExposeConfig
from accord.datapath import clock
from accord.protocols.authority import issue, make_ca
from accord.protocols.services import Security

NAME = "server.accord.test"
QUIC = {"fallback": "never", "prefer": ["quic"], "only": True}
MAGIC = slice(4, 8)
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; nothing here may hang."""

    async def bounded() -> T:
        async with asyncio.timeout(20):
            return await work

    return asyncio.run(bounded())


def believe_silent(peers: Peers, address: str, port: int, source: str) -> None:
    """As after so many connections from ``source`` in which the peer answered TCP and nothing else."""
    past = [clock.now()]
    taught = Peers(lambda: past[0])
    for ago in range(MISSES, 0, -1):
        past[0] = clock.now() - ago * GAP_SECONDS
        taught.learn(address, port, Learnt.SILENT, source=source)
    for key, entry in taught.entries():
        peers.restore(key, entry)


def step_of(packet: bytes) -> int | None:
    """The step of a negotiation packet; None for an in-band datagram, whose first byte is not one of 4..15."""
    return packet[1] if 4 <= packet[0] <= 15 else None


@dataclass
class Relay:
    """Every client is one address and port to the server. ``pass_on`` decides what goes on: by sender and step."""

    server: tuple[str, int]
    pass_on: Callable[[str, int | None], bool] = lambda sender, step: True
    clients: set[tuple[str, int]] = field(default_factory=set)
    held: list[bytes] = field(default_factory=list)
    seen: list[bytes] = field(default_factory=list)
    """All that clients have sent."""

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.front, self.back = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for sock in (self.front, self.back):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        loop.add_reader(self.front, self._to_server)
        loop.add_reader(self.back, self._to_clients)
        self.port = int(self.front.getsockname()[1])

    def _to_server(self) -> None:
        packet, client = self.front.recvfrom(4096)
        self.clients.add(client)
        self.seen.append(packet)
        if self.pass_on("client", step_of(packet)):
            self.back.sendto(packet, self.server)
        else:
            self.held.append(packet)

    def _to_clients(self) -> None:
        try:
            packet = self.back.recv(4096)
        except ConnectionRefusedError:
            return
        if self.pass_on("server", step_of(packet)):
            for client in self.clients:
                self.front.sendto(packet, client)

    def release(self) -> None:
        """What was held back of the clients' packets goes on now."""
        while self.held:
            self.back.sendto(self.held.pop(0), self.server)

    def close(self) -> None:
        for sock in (self.front, self.back):
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()


@dataclass
class Pair:
    """Both hosts. ``accepted``: what the server's exposed port delivered."""

    client: Controller
    server: Controller
    exposed: Exposed
    accepted: asyncio.Queue[Association]
    relay: Relay
    security: Security

    async def connect(self) -> Association:
        """Through the relay."""
        return await self.client.connect("127.0.0.1", self.relay.port, overrides=QUIC, security=self.security)

    async def accept(self) -> Association:
        """The next one that the server delivers."""
        async with asyncio.timeout(5):
            return await self.accepted.get()


def free_port() -> int:
    """A UDP port that nobody has at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def pair(directory: Path, to: tuple[str, int] | None = None) -> AsyncIterator[Pair]:
    """Both hosts and the relay, the server's port exposed: to a service, or to ``accepted``."""
    ca = make_ca(directory)
    files = issue(directory, [NAME])
    config = DaemonConfig(back_end="udp")
    client, server = Controller(config), Controller(config)
    accepted: asyncio.Queue[Association] = asyncio.Queue(64)
    port = free_port()
    exposed = server.expose(
        ExposeConfig(port, to, certificate=files.certificate, private_key=files.private_key, plain=False),
        None if to else accepted,
    )
    relay = Relay(("127.0.0.1", port))
    await relay.start()
    try:
        security = Security(server_name=NAME, ca_file=ca.certificate)
        yield Pair(client, server, exposed, accepted, relay, security)
    finally:
        client.close()
        server.close()
        relay.close()
