#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Round trips of each kind of negotiation, beside the least that is possible; and long flights under loss."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click
from _flights import LOSSES, Flights
from _site import Site
from _stage import BENCH, Case, Stage, load, row
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from accord.cli.main import run
from accord.cli.numbers import Finite
from accord.lab.awake import Awake
from accord.lab.lab import Lab
from accord.lab.scratch import scratch

FLIGHT_BYTES = 20 * 1024
PLUGINS = BENCH / "plugins"
_FLIGHT_STEPS = 3

Step = Callable[[str], None]


@contextlib.contextmanager
def two_hosts(name: str, rtt: float, seed: int) -> Iterator[tuple[Lab, Site, Path]]:
    """Without daemons yet."""
    with (
        scratch("model") as directory,
        Lab(f"model-{name}-{os.getpid()}", rtt=rtt, seed=seed) as lab,
        Site(lab, directory, plugins=PLUGINS) as site,
        Awake(),
    ):
        # The worker of a daemon that gives its privileges up has to read what lies here.
        directory.chmod(0o755)
        yield lab, site, directory


def rows(cases: list[Case], runs: int, rtt: float, seed: int, step: Step) -> tuple[list[dict[str, Any]], float]:
    """All of them in turns, and the link's round trip as it was measured, seconds."""
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}
    failures: dict[str, list[str]] = {case.name: [] for case in cases}
    with two_hosts("rows", rtt, seed) as (lab, site, directory), contextlib.ExitStack() as settings:
        site.daemon(lab.client)
        site.daemon(lab.server)
        measured = lab.measure_rtt(count=15).median
        once = {}
        for case in cases:
            step(f"{case.name}, setting up")
            try:
                once[case.name] = settings.enter_context(case.setting(Stage(lab, site, directory)))
                once[case.name]()
            except (RuntimeError, OSError) as failure:
                failures[case.name].append(str(failure))
        for number in range(runs):
            turn = number % max(1, len(cases))
            for case in cases[turn:] + cases[:turn]:
                step(case.name)
                if failures[case.name]:
                    continue
                try:
                    seconds[case.name].append(once[case.name]())
                except (RuntimeError, OSError) as failure:
                    failures[case.name].append(str(failure))
    return [row(case, seconds[case.name], failures[case.name], measured) for case in cases], measured


def flights(losses: list[float], runs: int, rtt: float, seed: int, size: int, step: Step) -> list[dict[str, Any]]:
    """One row for each loss."""
    with two_hosts("flights", rtt, seed) as (lab, site, directory):
        stage = Flights(lab, site, directory, size)
        return [stage.at(loss, runs, step) for loss in losses]


def table(result: dict[str, Any], console: Console) -> None:
    """For people."""
    for each in result["rows"]:
        mark = "met " if each["met"] else "MISS"
        trips = "-" if each["round_trips"] is None else f"{each['round_trips']:.3f}"
        spread = " .. ".join(f"{bound:.3f}" for bound in each["spread"])
        console.print(f"{mark} {each['case']:24} {trips:>6} round trips of {each['minimum']:g}  ({spread})")
        for failure in each.get("failures", ()):
            console.print(f"     {failure[:400]}", markup=False)
    for each in result["flights"]:
        console.print(f"{each['bytes']} bytes of certificates, {each['loss_percent']:g} % loss, {each['n']} each:")
        for kind in ("accord", "accord_first", "quic"):
            found = each[kind]
            spread = " .. ".join(f"{bound:.0f}" for bound in found["spread_ms"])
            failed = f", {found['failed']} failed" if found["failed"] else ""
            if found["median_ms"] is not None:
                console.print(
                    f"     {kind:13} median {found['median_ms']:7.1f} ms  p95 {found['p95_ms']:7.1f}"
                    f"  mean {found['mean_ms']:7.1f}  ({spread}){failed}"
                )
            else:
                console.print(f"     {kind:13} none came up: {found.get('failures')}", markup=False)


def _losses(context: click.Context, parameter: click.Parameter, value: str | None) -> list[float]:
    if not value:
        return list(LOSSES)
    try:
        chosen = [float(part) for part in value.split(",")]
    except ValueError:
        chosen = [-1.0]
    if not all(0 <= loss <= 50 for loss in chosen):
        raise click.BadParameter(f"{value!r}: per cents from 0 to 50, as in 0,1,5,10", context, parameter)
    return chosen


def _chosen(context: click.Context, parameter: click.Parameter, value: str | None) -> list[Case]:
    cases = load()
    if value is None:
        return cases
    names = [name for name in value.split(",") if name]
    known = {case.name: case for case in cases}
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name!r}; there is: {', '.join(known)}", context, parameter)
    return [known[name] for name in names]


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--runs", type=click.IntRange(1, 10_000), default=21, show_default=True, help="Negotiations a case.")
@click.option("--flight-runs", type=click.IntRange(0, 10_000), default=60, show_default=True, help="Of each at a loss.")
@click.option("--cases", callback=_chosen, metavar="A,B", help='Some of the cases; "" for none.')
@click.option(
    "--losses", callback=_losses, metavar="A,B", help="Per cent each way, of the flights.  [default: 0,1,5,10]"
)
@click.option("--flight-bytes", type=click.IntRange(2048, 60_000), default=FLIGHT_BYTES, show_default=True)
@click.option("--rtt", type=Finite(1, 1000), default=100, show_default=True, help="Of the link, milliseconds.")
@click.option("--seed", type=click.IntRange(1), default=1, show_default=True, help="Of the link's chance.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    runs: int,
    flight_runs: int,
    cases: list[Case],
    losses: list[float],
    flight_bytes: int,
    rtt: float,
    seed: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Round trips until a negotiation is ready, for each kind of negotiation.

    Ready: from the application's call until it may send on the whole stack, every check passed; divided by the link's
    own round trip, measured in the same run. All cases take turns. A row is met when its median is at most 0.15 above
    the minimum, which the case states.

    Flights: a server that has a certificate chain of 20 KiB, negotiated with (accord: the peer is known; accord_first:
    it has just been forgotten) and by aioquic's own handshake, in turns, at several rates of loss.
    """
    signal.signal(signal.SIGTERM, _end)
    # What this starts inherits it: other work on the machine is not what is measured.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    begin = time.monotonic()
    steps = len(cases) * (runs + 1) + (len(losses) * flight_runs * _FLIGHT_STEPS)
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    measured: float | None = None
    found: list[dict[str, Any]] = []
    flown: list[dict[str, Any]] = []
    with Progress(*columns, console=Console(stderr=True), disable=quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task("starting two hosts", total=steps)

        def step(what: str) -> None:
            progress.update(task, advance=1, description=what)

        if cases:
            found, measured = rows(cases, runs, rtt / 1000, seed, step)
        if flight_runs and losses:
            flown = flights(losses, flight_runs, rtt / 1000, seed, flight_bytes, step)
    result = {
        "rtt_ms": rtt,
        "measured_rtt_ms": None if measured is None else round(measured * 1000, 3),
        "runs": runs,
        "flight_runs": flight_runs,
        "seconds": round(time.monotonic() - begin, 1),
        "load_average": round(os.getloadavg()[0], 1),
        "rows": found,
        "missed": [each["case"] for each in found if not each["met"]],
        "flights": flown,
    }
    table(result, Console(stderr=as_json, width=120))
    if as_json:
        print(json.dumps(result))


if __name__ == "__main__":
    run(main)
