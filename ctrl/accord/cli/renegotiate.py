# SPDX-License-Identifier: Apache-2.0
"""``accord renegotiate``: give running associations another stack, or new keys."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click

from accord.cli.complaint import complain
from accord.cli.status import ask
from accord.controller.known import check_wishes
from accord.wire.errors import AccordError


@click.command()
@click.argument("associations", metavar="[ASSOCIATION]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every association of this host that can be re-negotiated.")
@click.option("--secure", type=click.Choice(["required", "preferred", "no"]), help="Policy: is security needed?")
@click.option("--prefer", multiple=True, metavar="STACK", help="Policy: tls/tcp, quic or tcp; best first, repeatable.")
@click.option("--only", is_flag=True, help="Policy: nothing but the stacks named by --prefer.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each association, a line each.")
@click.option("--control", type=click.Path(path_type=Path), help="Control socket of the daemon.")
def renegotiate(
    associations: tuple[str, ...],
    everything: bool,
    secure: str | None,
    prefer: tuple[str, ...],
    only: bool,
    as_json: bool,
    control: Path | None,
) -> None:
    """Give running associations another stack while data flows.

    ASSOCIATION is what accord status calls it. The policy of now chooses; where it chooses the same stack, that gets
    new keys. The options hold for the associations from now on, and are for those that this host has begun. One that
    cannot be changed keeps its stack, and the exit code says why the first one did not.
    """
    if bool(associations) == everything:
        raise click.UsageError("name associations, or say --all")
    policy: dict[str, Any] = {}
    if secure:
        policy["secure"] = secure
    if prefer:
        policy["prefer"] = list(prefer)
    if only:
        policy["only"] = True
    check_wishes(policy)

    async def run() -> int:
        handles = list(associations)
        if everything:
            rows = (await ask(control, {"op": "status"}))["associations"]
            handles = [row["association"] for row in rows]
            if not handles:
                click.echo("no association of this host can be re-negotiated now", err=True)
        code = 0
        for handle in handles:
            message = {"op": "renegotiate", "association": handle, "policy": policy}
            try:
                answer = await ask(control, message)
            except AccordError as failure:
                code = code or complain(failure)
                continue
            answer.pop("ok")
            if as_json:
                click.echo(json.dumps(answer))
            else:
                stack = "/".join(answer["stack"])
                click.echo(f"{handle}: {stack} to {answer['peer']}, generation {answer['generation']}")
        return code

    sys.exit(asyncio.run(run()))
