# SPDX-License-Identifier: Apache-2.0
"""``accord peers``: what the daemon remembers of the hosts that it has connected to."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from accord.cli.status import ask
from accord.controller import control as control_socket
from accord.controller.control import control_path
from accord.wire.constants import Reason
from accord.wire.errors import error

_WORDS = {
    "answers": ("answers proposals", "silent: no proposal is sent"),
    "no_syn": ("TCP without a SYN works", "TCP without a SYN stalls"),
    "option": ("SYNs with the option arrive", "SYNs with the option are lost: none bears it"),
}
"""By way: what is said of it when it works, and when it is believed not to."""


def duration(seconds: float) -> str:
    """Two units at most: ``1 d 3 h``, ``59 min``, ``12 s``."""
    whole = int(seconds)
    for unit, below, name, lower in ((86400, 3600, "d", "h"), (3600, 60, "h", "min")):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name}" + (f" {rest} {lower}" if rest else "")
    return f"{whole // 60} min" if whole >= 60 else f"{whole} s"


def endpoint(row: dict[str, Any]) -> str:
    """``192.0.2.1:443``, ``[2001:db8::1]:443``."""
    address = f"[{row['address']}]" if ":" in row["address"] else row["address"]
    return f"{address}:{row['port']}"


def sayings(row: dict[str, Any]) -> list[str]:
    """What is believed of the path to one peer, a line to each thing."""
    found = []
    for way, (good, bad) in _WORDS.items():
        belief = row["ways"].get(way)
        if belief is None:
            continue
        if belief["works"] is not None:
            found.append(f"{good if belief['works'] else bad} ({duration(belief['for_s'])})")
        elif belief["misses"]:
            found.append(f"{way.replace('_', '-')}: failed, {belief['misses']} in a row")
        elif belief["confirmed"]:
            found.append(f"{way.replace('_', '-')}: believed broken before, tried again")
    if row["marked"] is not None:
        found.append("adopted SYN was marked" if row["marked"] else "adopted SYN was not marked")
    return found


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--control", type=click.Path(path_type=Path), help="Control socket of the daemon.")
@click.pass_context
def peers(context: click.Context, as_json: bool, control: Path | None) -> None:
    """Show what the daemon remembers of peers, the last used first.

    What a peer supported when it last answered, and whether the path to it takes proposals, TCP without a SYN, and
    SYNs with the option. docs/OPERATIONS.md says what each changes, and when it is forgotten.
    """
    context.obj = (as_json, control)
    if context.invoked_subcommand is None:
        _show(asyncio.run(_rows(control, None)), as_json)


@peers.command()
@click.argument("remote", metavar="HOST[:PORT]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--control", type=click.Path(path_type=Path), help="Control socket of the daemon.")
@click.pass_context
def show(context: click.Context, remote: str, as_json: bool, control: Path | None) -> None:
    """Show one host: an address, or each that a name resolves to."""
    addresses, port = parse(remote)
    rows = asyncio.run(_rows(control or context.obj[1], addresses))
    _show([row for row in rows if port in (None, row["port"])], as_json or context.obj[0])


@peers.command()
@click.argument("remote", metavar="[HOST[:PORT]]", required=False)
@click.option("--control", type=click.Path(path_type=Path), help="Control socket of the daemon.")
@click.pass_context
def flush(context: click.Context, remote: str | None, control: Path | None) -> None:
    """Forget every peer, or a host, or one port of it. Needs root, or the daemon's own user.

    The next connection finds out anew; nothing that is open ends.
    """
    addresses, port = (None, None) if remote is None else parse(remote)
    message = {"op": "flush_peers", "addresses": addresses, "port": port}
    answer = asyncio.run(ask(control or context.obj[1], message))
    click.echo(f"{answer['flushed']} forgotten")


def parse(remote: str) -> tuple[list[str], int | None]:
    """Addresses and port of ``HOST[:PORT]``. Raises ``UserError``: no such name, no port."""
    host, port = remote, None
    if remote.startswith("["):
        host, _, rest = remote[1:].partition("]")
        if rest:
            port = _port(rest.removeprefix(":") if rest.startswith(":") else "", remote)
    elif remote.count(":") == 1:
        host, _, digits = remote.partition(":")
        port = _port(digits, remote)
    try:
        return [str(ipaddress.ip_address(host))], port
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as unknown:
        raise error(
            Reason.UNREACHABLE, f"{host}: no such name", "give an address: accord peers lists them"
        ) from unknown
    return list(dict.fromkeys(str(entry[4][0]) for entry in found)), port


def _port(digits: str, remote: str) -> int:
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 5 or not 0 < int(digits) < 65536:
        raise error(Reason.BAD_CONFIG, f"{remote!r} has no port 1..65535", "HOST, HOST:PORT, [IPV6] or [IPV6]:PORT")
    return int(digits)


async def _rows(control: Path | None, addresses: list[str] | None) -> list[dict[str, Any]]:
    request = {"op": "peers", "addresses": addresses}
    _, descriptors = await control_socket.ask(control_path(control), request)
    with os.fdopen(descriptors[0], "rb") as file:
        file.seek(0)
        rows: list[dict[str, Any]] = json.load(file)
    return rows


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"peers": rows}, indent=2))
        return
    if not rows:
        click.echo("nothing is remembered")
        return
    table = Table(title=f"{len(rows)} peer{'s' if len(rows) > 1 else ''}")
    for column in ("peer", "Accord", "supports", "path"):
        table.add_column(column, overflow="fold")
    for row in rows:
        supports = ", ".join(row["protocols"]) + (f" ({duration(row['protocols_s'])})" if row["protocols"] else "")
        accord = {True: "yes", False: "silent", None: "not known"}[row["accord"]]
        path = "\n".join(sayings(row)) + (f"\nfrom {row['source']}" if row["source"] else "")
        table.add_row(endpoint(row), accord, supports, path.strip())
    Console().print(table)
