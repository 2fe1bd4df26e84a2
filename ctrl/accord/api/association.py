# SPDX-License-Identifier: Apache-2.0
"""An established stack, in an application's hands."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Any, Self

from accord.datapath.stream import SocketCarrier


class Association:
    """A byte stream over whichever stack both ends supported best.

    ``report`` says which one, and how it came to be: ``stack`` (top first), ``negotiated``, ``reason``,
    ``ready_ms``, ``ladder``, ... (``accord.controller.association.Report``).
    """

    def __init__(self, sock: socket.socket, report: dict[str, Any]) -> None:
        self.carrier = SocketCarrier(sock)
        """The stream itself, for whoever joins it to another."""
        self.report = report

    @property
    def stack(self) -> list[str]:
        """Protocol names, top first, such as ``["http", "tls", "tcp"]``."""
        return list(self.report["stack"])

    async def read(self, limit: int = 65536) -> bytes:
        """Up to ``limit`` bytes, at least one; empty once the peer has finished."""
        return await self.carrier.read(limit)

    async def read_all(self) -> bytes:
        """Everything until the peer finishes."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def write(self, data: bytes) -> None:
        """Send all of ``data``; returns when there is room for more."""
        await self.carrier.write(data)

    async def finish(self) -> None:
        """Nothing more will be written; reading goes on."""
        await self.carrier.finish()

    async def close(self) -> None:
        """End both directions."""
        await self.carrier.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
