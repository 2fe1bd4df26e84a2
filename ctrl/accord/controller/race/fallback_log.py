# SPDX-License-Identifier: Apache-2.0
"""Fallbacks in the log: seldom, since peers and paths cause them as often as they like."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable

from accord.controller.association import Report
from accord.wire.constants import Party, Reason

log = logging.getLogger("accord.race")

_LIMIT = 1024


class Seldom:
    """Each thing once in ``seconds``; what was left out is counted. Remembers the last 1024 things."""

    def __init__(self, now: Callable[[], float], seconds: float = 60.0) -> None:
        """``now``: seconds of a monotonic clock."""
        self._now = now
        self._seconds = seconds
        self._said: dict[Hashable, tuple[float, int]] = {}  # when, and how often it was left out since; oldest first

    def may(self, thing: Hashable) -> int | None:
        """None: not now. Else how often it was left out since it was last said; saying it is then up to the caller."""
        now = self._now()
        at, left_out = self._said.get(thing, (None, 0))
        if at is not None and now - at < self._seconds:
            self._said[thing] = (at, left_out + 1)
            return None
        self._said.pop(thing, None)
        self._said[thing] = (now, 0)
        if len(self._said) > _LIMIT:
            del self._said[next(iter(self._said))]
        return left_out


class FallbackLog:
    """Says each peer's and reason's fallback once a minute; loudly where somebody could mend it."""

    def __init__(self, now: Callable[[], float]) -> None:
        """``now``: seconds of a monotonic clock."""
        self._seldom = Seldom(now)

    def say(self, report: Report) -> None:
        """Of an association over the plain connection, or of one to which the path did something."""
        reason = Reason[report.reason]
        left_out = self._seldom.may((report.peer, reason))
        if left_out is None:
            return
        level = logging.INFO if reason.party is Party.NONE else logging.WARNING
        again = f"; {left_out} more since this was last said" if left_out else ""
        what = "negotiated" if report.negotiated else "plain connection"
        log.log(level, "%s: %s, %s: %s%s", report.peer, what, reason.name, report.detail or reason.text, again)
