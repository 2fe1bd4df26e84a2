# SPDX-License-Identifier: Apache-2.0
"""Connections that are set up after the commit: how long they are waited for, and from whom one is taken."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from accord.controller.adoption.awaited import AwaitedCarrier
from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import error

_SECONDS: Final = 20.0
"""Until a planned connection is given up: WireGuard repeats a handshake after 5 s, SCTP an INIT after 3 and 6."""


def coming(opening: Awaitable[Carrier], give_up: Callable[[], None]) -> AwaitedCarrier:
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
            give_up()

    task.add_done_callback(ended)

    def stop() -> None:
        task.cancel()

    return AwaitedCarrier(task, stop)


async def accepted(listener: socket.socket, remote: str, port: int | None) -> socket.socket:
    """The one connection that is expected, from this address and port; others are closed. Ends the listener."""
    wanted = ipaddress.ip_address(remote.partition("%")[0])
    loop = asyncio.get_running_loop()
    with listener:
        while True:
            connection, address = await loop.sock_accept(listener)
            if ipaddress.ip_address(address[0].partition("%")[0]) == wanted and port in (None, address[1]):
                return connection
            connection.close()
