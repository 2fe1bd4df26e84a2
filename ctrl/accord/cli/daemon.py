# SPDX-License-Identifier: Apache-2.0
"""``accord daemon``: attach to an interface and negotiate for this host."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import click

from accord.controller.config import DaemonConfig, load_config
from accord.controller.control import control_path
from accord.daemon.daemon import Daemon
from accord.wire.constants import Reason
from accord.wire.errors import error


@click.command()
@click.option("--iface", help="Network interface to attach to.")
@click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), help="Configuration, TOML.")
@click.option(
    "--attach",
    type=click.Choice(["auto", "native", "generic", "none"]),
    help="How the XDP program is attached; native is fastest for us and, on veth, costs bulk TCP its TSO.",
)
@click.option(
    "--back-end",
    type=click.Choice(["auto", "af_xdp", "af_packet", "udp"]),
    help="How negotiation packets are received; auto takes the best that can be had.",
)
@click.option("--control", type=click.Path(path_type=Path), help="Control socket to make.")
@click.option("--key-log", type=click.Path(path_type=Path), help="Append TLS secrets for captures (as SSLKEYLOGFILE).")
@click.option("-v", "--verbose", count=True, help="Log more: -v each negotiation, -vv its steps.")
def daemon(
    iface: str | None,
    config_file: Path | None,
    attach: str | None,
    back_end: str | None,
    control: Path | None,
    key_log: Path | None,
    verbose: int,
) -> None:
    """Run the daemon of this host until it is interrupted.

    Its XDP program hands negotiation packets to it and leaves everything else alone; it goes with the
    process, however that ends.
    """
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        level=(logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)],
    )
    config = load_config(config_file) if config_file else DaemonConfig()
    config = config.override(
        interface=iface,
        attach=attach,
        back_end=back_end,
        control=control_path(control) if control or os.environ.get("ACCORD_CONTROL") else None,
        key_log=key_log,
    )
    if config.interface is None and config.back_end != "udp":
        raise error(Reason.NO_INTERFACE, "none was named", "give --iface IF (see: ip -br link), or --back-end udp")
    asyncio.run(Daemon(config, config_file).run())
