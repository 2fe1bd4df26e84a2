# SPDX-License-Identifier: Apache-2.0
"""``accord meet``: a pipe between two hosts that call each other, as ``accord connect`` is one to a host that waits."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import click

from accord.api.connect import parse_remote
from accord.api.rendezvous import rendezvous
from accord.cli.connect import describe, pipe
from accord.cli.numbers import Finite
from accord.controller.ladder import render
from accord.lab.introducer import introduce
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def _bound(port: int, family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
    except OSError as refusal:
        sock.close()
        raise error(
            Reason.BAD_CONFIG, f"UDP port {port}: {refusal.strerror}", "choose another --port, or leave it out"
        ) from refusal
    return sock


def _introduced(sock: socket.socket, server: str, name: str, seconds: float) -> tuple[str, int]:
    try:
        mapped, peer = introduce(sock, parse_remote(server), name, seconds)
    except TimeoutError as nobody:
        raise error(Reason.TIMEOUT, f"{nobody}, so says {server}", "both sides have to call") from nobody
    except OSError as refusal:
        raise error(Reason.UNREACHABLE, f"{server}: {refusal.strerror or refusal}") from refusal
    click.echo(f"seen as {mapped[0]} port {mapped[1]}, the peer as {peer[0]} port {peer[1]}", err=True)
    return peer


@click.command()
@click.argument("name")
@click.argument("peers", metavar="[ADDRESS:PORT]...", nargs=-1)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Own UDP port.  [default: any that is free]")
@click.option("--introducer", metavar="ADDRESS:PORT", help="Ask there where the peer is (accord.lab.introducer).")
@click.option("--certificate", type=_FILE, required=True, help="PEM chain to show when the peer leads.")
@click.option("--private-key", type=_FILE, required=True, help="Its private key, PEM.")
@click.option("--server-name", help="Name that the peer's certificate must be for.")
@click.option("--ca", "ca_file", type=_FILE, help="Roots to trust.")
@click.option("--insecure", is_flag=True, help="Do not verify the peer's certificate.")
@click.option("--seconds", type=Finite(0.1, 3600), default=30, show_default=True, help="How long to wait.")
@click.option("--secure", type=click.Choice(["required", "preferred", "no"]), help="Policy: is security needed?")
@click.option("--prefer", multiple=True, metavar="STACK", help="Policy: tls/tcp, quic or tcp; best first, repeatable.")
@click.option("--only", is_flag=True, help="Policy: nothing but the stacks named by --prefer.")
@click.option("-v", "--verbose", is_flag=True, help="Print what came up, and the ladder of what happened.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as a line of JSON on standard error.")
@click.option("--control", type=click.Path(path_type=Path), help="Control socket of the daemon.")
def meet(
    name: str,
    peers: tuple[str, ...],
    port: int,
    introducer: str | None,
    certificate: Path,
    private_key: Path,
    server_name: str | None,
    ca_file: Path | None,
    insecure: bool,
    seconds: float,
    secure: str | None,
    prefer: tuple[str, ...],
    only: bool,
    verbose: bool,
    as_json: bool,
    control: Path | None,
) -> None:
    """Meet a peer that calls this host too, and pipe the stack to standard input and output.

    NAME is what both sides call the meeting. Each says where the other's UDP port is, or both ask an introducer that
    they can reach. Whichever leads is the TLS client, so both bring a certificate. It ends when the peer has
    finished and standard input was sent.
    """
    if not peers and introducer is None:
        raise click.UsageError("say where the peer is, or name an --introducer")
    known = [parse_remote(peer) for peer in peers]
    policy: dict[str, Any] = {"secure": secure} if secure else {}
    if prefer:
        policy["prefer"] = list(prefer)
    if only:
        policy["only"] = True
    wanted = known or [parse_remote(introducer or "")]
    options: dict[str, Any] = {
        "certificate": certificate,
        "private_key": private_key,
        "server_name": server_name,
        "ca_file": ca_file,
        "verify": not insecure,
        "policy": policy,
        "seconds": seconds,
        "ladder": verbose,
        "control": control,
    }

    async def run(sock: socket.socket) -> None:
        try:
            async with rendezvous(sock, known, name, **options) as association:
                sock.close()
                if as_json:
                    click.echo(json.dumps(association.report), err=True)
                if verbose:
                    click.echo(describe(association.report), err=True)
                    click.echo(render(association.report["ladder"]), err=True)
                await pipe(association, to_the_end=True)
        except AccordError as failure:
            if verbose and failure.trace:
                click.echo(render(failure.trace), err=True)
            raise
        except ConnectionError as broken:
            raise error(Reason.STREAM_BROKEN, f"{name}: {broken.strerror}") from broken

    with _bound(port, socket.AF_INET6 if ":" in wanted[0][0] else socket.AF_INET) as sock:
        rendezvous(sock, known or wanted, name, **options)  # says what of it cannot be read, before anything is begun
        if introducer is not None:
            known.append(_introduced(sock, introducer, name, seconds))
        asyncio.run(run(sock))
