# SPDX-License-Identifier: Apache-2.0
"""``accord stats``: every counter of every floor, by reason, for people, as JSON or for Prometheus."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from accord.cli.numbers import Finite
from accord.cli.prometheus import exposition
from accord.cli.status import ask
from accord.wire.constants import Reason

_MIN_SECONDS = 0.1

Previous = Mapping[tuple[str, ...], float]
"""Values of counters, by name and labels."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, on one line with --watch.")
@click.option("--prometheus", is_flag=True, help="Print Prometheus' text exposition format.")
@click.option(
    "--watch", "seconds", type=Finite(min=_MIN_SECONDS), metavar="SECONDS",
    help="Ask again every so many seconds, until Ctrl-C; counters then have rates.",
)  # fmt: skip
@click.option("--control", type=click.Path(path_type=Path), help="Control socket of the daemon.")
def stats(as_json: bool, prometheus: bool, seconds: float | None, control: Path | None) -> None:
    """Show every counter of the XDP program, the rings, the engine and the controller, by reason.

    docs/OPERATIONS.md says what each of them counts.
    """
    if as_json and prometheus:
        raise click.UsageError("--json or --prometheus, not both")
    if prometheus and seconds is not None:
        raise click.UsageError("--watch is not for --prometheus: Prometheus asks as often as it wants to")
    if prometheus:
        click.echo(exposition(_families(control)), nl=False)
    elif as_json:
        for _ in _rounds(seconds):
            click.echo(json.dumps({"families": _families(control)}, indent=2 if seconds is None else None))
    elif seconds is None:
        click.echo(text(_families(control)))
    else:
        _watch(seconds, control)


def _families(control: Path | None) -> list[dict[str, Any]]:
    families: list[dict[str, Any]] = asyncio.run(ask(control, {"op": "stats"}))["families"]
    return families


def _rounds(seconds: float | None) -> Iterator[None]:
    """Once, or at a steady pace for ever: what an answer took does not delay the next."""
    due = time.monotonic()
    yield
    while seconds is not None:
        due = max(due + seconds, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        yield


def _watch(seconds: float, control: Path | None) -> None:
    before: Previous = {}
    then = time.monotonic()
    for _ in _rounds(seconds):
        families, now = _families(control), time.monotonic()
        click.clear()  # where there is a terminal; in a file they stand one below the other
        click.echo(text(families, before, now - then))
        before, then = counters(families), now


def counters(families: list[dict[str, Any]]) -> dict[tuple[str, ...], float]:
    """Values of what only grows, by name and labels."""
    return {
        _key(family, sample): sample["value"]
        for family in families
        if family["kind"] == "counter"
        for sample in family["samples"]
    }


def text(families: list[dict[str, Any]], before: Previous | None = None, seconds: float = 0.0) -> str:
    """All samples that are not zero, each family under its help; with ``before``, rates over the time between."""
    lines: list[str] = []
    for family in families:
        rows = [_row(family, sample, before, seconds) for sample in family["samples"] if _shown(sample)]
        if not rows:
            continue
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines.append(f"{click.style(family['name'], bold=True)}  {family['help']}")
        for labels, value, rate, meaning in rows:
            cells = [labels.ljust(widths[0]), value.rjust(widths[1]), rate.rjust(widths[2]), meaning]
            lines.append(
                ("    " + "  ".join(cell for cell, width in zip(cells, widths, strict=True) if width)).rstrip()
            )
    return "\n".join(lines)


def _shown(sample: dict[str, Any]) -> bool:
    return bool(sample["count"] if "count" in sample else sample["value"])


def _row(family: dict[str, Any], sample: dict[str, Any], before: Previous | None, seconds: float) -> tuple[str, ...]:
    labels = ", ".join(sample["labels"].values())
    if family["kind"] == "histogram":
        return labels, _summary(sample), "", ""
    rate = ""
    if before and family["kind"] == "counter" and seconds > 0:
        rate = f"{(sample['value'] - before.get(_key(family, sample), 0.0)) / seconds:,.1f}/s"
    reason = Reason.__members__.get(sample["labels"].get("reason", ""))
    return labels, f"{sample['value']:,.12g}", rate, reason.text if reason is not None else ""


def _summary(sample: dict[str, Any]) -> str:
    """Of a histogram of seconds: how many, their mean, and the bucket that half of them do not exceed."""
    half = next((bound for bound, up_to in sample["buckets"] if 2 * up_to >= sample["count"]), None)
    median = f"half <= {half * 1000:g} ms" if half is not None else "half above the last bucket"
    return f"{sample['count']:,}; mean {sample['sum'] / sample['count'] * 1000:.1f} ms; {median}"


def _key(family: dict[str, Any], sample: dict[str, Any]) -> tuple[str, ...]:
    return (family["name"], *sample["labels"].values())
