# SPDX-License-Identifier: Apache-2.0
"""A program that listens through the daemon, however it goes: nothing of it stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from accord.controller.control import Channel
from accord.controller.held import opened
from accord.daemon.operations import Operations
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.controller.pairs import Pair, free_port, pair, run


@contextlib.asynccontextmanager
async def listening(directory: Path) -> AsyncIterator[tuple[Pair, Channel, asyncio.Task[None], int]]:
    """A program's end of a control connection that listens, and the daemon's task that serves it."""
    async with pair(directory) as both:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        daemon, program = Channel(ours), Channel(theirs)
        port = free_port()
        request = {
            "op": "listen",
            "port": port,
            "certificate": str(directory / "server.pem"),
            "private_key": str(directory / "server.key"),
            "plain": False,
        }
        with opened([directory / "server.pem", directory / "server.key"]) as files:
            passed = [os.dup(file) for file in files]  # as the kernel does
        serving = asyncio.create_task(Operations(both.server).handle(request, daemon, passed))
        answer = await program.receive()
        assert answer is not None
        assert answer[0]["ok"], answer
        both.relay.server = ("127.0.0.1", port)
        yield both, program, serving, port
        program.close()
        daemon.close()


def leave(program: Channel, serving: asyncio.Task[None]) -> None:
    """The program ends."""
    program.close()


def stop(program: Channel, serving: asyncio.Task[None]) -> None:
    """The daemon ends."""
    serving.cancel()


def talk(program: Channel, serving: asyncio.Task[None]) -> None:
    """The program says something on a connection that listens."""
    program.sock.send(b'{"op":"status"}')


@pytest.mark.parametrize(
    ("how", "ends_with"), [(leave, ConnectionResetError), (stop, asyncio.CancelledError), (talk, AccordError)]
)
def test_the_end_of_a_listening_program_leaves_neither_task_nor_port(
    tmp_path: Path, how: Callable[[Channel, asyncio.Task[None]], None], ends_with: type[BaseException]
) -> None:
    async def main() -> None:
        async with listening(tmp_path) as (both, program, serving, port):
            bystanders = asyncio.all_tasks() - {serving}
            await asyncio.sleep(0.02)
            how(program, serving)
            with pytest.raises(ends_with) as caught:
                await serving
            if isinstance(caught.value, AccordError):
                assert caught.value.reason is Reason.BAD_CONFIG
            assert port not in both.server.exposed
            assert {task for task in asyncio.all_tasks() if not task.done()} <= bystanders

    run(main())


def test_a_descriptor_that_nobody_asked_for_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as (_, program, serving, _):
            reading, writing = os.pipe()
            socket.send_fds(program.sock, [b"{}"], [reading])
            os.close(reading)
            with pytest.raises(AccordError):
                await serving
            with pytest.raises(BrokenPipeError):
                os.write(writing, b"is anybody there?")
            os.close(writing)

    run(main())


def test_what_came_up_and_was_not_taken_is_broken_off(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(tmp_path) as (both, _, serving, _):
            association = await both.connect()
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            with pytest.raises(AccordError):
                async with asyncio.timeout(3):
                    await association.carrier.read()

    run(main())
