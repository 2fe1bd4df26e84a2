# SPDX-License-Identifier: Apache-2.0
"""Framing as a node: messages, with their boundaries, over a stream that has none.

    proposal    u32: the longest message that the initiator takes, bytes
    answer      u32: the longest that the responder takes
    commit      nothing

The stream is that of ``framed_carrier``. Each side keeps to the other's bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from accord.negotiation.interface import Answer, Elaboration, Outcome, Refuse, Role, View
from accord.protocols.framed_carrier import FramedCarrier
from accord.protocols.lifecycle import Call
from accord.protocols.services import Carrier, Services
from accord.protocols.stream_layer import StreamLayer
from accord.protocols.wishes import MIN_MESSAGE_LIMIT
from accord.wire.constants import Protocol, Reason

_BYTES: Final = 4


class FramingSession(StreamLayer):
    """One framing node."""

    protocol: int = Protocol.FRAMING
    secure: bool = False
    elaboration: Elaboration = Elaboration.FREE

    def __init__(self, role: Role, services: Services) -> None:
        self._own = services.wishes.message_limit
        self._peers = 0
        self._program_frames = services.wishes.program_frames
        super().__init__("framing", role)

    @property
    def inside(self) -> Mapping[str, object]:
        """What was agreed."""
        return {"longest_sent": self._peers, "longest_received": self._own}

    def propose(self, view: View) -> Outcome:
        """The own bound."""
        self._life.enter(Call.PROPOSE)
        return Answer(self._own.to_bytes(_BYTES, "big"))

    def respond(self, view: View, payload: bytes) -> Outcome:
        """The initiator's bound in, the own out."""
        self._life.enter(Call.RESPOND)
        if not view.below:
            return Refuse(Reason.HANDSHAKE_FAILED, "framing: no stream below to run over")
        return self._take(payload) or Answer(self._own.to_bytes(_BYTES, "big"))

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: the responder's bound. Responder: nothing may come."""
        self._life.enter(Call.ADVANCE)
        if view.role is Role.RESPONDER:
            nothing = Refuse(Reason.HANDSHAKE_FAILED, f"framing: {len(payload)} bytes in the commit")
            return nothing if payload else Answer()
        return self._take(payload) or Answer()

    def carrier(self, below: Carrier | None) -> Carrier:
        """Messages on the stream below; the stream itself, where the program at its end makes them."""
        below = self._above(below)
        return below if self._program_frames else FramedCarrier(below, self._peers, self._own)

    def _take(self, payload: bytes) -> Refuse | None:
        if len(payload) != _BYTES:
            return Refuse(Reason.HANDSHAKE_FAILED, f"framing: a bound of {len(payload)} bytes instead of {_BYTES}")
        self._peers = int.from_bytes(payload, "big")
        if self._peers < MIN_MESSAGE_LIMIT:
            return Refuse(Reason.HANDSHAKE_FAILED, f"framing: the peer takes no message over {self._peers} bytes")
        return None


class FramingPlugin:
    """Messages, found as ``framing``."""

    name: str = "framing"
    protocol: int = Protocol.FRAMING
    repeatable = True
    elaboration: Elaboration = Elaboration.FREE

    def open(self, role: Role, services: Services) -> FramingSession:
        """A session for one node of one negotiation."""
        return FramingSession(role, services)
