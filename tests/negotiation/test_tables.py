# SPDX-License-Identifier: Apache-2.0
"""The state tables: complete, without dead entries, and sound under any events in any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.negotiation.events import (
    Aborted,
    Committed,
    Event,
    Failed,
    MessageArrived,
    MessageComplete,
    NodeArrived,
    NodeSkipped,
    Resume,
    Stop,
)
from accord.negotiation.initiator import Initiator, InitiatorState
from accord.negotiation.interface import Wait
from accord.negotiation.machine import EVENT_KINDS, Machine
from accord.negotiation.responder import Responder, ResponderState
from accord.wire.constants import Reason
from accord.wire.node import encode_descriptor
from tests.negotiation.peers import FakeChooser, FakeSession, Side, initiator, responder
from tests.negotiation.test_tampering import MESSAGES
from tests.wire.strategies import nodes

TLS_FIRST = FakeChooser(prefer=("http/tls/tcp",))


@pytest.mark.parametrize(("machine", "states"), [(Initiator, InitiatorState), (Responder, ResponderState)])
def test_every_event_is_decided_in_every_state_and_every_handler_exists(
    machine: type[Machine], states: type[InitiatorState] | type[ResponderState]
) -> None:
    assert set(machine.TABLE) == {(state, kind) for state in states for kind in EVENT_KINDS}
    assert all(callable(getattr(machine, handler)) for handler in machine.TABLE.values())


@pytest.mark.parametrize(("machine", "end"), [(Initiator, InitiatorState.ABORTED), (Responder, ResponderState.ABORTED)])
def test_nothing_leads_out_of_an_abort(machine: type[Machine], end: object) -> None:
    assert {machine.TABLE[end, kind] for kind in EVENT_KINDS} == {"_ignore"}


real_nodes = st.sampled_from([(step, *node) for step, message in MESSAGES.items() for node in message])
steps = st.sampled_from([0, 1, 2, 3, 4, 9, 10])
reasons = st.sampled_from([Reason.TIMEOUT, Reason.SHUTDOWN])
events = st.one_of(
    real_nodes.map(lambda fields: NodeArrived(*fields)),
    real_nodes.map(lambda fields: NodeArrived(*fields)),
    st.builds(lambda step, node: NodeArrived(step, node.id, node.protocol, encode_descriptor(node)), steps, nodes()),
    st.builds(NodeSkipped, steps, st.integers(0, 63), st.just(77)),
    st.builds(MessageComplete, steps, st.integers(0, 3000)),
    st.builds(MessageArrived, steps),
    st.builds(Resume, st.integers(0, 5)),
    st.builds(Failed, reasons),
    st.builds(Stop, reasons),
)
# Whole messages make the later states likely; single events disturb them.
message = st.sampled_from(sorted(MESSAGES)).map(
    lambda step: [*(NodeArrived(step, *node) for node in MESSAGES[step]), MessageComplete(step)]
)
histories = st.lists(message | events.map(lambda event: [event]), max_size=12)


@given(histories, st.booleans(), st.sets(st.sampled_from([1, 2, 4])))
def test_any_history_ends_a_negotiation_at_most_once_and_tells_every_session(
    history: list[list[Event]], initiating: bool, waiting: set[int]
) -> None:
    script: dict[int, dict[str, object]] = {
        node: {"propose": Wait(), "respond": Wait(), "advance": Wait()} for node in waiting
    }
    side: Side = initiator(TLS_FIRST, script=script) if initiating else responder(TLS_FIRST, script=script)
    if initiating:
        side.start()
    for event in (event for events in history for event in events):
        was_aborted = side.aborted is not None
        before = len(side.actions)
        side.receive(event)
        assert not was_aborted or len(side.actions) == before
    kinds = [type(action) for action in side.actions]
    assert kinds.count(Aborted) <= 1
    assert kinds.count(Committed) <= 1
    if side.aborted:
        assert side.actions[-1] == side.aborted
        assert all(session.ended for row in side.sessions.values() for session in row)
    if side.committed:
        sessions = [session for session in side.committed.sessions if isinstance(session, FakeSession)]
        assert len(sessions) == len(side.committed.sessions)
        assert not any(session.ended for session in sessions) or side.aborted
