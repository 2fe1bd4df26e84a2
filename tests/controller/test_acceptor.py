# SPDX-License-Identifier: Apache-2.0
"""A listener changes hands: each connection is served by one side or waits for the other, whenever that happens."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from accord.controller.acceptor import Acceptor
from tests.controller.pairs import run


def listening() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def rest(listener: socket.socket) -> list[socket.socket]:
    """What nobody has accepted."""
    left = []
    while True:
        try:
            left.append(listener.accept()[0])
        except BlockingIOError:
            return left


@pytest.mark.parametrize("turns", range(6))
def test_no_connection_is_lost_whichever_turn_of_the_loop_it_is_closed_in(turns: int) -> None:
    async def main() -> None:
        taken: list[socket.socket] = []
        with listening() as listener:
            acceptor = Acceptor(listener, taken.append)
            callers = [socket.create_connection(listener.getsockname()) for _ in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
            acceptor.close()
            acceptor.close()
            before = len(taken)
            await asyncio.sleep(0.01)
            assert len(taken) == before, "it accepts no more"
            served = [sock.getpeername() for sock in taken + rest(listener)]
            assert sorted(served) == sorted(caller.getsockname() for caller in callers)
            for sock in callers + taken:
                sock.close()

    run(main())


class Exhausted(socket.socket):
    """A listener of a process that has no descriptors left, for some time."""

    def __init__(self, *failures: int) -> None:
        super().__init__()
        self.failures = list(failures)
        self.bind(("127.0.0.1", 0))
        self.listen()
        self.setblocking(False)

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            raise OSError(self.failures.pop(0), "not now")
        return super().accept()


def test_a_process_without_descriptors_accepts_again_when_it_has_some() -> None:
    async def main() -> None:
        taken: asyncio.Queue[socket.socket] = asyncio.Queue()
        with Exhausted(errno.EMFILE, errno.ECONNABORTED, errno.ENOMEM) as listener:
            acceptor = Acceptor(listener, taken.put_nowait)
            with socket.create_connection(listener.getsockname()), await taken.get() as client:
                assert not client.getblocking()
            assert not listener.failures
            acceptor.close()

    run(main())


def test_closed_while_it_waits_for_descriptors_it_stays_closed() -> None:
    async def main() -> None:
        taken: list[socket.socket] = []
        with Exhausted(errno.EMFILE) as listener:
            acceptor = Acceptor(listener, taken.append)
            with socket.create_connection(listener.getsockname()):
                while listener.failures:
                    await asyncio.sleep(0.001)
                acceptor.close()
                await asyncio.sleep(0.2)
                assert not taken
                assert len(rest(listener)) == 1

    run(main())


def test_what_waits_in_the_queue_can_be_taken_in_one_turn() -> None:
    async def main() -> None:
        taken: list[socket.socket] = []
        with listening() as listener:
            acceptor = Acceptor(listener, taken.append)
            callers = [socket.create_connection(listener.getsockname()) for _ in range(100)]
            acceptor.empty()
            assert len(taken) == 100
            acceptor.close()
            for sock in callers + taken:
                sock.close()

    run(main())
