# SPDX-License-Identifier: Apache-2.0
"""How often one sealed request can be served early: once by each daemon that has the key.

A sealed message tells when it was sealed. It is taken at most once, and only within ``window`` seconds of that, by a
filter that remembers what it took for as long as it could come again. Its size is fixed: full, it takes nothing more.
What was taken before a restart is not remembered, so that nothing is taken which may have been sealed before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

WINDOW_SECONDS: Final = 30.0
LIMIT: Final = 8192
"""Sealed messages within two windows; about a hundred bytes each."""


class ReplayFilter:
    """``now``: Unix time in seconds as it was at the start plus what has gone by, so that it never steps."""

    def __init__(self, now: Callable[[], float], *, window: float = WINDOW_SECONDS, limit: int = LIMIT) -> None:
        self._now = now
        self._window = window
        self._limit = limit
        self._begin = now()
        self._seen: set[bytes] = set()
        self._order: deque[tuple[float, bytes]] = deque()
        self.refused = 0

    def admit(self, digest: bytes, sealed_at: float) -> bool:
        """Whether the message of this SHA-256, sealed at that Unix time, comes for the first time for certain.

        A peer's clock may be ahead by ``window``: what was taken before the start says at most that it was sealed
        then, so the first window after the start is refused too.
        """
        now = self._now()
        self._expire(now)
        fresh = abs(now - sealed_at) <= self._window and sealed_at > self._begin + self._window
        if not fresh or digest in self._seen or len(self._order) >= self._limit:
            self.refused += 1
            return False
        self._seen.add(digest)
        self._order.append((sealed_at, digest))
        return True

    def _expire(self, now: float) -> None:
        # By the order of coming, not of sealing: one that stays a little longer than it has to harms nobody.
        while self._order and self._order[0][0] + self._window < now:
            self._seen.discard(self._order.popleft()[1])

    def __len__(self) -> int:
        return len(self._order)
