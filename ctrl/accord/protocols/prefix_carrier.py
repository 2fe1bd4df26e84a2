# SPDX-License-Identifier: Apache-2.0
"""A stream some bytes of which have travelled already, in the negotiation."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import error


class PrefixCarrier:
    """``below`` with ``arrived`` in front of what it reads, and ``owed`` in front of what it writes.

    ``owed`` is sent at once, without anybody writing; what fails there fails again in the next ``write`` or
    ``finish``. Needs a running loop when there is anything owed.
    """

    def __init__(self, below: Carrier, arrived: bytes = b"", owed: bytes = b"") -> None:
        self._below = below
        self._arrived = arrived
        self._paying: asyncio.Task[None] | None = None
        if owed:
            self._paying = asyncio.get_running_loop().create_task(below.write(owed))
            # A failure that nobody is there to see is not worth a line in the log.
            self._paying.add_done_callback(lambda task: task.cancelled() or task.exception())

    @property
    def kernel_socket(self) -> socket.socket | None:
        """The socket below, once nothing is left here that it does not have."""
        return None if self._arrived or not self._paid() else self._below.kernel_socket

    async def read(self, limit: int = 65536) -> bytes:
        """Up to ``limit`` bytes, at least one; empty once the peer has finished."""
        if self._arrived:
            piece, self._arrived = self._arrived[:limit], self._arrived[limit:]
            return piece
        return await self._below.read(limit)

    async def write(self, data: bytes) -> None:
        """Send ``data`` after what is owed."""
        await self._pay()
        await self._below.write(data)

    async def finish(self) -> None:
        """Finish after what is owed."""
        await self._pay()
        await self._below.finish()

    async def close(self) -> None:
        """Orderly end; what is owed still goes out, if the peer takes it."""
        with contextlib.suppress(Exception):
            await self._pay()
        await self._below.close()

    def abort(self) -> None:
        """End at once; what is owed is forgotten."""
        if self._paying is not None:
            self._paying.cancel()
        self._below.abort()

    def _paid(self) -> bool:
        return self._paying is None or (
            self._paying.done() and not self._paying.cancelled() and self._paying.exception() is None
        )

    async def _pay(self) -> None:
        if self._paying is None:
            return
        # Shielded: a writer that is cancelled while it waits must not take the debt with it.
        try:
            await asyncio.shield(self._paying)
        except asyncio.CancelledError:
            if self._paying.cancelled():
                raise error(Reason.CLOSED, "write on a stream that was aborted") from None
            raise
        self._paying = None
