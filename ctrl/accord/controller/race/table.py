# SPDX-License-Identifier: Apache-2.0
"""The race between a negotiation and the plain connection beside it (HotNets 2009, section 5), sans-IO.

Events say what was seen, actions what is to be done, in order; neither holds a socket, a clock or a future. The first
answer that arrives decides, whichever it is: there is no head start for anybody. docs/PROTOCOL.md, section 10.1, has
the rules and this table.

READY       Nothing has left.

The negotiation is on, and a connection is

ALONE       not there: not yet (``delayed``), not at all (``never``), or it has failed. The negotiation decides.
BESIDE      no-syn: on its way, by a SYN that the negotiation makes superfluous. Bare TCP that is wanted for its own
            sake wins with the SYN-ACK: the answer of a peer with Accord comes before it, since there the SYN is
            suppressed. Where TLS has to follow, the SYN-ACK decides nothing yet.
RACING      no-syn: open, and TLS is being set up on it. An answer that comes before that is done still wins.
            (Unless a challenge was here before the SYN-ACK: then WAITING.)
OFFERED     parallel-syn: on its way, by a SYN whose connection may become the negotiated one, and else is the plain
            one. There is no other SYN, and nothing to be suppressed.
WAITING     Open. The answer is worth a wait: the proposal has been heard over there, as the SYN-ACK's mark says
            (parallel-syn), or a challenge that came before it; or (parallel-syn) this peer is known to answer, or the
            policy has no plain connection, or not before a while. A challenge costs the answer a round trip, which
            says nothing about which stack is the better one. Not heard and not known, bare TCP is plain at once: its
            bytes belong to a plain stream, so from then on the answer comes too late, and is only remembered.
GREETED     parallel-syn: open, and the proposal's ClientHello has been said over it. A peer without Accord takes that
            for what it is, and answers there; one with Accord finds the connection by it, and its answer is the
            negotiation's. Whichever comes first decides, and neither has waited for the other.
ANSWERED    parallel-syn: on its way, and the answer is here, with a stack that lacks only this connection.
ADOPTING    parallel-syn: open, and the negotiation's own.

The negotiation has ended without a stack, and the connection is

OPENING     on its way.
SECURING    open, and TLS is being set up on it.

NEGOTIATED, FELL_BACK, FAILED: the three ends. Nothing has any effect any more.

What the table keeps to: exactly one end; the loser closed before it; with security required no stream before TLS on it
is ready; no plain stream where the policy has none, nor after a failure that somebody may have brought about in order
to be met with less (``FINAL``).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from accord.controller.race.events import (
    Action,
    Adopt,
    Answered,
    Close,
    Committed,
    Event,
    Failed,
    FellBack,
    GiveUp,
    Greet,
    Negotiated,
    NegotiationFailed,
    Open,
    Patience,
    PlainReady,
    PlainSpoken,
    Propose,
    Secure,
    Syn,
    SynAck,
    TcpFailed,
    Wait,
    Waited,
)
from accord.controller.settings.policy import Fallback, TcpOpen
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

FINAL: Final = frozenset(
    {
        Reason.BAD_CERTIFICATE,
        Reason.CERTIFICATE_EXPIRED,
        Reason.CERTIFICATE_NAME,
        Reason.BAD_MAC,
        Reason.BAD_TRANSCRIPT,
        Reason.DOWNGRADE,
        Reason.BAD_CONFIG,
    }
)
"""Failures of a negotiation after which nothing weaker is tried."""
_SILENCE: Final = frozenset({Reason.UNREACHABLE, Reason.TIMEOUT})
"""Failures that say nothing but that nobody answered."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for one race."""

    tcp: TcpOpen
    """NO_SYN or PARALLEL_SYN: ``auto`` has been decided."""
    fallback: Fallback
    bare: bool
    """The plain connection is to be bare TCP."""
    propose: bool = True
    """False: the peer is known not to answer. Where there is no plain connection it is asked all the same."""
    patient: bool = False
    """The peer is known to answer, so that its answer is worth a wait at an unmarked SYN-ACK (parallel-syn)."""
    trusts_mark: bool = True
    """A mark, or a challenge, is worth that wait. False: lately it was in vain, more than once."""
    made: bool = True
    """The proposal is ready to leave. Otherwise the SYN leaves while it is made."""
    refuses_forced: bool = False
    """A plain connection whose TLS says that both ends speak Accord is not taken."""


class State(enum.Enum):
    """See the module's docstring."""

    __hash__ = object.__hash__  # the library's own is a function in Python, of the name

    READY = "ready"
    ALONE = "alone"
    BESIDE = "beside"
    RACING = "racing"
    OFFERED = "offered"
    WAITING = "waiting"
    GREETED = "greeted"
    ANSWERED = "answered"
    ADOPTING = "adopting"
    OPENING = "opening"
    SECURING = "securing"
    NEGOTIATED = "negotiated"
    FELL_BACK = "fell back"
    FAILED = "failed"


ENDS: Final = frozenset({State.NEGOTIATED, State.FELL_BACK, State.FAILED})

_S = State
TABLE: Final[Mapping[tuple[State, type], str]] = {
    (_S.ALONE, Answered): "_fail_without_connection",
    (_S.ALONE, Committed): "_take_negotiated",
    (_S.ALONE, NegotiationFailed): "_open_or_fail",
    (_S.ALONE, Waited): "_open_after_silence",
    (_S.BESIDE, Committed): "_close_and_take_negotiated",
    (_S.BESIDE, NegotiationFailed): "_open_anew_or_go_on",
    (_S.BESIDE, SynAck): "_take_bare_or_secure",
    (_S.BESIDE, TcpFailed): "_go_on_alone",
    (_S.RACING, Committed): "_close_and_take_negotiated",
    (_S.RACING, NegotiationFailed): "_go_on_plain",
    (_S.RACING, TcpFailed): "_go_on_alone",
    (_S.RACING, PlainReady): "_take_plain",
    (_S.OFFERED, Answered): "_await_connection",
    (_S.OFFERED, Committed): "_close_and_take_negotiated",
    (_S.OFFERED, NegotiationFailed): "_go_on_plain",
    (_S.OFFERED, SynAck): "_wait_or_go_plain",
    (_S.OFFERED, TcpFailed): "_go_on_alone",
    (_S.OFFERED, Waited): "_end_silence",
    (_S.WAITING, Answered): "_adopt",
    (_S.WAITING, Committed): "_close_and_take_negotiated",
    (_S.WAITING, NegotiationFailed): "_go_on_plain",
    (_S.WAITING, TcpFailed): "_go_on_alone",
    (_S.WAITING, Waited): "_end_wait",
    (_S.GREETED, Answered): "_adopt",
    (_S.GREETED, Committed): "_close_and_take_negotiated",
    (_S.GREETED, NegotiationFailed): "_go_on_plain",
    (_S.GREETED, PlainSpoken): "_give_up_and_go_on_plain",
    (_S.GREETED, TcpFailed): "_go_on_alone",
    (_S.GREETED, Waited): "_end_wait",
    (_S.ANSWERED, NegotiationFailed): "_go_on_plain",
    (_S.ANSWERED, SynAck): "_adopt",
    (_S.ANSWERED, TcpFailed): "_fail_without_connection",
    (_S.ADOPTING, Committed): "_take_negotiated",
    (_S.ADOPTING, NegotiationFailed): "_go_on_plain",
    (_S.OPENING, SynAck): "_take_bare_or_secure",
    (_S.OPENING, TcpFailed): "_fail",
    (_S.SECURING, TcpFailed): "_fail",
    (_S.SECURING, PlainReady): "_take_plain",
}
"""What is not in it has no effect: a repetition, or too late."""


class Race:
    """One race. Call ``start`` once, then ``receive`` for each event; carry the actions out in their order."""

    def __init__(self, rules: Rules) -> None:
        if rules.tcp is TcpOpen.AUTO:
            raise ValueError("auto is to be decided before the race")
        self.rules = rules
        self.state = State.READY
        self._negotiation: AccordError | None = None
        """Why the negotiation ended."""
        self._connection: AccordError | None = None
        """Why there is no connection."""
        self._why: tuple[Reason, str] = (Reason.LEGACY_FIRST, "")
        """Why the plain connection is taken, if it is."""

    @property
    def over(self) -> bool:
        """One of the ends."""
        return self.state in ENDS

    def start(self) -> tuple[Action, ...]:
        """The first actions."""
        if self.state is not State.READY:
            return ()
        rules = self.rules
        if not rules.propose and rules.fallback is not Fallback.NEVER:
            self._why = (Reason.KNOWN_LEGACY, "it is asked again when that is forgotten: accord peers")
            return self._enter(State.OPENING, Open(Syn.NOTHING))
        silence = (Wait(Patience.SILENCE),) if rules.fallback is Fallback.DELAYED else ()
        if rules.tcp is TcpOpen.PARALLEL_SYN:
            # Where the SYN-ACK may be greeted it need not be marked, so the SYN need not come second.
            if not (rules.made or rules.bare or rules.patient) and rules.fallback is Fallback.PARALLEL:
                return self._enter(State.OFFERED, Open(Syn.ADOPT), Propose())
            return self._enter(State.OFFERED, Propose(), Open(Syn.ADOPT), *silence)
        if rules.fallback is Fallback.PARALLEL:
            return self._enter(State.BESIDE, Propose(), Open(Syn.FALLBACK))
        return self._enter(State.ALONE, Propose(), *silence)

    def receive(self, event: Event) -> tuple[Action, ...]:
        """What follows from one event."""
        name = TABLE.get((self.state, type(event)))
        if name is None:
            return ()
        handler: Callable[[Any], tuple[Action, ...]] = getattr(self, name)
        return handler(event)

    def _enter(self, state: State, *actions: Action) -> tuple[Action, ...]:
        self.state = state
        return actions

    # ---- the negotiation has a stack ----

    def _take_negotiated(self, event: Committed) -> tuple[Action, ...]:
        return self._enter(State.NEGOTIATED, Negotiated())

    def _close_and_take_negotiated(self, event: Committed) -> tuple[Action, ...]:
        return self._enter(State.NEGOTIATED, Close(), Negotiated())

    def _await_connection(self, event: Answered) -> tuple[Action, ...]:
        return self._enter(State.ANSWERED)

    def _adopt(self, event: Answered | SynAck) -> tuple[Action, ...]:
        return self._enter(State.ADOPTING, Adopt())

    def _fail_without_connection(self, event: Answered | TcpFailed) -> tuple[Action, ...]:
        """An answer that needs the connection, and the connection has failed; whichever came first."""
        if isinstance(event, TcpFailed):
            self._connection = event.failure
        failure = self._connection
        if failure is None:  # no-syn: there is nothing that it could lack
            return ()
        return self._enter(State.FAILED, GiveUp(failure.reason), Failed(failure))

    # ---- the negotiation has none ----

    def _open_or_fail(self, event: NegotiationFailed) -> tuple[Action, ...]:
        self._negotiation = event.failure
        if self._may_open() and self._may_fall_back(event.failure):
            self._blame(event.failure)
            return self._enter(State.OPENING, Open(Syn.NOTHING))
        return self._both_failed()

    def _open_anew_or_go_on(self, event: NegotiationFailed) -> tuple[Action, ...]:
        """A peer that has spoken may have suppressed the SYN: not waited for its repetition, which takes a second."""
        if event.spoken and self._may_fall_back(event.failure):
            self._negotiation = event.failure  # what is told if the new connection fails as well
            self._blame(event.failure)
            return self._enter(State.OPENING, Close(), Open(Syn.NOTHING))
        return self._go_on_plain(event)

    def _go_on_plain(self, event: NegotiationFailed) -> tuple[Action, ...]:
        self._negotiation = event.failure
        if not self._may_fall_back(event.failure):
            return self._enter(State.FAILED, Close(), Failed(event.failure))
        self._blame(event.failure)
        if self.state is State.RACING:
            return self._enter(State.SECURING)  # TLS has begun
        if self.state in (State.WAITING, State.GREETED, State.ADOPTING):
            return self._plain()
        return self._enter(State.OPENING)

    def _open_after_silence(self, event: Waited) -> tuple[Action, ...]:
        if not self._may_open():  # the connection has failed before, so the negotiation is all there is
            return ()
        return self._silent(Open(Syn.NOTHING))

    def _end_silence(self, event: Waited) -> tuple[Action, ...]:
        return self._silent() if self.rules.fallback is Fallback.DELAYED else ()

    def _silent(self, *then: Action) -> tuple[Action, ...]:
        self._negotiation = _unanswered()
        self._blame(self._negotiation)
        return self._enter(State.OPENING, GiveUp(Reason.TIMEOUT), *then)

    # ---- the connection ----

    def _take_bare_or_secure(self, event: SynAck) -> tuple[Action, ...]:
        if self.state is State.OPENING:
            return self._plain()
        if event.heard and self.rules.trusts_mark:
            return self._enter(State.WAITING, Wait(Patience.ANSWER))
        if self.rules.bare:
            return self._plain(GiveUp(Reason.LEGACY_FIRST))
        return self._enter(State.RACING, Secure())

    def _wait_or_go_plain(self, event: SynAck) -> tuple[Action, ...]:
        if self.rules.fallback is not Fallback.PARALLEL:
            return self._enter(State.WAITING)  # bounded by silence, or by the negotiation's own end
        if self.rules.patient or (event.heard and self.rules.trusts_mark):
            return self._enter(State.WAITING, Wait(Patience.ANSWER))
        if not self.rules.bare:
            return self._enter(State.GREETED, Greet(), Wait(Patience.ANSWER))
        return self._plain(GiveUp(Reason.LEGACY_FIRST))

    def _give_up_and_go_on_plain(self, event: PlainSpoken) -> tuple[Action, ...]:
        return self._plain(GiveUp(Reason.LEGACY_FIRST))

    def _end_wait(self, event: Waited) -> tuple[Action, ...]:
        if self.rules.fallback is Fallback.NEVER:
            return ()
        if self.rules.fallback is Fallback.DELAYED:
            self._blame(_unanswered())
        else:
            self._why = (Reason.LEGACY_FIRST, "the answer was waited for, and did not come in time")
        return self._plain(GiveUp(Reason.LEGACY_FIRST))

    def _plain(self, *first: Action) -> tuple[Action, ...]:
        """The open connection is the plain one from now on."""
        if self.rules.bare:
            return self._enter(State.FELL_BACK, *first, FellBack(*self._why))
        return self._enter(State.SECURING, *first, Secure())

    def _take_plain(self, event: PlainReady) -> tuple[Action, ...]:
        if event.speaks_accord:
            self._why = (Reason.FORCED_FALLBACK, _forced(*self._why))
            if self.rules.refuses_forced:
                return self._refuse_forced()
        first = (GiveUp(Reason.LEGACY_FIRST),) if self.state is State.RACING else ()
        return self._enter(State.FELL_BACK, *first, FellBack(*self._why))

    def _refuse_forced(self) -> tuple[Action, ...]:
        """As if the connection had failed: what is left is the negotiation, if that is still on."""
        self._connection = error(*self._why)
        if self.state is State.RACING:
            return self._enter(State.ALONE, Close())
        return self._enter(State.FAILED, Close(), Failed(self._connection))

    def _go_on_alone(self, event: TcpFailed) -> tuple[Action, ...]:
        self._connection = event.failure
        return self._enter(State.ALONE)

    def _fail(self, event: TcpFailed) -> tuple[Action, ...]:
        self._connection = event.failure
        return self._both_failed()

    # ---- reasons ----

    def _may_open(self) -> bool:
        """The policy allows a connection that has not been tried yet."""
        rules = self.rules
        return rules.tcp is TcpOpen.NO_SYN and rules.fallback is Fallback.DELAYED and self._connection is None

    def _may_fall_back(self, failure: AccordError) -> bool:
        """A peer without Accord, or without a common stack, is reached as always; a forged or broken one is not."""
        return self.rules.fallback is not Fallback.NEVER and failure.reason not in FINAL

    def _blame(self, failure: AccordError) -> None:
        silent = failure.reason in _SILENCE
        self._why = (Reason.LEGACY_PEER if silent else failure.reason, str(failure))

    def _both_failed(self) -> tuple[Action, ...]:
        """The connection's failure is what a host without Accord would see, unless the peer's answer says why."""
        told = self._negotiation
        if self._connection is not None and (told is None or told.reason in _SILENCE):
            told = self._connection
        assert told is not None, "both have failed"
        return self._enter(State.FAILED, Failed(told))


def _forced(reason: Reason, detail: str) -> str:
    """Nobody vouches for why there was no negotiated stack: packets were lost, or somebody has seen to it."""
    return f"all that was seen of the negotiation is: {detail or reason.text} [{reason.name}]"


def _unanswered() -> AccordError:
    return error(Reason.TIMEOUT, "no answer to the proposal in the time that the policy gives it")
