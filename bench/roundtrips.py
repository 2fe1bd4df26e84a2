#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Round trips by slope: the demo's cases at several round-trip times, interleaved, and a line through the medians.

What a connection costs in processor time is the line's offset, what it costs in round trips its slope; the slope
survives any noise of the machine. ``./build.py bench roundtrips [--rtt 20 --rtt 60 --rtt 100] [--rounds 3] [--json]``
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import defaultdict

import click

from accord.cli.main import run
from accord.cli.numbers import Finite

_END_SECONDS = 20

MEASURES = ("ready", "first_response")


def demo(rtt: float, repeats: int, family: str) -> dict[str, object]:
    """One run of the demo."""
    command = [sys.executable, "-m", "accord.cli.demo", "--json", "--rtt", str(rtt), "--repeats", str(repeats)]
    with subprocess.Popen(
        [*command, "--family", family], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, said = process.communicate()
        except BaseException:  # Ctrl-C, SIGTERM: it has hosts and processes of its own to take down
            process.terminate()
            process.wait(_END_SECONDS)
            raise
    if process.returncode:
        raise click.ClickException(said[-2000:])
    result: dict[str, object] = json.loads(out.splitlines()[-1])
    return result


@click.command()
@click.option("--rtt", "rtts", multiple=True, type=Finite(1, 2000), default=(20, 60, 100), show_default=True)
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Runs at each round trip.")
@click.option("--repeats", type=click.IntRange(1, 1000), default=9, show_default=True, help="Connections a case.")
@click.option("--family", type=click.Choice(["4", "6"]), default="4", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(rtts: tuple[float, ...], rounds: int, repeats: int, family: str, as_json: bool) -> None:
    """Slope (round trips) and offset (milliseconds) of ready and first response, for each case of the demo."""
    if len(set(rtts)) < 2:
        raise click.UsageError("a slope needs two different round-trip times")
    points: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for _ in range(rounds):
        for rtt in rtts:
            click.echo(f"round trip {rtt:g} ms ...", err=True)
            result = demo(rtt, repeats, family)
            measured = float(str(result["rtt_ms"]))
            cases = result["cases"]
            assert isinstance(cases, list)
            for case in cases:
                for measure in MEASURES:
                    points[case["name"], measure].append((measured, case[f"{measure}_rtts"] * measured))
    rows = []
    for (name, measure), seen in points.items():
        slope, offset = statistics.linear_regression(*zip(*seen, strict=True))
        spread = max(abs(taken - (offset + slope * rtt)) for rtt, taken in seen)
        rows.append(
            {
                "case": name,
                "measure": measure,
                "round_trips": round(slope, 3),
                "offset_ms": round(offset, 2),
                "spread_ms": round(spread, 2),
            }
        )
    if as_json:
        click.echo(json.dumps({"rtts_ms": list(rtts), "rounds": rounds, "repeats": repeats, "rows": rows}))
        return
    for row in rows:
        click.echo(
            f"{row['case']:18} {row['measure']:15} {row['round_trips']:6.3f} round trips"
            f" + {row['offset_ms']:6.2f} ms  (within {row['spread_ms']:.2f} ms)"
        )


if __name__ == "__main__":
    run(main)
