# SPDX-License-Identifier: Apache-2.0
"""The proposal's own ClientHello, said over the SYN's connection as well (docs/PROTOCOL.md, sections 9.1 and 10.1).

A peer without Accord answers it there. One with Accord finds the connection by it and leaves it alone as long as the
negotiation goes on, for its ServerHello is in the negotiation's answer. So nothing is lost by beginning before anybody
knows which of the two the peer is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from accord.protocols.tls import TlsSession
from accord.protocols.tls_connection import TlsConnection
from accord.wire.constants import Reason
from accord.wire.errors import error


class Greeting:
    """One ClientHello on one connection. ``spoken`` is called once, when the peer says something there, or ends it."""

    def __init__(self, connection: socket.socket, tls: TlsSession, spoken: Callable[[], None]) -> None:
        """Says it. Raises ``PeerError`` (STREAM_BROKEN)."""
        self._connection = connection
        self._tls = tls
        self._begun = tls.begun
        self._spoken: Callable[[], None] | None = spoken
        self.answered = False
        """Over the connection."""
        try:
            # A send buffer with nothing in it takes these few bytes whole.
            sent = connection.send(tls.hello)
        except OSError as refusal:
            raise error(Reason.STREAM_BROKEN, f"TCP: {refusal.strerror}") from refusal
        if sent != len(tls.hello):
            raise error(Reason.STREAM_BROKEN, f"TCP: {sent} of {len(tls.hello)} bytes had room in a new connection")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection.fileno(), self._readable)

    @property
    def begun(self) -> TlsConnection | None:
        """TLS with this ClientHello, to go on over the connection; None: the negotiation's answer was given to it."""
        return self._begun if self._tls.fresh else None

    def look(self) -> None:
        """Whether something has come by now."""
        if self._spoken is None:
            return
        with contextlib.suppress(BlockingIOError, InterruptedError):
            with contextlib.suppress(ConnectionError):
                self._connection.recv(1, socket.MSG_PEEK)
            self._readable()

    def close(self) -> None:
        """Watch no longer; the connection is somebody else's to read."""
        if self._spoken is not None:
            self._spoken = None
            self._loop.remove_reader(self._connection.fileno())

    def _readable(self) -> None:
        spoken = self._spoken
        self.close()
        self.answered = True
        if spoken is not None:
            spoken()
