# SPDX-License-Identifier: Apache-2.0
"""Local programs at the control socket are so many and no more, and none keeps the operator out."""

from __future__ import annotations

import json
import socket

from hypothesis import given
from hypothesis import strategies as st

from accord.daemon.admission import FOR_OPERATORS, MOST, OF_A_USER, Admission, turn_away
from accord.wire.constants import Reason
from accord.wire.errors import error


def test_a_user_has_so_many_connections_and_a_place_again_when_one_is_over() -> None:
    admission = Admission(frozenset({0}))
    for _ in range(OF_A_USER):
        assert admission.enter(1000) is None
    refused = admission.enter(1000)
    assert refused is not None
    assert refused.reason is Reason.OVER_BUDGET
    assert admission.enter(1001) is None, "others have theirs"
    admission.leave(1000)
    assert admission.enter(1000) is None


def test_however_many_users_there_are_root_gets_in() -> None:
    admission = Admission(frozenset({0}))
    users = range(1000, 1000 + 2 * MOST)
    taken = sum(admission.enter(user) is None for user in users for _ in range(2))
    assert taken == MOST - FOR_OPERATORS
    for _ in range(FOR_OPERATORS):
        assert admission.enter(0) is None
    assert admission.enter(0) is not None


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0, 1000, 1001])), max_size=300))
def test_places_taken_and_given_back_add_up(moves: list[tuple[bool, int]]) -> None:
    admission = Admission(frozenset({0}), most=FOR_OPERATORS + 8, of_a_user=5)
    held: dict[int, int] = {0: 0, 1000: 0, 1001: 0}
    for coming, user in moves:
        if coming and admission.enter(user) is None:
            held[user] += 1
        elif not coming and held[user]:
            admission.leave(user)
            held[user] -= 1
        assert max(held[1000], held[1001]) <= 5
        assert sum(held.values()) <= FOR_OPERATORS + 8
    for user in held:
        for _ in range(held[user]):
            admission.leave(user)
    assert all(admission.enter(1000) is None for _ in range(5))


def test_who_is_turned_away_is_told_why_and_nobody_waits_for_it() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        turn_away(ours, error(Reason.OVER_BUDGET, "full"))
        assert json.loads(theirs.recv(4096))["reason"] == "OVER_BUDGET"
        assert theirs.recv(4096) == b""
    assert ours.fileno() == -1
    full, silent = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    full.setblocking(False)
    with silent:
        try:
            while True:
                full.send(bytes(1000))
        except BlockingIOError:
            pass
        turn_away(full, error(Reason.OVER_BUDGET, "full"))
