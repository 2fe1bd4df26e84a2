# SPDX-License-Identifier: Apache-2.0
"""Connections that have lost a race: each is ended without a reset, while the winner is in use already."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from accord.protocols.services import Carrier
from accord.wire.errors import AccordError

_SECONDS: Final = 1.0
"""A peer that has not ended a connection by then, which carried a ClientHello at most, is reset."""


class Losers:
    """Those of one controller."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def retire(self, carrier: Carrier, user: asyncio.Task[Any] | None = None) -> None:
        """End a connection, ours from now on. ``user``: a task that still reads or writes it, and is to be stopped."""
        task = asyncio.get_running_loop().create_task(_end(carrier, user))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """End them all, now."""
        for task in self._tasks:
            task.cancel()


async def _end(carrier: Carrier, user: asyncio.Task[Any] | None) -> None:
    """A FIN, then whatever the peer still says until it ends too: a close before that would answer it with a reset."""
    try:
        if user is not None:
            user.cancel()
            await asyncio.wait({user})
        with contextlib.suppress(AccordError, OSError):  # TimeoutError is an OSError
            async with asyncio.timeout(_SECONDS):
                await carrier.finish()
                while await carrier.read():
                    pass
                await carrier.close()
    finally:
        carrier.abort()
