# SPDX-License-Identifier: Apache-2.0
"""SocketCarrier: any chunking gives the same bytes, back pressure is the kernel's, and every end is clean."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.datapath.stream import SocketCarrier
from accord.wire.constants import Reason
from accord.wire.errors import AccordError


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other


def run(body: Callable[[SocketCarrier, SocketCarrier], Coroutine[Any, Any, None]]) -> None:
    """``body`` with both ends, which are aborted afterwards; leaked sockets are failures."""

    async def main() -> None:
        one, other = (SocketCarrier(end) for end in tcp_pair())
        try:
            await asyncio.wait_for(body(one, other), 20)
        finally:
            one.abort()
            other.abort()

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        asyncio.run(main())
        gc.collect()


async def read_all(carrier: SocketCarrier, limit: int = 65536) -> bytes:
    parts = []
    while part := await carrier.read(limit):
        assert len(part) <= limit
        parts.append(part)
    return b"".join(parts)


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=5000), max_size=10), st.integers(1, 7000))
def test_any_chunking_of_writes_and_reads_gives_the_same_bytes(writes: list[bytes], limit: int) -> None:
    async def body(one: SocketCarrier, other: SocketCarrier) -> None:
        async def send() -> None:
            for data in writes:
                await one.write(data)
            await one.finish()

        got, _ = await asyncio.gather(read_all(other, limit), send())
        assert got == b"".join(writes)

    run(body)


def test_a_write_waits_while_the_peer_does_not_read() -> None:
    async def body(one: SocketCarrier, other: SocketCarrier) -> None:
        data = bytes(64 << 20)
        writing = asyncio.create_task(one.write(data))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not writing.done()
        received = 0
        while received < len(data):
            received += len(await other.read(1 << 20))
        await writing

    run(body)


def test_finishing_ends_one_direction_only() -> None:
    async def body(one: SocketCarrier, other: SocketCarrier) -> None:
        await one.write(b"request")
        await one.finish()
        await one.finish()
        assert await read_all(other) == b"request"
        await other.write(b"response")
        await other.close()
        assert await read_all(one) == b"response"

    run(body)


def test_closing_with_unread_data_loses_nothing_that_was_written() -> None:
    async def body(one: SocketCarrier, other: SocketCarrier) -> None:
        await other.write(b"never read by one" * 1000)
        await one.write(b"goodbye")
        await asyncio.sleep(0.01)
        await one.close()
        await one.close()
        assert await read_all(other) == b"goodbye"

    run(body)


def test_an_abort_is_a_connection_error_at_the_peer() -> None:
    async def body(one: SocketCarrier, other: SocketCarrier) -> None:
        await one.write(b"x")
        one.abort()
        one.abort()
        with pytest.raises(ConnectionError):
            await read_all(other)

    run(body)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_closing_wakes_whoever_waits_to_read_or_write(end: str) -> None:
    async def body(one: SocketCarrier, other: SocketCarrier) -> None:
        reading = asyncio.create_task(one.read())
        writing = asyncio.create_task(one.write(bytes(64 << 20)))
        await asyncio.sleep(0.01)
        if end == "close":
            await one.close()
        else:
            one.abort()
        for waiting in (reading, writing):
            with pytest.raises((AccordError, ConnectionError)):
                await waiting

    run(body)


def test_a_cancelled_read_takes_nothing_with_it() -> None:
    async def body(one: SocketCarrier, other: SocketCarrier) -> None:
        got = b""
        for number in range(200):
            reading = asyncio.create_task(one.read(1))
            for turn in range(4):
                if turn == number % 4:
                    await other.write(bytes((number,)))
                await asyncio.sleep(0)
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                got += await reading
        while len(got) < 200:
            got += await one.read()
        assert got == bytes(range(200))

    run(body)


def test_using_a_closed_stream_is_named() -> None:
    async def body(one: SocketCarrier, other: SocketCarrier) -> None:
        assert one.kernel_socket is not None
        await one.close()
        assert one.kernel_socket is None
        for use in (one.read(), one.write(b"x")):
            with pytest.raises(AccordError) as caught:
                await use
            assert caught.value.reason is Reason.CLOSED

    run(body)


def test_two_readers_of_one_stream_are_a_mistake() -> None:
    async def body(one: SocketCarrier, other: SocketCarrier) -> None:
        first = asyncio.create_task(one.read())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="two tasks read"):
            await one.read()
        await other.write(b"for the first")
        assert await first == b"for the first"

    run(body)


def test_a_detached_socket_goes_on_where_the_stream_was() -> None:
    async def body(one: SocketCarrier, other: SocketCarrier) -> None:
        await other.write(b"abcdef")
        assert await one.read(3) == b"abc"
        kernel = one.detach()
        kernel.settimeout(5)
        assert kernel.recv(10) == b"def"
        kernel.close()
        assert await other.read() == b""

    run(body)


def test_a_closed_descriptors_number_may_be_used_again_at_once() -> None:
    """A stale reader in the event loop would steal the events of whoever gets the number next."""

    async def main() -> None:
        for _ in range(20):
            one, other = (SocketCarrier(end) for end in tcp_pair())
            waiting = asyncio.create_task(one.read())
            await asyncio.sleep(0)
            one.abort()
            other.abort()
            with pytest.raises((AccordError, ConnectionError)):
                await waiting
            third, fourth = (SocketCarrier(end) for end in tcp_pair())
            reading = asyncio.create_task(third.read())
            await asyncio.sleep(0)
            await fourth.write(b"mine")
            assert await asyncio.wait_for(reading, 5) == b"mine"
            third.abort()
            fourth.abort()

    asyncio.run(main())


def test_a_busy_stream_lets_other_tasks_run() -> None:
    async def body(one: SocketCarrier, other: SocketCarrier) -> None:
        await other.write(bytes(1000))
        await asyncio.sleep(0.01)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        for _ in range(1000):
            await one.read(1)
        counting.cancel()
        assert turns >= 50

    run(body)


def test_a_reset_is_reported_to_the_writer() -> None:
    async def body(one: SocketCarrier, other: SocketCarrier) -> None:
        kernel = other.detach()
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        kernel.close()
        with pytest.raises(ConnectionError):
            await one.write(bytes(64 << 20))

    run(body)
