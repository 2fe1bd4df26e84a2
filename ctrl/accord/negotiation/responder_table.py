# SPDX-License-Identifier: Apache-2.0
"""The responder of an exchange of three steps, or more (HotNets 2009, sections 2.2 and 2.3), sans-IO.

COLLECTING  The proposal gathers. Nobody has shown yet that anybody receives at the source address, so what is
            malformed gets silence; a proposal that is sound and comes to nothing gets the reason.
CHOOSING    The policy's best stack is asked for its handshakes, bottom to top, so that a session costs nothing
            when one below it has already refused. A session waits, for example for an early answer. When one
            refuses, its node is pruned and the next best stack is tried, a few times.
ANSWERED    The answer is sent. Its cookie cannot be guessed, so T(1) in a commit proves the peer's address.
ELABORATING The initiator's next message is no commit: it answers what was left open, or fills its placeholders. What
            is new in it is chosen from and asked as in CHOOSING, what goes on is asked, and a session waits. The
            answer to it leads to ANSWERED again.
ADVANCING   The commit is the peer's (T(1), and the MAC where there is a security session); a session waits.
COMMITTED   The sessions have committed. Repetitions of the commit are the engine's to acknowledge.
ABORTED     No stack. Nothing has any effect any more.

The initiator may abort in every state before COMMITTED, also before it has seen our answer.
"""

from __future__ import annotations

import enum
from typing import Final

from accord.negotiation.events import Failed, MessageComplete, NodeArrived, NodeSkipped, Resume, Stop
from accord.negotiation.machine import EVENT_KINDS, Table


class ResponderState(enum.Enum):
    """See the module's docstring."""

    __hash__ = object.__hash__  # the library's own is a function in Python, of the name

    COLLECTING = "collecting"
    CHOOSING = "choosing"
    ANSWERED = "answered"
    ELABORATING = "elaborating"
    ADVANCING = "advancing"
    COMMITTED = "committed"
    ABORTED = "aborted"


_S = ResponderState
_HANDLED: Final[Table] = {
    (_S.COLLECTING, NodeArrived): "_collect",
    (_S.COLLECTING, NodeSkipped): "_collect",
    (_S.COLLECTING, MessageComplete): "_message",
    (_S.COLLECTING, Failed): "_failed",
    (_S.COLLECTING, Stop): "_stop",
    (_S.CHOOSING, NodeArrived): "_collect",
    (_S.CHOOSING, NodeSkipped): "_collect",
    (_S.CHOOSING, MessageComplete): "_message",
    (_S.CHOOSING, Failed): "_failed",
    (_S.CHOOSING, Resume): "_resume",
    (_S.CHOOSING, Stop): "_stop",
    (_S.ANSWERED, NodeArrived): "_collect",
    (_S.ANSWERED, NodeSkipped): "_collect",
    (_S.ANSWERED, MessageComplete): "_message",
    (_S.ANSWERED, Failed): "_failed",
    (_S.ANSWERED, Stop): "_stop",
    (_S.ELABORATING, NodeArrived): "_collect",
    (_S.ELABORATING, NodeSkipped): "_collect",
    (_S.ELABORATING, MessageComplete): "_message",
    (_S.ELABORATING, Failed): "_failed",
    (_S.ELABORATING, Resume): "_resume",
    (_S.ELABORATING, Stop): "_stop",
    (_S.ADVANCING, Failed): "_failed",
    (_S.ADVANCING, Resume): "_resume",
    (_S.ADVANCING, Stop): "_stop",
}

TABLE: Final[Table] = {
    (state, kind): _HANDLED.get((state, kind), "_ignore") for state in ResponderState for kind in EVENT_KINDS
}
