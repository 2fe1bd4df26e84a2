#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How many negotiations one Python thread carries, both ends in it, beside TLS handshakes alone.

``./build.py bench negotiation_rate [--repeats 9] [--count 200] [--json]``
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import click
from _in_memory import TCP, TLS, Hosts

from accord.cli.main import run
from accord.lab.scratch import scratch

RATIO_TARGET = 0.7
RATE_TARGET = 5000.0
_WARM_UP = 20


def cost(run: Callable[[], None], count: int) -> float:
    """Processor seconds of one."""
    begin = time.thread_time()
    for _ in range(count):
        run()
    return (time.thread_time() - begin) / count


def measure(repeats: int, count: int, step: Callable[[int], None]) -> dict[str, list[float]]:
    """Processor seconds of each kind, one figure a repeat; the kinds take turns."""
    seconds: dict[str, list[float]] = {"tls_alone": [], "tls_tcp": [], "tcp": []}
    with scratch("rate") as directory:
        hosts = Hosts(directory)
        kinds: dict[str, Callable[[], None]] = {
            "tls_alone": hosts.handshake,
            "tls_tcp": lambda: hosts.negotiate(TLS),
            "tcp": lambda: hosts.negotiate(TCP),
        }
        for run in kinds.values():
            cost(run, _WARM_UP)
        gc.collect()
        gc.freeze()
        for number in range(repeats):
            step(number)
            for name, run in kinds.items():
                seconds[name].append(cost(run, count))
    return seconds


def figure(values: list[float], digits: int) -> dict[str, Any]:
    """Median and spread."""
    return {
        "median": round(statistics.median(values), digits),
        "spread": [round(min(values), digits), round(max(values), digits)],
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--repeats", type=click.IntRange(1, 1000), default=9, show_default=True, help="Of each kind, in turns.")
@click.option("--count", type=click.IntRange(1, 100_000), default=200, show_default=True, help="Negotiations a repeat.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(repeats: int, count: int, quiet: bool, as_json: bool) -> None:
    """Negotiations a second of processor time, in one Python thread with both ends.

    Both engines, both state machines and the protocols' own sessions, packets from memory to memory: TLS over TCP, and
    TCP alone. Beside them the same TLS handshake without any of that. The ratio is taken within a repeat.
    """

    def step(number: int) -> None:
        if not quiet and sys.stderr.isatty():
            click.echo(f"\rrepeat {number + 1} of {repeats}", nl=False, err=True)

    seconds = measure(repeats, count, step)
    ratios = [alone / whole for alone, whole in zip(seconds["tls_alone"], seconds["tls_tcp"], strict=True)]
    result: dict[str, Any] = {
        "repeats": repeats,
        "count": count,
        "load_average": round(os.getloadavg()[0], 1),
        **{f"{name}_per_second": figure([1 / each for each in values], 1) for name, values in seconds.items()},
        **{f"{name}_us": figure([each * 1e6 for each in values], 1) for name, values in seconds.items()},
        "ratio_tls": figure(ratios, 3),
    }
    result["met"] = {
        "ratio_tls": result["ratio_tls"]["median"] >= RATIO_TARGET,
        "tcp_per_second": result["tcp_per_second"]["median"] >= RATE_TARGET,
    }
    if as_json:
        print(json.dumps(result))
        return
    for name, words in (("tls_alone", "TLS handshakes alone"), ("tls_tcp", "TLS over TCP"), ("tcp", "TCP alone")):
        rate, taken = result[f"{name}_per_second"], result[f"{name}_us"]
        spread = " .. ".join(f"{bound:.0f}" for bound in rate["spread"])
        click.echo(f"{words:22} {rate['median']:7.0f} a second  ({spread})  {taken['median']:6.0f} us each")
    low, high = result["ratio_tls"]["spread"]
    click.echo(
        f"TLS over TCP has {result['ratio_tls']['median']:.2f} of the handshake's rate ({low:.2f} .. {high:.2f})"
    )


if __name__ == "__main__":
    run(main)
