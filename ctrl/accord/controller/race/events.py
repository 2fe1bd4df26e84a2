# SPDX-License-Identifier: Apache-2.0
"""What goes into the race of ``controller.race.table`` and what comes out of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, get_args

from accord.wire.constants import Reason
from accord.wire.errors import AccordError

# ---- Events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer is here, with a stack that lacks only the SYN's connection (parallel-syn)."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The negotiated stack is up, every check passed."""


@dataclass(frozen=True, slots=True)
class NegotiationFailed:
    """It came to nothing. ``spoken``: the peer has said something, so it may have suppressed the SYN as well."""

    failure: AccordError
    spoken: bool = False


@dataclass(frozen=True, slots=True)
class SynAck:
    """The plain connection is open. ``heard``: the proposal has been heard over there, as the SYN-ACK's mark says, or a
    challenge that was here before it."""

    heard: bool = False


@dataclass(frozen=True, slots=True)
class PlainSpoken:
    """The peer says something on the connection that the proposal's ClientHello was said over: it serves it plainly."""


@dataclass(frozen=True, slots=True)
class TcpFailed:
    """The plain connection did not open, broke, or TLS on it came to nothing."""

    failure: AccordError


@dataclass(frozen=True, slots=True)
class PlainReady:
    """TLS is ready on the plain connection. ``speaks_accord``: the peer has said in its handshake that it does."""

    speaks_accord: bool = False


@dataclass(frozen=True, slots=True)
class Waited:
    """The time of the last ``Wait`` is over."""


Event = Answered | Committed | NegotiationFailed | SynAck | PlainSpoken | TcpFailed | PlainReady | Waited
EVENT_KINDS: Final[tuple[type, ...]] = get_args(Event)

# ---- Actions ------------------------------------------------------------------------------------


class Syn(enum.Enum):
    """What a SYN's option says."""

    NOTHING = "nothing"
    FALLBACK = "fallback"
    ADOPT = "adopt"


class Patience(enum.Enum):
    """For what, and so for how long, is waited."""

    ANSWER = "answer"
    """At an open connection: two of the SYN's own round trips, and what a responder may take."""
    SILENCE = "silence"
    """``fallback = "delayed"``: until a peer that says nothing is taken for one without Accord."""


@dataclass(frozen=True, slots=True)
class Propose:
    """Let the negotiation begin."""


@dataclass(frozen=True, slots=True)
class Open:
    """Open a connection; there is none at this moment."""

    syn: Syn


@dataclass(frozen=True, slots=True)
class Adopt:
    """Give the open connection to the negotiation, which lacks nothing else."""


@dataclass(frozen=True, slots=True)
class Greet:
    """Say the proposal's ClientHello over the open connection, which may still become the negotiation's."""


@dataclass(frozen=True, slots=True)
class Secure:
    """Set up TLS on the open connection, or go on with it where it has been greeted."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection, however far it is."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Say ``Waited`` after a while, once; a later ``Wait`` takes this one's place."""

    patience: Patience


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the negotiation from this side."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Negotiated:
    """The end: the negotiated stack."""


@dataclass(frozen=True, slots=True)
class FellBack:
    """The end: the plain connection, and why."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The end: nothing."""

    failure: AccordError


Action = Propose | Open | Adopt | Greet | Secure | Close | Wait | GiveUp | Negotiated | FellBack | Failed
