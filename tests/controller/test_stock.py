# SPDX-License-Identifier: Apache-2.0
"""Things made ahead: each used once, for the key that it was made for, never when it is old, none forgotten."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from accord.controller.stock import Stock
from accord.wire.constants import Reason
from accord.wire.errors import error


class Clock:
    """A virtual clock with timers."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def read(self) -> float:
        return self.now

    def call_later(self, delay: float, function: Callable[[], None]) -> None:
        self._count += 1
        self._timers.append((self.now + delay, self._count, function))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := sorted(timer for timer in self._timers if timer[0] <= end):
            self._timers.remove(due[0])
            self.now = max(self.now, due[0][0])
            due[0][2]()
        self.now = end


class Shelf:
    """A stock under a virtual clock, and what it threw away."""

    def __init__(self, limit: int = 4, seconds: float = 10.0) -> None:
        self.clock = Clock()
        self.discarded: list[object] = []
        self.stock: Stock[str, object] = Stock(
            self.clock.read, self.clock.call_later, self.discarded.append, limit=limit, seconds=seconds
        )


def test_a_thing_is_made_later_and_taken_once() -> None:
    shelf, made = Shelf(), []

    def make() -> object:
        made.append(object())
        return made[-1]

    shelf.stock.order("peer", make, 0.05)
    assert not made, "not while whoever asked is still at work"
    shelf.clock.advance(3)
    assert shelf.stock.take("peer") is made[0]
    assert shelf.stock.take("peer") is None
    shelf.clock.advance(30)
    assert shelf.discarded == [], "what was taken is the taker's"


def test_an_old_thing_is_discarded_and_not_used() -> None:
    shelf = Shelf(seconds=10)
    shelf.stock.order("peer", lambda: "thing", 0.05)
    shelf.clock.advance(11)
    assert len(shelf.stock) == 0
    assert shelf.discarded == ["thing"]
    assert shelf.stock.take("peer") is None


def test_another_key_gets_nothing_of_it() -> None:
    shelf = Shelf()
    shelf.stock.order("peer", object, 0.05)
    shelf.clock.advance(1)
    assert shelf.stock.take("other") is None


def test_what_cannot_be_made_is_left_for_whoever_asks_next() -> None:
    def broken() -> object:
        raise error(Reason.BAD_CONFIG, "a file is gone")

    shelf = Shelf()
    shelf.stock.order("peer", broken, 0.05)
    shelf.clock.advance(1)
    assert shelf.stock.take("peer") is None


def test_clearing_discards_all_and_cancels_what_is_ordered() -> None:
    shelf = Shelf()
    shelf.stock.order("one", lambda: 1, 0.05)
    shelf.clock.advance(1)
    shelf.stock.order("two", lambda: 2, 0.05)
    shelf.stock.clear()
    shelf.clock.advance(1)
    assert shelf.discarded == [1]
    assert len(shelf.stock) == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["order", "take"]), st.floats(0, 5)), max_size=60))
def test_everything_made_is_taken_once_or_discarded_once_and_the_limit_holds(
    calls: list[tuple[str, str, float]],
) -> None:
    shelf, made, taken = Shelf(limit=3), [], []

    def make() -> object:
        made.append(object())
        return made[-1]

    for key, call, pause in calls:
        if call == "order":
            shelf.stock.order(key, make, 0.05)
        elif (thing := shelf.stock.take(key)) is not None:
            taken.append(thing)
        shelf.clock.advance(pause)
        assert len(shelf.stock) <= 3
    shelf.clock.advance(20)
    assert sorted(map(id, made)) == sorted(map(id, [*taken, *shelf.discarded]))
