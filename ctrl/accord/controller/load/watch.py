# SPDX-License-Identifier: Apache-2.0
"""Says which level of load is in force: one line for a change, and not more than one in ten seconds."""

from __future__ import annotations

import logging
from typing import Final

from accord.datapath.engine import Level, Load

log = logging.getLogger("accord.load")

QUIET_SECONDS: Final = 10.0
_GETS: Final = {
    Level.STATE: "have a place",
    Level.ANSWER: "are answered, and nothing is kept of them",
    Level.COOKIE: "are asked for a cookie",
}


class LevelLog:
    """Whoever floods the host does not flood its log."""

    def __init__(self) -> None:
        self._said = Level.STATE
        self._at: float | None = None
        self._changes = 0
        self._was = Level.STATE

    def look(self, load: Load, now: float) -> None:
        """``now``: seconds of a monotonic clock."""
        if load.level is not self._was:
            self._was = load.level
            self._changes += 1
        if not self._changes or (self._at is not None and now - self._at < QUIET_SECONDS):
            return
        if load.level is not self._said or self._changes > 1:
            again = f" (after {self._changes} changes)" if self._changes > 1 else ""
            log.warning(
                "load level %d%s: strangers %s; %d in the last second",
                load.level,
                again,
                _GETS[load.level],
                load.strangers,
            )
        self._said, self._at, self._changes = load.level, now, 0
