# SPDX-License-Identifier: Apache-2.0
"""An exposed port's adopter, connections on loopback that come to it, and what they begin with."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

from accord.controller.adoption.adopting import Adopter, Candidate, Fate, Place, Places
from accord.controller.adoption.table import Result
from accord.wire.constants import Reason, TcpOption
from accord.wire.tcp_option import encode
from tests.controller.pairs import run
from tests.controller.test_parallel import connected

ID = bytes(range(12))
OTHER = bytes(range(1, 13))
HERE = "192.0.2.1"
PREFACE = encode(TcpOption.EXID_ADOPT, ID)
RECORD = b"\x17\x03\x03\x00\x01x"
HELLO = b"\x16\x03\x01\x00\x01x"
PROPOSED = b"\x16\x03\x01\x01\x00" + bytes(range(256))
"""The ClientHello of a proposal."""


class Port:
    """An adopter, and the connections that come to it."""

    def __init__(self) -> None:
        self.results: Counter[Result] = Counter()
        self.adopter = Adopter(self.results)
        self.stopped: list[Reason] = []
        self._open = contextlib.ExitStack()

    def connection(self, transaction: bytes | None = ID, address: str = HERE) -> tuple[Candidate, socket.socket]:
        """One that was accepted; the peer's end."""
        ours, theirs = connected()
        ours.setblocking(False)
        for each in (ours, theirs):
            self._open.callback(each.close)
        return self.adopter.candidate(ours, address, transaction), theirs

    def places(self, transaction: bytes = ID) -> Places:
        return Places(self.adopter, transaction, HERE, self.stopped.append)

    def expect(self, transaction: bytes = ID) -> Place:
        return self.places(transaction).expect()

    def close(self) -> None:
        assert len(self.adopter._registry) == 0, "something is left"
        assert self.adopter._places == {}
        self._open.close()


def ports(test: Callable[[Port], Awaitable[None]]) -> Callable[[], None]:
    """Run a test with a port, on a loop."""

    async def main() -> None:
        port = Port()
        await test(port)
        port.close()

    def wrapped() -> None:
        run(main())

    wrapped.__name__ = test.__name__
    return wrapped


async def reset(theirs: socket.socket) -> bool:
    theirs.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_recv(theirs, 1)
    except ConnectionResetError:
        return True
    return False


async def plain(candidate: Candidate, expected: bytes) -> None:
    """It is the caller's, and nothing of it was read."""
    assert await candidate.fate is Fate.PLAIN
    assert candidate.connection.recv(100) == expected
