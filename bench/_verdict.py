# SPDX-License-Identifier: Apache-2.0
"""Of a path and a peer: what was measured, what is expected of it, and whether it was met.

*Added* is the difference of two distributions at the same quantile, a connection through the daemon and a plain one by
turns: on a path with chance in it two single connections have nothing to do with each other. Where the path's own
chance (or the machine's) makes a quantile uncertain, ``added_ms_p99_range`` has 95 of 100 bootstrap samples of it.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from accord.lab.paths import PATHS

ADDED_MS = 1.0
"""That a peer without Accord may cost, at the 99th percentile."""
SYN_RETRANSMISSION_MS = 1100.0
"""Of a SYN, the first: TCP_TIMEOUT_INIT is 1 s (RFC 6298, section 2), and a tick or two."""
ONE_ROUND_TRIP = 1.15
_RESAMPLES = 1000
_HOPELESS = 5
CHANCE = frozenset({"loss", "reorder", "mtu-hole"})
"""Paths whose own chance, or retransmission timers, scatter plain TCP by more than what is looked for."""
_NO_UDP = frozenset({"udp-dropped", "udp-600"})
"""Where a proposal does not pass: with a ClientHello in it, it is longer than 600 bytes."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row to measure."""

    path: str
    peer: str
    context: str = "udp"
    contact: str = "any"
    """``first``: the memory of peers is flushed before each."""

    @property
    def name(self) -> str:
        """For people."""
        context = f", context {self.context}" if self.context != "udp" else ""
        return f"{self.path}, peer {self.peer}{context}" + (", first contacts" if self.contact == "first" else "")

    @property
    def negotiable(self) -> bool:
        """Whether a proposal gets there, and somebody is there to answer it."""
        lost = _NO_UDP if self.context == "udp" else {"direct-dropped"}
        return self.peer == "accord" and self.path not in lost


@dataclass
class Series:
    """Connections of one kind, in order: what ``_contact.py`` told of each."""

    results: list[dict[str, Any]] = field(default_factory=list)
    stalled: int = 0
    """Others, that were made again since the machine stood still meanwhile."""

    @property
    def hopeless(self) -> bool:
        """So many in a row failed that the next will, too."""
        return len(self.results) >= _HOPELESS and not any(each["ok"] for each in self.results[-_HOPELESS:])

    @property
    def ok(self) -> list[dict[str, Any]]:
        """Those that came up, and brought the right answer."""
        return [each for each in self.results if each["ok"]]

    def times(self, name: str = "ready_ms") -> list[float]:
        """Milliseconds of those."""
        return [each[name] for each in self.ok]


@dataclass
class Measured:
    """All of one case."""

    case: Case
    plain: Series = field(default_factory=Series)
    accord: Series = field(default_factory=Series)
    """Interleaved with ``plain``; the peer may be known by then."""
    first: Series = field(default_factory=Series)
    """First contacts, the memory of peers flushed before each; ``first_plain`` interleaved with them."""
    first_plain: Series = field(default_factory=Series)
    learning: Series = field(default_factory=Series)
    """After them, until what they have shown is believed."""
    far: Series = field(default_factory=Series)
    """Over a longer link, for the slope."""
    rtt_ms: float = 0.0
    far_rtt_ms: float = 0.0
    memory: bool = False
    """The daemon has a memory to flush: else first contacts are as others."""


def quantile(samples: Sequence[float], fraction: float) -> float:
    """The smallest sample that so many of all are not above."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def added(ours: Sequence[float], theirs: Sequence[float], fraction: float) -> float:
    """Difference of the quantiles, milliseconds."""
    return quantile(ours, fraction) - quantile(theirs, fraction)


def added_range(ours: Sequence[float], theirs: Sequence[float], fraction: float) -> tuple[float, float]:
    """Between what values the difference lies in 95 of 100 bootstrap samples; the same samples give the same range."""
    chance = random.Random(1)
    found = sorted(
        added(chance.choices(ours, k=len(ours)), chance.choices(theirs, k=len(theirs)), fraction)
        for _ in range(_RESAMPLES)
    )
    return found[round(0.025 * _RESAMPLES)], found[round(0.975 * _RESAMPLES) - 1]


def undecided(ours: Series, theirs: Series) -> bool:
    """By so many connections, what is added at the 99th percentile may as well be more as less than allowed."""
    if not ours.ok or not theirs.ok:
        return False
    low, high = added_range(ours.times(), theirs.times(), 0.99)
    return low <= ADDED_MS < high


def _most(counts: Counter[str]) -> str:
    return counts.most_common(1)[0][0] if counts else ""


def _round_trips(measured: Measured) -> tuple[float | None, str]:
    """By slope where there are two links, else the quotient of the medians; and which it is."""
    times, far = measured.accord.times(), measured.far.times()
    if not times:
        return None, "none"
    if far and measured.far_rtt_ms > measured.rtt_ms:
        rise = statistics.median(far) - statistics.median(times)
        return rise / (measured.far_rtt_ms - measured.rtt_ms), "slope"
    return (statistics.median(times) / measured.rtt_ms if measured.rtt_ms else None), "quotient"


def row(measured: Measured) -> dict[str, Any]:
    """The row as it is printed."""
    case, series = measured.case, measured.accord
    ours, theirs = series.times(), measured.plain.times()
    stacks = Counter("/".join(each["stack"]) + ("" if each["negotiated"] else ", plain") for each in series.ok)
    reasons = Counter(each["reason"] for each in series.results)
    trips, how = _round_trips(measured)
    found: dict[str, Any] = {
        "path": case.path,
        "peer": case.peer,
        "context": case.context,
        "contact": case.contact,
        "n": len(series.results),
        "ok": len(series.ok),
        "stack": _most(Counter("/".join(each["stack"]) for each in series.ok)).split("/") if series.ok else [],
        "stacks": dict(stacks.most_common()),
        "negotiated": sum(each["negotiated"] for each in series.ok),
        "reason": _most(reasons),
        "reasons": dict(reasons.most_common()),
        "round_trips": _rounded(trips),
        "round_trips_by": how,
        "rtt_ms": _rounded(measured.rtt_ms),
        "ready_ms_p50": _rounded(quantile(ours, 0.5)) if ours else None,
        "plain_ms_p50": _rounded(quantile(theirs, 0.5)) if theirs else None,
        "plain_n": len(measured.plain.results),
        "plain_ok": len(theirs),
        "stalled": series.stalled,
        "plain_stalled": measured.plain.stalled,
    }
    for label, fraction in (("p50", 0.5), ("p99", 0.99)):
        both = bool(ours and theirs)
        found[f"added_ms_{label}"] = _rounded(added(ours, theirs, fraction)) if both else None
        wall = series.times("wall_ms")
        found[f"added_wall_ms_{label}"] = (
            _rounded(added(wall, measured.plain.times("wall_ms"), fraction)) if both else None
        )
        found[f"added_ms_{label}_range"] = (
            [_rounded(each) for each in added_range(ours, theirs, fraction)] if both else None
        )
    first, first_plain = measured.first.times(), measured.first_plain.times()
    found["first_n"], found["first_ok"] = len(measured.first.results), len(first)
    found["first_added_ms"] = _rounded(added(first, first_plain, 0.5)) if first and first_plain else None
    longest = max(first) - statistics.median(first_plain) if first and first_plain else None
    found["first_added_ms_max"] = _rounded(longest)
    learning = measured.learning.times()
    found["learning_n"] = len(measured.learning.results)
    worst = max(learning) - statistics.median(theirs) if learning and theirs else None
    found["learning_added_ms_max"] = _rounded(worst)
    found["first_reasons"] = dict(Counter(each["reason"] for each in measured.first.results).most_common())
    failures = Counter(each["failure"] for each in (*series.results, *measured.first.results) if not each["ok"])
    if failures:
        found["failures"] = dict(failures.most_common(5))
    met, why = verdict(found)
    return {**found, "met": met, "why": why}


def rows(measured: Measured) -> list[dict[str, Any]]:
    """Of a case; for a peer without Accord a row more, of its first contacts."""
    found = [row(measured)]
    if measured.case.peer == "legacy":
        first = Measured(replace(measured.case, contact="first"), measured.first_plain, measured.first)
        first.rtt_ms = measured.rtt_ms
        found.append(row(first))
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def verdict(found: dict[str, Any]) -> tuple[bool, str]:
    """Whether what is expected of the row is met, and why (not)."""
    case = Case(found["path"], found["peer"], found["context"], found["contact"])
    if found["ok"] < found["n"] and found["plain_ok"] == found["plain_n"]:
        return False, f"{found['n'] - found['ok']} connections failed, of the plain ones none"
    if case.negotiable:
        return _negotiated(found)
    return _legacy(found)


def _negotiated(found: dict[str, Any]) -> tuple[bool, str]:
    """TLS over TCP in one round trip."""
    if not found["ok"]:
        return False, "no connection came up"
    # Where packets are lost, now and then a whole negotiation is.
    enough = 0.75 if found["path"] in CHANCE else 1.0
    if found["negotiated"] < enough * found["n"]:
        return False, f"{found['negotiated']} of {found['n']} negotiated: {found['reasons']}"
    if found["stack"][-2:] != ["tls", "tcp"]:
        return False, f"{'/'.join(found['stack'])} is not TLS over TCP"
    trips = found["round_trips"]
    if trips is None or trips > ONE_ROUND_TRIP:
        return False, f"{trips} round trips"
    return True, f"{found['negotiated']} of {found['n']} negotiated, {trips} round trips by {found['round_trips_by']}"


def _legacy(found: dict[str, Any]) -> tuple[bool, str]:
    """As plain TCP and TLS, and hardly later."""
    if not found["plain_ok"]:
        return True, "plain TCP and TLS does not work on this path"
    if not found["ok"]:
        return False, "no connection came up"
    p99, span = found["added_ms_p99"], found["added_ms_p99_range"]
    # Where SYNs with the option are dropped a first contact cannot know it.
    dropped = found["path"] == "option-dropped" and found["contact"] == "first"
    allowed = SYN_RETRANSMISSION_MS if dropped else ADDED_MS
    if p99 <= allowed:
        return True, f"p99 {p99} ms added"
    if found["path"] in CHANCE and span[0] <= ADDED_MS >= found["added_ms_p50_range"][0]:
        return True, f"p99 {p99} ms added, within the path's own chance ({span[0]} .. {span[1]} ms)"
    return False, f"p99 {p99} ms added ({span[0]} .. {span[1]}), {allowed:g} allowed"


def cases(paths: Sequence[str], peers: Sequence[str]) -> list[Case]:
    """The rows, in order. Where protocol 253 is dropped, a row more for those who negotiate in it."""
    found = [Case(path, peer) for path in (paths or list(PATHS)) for peer in peers]
    if "accord" in peers and "direct-dropped" in {case.path for case in found}:
        found.append(Case("direct-dropped", "accord", "direct"))
    return found
