# SPDX-License-Identifier: Apache-2.0
"""Information dependencies (HotNets 2009, section 2.3): as many steps as the longest chain of them has, and no more.

The oracle is arithmetic on the dependencies alone, and knows nothing of graphs, walks or messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.negotiation.events import Send
from accord.negotiation.initiator import Initiator, Proposed
from accord.negotiation.interface import Answer, Defer, Outcome, Role, View
from accord.negotiation.responder import Accepted, Responder
from accord.wire.constants import Limit, Protocol, Reason
from tests.negotiation.peers import COOKIE, SECRET, TRANSACTION, FakeChooser, FakeSession, Side, run

PRIVATE = 0x7E000000


@dataclass(frozen=True)
class Needs:
    """Of each node of one stack, 1 to n: what its two sessions need, and how many rounds it takes beyond the first."""

    proposing: dict[int, frozenset[int]]
    answering: dict[int, frozenset[int]]
    rounds: dict[int, int] = field(default_factory=dict)
    secure: frozenset[int] = frozenset()


def expected(needs: Needs) -> tuple[dict[int, int], dict[int, int], int | None]:
    """Steps in which each node is proposed and first answered, and the step of the commit; None: of none, ever."""
    top = max(needs.secure, default=0)
    proposed, answered = dict.fromkeys(needs.proposing, 0), dict.fromkeys(needs.proposing, 1)

    def hidden_until(node: int) -> int:
        """Nothing above the topmost security node is believed before that is done."""
        return done(top) if node > top > 0 else 0

    def done(node: int) -> int:
        step = answered[node]
        for _ in range(needs.rounds.get(node, 0)):
            step = max(step, hidden_until(node)) + 2
        return step

    def believed(node: int) -> int:
        return max(done(node), hidden_until(node))

    # A longest path: each round lengthens one by an edge at most.
    for _ in range(10 * len(proposed)):
        before = dict(proposed), dict(answered)
        for node in proposed:
            proposed[node] = max([0, *(believed(other) + 1 for other in needs.proposing[node])])
            answered[node] = max([proposed[node] + 1, *(done(other) for other in needs.answering[node])])
        if before == (proposed, answered):
            return proposed, answered, max(map(believed, proposed)) + 1
    return proposed, answered, None


class Dependent(FakeSession):
    """Defers until it is asked for the second time, then answers; on the responder with ``more`` for some rounds."""

    def __init__(self, node: int, role: Role, needs: Needs) -> None:
        super().__init__(PRIVATE + node, role, node in needs.secure)
        self.needs = (needs.proposing if role is Role.INITIATOR else needs.answering)[node]
        self.rounds = needs.rounds.get(node, 0)
        self.spoke_in = -1

    def _first(self, view: View, payload: bytes) -> Outcome:
        if self.needs and "deferred" not in self.log:
            self.log.append("deferred")
            return Defer(self.needs)
        assert self.spoke_in < 0
        self.spoke_in = view.step
        return self._more(payload)

    def _more(self, payload: bytes) -> Answer:
        self.rounds -= 1
        return Answer(payload, more=self.role is Role.RESPONDER and self.rounds >= 0)

    def propose(self, view: View) -> Outcome:
        return self._first(view, b"hello")

    def respond(self, view: View, payload: bytes) -> Outcome:
        assert payload == b"hello"
        return self._first(view, b"answer")

    def advance(self, view: View, payload: bytes) -> Outcome:
        self.log.append(f"advance {view.step}")
        if self.role is Role.INITIATOR:
            return Answer(b"again")
        return self._more(b"answer" if self.rounds >= 0 else b"")


def negotiate(needs: Needs) -> tuple[Side, Side, dict[int, Dependent], dict[int, Dependent]]:
    nodes = sorted(needs.proposing)
    ours = {node: Dependent(node, Role.INITIATOR, needs) for node in nodes}
    theirs = {node: Dependent(node, Role.RESPONDER, needs) for node in nodes}
    above = dict(zip([0, *nodes], nodes, strict=False))
    proposed = [Proposed(0, Protocol.UDP, None, (above[0],))]
    proposed += [Proposed(node, PRIVATE + node, ours[node], (above[node],) if node in above else ()) for node in nodes]
    known = frozenset({int(Protocol.UDP), *(PRIVATE + node for node in nodes)})
    one = Side(Initiator(TRANSACTION, proposed, FakeChooser()), {}, known)
    accepted = Accepted(FakeChooser(), lambda node, protocol: theirs[node])
    other = Side(Responder(TRANSACTION, lambda service: accepted, COOKIE), {}, known)
    return one, other, ours, theirs


@st.composite
def acyclic(draw: st.DrawFn) -> Needs:
    order = draw(st.permutations(range(1, draw(st.integers(2, 7)))))
    before = {node: order[:place] for place, node in enumerate(order)}
    some = {
        node: st.frozensets(st.sampled_from(before[node]), max_size=2) if before[node] else st.just(frozenset())
        for node in order
    }
    return Needs(
        {node: draw(some[node]) for node in order},
        {node: draw(some[node]) for node in order},
        {node: draw(st.sampled_from([0, 0, 0, 1])) for node in order},
        frozenset(draw(st.sets(st.sampled_from(order), max_size=2))),
    )


@given(acyclic())
def test_the_number_of_steps_is_that_of_the_longest_chain_and_nobody_else_waits(needs: Needs) -> None:
    proposed, answered, commit = expected(needs)
    one, other, ours, theirs = negotiate(needs)
    run(one, other)
    if commit is None or commit >= Limit.MAX_STEPS:
        assert one.committed is other.committed is None
        assert one.aborted is not None
        assert one.aborted.reason in (Reason.UNFILLED, Reason.TOO_MANY_STEPS)
        assert commit is None or one.aborted.reason is Reason.TOO_MANY_STEPS
        return
    assert one.stack == other.stack is not None, (one.notes, other.notes)
    assert {node: session.spoke_in for node, session in ours.items()} == proposed
    assert {node: session.spoke_in + 1 for node, session in theirs.items()} == answered
    assert sorted(message.step for side in (one, other) for message in side.only(Send)) == list(range(commit + 1))


@pytest.mark.parametrize("chain", [1, 2, 3, 4])
def test_a_chain_of_k_takes_k_round_trips(chain: int) -> None:
    nodes = range(1, chain + 1)
    needs = Needs({node: frozenset({node - 1} - {0}) for node in nodes}, {node: frozenset() for node in nodes})
    one, other, _, _ = negotiate(needs)
    run(one, other)
    assert one.stack == other.stack is not None
    assert max(message.step for message in one.only(Send)) == 2 * chain


def test_a_chain_of_five_is_given_up_with_the_limit_s_name() -> None:
    nodes = range(1, 6)
    needs = Needs({node: frozenset({node - 1} - {0}) for node in nodes}, {node: frozenset() for node in nodes})
    one, other, _, _ = negotiate(needs)
    run(one, other)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.TOO_MANY_STEPS
    assert other.aborted is not None


@pytest.mark.parametrize(
    "needs",
    [
        Needs({1: frozenset({2}), 2: frozenset({1})}, dict.fromkeys((1, 2), frozenset())),
        Needs(dict.fromkeys((1, 2), frozenset()), {1: frozenset({2}), 2: frozenset({1})}),
        Needs({1: frozenset({2}), 2: frozenset()}, {1: frozenset(), 2: frozenset({1})}),
        Needs({1: frozenset({2}), 2: frozenset(), 3: frozenset()}, {1: frozenset(), 2: frozenset({1}), 3: frozenset()}),
    ],
)
def test_who_waits_for_each_other_is_found_out_and_not_waited_for(needs: Needs) -> None:
    one, other, _, _ = negotiate(needs)
    run(one, other)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.UNFILLED
    assert other.aborted is not None
    assert other.aborted.reason is Reason.UNFILLED
    assert max(message.step for message in one.only(Send)) <= 4


def test_who_defers_to_nothing_that_is_there_is_left_out() -> None:
    needs = Needs({1: frozenset(), 2: frozenset({9})}, {1: frozenset(), 2: frozenset()})
    one, _, _, _ = negotiate(needs)
    one.start()
    assert one.aborted is not None
    assert one.aborted.reason is Reason.PLUGIN_FAILED


def test_a_longer_exchange_is_vouched_for_from_the_first_key_on() -> None:
    needs = Needs({1: frozenset(), 2: frozenset({1})}, {1: frozenset(), 2: frozenset()}, {}, frozenset({1}))
    one, other, _, _ = negotiate(needs)
    one.sessions, other.sessions = {}, {}
    run(one, other)
    assert one.committed is not None
    assert other.committed is not None
    assert one.committed.transcript == other.committed.transcript
    assert "MAC verified" in one.notes
    assert other.notes.count("MAC verified") == 2
    assert len(SECRET) == 32
