# SPDX-License-Identifier: Apache-2.0
"""Plans of a port each: one side listens on its own, the other one connects from its own."""

from __future__ import annotations

import asyncio
import socket

from accord.controller.plans.opening import accepted, coming
from accord.datapath import sctp
from accord.negotiation.interface import Role
from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import error


class PlannedSctp:
    """``SctpService`` by the kernel."""

    def __init__(self, role: Role, local: str, remote: str) -> None:
        self._role = role
        self._addresses = local, remote

    def reserve(self) -> PlannedSctpPort:
        """A bound port. Raises ``HostError``."""
        return PlannedSctpPort(self._role, sctp.sctp_socket(self._addresses[0]), self._addresses[1])


class PlannedSctpPort:
    """``SctpPort``."""

    def __init__(self, role: Role, own: socket.socket, remote: str) -> None:
        self._role = role
        self._socket: socket.socket | None = own
        self._remote = remote
        self.port = int(own.getsockname()[1])

    def listen(self) -> None:
        """Raises ``HostError`` (CANNOT_INSTALL)."""
        try:
            self._held().listen(1)
        except OSError as refused:
            raise error(Reason.CANNOT_INSTALL, f"SCTP port {self.port}: {refused.strerror}") from refused

    def stream(self, peer_port: int) -> Carrier:
        """The association, being set up."""
        own, self._socket = self._held(), None

        async def opened() -> Carrier:
            if self._role is Role.RESPONDER:
                return sctp.SctpCarrier(await accepted(own, self._remote, peer_port))
            numeric = socket.AI_NUMERICHOST
            found = socket.getaddrinfo(self._remote, peer_port, own.family, socket.SOCK_STREAM, flags=numeric)
            await asyncio.get_running_loop().sock_connect(own, found[0][4])
            return sctp.SctpCarrier(own)

        return coming(opened(), own.close)

    def release(self) -> None:
        """Give the port back."""
        own, self._socket = self._socket, None
        if own is not None:
            own.close()

    def _held(self) -> socket.socket:
        if self._socket is None:
            raise error(Reason.PLUGIN_FAILED, "SCTP: the port was given back")
        return self._socket
