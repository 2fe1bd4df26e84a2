# SPDX-License-Identifier: Apache-2.0
"""``./build.py sim --mitm``: the campaign, here or in a lab, and one edit drawn as a ladder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from accord.wire.constants import Reason
from accord.wire.errors import error
from sim.mitm.campaign import Report, Result, campaign, case_of, play

_ERRORS = Console(stderr=True)
_TOLD_SECONDS: Final = 60.0
"""So often a file is told how far it is."""
_LAB_TOLD: Final = 100
"""The same of edits between daemons, of which there are some in a second."""


@dataclass(slots=True)
class _Telling:
    """Failures as they are found, and how far it is: a bar on a terminal, a line now and then in a file."""

    progress: Progress
    task: TaskID
    total: int
    failures: int = 0
    told: float = 0.0

    def __call__(self, report: Report) -> None:
        self.progress.update(self.task, completed=report.edits, failed=len(report.failures))
        if len(report.failures) > self.failures:
            self.failures = len(report.failures)
            _plain(_failure(report.failures[next(reversed(report.failures))]))
        if not _ERRORS.is_terminal and report.seconds - self.told >= _TOLD_SECONDS:
            self.told = report.seconds
            _plain(f"{report.edits} of {self.total} edits, {self.failures} failed, {report.seconds:.0f} s")


def many(numbers: range, jobs: int, seconds: float | None, *, as_json: bool) -> int:
    """Exit code."""
    columns = (
        TextColumn("edits"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]} failed"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_ERRORS, disable=not _ERRORS.is_terminal) as progress:
        task = progress.add_task("", total=len(numbers), failed=0)
        report = campaign(numbers, jobs, _Telling(progress, task, len(numbers)), seconds)
    if as_json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        _say(report)
    if report.failures and not report.interrupted:
        _draw(min(report.failures), Console(stderr=as_json))
    return 130 if report.interrupted else 0 if report.ok else 1


def in_lab(first: int, count: int, seconds: float | None, *, as_json: bool) -> int:
    """Exit code."""
    if os.geteuid() != 0:
        raise error(Reason.NOT_PERMITTED, "--lab makes network namespaces", "run it as root")
    from sim.mitm import lab  # the simulator needs nothing of it

    def tell(report: lab.LabReport) -> None:
        done = f"{report.edits} of {count} edits, {len(report.failing)} failed, {report.seconds:.0f} s"
        if _ERRORS.is_terminal:
            _ERRORS.print(done, end="\r", markup=False, highlight=False)
        elif report.edits % _LAB_TOLD == 0:
            _plain(done)

    report = lab.campaign(count, first, seconds, tell)
    found = report.as_dict()
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        differences = f"undetected differences {len(report.failing)}"
        print(f"{report.edits} edits between daemons, {differences}, {report.seconds:.1f} s")
        for name, counts in found["outcomes"].items():
            print(f"  {name}: " + ", ".join(f"{what} {number}" for what, number in sorted(counts.items())))
        print("reasons: " + ", ".join(f"{name} {number}" for name, number in found["reasons"].items()))
        for failure in found["failing"]:
            print(f"{failure['talk']}: {failure['edit']}: {failure['said']}")
    return 130 if report.interrupted else 1 if report.failing else 0


def one(number: int, *, trace: bool, as_json: bool) -> int:
    """The edit of this number. Exit code."""
    case = case_of(number)
    outcome = play(case, keep_ladder=True)
    if as_json:
        found = {
            "number": number,
            "conversation": case.conversation.name,
            "edit": str(case.edit),
            "result": outcome.result,
            "reason": outcome.reason,
            "responder": outcome.responder,
            "failures": outcome.said,
        }
        print(json.dumps(found, indent=2))
    elif not trace and outcome.ok:
        print(f"edit {number}, {case.conversation.name}: {case.edit}: {outcome.result} {outcome.reason}".rstrip())
    if trace or not outcome.ok:
        _draw(number, Console(stderr=as_json))
    return 0 if outcome.ok else 1


def _say(report: Report) -> None:
    found = report.as_dict()
    print(f"{report.edits} edits, {report.struck} of them met something, in {report.seconds:.1f} s")
    print(
        f"undetected differences {report.undetected}, weaker than the policy {report.weaker}, "
        f"exceptions {report.wrong}; unclaimed, for want of a security node, {found['unclaimed']}"
    )
    for kind, counts in found["outcomes"].items():
        print(f"  {kind}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print("reasons: " + ", ".join(f"{name} {count}" for name, count in found["reasons"].items()))
    if report.interrupted:
        print("interrupted: these are the edits until then")
    for _, result in sorted(report.failures.items())[:10]:
        print(_failure(result))


def _failure(result: Result) -> str:
    return f"edit {result.number}, {result.conversation}: {result.text}: " + "; ".join(result.said)


def _plain(line: str) -> None:
    _ERRORS.print(line, markup=False, highlight=False, soft_wrap=True)


def _draw(number: int, console: Console) -> None:
    case = case_of(number)
    outcome = play(case, keep_ladder=True)
    lines = [f"edit {number}: {case.edit}", f"conversation: {case.conversation.name}", "", *outcome.ladder, ""]
    lines += outcome.said or [f"{outcome.result} {outcome.reason}".rstrip()]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
