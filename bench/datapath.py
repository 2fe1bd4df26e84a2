#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The data path: what a packet costs, of ours and of others. docs/BENCHMARKS.md explains each figure.

``./build.py bench datapath [--repeats 9] [--seconds 0.05] [--only engine --only xdp ...] [--json]``
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import _bulk
import _crossing
import _native

from tests.datapath.netns import two_hosts

FOREIGN = ("tcp", "udp", "arp", "tcp6", "udp6", "syn")

TARGETS: dict[str, tuple[str, float]] = {
    "xdp_added_ns": ("<=", 60),
    "ratio_afxdp": (">=", 0.9),
    "parse_ns_per_packet": ("<=", 60),
    "reassemble_ns_per_packet": ("<=", 150),
    "cffi_ns_per_event": ("<=", 20),
}

SHARED_CACHE_NS = 200
"""A cache line's round trip between two processors that share a cache takes about half of it, between two that do not
twice of it (``line_ns``)."""

Figures = dict[str, list[float]]
"""By name, one value for each repeat."""


def collect(rounds: Sequence[dict[str, float]], **figures: Callable[[dict[str, float]], float]) -> Figures:
    """Each figure of each round: ratios and differences are taken within a round, where the noise is shared."""
    return {name: [formula(each) for each in rounds] for name, formula in figures.items()}


def engine(repeats: int, _: float) -> Figures:
    """In memory."""
    return collect(
        _native.engine(repeats),
        parse_ns_per_packet=lambda taken: taken["parse"],
        parse_small_ns_per_packet=lambda taken: taken["parse_small"],
        reassemble_ns_per_packet=lambda taken: taken["input"] - taken["parse"],
        deliver_ns_per_packet=lambda taken: taken["deliver"],
        proposal_ns=lambda taken: taken["proposal"],
    )


def instructions(_: int, __: float) -> Figures:
    """The same by callgrind: exact, so once is enough."""
    taken = _native.instructions()
    if not taken:
        return {}
    return collect(
        [taken],
        parse_instructions=lambda taken: taken["parse"],
        parse_small_instructions=lambda taken: taken["parse_small"],
        reassemble_instructions=lambda taken: taken["input"] - taken["parse"],
        deliver_instructions=lambda taken: taken["deliver"],
        proposal_instructions=lambda taken: taken["proposal"],
    )


def xdp(repeats: int, _: float) -> Figures:
    """By BPF_PROG_TEST_RUN, in the namespace of a host that does not forward."""
    with two_hosts() as (_near, far):
        rounds = _native.xdp(far, repeats)
    found = collect(
        rounds,
        xdp_empty_ns=lambda taken: taken["empty"],
        xdp_foreign_ns=lambda taken: max(taken[name] for name in FOREIGN),
        xdp_added_ns=lambda taken: max(taken[name] for name in FOREIGN) - taken["empty"],
        xdp_ours_ns=lambda taken: taken["ours"],
        xdp_syn_option_ns=lambda taken: taken["syn_option"],
        xdp_syn_walked_ns=lambda taken: taken["syn_walked"],
    )
    return {**found, **{f"xdp_{name}_ns": [taken[name] for taken in rounds] for name in FOREIGN}}


def receive(repeats: int, seconds: float) -> Figures:
    """Packets a second, with the generator on one processor and the receiver on another.

    A hypervisor moves the two: in some rounds they share a cache and in some they do not. It goes on,
    up to four times as long, until there are as many of the first kind as were asked for.
    """
    rounds: list[dict[str, tuple[float, ...]]] = []
    with two_hosts() as (near, far):
        far.command("ethtool", "-K", far.interface, "gro", "on")
        while len(rounds) < repeats or (len(rounds) < 4 * repeats and sum(map(_together, rounds)) < repeats):
            rounds += _native.receive(near, far, "native", seconds, 1)
    mpps = [{name: figures[0] / 1e6 for name, figures in each.items() if name != "line"} for each in rounds]
    together = [each for each, whole in zip(mpps, rounds, strict=True) if _together(whole)]
    found = collect(
        mpps,
        ratio_afxdp_all=lambda taken: taken["xdp"] / taken["xdp_bare"],
        ratio_afxdp_read=lambda taken: taken["xdp"] / taken["xdp_read"],
        ratio_afxdp_bare_program=lambda taken: taken["xdp"] / taken["xdp_redirect"],
        ratio_packet=lambda taken: taken["packet"] / taken["packet_bare"],
        ratio_udp=lambda taken: taken["udp"] / taken["udp_bare"],
    )
    for name in mpps[0]:
        found[f"{name.replace('xdp', 'afxdp')}_mpps"] = [taken[name] for taken in mpps]
    found["ratio_afxdp"] = [taken["xdp"] / taken["xdp_bare"] for taken in together or mpps]
    found["line_ns"] = [each["line"][0] for each in rounds]
    found["rounds_together"] = [len(together)]
    found["afxdp_offered_mpps"] = [each["xdp"][1] / 1e6 for each in rounds]
    found["afxdp_whole"] = [each["xdp"][2] for each in rounds]
    return found


def _together(each: dict[str, tuple[float, ...]]) -> bool:
    return each["line"][0] < SHARED_CACHE_NS


def crossing(repeats: int, _: float) -> Figures:
    """From C to Python."""
    return collect(
        _crossing.measure(repeats),
        cffi_ns_per_event=lambda taken: taken["crossing"],
        python_ns_per_event=lambda taken: taken["objects"],
    )


def bulk(repeats: int, seconds: float) -> Figures:
    """TCP of others."""
    with two_hosts() as (near, far):
        rounds = _bulk.measure(near, far, 4 * seconds, repeats)  # a TCP connection swings more than a ring
    found = {f"tcp_{mode}_gbit": [taken[mode] for taken in rounds] for mode in _bulk.MODES}
    for mode in _bulk.MODES:
        if mode != "none":
            found[f"ratio_tcp_{mode}"] = [taken[mode] / taken["none"] for taken in rounds]
    return found


PARTS: dict[str, Callable[[int, float], Figures]] = {
    "engine": engine,
    "instructions": instructions,
    "xdp": xdp,
    "receive": receive,
    "crossing": crossing,
    "bulk": bulk,
}


def verdict(name: str, median: float) -> str:
    """How a figure stands to its target, if it has one."""
    if name not in TARGETS:
        return ""
    relation, target = TARGETS[name]
    met = median <= target if relation == "<=" else median >= target
    return f"{relation} {target:g}: {'met' if met else 'MISSED'}"


@click.command()
@click.option("--repeats", type=click.IntRange(1, 1000), default=9, show_default=True, help="Interleaved repeats.")
@click.option(
    "--seconds", type=click.FloatRange(0.001, 10), default=0.05, show_default=True, help="Of each rate, each time."
)
@click.option("--only", "parts", multiple=True, type=click.Choice(list(PARTS)), help="Only this part; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(repeats: int, seconds: float, parts: tuple[str, ...], as_json: bool) -> None:
    """Median and spread (lowest and highest) of each figure.

    Needs root. Rates are taken with both processors for themselves, in bursts of --seconds: for that long nothing
    else runs. docs/BENCHMARKS.md explains the figures.
    """
    if os.geteuid() != 0:
        raise click.ClickException("network namespaces and XDP need root: sudo ./build.py bench datapath")
    _native.build()
    figures: Figures = {}
    for name in parts or PARTS:
        click.echo(f"{name} ...", err=True)
        figures.update(PARTS[name](repeats, seconds))
    medians = {name: round(statistics.median(values), 4) for name, values in figures.items()}
    spread = {name: [round(min(values), 4), round(max(values), 4)] for name, values in figures.items()}
    if as_json:
        host = {"kernel": platform.release(), "machine": platform.machine(), "processors": os.cpu_count()}
        click.echo(json.dumps({**medians, "spread": spread, "repeats": repeats, "seconds": seconds, **host}))
        return
    for name, median in medians.items():
        low, high = spread[name]
        click.echo(f"{name:28} {median:10.4g}  ({low:.4g} .. {high:.4g})  {verdict(name, median)}".rstrip())


if __name__ == "__main__":
    main()
