# SPDX-License-Identifier: Apache-2.0
"""The parallel SYN on the initiator: one connection that becomes the negotiated TCP node or the plain connection.

Whoever opens it says how that went (``opened``, ``failed``). Then it belongs to the first one who takes it: the TCP
session, when it commits (docs/PROTOCOL.md, section 9.1), or whoever falls back. Nobody else ever gets it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from accord.datapath import tcp_liveness, tcp_sockopt
from accord.datapath.stream import SocketCarrier
from accord.wire.constants import Reason, TcpOption
from accord.wire.errors import AccordError, error
from accord.wire.tcp_option import encode


class ParallelSyn:
    """``SynConnection`` of one negotiation."""

    def __init__(self, transaction: bytes) -> None:
        """``transaction``: the negotiation's ID, 12 bytes."""
        self._option = encode(TcpOption.EXID_ADOPT, transaction)
        self._socket: socket.socket | None = None
        self._marked = False
        self._greeted = False
        self._failure: AccordError | None = None
        self._callbacks: list[Callable[[], None]] = []

    # ---- whoever opens the connection ----

    def opened(self, connection: socket.socket, *, marked: bool, greeted: bool = False) -> None:
        """The SYN-ACK is there, with the option or without; ``connection`` is ours from now on. ``greeted``: the
        proposal's ClientHello has been said over it."""
        if self._failure is not None or self._socket is not None:
            connection.close()
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tcp_liveness.watch(connection)
        self._socket, self._marked, self._greeted = connection, marked, greeted
        self._tell()

    def failed(self, failure: AccordError) -> None:
        """There will be no connection."""
        if self._failure is None and self._socket is None:
            self._failure = failure
            self._tell()

    def close(self) -> None:
        """Nobody wants it any more: the connection, if it is still here, ends with a FIN."""
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()
        if self._failure is None:
            self._failure = error(Reason.CLOSED, "the connection of the parallel SYN was given up")
            self._tell()

    # ---- SynConnection ----

    @property
    def option(self) -> bytes:
        """The 16 bytes of the TCP option ADOPT with this negotiation's transaction ID."""
        return self._option

    @property
    def connected(self) -> bool:
        """The SYN-ACK is there, and nobody has taken the connection yet."""
        return self._socket is not None

    @property
    def marked(self) -> bool:
        """The SYN-ACK bore the option as well."""
        return self._marked

    @property
    def greeted(self) -> bool:
        """The proposal's ClientHello has been said over it."""
        return self._greeted

    @property
    def failure(self) -> AccordError | None:
        """Why there is no connection to be had, for good; LEGACY_FIRST once it was taken."""
        return self._failure

    def when_connected(self, callback: Callable[[], None]) -> None:
        """Call back once, when ``connected`` or ``failure`` holds; at once when one does."""
        if self._socket is not None or self._failure is not None:
            callback()
        else:
            self._callbacks.append(callback)

    def options(self) -> Mapping[str, bool]:
        """Which of TCP's options the two kernels agreed on."""
        if self._socket is None:
            raise RuntimeError("the connection of the parallel SYN was asked about before its SYN-ACK")
        found = tcp_sockopt.info(self._socket)
        return {
            "sack": found.sack,
            "timestamps": found.timestamps,
            "window_scale": found.window_scales is not None,
        }

    def take(self, first: bytes = b"") -> SocketCarrier:
        """The connection, from now on the caller's; ``first`` has been sent over it.

        Raises ``failure``; ``PeerError`` (STREAM_BROKEN), with the connection closed, when ``first`` cannot be sent.
        """
        if self._failure is not None:
            raise self._failure
        if self._socket is None:
            raise RuntimeError("the connection of the parallel SYN was asked for before its SYN-ACK")
        connection, self._socket = self._socket, None
        self._failure = error(Reason.LEGACY_FIRST, "the connection of the parallel SYN is in use")
        try:
            # A send buffer with nothing in it takes these few bytes whole.
            sent = connection.send(first) if first else 0
        except OSError as refusal:
            connection.close()
            raise error(Reason.STREAM_BROKEN, f"TCP: {refusal.strerror}") from refusal
        if sent != len(first):
            connection.close()
            raise error(Reason.STREAM_BROKEN, f"TCP: {sent} of {len(first)} bytes had room in a new connection")
        return SocketCarrier(connection)

    def _tell(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
