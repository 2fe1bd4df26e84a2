# SPDX-License-Identifier: Apache-2.0
"""Kernel TCP connections that no SYN opens, for a program that listens itself: the responder's, by ``births``.

``BornTcp`` and ``BornEndpoint`` are ``TcpService`` and ``TcpEndpoint`` of ``protocols.services`` in structure:

    reserve        numbers, and nothing else                nothing on the wire
    install        the first segment is expected            that segment makes the socket, whose answers are TCP's
    stream         nobody's here: the listener's            whatever the program sends
    release        it is expected no more                   a connection that is there goes on, as the listener's

No reset race: what is expected before the answer leaves finds its socket whenever it comes.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from accord.datapath.births import Births, Fate
from accord.datapath.tcp_numbers import numbers_towards
from accord.datapath.tcp_repair import agreed_state, fresh_parameters, resolve
from accord.datapath.zone import SocketAddress
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error
from accord.wire.tcp_header import TcpParameters


class BornTcp:
    """Connections of a port's listener, between two addresses, textual and of one family."""

    def __init__(self, births: Births, local_ip: str, remote_ip: str) -> None:
        self._births = births
        self._family, self._local = resolve(local_ip)
        family, self._remote = resolve(remote_ip)
        if family != self._family:
            raise ValueError(f"{local_ip} and {remote_ip} are not of one family")

    def reserve(self, port: int | None = None) -> BornEndpoint:
        """Fresh numbers for a connection to the service's port. Raises ``HostError``."""
        if port is None:
            raise error(Reason.CANNOT_INSTALL, "only a responder's connection can be born in a listener")
        own = fresh_parameters(numbers_towards(self._local, self._remote), port)
        return BornEndpoint(self._births, self._local, self._remote, own)


class BornEndpoint:
    """One connection; made by ``BornTcp.reserve``."""

    def __init__(self, births: Births, local: SocketAddress, remote: SocketAddress, own: TcpParameters) -> None:
        self._births, self._local, self._remote, self._own = births, local, remote, own
        self._reserved_at = time.monotonic()
        self._expected: Any = None
        self._is_ours = True

    @property
    def parameters(self) -> TcpParameters:
        """Ours, as they go into the handshake data."""
        return self._own

    def install(self, peer: TcpParameters) -> None:
        """Expect the connection's first segment. Raises ``AccordError``, and nothing is expected then."""
        if self._expected is not None:
            raise RuntimeError("the endpoint is installed already: reserve another")
        state = agreed_state(self._local, self._remote, self._own, peer, self._reserved_at, service=True)
        self._births.expect(state)
        self._expected = state

    def installed(self) -> None:
        """Return when it is expected: ``install`` has seen to it."""
        if self._expected is None:
            raise RuntimeError("the endpoint is not installed yet: call install first")

    def release(self) -> None:
        """Expect it no more; nothing happens after ``stream``."""
        expected, self._expected = self._expected, None
        if expected is not None and self._is_ours:
            self._births.end(expected)

    def stream(self) -> BornCarrier:
        """What stands for the connection here; from now on the caller's."""
        self.installed()
        self._is_ours = False
        return BornCarrier(self._births, self._expected)


class BornCarrier:
    """``Carrier`` of a connection that is not this process's: all that there is to do is to ask what became of it."""

    kernel_socket: socket.socket | None = None

    def __init__(self, births: Births, expected: Any) -> None:
        self._births, self._expected = births, expected
        self._end: tuple[Fate | None, int] | None = None

    def end(self, *, patient: bool = False, rouse: bool = False) -> tuple[Fate | None, int]:
        """As ``Births.end``, of this connection; once it has one, the same whenever it is asked."""
        if self._end is not None:
            return self._end
        end = self._births.end(self._expected, patient=patient, rouse=rouse)
        if not patient or end[0] is not Fate.WAITING:
            self._end = end
        return end

    async def read(self, limit: int = 65536) -> bytes:
        """Raises ``AccordError``."""
        raise _not_ours()

    async def write(self, data: bytes) -> None:
        """Raises ``AccordError``."""
        raise _not_ours()

    async def finish(self) -> None:
        """Nothing was written."""

    async def close(self) -> None:
        """Expected no more."""
        self.end()

    def abort(self) -> None:
        """Expected no more."""
        self.end()


def _not_ours() -> AccordError:
    return error(Reason.CANNOT_INSTALL, "the connection is the program's that listens on the port")
