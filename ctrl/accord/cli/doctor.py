# SPDX-License-Identifier: Apache-2.0
"""``accord doctor``: what this host supports, mode by mode, and what mends each no."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from accord.datapath.netdev import interface_index
from accord.datapath.probe import Finding, probe
from accord.datapath.probe_interface import NOT_TOLD
from accord.wire.errors import AccordError

# Best first: what the daemon would settle for, by the names of the findings that it needs.
LADDER = (
    ("native XDP", ("native XDP", "AF_XDP")),
    ("generic XDP", ("generic XDP", "AF_XDP")),
    ("AF_PACKET", ("AF_PACKET",)),
    ("UDP sockets", ("UDP sockets",)),
)


@click.command()
@click.option("--iface", "interface", metavar="IF", help="Look at this network interface too; it is not touched.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def doctor(interface: str | None, as_json: bool) -> None:
    """Say what this host's kernel and NIC support, with the reason for each no and what mends it.

    Nothing is changed: what has to be tried is tried in a network namespace that ends with the trial.
    """
    if interface is not None:
        interface_index(interface)  # before the rest of the host is probed for nothing
    findings = list(probe(interface))
    if as_json:
        click.echo(json.dumps(report(interface, findings), indent=2))
    else:
        show(interface, findings, Console())


def best_back_end(interface: str | None, findings: Sequence[Finding], native: bool = True) -> str | None:
    """The first rung of the ladder that holds, on this interface if one is given; None: not even UDP.

    ``native``: whether the attach mode ``auto`` tries that.
    """
    yes = {finding.name for finding in findings if finding.group == "back ends" and finding.ok}
    if interface is not None:
        on_link = {finding.name: finding.ok for finding in findings if finding.group == f"interface {interface}"}
        if not on_link.get("link", False):
            yes &= {"UDP sockets"}
        if not on_link.get("XDP slot", False):
            yes -= {"native XDP", "generic XDP"}
        if not (native and on_link.get("native XDP", False)):
            yes -= {"native XDP"}
    return next((rung for rung, needed in LADDER if yes.issuperset(needed)), None)


def tried_first(interface: str | None, findings: Sequence[Finding], native: bool = True) -> str | None:
    """A rung above ``best_back_end`` that the daemon tries and of which only its trial tells whether it holds."""
    if not any(finding.name == LADDER[0][0] and finding.reason == NOT_TOLD for finding in findings):
        return None
    hoped = [dataclasses.replace(each, ok=True) if each.reason == NOT_TOLD else each for each in findings]
    first = best_back_end(interface, hoped, native)
    return None if first == best_back_end(interface, findings, native) else first


def auto_is_native(interface: str | None) -> bool:
    """Whether ``--attach auto`` would try native XDP on the interface."""
    try:
        from accord.datapath.attach import plan
        from accord.datapath.port import Rung

        return Rung.XDP_NATIVE in plan("auto", "auto", interface).rungs
    except (ImportError, AccordError):
        return True


def report(interface: str | None, findings: Sequence[Finding]) -> dict[str, object]:
    """The JSON object: kernel, interface, best back end, findings with all of their fields."""
    native = auto_is_native(interface)
    return {
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "interface": interface,
        "back_end": best_back_end(interface, findings, native),
        "tried_first": tried_first(interface, findings, native),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }


def show(interface: str | None, findings: Sequence[Finding], console: Console) -> None:
    """A heading for each group; under a no, what is missing with it and what mends it."""
    console.print(f"Linux {os.uname().release}, {os.uname().machine}", highlight=False)
    width = max((len(finding.name) for finding in findings), default=0)
    for group in dict.fromkeys(finding.group for finding in findings):
        table = Table.grid(Column(width=3), Column(width=width), Column(overflow="fold"), padding=(0, 1))
        for finding in (finding for finding in findings if finding.group == group):
            found = Text(finding.reason)
            if not finding.ok:
                found.append(f"\nneeded for: {finding.purpose}\nmend: {finding.mend}", style="dim")
            mark = Text("yes", style="green") if finding.ok else Text("no", style="bold red")
            table.add_row(mark, finding.name, found)
        console.print(Text(f"\n{group}", style="bold"))
        console.print(table)
    native = auto_is_native(interface)
    best, first = best_back_end(interface, findings, native), tried_first(interface, findings, native)
    where = f" on {interface}" if interface is not None else ""
    trial = f"{first} if the driver takes a program, which only a trial tells; else " if first is not None else ""
    used = best or "nothing, there are not even UDP sockets"
    console.print(f"\nThe daemon would use{where}: {trial}{used}", highlight=False)
