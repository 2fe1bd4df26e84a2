#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Floods of first packets, and honest initiators beside them. docs/BENCHMARKS.md explains it.

Two namespaces on a bare wire. The server has a daemon with native XDP; on the client's side one processor makes live
frames (BPF_PROG_TEST_RUN) at each rate, and a small program ends, and counts, what comes back to the flood. Honest
initiators negotiate on the same wire, without a plain connection to fall back to. The same floods meet a program that
drops them and does nothing else: what others of the host lose there is no daemon's doing.

KIND is "proposals" (without a cookie, from random addresses), "valid" (real ones, likewise), "replayed" (one with its
good cookie, again and again) or "validated" (new ones with good cookies), and with "/6" behind it the same over IPv6.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import _flood_rates
import _native
from _flood_rows import Honest, Watched, control, row, warm_up
from _flooding import KEY, KEY_ID, KINDS, Plan, first, hurried, real_proposal
from _progress import say

from accord.cli.main import run
from accord.cli.numbers import Finite
from accord.lab.awake import Awake
from accord.lab.deployment import Deployment
from accord.lab.pair import pair
from accord.lab.scratch import scratch

HONEST_RATE = 25.0
TARGETS = {"honest_ok": 0.999, "honest_ok_saturated": 0.99, "amplification": 1.0, "ratio": 0.75}
_HONEST_RATE_PPS = 500_000
"""Up to which the first of the targets holds."""
_WARM_UP_SECONDS = {False: 2.0, True: 11.0}
"""Whose address is proven has a place for ten seconds; then there are new ones."""


@contextlib.contextmanager
def deployed(queues: int, directory: Path) -> Iterator[Deployment]:
    """The server's daemon, and the wire."""
    keys = directory / "cookies"
    keys.write_text(f"{KEY_ID} {KEY.hex()}\n")
    with pair(queues) as (client, server), contextlib.closing(Deployment(client, server, directory)) as both:
        # Or the client's end takes nothing that XDP sends back, when the flood's own program is not there.
        client.run("ethtool", "-K", client.interface, "gro", "on")
        both.daemon(server, preexec_fn=first, more=f'attach = "native"\n[limits]\ncookie_keys = "{keys}"\n')
        yield both


class Measurement:
    """All rows. ``result`` is what there is by now, also of one that was broken off."""

    def __init__(self, kinds: Sequence[tuple[str, int]], rates: Sequence[float], seconds: float) -> None:
        self.kinds, self.rates, self.seconds = kinds, rates, seconds
        self.queues, self.bytes, self.honest_rate = 2, 600, HONEST_RATE
        self.answers = self.control = True
        self.rows: list[dict[str, Any]] = []
        self.bare: dict[str, Any] = {}
        self.apart: dict[str, Any] = {}
        """As ``bare``, received by another processor than sends."""
        self._began = time.monotonic()

    def run(self) -> None:
        """Raises ``ClickException`` when something of it does not begin."""
        with scratch("flood") as directory:
            if self.answers:
                say("bare programs under the flood")
                plan = Plan("proposals", 4, self.bytes)
                self.bare = _flood_rates.rates(plan, self.seconds / 2, self.queues)
                self.apart = _flood_rates.rates(plan, self.seconds / 2, queues=1, apart=True)
                say(f"bare programs: {self.bare}; received by another processor: {self.apart}", last=True)
            controls = self._controls(directory) if self.control else {}
            with deployed(self.queues, directory) as both:
                self._rows(both, controls)

    def _controls(self, directory: Path) -> dict[tuple[int, float], dict[str, int]]:
        found = {}
        for family in sorted({family for _, family in self.kinds}):
            for rate in self.rates:
                say(f"IPv{family}, {_named(rate)}: all of it dropped")
                plan = Plan("proposals", family, self.bytes)
                found[family, rate] = control(plan, rate, self.seconds, self.queues, directory)
        return found

    def _rows(self, both: Deployment, controls: dict[tuple[int, float], dict[str, int]]) -> None:
        proposal = real_proposal(both.ca)
        plans = [Plan(kind, family, self.bytes, proposal) for kind, family in self.kinds]
        honest, watched = Honest(both, self.honest_rate), Watched(both)
        for plan in plans:
            say(f"{plan.name}: warming up")
            warm_up(plan, min(_WARM_UP_SECONDS[plan.bears_cookie], self.seconds), both, watched)
            for rate in self.rates:
                say(f"{plan.name}, {_named(rate)}")
                found = row(plan, rate, self.seconds, both, honest, watched)
                found.update(controls.get((plan.family, rate), {}))
                if dropped := self.bare.get("xdp_drop_rate"):
                    found["ratio"] = round(found["cookie_rate"] / dropped, 3)
                self.rows.append(found)
                told = f"honest_ok {found['honest_ok']} of {found['honest']}, p99 {found['p99_ms']} ms"
                say(f"{plan.name}, {_named(rate)}: {told}, grown {found['state_growth_bytes']} bytes", last=True)

    def result(self, over: bool) -> dict[str, Any]:
        """For JSON."""
        return {
            "packet_bytes": self.bytes,
            "seconds": round(time.monotonic() - self._began, 1),
            "interrupted": not over,
            "load_average": round(os.getloadavg()[0], 1),
            **self.bare,
            "apart": self.apart,
            "honest_by_rate": _by_rate(self.rows),
            "rows": self.rows,
        }


def _named(rate: float) -> str:
    return f"{rate / 1e6:g} Mpps" if rate else "as many as go"


def _by_rate(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of all kinds together, since one row has a few hundred honest negotiations."""
    found: dict[str, dict[str, Any]] = {}
    for each in rows:
        sums = found.setdefault(str(each["rate"]), {"honest": 0, "ok": 0})
        sums["honest"] += each["honest"]
        sums["ok"] += round(each["honest_ok"] * each["honest"])
    for sums in found.values():
        sums["honest_ok"] = round(sums["ok"] / max(1, sums["honest"]), 4)
    return found


def missed(result: dict[str, Any]) -> list[str]:
    """Which targets are not met."""
    found = []
    for each in result["rows"]:
        name, saturated = f"{each['kind']}, {each['rate']}", each["rate"] == "saturated"
        wanted = TARGETS["honest_ok_saturated" if saturated else "honest_ok"]
        if each["honest_ok"] < wanted and (saturated or each["rate"] <= _HONEST_RATE_PPS):
            found.append(f"{name}: honest_ok {each['honest_ok']}, wanted {wanted}")
        if each["amplification"] > TARGETS["amplification"]:
            found.append(f"{name}: amplification {each['amplification']}")
        for what in ("bytes", "maps", "fds"):
            if each[f"state_growth_{what}"] > 0:
                found.append(f"{name}: state_growth_{what} {each[f'state_growth_{what}']}")
        ratio = each.get("ratio")
        if saturated and each["kind"] == "proposals" and ratio is not None and ratio < TARGETS["ratio"]:
            found.append(f"{name}: ratio {ratio}, wanted {TARGETS['ratio']}")
    for name, rates in (("one processor", result), ("received by another processor", result.get("apart", {}))):
        if (ratio := rates.get("ratio")) is not None and ratio < TARGETS["ratio"]:
            found.append(f"bare programs, {name}: ratio {ratio}, wanted {TARGETS['ratio']}")
    return found


def _rates(_: click.Context, __: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(word) * 1e6 for word in text.split(",") if word)
    except ValueError:
        raise click.BadParameter("numbers in Mpps, separated by commas; 0: as many as go") from None
    if not rates or any(not 0 <= rate <= 1e8 for rate in rates):
        raise click.BadParameter("numbers in Mpps, separated by commas; 0: as many as go")
    return rates


def _kinds(_: click.Context, __: click.Parameter, text: str) -> tuple[tuple[str, int], ...]:
    found = []
    for word in text.split(","):
        kind, _slash, family = word.partition("/")
        if kind not in KINDS or family not in ("", "4", "6"):
            raise click.BadParameter(f"no such kind: {word}; there are {', '.join(KINDS)}, each also with /6")
        found.append((kind, 6 if family == "6" else 4))
    return tuple(found)


@click.command(help=__doc__)
@click.option("--seconds", type=Finite(0.2, 3600), default=10.0, show_default=True, help="Of each flood.")
@click.option("--rates", default="0.2,0.5,1.0,0", show_default=True, callback=_rates, help="Mpps; 0: as many as go.")
@click.option(
    "--kinds",
    metavar="KIND,...",
    default="proposals,proposals/6,valid,replayed,validated",
    show_default=True,
    callback=_kinds,
    help="Each at each rate.",
)
@click.option("--bytes", "size", type=click.IntRange(64, 1200), default=600, show_default=True, help="Of 'proposals'.")
@click.option("--queues", type=click.IntRange(1, 8), default=2, show_default=True, help="Of the wire, each way.")
@click.option("--honest", type=Finite(1, 200), default=HONEST_RATE, show_default=True, help="A second.")
@click.option("--answers/--no-answers", default=True, help="Measure what bare programs take.")
@click.option("--control/--no-control", default=True, help="Measure what others lose where the flood is dropped.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(
    seconds: float,
    rates: tuple[float, ...],
    kinds: tuple[tuple[str, int], ...],
    size: int,
    queues: int,
    honest: float,
    answers: bool,
    control: bool,
    as_json: bool,
) -> None:
    """The command line."""
    _native.build()
    measurement = Measurement(kinds, rates, seconds)
    measurement.queues, measurement.bytes, measurement.honest_rate = queues, size, honest
    measurement.answers, measurement.control = answers, control
    over = False
    with Awake(), hurried():
        try:
            measurement.run()
            over = True
        except KeyboardInterrupt:
            say("interrupted", last=True)
    result = measurement.result(over)
    if as_json:
        click.echo(json.dumps({**result, "missed": missed(result)}, indent=2))
    else:
        table(result)
    if not over:
        sys.exit(130)


def table(result: dict[str, Any]) -> None:
    """For people."""
    names = ("kind", "rate", "offered", "honest", "honest_ok", "p50_ms", "p99_ms", "level", "amplification",
             "cookie_rate", "state_growth_bytes", "bystander_lost", "control_lost")  # fmt: skip
    click.echo("  ".join(f"{name:>13}" for name in names))
    for each in result["rows"]:
        click.echo("  ".join(f"{each.get(name)!s:>13}" for name in names))
    for line in missed(result):
        click.echo(f"missed: {line}")


if __name__ == "__main__":
    run(main)
