# SPDX-License-Identifier: Apache-2.0
"""``accord status``: what the daemon has, does and counted."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from accord.controller import control as control_socket
from accord.controller.control import control_path
from accord.wire.constants import Reason


async def ask(control: Path | None, message: dict[str, Any]) -> dict[str, Any]:
    """One question to the daemon. Raises what the daemon answers, or ``UserError`` ``NO_DAEMON``."""
    answer = await control_socket.ask(control_path(control), message)
    return answer[0]


def describe(privileges: dict[str, Any]) -> str:
    """One line: who does the work, and what it may do."""
    if not privileges["split"]:
        return f"one process with all of its own, user {privileges['user']} (--privileged)"
    capabilities = int(privileges["capabilities"]["CapEff"], 16)
    return (
        f"worker: user {privileges['user']}, capabilities {'none' if not capabilities else hex(capabilities)}, "
        f"{'no new ones' if privileges['no_new_privs'] else 'new ones can be had'}, "
        f"{'seccomp' if privileges['seccomp'] == 2 else 'no seccomp'}; "
        f"broker: pid {privileges.get('broker_pid', 'gone')}, {privileges.get('broker_refused', 0)} requests refused"
    )


def _associations(rows: list[dict[str, Any]], more: int) -> Table:
    table = Table(title="associations that can be re-negotiated", caption=f"and {more} more" if more else None)
    for column in ("association", "role", "peer", "stack", "generation", "for", "state"):
        table.add_column(column)
    for row in rows:
        cells = (row["association"], row["role"], row["peer"], "/".join(row["stack"]), str(row["generation"]))
        table.add_row(*cells, f"{row['for_s']:g} s", row["state"])
    return table


def _memory(answer: dict[str, Any]) -> str:
    taken, limit = answer["data_bytes"] >> 20, answer["data_limit_bytes"] >> 20
    return f"{taken} MiB taken, {f'limit {limit} MiB' if limit else 'no limit'}"


def _trouble(trouble: dict[str, Any]) -> str:
    failures = ", ".join(f"{what} {count}" for what, count in trouble["failures"].items())
    if not trouble["off_for_s"]:
        return failures
    return f"switched off for {trouble['off_for_s']:g} s more: {trouble['why_off']}; {failures}"


def _load(load: dict[str, Any]) -> str:
    return (
        f"level {load['level']} ({load['gets']}) for {load['for_s']:g} s, {load['strangers_per_second']} strangers in "
        f"the last second, {load['places_taken']} of {load['places']} places taken"
    )


def _strangers(strangers: dict[str, Any]) -> str:
    asked = "".join(f"; asked for a cookie, {why}: {count}" for why, count in strangers["deferred"].items())
    made = f"{strangers['answers']} answers, {strangers['slotless']} of them without a slot"
    return f"{made}; {strangers['commits']} committed{asked}"


def _given(fates: dict[str, int] | None) -> str:
    """Of a port whose own program gets the connections: what became of them."""
    if fates is None:
        return ""
    return " (the program of that TCP port): " + (
        ", ".join(f"{fates[fate]} {fate}" for fate in sorted(fates)) or "none yet"
    )


def _programs(unmodified: dict[str, Any]) -> str:
    syns = ", ".join(f"{fate.replace('_', ' ')} {count}" for fate, count in unmodified["syns"].items() if count)
    return f"{unmodified['programs']} programs; their SYNs: {syns or 'none'}"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--control", type=click.Path(path_type=Path), help="Control socket of the daemon.")
def status(as_json: bool, control: Path | None) -> None:
    """Show what the daemon has, does and counted."""
    answer = asyncio.run(ask(control, {"op": "status"}))
    answer.pop("ok")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    console = Console()
    table = Table(title=f"accord daemon, pid {answer['pid']}")
    table.add_column("what")
    table.add_column("value")
    for name in (
        "interface",
        "back_end",
        "attach_mode",
        "attach_consequence",
        "attach_reason",
        "queues",
        "program_id",
        "syn_option",
        "engine_bytes",
        "negotiations",
    ):
        table.add_row(name.replace("_", " "), str(answer[name]))
    table.add_row("load", _load(answer["load"]))
    table.add_row("without memory", _strangers(answer["strangers"]))
    table.add_row("accord run", _programs(answer["unmodified"]))
    table.add_row("sealing keys", ", ".join(answer["sealing_keys"]))
    table.add_row("privileges", describe(answer["privileges"]))
    table.add_row("memory", _memory(answer))
    for trouble in answer["plugin_troubles"]:
        table.add_row(f"plug-in {trouble['protocol']}", _trouble(trouble))
    for rung in answer["rungs_refused"]:
        table.add_row(f"not {rung['rung']}", f"{rung['reason']}: {rung['detail']}")
    for listener in answer["listeners"]:
        table.add_row("listens on", f"port {listener['port']} -> {listener['to']}{_given(listener.get('given'))}")
    console.print(table)
    if answer["associations"]:
        console.print(_associations(answer["associations"], answer["associations_more"]))
    counters = Table(title="counters")
    for column in ("floor", "reason", "count", "meaning"):
        counters.add_column(column, justify="right" if column == "count" else "left")
    for floor, by_reason in answer["counters"].items():
        for name, count in sorted(by_reason.items()):
            counters.add_row(floor, name, str(count), Reason[name].text)
    console.print(counters)
