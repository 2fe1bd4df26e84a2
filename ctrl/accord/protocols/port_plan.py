# SPDX-License-Identifier: Apache-2.0
"""What plans have in common whose connection runs between two ports that the negotiation tells, one of them listening.

proposal    u16 port that the initiator's host will connect from
answer      u16 port that the responder's host listens on, for this one connection
commit      nothing
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Generic, TypeVar

from accord.negotiation.interface import Role
from accord.protocols.plan import Plan
from accord.protocols.services import Carrier, PlannedPort
from accord.wire.constants import Reason
from accord.wire.errors import error

_PORT_BYTES: Final = 2

P = TypeVar("P", bound=PlannedPort)


class PortPlan(Plan[P], Generic[P]):
    """The part of ``Session`` that such protocols share. Of its own each has ``_service``."""

    protocol: int
    secure: bool = False

    def __init__(self, name: str, title: str, role: Role) -> None:
        super().__init__(name, title, role)
        self._role = role
        self._peer_port = 0

    @property
    def inside(self) -> Mapping[str, object]:
        """The two ports."""
        return {} if self._own is None else {"port": self._own.port, "peer_port": self._peer_port}

    def carrier(self, below: Carrier | None) -> Carrier:
        """The connection, on its way. ``below`` is the context's, which has no stream."""
        return self._committed().stream(self._peer_port)

    def _said(self, own: P) -> bytes:
        """A responder listens from now on: the connection may be faster than the commit."""
        if self._role is Role.RESPONDER:
            own.listen()
        return encode(own.port)

    def _hear(self, payload: bytes) -> None:
        self._peer_port = decode(payload, self._title)


def encode(port: int) -> bytes:
    """The payload of a proposal and of an answer."""
    return port.to_bytes(_PORT_BYTES, "big")


def decode(payload: bytes, title: str) -> int:
    """The port; ``title``: of the protocol. Raises ``PeerError`` (HANDSHAKE_FAILED)."""
    port = int.from_bytes(payload, "big")
    if len(payload) != _PORT_BYTES or port == 0:
        raise error(Reason.HANDSHAKE_FAILED, f"{title}: no port in {len(payload)} bytes")
    return port
