# SPDX-License-Identifier: Apache-2.0
"""WireGuard interfaces that the broker has made for the worker: those it asks for, no others, and none outlives it."""

from __future__ import annotations

from accord.datapath import wireguard
from accord.wire.constants import Reason
from accord.wire.errors import error


class Tunnels:
    """``allowed``: a stack of the policy file names WireGuard. Then what a broker before left behind is removed too."""

    def __init__(self, allowed: bool) -> None:
        self.allowed = allowed
        if allowed:  # a fifth of a daemon's start, and nothing to wait for while a peer does
            wireguard.load()
        self._made: set[int] = set()
        """By the ports that they receive on."""
        self._swept = False

    def add(self, data: bytes) -> None:
        """Make an interface. Raises ``HostError``: NO_PRIVILEGE for what is no ``Setup``, CANNOT_INSTALL."""
        try:
            setup = wireguard.Setup.decode(data)
        except ValueError as wrong:
            raise error(Reason.NO_PRIVILEGE, f"a tunnel as nobody asks for one: {wrong}") from wrong
        if not self._swept:
            wireguard.sweep()
            self._swept = True
        if setup.port in self._made:
            raise error(Reason.NO_PRIVILEGE, f"port {setup.port} has a tunnel")
        wireguard.create(setup)
        self._made.add(setup.port)

    def remove(self, port: int) -> bool:
        """Remove the interface that receives on this port; whether it was one of these."""
        if port not in self._made:
            return False
        self._made.discard(port)
        wireguard.remove(port)
        return True

    def close(self) -> None:
        """Remove all that are left."""
        for port in list(self._made):
            self.remove(port)
