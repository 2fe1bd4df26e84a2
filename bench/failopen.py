#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fail open: daemons killed and hung under others' traffic, and what that traffic noticed.

Two namespaces on a bare wire. All the time a bystander sends a UDP echo every millisecond and a TCP stream. A second
prober sends negotiation packets to a port of its own, which the daemon's XDP program steers (``any_port``): from the
kill or stop until the first of them that reaches the kernel is the black hole. Restarts are those of a daemon under
``accord daemon --supervise``, from the kill until the new one answers with its service exposed.

Upgrades: one daemon after the other takes over (``accord daemon --takeover``) while the client's host negotiates and
echoes at a steady rate, never by a plain connection (``_upgrades.py`` says who). Each upgrade is over when the new
daemon is attached; an attempt counts as failed when it did not bring its echo back. ``upgrade_rate`` is what was
reached: where the machine is too slow for ``--rate``, attempts that are already under way are waited for.

``./build.py bench failopen [--kills 200] [--upgrades 50] [--rate 200] [--json]``
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from _progress import say
from _upgrades import live_upgrades

from accord.cli.main import run
from accord.cli.numbers import Finite
from accord.lab.deployment import Deployment, SteeredProbe, kill
from accord.lab.pair import pair
from accord.lab.scratch import scratch

SETTLE_SECONDS = 0.6
"""Between two kills: a daemon that dies sooner is started again with a pause, as one that would die again."""
LIMIT_SECONDS = 20.0


def percentile(samples: Iterable[float], fraction: float) -> float:
    """The smallest sample that so many of all are not above."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def killed(both: Deployment, probe: SteeredProbe) -> tuple[float, float]:
    """Kill the daemon; seconds until its packets reached the kernel, and until the next daemon served."""
    pid = both.wait_for(both.server, back_end="af_xdp")["pid"]
    start = 0.0

    def act() -> None:
        nonlocal start
        start = time.monotonic()
        kill(pid)

    hole = probe.until_passed(act)
    while (status := both.status(both.server)) is None or status["pid"] == pid:
        if time.monotonic() > start + LIMIT_SECONDS:
            raise click.ClickException(f"no new daemon came:\n{both.log(both.server)[-2000:]}")
        time.sleep(0.002)
    restart = time.monotonic() - start
    assert status["listeners"], "it serves what the configuration exposes"
    return hole, restart


def hung(both: Deployment, probe: SteeredProbe) -> float:
    """Stop the daemon for a moment; seconds until its packets reached the kernel."""
    pid = both.wait_for(both.server, back_end="af_xdp")["pid"]
    try:
        return probe.until_passed(lambda: os.kill(pid, signal.SIGSTOP))
    finally:
        os.kill(pid, signal.SIGCONT)


def sudden_ends(directory: Path, kills: int, hangs: int, attach: str) -> dict[str, Any]:
    """Kills and hangs, with the bystander beside them."""
    holes: list[float] = []
    restarts: list[float] = []
    stops: list[float] = []
    with (
        pair() as (client, server),
        contextlib.closing(Deployment(client, server, directory)) as both,
        contextlib.closing(SteeredProbe(client, server)) as probe,
    ):
        both.daemon(server, "--supervise", "--attach", attach, more="any_port = true")
        with both.bystander() as others:
            for number in range(kills):
                say(f"kill {number + 1} of {kills}")
                time.sleep(SETTLE_SECONDS)
                hole, restart = killed(both, probe)
                holes.append(hole)
                restarts.append(restart)
            for number in range(hangs):
                say(f"hang {number + 1} of {hangs}")
                time.sleep(SETTLE_SECONDS)
                stops.append(hung(both, probe))
            say("waiting for the last echoes")
        mode = both.wait_for(server)["attach_mode"]
    say(f"{kills} kills and {hangs} hangs, {others['sent']} echoes", last=True)
    return {
        "attach_mode": mode,
        "kills": kills,
        "hangs": hangs,
        "host_sent": others["sent"],
        "host_lost": others["lost"],
        "tcp_bytes": others["tcp_bytes"],
        "tcp_stalls": others["tcp_stalls"],
        **({"port_blackhole_ms_max": milliseconds(max(holes))} if holes else {}),
        **({"hung_failopen_ms_max": milliseconds(max(stops))} if stops else {}),
        **(
            {
                "restart_ms_p50": milliseconds(statistics.median(restarts)),
                "restart_ms_p99": milliseconds(percentile(restarts, 0.99)),
            }
            if restarts
            else {}
        ),
    }


def milliseconds(seconds: float) -> float:
    """For people."""
    return round(seconds * 1000, 1)


@click.command()
@click.option("--kills", type=click.IntRange(0, 100_000), default=200, show_default=True, help="By SIGKILL.")
@click.option("--hangs", type=click.IntRange(0, 100_000), help="By SIGSTOP; default: a tenth of the kills, at least 2.")
@click.option("--upgrades", type=click.IntRange(0, 10_000), default=50, show_default=True, help="About 12 s each.")
@click.option("--rate", type=Finite(1, 10_000), default=200, show_default=True, help="Negotiations a second.")
@click.option("--attach", type=click.Choice(["auto", "native", "generic"]), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(kills: int, hangs: int | None, upgrades: int, rate: float, attach: str, as_json: bool) -> None:
    """What others lose when the daemon is killed, hung and upgraded, how soon it is back, and what an upgrade costs."""
    hangs = max(2, kills // 10) if hangs is None else hangs
    # On a machine that is busy with other things, times are those of its scheduler.
    result: dict[str, Any] = {"load_average_before": round(os.getloadavg()[0], 1)}
    with scratch("failopen") as directory:
        if kills or hangs:
            result |= sudden_ends(directory, kills, hangs, attach)
    with scratch("failopen") as directory:
        if upgrades:
            result |= live_upgrades(directory, upgrades, rate, attach)
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    run(main)
