# SPDX-License-Identifier: Apache-2.0
"""A host of which nothing is real: time stands still, random bytes are always the same, TCP is installed nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accord.negotiation.interface import Role
from accord.protocols.services import Carrier, Security, Services
from accord.protocols.wishes import NONE, Wishes
from accord.wire.tcp_header import TcpParameters

HERE, THERE = ("192.0.2.1", 40000), ("192.0.2.2", 443)


class Endpoint:
    """A connection that could be installed. ``released`` and ``installed_with`` tell what became of it."""

    def __init__(self, port: int) -> None:
        self.parameters = TcpParameters(port, 1_000_000, 1460, 65535, 7, True, 12345)
        self.installed_with: TcpParameters | None = None
        self.released = False

    def install(self, peer: TcpParameters) -> None:
        """The peer's numbers are checked by whoever calls."""
        assert 0 < peer.port < 65536
        assert peer.mss > 0
        self.installed_with = peer

    def installed(self) -> None:
        """At once."""

    def release(self) -> None:
        """Nothing is on the wire."""
        self.released = True

    def stream(self) -> Carrier:
        """Nothing is read or written here."""
        raise AssertionError("nobody asks for the stream")


class Tcp:
    """Reserves as many as are asked for, and knows them all."""

    def __init__(self) -> None:
        self.endpoints: list[Endpoint] = []

    def reserve(self, port: int | None = None) -> Endpoint:
        """A port in order."""
        self.endpoints.append(Endpoint(port or 50000 + len(self.endpoints)))
        return self.endpoints[-1]


def _later(delay: float, callback: Callable[[], None]) -> Callable[[], None]:
    """Time stands still: what is due later never comes."""
    return lambda: None


def services(
    role: Role,
    *,
    security: Security | None = None,
    tcp: Any = None,
    wishes: Wishes = NONE,
    application: Any = None,
    later: Callable[[float, Callable[[], None]], Callable[[], None]] = _later,
) -> Services:
    """For one negotiation."""
    return Services(
        role=role,
        local=HERE if role is Role.INITIATOR else THERE,
        remote=THERE if role is Role.INITIATOR else HERE,
        now=lambda: 1000.0,
        random=lambda count: b"\x5a" * count,
        call_later=later,
        security=security or Security(),
        tcp=tcp,
        wishes=wishes,
        application=application,
    )
