# SPDX-License-Identifier: Apache-2.0
"""Many seeds, in several processes: what held in each, how fast, and whether a seed replays to the same trace."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from sim.features import FEATURES
from sim.scenario import Scenario, draw
from sim.workers import mapped
from sim.world import Verdict, run

_REPLAYED: Final = 20
"""Every so many seeds one is run again, in the same process and in another one."""
_SHOWN: Final = 20

Each = Callable[[Iterable[int]], Iterator[Verdict]]


def judge_scenario(scenario: Scenario, *, keep_ladder: bool = False) -> Verdict:
    """Run it. What it raises is a failure of its own kind, as everything that the simulated hosts run may not do."""
    try:
        return run(scenario, keep_ladder=keep_ladder)
    except Exception as failure:
        where = traceback.extract_tb(failure.__traceback__)[-1]
        text = f"{type(failure).__name__}: {failure} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"
        return Verdict(scenario.seed, "", 0, 0, 0, 0, {"exception": [text]})


def judge_seed(seed: int) -> Verdict:
    """The seed's scenario."""
    return judge_scenario(draw(seed))


@dataclass(slots=True)
class Report:
    """Of a campaign."""

    seeds: int = 0
    failures: dict[int, dict[str, list[str]]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    worst_steps: int = 0
    worst_seed: int = 0
    packets: int = 0
    negotiations: int = 0
    committed: int = 0
    features: Counter[str] = field(default_factory=Counter)
    """Seeds that had them."""
    replayed: int = 0
    different: list[int] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    def add(self, verdict: Verdict) -> None:
        """One seed more."""
        self.seeds += 1
        self.packets += verdict.packets
        self.negotiations += verdict.negotiations
        self.committed += verdict.committed
        self.features.update(verdict.features)
        if verdict.steps > self.worst_steps:
            self.worst_steps, self.worst_seed = verdict.steps, verdict.seed
        if verdict.failures:
            self.failures[verdict.seed] = verdict.failures
            self.kinds.update(verdict.failures.keys())

    @property
    def ok(self) -> bool:
        """Everything held in every seed."""
        return not self.failures and not self.different

    @property
    def seeds_per_hour(self) -> int:
        """Replays not counted."""
        return round(self.seeds / self.seconds * 3600) if self.seconds else 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "seeds": self.seeds,
            "converged": self.seeds - len(self.failures),
            **{kind: self.kinds[kind] for kind in ("diverged", "stuck", "leaked", "amplified", "exception")},
            "worst_steps": self.worst_steps,
            "worst_seed": self.worst_seed,
            "replayed": self.replayed,
            "replay_identical": not self.different and self.replayed > 0,
            "replay_different": self.different,
            "packets": self.packets,
            "negotiations": self.negotiations,
            "committed": self.committed,
            "features": {feature: self.features[feature] for feature in FEATURES},
            "seconds": round(self.seconds, 1),
            "seeds_per_hour": self.seeds_per_hour,
            "interrupted": self.interrupted,
            "failing_seeds": {str(seed): kinds for seed, kinds in sorted(self.failures.items())[:_SHOWN]},
        }


def campaign(
    seeds: Iterable[int], processes: int, tell: Callable[[Report], None], seconds: float | None = None
) -> Report:
    """Run them all, or as many as go into ``seconds``. ``tell`` is called after each; Ctrl-C ends it with a report."""
    report = Report()
    began = time.monotonic()
    hashes: dict[int, str] = {}
    try:
        with _workers(processes) as each:
            for verdict in each(seeds):
                report.add(verdict)
                if verdict.seed % _REPLAYED == 0:
                    hashes[verdict.seed] = verdict.trace_hash
                report.seconds = time.monotonic() - began
                tell(report)
                if seconds is not None and report.seconds > seconds:
                    break
        with _workers(processes) as each:
            for verdict in each(hashes):
                report.replayed += 1
                if verdict.trace_hash != hashes[verdict.seed]:
                    report.different.append(verdict.seed)
    except KeyboardInterrupt:
        report.interrupted = True
    return report


@contextlib.contextmanager
def _workers(processes: int) -> Iterator[Each]:
    """What runs seeds, in so many processes; with one, in this one. A worker that dies raises ``BrokenProcessPool``."""
    if processes == 1:
        yield lambda seeds: map(judge_seed, seeds)
        return
    # Started anew, not forked: what a process has run before must not matter.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _begin_worker)
    try:
        yield lambda seeds: mapped(pool, judge_seed, seeds)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it ends it
    gc.freeze()
