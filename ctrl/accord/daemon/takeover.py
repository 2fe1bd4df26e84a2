# SPDX-License-Identifier: Apache-2.0
"""Live upgrade over the control socket: a new daemon takes over from the one that runs (docs/OPERATIONS.md).

new                                   old
 |-- {"op": "takeover"} ------------->|  leaves the interface, stops reading what it hands over
 |<- {"ok", "pid", "ports"} + control socket, memory of peers, slots of answers of which nothing is kept
 |<- one message a port + its certificate, key and sockets, + the connection of the program that exposed it
 |-- {"op": "taken"} ---------------->|  until here the old one can take everything back, and does if this is late
 |<- {"op": "drained"} ---------------|  no negotiation is in flight there: now the new one attaches to the interface
 |                                    |  ends with its last association
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accord.controller.adoption.adopting import LENT
from accord.controller.control import Channel, call, raise_failure
from accord.controller.controller import Controller
from accord.controller.handover import Handover
from accord.controller.held import hold, opened
from accord.controller.load.keeper import CookieKeeper
from accord.controller.peers.keeper import PeersKeeper
from accord.controller.settings.config import ExposeConfig
from accord.controller.settings.policy import Secure
from accord.daemon.operations import Operations
from accord.datapath import clock, unkept
from accord.datapath.engine import Engine
from accord.wire.constants import Limit, Reason
from accord.wire.errors import AccordError, error

log = logging.getLogger("accord.takeover")

DRAIN_SECONDS = 3600.0
"""How long the old daemon keeps its associations, unless told otherwise."""
_TAKEN_SECONDS = 5.0
"""For the new daemon to take what it is handed. Meanwhile packets wait in their sockets."""
_GIVEN_SECONDS = 15.0
"""For the old daemon to hand over: it waits for a good moment, then makes a socket for each peer in flight."""
_DESCRIPTORS = LENT + 16
"""Of one port: what is lent, certificate and key, two sockets for each family, a program's connection, and more."""
_IN_FLIGHT_SECONDS = 2 * Limit.MAX_LIFETIME_MS / 1000 + 5.0
"""Longer than a negotiation lives, and one that a peer begins from the same port meanwhile."""
_POLL_SECONDS = 0.1


# ---- the new daemon ----


@dataclass(slots=True)
class Taken:
    """What an exposed port comes as."""

    config: ExposeConfig
    sockets: list[socket.socket]
    program: Channel | None
    """The connection of the program that exposed it; None when the old one's configuration did."""
    lent: list[tuple[bytes | None, socket.socket]]
    """Connections that nobody negotiates about yet, and the transaction that each has named."""

    def close(self) -> None:
        """Nobody wants it."""
        for sock in (*self.sockets, *(sock for _, sock in self.lent)):
            sock.close()
        if self.program is not None:
            self.program.close()


def running(control: Path) -> Channel | None:
    """A connection to the daemon at this control socket; None when there is none. Raises ``AccordError``."""
    try:
        return call(control)
    except AccordError as failure:
        if failure.reason is Reason.NO_DAEMON:
            return None
        raise


@dataclass(slots=True)
class Predecessor:
    """The daemon that gives way to this one."""

    channel: Channel
    pid: int
    listener: socket.socket
    peers: int | None = None
    """An open file: its memory of peers. None: it has none to give."""
    cookies: str | None = None
    """The keys of its cookies; None: an earlier version's, which has none."""
    slots: bytes = b""
    """As ``unkept.image`` gives them; empty: an earlier version's."""
    ports: list[Taken] = field(default_factory=list)

    @classmethod
    async def ask(cls, channel: Channel, drain_seconds: float) -> Predecessor:
        """Ask the daemon at the other end to give way.

        Raises ``AccordError`` when it does not, or not in a way that we understand.
        """
        try:
            await channel.send({"op": "takeover", "drain_seconds": drain_seconds})
            message, fds = await _receive(channel)
            peers = fds[1] if len(fds) > 1 else None
            slots = _content(fds[2]) if len(fds) > 2 else b""
            listener = socket.socket(fileno=fds[0])
            found = cls(channel, int(message.get("pid", 0)), listener, peers, message.get("cookies"), slots)
            for _ in range(int(message.get("ports", 0))):
                found.ports.append(_taken(*await _receive(channel)))
        except BaseException:
            channel.close()
            raise
        return found

    def recall(self, keeper: PeersKeeper, cookies: CookieKeeper) -> None:
        """Have the memory and the keys that were handed on, else those of the files."""
        if self.cookies is None:
            cookies.load()
        else:
            cookies.take(self.cookies)
        if self.peers is None:
            keeper.load()
            return
        try:
            keeper.take(self.peers, "what the old daemon remembers")
        finally:
            os.close(self.peers)
            self.peers = None

    def inherit(self, engine: Engine) -> None:
        """Have the slots: before a packet is read, or a connection asked whose it is."""
        count = unkept.restore(engine, clock.now_us(), self.slots)
        self.slots = b""
        if count:
            log.info("%d answers of the old daemon wait for their commits", count)

    async def taken(self) -> None:
        """Everything is ours from here. Raises ``ConnectionError`` when the other side has taken it back."""
        await self.channel.send({"op": "taken"})

    async def drained(self) -> None:
        """Returns when no negotiation is in flight there any more, or nobody is there."""
        with contextlib.suppress(AccordError):
            received = await self.channel.receive()
            for fd in received[1] if received is not None else ():
                os.close(fd)

    def close(self) -> None:
        """Give back what was not adopted; before ``taken`` the old daemon goes on."""
        self.channel.close()
        self.listener.close()
        if self.peers is not None:
            os.close(self.peers)
            self.peers = None
        for port in self.ports:
            port.close()
        self.ports.clear()


def _write(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(data)


def _content(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return file.read()


async def _receive(channel: Channel) -> tuple[dict[str, Any], list[int]]:
    try:
        received = await asyncio.wait_for(channel.receive(_DESCRIPTORS), _GIVEN_SECONDS)
    except TimeoutError as late:
        raise error(
            Reason.NO_DAEMON, "the running daemon does not answer", "end it (kill -9), then start without --takeover"
        ) from late
    if received is None:
        raise error(Reason.NO_DAEMON, "the running daemon ended while it gave way", "start again")
    raise_failure(received[0])
    return received


def _taken(message: Mapping[str, Any], fds: list[int]) -> Taken:
    with contextlib.ExitStack() as files:
        for fd in fds[:2]:
            files.callback(os.close, fd)
        certificate, private_key = hold(fds[0], message["certificate"]), hold(fds[1], message["private_key"])
    sockets = [socket.socket(fileno=fd) for fd in fds[2:]]
    for sock in sockets:
        sock.setblocking(False)
    program = Channel(sockets.pop()) if message["program"] else None
    named = message.get("lent", [])  # a daemon of an earlier version lends none
    own = len(sockets) - len(named)
    lent = [(bytes.fromhex(key) or None, sock) for key, sock in zip(named, sockets[own:], strict=True)]
    to = message["to"]
    to_listener = bool(message.get("to_listener", False))  # then nobody is shown a certificate
    config = ExposeConfig(
        listen=message["port"],
        to=None if to is None else (to[0], to[1]),
        certificate=None if to_listener else certificate,
        private_key=None if to_listener else private_key,
        early_limit=message["early_limit"],
        secure=None if message["secure"] is None else Secure(message["secure"]),
        plain=message["plain"],
        messages=bool(message.get("messages", False)),
        share_udp=bool(message.get("share_udp", False)),
        to_listener=to_listener,
    )
    return Taken(config, sockets[:own], program, lent)


# ---- the old daemon ----


class Succession:
    """The old daemon's side of one take-over."""

    def __init__(
        self,
        controller: Controller,
        operations: Operations,
        listener: socket.socket,
        keeper: PeersKeeper,
        cookies: CookieKeeper,
    ) -> None:
        self._controller = controller
        self._operations = operations
        self._listener = listener
        self._keeper = keeper
        self._cookies = cookies
        self._handover = Handover(controller)

    async def give(self, channel: Channel) -> None:
        """Hand everything over. When this raises, the old daemon has it all again, and goes on."""
        memory, slots = os.memfd_create("peers"), os.memfd_create("slots")
        try:
            os.write(memory, self._keeper.text())
            await self._handover.settle()
            offers = self._handover.freeze()
            message = {"ok": True, "pid": os.getpid(), "ports": len(offers), "cookies": self._cookies.text()}
            _write(slots, self._handover.slots())
            await channel.send(message, [self._listener.fileno(), memory, slots])
            for offer in offers:
                program = self._operations.program(offer.exposed)
                security = offer.exposed.security
                sockets = offer.sockets if program is None else [*offer.sockets, program.sock]
                message = {"ok": True, **offer.describe(), "program": program is not None}
                with opened([security.certificate, security.private_key]) as files:
                    await channel.send(message, [*files, *(sock.fileno() for sock in sockets)])
            answer = await asyncio.wait_for(channel.receive(), _TAKEN_SECONDS)
            if answer is None or answer[0].get("op") != "taken":
                raise ConnectionAbortedError("the new daemon ended before it had taken over")
        except BaseException:
            self._handover.resume()
            raise
        finally:
            os.close(memory)
            os.close(slots)
        self._keeper.release()
        self._cookies.release()
        self._handover.commit()
        self._operations.succeeded()

    async def drain(self, channel: Channel, seconds: float, awaited: Callable[[], bool]) -> None:
        """Until nothing is left to do here: negotiations first, then associations, the latter for so long at most.

        ``awaited``: somebody may yet ask for one.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _IN_FLIGHT_SECONDS
        while self._controller.endpoint.in_flight and loop.time() < end:
            await asyncio.sleep(_POLL_SECONDS)
            self._handover.prune()
        with contextlib.suppress(OSError):
            await channel.send({"op": "drained"})
        end = loop.time() + seconds
        while (awaited() or self._operations.busy or self._controller.busy) and loop.time() < end:
            await asyncio.sleep(_POLL_SECONDS)
            self._handover.prune()
