# SPDX-License-Identifier: Apache-2.0
"""TCP without a SYN is believed to work when bytes have come through it, and to stall when the first ones never did."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from accord.controller.peers.memory import Learnt
from accord.controller.race.proving import Proving
from accord.datapath.stream import SocketCarrier


class Broken(SocketCarrier):
    """Breaks off as told instead of being read."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        super().__init__(sock)
        self._number = number

    async def read(self, limit: int = 65536) -> bytes:
        raise OSError(self._number, "broken")


def test_the_first_bytes_prove_it_and_later_ones_say_nothing_new() -> None:
    async def work() -> list[Learnt]:
        ours, theirs = socket.socketpair()
        learnt: list[Learnt] = []
        stream, peer = Proving(SocketCarrier(ours), learnt.append), SocketCarrier(theirs)
        await stream.write(b"ask")
        assert await peer.read() == b"ask"
        assert learnt == [], "what was written may be in a buffer"
        for _ in range(3):
            await peer.write(b"answer")
            assert await stream.read() == b"answer"
        await stream.close()
        peer.abort()
        return learnt

    assert asyncio.run(work()) == [Learnt.NO_SYN_WORKED]


def test_the_end_of_a_stream_that_brought_nothing_says_nothing() -> None:
    async def work() -> list[Learnt]:
        ours, theirs = socket.socketpair()
        learnt: list[Learnt] = []
        stream = Proving(SocketCarrier(ours), learnt.append)
        theirs.close()
        assert await stream.read() == b""
        stream.abort()
        return learnt

    assert asyncio.run(work()) == []


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.ETIMEDOUT, [Learnt.NO_SYN_STALLED]), (errno.ECONNRESET, [Learnt.NO_SYN_STALLED]), (errno.EIO, [])],
)
def test_a_first_read_that_breaks_off_is_a_stall_if_the_path_may_be_to_blame(number: int, told: list[Learnt]) -> None:
    async def work() -> list[Learnt]:
        ours, theirs = socket.socketpair()
        learnt: list[Learnt] = []
        stream = Proving(Broken(ours, number), learnt.append)
        with pytest.raises(OSError, match="broken"):
            await stream.read()
        stream.abort()
        theirs.close()
        return learnt

    assert asyncio.run(work()) == told
