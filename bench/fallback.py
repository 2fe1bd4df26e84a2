#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a peer without Accord costs, and what a path: a matrix of both.

For each kind of path (``accord lab paths``) and each peer, with a daemon and without: connections with the default
policy through the client's daemon, in turns with plain TCP and TLS by the same library in a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import _mixed
import click
from _site import ACCORD_PORT, LEGACY_PORT, Site, Worker
from _stalls import Stalls
from _verdict import CHANCE, Case, Measured, Series, cases, rows, undecided
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from accord.cli.main import run
from accord.cli.numbers import Finite
from accord.lab.awake import Awake
from accord.lab.lab import Lab
from accord.lab.paths import PATHS
from accord.lab.scratch import scratch

PEERS = ("accord", "legacy")
FAR = 3
"""The longer link of the slope: so many times the round trip."""
_FIRST_PART, _FAR_PART, _LEAST = {"accord": 20, "legacy": 2}, 8, 3
"""First contacts, by the peer, and connections over the longer link: runs divided by this, and no fewer than that."""
_ROUND_TRIPS = 15
_LEARN_SECONDS, _LEARN_MOST = 2.5, 40
"""Connections between the first contacts and those that count as with a known peer."""
_SLOW_SECONDS, _SLOW_RUNS = 1.0, 5
"""Where a plain connection takes that long, its timers are what is measured: fewer runs do."""

_STALL_S = 0.001
"""A connection during which the machine stood still for as long as what is looked for is made again ..."""
_TRIES, _FIRST_TRIES = 12, 4
"""... so many times at most. Its own failures count at once."""
_MOST = 4
"""Where so many runs leave it open whether a peer without Accord is met, up to so many times as many are made: of two
hundred connections the third slowest is the 99th percentile."""
_TIMER_S = 0.5
"""What takes this long has waited for a timer, beside which such a pause is nothing."""

_BESIDE_RATE = 20
"""Legitimate connections a second beside guesses."""

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """Of the command line."""

    runs: int
    rtt: float
    """Seconds."""
    attach: str
    seed: int
    policy: dict[str, str]
    """Beside the default one's keys."""
    ipv6: bool = False


def measure(site: Site, case: Case, contact: Worker, stalls: Stalls, options: Options, step: Step) -> Measured:
    """All of one row; the daemons are up."""
    runs, rtt = options.runs, options.rtt
    port = ACCORD_PORT if case.peer == "accord" else LEGACY_PORT
    measured = Measured(case)
    policy = {**options.policy, **({} if case.context == "udp" else {"context": case.context})}
    plain, ours = site.order("plain", port), site.order("accord", port, policy=policy)

    def round_trip() -> float:
        asked = [contact.ask(site.order("round_trip", port, pause=0)) for _ in range(_ROUND_TRIPS)]
        taken = sorted(each["ready_ms"] for each in asked if each["ok"])
        return taken[len(taken) // 2] if taken else rtt * 1000

    def one(series: Series, order: dict[str, Any], *, known: bool = True) -> None:
        step(case.name)
        if series.hopeless:
            return
        for _ in range(1 if case.path in CHANCE else _TRIES if known or case.peer == "legacy" else _FIRST_TRIES):
            if not known:
                measured.memory = site.flush(site.lab.client)
            begin = time.monotonic()
            result = contact.ask(order)
            end = time.monotonic()
            if not result["ok"] or end - begin > _TIMER_S or stalls.longest(begin, end) < _STALL_S:
                break
            series.stalled += 1
        series.results.append(result)

    measured.rtt_ms = round_trip()
    first, first_plain = measured.first, measured.first_plain
    number, firsts = 0, _firsts(runs, case.peer)
    while not enough(number, firsts, case.peer == "legacy" and case.path not in CHANCE, first, first_plain):
        for series, order in _turns(number, (first, ours), (first_plain, plain)):
            one(series, order, known=False)
        number += 1
        if _is_slow(first_plain) and number >= 3:
            break
    if _is_slow(first_plain):
        runs = min(runs, _SLOW_RUNS)
    # Failures in a row count as one if they are closer together than a second (controller/peers/memory.py): so long
    # it takes until all is remembered.
    learning = time.monotonic() + _LEARN_SECONDS
    while time.monotonic() < learning and len(measured.learning.results) < _LEARN_MOST:
        one(measured.learning, ours)
    number = 0
    while not enough(number, runs, not case.negotiable and case.path not in CHANCE, measured.accord, measured.plain):
        for series, order in _turns(number, (measured.accord, ours), (measured.plain, plain)):
            one(series, order)
        number += 1
    if not _is_slow(measured.accord):
        site.lab.change(rtt=FAR * rtt)
        measured.far_rtt_ms = round_trip()
        for _ in range(max(_LEAST, runs // _FAR_PART)):
            one(measured.far, ours)
        site.lab.change(rtt=rtt)
    return measured


def enough(number: int, least: int, judged: bool, ours: Series, theirs: Series) -> bool:
    """After so many pairs. judged: what is added at the 99th percentile decides about the row."""
    if number < least or not judged:
        return number >= least
    return number >= _MOST * least or _is_slow(ours) or (number % least == 0 and not undecided(ours, theirs))


def _turns(number: int, *pair: tuple[Series, dict[str, Any]]) -> tuple[tuple[Series, dict[str, Any]], ...]:
    """Who is first changes: whoever follows the other finds warm caches."""
    return pair if number % 2 else pair[::-1]


def _is_slow(series: Series) -> bool:
    times = [each.get("ready_ms", each.get("after_ms", 0.0)) for each in series.results]
    return bool(times) and sorted(times)[len(times) // 2] > _SLOW_SECONDS * 1000


def _firsts(runs: int, peer: str) -> int:
    return max(_LEAST, runs // _FIRST_PART[peer])


def steps_of(runs: int, peer: str) -> int:
    """Connections of one case, about."""
    return _LEARN_MOST + 2 * _firsts(runs, peer) + 2 * runs + max(_LEAST, runs // _FAR_PART)


def run_path(wanted: list[Case], options: Options, step: Step) -> list[dict[str, Any]]:
    """The rows of one path: first without a daemon on the server, then with one."""
    found: list[dict[str, Any]] = []
    path = wanted[0].path
    name = f"fallback-{os.getpid()}"
    with (
        scratch("fallback") as directory,
        Lab(name, rtt=options.rtt, path=path, seed=options.seed) as lab,
        Site(lab, directory, options.attach, ipv6=options.ipv6) as site,
        Awake(),
        Stalls() as stalls,
    ):
        # The worker of a daemon that gives its privileges up has to read what lies here.
        directory.chmod(0o755)
        site.daemon(lab.client)
        contact = site.worker(lab.client, "_contact.py")
        others = contextlib.nullcontext() if PATHS[path].clients == 1 else Neighbour(site)
        served = False
        with others:
            for case in sorted(wanted, key=lambda case: case.peer != "legacy"):
                if case.peer == "accord" and not served:
                    site.daemon(lab.server)
                    served = True
                found += rows(measure(site, case, contact, stalls, options, step))
        ledger = site.ledger.ask({})
    for each in found:
        each["doubled"] = len(ledger["doubled"])
        each["family"] = 6 if options.ipv6 else 4
    return found


class Neighbour:
    """The other host behind the same NAT: makes the same connections meanwhile, from another daemon."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._process: Worker | None = None

    def __enter__(self) -> None:
        lab = self._site.lab
        self._site.daemon(lab.client2)
        self._process = self._site.worker(lab.client2, "_neighbour.py", json.dumps(self._orders()))
        self._process.wait_ready()

    def _orders(self) -> list[dict[str, Any]]:
        control = str(self._site.hosts.control(self._site.lab.client2))
        return [self._site.order("accord", port, control=control, timeout=5) for port in (LEGACY_PORT, ACCORD_PORT)]

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.close()


def campaigns(
    mixed: int | None, guesses: int | None, rate: float, options: Options, quiet: bool, as_json: bool
) -> None:
    """Those that were asked for, each on hosts of its own; exit code 1 when one is not met."""
    found = {}
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet or not sys.stderr.isatty()) as progress:
        if mixed:
            task = progress.add_task(f"mixed connections, seed {options.seed}", total=mixed)
            with _both_daemons(options) as site:
                found["mixed"] = _mixed.mixed(
                    site, mixed, options.seed, lambda done: progress.update(task, completed=done)
                )
        if guesses:
            beside = max(20, min(options.runs, int(guesses / rate * _BESIDE_RATE)))
            task = progress.add_task("connections beside guesses", total=beside)
            with _both_daemons(options) as site:
                found["guesses"] = _mixed.guessed(
                    site, guesses, rate, beside, options.seed, lambda done: progress.update(task, completed=done)
                )
    if as_json:
        print(json.dumps(found))
    else:
        for result in found.values():
            for name, value in result.items():
                print(f"{name:20} {value}")
    sys.exit(0 if all(result["met"] for result in found.values()) else 1)


@contextlib.contextmanager
def _both_daemons(options: Options) -> Iterator[Site]:
    with (
        scratch("fallback") as directory,
        Lab(f"fallback-{os.getpid()}", rtt=options.rtt, path="router", seed=options.seed) as lab,
        Site(lab, directory, options.attach, ipv6=options.ipv6) as site,
    ):
        directory.chmod(0o755)
        site.daemon(lab.client)
        site.daemon(lab.server)
        yield site


def table(rows: list[dict[str, Any]], console: Console) -> None:
    """For people."""
    for each in rows:
        kind = "first" if each["contact"] == "first" else each["context"]
        mark = "met " if each["met"] else "MISS"
        family = "IPv6 " if each["family"] == 6 else ""
        stack = "/".join(each["stack"]) or "none"
        trips = "-" if each["round_trips"] is None else f"{each['round_trips']:.2f}"
        figures = [each["added_ms_p50"], each["added_ms_p99"], each["first_added_ms"]]
        shown = " ".join("       -" if figure is None else f"{figure:8.2f}" for figure in figures)
        console.print(
            f"{mark} {family}{each['path']:16} {each['peer']:7} {kind:6} {each['ok']:>4}/{each['n']:<4}"
            f" {stack:12} {trips:>6} {shown}  {each['reason']}: {each['why']}",
            highlight=False,
            soft_wrap=True,
        )


def _names(
    context: click.Context, parameter: click.Parameter, value: str | None, allowed: tuple[str, ...]
) -> list[str]:
    chosen = [name.strip() for name in value.split(",")] if value else list(allowed)
    for name in chosen:
        if name not in allowed:
            raise click.BadParameter(f"{name!r}; allowed: {', '.join(allowed)}", context, parameter)
    return chosen


def _paths(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    return _names(context, parameter, value, tuple(PATHS))


def _peers(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    return _names(context, parameter, value, PEERS)


_ASKED = threading.Event()
"""To end."""


def _end(_signal: int, _frame: FrameType | None) -> None:
    """What comes amid somebody's clean-up is lost with what that suppresses: it is looked at before each connection."""
    _ASKED.set()
    raise KeyboardInterrupt


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--runs", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Connections a row.")
@click.option("--paths", callback=_paths, metavar="A,B", help="Some of the paths; see `accord lab paths`.")
@click.option("--peers", callback=_peers, metavar="A,B", help="Some of the peers: accord, legacy.")
@click.option("--rtt", type=Finite(1, 1000), default=20, show_default=True, help="Of the link, milliseconds.")
@click.option("--tcp", type=click.Choice(["auto", "no-syn", "parallel-syn"]), help="Policy; else the default's.")
@click.option("--attach", type=click.Choice(["auto", "native", "generic", "none"]), default="auto", show_default=True)
@click.option("--seed", type=click.IntRange(1), default=1, show_default=True, help="Of the link's chance.")
@click.option("--ipv6", is_flag=True, help="All of it over IPv6; else IPv4. Not with --guesses.")
@click.option("--mixed", type=click.IntRange(1), metavar="N", help="Instead: N connections of all kinds at once.")
@click.option("--guesses", type=click.IntRange(1), metavar="N", help="Instead: beside N SYNs with guessed IDs.")
@click.option("--rate", type=Finite(1), default=5000, show_default=True, help="Guesses a second.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    runs: int,
    paths: list[str],
    peers: list[str],
    rtt: float,
    tcp: str | None,
    attach: str,
    seed: int,
    ipv6: bool,
    mixed: int | None,
    guesses: int | None,
    rate: float,
    quiet: bool,
    as_json: bool,
) -> None:
    """Time that a connection takes over plain TCP and TLS, for each path and peer, and how it came up.

    added_ms: over plain TCP and TLS, at the same quantile; both measured inside the process that connects.
    added_wall_ms: until the connection is in the application's hands. first_added_ms: of first contacts, the memory of
    peers flushed before each; with a peer without Accord they have a row of their own, and half as many are made as of
    the others. After them come some until what they have shown is believed (learning_*).
    round_trips: slope of the median over the link's round trip. A row is met when a peer without Accord adds at most
    1 ms at p99, and one with Accord is ready over TLS/TCP in one round trip where its proposals pass. While 1 ms lies
    within the range of 95 of 100 bootstrap samples, --runs more are made, up to four times as many. A row in which
    five connections in a row fail is given up: n says how many there were. Ctrl-C ends the matrix after the rows that
    are whole.

    A connection during which the machine stood still for 1 ms or more, seen by a process of its own that asks to be
    woken each millisecond, is made again, plain ones and ours alike (stalled, plain_stalled); not on paths with chance.

    --mixed: both peers, every way to open TCP, bare and with TLS, some given up on the way, while packets are lost,
    repeated and reordered: none doubled, lost or stuck, and nothing left after 2 s. --guesses: a flood of SYNs with
    transaction IDs that nobody has, from the same address, beside connections that must not notice.
    """
    for end in (signal.SIGTERM, signal.SIGINT):
        signal.signal(end, _end)
    # What this starts inherits it: other work on the machine is not what is measured. (Niceness would tell apart only
    # processes of one control group, or one session.)
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    if ipv6 and guesses:
        raise click.UsageError("--guesses are sent over IPv4")
    if mixed or guesses:
        campaigns(mixed, guesses, rate, Options(runs, rtt / 1000, attach, seed, {}, ipv6), quiet, as_json)
        return
    wanted = cases(paths, peers)
    begin = time.monotonic()
    made: list[dict[str, Any]] = []
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    over = False
    with Progress(*columns, console=console, disable=quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=sum(steps_of(runs, case.peer) for case in wanted))

        def step(what: str) -> None:
            if _ASKED.is_set():
                raise KeyboardInterrupt
            progress.update(task, advance=1, description=what)

        with contextlib.suppress(KeyboardInterrupt):
            for number, path in enumerate(dict.fromkeys(case.path for case in wanted)):
                of_path = [case for case in wanted if case.path == path]
                options = Options(runs, rtt / 1000, attach, seed + number, {"tcp": tcp} if tcp else {}, ipv6)
                of_this = run_path(of_path, options, step)
                made += of_this
                paths_done = {each["path"] for each in made}
                done = sum(steps_of(runs, case.peer) for case in wanted if case.path in paths_done)
                progress.update(task, completed=done)
                if not quiet:
                    table(of_this, console)
            over = True
    result = {
        "rtt_ms": rtt,
        "runs": runs,
        "family": 6 if ipv6 else 4,
        "measured_in": "the process that makes the connection (added_ms), the application (added_wall_ms)",
        "seconds": round(time.monotonic() - begin, 1),
        "interrupted": not over,
        "load_average": round(os.getloadavg()[0], 1),
        "met": sum(each["met"] for each in made),
        "missed": [
            f"{each['path']} {each['peer']}" + (" first" if each["contact"] == "first" else "")
            for each in made
            if not each["met"]
        ],
        "rows": made,
    }
    if as_json:
        print(json.dumps(result))
    elif quiet:
        table(made, Console())
    if not over:
        sys.exit(130)


if __name__ == "__main__":
    run(main)
