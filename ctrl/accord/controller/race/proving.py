# SPDX-License-Identifier: Apache-2.0
"""Whether TCP that was installed without a SYN carries data: said by the first bytes that come, or do not.

Seen only where the stream passes through here, under TLS: a kernel socket that is handed to a program tells nobody.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Final

from accord.controller.peers.memory import Learnt
from accord.protocols.services import Carrier

_STALLED: Final = frozenset({errno.ETIMEDOUT, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH})
"""Of a first read: nothing got through, or something on the path, or the peer's kernel, knew of no such connection."""


class Proving:
    """A ``Carrier`` that passes everything on, and tells ``learn`` once."""

    def __init__(self, below: Carrier, learn: Callable[[Learnt], None]) -> None:
        self._below = below
        self._learn: Callable[[Learnt], None] | None = learn

    async def read(self, limit: int = 65536) -> bytes:
        """As ``Carrier.read``."""
        try:
            data = await self._below.read(limit)
        except OSError as broken:
            if broken.errno in _STALLED:
                self._tell(Learnt.NO_SYN_STALLED)
            raise
        if data:
            self._tell(Learnt.NO_SYN_WORKED)
        return data

    async def write(self, data: bytes) -> None:
        """As ``Carrier.write``."""
        await self._below.write(data)

    async def finish(self) -> None:
        """As ``Carrier.finish``."""
        await self._below.finish()

    async def close(self) -> None:
        """As ``Carrier.close``."""
        await self._below.close()

    def abort(self) -> None:
        """As ``Carrier.abort``."""
        self._below.abort()

    @property
    def kernel_socket(self) -> socket.socket | None:
        """None, since what is read of it would not be seen here."""
        return None

    def _tell(self, what: Learnt) -> None:
        learn, self._learn = self._learn, None
        if learn is not None:
            learn(what)
