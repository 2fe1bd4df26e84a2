# SPDX-License-Identifier: Apache-2.0
"""The initiator of an exchange of three steps, or more (HotNets 2009, sections 2.2 and 2.3), sans-IO.

READY       The graph is given, nothing has been said.
PROPOSING   A session waits for something on this host before it can give its first handshake bytes.
PROPOSED    The proposal is sent, the answer gathers. Whatever is wrong with an answer ends the negotiation:
            the transport delivers one answer, so there is no better one to wait for.
ADVANCING   The answer holds one stack that the policy allows, or several, of which we have chosen one, and a session on
            the way up waits, for example for a certificate to be looked up. Bottom to top: the topmost security
            session is asked, the transcript's MAC checked with its exporter, and only then anything above it believed.
CONTINUED   Something was left open: a session has more to say, a placeholder was to be filled. Our next message is
            sent, and is no commit; the next answer gathers. From here it goes to ADVANCING again.
COMMITTED   The sessions have committed, then the commit was sent: the peer's first segment finds its socket
            (the reset race). The engine repeats the commit. Only an abort of the peer still ends it.
CONFIRMED   The peer's transport has the commit. The peer can still refuse it, so an abort is still heard.
ABORTED     No stack. Nothing has any effect any more.

Stop and Failed before COMMITTED abort; after it Stop comes too late, and Failed says only that the peer's
acknowledgements are missing, not that the stack is.
"""

from __future__ import annotations

import enum
from typing import Final

from accord.negotiation.events import Failed, MessageArrived, MessageComplete, NodeArrived, NodeSkipped, Resume, Stop
from accord.negotiation.machine import EVENT_KINDS, Table


class InitiatorState(enum.Enum):
    """See the module's docstring."""

    __hash__ = object.__hash__  # the library's own is a function in Python, of the name

    READY = "ready"
    PROPOSING = "proposing"
    PROPOSED = "proposed"
    ADVANCING = "advancing"
    CONTINUED = "continued"
    COMMITTED = "committed"
    CONFIRMED = "confirmed"
    ABORTED = "aborted"


_S = InitiatorState
_HANDLED: Final[Table] = {
    (_S.READY, Failed): "_failed",
    (_S.READY, Stop): "_stop",
    (_S.PROPOSING, Failed): "_failed",
    (_S.PROPOSING, Resume): "_resume",
    (_S.PROPOSING, Stop): "_stop",
    (_S.PROPOSED, NodeArrived): "_collect",
    (_S.PROPOSED, NodeSkipped): "_collect",
    (_S.PROPOSED, MessageComplete): "_message",
    (_S.PROPOSED, Failed): "_failed",
    (_S.PROPOSED, Stop): "_stop",
    (_S.CONTINUED, NodeArrived): "_collect",
    (_S.CONTINUED, NodeSkipped): "_collect",
    (_S.CONTINUED, MessageComplete): "_message",
    (_S.CONTINUED, Failed): "_failed",
    (_S.CONTINUED, Stop): "_stop",
    (_S.ADVANCING, NodeArrived): "_collect",
    (_S.ADVANCING, NodeSkipped): "_collect",
    (_S.ADVANCING, MessageComplete): "_message",
    (_S.ADVANCING, Failed): "_failed",
    (_S.ADVANCING, Resume): "_resume",
    (_S.ADVANCING, Stop): "_stop",
    (_S.COMMITTED, NodeArrived): "_collect",
    (_S.COMMITTED, NodeSkipped): "_collect",
    (_S.COMMITTED, MessageComplete): "_message",
    (_S.COMMITTED, MessageArrived): "_confirm",
    (_S.COMMITTED, Failed): "_unconfirmed",
    (_S.CONFIRMED, NodeArrived): "_collect",
    (_S.CONFIRMED, NodeSkipped): "_collect",
    (_S.CONFIRMED, MessageComplete): "_message",
}

TABLE: Final[Table] = {
    (state, kind): _HANDLED.get((state, kind), "_ignore") for state in InitiatorState for kind in EVENT_KINDS
}
