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
        self._swept = False

    def add(self, data: bytes) -> int:
        """Make an interface; its index. Raises ``HostError``: NO_PRIVILEGE for what is no ``Setup``, CANNOT_INSTALL."""
        try:
            setup = wireguard.Setup.decode(data)
        except ValueError as wrong:
            raise error(Reason.NO_PRIVILEGE, f"a tunnel as nobody asks for one: {wrong}") from wrong
        if not self._swept:
            wireguard.sweep()
            self._swept = True
        index = wireguard.create(setup)
        self._made.add(index)
        return index

    def remove(self, index: int) -> bool:
        """Remove an interface; whether it was one of these."""
        if index not in self._made:
            return False
        self._made.discard(index)
        wireguard.remove(index)
        return True

    def close(self) -> None:
        """Remove all that are left."""
        for index in list(self._made):
            self.remove(index)
