# SPDX-License-Identifier: Apache-2.0
"""The demo: two hosts and a slow link, today's connections and Accord's side by side.

Everything is real and in processes of its own: the lab's namespaces, a daemon on each host, a stock HTTP
server behind ``accord expose``, a stock TLS server for comparison. Packets are counted from captures.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import click
from rich.box import ASCII
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from accord.cli.capture import Tally, tally
from accord.cli.numbers import Finite
from accord.controller.ladder import render
from accord.lab.awake import Awake
from accord.lab.hosts import PORT, SERVER_NAME, TLS_PORT, Hosts
from accord.lab.lab import Lab
from accord.lab.scratch import scratch
from accord.wire.constants import Reason
from accord.wire.errors import error

_REQUEST = f"GET /index.html HTTP/1.0\r\nHost: {SERVER_NAME}\r\n\r\n"
_PAGE = b"Hello over a stack that was set up in one round trip.\n"

LADDER_CASE = "accord-tls-tcp"
_COUNTED = 5


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the demo's table. ``policy`` is what ``accord.connect`` is given; None: today's client."""

    name: str
    port: int
    policy: dict[str, Any] | None
    daemon_at_server: bool = True


CASES = (
    Case("today-tls-tcp", TLS_PORT, None),
    Case("accord-tls-tcp", PORT, {"secure": "required", "prefer": ["tls/tcp"], "fallback": "delayed"}),
    Case(
        "accord-parallel-syn",
        PORT,
        {"secure": "required", "prefer": ["tls/tcp"], "tcp": "parallel-syn", "fallback": "delayed"},
    ),
    Case("accord-quic", PORT, {"secure": "required", "prefer": ["quic"], "fallback": "delayed"}),
    Case(
        "accord-tcp-early",
        PORT,
        {"secure": "no", "prefer": ["tcp"], "only": True, "early": "idempotent", "fallback": "delayed"},
    ),
    Case("no-accord-peer", TLS_PORT, {"secure": "required", "fallback": "parallel"}, daemon_at_server=False),
)


def _connections(hosts: Hosts, case: Case, family: int, repeats: int, rtt: float) -> list[dict[str, Any]]:
    """What each of ``repeats`` connections took; the page that each brought was checked."""
    server = hosts.lab.server
    spec = {
        "kind": "today" if case.policy is None else "accord",
        "host": server.address4 if family == 4 else server.address6,
        "port": case.port,
        "policy": case.policy,
        "server_name": SERVER_NAME,
        "ca_file": str(hosts.ca),
        "control": str(hosts.control(hosts.lab.client)),
        "request": _REQUEST,
        "repeats": repeats,
        "pause": 2 * rtt + 0.1,
        "ladder": case.name == LADDER_CASE,
    }
    command = [sys.executable, "-m", "accord.cli.measure", json.dumps(spec)]
    done = hosts.lab.client.run(command, capture_output=True, text=True, timeout=60 + repeats * (20 * rtt + 5))
    if done.returncode:
        raise click.ClickException(f"case {case.name}:\n{done.stderr[-2000:]}\n{hosts.logs()}")
    runs: list[dict[str, Any]] = json.loads(done.stdout)
    wanted = hashlib.sha256(_PAGE).hexdigest()
    for run in runs:
        if run["sha256"] != wanted:
            raise click.ClickException(f"case {case.name}: the page arrived with other bytes")
    return runs


def _counted(hosts: Hosts, case: Case, family: int, rtt: float) -> Tally:
    """What ``_COUNTED`` more connections put on the link. Not those that are timed: a capture wants the processor
    with each packet, just when the hosts do."""
    capture = hosts.directory / f"{case.name}-{family}.pcap"
    with hosts.lab.capture(capture, where="link"):
        _connections(hosts, case, family, _COUNTED, rtt)
        time.sleep(2 * rtt + 0.1)
    return tally(capture)


def _row(case: Case, runs: list[dict[str, Any]], seen: Tally, rtt: float) -> dict[str, Any]:
    ready = [run["ready"] / rtt for run in runs]
    first = [run["first_response"] / rtt for run in runs]
    return {
        "name": case.name,
        "stack": runs[-1]["stack"],
        "ready_rtts": round(statistics.median(ready), 3),
        "ready_rtts_spread": [round(min(ready), 3), round(max(ready), 3)],
        "first_response_rtts": round(statistics.median(first), 3),
        "first_response_rtts_spread": [round(min(first), 3), round(max(first), 3)],
        "repeats": len(runs),
        "syn_packets": seen.syn_packets / _COUNTED,
        "reset_packets": seen.reset_packets / _COUNTED,
        "negotiation_packets": seen.negotiation_packets / _COUNTED,
        "packets": seen.packets / _COUNTED,
        "bytes": seen.bytes / _COUNTED,
    }


def _print(console: Console, result: dict[str, Any]) -> None:
    link = f"IPv{result['family']}, round trip {result['rtt_ms']:.1f} ms"
    title = f"{link}, {result['backend']}, attach {result['attach_mode']}"
    table = Table(title=title, caption="medians; times in round trips of this link, the rest per connection", box=ASCII)
    for column in (
        "case",
        "stack",
        "ready",
        "first\nresponse",
        "SYNs",
        "negotiation\npackets",
        "all\npackets",
        "bytes",
    ):
        table.add_column(column, justify="left" if column in ("case", "stack") else "right", no_wrap=True)
    for row in result["cases"]:
        table.add_row(
            row["name"],
            "/".join(row["stack"]),
            f"{row['ready_rtts']:.2f}",
            f"{row['first_response_rtts']:.2f}",
            *(f"{row[name]:.3g}" for name in ("syn_packets", "negotiation_packets", "packets")),
            f"{row['bytes']:.0f}",
        )
    console.print(table)


@click.command()
@click.option("--rtt", type=Finite(0, 2000), default=50, show_default=True, help="Round trip, milliseconds.")
@click.option("--loss", type=Finite(0, 50), default=0, show_default=True, help="Loss each way, per cent.")
@click.option("--repeats", type=click.IntRange(1, 1000), default=21, show_default=True, help="Connections a case.")
@click.option("--family", type=click.Choice(["4", "6"]), default="4", show_default=True, help="IPv4 or IPv6.")
@click.option("--case", "names", multiple=True, type=click.Choice([case.name for case in CASES]), help="Only these.")
@click.option("--attach", type=click.Choice(["auto", "native", "generic", "none"]), default="auto", show_default=True)
@click.option(
    "--back-end", type=click.Choice(["auto", "af_xdp", "af_packet", "udp"]), default="auto", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def demo(
    rtt: float,
    loss: float,
    repeats: int,
    family: str,
    names: tuple[str, ...],
    attach: str,
    back_end: str,
    as_json: bool,
) -> None:
    """Compare today's connections with negotiated ones, on this machine, in namespaces made for it."""
    if os.geteuid() != 0:
        raise error(Reason.NO_PRIVILEGE, "the demo makes network namespaces", "run it with sudo")
    console = Console(stderr=True)
    cases = [case for case in CASES if not names or case.name in names]
    with (
        scratch("demo") as directory,
        Progress(console=console, transient=True) as progress,
        Lab(f"demo-{os.getpid()}", rtt=rtt / 1000, loss=loss / 100) as lab,
        contextlib.closing(Hosts(lab, directory, attach, back_end, site={"index.html": _PAGE})) as hosts,
        Awake() as awake,
    ):
        bar = progress.add_task("starting two hosts", total=len(cases) + 1)
        measured = lab.measure_rtt(count=20, family=int(family)).median
        hosts.serve_plain()
        hosts.serve_tls()
        hosts.daemon(lab.client)
        hosts.daemon(lab.server)
        hosts.expose()
        state = hosts.status(lab.server)
        rows = []
        ladder: list[dict[str, object]] = []
        for case in sorted(cases, key=lambda case: not case.daemon_at_server):
            progress.update(bar, advance=1, description=case.name)
            if not case.daemon_at_server:
                hosts.close()
                hosts.serve_tls()
                hosts.daemon(lab.client)
            runs = _connections(hosts, case, int(family), repeats, measured)
            rows.append(_row(case, runs, _counted(hosts, case, int(family), measured), measured))
            if case.name == LADDER_CASE:
                ladder = runs[-1]["report"]["ladder"]
        held = awake.held
    result = {
        "rtt_ms": round(measured * 1000, 3),
        "family": int(family),
        "loss": loss / 100,
        "backend": state["back_end"],
        "attach_mode": state["attach_mode"],
        "awake": held,
        "cases": rows,
    }
    _print(Console(stderr=as_json, width=max(Console().width, 100)), result)
    if ladder:
        click.echo(f"One negotiation ({LADDER_CASE}), seen from the client:\n{render(ladder)}\n", err=as_json)
    if as_json:
        click.echo(json.dumps(result))


if __name__ == "__main__":
    from accord.cli.main import run

    run(demo)
