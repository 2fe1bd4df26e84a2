# SPDX-License-Identifier: Apache-2.0
"""How an association goes over from one stack to the next, at one of its ends, sans-IO.

The two ends keep the roles of the association's first negotiation. Only the initiator proposes; a responder that wants
another stack asks it to. So two changes cannot cross, whoever begins them. The initiator is also the one that decides
that a change is made, for one of two has to: it says hello on the next stack only after the responder has, and what is
said by then has shown that the next stack works both ways.

STEADY       One stack carries both directions.
NEGOTIATING  Another one is being negotiated. Data goes on over the old one, and so if nothing comes of it.
GREETING     The next stack is up here. The responder has said hello on it and awaits the initiator's; the initiator
             awaits the responder's. Data goes on over the old one.
             To the initiator the old one's end is what it always was: the responder cannot have moved. To the responder
             it may be the initiator's move, so it waits to hear which.
DOUBTFUL     Responder: the next stack failed before the initiator's hello came. It may have been said, and lost with
             the stack: then the old one's end was no end, and data is missing. The initiator says that the change is
             off, or proposes again, or does neither, and then such an end is an error. Data goes on as before.
MOVED        The hellos are exchanged: what this end sends from now on goes over the next stack, behind the count of
             all that it has sent before, and the old one's direction is ended. What comes is read from the old one to
             its end, and then from the next. Both done, it is STEADY again. A failure now is the association's.
BROKEN       The association is over.

What the table keeps to: an end moves only when the other has said hello; nobody takes the end of a moved direction for
the end of the data; until the initiator says hello any failure leaves the old stack as it was.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from accord.negotiation.interface import Role


class State(enum.Enum):
    """See the module's docstring."""

    STEADY = "steady"
    NEGOTIATING = "negotiating"
    GREETING = "greeting"
    DOUBTFUL = "doubtful"
    MOVED = "moved"
    BROKEN = "broken"


class Event(enum.Enum):
    """What happens."""

    BEGIN = "BEGIN"
    """A proposal is to be made, or has come."""
    UP = "UP"
    """The next stack is committed here."""
    GREETED = "GREETED"
    """The other end's hello is here, and right."""
    FAILED = "FAILED"
    """The negotiation, or the next stack, came to nothing."""
    OFF = "OFF"
    """Responder: the initiator says that it has not moved and will not."""
    END = "END"
    """The peer has ended its direction of the stack that is being read."""
    RESUMED = "RESUMED"
    """Both directions are on the next stack here."""
    LOST = "LOST"
    """The stack that carries the data broke, or this end does not want it any more."""


class Do(enum.Enum):
    """What is to be done."""

    NOTHING = ""
    BEGIN = "begin"
    REFUSE = "refuse"
    """Another change is not over."""
    AWAIT_HELLO = "await hello"
    SAY_HELLO = "say hello"
    """And await the other end's."""
    SAY_HELLO_AND_MOVE = "say hello, move"
    MOVE = "move"
    DROP = "drop"
    """The next stack."""
    CALL_OFF = "call off"
    """Drop the next stack, and tell the responder."""
    DROP_AND_BEGIN = "drop, begin"
    END = "end"
    """The data's end, for whoever reads."""
    HOLD = "hold"
    """Until it is known what the end was."""
    FOLLOW = "follow"
    """Read on from the next stack."""
    RETIRE = "retire old"
    BREAK = "break"


_S, _E, _D = State, Event, Do
_BOTH: Final[Mapping[tuple[State, Event], tuple[Do, State]]] = {
    (_S.STEADY, _E.BEGIN): (_D.BEGIN, _S.NEGOTIATING),
    (_S.STEADY, _E.END): (_D.END, _S.STEADY),
    (_S.STEADY, _E.LOST): (_D.BREAK, _S.BROKEN),
    (_S.NEGOTIATING, _E.BEGIN): (_D.REFUSE, _S.NEGOTIATING),
    (_S.NEGOTIATING, _E.FAILED): (_D.NOTHING, _S.STEADY),
    (_S.NEGOTIATING, _E.END): (_D.END, _S.NEGOTIATING),
    (_S.NEGOTIATING, _E.LOST): (_D.BREAK, _S.BROKEN),
    (_S.GREETING, _E.LOST): (_D.BREAK, _S.BROKEN),
    (_S.MOVED, _E.BEGIN): (_D.REFUSE, _S.MOVED),
    (_S.MOVED, _E.FAILED): (_D.BREAK, _S.BROKEN),
    (_S.MOVED, _E.END): (_D.FOLLOW, _S.MOVED),
    (_S.MOVED, _E.RESUMED): (_D.RETIRE, _S.STEADY),
    (_S.MOVED, _E.LOST): (_D.BREAK, _S.BROKEN),
    (_S.BROKEN, _E.BEGIN): (_D.REFUSE, _S.BROKEN),
    (_S.BROKEN, _E.UP): (_D.DROP, _S.BROKEN),
}
TABLE: Final[Mapping[Role, Mapping[tuple[State, Event], tuple[Do, State]]]] = {
    Role.INITIATOR: {
        **_BOTH,
        (_S.NEGOTIATING, _E.UP): (_D.AWAIT_HELLO, _S.GREETING),
        (_S.GREETING, _E.BEGIN): (_D.REFUSE, _S.GREETING),
        (_S.GREETING, _E.GREETED): (_D.SAY_HELLO_AND_MOVE, _S.MOVED),
        (_S.GREETING, _E.FAILED): (_D.CALL_OFF, _S.STEADY),
        (_S.GREETING, _E.END): (_D.END, _S.GREETING),
    },
    Role.RESPONDER: {
        **_BOTH,
        (_S.NEGOTIATING, _E.UP): (_D.SAY_HELLO, _S.GREETING),
        # Whoever proposes has not moved, whatever became of the change before.
        (_S.GREETING, _E.BEGIN): (_D.DROP_AND_BEGIN, _S.NEGOTIATING),
        (_S.GREETING, _E.GREETED): (_D.MOVE, _S.MOVED),
        (_S.GREETING, _E.FAILED): (_D.DROP, _S.DOUBTFUL),
        (_S.GREETING, _E.OFF): (_D.DROP, _S.STEADY),
        (_S.GREETING, _E.END): (_D.HOLD, _S.GREETING),
        (_S.DOUBTFUL, _E.BEGIN): (_D.BEGIN, _S.NEGOTIATING),
        (_S.DOUBTFUL, _E.OFF): (_D.NOTHING, _S.STEADY),
        (_S.DOUBTFUL, _E.END): (_D.HOLD, _S.DOUBTFUL),
        (_S.DOUBTFUL, _E.LOST): (_D.BREAK, _S.BROKEN),
    },
}
"""What is not in it changes nothing: a repetition, or too late."""


class Turn:
    """The state of one end."""

    def __init__(self, role: Role) -> None:
        self.role: Final = role
        self.state = State.STEADY

    def take(self, event: Event) -> Do:
        """What is to be done about an event."""
        do, self.state = TABLE[self.role].get((self.state, event), (Do.NOTHING, self.state))
        return do
