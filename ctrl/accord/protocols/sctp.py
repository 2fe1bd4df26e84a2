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

from accord.negotiation.interface import Answer, Outcome, Refuse, Role, View
from accord.protocols.lifecycle import Call
from accord.protocols.services import Carrier, SctpPort, Services
from accord.protocols.stream_layer import StreamLayer
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, error

_PORT_BYTES: Final = 2


class SctpSession(StreamLayer):
    """One SCTP node."""

    protocol: int = Protocol.SCTP
    secure: bool = False

    def __init__(self, role: Role, services: Services) -> None:
        super().__init__("sctp", role)
        self._services = services
        self._own: SctpPort | None = None
        self._peer_port = 0

    @property
    def inside(self) -> Mapping[str, object]:
        """The two ports."""
        return {} if self._own is None else {"port": self._own.port, "peer_port": self._peer_port}

    def propose(self, view: View) -> Outcome:
        """The own port. Refuses without kernel SCTP (NO_KERNEL_SUPPORT)."""
        self._life.enter(Call.PROPOSE)
        try:
            return Answer(_encode(self._reserve().port))
        except AccordError as failure:
            return self._refuse(failure)

    def respond(self, view: View, payload: bytes) -> Outcome:
        """The initiator's port in, the own out, on which is listened from now on: the association may be faster than
        the commit."""
        self._life.enter(Call.RESPOND)
        try:
            if view.below:
                raise error(Reason.HANDSHAKE_FAILED, "SCTP: runs on the context, not on another protocol")
            self._peer_port = _decode(payload)
            own = self._reserve()
            own.listen()
        except AccordError as failure:
            return self._refuse(failure)
        return Answer(_encode(own.port))

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: the responder's port in. Responder: nothing."""
        self._life.enter(Call.ADVANCE)
        try:
            if view.role is Role.INITIATOR:
                self._peer_port = _decode(payload)
            elif payload:
                raise error(Reason.HANDSHAKE_FAILED, f"SCTP: {len(payload)} bytes in the commit, which has none")
        except AccordError as failure:
            return self._refuse(failure)
        return Answer()

    def prune(self, reason: Reason) -> None:
        """Give the port back."""
        if self._life.leave():
            self._release()

    def abort(self, reason: Reason) -> None:
        """Give the port back."""
        self.prune(reason)

    def carrier(self, below: Carrier | None) -> Carrier:
        """The association, on its way. ``below`` is the context's, which has no stream."""
        self._life.enter(Call.CARRIER)
        assert self._own is not None, "what is committed was reserved"
        return self._own.stream(self._peer_port)

    def _reserve(self) -> SctpPort:
        service = self._services.sctp
        if service is None:
            raise error(
                Reason.NO_KERNEL_SUPPORT,
                "SCTP: not on this host, or not in its policy",
                "name sctp in prefer; accord doctor",
            )
        self._release()  # of a candidate stack before this one
        self._own = service.reserve()
        return self._own

    def _release(self) -> None:
        if self._own is not None:
            self._own.release()

    def _refuse(self, failure: AccordError) -> Refuse:
        self._release()
        self._own = None
        return Refuse(failure.reason, f"{failure.detail} ({failure.mend})" if failure.mend else failure.detail)


class SctpPlugin:
    """SCTP, found as ``sctp``."""

    name: str = "sctp"
    protocol: int = Protocol.SCTP

    def open(self, role: Role, services: Services) -> SctpSession:
        """A session for one node of one negotiation."""
        return SctpSession(role, services)


def _encode(port: int) -> bytes:
    return port.to_bytes(_PORT_BYTES, "big")


def _decode(payload: bytes) -> int:
    port = int.from_bytes(payload, "big")
    if len(payload) != _PORT_BYTES or port == 0:
        raise error(Reason.HANDSHAKE_FAILED, f"SCTP: no port in {len(payload)} bytes")
    return port
