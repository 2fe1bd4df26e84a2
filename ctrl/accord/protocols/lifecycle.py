# SPDX-License-Identifier: Apache-2.0
"""In which order a session's methods may be called: one table for every plug-in.

The phases are those of ``negotiation.interface``. An initiator proposes, advances with the answer and is
committed; a responder responds (perhaps after waiting), advances with the commit and is committed.
``respond`` may come again, because the responder goes through candidate stacks and one session may be part
of several: the last call counts. ``prune`` and ``abort`` may come at any time before ``commit`` and more than
once. After ``commit`` the connection is its carrier's, so a late ``abort`` changes nothing.
"""

from __future__ import annotations

import enum
from typing import Final

from accord.negotiation.interface import Role
from accord.wire.constants import Reason
from accord.wire.errors import error


class Phase(enum.Enum):
    """How far a session has come."""

    __hash__ = object.__hash__  # the library's own is a function in Python, of the name

    OPEN = "open"
    PROPOSED = "proposed"
    ANSWERED = "answered"
    READY = "ready"
    COMMITTED = "committed"
    GONE = "gone"


class Call(enum.Enum):
    """The calls that are bound to an order."""

    __hash__ = object.__hash__  # the library's own is a function in Python, of the name

    PROPOSE = "propose"
    RESPOND = "respond"
    RESUME = "resume"
    ADVANCE = "advance"
    COMMIT = "commit"
    CARRIER = "carrier"


LEGAL: Final[dict[tuple[Role, Phase, Call], Phase]] = {
    (Role.INITIATOR, Phase.OPEN, Call.PROPOSE): Phase.PROPOSED,
    (Role.INITIATOR, Phase.PROPOSED, Call.ADVANCE): Phase.READY,
    (Role.INITIATOR, Phase.PROPOSED, Call.RESUME): Phase.PROPOSED,
    (Role.INITIATOR, Phase.READY, Call.RESUME): Phase.READY,
    (Role.INITIATOR, Phase.READY, Call.ADVANCE): Phase.READY,
    (Role.INITIATOR, Phase.READY, Call.COMMIT): Phase.COMMITTED,
    (Role.INITIATOR, Phase.COMMITTED, Call.CARRIER): Phase.COMMITTED,
    (Role.RESPONDER, Phase.OPEN, Call.RESPOND): Phase.ANSWERED,
    (Role.RESPONDER, Phase.ANSWERED, Call.RESPOND): Phase.ANSWERED,
    (Role.RESPONDER, Phase.ANSWERED, Call.RESUME): Phase.ANSWERED,
    (Role.RESPONDER, Phase.ANSWERED, Call.ADVANCE): Phase.READY,
    (Role.RESPONDER, Phase.READY, Call.RESUME): Phase.READY,
    (Role.RESPONDER, Phase.READY, Call.ADVANCE): Phase.READY,
    (Role.RESPONDER, Phase.READY, Call.COMMIT): Phase.COMMITTED,
    (Role.RESPONDER, Phase.COMMITTED, Call.CARRIER): Phase.COMMITTED,
}


class Lifecycle:
    """The phase of one session."""

    def __init__(self, name: str, role: Role) -> None:
        self.role: Final = role
        self.phase = Phase.OPEN
        self._name = name

    def enter(self, call: Call) -> None:
        """Take the step that ``call`` is. Raises ``OurError`` (``PLUGIN_FAILED``) when it is out of order."""
        after = LEGAL.get((self.role, self.phase, call))
        if after is None:
            raise error(
                Reason.PLUGIN_FAILED, f"{self._name}: {call.value} of {self.role.value} in phase {self.phase.value}"
            )
        self.phase = after

    def leave(self) -> bool:
        """``prune`` or ``abort``: whether there is anything to forget."""
        if self.phase in (Phase.COMMITTED, Phase.GONE):
            return False
        self.phase = Phase.GONE
        return True
