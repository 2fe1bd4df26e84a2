# SPDX-License-Identifier: Apache-2.0
"""A stream whose connection is still to come."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error


class AwaitedCarrier:
    """Carrier of what ``coming`` resolves to: reading and writing wait for it, and raise what it fails with.

    ``give_up`` is called when the stream ends before that; whoever resolves ``coming`` must not do so afterwards.
    """

    def __init__(self, coming: asyncio.Future[Carrier], give_up: Callable[[], None]) -> None:
        self._coming = coming
        self._give_up = give_up

    @property
    def kernel_socket(self) -> socket.socket | None:
        """That of the connection, once it is there."""
        there = self._there()
        return None if there is None else there.kernel_socket

    async def read(self, limit: int = 65536) -> bytes:
        """Up to ``limit`` bytes, at least one; empty once the peer has finished."""
        return await (await self._wait()).read(limit)

    async def write(self, data: bytes) -> None:
        """Send all of ``data``."""
        await (await self._wait()).write(data)

    async def finish(self) -> None:
        """Nothing more will be written."""
        await (await self._wait()).finish()

    async def close(self) -> None:
        """Orderly end; what never came is given up."""
        there = self._there()
        if there is None:
            self.abort()
        else:
            await there.close()

    def abort(self) -> None:
        """End at once."""
        there = self._there()
        if there is not None:
            there.abort()
        elif not self._coming.done():
            self._give_up()

    async def there(self) -> Carrier:
        """The stream of the connection, once that has come. Raises ``AccordError``: what it fails with, or CLOSED."""
        await asyncio.wait((self._coming,))
        if self._coming.cancelled():
            raise error(Reason.CLOSED, "the stream was given up before its connection came")
        return self._coming.result()

    async def _wait(self) -> Carrier:
        # Shielded: one reader that is cancelled must not cancel what the writer waits for.
        return await asyncio.shield(self._coming)

    def when_there(self, callback: Callable[[Carrier], None]) -> None:
        """Call back with the connection's stream once it is there, before anybody reads or writes it."""

        def came(future: asyncio.Future[Carrier]) -> None:
            there = self._there()
            if there is not None:
                callback(there)

        self._coming.add_done_callback(came)

    def _there(self) -> Carrier | None:
        if not self._coming.done() or self._coming.cancelled():
            return None
        with contextlib.suppress(AccordError):
            return self._coming.result()
        return None
