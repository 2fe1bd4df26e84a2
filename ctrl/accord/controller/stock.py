# SPDX-License-Identifier: Apache-2.0
"""Things made ahead of their use, in idle time, for whoever was asked for lately."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from accord.wire.errors import AccordError

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

CallLater = Callable[[float, Callable[[], None]], object]


class Stock(Generic[K, T]):
    """At most one ready-made thing for each of the last ``limit`` keys, each used once, none older than ``seconds``.

    ``now`` and ``call_later`` are the clock and its timers; ``discard`` is called with what was never used.
    """

    def __init__(
        self,
        now: Callable[[], float],
        call_later: CallLater,
        discard: Callable[[T], None],
        *,
        limit: int,
        seconds: float,
    ) -> None:
        self._now = now
        self._call_later = call_later
        self._discard = discard
        self._limit = limit
        self._seconds = seconds
        self._made: dict[K, tuple[float, T]] = {}  # oldest first
        self._ordered: set[K] = set()
        self._waking = False
        """A timer will look for what has become too old."""
        self.hits = self.misses = self.discarded = 0
        """Askers who found one, who found none; things that nobody asked for in time."""

    def take(self, key: K) -> T | None:
        """What is ready for ``key``, now the caller's; None when there is nothing fresh."""
        self._expire()
        found = self._made.pop(key, None)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        return found[1]

    def __contains__(self, key: K) -> bool:
        """Whether ``take`` would find one now."""
        self._expire()
        return key in self._made

    def __iter__(self) -> Iterator[K]:
        """Keys that there is, or lately was, something for."""
        return iter(self._made)

    def order(self, key: K, make: Callable[[], T], delay: float) -> None:
        """Make one for ``key`` in ``delay`` seconds, unless there is one then.

        An ``AccordError`` that ``make`` raises is left for whoever needs it next, and meets it again.
        """
        if key in self._ordered:
            return
        self._ordered.add(key)
        self._call_later(delay, lambda: self._fill(key, make))

    def clear(self) -> None:
        """Discard everything, and what is ordered will not be made."""
        self._ordered.clear()
        while self._made:
            self._drop_oldest()

    def _fill(self, key: K, make: Callable[[], T]) -> None:
        if key not in self._ordered:
            return
        self._ordered.discard(key)
        self._expire()
        if key in self._made:
            return
        try:
            self._made[key] = (self._now(), make())
        except AccordError:
            return
        while len(self._made) > self._limit:
            self._drop_oldest()
        self._wake()

    def _wake(self) -> None:
        """One timer for all, whatever comes and goes meanwhile."""
        if self._waking or not self._made:
            return
        made, _ = next(iter(self._made.values()))
        self._waking = True
        # A timer may be early by a rounding.
        self._call_later(max(0.0, self._seconds - (self._now() - made)) + self._seconds * 0.01, self._woken)

    def _woken(self) -> None:
        self._waking = False
        self._expire()
        self._wake()

    def _expire(self) -> None:
        while self._made:
            made, _ = next(iter(self._made.values()))
            if self._now() - made < self._seconds:
                return
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, thing = self._made.pop(next(iter(self._made)))
        self.discarded += 1
        self._discard(thing)

    def __len__(self) -> int:
        return len(self._made)
