# SPDX-License-Identifier: Apache-2.0
"""Plug-ins that do what none should lose their node, and the rest negotiates (threat model, row 30)."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Iterable

import pytest

from accord.negotiation.events import MessageComplete
from accord.negotiation.guard import Guard, Overrun
from accord.negotiation.interface import Answer, Refuse
from accord.negotiation.machine import MAX_COSTLY
from accord.wire.constants import Protocol, Reason
from tests.negotiation.faulty import FAULTS, MUTATES, RAISES, LyingBytes
from tests.negotiation.peers import (
    HTTP,
    QUIC,
    TCP,
    TLS,
    TLS_FIRST,
    UDP,
    FakeChooser,
    FakeSession,
    Side,
    agreed,
    events_of,
    initiator,
    responder,
    run,
    sent,
)

EXPECTED = Reason.PLUGIN_FAILED
FAULTY = pytest.mark.parametrize("fault", FAULTS)


def everybody(*sides: Side) -> Iterable[FakeSession]:
    """Every session that was ever opened."""
    return [session for side in sides for row in side.sessions.values() for session in row]


@FAULTY
def test_who_fails_to_respond_loses_its_node_and_the_next_stack_is_agreed(fault: str) -> None:
    one, other = initiator(), responder(TLS_FIRST, script={2: {"respond": FAULTS[fault]}})
    run(one, other)
    assert agreed(one, other) == "http/quic"
    assert sent(other, 1)[0].pruned[2] == EXPECTED


@FAULTY
def test_who_fails_to_propose_is_left_out_and_the_others_are_proposed(fault: str) -> None:
    one, other = initiator(script={2: {"propose": FAULTS[fault]}}), responder(TLS_FIRST)
    run(one, other)
    assert agreed(one, other) == "http/quic"
    assert 2 not in sent(one, 0)


@FAULTY
@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_who_fails_when_the_stack_is_decided_ends_it_at_both_sides_and_nothing_is_left(fault: str, side: str) -> None:
    script = {2: {"advance": FAULTS[fault]}}
    one = initiator(script=script if side == "initiator" else {})
    other = responder(TLS_FIRST, script=script if side == "responder" else {})
    run(one, other)
    ours = one if side == "initiator" else other
    assert ours.committed is None
    assert ours.aborted is not None
    assert ours.aborted.reason is EXPECTED
    assert "advance" in ours.aborted.detail or "room" in ours.aborted.detail, "the call is named"
    for session in everybody(ours):
        assert session.ended, "everybody is told"


@pytest.mark.parametrize("fault", [*RAISES, *MUTATES])
@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_who_fails_to_commit_ends_it_at_both_sides(fault: str, side: str) -> None:
    script = {2: {"commit": FAULTS[fault]}}
    one = initiator(script=script if side == "initiator" else {})
    other = responder(TLS_FIRST, script=script if side == "responder" else {})
    run(one, other)
    ours = one if side == "initiator" else other
    assert ours.committed is None
    assert ours.aborted is not None
    assert ours.aborted.reason is EXPECTED
    assert all(session.ended for session in everybody(ours))


@pytest.mark.parametrize("fault", RAISES)
def test_who_fails_to_let_go_is_let_go_all_the_same_and_so_are_the_others(fault: str) -> None:
    loud = {"prune NOT_PREFERRED": RAISES[fault], "abort HANDSHAKE_FAILED": RAISES[fault]}
    one, other = initiator(script={3: loud}), responder(TLS_FIRST, script={3: loud})
    run(one, other)
    assert agreed(one, other) == "http/tls/tcp"
    ends = {2: {"advance": Refuse(Reason.HANDSHAKE_FAILED)}, 1: loud, 4: loud}
    one, other = initiator(), responder(TLS_FIRST, script=ends)
    run(one, other)
    assert one.stack is None or other.stack is None
    assert all(session.ended for session in everybody(other))


@FAULTY
def test_who_fails_after_a_wait_loses_its_node(fault: str) -> None:
    from accord.negotiation.events import Resume
    from accord.negotiation.interface import Wait
    from tests.negotiation.peers import deliver

    one, other = initiator(), responder(TLS_FIRST, script={2: {"respond": Wait("it"), "resume": FAULTS[fault]}})
    run(one, other)
    (answer,) = other.receive(Resume(2))
    (commit,) = deliver(answer, one)
    deliver(commit, other)
    assert agreed(one, other) == "http/quic"


@pytest.mark.parametrize("fault", [KeyboardInterrupt, CancelledError])
@pytest.mark.parametrize("method", ["propose", "respond", "advance", "commit"])
def test_what_is_no_plug_in_s_to_raise_is_not_swallowed(fault: type[BaseException], method: str) -> None:
    script = {2: {method: fault()}}
    one = initiator(script=script if method == "propose" else {})
    other = responder(TLS_FIRST, script=script if method != "propose" else {})
    with pytest.raises(fault):
        run(one, other)


def test_without_another_stack_the_plug_in_is_named() -> None:
    shape = {0: (UDP, (1,)), 1: (TCP, (2,)), 2: (TLS, ())}
    one, other = initiator(shape=shape), responder(script={2: {"respond": ZeroDivisionError("x")}})
    run(one, other)
    assert other.aborted is not None
    assert other.aborted.reason is Reason.PLUGIN_FAILED
    assert other.aborted.detail == "respond: ZeroDivisionError: x"
    assert one.aborted is not None
    assert one.aborted.by_peer


def test_whoever_runs_out_of_memory_is_told_so() -> None:
    one, other = initiator(), responder(TLS_FIRST, script={2: {"respond": MemoryError()}})
    run(one, other)
    assert agreed(one, other) == "http/quic"
    assert sent(other, 1)[0].pruned[2] == Reason.PLUGIN_MEMORY


class Impatient(Guard):
    """Stops whoever says so itself."""

    watches = True


def test_whoever_is_stopped_for_taking_too_long_loses_its_node() -> None:
    one, other = initiator(), responder(TLS_FIRST, script={2: {"respond": Overrun()}})
    other.machine.guard = Impatient()
    run(one, other)
    assert agreed(one, other) == "http/quic"
    assert sent(other, 1)[0].pruned[2] == Reason.PLUGIN_TIMEOUT


def test_a_guard_that_stops_nobody_leaves_that_to_the_one_around_it() -> None:
    one, other = initiator(), responder(TLS_FIRST, script={2: {"respond": Overrun()}})
    with pytest.raises(Overrun):
        run(one, other)


def test_calls_are_counted_by_protocol_and_method() -> None:
    one, other = initiator(), responder(TLS_FIRST)
    one.machine.guard, other.machine.guard = Guard(), Guard()
    run(one, other)
    assert agreed(one, other) == "http/tls/tcp"
    at = one.machine.guard.calls
    assert {at[protocol, "propose"] for protocol in (TCP, TLS, QUIC, HTTP)} == {1}
    assert (at[TLS, "advance"], at[TLS, "exporter"], at[TLS, "commit"], at[QUIC, "prune"]) == (1, 1, 1, 1)
    at = other.machine.guard.calls
    assert (at[TCP, "respond"], at[TLS, "respond"], at[HTTP, "respond"]) == (1, 1, 1)
    assert (QUIC, "respond") not in at, "what is not chosen is not asked"


# ---- what a peer can have computed ----


def costly(count: int, top: Callable[[int], int] = lambda number: HTTP) -> dict[int, tuple[int, tuple[int, ...]]]:
    """As many stacks of a costly node, each with a node of its own on top."""
    shape: dict[int, tuple[int, tuple[int, ...]]] = {0: (UDP, tuple(range(1, count + 1)))}
    for number in range(1, count + 1):
        shape[number] = (TLS, (count + number,))
        shape[count + number] = (top(number), ())
    return shape


def spend(side: Side) -> int:
    """Costly handshakes that were begun."""
    return sum(session.log.count("respond") for session in everybody(side) if session.protocol == TLS)


@pytest.fixture
def dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS is costly, as it really is."""
    monkeypatch.setattr(FakeSession, "costly", property(lambda session: session.protocol == TLS), raising=False)


@pytest.mark.usefixtures("dear")
def test_a_graph_of_costly_nodes_has_a_bounded_number_of_them_computed() -> None:
    count = 31
    shape = costly(count)
    script = {count + number: {"respond": Refuse(Reason.HANDSHAKE_FAILED)} for number in range(1, count + 1)}
    one, other = initiator(shape=shape), responder(script=script)
    run(one, other)
    assert spend(other) == MAX_COSTLY
    assert other.aborted is not None
    assert one.aborted is not None


@pytest.mark.usefixtures("dear")
def test_what_costs_nothing_is_still_had_when_the_budget_is_spent() -> None:
    count = MAX_COSTLY + 2
    shape = {**costly(count), 60: (Protocol.TCP, ())}
    shape[0] = (UDP, (*shape[0][1], 60))
    script = {count + number: {"respond": Refuse(Reason.HANDSHAKE_FAILED)} for number in range(1, count + 1)}
    one, other = initiator(shape=shape), responder(FakeChooser(), script=script)
    run(one, other)
    assert agreed(one, other) == "tcp"
    assert spend(other) == MAX_COSTLY
    over = [node for node, reason in sent(other, 1)[0].pruned.items() if reason == Reason.OVER_BUDGET]
    assert len(over) == 2


@pytest.mark.usefixtures("dear")
def test_what_is_not_chosen_is_not_computed_however_much_of_it_there_is() -> None:
    one, other = initiator(shape=costly(31)), responder()
    run(one, other)
    assert one.committed is not None
    assert spend(other) == 1


@pytest.mark.usefixtures("dear")
def test_a_proposal_that_is_malformed_or_for_nobody_costs_no_handshake() -> None:
    one, other = initiator(), responder(refuse=Refuse(Reason.NO_SERVICE))
    run(one, other)
    assert spend(other) == 0
    one, other = initiator(), responder()
    (proposal,) = one.start()
    *arrivals, _ = events_of(proposal, proposal.nodes, other)
    for event in arrivals[1:]:  # without its context
        other.receive(event)
    other.receive(MessageComplete(0))
    assert spend(other) == 0
    assert other.aborted is not None


def test_an_answer_s_length_is_what_its_bytes_are() -> None:
    lying = Answer(LyingBytes(100_000))
    one, other = initiator(), responder(TLS_FIRST, script={1: {"respond": lying}, 3: {"respond": lying}})
    run(one, other)
    assert one.committed is other.committed is None
