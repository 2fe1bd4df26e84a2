# SPDX-License-Identifier: Apache-2.0
"""``accord trace stages``: how long each stage of a negotiation takes, as histograms.

A uprobe on a function that does nothing and that the engine calls at each stage: it sees the same on every rung
(AF_XDP frames pass no tracepoint of the kernel's), costs a call where nobody looks, and has the transaction's ID.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from accord.cli.trace.histogram import milliseconds, quantile, render
from accord.cli.trace.in_order import InOrder
from accord.cli.trace.rings import Rings
from accord.cli.trace.session import compile_text, epoch, options, run, say, wall
from accord.datapath.engine import STAGE_SYMBOL, Stage
from accord.negotiation.interface import Role
from accord.wire.constants import Reason
from accord.wire.errors import error

_ROLES = (Role.INITIATOR, Role.RESPONDER)
"""By ``enum role`` of packet.h."""
_MESSAGES = {0: "proposal", 1: "answer", 2: "commit"}
_WORDS = {Stage.SENT: "sent", Stage.WHOLE: "in", Stage.ACKNOWLEDGED: "acknowledged"}
_MODULE = "accord/datapath/_core."
_EVENT = struct.Struct("=QIBBBB12s")
"""``struct event`` of stages.bcc.c."""


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """From one stage to another; ``reason`` is that of a failure."""

    role: int
    to_step: int
    to_stage: int
    from_step: int
    from_stage: int
    reason: int

    def name(self) -> str:
        """For people: "proposal sent -> answer in"."""
        name = f"{point(self.from_stage, self.from_step)} -> {point(self.to_stage, self.to_step)}"
        return f"{name} ({Reason(self.reason).name})" if self.to_stage == Stage.FAILED else name


def point(stage: int, step: int) -> str:
    """A stage in words."""
    if stage in _WORDS:
        return f"{_MESSAGES.get(step, f'step {step}')} {_WORDS[Stage(stage)]}"
    return Stage(stage).name.lower()


@click.command()
@click.option("--pid", "pids", type=int, multiple=True, help="Only this daemon; may be repeated. Default: all.")
@click.option("--each", is_flag=True, help="Print each stage of each negotiation, too, as it is reached.")
@options
def stages(pids: tuple[int, ...], each: bool, seconds: float | None, as_json: bool) -> None:
    """Histograms of the time between the stages of negotiations, printed at the end.

    "opened" is the initiator's begin, or the responder's first packet. A negotiation that began before the tracer is
    left out. Fourths of powers of two, in microseconds, are the buckets: no figure is off by more than a quarter.
    """
    found = libraries(pids)
    if not found:
        who = f"process {', '.join(map(str, pids))} does not run" if pids else "no process runs"
        raise error(Reason.NO_DAEMON, f"{who} Accord's engine", "start one: sudo accord daemon --iface IF")
    bpf = compile_text("stages", {"EACH": 1} if each else None)
    lost = 0

    def on_loss(count: int) -> None:
        nonlocal lost
        lost += count

    try:
        attach(bpf, found)
        reached = InOrder[bytes](lambda data: show(data, as_json))
        with Rings(lambda data: reached.add(_EVENT.unpack_from(data)[0], data), on_loss) as rings:
            rings.join(bpf["events"])
            run("stages of negotiations", as_json, lambda patience: reached.round(rings.poll, patience), seconds)
        reached.finish()
        report(bpf, as_json)
        if lost:
            click.echo(f"{lost} stages came too fast to be printed one by one; the histograms have them", err=True)
    finally:
        bpf.cleanup()


def attach(bpf: Any, found: Iterable[tuple[int, str]]) -> None:
    """Probe each copy. Raises ``HostError`` (``LOAD_FAILED``) when none of them can be; says which cannot."""
    attached, refusal = 0, ""
    for pid, library in found:
        try:
            bpf.attach_uprobe(name=library, sym=STAGE_SYMBOL, fn_name="stage_reached", pid=pid)
            attached += 1
        except Exception as failure:  # bcc raises bare ones
            refusal = str(failure)
            click.echo(f"accord: left out: {refusal}", err=True)
    if not attached:
        raise error(
            Reason.LOAD_FAILED, refusal, "is the daemon older than this command, or the kernel without uprobes?"
        )


def libraries(pids: Iterable[int]) -> list[tuple[int, str]]:
    """(process or -1 for all of them, path) of each copy of the engine that is mapped by one of ``pids``, or by
    anyone. Paths go through /proc, where a container's files are to be found."""
    wanted = list(pids) or [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    found: dict[tuple[int, int, int], tuple[int, str]] = {}
    for pid in wanted:
        path = _mapped(pid)
        if path is None:
            continue
        status = os.stat(path)
        # One file needs one probe for all of its processes.
        scope = pid if pids else -1
        found.setdefault((scope, status.st_dev, status.st_ino), (scope, path))
    return list(found.values())


def _mapped(pid: int) -> str | None:
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
        path = next((line.split(maxsplit=5)[5] for line in lines if _MODULE in line), None)
        if path is None:
            return None
        through = f"/proc/{pid}/root{path}"
        return through if os.path.exists(through) else None
    except OSError:  # gone in the meantime
        return None


def show(data: bytes, as_json: bool) -> None:
    """One stage, as it was reached."""
    at_ns, process, role, stage, step, reason, transaction = _EVENT.unpack_from(data)
    line: dict[str, object] = {
        "event": "stage",
        "at": epoch(at_ns),
        "pid": process,
        "role": _ROLES[role].value,
        "transaction": transaction.hex(),
        "stage": Stage(stage).name.lower(),
        "step": step,
    }
    if stage == Stage.FAILED:
        line["reason"] = Reason(reason).name
    if as_json:
        say(line)
    else:
        why = f" ({Reason(reason).name})" if stage == Stage.FAILED else ""
        say(f"{wall(at_ns)}  {process}  {transaction.hex()}  {_ROLES[role].value}: {point(stage, step)}{why}")


def report(bpf: Any, as_json: bool) -> None:
    """The histograms, by role and in the order of the negotiation."""
    for interval, total_ns, counts in histograms(bpf):
        count, role = sum(counts.values()), _ROLES[interval.role].value
        mean = total_ns / count / 1000
        if as_json:
            say(
                {
                    "event": "histogram",
                    "role": role,
                    "from": point(interval.from_stage, interval.from_step),
                    "to": point(interval.to_stage, interval.to_step),
                    **({"reason": Reason(interval.reason).name} if interval.to_stage == Stage.FAILED else {}),
                    "count": count,
                    "mean_us": round(mean, 1),
                    "p50_us": quantile(counts, 0.5),
                    "p99_us": quantile(counts, 0.99),
                    "buckets": buckets(counts),
                }
            )
            continue
        middle = f"half <= {milliseconds(quantile(counts, 0.5))} ms, 99 % <= {milliseconds(quantile(counts, 0.99))} ms"
        say(f"\n{role}: {interval.name()}   {count} times, mean {milliseconds(mean)} ms, {middle}")
        for line in render(counts):
            say(line)


def buckets(counts: dict[int, int]) -> list[dict[str, int]]:
    """For JSON: from (inclusive) and to (exclusive) in microseconds."""
    from accord.cli.trace.histogram import bounds

    return [
        {"from_us": bounds(slot)[0], "to_us": bounds(slot)[1], "count": count} for slot, count in sorted(counts.items())
    ]


def histograms(bpf: Any) -> Iterator[tuple[Interval, int, dict[int, int]]]:
    """Each interval with the sum of its durations in nanoseconds and its counts by slot."""

    def key(raw: Any) -> Interval:
        return Interval(raw.role, raw.to_step, raw.to_stage, raw.from_step, raw.from_stage, raw.reason)

    sums = {key(raw): value.value for raw, value in bpf["sums"].items()}
    found: dict[Interval, dict[int, int]] = {}
    for raw, value in bpf["intervals"].items():
        found.setdefault(key(raw), {})[raw.slot] = value.value
    # The whole negotiation stands below its parts.
    for interval in sorted(found, key=lambda each: (each.role, each.from_stage == Stage.OPENED, each)):
        yield interval, sums.get(interval, 0), found[interval]
