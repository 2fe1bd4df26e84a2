# SPDX-License-Identifier: Apache-2.0
"""How much of the processor answers to strangers may take: a bucket of processor time that fills at a fixed rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SHARE: Final = 0.15
"""Of one core."""
BURST_SECONDS: Final = 1.0
"""So much of the time that was not used is kept."""


class Budget:
    """Answers may be made while the bucket is not empty. One that costs more than is left is paid back first."""

    def __init__(self, now: Callable[[], float], share: float = SHARE) -> None:
        """``now``: seconds of a monotonic clock. ``share``: of one core, 0..1."""
        self._now, self._share = now, share
        self._left = self._most = share * BURST_SECONDS
        self._at = now()

    def may(self) -> bool:
        """Whether an answer may be made now."""
        now = self._now()
        self._left = min(self._most, self._left + (now - self._at) * self._share)
        self._at = now
        return self._left > 0

    def spend(self, seconds: float) -> None:
        """An answer took so much processor time."""
        self._left -= seconds
