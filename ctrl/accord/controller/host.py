# SPDX-License-Identifier: Apache-2.0
"""The real host behind ``protocols.services``: datagrams on the negotiation's 5-tuple, the exposed service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

from accord.controller.ladder import Ladder, Way
from accord.datapath.stream import SocketCarrier
from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

# A local service answers a short request in about a millisecond; a slow one must not hold the negotiation up.
_FETCH_SECONDS = 0.25
_FETCH_IDLE_SECONDS = 0.003
# A service that accepts nothing for so long is as good as none: its queue is full, or a firewall eats the SYN.
_OPEN_SECONDS = 5.0
# Datagrams that come before anybody listens: the peer may send in-band while the commit is on its way.
_EARLY_DATAGRAMS = 32


class DatagramChannel:
    """``DatagramService`` of one transaction; ``send`` is given by the endpoint that owns the socket."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._callback: Callable[[bytes], None] | None = None
        self._early: list[bytes] = []
        self._ending: Callable[[], None] | None = None
        self.ended: Callable[[], None] = lambda: None
        """Called when the session that used the channel has no more use for it."""

    @property
    def in_use(self) -> bool:
        """Somebody receives."""
        return self._callback is not None

    def send(self, data: bytes) -> None:
        """Send one datagram to the peer."""
        self._send(data)

    def receive(self, callback: Callable[[bytes], None] | None, ending: Callable[[], None] | None = None) -> None:
        """From now on call back with each datagram, first those that came too early; None: no more of them."""
        ended = callback is None and self._callback is not None
        self._callback, self._ending = callback, ending
        early, self._early = self._early, []
        for data in early:
            if callback is not None:
                callback(data)
        if ended:
            self.ended()

    def end(self) -> None:
        """The endpoint's side: the socket is about to be closed; the session may still say good-bye by it."""
        ending, self._ending = self._ending, None
        if ending is not None:
            ending()

    def deliver(self, data: bytes) -> None:
        """The endpoint's side: a datagram arrived on this path."""
        if self._callback is not None:
            self._callback(data)
        elif len(self._early) < _EARLY_DATAGRAMS:
            self._early.append(data)


class HostFetch:
    """A request handed to the local service while the negotiation still runs (``services.Fetch``)."""

    def __init__(self, target: tuple[str, int], request: bytes, limit: int, resume: Callable[[], None]) -> None:
        self.response: bytes | None = None
        self._service: SocketCarrier | None = None
        self._taken = False
        self._task = asyncio.get_running_loop().create_task(self._run(target, request, limit))
        self._task.add_done_callback(lambda task: None if task.cancelled() else resume())

    async def _run(self, target: tuple[str, int], request: bytes, limit: int) -> None:
        gathered = b""
        with contextlib.suppress(OSError, AccordError, TimeoutError, OverflowError):
            # What was gathered until then is the answer's beginning; the rest, or a failure, comes over the stack.
            async with asyncio.timeout(_FETCH_SECONDS):
                self._service = await open_service(target)
                await self._service.write(request)
                while len(gathered) < limit:
                    # Services write their head and their body one after the other: wait a moment for more.
                    idle = _FETCH_IDLE_SECONDS if gathered else None
                    piece = await asyncio.wait_for(self._service.read(limit - len(gathered)), idle)
                    if not piece:
                        break
                    gathered += piece
        self.response = gathered

    def take(self) -> Carrier | None:
        """The connection to the service, for whoever forwards the rest; None when there is none."""
        self._taken = self._service is not None
        return self._service

    def cancel(self) -> None:
        """Give up, unless somebody took the connection over."""
        if self._taken:
            return
        self._task.cancel()
        if self._service is not None:
            self._service.abort()


async def open_service(target: tuple[str, int]) -> SocketCarrier:
    """A plain connection to a local service. Raises ``PeerError`` (``BACKEND_FAILED``)."""
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if not _connected_at_once(sock, target):
            async with asyncio.timeout(_OPEN_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, target)
    except OSError as refusal:  # TimeoutError is one
        sock.close()
        if isinstance(refusal, socket.gaierror):  # whose numbers are not errno's
            why = refusal.strerror
        else:
            why = os.strerror(refusal.errno) if refusal.errno else f"no connection in {_OPEN_SECONDS:g} s"
        raise error(
            Reason.BACKEND_FAILED, f"{target[0]}:{target[1]}: {why}", "start the service that is exposed"
        ) from refusal
    except BaseException:
        sock.close()
        raise
    return SocketCarrier(sock)


def _connected_at_once(sock: socket.socket, target: tuple[str, int]) -> bool:
    """A service on this host has answered by the time that the first call returns; the second one says so (connect(2)).
    False: it is on its way, or has failed, which whoever waits for it is told."""
    with contextlib.suppress(BlockingIOError):
        sock.connect(target)
        return True
    with contextlib.suppress(BlockingIOError):
        sock.connect(target)
        return True
    return False


class HostApplication:
    """``ApplicationService``: the early request of an initiator, or the exposed service of a responder."""

    def __init__(
        self,
        resume: Callable[[], None],
        *,
        ladder: Ladder | None = None,
        early_request: bytes | None = b"",
        target: tuple[str, int] | None = None,
        early_limit: int = 0,
    ) -> None:
        self.early_request = early_request
        self.early_limit = early_limit if target is not None else 0
        self._target = target
        self._ladder = ladder
        self._resume = resume

    def fetch(self, request: bytes, limit: int) -> HostFetch:
        """Hand ``request`` to the service; up to ``limit`` bytes of its response may ride in the answer."""
        assert self._target is not None, "early_limit is 0 without a service"
        if self._ladder is not None:
            service = f"{self._target[0]}:{self._target[1]}"
            self._ladder.note(Way.HERE, f"early request of {len(request)} bytes handed to {service}")
        return HostFetch(self._target, request, limit, self._resume)
