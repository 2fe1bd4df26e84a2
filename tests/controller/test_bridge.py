# SPDX-License-Identifier: Apache-2.0
"""Two streams joined: bytes, half closes and errors go through, in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from accord.controller.bridge import bridge
from accord.datapath.stream import SocketCarrier


async def joined() -> tuple[SocketCarrier, SocketCarrier, asyncio.Task[object]]:
    """Two ends of a bridge that runs in between."""
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    task: asyncio.Task[object] = asyncio.create_task(bridge(SocketCarrier(b), SocketCarrier(c)))
    return SocketCarrier(a), SocketCarrier(d), task


async def read_all(carrier: SocketCarrier) -> bytes:
    pieces = []
    while piece := await carrier.read():
        pieces.append(piece)
    return b"".join(pieces)


def test_both_directions_carry_and_each_finishes_by_itself() -> None:
    async def work() -> None:
        near, far, task = await joined()
        await near.write(b"a question")
        await near.finish()
        assert await read_all(far) == b"a question"
        # The other direction is still open, as it is for a request whose sender half-closed.
        answer = bytes(range(256)) * 4000
        writing = asyncio.create_task(far.write(answer))
        assert (await near.read(1))[:1] == b"\x00"
        reading = asyncio.create_task(read_all(near))
        await writing
        await far.finish()
        assert b"\x00" + await reading == answer
        assert await task is None

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_reset_of_one_end_ends_the_other_and_is_told() -> None:
    async def work() -> None:
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        near, far = socket.socketpair()
        task = asyncio.create_task(bridge(SocketCarrier(accepted), SocketCarrier(near)))
        SocketCarrier(client).abort()
        assert isinstance(await task, ConnectionResetError)
        assert far.recv(1) == b"", "the other end sees the end"
        far.close()
        server.close()

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_bridge_that_is_cancelled_leaves_no_socket_open() -> None:
    async def work() -> None:
        near, far, task = await joined()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for end in (near, far):
            with contextlib.suppress(ConnectionError):
                assert await end.read() == b""

    asyncio.run(asyncio.wait_for(work(), 20))
