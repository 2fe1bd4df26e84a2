# SPDX-License-Identifier: Apache-2.0
"""Kernel SCTP (RFC 9260) as a node: a plan, which the kernels carry out after the commit.

    proposal    u16 port that the initiator's host will associate from
    answer      u16 port that the responder's host listens on, for this one association
    commit      nothing

The responder takes an association from that address and port only. What is above it (TLS, as a rule: SCTP itself
authenticates nobody) has done its handshake in the negotiation, so one round trip of SCTP's own, INIT to COOKIE-ACK,
lies between the commit and the first data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from accord.negotiation.interface import Role
from accord.protocols.plan import Plan
from accord.protocols.services import Carrier, SctpPort, Services
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import error

_PORT_BYTES: Final = 2


class SctpSession(Plan[SctpPort]):
    """One SCTP node."""

    protocol: int = Protocol.SCTP
    secure: bool = False

    def __init__(self, role: Role, services: Services) -> None:
        super().__init__("sctp", "SCTP", role)
        self._role = role
        self._services = services
        self._peer_port = 0

    @property
    def inside(self) -> Mapping[str, object]:
        """The two ports."""
        return {} if self._own is None else {"port": self._own.port, "peer_port": self._peer_port}

    def carrier(self, below: Carrier | None) -> Carrier:
        """The association, on its way. ``below`` is the context's, which has no stream."""
        return self._committed().stream(self._peer_port)

    def _service(self) -> SctpPort | None:
        return None if self._services.sctp is None else self._services.sctp.reserve()

    def _said(self, own: SctpPort) -> bytes:
        """A responder listens from now on: the association may be faster than the commit."""
        if self._role is Role.RESPONDER:
            own.listen()
        return encode(own.port)

    def _hear(self, payload: bytes) -> None:
        self._peer_port = decode(payload)


class SctpPlugin:
    """SCTP, found as ``sctp``."""

    name: str = "sctp"
    protocol: int = Protocol.SCTP

    def open(self, role: Role, services: Services) -> SctpSession:
        """A session for one node of one negotiation."""
        return SctpSession(role, services)


def encode(port: int) -> bytes:
    """The payload of a proposal and of an answer."""
    return port.to_bytes(_PORT_BYTES, "big")


def decode(payload: bytes) -> int:
    """The port. Raises ``PeerError`` (HANDSHAKE_FAILED)."""
    port = int.from_bytes(payload, "big")
    if len(payload) != _PORT_BYTES or port == 0:
        raise error(Reason.HANDSHAKE_FAILED, f"SCTP: no port in {len(payload)} bytes")
    return port
