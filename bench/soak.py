#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether a daemon stays as it is however long it serves: descriptors, memory, map entries, the engine's slabs.

Negotiations of all kinds (``_soak.py``) with one daemon, and a look at its process every so often. Memory is a line
through these looks, after the first of them (``--warm-up``): a leak is a slope that is more than twice its error, and
more than the least that a leak can be.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from _progress import say

from accord.cli.main import run
from accord.cli.numbers import Finite
from accord.lab.deployment import BARE_PORT, NAME, PORT, Deployment
from accord.lab.pair import pair
from accord.lab.scratch import scratch

KINDS = {"tcp": 50, "tls": 30, "aborted": 10, "given up": 8, "silent": 2}
LEAN = Path(__file__).with_name("_soak.py")
_PLACES = 4096
LIMITS = f"""[limits]
transactions = {2 * _PLACES}
unproven = {_PLACES}
unproven_per_network = {_PLACES}
proven_per_network = {_PLACES}
prefix_commits_per_second = 0
"""
"""All load comes from one network, which may have as many stacks a second as go. What is refused or given
up keeps its place for twelve seconds, and of the usual limits a network has a quarter: enough for 43 of those a second,
after which nobody of that network is answered. Here it is enough for 340, of 1,800 negotiations."""
BATCHES = 20
NOTHING_BYTES = 0.1
"""For each negotiation. The least that Python or malloc gives away is 16 bytes, and of the rarest kind there are two
in a hundred: a leak of one object by each of these alone comes to 0.32."""
_CURVE = 25
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Look:
    """The daemon at one moment: what it has."""

    done: int
    """Negotiations by then."""
    rss: int
    descriptors: int
    used: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Slope:
    """A line through looks, by least squares."""

    by: float
    """Bytes for each negotiation."""
    error: float
    """Its standard error."""

    @property
    def flat(self) -> bool:
        """As far as can be told."""
        return self.by <= max(2 * self.error, NOTHING_BYTES)


def slope(points: Sequence[tuple[float, float]]) -> Slope:
    """Of points in order, at least three. Draper and Smith, Applied Regression Analysis, section 1.4; the error by the
    means of batches, since memory goes up and down more slowly than it is looked at (Law and Kelton, Simulation
    Modeling and Analysis, section 9.5.3)."""
    line = _line(points)
    if len(points) < 2 * BATCHES:
        return line
    edges = [round(at * len(points) / BATCHES) for at in range(BATCHES + 1)]
    return Slope(line.by, _line([_mean(points[begin:end]) for begin, end in itertools.pairwise(edges)]).error)


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def _line(points: Sequence[tuple[float, float]]) -> Slope:
    count = len(points)
    if count < 3:
        return Slope(0.0, math.inf)
    middle_x, middle_y = _mean(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    if not spread:
        return Slope(0.0, math.inf)
    by = sum((x - middle_x) * (y - middle_y) for x, y in points) / spread
    rest = sum((y - middle_y - by * (x - middle_x)) ** 2 for x, y in points)
    return Slope(by, math.sqrt(rest / (count - 2) / spread))


def curve(looks: Sequence[Look]) -> list[tuple[int, int]]:
    """Negotiations and KiB of memory by then: some of the looks, evenly spread, the first and the last among them."""
    least = min(len(looks), _CURVE)
    chosen = sorted({round(at * (len(looks) - 1) / max(1, least - 1)) for at in range(least)})
    return [(looks[at].done, looks[at].rss >> 10) for at in chosen]


class Watched:
    """The daemon's worker, from outside."""

    def __init__(self, both: Deployment) -> None:
        self._both = both
        status = both.status(both.server)
        assert status is not None, "it has started"
        self._process = Path("/proc") / str(status["pid"])
        self._broker = Path("/proc") / _stat(self._process)[1]

    def look(self, done: int) -> Look:
        """Now. Raises ``ClickException`` when the daemon is gone."""
        found = self._both.status(self._both.server)
        if found is None or not self._process.exists():
            raise click.ClickException(f"the daemon is gone:\n{self._both.log(self._both.server)[-3000:]}")
        rss = int((self._process / "statm").read_text().split()[1]) * _PAGE
        used = {name: int(found[name]) for name in ("negotiations", "in_flight")}
        used["associations"] = len(found["associations"]) + found["associations_more"]
        return Look(done, rss, len(os.listdir(self._process / "fd")), used)

    def processor(self) -> dict[str, float]:
        """Processor seconds so far, of each process here; the echo service's threads are ours."""
        return {
            "worker": _processor_seconds(self._process),
            "broker": _processor_seconds(self._broker),
            "service": time.process_time(),
        }

    def quiet(self, seconds: float) -> Look:
        """The first look with nothing in flight and no association, or the last one within so many seconds."""
        end = time.monotonic() + seconds
        while (look := self.look(0)).used["in_flight"] or look.used["associations"]:
            if time.monotonic() > end:
                break
            time.sleep(0.1)
        return look


def _stat(process: Path) -> list[str]:
    """proc_pid_stat(5) from the third field on: the second may hold anything."""
    return (process / "stat").read_text().rpartition(")")[2].split()


def _processor_seconds(process: Path) -> float:
    user, system = _stat(process)[11:13]
    return (int(user) + int(system)) / _TICK


class Load:
    """The process of ``_soak.py``, and what it has said last."""

    def __init__(self, both: Deployment, spec: dict[str, Any]) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
        self.process = both.client.popen([sys.executable, str(LEAN), json.dumps(spec)], **pipes)
        self.report: dict[str, Any] = {"over": False, "done": 0, "outcomes": {}}
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.report = json.loads(line)

    @property
    def over(self) -> bool:
        """Raises ``ClickException`` when it has broken off."""
        if self.report["over"]:
            return True
        if self.process.poll() is not None:
            self._listening.join(5)
            if not self.report["over"]:
                raise click.ClickException("the load broke off; what it said is above")
        return bool(self.report["over"])


def soak(both: Deployment, spec: dict[str, Any], warm_up: float, settle: float, every: float) -> dict[str, Any]:
    """The run, and what it shows."""
    watched = Watched(both)
    before = watched.look(0)
    spent = watched.processor()
    start = time.monotonic()
    load = Load(both, spec)
    looks: list[Look] = []
    while not load.over:
        done = load.report["done"]
        looks.append(watched.look(done))
        say(f"{done} negotiations, {looks[-1].rss >> 10} KiB, {looks[-1].descriptors} descriptors")
        time.sleep(every)
    seconds = time.monotonic() - start
    spent = {name: now - spent[name] for name, now in watched.processor().items()}
    spent["load"] = load.report["processor_seconds"]
    after = watched.quiet(settle)
    outcomes: dict[str, int] = load.report["outcomes"]
    done = sum(outcomes.values())
    failed = {what: count for what, count in outcomes.items() if not what.endswith(": ok")}
    counted = [(float(look.done), float(look.rss)) for look in looks if look.done >= warm_up * done]
    line = slope(counted)
    steering = both.status(both.server) or {}
    say(f"{done} negotiations in {seconds:.0f} s", last=True)
    return {
        "negotiations": done,
        "seconds": round(seconds, 1),
        "rate": round(done / seconds, 1),
        "million_hours": round(1e6 / (done / seconds) / 3600, 2) if done else None,
        "processor_us": {name: round(each / done * 1e6) for name, each in spent.items()} if done else None,
        "outcomes": outcomes,
        "failed": sum(failed.values()),
        # The log is removed with its directory, and an answer says no more than its reason.
        **({"failures": failed, "log": both.complaints(both.server)} if failed else {}),
        "looks": len(counted),
        "rss_start_kib": before.rss >> 10,
        "rss_end_kib": after.rss >> 10,
        "rss_slope_bytes": round(line.by, 2),
        "rss_slope_error_bytes": round(line.error, 2) if math.isfinite(line.error) else None,
        "rss_flat": line.flat,
        "rss_curve_kib": curve(looks),
        "descriptors_start": before.descriptors,
        "descriptors_most": max((look.descriptors for look in looks), default=0),
        "descriptors_end": after.descriptors,
        "in_flight_end": after.used["in_flight"],
        "associations_end": after.used["associations"],
        "lingering_end": after.used["negotiations"],
        "engine_bytes": steering.get("engine_bytes"),
        "plugin_troubles": steering.get("plugin_troubles"),
    }


@click.command()
@click.option("--negotiations", type=click.IntRange(1), default=100_000, show_default=True)
@click.option("--seconds", type=click.IntRange(0), default=0, help="End after so many, whatever is left.")
@click.option("--at-once", type=click.IntRange(1, 256), default=8, show_default=True)
@click.option("--kinds", default=",".join(KINDS), show_default=True, help="Of these, in their usual shares.")
@click.option("--warm-up", type=Finite(0, 0.9), default=0.3, show_default=True, help="Does not count.")
@click.option("--settle", type=Finite(0, 120), default=13.0, show_default=True, help="Seconds at the end.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    negotiations: int, seconds: int, at_once: int, kinds: str, warm_up: float, settle: float, seed: int, as_json: bool
) -> None:
    """Whether a daemon leaks: descriptors, memory and the engine's places over very many negotiations."""
    unknown = [name for name in kinds.split(",") if name not in KINDS]
    if unknown:
        raise click.UsageError(f"no such kind: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    with (
        scratch("soak") as directory,
        pair() as (client, server),
        contextlib.closing(Deployment(client, server, directory)) as both,
    ):
        both.daemon(server, more=LIMITS)
        spec = {
            "host": server.address4,
            "ports": {"open": BARE_PORT, "secure": PORT},
            "ca": str(both.ca),
            "name": NAME,
            "negotiations": negotiations,
            "seconds": seconds,
            "at_once": at_once,
            "seed": seed,
            "kinds": {name: KINDS[name] for name in kinds.split(",")},
        }
        every = 0.2 if negotiations < 2000 else 1.0
        result = soak(both, spec, warm_up, settle, every)
    result["load_average"] = round(os.getloadavg()[0], 1)
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    run(main)
