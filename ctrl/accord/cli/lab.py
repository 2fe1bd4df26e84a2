# SPDX-License-Identifier: Apache-2.0
"""``accord lab``: two hosts and a slow link between them, by hand."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from accord.lab import state
from accord.lab.lab import KINDS, Lab, need_root
from accord.lab.paths import EVERY_PATH
from accord.lab.settings import Direction
from accord.lab.topology import ALL_ROLES, roles
from accord.lab.units import format_duration, format_rate, parse_count, parse_duration, parse_probability, parse_rate
from accord.wire.errors import PathError

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_NAME = "default"
_ECHO_SECONDS = 1.0  # spent on measuring, about


def _one(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """One value with a unit."""

    def convert(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from error

    return convert


def _both(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """One value for both directions, or UP/DOWN."""

    def parse_both(text: str) -> Any:
        parts = text.replace("bit/s", "bit").split("/")  # a rate may have a slash of its own
        return (parse(parts[0]), parse(parts[1])) if len(parts) == 2 else parse(text)

    return _one(parse_both)


_LINK_OPTIONS = (
    click.option("--rtt", callback=_one(parse_duration), help="Round trip, half of it each way, e.g. 50ms."),
    click.option("--up", callback=_one(parse_duration), help="Delay from client to server; wins over --rtt."),
    click.option("--down", callback=_one(parse_duration), help="Delay from server to client; wins over --rtt."),
    click.option("--jitter", callback=_both(parse_duration), help="Spread of the delay, +-, each way, e.g. 2ms."),
    click.option("--loss", callback=_both(parse_probability), help="Of each packet, each way, e.g. 1%."),
    click.option("--duplicate", callback=_both(parse_probability), help="Of each packet, each way."),
    click.option("--reorder", callback=_both(parse_probability), help="Packets that skip the delay, each way."),
    click.option("--rate", callback=_both(parse_rate), help="Each way, e.g. 100mbit."),
    click.option("--mtu", callback=_both(parse_count), help="Longer packets are lost in silence, each way."),
    click.option("--limit", callback=_both(parse_count), help="Packets in the link at once, each way."),
)
_name = click.option("--name", default=DEFAULT_NAME, show_default=True, help="Several labs can be up at once.")


def _link_options(command: F) -> F:
    for option in reversed(_LINK_OPTIONS):
        command = option(command)
    return command


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def lab() -> None:
    """Two hosts and a slow link between them, in network namespaces.

    What applies each way takes one value, or one per direction as UP/DOWN: --loss 1%/5%.
    """


@lab.command()
@_name
@_link_options
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=0, help="Repeat the same losses; not with netem.")
@click.option("--kind", type=click.Choice(KINDS), default="auto", show_default=True, help="What makes the link.")
@click.option("--path", type=click.Choice(list(EVERY_PATH)), help="A router in between; `accord lab paths` says which.")
@click.option("--foreground", is_flag=True, help="Stay, and take the lab down at Ctrl-C or when killed.")
def up(name: str, seed: int, kind: str, path: str | None, foreground: bool, **settings: Any) -> None:
    """Make a lab. Without --foreground it stays until `accord lab down`."""
    options = {"seed": seed, "kind": kind, "path": path or "", **_given(settings)}
    if not foreground:
        made = Lab(name, detached=True, **options)
        try:
            _describe(made)
        except (KeyboardInterrupt, SystemExit):  # while it is measured
            made.close()
            raise
        return
    # However it is ended, it ends as by Ctrl-C; what not even that can be done to, the lab's keeper sees to.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with Lab(name, **options) as made:
        _describe(made)
        with contextlib.suppress(KeyboardInterrupt):
            click.echo("Ctrl-C takes it down.")
            while made.up:
                time.sleep(0.5)


@lab.command()
@_name
def down(name: str) -> None:
    """Take a lab down, with all that runs in it; also what a killed one left."""
    need_root()
    state.check_name(name)
    with state.locked(name):
        found = state.dismantle(name)
    click.echo(f"lab {name} is down" if found else f"there was no lab {name}")


@lab.command("exec", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
@_name
@click.argument("role", type=click.Choice(ALL_ROLES))
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, role: str, command: tuple[str, ...]) -> None:
    """Run a command in the lab: accord lab exec client -- CMD ..."""
    need_root()
    if command[0] == "--":
        command = command[1:]
    if not command:
        raise click.UsageError("there is no command after --")
    there = Lab.attach(name).role(role)
    with there.enter():
        try:
            os.execvpe(command[0], command, {**os.environ, **there.environment})
        except OSError as error:
            raise click.ClickException(f"{command[0]}: {error.strerror}") from error


@lab.command()
@_name
@_link_options
def change(name: str, **settings: Any) -> None:
    """Change the link of a lab that is up; what is not given stays."""
    need_root()
    there = Lab.attach(name)
    there.change(**_given(settings))
    _describe(there)


@lab.command()
@_name
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(name: str, as_json: bool) -> None:
    """Show a lab, its link's settings and what became of the packets."""
    need_root()
    there = Lab.attach(name)
    if as_json:
        counters = dataclasses.asdict(there.counters())
        value = {
            "name": name,
            "kind": there.kind,
            "path": there.path,
            "seed": there.seed,
            "settings": there.settings.to_json(),
        }
        click.echo(json.dumps({**value, "counters": counters}, indent=1))
        return
    _describe(there)
    _count(there)


@lab.command()
def paths() -> None:
    """List the kinds of path that a lab can have."""
    for path in EVERY_PATH.values():
        click.echo(f"{path.name:16} {path.summary}")


@lab.command("list")
def list_all() -> None:
    """List the labs of this machine, and what dead ones left."""
    for name in state.names():
        found = state.read(name)
        if found is None or not found.alive:
            click.echo(f"{name:16} left over; remove it with: accord lab down --name {name}")
            continue
        owner = "until taken down" if found.owner is None else f"with process {found.owner.pid}"
        click.echo(f"{name:16} up, {owner}, {found.kind}, rtt {format_duration(found.settings.rtt)}")


# ---- How it is shown ---------------------------------------------------------------------------------


def _describe(there: Lab) -> None:
    link = {"netem": "the kernel's netem", "forwarder": "accord-link in user space"}[there.kind]
    click.echo(f"lab {there.name}: {link}" + (f", seed {there.seed}" if there.seed else ""))
    for role in roles(EVERY_PATH.get(there.path)):
        host = there.role(role)
        if host.address4:
            click.echo(f"  {role:7} {host.address4:10} {host.address6:8} on {host.interface}, namespace {host.name}")
    click.echo(f"  link    namespace {there.link.name}")
    if there.path:
        click.echo(f"  router  namespace {there.router.name}: {EVERY_PATH[there.path].summary}")
    click.echo(f"  up      {_way(there.settings.up)}")
    click.echo(f"  down    {_way(there.settings.down)}")
    count = max(3, min(20, int(_ECHO_SECONDS / (there.settings.rtt + 0.001))))
    try:
        rtt = there.measure_rtt(count)
    except PathError as error:
        click.echo(f"  rtt     not measured: {error}")
        return
    times = " / ".join(format_duration(value) for value in (rtt.min, rtt.median, rtt.max))
    click.echo(f"  rtt     measured {times} (least, median, most of {len(rtt.samples)})")


def _way(direction: Direction) -> str:
    parts = [format_duration(direction.delay)]
    if direction.jitter:
        parts[0] += f" +- {format_duration(direction.jitter)}"
    parts += [
        f"{name} {getattr(direction, name) * 100:.4g}%"
        for name in ("loss", "duplicate", "reorder")
        if getattr(direction, name)
    ]
    if direction.rate is not None:
        parts.append(format_rate(direction.rate))
    if direction.mtu is not None:
        parts.append(f"MTU {direction.mtu}")
    return ", ".join([*parts, f"at most {direction.packets} packets"])


def _count(there: Lab) -> None:
    counters = there.counters()
    click.echo(f"  {'':16}{'up':>14}{'down':>14}")
    for field in dataclasses.fields(counters.up):
        ways = (getattr(counters.up, field.name), getattr(counters.down, field.name))
        click.echo(f"  {field.name.replace('_', ' '):16}{ways[0]:>14}{ways[1]:>14}")
