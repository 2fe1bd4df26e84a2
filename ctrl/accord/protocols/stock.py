# SPDX-License-Identifier: Apache-2.0
"""First flights made ahead of their use.

A ClientHello or a QUIC Initial costs key shares, about a millisecond of them, and depends on nothing but whom it
is for. So once a peer was proposed to, the next first flight for it is made when the host is idle and kept for a
while: whoever asks again for the same peer gets it at once. Each is used once and by one negotiation, and none
outlives ``seconds``: key shares do not lie about.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from accord.protocols.services import Services
from accord.wire.errors import AccordError

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_IDLE_SECONDS = 0.05
"""After the negotiation that asked: its commit and first request come first."""


class Stock(Generic[K, T]):
    """At most one ready-made flight for each of the last ``limit`` peers."""

    def __init__(self, limit: int = 64, seconds: float = 30.0) -> None:
        self._limit = limit
        self._seconds = seconds
        self._made: OrderedDict[K, tuple[float, T]] = OrderedDict()
        self._ordered: set[K] = set()

    def take(self, key: K, now: float) -> tuple[T, float] | None:
        """The flight for ``key`` and its age in seconds, now the caller's; None when there is no fresh one."""
        self._expire(now)
        found = self._made.pop(key, None)
        return None if found is None else (found[1], now - found[0])

    def order(self, key: K, make: Callable[[], T], services: Services) -> None:
        """Make one for ``key`` soon, unless there is one. What ``make`` raises is left for whoever needs it next."""
        if key in self._ordered:
            return
        self._ordered.add(key)

        def fill() -> None:
            self._ordered.discard(key)
            now = services.now()
            self._expire(now)
            if key in self._made:
                return
            try:
                self._made[key] = (now, make())
            except AccordError:
                return
            while len(self._made) > self._limit:
                self._made.popitem(last=False)
            services.call_later(self._seconds, lambda: self._expire(services.now()))

        services.call_later(_IDLE_SECONDS, fill)

    def _expire(self, now: float) -> None:
        while self._made:
            key, (made, _) = next(iter(self._made.items()))
            if now - made < self._seconds:
                return
            del self._made[key]

    def __len__(self) -> int:
        return len(self._made)
