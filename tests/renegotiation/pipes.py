# SPDX-License-Identifier: Apache-2.0
"""Stacks in memory: two ends joined by pipes that hold little, deliver in pieces, and can break at any byte."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field

from accord.controller.renegotiation.identity import Identity
from accord.controller.renegotiation.lasting import LastingCarrier
from accord.negotiation.interface import Role
from accord.wire.constants import Reason
from accord.wire.errors import error

ROOM = 7
"""Bytes that a pipe holds: a writer waits for its reader nearly always."""


@dataclass
class Pipe:
    """One direction."""

    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    broken: bool = False
    carried: int = 0
    breaks_after: int | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def check(self) -> None:
        if self.broken:
            raise error(Reason.STREAM_BROKEN, "the pipe broke")


class End:
    """A ``Carrier``."""

    def __init__(self, incoming: Pipe, outgoing: Pipe, piece: int) -> None:
        self.incoming, self.outgoing, self.piece = incoming, outgoing, piece
        self.closed = False

    @property
    def kernel_socket(self) -> socket.socket | None:
        return None

    async def read(self, limit: int = 65536) -> bytes:
        await asyncio.sleep(0)
        while True:
            if self.incoming.data:
                taken = bytes(self.incoming.data[: min(limit, self.piece)])
                del self.incoming.data[: len(taken)]
                self.incoming.tell()
                return taken
            if self.incoming.ended:
                return b""
            self.incoming.check()
            await self.incoming.changed.wait()

    async def write(self, data: bytes) -> None:
        pipe = self.outgoing
        if pipe.ended:
            raise error(Reason.CLOSED, "write after finish")
        for at in range(len(data)):
            while len(pipe.data) >= ROOM and not pipe.broken:
                await pipe.changed.wait()
            if pipe.breaks_after is not None and pipe.carried >= pipe.breaks_after:
                self.abort()
            pipe.check()
            pipe.data += data[at : at + 1]
            pipe.carried += 1
            pipe.tell()

    async def finish(self) -> None:
        if not self.outgoing.broken:
            self.outgoing.ended = True
            self.outgoing.tell()

    async def close(self) -> None:
        await self.finish()
        self.closed = True

    def abort(self) -> None:
        self.closed = True
        for pipe in (self.incoming, self.outgoing):
            if not (pipe.ended and pipe is self.incoming):
                pipe.broken = True
            pipe.tell()


def joined(piece: int = 3) -> tuple[End, End]:
    """The initiator's end and the responder's."""
    there, back = Pipe(), Pipe()
    return End(back, there, piece), End(there, back, piece)


def identity(number: int) -> Identity:
    """Of the stack of that number."""
    return Identity.of((), number.to_bytes(32, "big"))


def association(piece: int = 3) -> tuple[LastingCarrier, LastingCarrier]:
    """Both ends of an association on its first stack."""
    initiator, responder = joined(piece)
    return (
        LastingCarrier(initiator, Role.INITIATOR, lambda: identity(1)),
        LastingCarrier(responder, Role.RESPONDER, lambda: identity(1)),
    )
