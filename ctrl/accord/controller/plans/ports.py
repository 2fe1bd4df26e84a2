# SPDX-License-Identifier: Apache-2.0
"""Plans of a port each: one side listens on its own, the other one connects from its own."""

from __future__ import annotations

import logging
import socket
from typing import Final

from accord.controller.adoption.awaited import AwaitedCarrier
from accord.controller.plans.opening import accepted, coming, connected, expected
from accord.datapath import mptcp, sctp
from accord.negotiation.interface import Role
from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import error

log = logging.getLogger("accord.plans")

_BACKLOG: Final = 8
"""Strangers may come before the peer does, and wait to be turned away until the commit is here."""


class PlannedSctp:
    """``SctpService`` by the kernel."""

    def __init__(self, role: Role, local: str, remote: str) -> None:
        self._role = role
        self._addresses = local, remote

    def reserve(self) -> PlannedSctpPort:
        """A bound port. Raises ``HostError``."""
        return PlannedSctpPort("SCTP", self._role, sctp.sctp_socket(self._addresses[0]), self._addresses[1])


class PlannedMptcp:
    """``MptcpService`` by the kernel."""

    def __init__(self, role: Role, local: str, remote: str) -> None:
        self._role = role
        self._addresses = local, remote

    def reserve(self) -> PlannedMptcpPort:
        """A bound port. Raises ``HostError``."""
        return PlannedMptcpPort("MPTCP", self._role, mptcp.mptcp_socket(self._addresses[0]), self._addresses[1])


class _Port:
    """What ``PlannedPort`` of both is."""

    def __init__(self, title: str, role: Role, own: socket.socket, remote: str) -> None:
        """``own``: bound, and this object's from now on."""
        self._title = title
        self._role = role
        self._socket: socket.socket | None = own
        self._remote = remote
        self.port = int(own.getsockname()[1])

    def listen(self) -> None:
        """Raises ``HostError`` (CANNOT_INSTALL)."""
        try:
            self._held().listen(_BACKLOG)
        except OSError as refused:
            raise error(Reason.CANNOT_INSTALL, f"{self._title} port {self.port}: {refused.strerror}") from refused

    def release(self) -> None:
        """Give the port back."""
        own, self._socket = self._socket, None
        if own is not None:
            own.close()

    def _taken(self) -> socket.socket:
        own, self._socket = self._held(), None
        return own

    def _held(self) -> socket.socket:
        if self._socket is None:
            raise error(Reason.PLUGIN_FAILED, f"{self._title}: the port was given back")
        return self._socket

    async def _connect(self, own: socket.socket, peer_port: int) -> None:
        numeric = socket.AI_NUMERICHOST
        found = socket.getaddrinfo(self._remote, peer_port, own.family, socket.SOCK_STREAM, flags=numeric)
        await connected(own, found[0][4])


class PlannedSctpPort(_Port):
    """``PlannedPort``."""

    def stream(self, peer_port: int) -> Carrier:
        """The association, being set up."""
        own = self._taken()

        async def opened() -> Carrier:
            if self._role is Role.RESPONDER:
                return sctp.SctpCarrier(await accepted(own, self._remote, peer_port))
            await self._connect(own, peer_port)
            return sctp.SctpCarrier(own)

        return coming(opened(), own.close)


class PlannedMptcpPort(_Port):
    """``MptcpPort``."""

    multipath: bool | None = None
    _stream: AwaitedCarrier | None = None

    def stream(self, peer_port: int) -> Carrier:
        """The connection, being set up."""
        own = self._taken()

        async def opened() -> Carrier:
            if self._role is Role.RESPONDER:
                connection = await expected(own, self._remote, peer_port)
                carrier = mptcp.MptcpCarrier(connection, own)
            else:
                await self._connect(own, peer_port)
                connection, carrier = own, mptcp.MptcpCarrier(own)
            try:
                self.multipath = mptcp.is_multipath(connection)
            except BaseException:
                carrier.abort()
                raise
            what = "MPTCP" if self.multipath else "plain TCP, as the path took MPTCP's option off"
            log.info("%s port %d, planned: %s", self._remote, peer_port, what)
            return carrier

        self._stream = coming(opened(), own.close)
        return self._stream

    async def there(self) -> Carrier:
        """Raises ``AccordError``."""
        assert self._stream is not None, "there is a stream to wait for"
        return await self._stream.there()
