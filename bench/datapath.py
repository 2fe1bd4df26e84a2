#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The data path: what a packet costs, of ours and of others. docs/BENCHMARKS.md explains each figure.

``./build.py bench datapath [--repeats 9] [--seconds 0.005] [--only engine --only xdp ...] [--json]``
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import _bulk
import _crossing
import _native

from accord.cli.main import run
from accord.cli.numbers import Finite
from tests.datapath.netns import two_hosts

FOREIGN = ("tcp", "udp", "arp", "tcp6", "udp6", "syn")

TARGETS: dict[str, tuple[str, float]] = {
    "xdp_added_ns": ("<=", 60),
    "ratio_afxdp": (">=", 0.9),
    "parse_ns_per_packet": ("<=", 60),
    "reassemble_ns_per_packet": ("<=", 150),
    "cffi_ns_per_event": ("<=", 20),
}

KINDS = ("xdp", "xdp_bare", "xdp_read", "xdp_redirect", "packet", "packet_bare", "udp", "udp_bare")
"""Of receipt, as dataplane_c/bench/receive.c names them."""

BLOCKS = 4
"""Of receipt, in a repeat: each has every kind twice."""

SHARED_CACHE_NS = 200
"""A cache line's round trip between two processors that share a cache takes about half of it, between two that do not
twice of it (``line_ns``)."""

Figures = dict[str, list[float]]
"""By name, one value for each repeat, or for each of its parts that are compared."""


def collect(rounds: Sequence[dict[str, float]], **figures: Callable[[dict[str, float]], float]) -> Figures:
    """Each figure of each round: ratios and differences are taken within a round, where the noise is shared."""
    return {name: [formula(each) for each in rounds] for name, formula in figures.items()}


def engine(repeats: int, _: float) -> Figures:
    """In memory."""
    return collect(
        _native.engine(repeats),
        reference_ns=lambda taken: taken["reference"],
        parse_per_reference=lambda taken: taken["parse"] / taken["reference"],
        reassemble_per_reference=lambda taken: (taken["input"] - taken["parse"]) / taken["reference"],
        proposal_per_reference=lambda taken: taken["proposal"] / taken["reference"],
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

    What is compared is compared in pairs of neighbouring slices, each a value of its own. All of them count.
    """
    blocks: list[dict[str, Any]] = []
    proposals: list[dict[str, Any]] = []
    again: list[float] = []
    with two_hosts() as (near, far):
        for _ in range(repeats):
            whole = _native.receive(near, far, "native", "long", seconds, BLOCKS)
            again.append(whole["again"])
            blocks += _by_block(whole)
            proposals += _by_block(_native.receive(near, far, "native", "proposal", seconds, BLOCKS))
    pairs, short = _pairs(blocks), _pairs(proposals)

    def rate(pair: dict[str, tuple[float, ...]], name: str) -> float:
        return pair[name][0] / 1e6

    def ratio(ours: str, bare: str, of: Sequence[dict[str, tuple[float, ...]]]) -> list[float]:
        return [rate(pair, ours) / rate(pair, bare) for pair in of if rate(pair, bare)]

    found: Figures = {
        "ratio_afxdp": ratio("xdp", "xdp_bare", pairs),
        "ratio_afxdp_capacity": [1e3 / block["drain_xdp"] / _bare_rate(block) for block in blocks if _compares(block)],
        "ratio_afxdp_read": ratio("xdp", "xdp_read", pairs),
        "ratio_afxdp_bare_program": ratio("xdp", "xdp_redirect", pairs),
        "ratio_afxdp_proposals": ratio("xdp", "xdp_bare", short),
        "afxdp_proposals_mpps": [rate(pair, "xdp") for pair in short],
        "ratio_packet": ratio("packet", "packet_bare", pairs),
        "ratio_udp": ratio("udp", "udp_bare", pairs),
        "afxdp_drain_ns": [block["drain_xdp"] for block in blocks if block["drain_xdp"]],
        "afxdp_read_drain_ns": [block["drain_xdp_read"] for block in blocks if block["drain_xdp_read"]],
        "afxdp_offered_mpps": [pair["xdp"][1] / 1e6 for pair in pairs],
        "afxdp_whole": [pair["xdp"][2] for pair in pairs],
        "line_ns": [block["line"] for block in blocks],
        "slices_again": again,
    }
    for name in KINDS:
        found[f"{name.replace('xdp', 'afxdp')}_mpps"] = [rate(pair, name) for pair in pairs]
    for name, together in (("ratio_afxdp_together", True), ("ratio_afxdp_apart", False)):
        those = [block for block in blocks if (block["line"] < SHARED_CACHE_NS) == together]
        if those:
            found[name] = ratio("xdp", "xdp_bare", _pairs(those))
    return found


def _pairs(blocks: Sequence[dict[str, Any]]) -> list[dict[str, tuple[float, ...]]]:
    """Of neighbouring slices."""
    return [{name: block[name][which] for name in KINDS} for block in blocks for which in range(2)]


def _by_block(whole: _native.ReceiveRound) -> list[dict[str, Any]]:
    """What receive.c prints of a round, taken apart: of each block two slices of each kind."""
    singles = ("line", "drain_xdp", "drain_xdp_bare", "drain_xdp_read")
    return [
        {name: whole[name][block] for name in singles}
        | {name: whole[name][2 * block : 2 * block + 2] for name in KINDS}
        for block in range(BLOCKS)
    ]


def _compares(block: dict[str, Any]) -> bool:
    """A generator that got no processor at all, however often it was tried, has filled no ring."""
    return bool(block["drain_xdp"] and _bare_rate(block))


def _bare_rate(block: dict[str, Any]) -> float:
    """Mpps, of both slices together."""
    taken: float = (block["xdp_bare"][0][0] + block["xdp_bare"][1][0]) / 2e6
    return taken


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
        rounds = _bulk.measure(near, far, 40 * seconds, repeats)  # a TCP connection swings more than a ring
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


def middle(values: Sequence[float]) -> list[float]:
    """The lower and the upper quartile."""
    if len(values) < 2:
        return [round(value, 4) for value in (*values, *values)]
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return [round(lower, 4), round(upper, 4)]


@click.command()
@click.option("--repeats", type=click.IntRange(1, 1000), default=9, show_default=True, help="Interleaved repeats.")
@click.option("--seconds", type=Finite(0.001, 10), default=0.005, show_default=True, help="Of each slice.")
@click.option("--only", "parts", multiple=True, type=click.Choice(list(PARTS)), help="Only this part; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(repeats: int, seconds: float, parts: tuple[str, ...], as_json: bool) -> None:
    """Median, quartiles and spread (lowest and highest) of each figure.

    Needs root. What is compared is measured in turns, in slices of --seconds. While they last, some tenths of a second
    at a time, nothing else runs. docs/BENCHMARKS.md explains the figures.
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
    quartiles = {name: middle(values) for name, values in figures.items()}
    if as_json:
        host = {"kernel": platform.release(), "machine": platform.machine(), "processors": os.cpu_count()}
        click.echo(
            json.dumps(
                {**medians, "spread": spread, "quartiles": quartiles, "repeats": repeats, "seconds": seconds, **host}
            )
        )
        return
    for name, median in medians.items():
        (low, high), (lower, upper) = spread[name], quartiles[name]
        line = f"{name:28} {median:10.4g}  {lower:.4g} .. {upper:.4g}  ({low:.4g} .. {high:.4g})"
        click.echo(f"{line}  {verdict(name, median)}".rstrip())


if __name__ == "__main__":
    run(main)
