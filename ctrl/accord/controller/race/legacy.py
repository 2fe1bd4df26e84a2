# SPDX-License-Identifier: Apache-2.0
"""The plain connection: TCP with a SYN, and TLS above it when the policy wants security.

What a host does today. Taken when the peer has no Accord, or when it is ready first (HotNets 2009,
section 5, "Backward Compatibility").
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Final

from accord.controller.ladder import Ladder, Way
from accord.controller.settings.policy import Secure
from accord.datapath import clock
from accord.datapath.stream import SocketCarrier
from accord.datapath.zone import socket_address
from accord.protocols import tls
from accord.protocols.services import Carrier, Security
from accord.protocols.tls_connection import TlsConnection
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

Address = tuple[str, int]
"""Textual, with a zone where needed; and a port."""
Opened = Callable[[socket.socket, float], None]
"""The connection, and how long its SYN-ACK took, seconds."""
Failed = Callable[[AccordError], None]
Secured = Callable[
    [SocketCarrier, Address, Secure, Security, Ladder, TlsConnection | None],
    Coroutine[None, None, tuple[Carrier, list[str]]],
]
"""``secure_stream``, or what takes its place."""

_CONNECT_SECONDS: Final = 20.0
_HANDSHAKE_SECONDS: Final = 30.0
_FINAL: Final = (Reason.BAD_CERTIFICATE, Reason.CERTIFICATE_EXPIRED, Reason.CERTIFICATE_NAME, Reason.BAD_CONFIG)
"""No reasons to go on without TLS."""


class Opening:
    """A TCP connection on its way; no task, so that its SYN leaves in the call that makes it.

    ``opened`` gets the socket and how long the SYN-ACK took, seconds; ``failed`` a ``PathError``. One of them is
    called, once, from the event loop; neither after ``close``. They may be given later in the same turn of it
    (``tell``). ``before`` may still do something to the socket.
    """

    def __init__(
        self,
        address: Address,
        opened: Opened | None = None,
        failed: Failed | None = None,
        before: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self._address = address
        self._opened, self._failed = opened, failed
        self._loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket: socket.socket | None = socket.socket(
            family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self._timer: asyncio.TimerHandle | None = None
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if before is not None:
                before(self._socket)
            self._began = clock.now()
            self._socket.connect(socket_address(*address))
        except BlockingIOError:
            pass
        except OSError as refusal:
            self._loop.call_soon(self._refused, refusal.errno or 0)
            return
        except BaseException:
            self.close()
            raise
        self._loop.add_writer(self._socket, self._writable)
        self._timer = self._loop.call_later(_CONNECT_SECONDS, self._late)

    def tell(self, opened: Opened, failed: Failed) -> None:
        """Whom to call."""
        self._opened, self._failed = opened, failed

    def close(self) -> None:
        """Give up: a SYN-ACK that still comes is answered with a reset by the kernel, so nothing stays half open."""
        connection = self._take()
        if connection is not None:
            connection.close()

    def _take(self) -> socket.socket | None:
        connection, self._socket = self._socket, None
        if connection is not None:
            self._loop.remove_writer(connection)
            if self._timer is not None:
                self._timer.cancel()
        return connection

    def _writable(self) -> None:
        assert self._socket is not None, "a closed one is not watched"
        refusal = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if refusal:
            self._refused(refusal)
            return
        took = clock.now() - self._began
        connection = self._take()
        assert connection is not None
        assert self._opened is not None, "somebody waits for it"
        self._opened(connection, took)

    def _refused(self, number: int) -> None:
        self._fail(Reason.UNREACHABLE, os.strerror(number))

    def _late(self) -> None:
        self._fail(Reason.TIMEOUT, f"no answer in {_CONNECT_SECONDS:g} s")

    def _fail(self, reason: Reason, why: str) -> None:
        if self._socket is not None:
            self.close()
            assert self._failed is not None, "somebody waits for it"
            self._failed(error(reason, f"TCP to {self._address[0]} port {self._address[1]}: {why}"))


async def open_tcp(address: Address) -> socket.socket:
    """A connected, non-blocking TCP socket. Raises ``PathError`` when the peer cannot be reached."""
    done: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
    opening = Opening(address, lambda connection, _: done.set_result(connection), done.set_exception)
    try:
        return await done
    except asyncio.CancelledError:
        opening.close()
        if done.done() and not done.cancelled() and done.exception() is None:  # both in the same moment
            done.result().close()
        raise


def begin(security: Security) -> TlsConnection:
    """TLS with its ClientHello made: while the SYN is on its way. Raises ``UserError`` (BAD_CONFIG)."""
    return tls.begin(security, security.alpn)


async def go_on(
    bare: SocketCarrier,
    address: Address,
    secure: Secure,
    security: Security,
    ladder: Ladder,
    begun: TlsConnection | None,
) -> tuple[Carrier, list[str]]:
    """As ``secure_stream``, over a connection on which ``begun`` has said its ClientHello; None: its answer came by the
    negotiation, and was of no use. A handshake that fails there is tried once more by itself: a proposal's ClientHello
    names what the stacks above it can do, which a server may not like."""
    if begun is not None:
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                carrier = await tls.client(bare, security, security.alpn, begun)
        except (AccordError, OSError) as failure:
            if isinstance(failure, TimeoutError) or (isinstance(failure, AccordError) and failure.reason in _FINAL):
                bare.abort()
                raise _named(failure) from failure
            ladder.note(Way.HERE, f"TLS with the proposal's ClientHello: {failure}; once more with its own")
        else:
            return _ready(carrier, ladder)
    bare.abort()
    ladder.note(Way.OUT, f"TCP SYN to port {address[1]}")
    return await secure_stream(SocketCarrier(await open_tcp(address)), address, secure, security, ladder)


def at_once(bare: SocketCarrier, ladder: Ladder, begun: TlsConnection) -> tuple[Carrier, list[str]] | None:
    """``go_on`` with what the peer has said by now, in this turn of the loop: mostly that is its whole flight.

    None: it was not all, or no good; ``go_on`` with the same ``begun`` is to see to that.
    """
    carrier = tls.client_now(bare, begun)
    return None if carrier is None else _ready(carrier, ladder)


def _ready(carrier: Carrier, ladder: Ladder) -> tuple[Carrier, list[str]]:
    ladder.note(Way.HERE, "TLS 1.3 over the plain connection is ready")
    return carrier, ["tls", "tcp"]


def _named(failure: AccordError | OSError) -> AccordError:
    if isinstance(failure, AccordError):
        return failure
    return error(Reason.HANDSHAKE_FAILED, f"TLS over plain TCP: {failure or 'no answer in time'}")


async def secure_stream(
    bare: SocketCarrier,
    address: Address,
    secure: Secure,
    security: Security,
    ladder: Ladder,
    begun: TlsConnection | None = None,
) -> tuple[Carrier, list[str]]:
    """The plain stream with TLS on it, and its stack, top first. ``secure`` is the policy's word.

    With ``preferred``, a peer that does not speak TLS gets a second, bare connection; one whose certificate
    is bad does not: that is no reason to talk to it in clear. Raises ``AccordError``, and has aborted ``bare`` then;
    when it is cancelled ``bare`` is the caller's to end.
    """
    try:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            carrier = await tls.client(bare, security, security.alpn, begun)
    except (AccordError, OSError) as failure:  # TimeoutError is an OSError
        bare.abort()
        if secure is Secure.REQUIRED or (isinstance(failure, AccordError) and failure.reason in _FINAL):
            raise _named(failure) from failure
        ladder.note(Way.HERE, "peer speaks no TLS on this port; security is only preferred, so once more without")
        ladder.note(Way.OUT, f"TCP SYN to port {address[1]}")
        return SocketCarrier(await open_tcp(address)), ["tcp"]
    return _ready(carrier, ladder)
