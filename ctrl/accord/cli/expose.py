# SPDX-License-Identifier: Apache-2.0
"""``accord expose``: the daemon ends the negotiated stack and forwards to a local plain service."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import click

from accord.api.connect import parse_remote
from accord.api.listen import Listener, listen
from accord.wire.errors import AccordError

_LOOK_SECONDS = 60.0
"""Between two looks at the files of the certificate, as the daemon looks at its own; SIGHUP has one at once."""


@click.command()
@click.option("--listen", "port", type=click.IntRange(1, 65535), required=True, help="Port that peers connect to.")
@click.option("--to", "target", metavar="ADDRESS:PORT", help="The local service, plain TCP.")
@click.option(
    "--to-listener",
    is_flag=True,
    help="The TCP port is another program's: it gets the connections by its own accept(). No security but its own.",
)
@click.option("--certificate", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="PEM chain.")
@click.option("--private-key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="PEM key.")
@click.option(
    "--early-limit",
    type=click.IntRange(0, 65536),
    default=0,
    show_default=True,
    help="Serve requests of up to so many bytes that come in the proposal, in clear. They may be replayed.",
)
@click.option(
    "--secure",
    type=click.Choice(["required", "preferred", "no"]),
    help="Is security needed? Default: as the daemon's policy says, which is required unless it is changed.",
)
@click.option("--no-plain", is_flag=True, help="Do not serve hosts without Accord on the same TCP port.")
@click.option(
    "--share-udp",
    is_flag=True,
    help="The UDP port of this number is another program's (QUIC, DTLS, STUN): take negotiation packets only.",
)
@click.option("--control", type=click.Path(path_type=Path), help="Control socket of the daemon.")
def expose(
    port: int,
    target: str | None,
    to_listener: bool,
    certificate: Path | None,
    private_key: Path | None,
    early_limit: int,
    secure: str | None,
    no_plain: bool,
    share_udp: bool,
    control: Path | None,
) -> None:
    """Offer a local plain service over negotiated stacks, until interrupted.

    Hosts without Accord reach it too, by TLS over plain TCP on the same port. When the files of the certificate are
    others, those are shown from then on; it is looked once a minute, and at once on SIGHUP.

    With --to-listener the program that listens on the TCP port is left alone with hosts without Accord, and gets
    negotiated connections as well, without a SYN, from the kernel; the daemon sees nothing of what they carry.

    Example: accord expose --listen 443 --to 127.0.0.1:8080
    """
    if (certificate is None) != (private_key is None):
        raise click.UsageError("--certificate and --private-key go together")
    if (target is None) != to_listener:
        raise click.UsageError("one of --to and --to-listener is needed, and not both")
    if to_listener and (certificate is not None or early_limit or no_plain or secure not in (None, "no")):
        raise click.UsageError(
            "--to-listener goes together with --secure no and --share-udp only: certificate, security and plain hosts "
            "are the business of the program that listens"
        )
    forward_to = None if target is None else parse_remote(target)

    async def run() -> None:
        listener = await listen(
            port,
            forward_to=forward_to,
            to_listener=to_listener,
            certificate=certificate,
            private_key=private_key,
            early_limit=early_limit,
            secure=secure,
            plain=not no_plain,
            share_udp=share_udp,
            control=control,
        )
        renewing = None
        if certificate is not None and private_key is not None:  # before anybody is told: who is may send SIGHUP
            wake = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, wake.set)
            renewing = asyncio.create_task(_renew(listener, [certificate, private_key], wake))
        if forward_to is None:
            click.echo(f"exposed: port {port} -> the program that listens on TCP port {port}, nothing secure but by it")
        else:
            shown = listener.details["certificate"]
            click.echo(f"exposed: port {port} -> {forward_to[0]}:{forward_to[1]}, certificate {shown}")
        if warning := listener.details.get("warning"):
            click.echo(f"accord: {warning}; peers are refused until then", err=True)
        async for _ in listener:  # nothing is handed to us while the daemon forwards; this ends with the daemon
            pass
        if renewing is not None:
            renewing.cancel()
        raise click.ClickException("the daemon is gone; start it again and expose the service again")

    asyncio.run(run())


async def _renew(listener: Listener, files: Sequence[Path], wake: asyncio.Event) -> None:
    """Whenever the files have changed, and whenever somebody says so."""
    shown = _stamps(files)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await wake.wait()
        found = _stamps(files)
        if not wake.is_set() and found == shown:
            continue
        wake.clear()
        try:
            await listener.renew()
        except AccordError as wrong:  # one of the two may be there before the other: the next look tries again
            click.echo(f"accord: the certificate is not renewed: {wrong}", err=True)
        else:
            shown = found
            click.echo(f"renewed: port {listener.details['port']}, certificate {files[0]}")


def _stamps(files: Sequence[Path]) -> list[tuple[int, int, int] | None]:
    """What tells that a file is another, or was written to; None: it is not there."""
    found: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_ino, status.st_size))
    return found
