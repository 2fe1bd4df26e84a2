# SPDX-License-Identifier: Apache-2.0
"""``accord expose``: the daemon ends the negotiated stack and forwards to a local plain service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from accord.api.connect import parse_remote
from accord.api.listen import listen


@click.command()
@click.option("--listen", "port", type=click.IntRange(1, 65535), required=True, help="Port that peers connect to.")
@click.option("--to", "target", required=True, metavar="ADDRESS:PORT", help="The local service, plain TCP.")
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
    target: str,
    certificate: Path | None,
    private_key: Path | None,
    early_limit: int,
    secure: str | None,
    no_plain: bool,
    share_udp: bool,
    control: Path | None,
) -> None:
    """Offer a local plain service over negotiated stacks, until interrupted.

    Hosts without Accord reach it too, by TLS over plain TCP on the same port.

    Example: accord expose --listen 443 --to 127.0.0.1:8080
    """
    if (certificate is None) != (private_key is None):
        raise click.UsageError("--certificate and --private-key go together")
    host, service_port = parse_remote(target)

    async def run() -> None:
        listener = await listen(
            port,
            forward_to=(host, service_port),
            certificate=certificate,
            private_key=private_key,
            early_limit=early_limit,
            secure=secure,
            plain=not no_plain,
            share_udp=share_udp,
            control=control,
        )
        click.echo(f"exposed: port {port} -> {host}:{service_port}, certificate {listener.details['certificate']}")
        if warning := listener.details.get("warning"):
            click.echo(f"accord: {warning}; peers are refused until then", err=True)
        async for _ in listener:  # nothing is handed to us while the daemon forwards; this ends with the daemon
            pass
        raise click.ClickException("the daemon is gone; start it again and expose the service again")

    asyncio.run(run())
