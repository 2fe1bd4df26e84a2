# SPDX-License-Identifier: Apache-2.0
"""The controller's own counters: how negotiations ended, what came up, how fast, what is open."""

from __future__ import annotations

import contextlib
import enum
import time
from collections import Counter
from collections.abc import Iterator, Mapping

from accord.controller import metrics
from accord.controller.adoption.table import Result
from accord.controller.association import Report
from accord.controller.metrics import Family, Histogram, Labels, Samples
from accord.negotiation.interface import Role
from accord.wire.constants import Reason


class Outcome(enum.StrEnum):
    """How a negotiation ended."""

    COMMITTED = "committed"
    FELL_BACK = "fell_back"
    FAILED = "failed"


_SYN = {True: "syn_first", False: "proposal_first", None: "unknown"}


class Counts:
    """Counts what the controller and the daemon tell it; ``samples`` is what ``accord stats`` shows of it."""

    def __init__(self) -> None:
        self._began = time.time()
        self._ended: Counter[Labels] = Counter()
        self._stacks: Counter[Labels] = Counter()
        self._ready: dict[Labels, Histogram] = {}
        self._open: Counter[Labels] = Counter()
        self._handed_over: Counter[Labels] = Counter()
        self._renegotiated: Counter[Labels] = Counter()
        self.adoptions: Counter[Result] = Counter()
        """The responder's, for whoever keeps the places."""
        self._taken: Counter[str] = Counter()
        self._proposals: Counter[Labels] = Counter()

    def proposed(self, syn_first: bool | None) -> None:
        """A peer's proposal began to arrive: after the SYN that left beside it, before, or nobody can tell."""
        self._proposals[_SYN[syn_first],] += 1

    def came_up(self, role: Role, report: Report) -> None:
        """An association that a negotiation, or the plain connection beside it, led to."""
        outcome = Outcome.COMMITTED if report.negotiated else Outcome.FELL_BACK
        self._ended[_word(role), outcome, report.reason] += 1
        self.plain_or_negotiated(role, report)
        ready = self._ready.setdefault((_word(role), _way(report)), Histogram())
        ready.observe(report.ready_ms / 1000)

    def plain_or_negotiated(self, role: Role, report: Report) -> None:
        """An association; one that nobody negotiated about, of a peer without Accord, is told here alone."""
        self._stacks[_word(role), _way(report), "/".join(report.stack)] += 1

    def failed(self, role: Role, reason: Reason) -> None:
        """A negotiation that came to nothing."""
        self._ended[_word(role), Outcome.FAILED, reason.name] += 1

    def forced(self, role: Role) -> None:
        """A plain connection whose both ends speak Accord."""
        self._ended[_word(role), Outcome.FELL_BACK, Reason.FORCED_FALLBACK.name] += 1

    def renegotiated(self, role: Role, reason: Reason) -> None:
        """An association goes on over another stack (OK), or does not."""
        self._renegotiated[_word(role), "changed" if reason is Reason.OK else "failed", reason.name] += 1

    def handed_over(self, role: Role) -> None:
        """The kernel's socket went to a program."""
        self._handed_over[_word(role),] += 1

    def adopted(self, *, marked: bool) -> None:
        """Initiator: the connection of the parallel SYN is the negotiated TCP."""
        self._taken["marked" if marked else "unmarked"] += 1

    @contextlib.contextmanager
    def open(self, role: Role) -> Iterator[None]:
        """For as long as an association's bytes pass through the daemon."""
        self._open[_word(role),] += 1
        try:
            yield
        finally:
            self._open[_word(role),] -= 1

    def by_reason(self) -> dict[str, int]:
        """Negotiations that ended, by reason alone."""
        total: Counter[str] = Counter()
        for (_, _, reason), count in self._ended.items():
            total[reason] += count
        return dict(total)

    def samples(self) -> Mapping[Family, Samples]:
        """By family."""
        everybody: dict[Labels, float] = dict.fromkeys([(_word(role),) for role in Role], 0)
        return {
            metrics.START: {(): self._began},
            metrics.NEGOTIATIONS: self._ended,
            metrics.STACKS: self._stacks,
            metrics.READY: self._ready,
            metrics.OPEN: {**everybody, **self._open},
            metrics.HANDED_OVER: {**everybody, **self._handed_over},
            metrics.RENEGOTIATIONS: self._renegotiated,
            metrics.ADOPTIONS: {
                **{(_word(Role.RESPONDER), result): self.adoptions[result] for result in Result},
                **{(_word(Role.INITIATOR), mark): self._taken[mark] for mark in ("marked", "unmarked")},
            },
            metrics.PROPOSALS: self._proposals,
        }


def _word(role: Role) -> str:
    return role.value


def _way(report: Report) -> str:
    return "negotiated" if report.negotiated else "plain"
