# SPDX-License-Identifier: Apache-2.0
"""The plain connection: TCP with a SYN, and TLS above it when the policy wants security.

What a host does today. Taken when the peer has no Accord, or when it is ready first (HotNets 2009,
section 5, "Backward Compatibility").
"""

from __future__ import annotations

import asyncio
import os
import socket

from accord.controller.ladder import Ladder, Way
from accord.controller.policy import Secure
from accord.datapath.stream import SocketCarrier
from accord.datapath.zone import socket_address
from accord.protocols import tls
from accord.protocols.services import Carrier, Security
from accord.protocols.tls_connection import TlsConnection
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

_HANDSHAKE_SECONDS = 30.0
_FINAL = (Reason.BAD_CERTIFICATE, Reason.CERTIFICATE_EXPIRED, Reason.CERTIFICATE_NAME, Reason.BAD_CONFIG)
"""No reasons to go on without TLS."""


async def open_tcp(address: tuple[str, int], ladder: Ladder, deadline: float) -> socket.socket:
    """A connected, non-blocking TCP socket. Raises ``PathError`` when the peer cannot be reached."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ladder.note(Way.OUT, f"TCP SYN to port {address[1]}")
        async with asyncio.timeout(deadline):
            await asyncio.get_running_loop().sock_connect(sock, socket_address(*address))
    except TimeoutError as late:
        sock.close()
        raise error(Reason.TIMEOUT, f"TCP to {address[0]} port {address[1]}: no answer in {deadline:g} s") from late
    except OSError as refusal:
        sock.close()
        why = os.strerror(refusal.errno) if refusal.errno else str(refusal)  # asyncio has words of its own for it
        raise error(Reason.UNREACHABLE, f"TCP to {address[0]} port {address[1]}: {why}") from refusal
    except BaseException:
        sock.close()
        raise
    ladder.note(Way.IN, "TCP SYN-ACK: connected")
    return sock


async def _begin(security: Security) -> TlsConnection:
    return tls.begin(security, security.alpn)


async def connect(
    address: tuple[str, int], secure: Secure, security: Security, ladder: Ladder, deadline: float = 20.0
) -> tuple[Carrier, list[str]]:
    """A plain stream to ``address`` and its stack, top first. ``secure`` is the policy's word.

    With ``preferred``, a peer that does not speak TLS gets a second, bare connection; one whose certificate
    is bad does not: that is no reason to talk to it in clear.
    """
    if secure is Secure.NO:
        return SocketCarrier(await open_tcp(address, ladder, deadline)), ["tcp"]
    beginning = asyncio.create_task(_begin(security))  # runs once the SYN is on its way
    beginning.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        bare = SocketCarrier(await open_tcp(address, ladder, deadline))
    except BaseException:
        beginning.cancel()
        raise
    try:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            carrier = await tls.client(bare, security, security.alpn, await beginning)
    except (AccordError, OSError) as failure:  # TimeoutError is an OSError
        bare.abort()
        if secure is Secure.REQUIRED or (isinstance(failure, AccordError) and failure.reason in _FINAL):
            if isinstance(failure, AccordError):
                raise
            raise error(Reason.HANDSHAKE_FAILED, f"TLS over plain TCP: {failure or 'no answer in time'}") from failure
        ladder.note(Way.HERE, "peer speaks no TLS on this port; security is only preferred, so once more without")
        return SocketCarrier(await open_tcp(address, ladder, deadline)), ["tcp"]
    except BaseException:
        bare.abort()
        raise
    ladder.note(Way.HERE, "TLS 1.3 over the plain connection is ready")
    return carrier, ["tls", "tcp"]
