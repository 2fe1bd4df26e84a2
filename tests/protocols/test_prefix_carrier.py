# SPDX-License-Identifier: Apache-2.0
"""A stream part of which travelled already: the reader's part comes first, the writer's part goes first."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.protocols.prefix_carrier import PrefixCarrier
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.protocols.support import memory_pair


@given(
    arrived=st.binary(max_size=50),
    owed=st.binary(max_size=50),
    more=st.binary(max_size=50),
    limit=st.integers(1, 60),
    room=st.integers(1, 20),
)
def test_any_prefix_room_and_limit_gives_the_whole_in_order_both_ways(
    arrived: bytes, owed: bytes, more: bytes, limit: int, room: int
) -> None:
    async def drain(carrier: object) -> bytes:
        got = b""
        while piece := await carrier.read(limit):  # type: ignore[attr-defined]
            assert len(piece) <= limit
            got += piece
        return got

    async def talk() -> None:
        one, other = memory_pair(room=room)
        carrier = PrefixCarrier(one, arrived, owed)

        async def send(end: object) -> None:
            await end.write(more)  # type: ignore[attr-defined]
            await end.finish()  # type: ignore[attr-defined]

        received, sent, *_ = await asyncio.gather(drain(carrier), drain(other), send(carrier), send(other))
        assert received == arrived + more
        assert sent == owed + more

    asyncio.run(talk())


def test_what_is_owed_leaves_without_anybody_writing_and_even_when_a_writer_gives_up() -> None:
    async def talk() -> None:
        one, other = memory_pair(room=4)
        carrier = PrefixCarrier(one, owed=b"owed bytes")
        writing = asyncio.ensure_future(carrier.write(b"never sent"))
        await asyncio.sleep(0)
        writing.cancel()
        got = b""
        while len(got) < 10:
            got += await other.read()
        assert got == b"owed bytes"
        await carrier.close()
        assert await other.read() == b""

    asyncio.run(talk())


def test_a_debt_that_cannot_be_paid_fails_every_write_and_no_close() -> None:
    async def talk() -> None:
        one, other = memory_pair()
        other.aborted = True
        carrier = PrefixCarrier(one, owed=b"owed")
        for _ in range(2):
            with pytest.raises(BrokenPipeError):
                await carrier.write(b"more")
        await carrier.close()
        assert one.closed

    asyncio.run(talk())


def test_an_abort_while_something_is_owed_tells_the_waiting_writer_and_does_not_cancel_it() -> None:
    async def talk() -> None:
        one, _ = memory_pair(room=1)
        carrier = PrefixCarrier(one, owed=b"owed")
        writing = asyncio.ensure_future(carrier.write(b"more"))
        for _ in range(5):
            await asyncio.sleep(0)
        carrier.abort()
        with pytest.raises(AccordError) as caught:
            await writing
        assert caught.value.reason is Reason.CLOSED
        assert one.aborted

    asyncio.run(talk())


def test_the_kernels_socket_is_handed_over_only_when_nothing_is_left_above_it() -> None:
    async def talk() -> None:
        one, other = memory_pair()
        with socket.socket() as below:
            one.kernel_socket = below
            carrier = PrefixCarrier(one, arrived=b"xy", owed=b"z")
            assert carrier.kernel_socket is None
            assert await other.read() == b"z"
            await asyncio.sleep(0)
            assert carrier.kernel_socket is None
            assert await carrier.read(1) == b"x"
            assert carrier.kernel_socket is None
            assert await carrier.read(1) == b"y"
            await carrier.write(b"")
            assert carrier.kernel_socket is below

    asyncio.run(talk())
