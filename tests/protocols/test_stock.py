# SPDX-License-Identifier: Apache-2.0
"""First flights made ahead: each used once, for the peer that it was made for, and never when it is old."""

from __future__ import annotations

import os
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from accord.negotiation.interface import Role
from accord.protocols.services import Services
from accord.protocols.stock import Stock
from accord.wire.constants import Reason
from accord.wire.errors import error


class Clock:
    """A virtual clock with timers."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def call_later(self, delay: float, function: Callable[[], None]) -> Callable[[], None]:
        self._count += 1
        self._timers.append((self.now + delay, self._count, function))
        return lambda: None

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := sorted(timer for timer in self._timers if timer[0] <= end):
            self._timers.remove(due[0])
            self.now = max(self.now, due[0][0])
            due[0][2]()
        self.now = end


def services(clock: Clock) -> Services:
    """Only what a stock asks for."""
    address = ("192.0.2.1", 1)
    return Services(Role.INITIATOR, address, address, lambda: clock.now, os.urandom, clock.call_later)


def test_a_flight_is_made_later_and_taken_once_with_its_age() -> None:
    clock, stock, made = Clock(), Stock[str, object](), []
    stock.order("peer", lambda: made.append(object()) or made[-1], services(clock))
    assert not made, "not while the negotiation that asked is under way"
    clock.advance(3)
    taken = stock.take("peer", clock.now)
    assert taken is not None
    assert taken[0] is made[0]
    assert 2.9 <= taken[1] <= 3
    assert stock.take("peer", clock.now) is None


def test_an_old_flight_is_neither_used_nor_kept() -> None:
    clock, stock = Clock(), Stock[str, int](seconds=30)
    stock.order("peer", lambda: 1, services(clock))
    clock.advance(31)
    assert len(stock) == 0
    assert stock.take("peer", clock.now) is None


def test_another_peer_gets_nothing_of_it() -> None:
    clock, stock = Clock(), Stock[str, int]()
    stock.order("peer", lambda: 1, services(clock))
    clock.advance(1)
    assert stock.take("other", clock.now) is None


def test_what_cannot_be_made_is_left_for_whoever_asks_next() -> None:
    def broken() -> int:
        raise error(Reason.BAD_CONFIG, "a file is gone")

    clock, stock = Clock(), Stock[str, int]()
    stock.order("peer", broken, services(clock))
    clock.advance(1)
    assert stock.take("peer", clock.now) is None


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["order", "take"]), st.floats(0, 5)), max_size=60))
def test_the_stock_never_holds_more_than_its_limit_and_gives_nothing_twice(
    calls: list[tuple[str, str, float]],
) -> None:
    clock, stock = Clock(), Stock[str, object](limit=3, seconds=10)
    given_out: list[object] = []
    for key, call, pause in calls:
        if call == "order":
            stock.order(key, object, services(clock))
        elif (taken := stock.take(key, clock.now)) is not None:
            assert all(taken[0] is not other for other in given_out)
            assert 0 <= taken[1] < 10
            given_out.append(taken[0])
        clock.advance(pause)
        assert len(stock) <= 3
