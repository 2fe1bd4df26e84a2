# SPDX-License-Identifier: Apache-2.0
"""What the state tables of a change promise, looked for in all ways that two ends can go."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from accord.controller.renegotiation.table import TABLE, Do, Event, State, Turn
from accord.negotiation.interface import Role

ONE, OTHER = Role.INITIATOR, Role.RESPONDER


@pytest.mark.parametrize("role", list(Role))
def test_every_state_is_reached_and_left_but_the_last(role: Role) -> None:
    table = TABLE[role]
    states = set(State) - ({State.DOUBTFUL} if role is ONE else set())
    assert {after for _, after in table.values()} == states
    for state in states - {State.BROKEN}:
        assert any(after is not state for (before, _), (_, after) in table.items() if before is state)
    assert all(after is State.BROKEN for (before, _), (_, after) in table.items() if before is State.BROKEN)


@pytest.mark.parametrize("role", list(Role))
def test_what_is_not_in_the_table_changes_nothing(role: Role) -> None:
    for state in State:
        for event in Event:
            if (state, event) not in TABLE[role]:
                turn = Turn(role)
                turn.state = state
                assert turn.take(event) is Do.NOTHING
                assert turn.state is state


class Both(NamedTuple):
    """The two ends, and what has been said between them for the change that is under way."""

    initiator: State
    responder: State
    hellos: frozenset[Role] = frozenset()
    ended: frozenset[Role] = frozenset()
    """Who has ended its direction of the old stack because it has moved."""
    read: frozenset[Role] = frozenset()
    """Who has followed such an end to the next stack."""
    misread: bool = False
    """Somebody took such an end for the end of the data."""


def _step(both: Both, role: Role, event: Event) -> Both:
    turn = Turn(role)
    turn.state = both.initiator if role is ONE else both.responder
    do = turn.take(event)
    _, _, hellos, ended, read, misread = both
    if do is Do.BEGIN and role is ONE:
        hellos, ended, read = frozenset(), frozenset(), frozenset()  # another next stack
    if do in (Do.SAY_HELLO, Do.SAY_HELLO_AND_MOVE):
        hellos |= {role}
    if do in (Do.MOVE, Do.SAY_HELLO_AND_MOVE):
        ended |= {role}
    if do is Do.FOLLOW:
        read |= {role}
    if do is Do.END:
        misread |= (OTHER if role is ONE else ONE) in ended
    states = (turn.state, both.responder) if role is ONE else (both.initiator, turn.state)
    return Both(*states, hellos, ended, read, misread)


def _following(both: Both) -> Iterator[Both]:
    """All that can happen next. An end is only said to have come where the other has moved: those are in question."""
    one, other = both.initiator, both.responder
    if one is State.STEADY and other in (State.STEADY, State.DOUBTFUL, State.GREETING):
        yield _step(_step(both, ONE, Event.BEGIN), OTHER, Event.BEGIN)
    if one is State.NEGOTIATING:
        yield _step(both, ONE, Event.UP)
        yield _step(both, ONE, Event.FAILED)
    if other is State.NEGOTIATING:
        yield _step(both, OTHER, Event.FAILED)
        if one is not State.NEGOTIATING:  # commits after the initiator, whatever became of that
            yield _step(both, OTHER, Event.UP)
    for role, state in ((ONE, one), (OTHER, other)):
        peer = OTHER if role is ONE else ONE
        if state in (State.GREETING, State.MOVED):
            yield _step(both, role, Event.FAILED)
        if state is State.GREETING and peer in both.hellos:
            yield _step(both, role, Event.GREETED)
        if peer in both.ended and role not in both.read:
            yield _step(both, role, Event.END)
        if role in both.read and role in both.ended:
            yield _step(both, role, Event.RESUMED)
    if one is State.STEADY and ONE not in both.ended:
        yield _step(both, OTHER, Event.OFF)


def test_no_way_through_both_tables_takes_a_moved_direction_for_the_end_of_the_data() -> None:
    begin = Both(State.STEADY, State.STEADY)
    seen, queue = {begin}, deque([begin])
    while queue:
        both = queue.popleft()
        assert not both.misread, both
        assert OTHER not in both.ended or ONE in both.ended, "the initiator moves first"
        assert not (OTHER in both.ended and both.initiator in (State.NEGOTIATING, State.GREETING)), both
        for after in _following(both):
            if after not in seen:
                seen.add(after)
                queue.append(after)
    whole = frozenset(Role)
    assert Both(State.STEADY, State.STEADY, whole, whole, whole) in seen, "a change is made"
    assert any(both.responder is State.DOUBTFUL and ONE in both.ended for both in seen), "the doubt is not for nothing"
