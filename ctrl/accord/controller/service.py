# SPDX-License-Identifier: Apache-2.0
"""The local plain service behind an exposed port, and whether it is there.

A service that does not answer is noticed by a connection that cannot be made, and then asked again and again until
it does. Meanwhile peers are refused with BACKEND_FAILED in the answer to their proposal: nobody builds a stack that
leads nowhere. It is not asked on behalf of a proposal: the source of one may be forged, and the service would pay.
"""

from __future__ import annotations

import asyncio
import logging

from accord.controller.host import open_service
from accord.datapath.stream import SocketCarrier
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

log = logging.getLogger("accord.service")

_ASK_SECONDS = 0.5
"""Between two questions to a service that is not there: a restart of it goes nearly unnoticed."""


class LocalService:
    """A service by its address and port."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.failure: AccordError | None = None
        """Why it is not there; None: it is, as far as anybody knows."""
        self._asking: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """``address:port``."""
        return f"{self.target[0]}:{self.target[1]}"

    async def open(self) -> SocketCarrier:
        """A connection. Raises ``PeerError`` (``BACKEND_FAILED``), and remembers it; ``HostError`` (``CANNOT_INSTALL``)
        when this process cannot have a socket, which says nothing about the service."""
        try:
            carrier = await open_service(self.target)
        except OSError as refusal:
            raise error(
                Reason.CANNOT_INSTALL, f"a socket to {self.name}: {refusal.strerror}", "raise the limit: ulimit -n"
            ) from refusal
        except AccordError as failure:
            self._failed(failure)
            raise
        self.failure = None
        return carrier

    async def check(self) -> AccordError | None:
        """Whether it is there: makes a connection and closes it."""
        try:
            carrier = await self.open()
        except AccordError as failure:
            return failure
        await carrier.close()
        return None

    async def tell(self) -> None:
        """Say in the log if it is not there."""
        await self.check()

    def close(self) -> None:
        """Ask no more."""
        self._closed = True
        if self._asking is not None:
            self._asking.cancel()

    def _failed(self, failure: AccordError) -> None:
        if self.failure is None:
            log.warning("%s; peers are refused until then", failure)
        self.failure = failure
        if self._asking is None and not self._closed:
            self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        while self.failure is not None:
            await asyncio.sleep(_ASK_SECONDS)
            await self.check()
        self._asking = None
        log.warning("the service %s is there again", self.name)
