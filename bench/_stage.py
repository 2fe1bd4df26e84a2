# SPDX-License-Identifier: Apache-2.0
"""What the cases of ``bench/model.py`` are given, and how they make themselves known.

A case is a context manager that sets up what it needs between the two hosts of a lab and yields a function. Each call
of that makes one negotiation and returns its seconds until *ready* (bench/model.py says what that is). Everything that
is not the negotiation (processes, keys, the port that it is for) belongs into the setting up, and what is to be thrown
away into the leaving. Case modules are all ``bench/_cases_*.py``: a new file is all that a new case needs.
"""

from __future__ import annotations

import contextlib
import importlib
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from _site import ACCORD_PORT, Site, Worker

from accord.lab.lab import Lab

TOLERANCE: Final = 0.15
"""Round trips over the minimum that a met row may take: what computing costs at 100 ms."""

BENCH: Final = Path(__file__).resolve().parent


@dataclass
class Stage:
    """Two hosts of a lab, with a daemon on each, and a directory for what a case makes."""

    lab: Lab
    site: Site
    directory: Path

    def contact(self) -> Worker:
        """A process on the client that makes a connection for each order (``_contact.py``)."""
        return self.site.worker(self.lab.client, "_contact.py")

    def connection(self, contact: Worker, port: int = ACCORD_PORT, **policy: Any) -> float:
        """One connection of the client's daemon, negotiated or failed; seconds until it was ready.

        Raises ``RuntimeError`` when it fails.
        """
        order = self.site.order("accord", port, policy={"fallback": "never", **policy}, timeout=15, pause=0.05)
        found = contact.ask(order)
        if not found["ok"]:
            raise RuntimeError(f"a connection failed: {found['failure']}")
        return float(found["ready_ms"]) / 1000


Once = Callable[[], float]
Setting = Callable[[Stage], contextlib.AbstractContextManager[Once]]


@dataclass(frozen=True, slots=True)
class Case:
    """One row."""

    name: str
    minimum: float
    """Round trips: the least that is possible."""
    setting: Setting


CASES: Final[list[Case]] = []


def case(name: str, minimum: float) -> Callable[[Callable[[Stage], Iterator[Once]]], Setting]:
    """Register a generator function as a case. See the module's docstring."""

    def register(function: Callable[[Stage], Iterator[Once]]) -> Setting:
        if any(name == known.name for known in CASES):
            raise ValueError(f"two cases are called {name}")
        setting: Setting = contextlib.contextmanager(function)
        CASES.append(Case(name, minimum, setting))
        return setting

    return register


def load() -> list[Case]:
    """All cases, those of one file in the order in which they stand there."""
    for module in sorted(BENCH.glob("_cases_*.py")):
        importlib.import_module(module.stem)
    return CASES


def row(case: Case, seconds: list[float], failures: list[str], rtt: float) -> dict[str, Any]:
    """For JSON. ``rtt``: of the link, seconds."""
    trips = [each / rtt for each in seconds]
    median = statistics.median(trips) if trips else None
    found: dict[str, Any] = {
        "case": case.name,
        "round_trips": None if median is None else round(median, 3),
        "minimum": case.minimum,
        "spread": [round(min(trips), 3), round(max(trips), 3)] if trips else [],
        "n": len(trips),
        "met": median is not None and not failures and median <= case.minimum + TOLERANCE,
    }
    if failures:
        found["failures"] = failures
    return found
