# SPDX-License-Identifier: Apache-2.0
"""The race between a negotiation and the plain connection, in every order of what can happen."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field, replace
from unittest.mock import ANY

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.controller.race import events as e
from accord.controller.race.table import ENDS, FINAL, TABLE, Race, Rules, State
from accord.controller.settings.policy import Fallback, TcpOpen
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

SILENT = error(Reason.TIMEOUT, "silent")
REFUSED = error(Reason.NO_COMMON_STACK, "refused")
FORGED = error(Reason.BAD_CERTIFICATE, "forged")
BROKEN = error(Reason.UNREACHABLE, "connection refused")
ALL_RULES = [
    Rules(tcp, fallback, bare, propose, patient, trusts_mark, made, refuses_forced)
    for tcp in (TcpOpen.NO_SYN, TcpOpen.PARALLEL_SYN)
    for fallback in Fallback
    for bare, propose, patient, trusts_mark, made, refuses_forced in itertools.product((False, True), repeat=6)
]


@dataclass
class World:
    """What the actions have brought about, and what may still happen. Checks each action as it is taken."""

    rules: Rules
    race: Race = field(init=False)
    negotiating: bool = False
    stack_is_above_tcp: bool = False
    answered: bool = False
    connection: str = ""
    """Empty: none; opening, open, greeted, securing, secure, adopted."""
    syn: e.Syn | None = None
    waiting: e.Patience | None = None
    failures: list[AccordError] = field(default_factory=list)
    end: e.Action | None = None
    opened: int = 0

    def __post_init__(self) -> None:
        self.race = Race(self.rules)
        self.carry_out(self.race.start())

    def carry_out(self, actions: tuple[e.Action, ...]) -> None:
        for action in actions:
            assert self.end is None, f"{action} after {self.end}"
            match action:
                case e.Propose():
                    assert not self.negotiating
                    self.negotiating = True
                case e.Open(syn):
                    assert not self.connection, "there was one already"
                    assert syn is not e.Syn.ADOPT or self.rules.tcp is TcpOpen.PARALLEL_SYN
                    self.connection, self.syn, self.opened = "opening", syn, self.opened + 1
                case e.Close():
                    assert self.connection, "there was none"
                    self.connection = ""
                case e.Adopt():
                    assert self.negotiating
                    assert self.connection in ("open", "greeted")
                    self.connection = "adopted"
                case e.Greet():
                    assert self.negotiating, "else it is TLS alone"
                    assert self.connection == "open"
                    assert not self.rules.bare
                    assert self.rules.fallback is not Fallback.NEVER
                    self.connection = "greeted"
                case e.Secure():
                    assert self.connection in ("open", "greeted", "adopted"), "adopted: and then let go"
                    assert not self.rules.bare
                    assert self.rules.fallback is not Fallback.NEVER
                    self.connection = "securing"
                case e.Wait(patience):
                    self.waiting = patience
                case e.GiveUp():
                    assert self.negotiating
                    self.negotiating = False
                case e.Negotiated():
                    assert not self.negotiating, "it has said so"
                    assert self.connection in ("", "adopted"), "the loser is closed"
                    self.end = action
                case e.FellBack(reason):
                    assert not self.negotiating, "the loser is told"
                    assert self.rules.fallback is not Fallback.NEVER
                    allowed = ("open", "adopted") if self.rules.bare else ("secure",)
                    assert self.connection in allowed, "no stream before TLS is ready"
                    assert reason not in FINAL | {Reason.OK}
                    assert not any(failure.reason in FINAL for failure in self.failures)
                    self.end = action
                case e.Failed(failure):
                    assert not self.negotiating
                    assert not self.connection, "no socket is left"
                    assert failure.reason is not Reason.OK
                    self.end = action

    def happen(self, event: e.Event) -> None:
        match event:
            case e.Answered():
                self.answered = True
            case e.Committed():
                self.negotiating = False
            case e.NegotiationFailed(failure):
                self.negotiating = False
                self.failures.append(failure)
            case e.SynAck():
                self.connection = "open"
            case e.TcpFailed():
                self.connection = ""
            case e.PlainReady():
                self.connection = "secure"
            case e.Waited():
                self.waiting = None
        self.carry_out(self.race.receive(event))

    def next(self) -> list[e.Event]:
        """What a real network, peer and clock may do from here; each keeps silent only for a time."""
        events: list[e.Event] = []
        if self.negotiating:
            adopts = self.rules.tcp is TcpOpen.PARALLEL_SYN
            events += [
                e.NegotiationFailed(SILENT),
                e.NegotiationFailed(REFUSED, True),
                e.NegotiationFailed(FORGED, True),
            ]
            if adopts and not self.answered:
                events.append(e.Answered())
            if not self.answered or self.connection == "adopted":  # without TCP, or with it
                events.append(e.Committed())
        if self.connection == "opening":
            heard = (False, True) if self.negotiating else (False,)
            events += [*(e.SynAck(each) for each in heard), e.TcpFailed(BROKEN)]
        if self.connection in ("open", "greeted"):
            events.append(e.TcpFailed(BROKEN))
        if self.connection == "greeted":
            events.append(e.PlainSpoken())
        if self.connection == "securing":
            events += [e.PlainReady(), e.PlainReady(speaks_accord=True), e.TcpFailed(FORGED), e.TcpFailed(BROKEN)]
        if self.waiting is not None:
            events.append(e.Waited())
        return events

    def key(self) -> tuple[object, ...]:
        told = tuple(failure.reason for failure in self.failures)
        return (self.race.state, self.negotiating, self.answered, self.connection, self.waiting, self.opened, told)


def explore(rules: Rules) -> set[State]:
    """Every state that can be reached; each path there is checked by ``World``, and each one ends."""
    first = World(rules)
    seen = {first.key()}
    todo = [first]
    reached = {first.race.state}
    while todo:
        world = todo.pop()
        reached.add(world.race.state)
        if world.end is not None:
            assert world.race.over
            continue
        events = world.next()
        assert events, f"stuck in {world.race.state}: nothing can happen any more"
        for event in events:
            after = copy.deepcopy(world)
            after.happen(event)
            if after.key() not in seen:
                seen.add(after.key())
                todo.append(after)
    return reached


@pytest.mark.parametrize("rules", ALL_RULES, ids=str)
def test_every_order_of_events_ends_with_one_winner_or_one_reason(rules: Rules) -> None:
    reached = explore(rules)
    assert reached & ENDS
    assert State.NEGOTIATED in reached or not rules.propose
    assert (State.FELL_BACK in reached) == (rules.fallback is not Fallback.NEVER)


def test_every_row_of_the_table_is_reached() -> None:
    reached = set().union(*(explore(rules) for rules in ALL_RULES))
    assert reached | {State.READY} == set(State)
    assert {state for state, _ in TABLE} | ENDS | {State.READY} == set(State)


events = st.sampled_from(
    [
        e.Answered(),
        e.Committed(),
        *(e.NegotiationFailed(failure, spoken) for failure in (SILENT, REFUSED, FORGED) for spoken in (False, True)),
        e.SynAck(False),
        e.SynAck(True),
        e.TcpFailed(BROKEN),
        e.TcpFailed(FORGED),
        e.PlainSpoken(),
        e.PlainReady(),
        e.Waited(),
    ]
)


@settings(max_examples=1500)
@given(st.sampled_from(ALL_RULES), st.lists(events, max_size=12))
def test_whatever_comes_repeated_late_or_never_asked_for_there_is_one_end_and_no_action_after_it(
    rules: Rules, happened: list[e.Event]
) -> None:
    """No order is excluded here, not even one that only a broken host could bring about."""
    race = Race(rules)
    actions = list(race.start())
    for event in happened:
        over = race.over
        new = race.receive(event)
        assert not (over and new)
        actions += new
    ends = [action for action in actions if isinstance(action, e.Negotiated | e.FellBack | e.Failed)]
    assert len(ends) == race.over
    assert not ends or ends[0] is actions[-1]
    if any(isinstance(end, e.FellBack) for end in ends):
        assert rules.fallback is not Fallback.NEVER
        assert rules.bare or e.PlainReady() in happened, "security is required, and bare TCP no answer to that"
    assert sum(isinstance(action, e.Open) for action in actions) <= (1 if rules.tcp is TcpOpen.PARALLEL_SYN else 2)


@settings(max_examples=500)
@given(st.sampled_from(ALL_RULES), st.lists(st.integers(0, 30), max_size=12))
def test_an_event_that_comes_twice_has_no_effect_the_second_time(rules: Rules, choices: list[int]) -> None:
    world = World(rules)
    for choice in choices:
        if world.end is not None:
            break
        possible = world.next()
        event = possible[choice % len(possible)]
        world.happen(event)
        assert world.race.receive(event) == ()


# ---- the rules, one by one ------------------------------------------------------------------------------------------

NO_SYN = Rules(TcpOpen.NO_SYN, Fallback.PARALLEL, bare=False)
PARALLEL = Rules(TcpOpen.PARALLEL_SYN, Fallback.PARALLEL, bare=False)


def play(rules: Rules, *happened: e.Event) -> tuple[list[e.Action], State]:
    """The actions after the first ones, and the state."""
    race = Race(rules)
    race.start()
    return [action for event in happened for action in race.receive(event)], race.state


def test_a_proposal_that_is_ready_leaves_before_the_syn() -> None:
    assert Race(NO_SYN).start() == (e.Propose(), e.Open(e.Syn.FALLBACK))
    assert Race(PARALLEL).start() == (e.Propose(), e.Open(e.Syn.ADOPT))


def test_a_syn_does_not_wait_for_a_proposal_that_has_to_be_made() -> None:
    assert Race(replace(PARALLEL, made=False)).start() == (e.Open(e.Syn.ADOPT), e.Propose())


@pytest.mark.parametrize(
    "change",
    [{"bare": True}, {"patient": True}, {"fallback": Fallback.DELAYED}, {"tcp": TcpOpen.NO_SYN}],
    ids=str,
)
def test_but_it_does_where_the_answer_is_what_counts(change: dict[str, object]) -> None:
    """A mark that bare TCP needs, an answer that is known to come, a SYN that is to be suppressed."""
    assert Race(replace(PARALLEL, made=False, **change)).start()[0] == e.Propose()  # type: ignore[arg-type]


def test_without_a_syn_the_answer_closes_the_other_connection() -> None:
    assert play(NO_SYN, e.Committed())[0] == [e.Close(), e.Negotiated()]
    assert play(NO_SYN, e.SynAck(), e.Committed())[0] == [e.Secure(), e.Close(), e.Negotiated()]


def test_bare_tcp_wins_with_its_syn_ack_and_no_timer() -> None:
    actions, state = play(replace(NO_SYN, bare=True), e.SynAck())
    assert state is State.FELL_BACK
    assert actions == [e.GiveUp(Reason.LEGACY_FIRST), e.FellBack(Reason.LEGACY_FIRST)]


def test_a_peer_that_refuses_may_have_suppressed_the_syn_so_another_leaves_without_the_option() -> None:
    actions, _ = play(NO_SYN, e.NegotiationFailed(REFUSED, spoken=True))
    assert actions == [e.Close(), e.Open(e.Syn.NOTHING)]
    assert play(NO_SYN, e.NegotiationFailed(SILENT)) == ([], State.OPENING), "nobody suppressed anything"
    assert play(PARALLEL, e.NegotiationFailed(REFUSED, spoken=True)) == ([], State.OPENING), "this one passes"


def test_when_the_other_connection_fails_too_the_peers_own_words_are_told() -> None:
    actions, state = play(NO_SYN, e.NegotiationFailed(REFUSED, spoken=True), e.TcpFailed(BROKEN))
    assert (actions[-1], state) == (e.Failed(REFUSED), State.FAILED)
    actions, _ = play(NO_SYN, e.NegotiationFailed(SILENT), e.TcpFailed(BROKEN))
    assert actions[-1] == e.Failed(BROKEN), "a silent one has said nothing"


def test_a_marked_syn_ack_waits_for_the_answer_and_no_longer_than_that() -> None:
    assert play(PARALLEL, e.SynAck(True))[0] == [e.Wait(e.Patience.ANSWER)]
    assert play(PARALLEL, e.SynAck(True), e.Answered(), e.Committed())[0][1:] == [e.Adopt(), e.Negotiated()]
    actions, state = play(PARALLEL, e.SynAck(True), e.Waited(), e.Answered(), e.PlainReady())
    assert state is State.FELL_BACK
    assert actions[1:3] == [e.GiveUp(Reason.LEGACY_FIRST), e.Secure()]


def test_at_an_unmarked_syn_ack_the_client_hello_leaves_at_once_and_the_first_to_answer_it_wins() -> None:
    actions, state = play(PARALLEL, e.SynAck(False))
    assert (actions, state) == ([e.Greet(), e.Wait(e.Patience.ANSWER)], State.GREETED)
    actions, _ = play(PARALLEL, e.SynAck(False), e.Answered(), e.Committed())
    assert actions[2:] == [e.Adopt(), e.Negotiated()]
    actions, state = play(PARALLEL, e.SynAck(False), e.PlainSpoken(), e.Answered(), e.PlainReady())
    assert actions[2:] == [e.GiveUp(Reason.LEGACY_FIRST), e.Secure(), e.FellBack(Reason.LEGACY_FIRST)]
    actions, state = play(PARALLEL, e.SynAck(False), e.Waited(), e.Answered())
    assert actions[2:] == [e.GiveUp(Reason.LEGACY_FIRST), e.Secure()], "whoever held it back is told"
    actions, _ = play(PARALLEL, e.SynAck(False), e.NegotiationFailed(FORGED, spoken=True))
    assert actions[2:] == [e.Close(), e.Failed(FORGED)]


def test_an_unmarked_syn_ack_is_waited_at_in_silence_only_for_a_peer_that_is_known_to_answer() -> None:
    assert play(replace(PARALLEL, bare=True), e.SynAck(False))[0] == [
        e.GiveUp(Reason.LEGACY_FIRST), e.FellBack(Reason.LEGACY_FIRST)
    ]  # fmt: skip
    assert play(replace(PARALLEL, patient=True), e.SynAck(False))[0] == [e.Wait(e.Patience.ANSWER)]


def test_a_mark_that_was_no_promise_is_not_waited_at_again() -> None:
    actions, _ = play(replace(PARALLEL, trusts_mark=False), e.SynAck(True))
    assert actions == [e.Greet(), e.Wait(e.Patience.ANSWER)]


def test_an_answer_before_the_syn_ack_waits_for_it() -> None:
    actions, state = play(PARALLEL, e.Answered(), e.SynAck(False), e.Committed())
    assert (actions, state) == ([e.Adopt(), e.Negotiated()], State.NEGOTIATED)


def test_an_answer_without_tcp_needs_no_connection() -> None:
    assert play(PARALLEL, e.Committed())[0] == [e.Close(), e.Negotiated()]


def test_a_failed_connection_leaves_the_negotiation_to_decide() -> None:
    assert play(NO_SYN, e.TcpFailed(BROKEN), e.Committed())[0] == [e.Negotiated()]
    actions, _ = play(NO_SYN, e.TcpFailed(BROKEN), e.NegotiationFailed(SILENT))
    assert actions == [e.Failed(BROKEN)], "what a host without Accord would see"
    actions, _ = play(NO_SYN, e.TcpFailed(BROKEN), e.NegotiationFailed(REFUSED, spoken=True))
    assert actions == [e.Failed(REFUSED)], "the peer says why"


def test_a_peer_that_said_why_it_refuses_is_quoted_when_the_plain_connection_fails_too() -> None:
    refused = e.NegotiationFailed(REFUSED, spoken=True)
    delayed = replace(NO_SYN, fallback=Fallback.DELAYED)
    for rules, before in (
        (NO_SYN, []),
        (NO_SYN, [e.SynAck()]),
        (PARALLEL, []),
        (PARALLEL, [e.SynAck(True)]),
        (delayed, []),
    ):
        actions, state = play(rules, *before, refused, e.TcpFailed(BROKEN))
        assert state is State.FAILED
        assert actions[-1] == e.Failed(REFUSED)


def test_an_answer_that_needs_a_connection_which_has_failed_is_none() -> None:
    answer, failure = e.Answered(), e.TcpFailed(BROKEN)
    assert play(PARALLEL, answer, failure)[1] is play(PARALLEL, failure, answer)[1] is State.FAILED


@pytest.mark.parametrize("reason", sorted(FINAL))
@pytest.mark.parametrize("rules", [NO_SYN, PARALLEL], ids=["no-syn", "parallel-syn"])
def test_after_a_forgery_nothing_weaker_is_tried(rules: Rules, reason: Reason) -> None:
    failure = error(reason, "")
    for before in ([], [e.SynAck(True)]):
        actions, state = play(rules, *before, e.NegotiationFailed(failure, True))
        assert state is State.FAILED
        assert actions[-2:] == [e.Close(), e.Failed(failure)]


def test_a_peer_known_to_be_silent_gets_no_proposal_unless_there_is_no_other_way() -> None:
    for rules in (NO_SYN, PARALLEL):
        assert Race(replace(rules, propose=False)).start() == (e.Open(e.Syn.NOTHING),)
        assert Race(replace(rules, propose=False, fallback=Fallback.NEVER)).start()[0] == e.Propose()


def test_a_delayed_connection_is_opened_after_silence_or_a_refusal() -> None:
    rules = replace(NO_SYN, fallback=Fallback.DELAYED)
    assert Race(rules).start() == (e.Propose(), e.Wait(e.Patience.SILENCE))
    assert play(rules, e.Waited())[0] == [e.GiveUp(Reason.TIMEOUT), e.Open(e.Syn.NOTHING)]
    assert play(rules, e.NegotiationFailed(REFUSED, True))[0] == [e.Open(e.Syn.NOTHING)]


def test_the_connection_of_a_delayed_fallback_is_held_back_until_silence_ends() -> None:
    rules = replace(PARALLEL, fallback=Fallback.DELAYED)
    assert Race(rules).start()[-1] == e.Wait(e.Patience.SILENCE)
    assert play(rules, e.Waited()) == ([e.GiveUp(Reason.TIMEOUT)], State.OPENING)
    actions, _ = play(rules, e.SynAck(False), e.Waited(), e.PlainReady())
    assert actions == [e.GiveUp(Reason.LEGACY_FIRST), e.Secure(), e.FellBack(Reason.LEGACY_PEER, ANY)]


def test_the_reason_tells_a_silent_peer_from_a_slow_one_and_from_one_that_refuses() -> None:
    def reason(*happened: e.Event) -> Reason:
        end = play(NO_SYN, *happened)[0][-1]
        assert isinstance(end, e.FellBack)
        return end.reason

    assert reason(e.SynAck(), e.PlainReady()) is Reason.LEGACY_FIRST
    assert reason(e.SynAck(), e.NegotiationFailed(SILENT), e.PlainReady()) is Reason.LEGACY_PEER
    assert reason(e.NegotiationFailed(REFUSED, True), e.SynAck(), e.PlainReady()) is Reason.NO_COMMON_STACK


@pytest.mark.parametrize("tcp", [TcpOpen.NO_SYN, TcpOpen.PARALLEL_SYN])
def test_a_plain_connection_between_two_that_speak_accord_has_that_for_its_reason_whatever_else_was_seen(
    tcp: TcpOpen,
) -> None:
    world = World(Rules(tcp, Fallback.PARALLEL, bare=False))
    for event in (e.SynAck(), e.NegotiationFailed(REFUSED, True), e.PlainReady(speaks_accord=True)):
        world.happen(event)
    assert isinstance(world.end, e.FellBack)
    assert world.end.reason is Reason.FORCED_FALLBACK
    assert "NO_COMMON_STACK" in world.end.detail or "LEGACY_FIRST" in world.end.detail


def test_where_the_policy_refuses_it_the_negotiation_decides_and_else_that_is_the_reason() -> None:
    rules = Rules(TcpOpen.NO_SYN, Fallback.PARALLEL, bare=False, refuses_forced=True)
    world = World(rules)
    for event in (e.SynAck(), e.PlainReady(speaks_accord=True)):
        world.happen(event)
    assert (world.end, world.race.state, world.connection) == (None, State.ALONE, "")
    later = copy.deepcopy(world)
    world.happen(e.Committed())
    assert isinstance(world.end, e.Negotiated)
    later.happen(e.NegotiationFailed(SILENT))
    assert isinstance(later.end, e.Failed)
    assert later.end.failure.reason is Reason.FORCED_FALLBACK


def test_auto_is_decided_before() -> None:
    with pytest.raises(ValueError, match="before the race"):
        Race(replace(NO_SYN, tcp=TcpOpen.AUTO))
