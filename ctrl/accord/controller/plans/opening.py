# SPDX-License-Identifier: Apache-2.0
"""Connections that are set up after the commit: how long they are waited for, and from whom one is taken."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

from accord.controller.adoption.awaited import AwaitedCarrier
from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import error

_SECONDS: Final = 20.0
"""Until a planned connection is given up: WireGuard repeats a handshake after 5 s, SCTP an INIT after 3 and 6."""


def coming(opening: Coroutine[Any, Any, Carrier], give_up: Callable[[], None]) -> AwaitedCarrier:
    """A stream that is being opened; ``give_up`` lets go of what it is opened with when that is not wanted any more."""

    async def bounded() -> Carrier:
        try:
            async with asyncio.timeout(_SECONDS):
                return await opening
        except TimeoutError:
            raise error(Reason.DATA_PATH_FAILED, f"the planned connection did not come within {_SECONDS:g} s") from None
        except OSError as failed:
            raise error(Reason.DATA_PATH_FAILED, f"the planned connection: {failed.strerror or failed}") from failed

    task = asyncio.get_running_loop().create_task(bounded())

    def ended(done: asyncio.Task[Carrier]) -> None:
        if done.cancelled() or done.exception() is not None:  # asked for, so that nobody logs it: a reader is told
            opening.close()  # which may not have begun
            give_up()

    task.add_done_callback(ended)

    def stop() -> None:
        task.cancel()

    return AwaitedCarrier(task, stop)


async def connected(own: socket.socket, address: Any) -> None:
    """Connect a non-blocking socket, of whatever protocol. Raises ``OSError``.

    asyncio's own asks the resolver also for addresses, which refuses a protocol that it has no name of: MPTCP, 262.
    """
    try:
        own.connect(address)
    except (BlockingIOError, InterruptedError):
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        loop.add_writer(own, _wake, waiter)
        try:
            await waiter
        finally:
            loop.remove_writer(own)
        if number := own.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, os.strerror(number)) from None


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def accepted(listener: socket.socket, remote: str, port: int | None) -> socket.socket:
    """The one connection that is expected, from this address and port; others are closed. Ends the listener."""
    with listener:
        return await expected(listener, remote, port)


async def expected(listener: socket.socket, remote: str, port: int | None) -> socket.socket:
    """As ``accepted``, and the listener stays."""
    wanted = ipaddress.ip_address(remote.partition("%")[0])
    loop = asyncio.get_running_loop()
    while True:
        connection, address = await loop.sock_accept(listener)
        if ipaddress.ip_address(address[0].partition("%")[0]) == wanted and port in (None, address[1]):
            return connection
        connection.close()
