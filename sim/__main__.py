# SPDX-License-Identifier: Apache-2.0
"""The command: ``./build.py sim``."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from accord.cli.numbers import Finite
from accord.wire.errors import AccordError
from sim.campaign import Report, campaign, judge_scenario
from sim.mitm import command
from sim.scenario import Scenario, draw
from sim.shrink import shrink
from sim.world import Verdict

_ERRORS = Console(stderr=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seeds", type=click.IntRange(1), default=1000, show_default=True, help="How many.")
@click.option("--from", "first", type=click.IntRange(0), default=0, show_default=True, help="The first one.")
@click.option("--seconds", type=Finite(min=0, min_open=True), help="End after so long, seeds left or not.")
@click.option("--seed", type=click.IntRange(0), help="Only this one; it is shrunk and drawn when it fails.")
@click.option("--trace", is_flag=True, help="With --seed: draw the ladder in any case, of the whole scenario.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--mitm", is_flag=True, help="Edits of conversations by a man in the middle, in place of seeds.")
@click.option("--lab", is_flag=True, help="With --mitm: between two real daemons, in namespaces of their own, as root.")
@click.option("--edits", type=click.IntRange(1), default=20_000, show_default=True, help="With --mitm: how many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def main(
    seeds: int,
    first: int,
    seconds: float | None,
    seed: int | None,
    trace: bool,
    jobs: int,
    mitm: bool,
    lab: bool,
    edits: int,
    as_json: bool,
) -> None:
    """Run simulated hosts through random negotiations and faults, in virtual time, and check what has to hold.

    The hosts run the real C engine and the real control plane; clock, network, kernel TCP and randomness are
    simulated and follow from the seed. A failing seed is made smaller and drawn as a ladder. Exit code 1 when
    anything did not hold. docs/SIMULATOR.md says what is checked.

    With --mitm somebody on the path edits conversations; --from, --seed, --trace, --seconds and --jobs are then about
    edits, by their numbers. With --lab as well the conversations are of two real daemons, and take real time.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it has processes to end, as at Ctrl-C
    if trace and seed is None:
        raise click.UsageError("--trace draws one seed: give --seed N")
    if lab:
        if not mitm or seed is not None:
            raise click.UsageError("--lab is for --mitm, and for many edits: --edits, --from, --seconds")
        try:
            sys.exit(command.in_lab(first, edits, seconds, as_json=as_json))
        except AccordError as failure:
            sys.exit(f"accord: {failure}")
    if mitm:
        if seed is not None:
            sys.exit(command.one(seed, trace=trace, as_json=as_json))
        sys.exit(command.many(range(first, first + edits), jobs, seconds, as_json=as_json))
    if seed is not None:
        sys.exit(_one(seed, trace, as_json))
    report = _many(range(first, first + seeds), jobs, seconds)
    if as_json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        _say(report)
    if report.failures and not report.interrupted:
        _explain(draw(min(report.failures)), Console(stderr=as_json))
    sys.exit(130 if report.interrupted else 0 if report.ok else 1)


def _many(seeds: range, jobs: int, seconds: float | None) -> Report:
    columns = (
        TextColumn("seeds"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} an hour, {task.fields[failed]} failed"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_ERRORS, disable=not _ERRORS.is_terminal) as progress:
        task = progress.add_task("", total=len(seeds), rate=0, failed=0)
        return campaign(
            seeds,
            jobs,
            lambda report: progress.update(
                task, completed=report.seeds, rate=report.seeds_per_hour, failed=len(report.failures)
            ),
            seconds,
        )


def _say(report: Report) -> None:
    found: dict[str, Any] = report.as_dict()
    print(
        f"{report.seeds} seeds, {report.negotiations} negotiations, {report.packets} packets in {report.seconds:.1f} s"
    )
    print(f"converged {found['converged']}, " + ", ".join(f"{kind} {found[kind]}" for kind in _KINDS))
    print(
        f"replayed {report.replayed}: " + ("identical" if found["replay_identical"] else f"{report.different} differ")
    )
    print(f"worst {report.worst_steps} steps (seed {report.worst_seed}), {report.seeds_per_hour} seeds an hour")
    print("seeds with " + ", ".join(f"{feature} {count}" for feature, count in found["features"].items()))
    if report.interrupted:
        print("interrupted: these are the seeds until then")
    for seed, failures in sorted(report.failures.items())[:10]:
        print(f"seed {seed}: " + "; ".join(f"{kind}: {texts[0]}" for kind, texts in failures.items()))


_KINDS = ("diverged", "stuck", "leaked", "amplified", "exception")


def _one(seed: int, trace: bool, as_json: bool) -> int:
    scenario = draw(seed)
    verdict = judge_scenario(scenario, keep_ladder=trace)
    if as_json:
        print(json.dumps({"seed": seed, "trace_hash": verdict.trace_hash, "failures": verdict.failures}, indent=2))
    console = Console(stderr=as_json)
    if trace:
        _draw(scenario, verdict, console)
    elif verdict.failures:
        _explain(scenario, console)
    elif not as_json:
        print(f"seed {seed}: converged, {verdict.steps} steps, {verdict.packets} packets, trace {verdict.trace_hash}")
    return 1 if verdict.failures else 0


def _explain(scenario: Scenario, console: Console) -> None:
    console.print(f"\nseed {scenario.seed}, made smaller:", highlight=False)
    smaller = shrink(scenario, judge_scenario)
    _draw(smaller, judge_scenario(smaller, keep_ladder=True), console)


def _draw(scenario: Scenario, verdict: Verdict, console: Console) -> None:
    lines = [f"host {index}: {host}" for index, host in enumerate(scenario.hosts)]
    lines += [f"call {number}: {call}" for number, call in enumerate(scenario.calls)]
    lines += [f"fault: {fault}" for fault in scenario.faults]
    lines += [f"one way, ms: {[[each / 1000 for each in row] for row in scenario.delays]}"]
    lines += [f"TLS: {'real' if scenario.real_tls else 'stand-in'}", "", *verdict.ladder, ""]
    lines += [f"{kind}: {text}" for kind, texts in verdict.failures.items() for text in texts] or ["converged"]
    for line in [*lines, f"trace {verdict.trace_hash}"]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
