# SPDX-License-Identifier: Apache-2.0
"""The rings of several CPUs as one stream, in the order in which things happened.

The rings are read one after the other, so what is read from the second may be younger than what has come into the
first one since. What happened before a round of reading began was in its ring by then, and can be handed on after it;
what is younger waits for the next round (as perf's ordered events do, tools/perf/util/ordered-events.c).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_ON_ITS_WAY_NS: Final = 1_000_000
"""From a program's look at the clock to its record in the ring; an interrupt may come between."""


class InOrder(Generic[T]):
    """``add`` what rings hold, with its time (CLOCK_BOOTTIME, nanoseconds); ``hand_on`` gets it, the oldest first."""

    def __init__(self, hand_on: Callable[[T], None]) -> None:
        self._hand_on = hand_on
        self._waiting: list[tuple[int, T]] = []

    def add(self, at_ns: int, what: T) -> None:
        """Something that happened then."""
        self._waiting.append((at_ns, what))

    def round(self, poll: Callable[[float], None], seconds: float) -> None:
        """Have ``poll`` wait for records, for so long at most, and hand on what no older one can follow."""
        poll(min(seconds, _ON_ITS_WAY_NS / 1e9) if self._waiting else seconds)
        began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        poll(0.0)
        self._hand_on_until(began - _ON_ITS_WAY_NS)

    def finish(self) -> None:
        """Hand on all that there is: no more will come."""
        self._hand_on_until(None)

    def _hand_on_until(self, until_ns: int | None) -> None:
        self._waiting.sort(key=lambda each: each[0])  # what happened at the same time, as it was read
        count = sum(until_ns is None or at_ns <= until_ns for at_ns, _ in self._waiting)
        ready, self._waiting = self._waiting[:count], self._waiting[count:]
        for _, what in ready:
            self._hand_on(what)
