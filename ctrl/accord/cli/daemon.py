# SPDX-License-Identifier: Apache-2.0
"""``accord daemon``: attach to an interface and negotiate for this host."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

import click

from accord.cli.complaint import complain
from accord.cli.numbers import Finite
from accord.controller.control import control_path
from accord.controller.known import known_protocols
from accord.controller.settings.config import DaemonConfig, load_config
from accord.controller.settings.policy import EffectivePolicy, Policy
from accord.daemon.daemon import Daemon
from accord.daemon.split import Split
from accord.daemon.supervisor import Supervisor
from accord.daemon.takeover import DRAIN_SECONDS
from accord.datapath.port import Spare
from accord.protocols.registry import load_plugins
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

log = logging.getLogger("accord.daemon")


@click.command()
@click.option("--iface", help="Network interface to attach to.")
@click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), help="Configuration, TOML.")
@click.option(
    "--attach",
    type=click.Choice(["auto", "native", "generic", "none"]),
    help="How the XDP program is attached: native is fastest, and costs others something on most drivers (on veth, "
    "TSO); generic costs little; auto takes native only where no price is known; none attaches nothing. What it comes "
    "to is printed, and in: accord doctor --iface IF.",
)
@click.option(
    "--back-end",
    type=click.Choice(["auto", "af_xdp", "af_packet", "udp"]),
    help="How negotiation packets are received; auto takes the best that can be had.",
)
@click.option("--control", type=click.Path(path_type=Path), help="Control socket to make.")
@click.option("--key-log", type=click.Path(path_type=Path), help="Append TLS secrets for captures (as SSLKEYLOGFILE).")
@click.option("--supervise", is_flag=True, help="Start the daemon again, at once, when it is killed, fails or hangs.")
@click.option(
    "--watchdog",
    type=Finite(min=0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="With --supervise: kill a daemon that gave no sign of life for so long; 0: never.",
)
@click.option("--takeover", is_flag=True, help="Take over from the daemon that runs: no negotiation is lost.")
@click.option(
    "--drain-limit",
    type=Finite(min=0),
    default=DRAIN_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="With --takeover: for so long the old daemon may keep the associations that it has.",
)
@click.option("--privileged", is_flag=True, help="One process that keeps all privileges, for debugging only.")
@click.option("-v", "--verbose", count=True, help="Log more: -v each negotiation, -vv its steps.")
def daemon(
    iface: str | None,
    config_file: Path | None,
    attach: str | None,
    back_end: str | None,
    control: Path | None,
    key_log: Path | None,
    supervise: bool,
    watchdog: float,
    takeover: bool,
    drain_limit: float,
    privileged: bool,
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
    protocols = known_protocols()
    default = DaemonConfig(policy=Policy(EffectivePolicy(protocols=protocols)))
    config = load_config(config_file, protocols) if config_file else default
    given = {
        "interface": iface,
        "attach": attach,
        "back_end": back_end,
        "control": control_path(control) if control or os.environ.get("ACCORD_CONTROL") else None,
        "key_log": key_log,
        "privileges": "keep" if privileged else None,
    }
    config = config.override(**given)
    if config.interface is None and config.back_end != "udp":
        raise error(Reason.NO_INTERFACE, "none was named", "give --iface IF (see: ip -br link), or --back-end udp")
    if config.privileges == "keep":
        click.echo("accord: one process keeps all privileges and handles packets: for debugging only", err=True)

    def live(config: DaemonConfig, life: socket.socket | None, spare: Spare | None) -> int:
        def work(life: socket.socket | None, spare: Spare | None = None) -> int:
            serving.reports_to(life, spare)
            try:
                asyncio.run(serving.run())
            except AccordError as failure:
                return complain(failure)
            return 0

        serving = Daemon(config, config_file, takeover=takeover, drain_seconds=drain_limit)
        if config.privileges == "keep":
            return work(life, spare)
        serving.open()
        return Split(config, config_file, work, life, spare, serving.leave).run()

    if not supervise:
        sys.exit(live(config, None, None))

    def one_life(life: socket.socket, spare: Spare | None) -> int:
        try:
            return live(_latest(config, config_file, given), life, spare)
        except AccordError as failure:
            return complain(failure)

    load_plugins()  # their modules are the other half of a start
    sys.exit(Supervisor(one_life, watchdog, lambda: _spare(config)).supervise())


def _spare(config: DaemonConfig) -> Spare | None:
    """The XDP program for the next daemon, if it will want one; where it cannot be loaded, the daemon says why."""
    if config.interface is None or config.attach == "none" or config.back_end not in ("auto", "af_xdp"):
        return None
    try:
        return Spare()
    except AccordError:
        return None


def _latest(config: DaemonConfig, config_file: Path | None, given: dict[str, Any]) -> DaemonConfig:
    """What the file says now, for SIGHUP may have had it read since; what it said when it was good, if it is not."""
    if config_file is None:
        return config
    try:
        return load_config(config_file, known_protocols()).override(**given)
    except AccordError as wrong:
        log.error("configuration as of the supervisor's start: %s", wrong)
        return config
