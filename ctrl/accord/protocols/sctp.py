# SPDX-License-Identifier: Apache-2.0
"""Kernel SCTP (RFC 9260) as a node: a plan, which the kernels carry out after the commit.

The responder takes an association from that address and port only. What is above it (TLS, as a rule: SCTP itself
authenticates nobody) has done its handshake in the negotiation, so one round trip of SCTP's own, INIT to COOKIE-ACK,
lies between the commit and the first data.
"""

from __future__ import annotations

from accord.negotiation.interface import Role
from accord.protocols.port_plan import PortPlan
from accord.protocols.services import PlannedPort, Services
from accord.wire.constants import Protocol


class SctpSession(PortPlan[PlannedPort]):
    """One SCTP node."""

    protocol: int = Protocol.SCTP

    def __init__(self, role: Role, services: Services) -> None:
        super().__init__("sctp", "SCTP", role)
        self._services = services

    def _service(self) -> PlannedPort | None:
        return None if self._services.sctp is None else self._services.sctp.reserve()


class SctpPlugin:
    """SCTP, found as ``sctp``."""

    name: str = "sctp"
    protocol: int = Protocol.SCTP

    def open(self, role: Role, services: Services) -> SctpSession:
        """A session for one node of one negotiation."""
        return SctpSession(role, services)
