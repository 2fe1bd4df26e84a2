# SPDX-License-Identifier: Apache-2.0
"""The link on kernels without netem: ``accord-link`` (dataplane_c/lab), started, asked and told."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from accord.lab.namespace import Namespace
from accord.lab.settings import Direction, LinkSettings
from accord.lab.topology import TO_CLIENT, TO_SERVER
from accord.wire.constants import Reason
from accord.wire.errors import HostError, OurError

_REPLY_BYTES = 16384
_PATIENCE = 5.0  # seconds that a link on a busy machine has for an answer


@dataclass(frozen=True, slots=True)
class DirectionCounters:
    """Packets of one direction since the link was made. netem tells fewer apart: what it cannot tell is 0."""

    received: int = 0
    received_bytes: int = 0
    """Whole Ethernet frames."""
    delivered: int = 0
    delivered_bytes: int = 0
    lost: int = 0
    """Dropped by chance; with netem for whatever cause."""
    duplicated: int = 0
    reordered: int = 0
    too_long: int = 0
    """Over the link's MTU."""
    overflowed: int = 0
    """Dropped because the link was full."""
    refused: int = 0
    """The receiving interface would not take it."""
    oversize: int = 0
    """Longer than the interface's MTU allows: segmentation offload is on somewhere."""
    unfinished: int = 0
    """Came with a checksum that was left to hardware: checksum offload is on at the sender."""
    kernel_dropped: int = 0
    """Dropped before the link saw it: this machine is too slow for what is asked of it."""
    queued: int = 0
    """In the link now."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Both directions."""

    up: DirectionCounters
    down: DirectionCounters


def program() -> Path:
    """Where ``accord-link`` is: $ACCORD_LINK, or beside this file. Raises ``HostError`` if it was not built."""
    path = Path(os.environ.get("ACCORD_LINK") or Path(__file__).with_name("accord-link"))
    if not os.access(path, os.X_OK):
        raise HostError(
            Reason.NO_KERNEL_SUPPORT,
            f"this kernel has no netem, and our own link, {path}, is not built",
            "build it with: ./build.py build, or: make -C dataplane_c/lab",
        )
    return path


def words(settings: LinkSettings) -> list[str]:
    """The settings as ``accord-link`` reads them."""

    def direction(name: str, value: Direction) -> list[str]:
        return [
            f"{name}.delay_ns={round(value.delay * 1e9)}",
            f"{name}.jitter_ns={round(value.jitter * 1e9)}",
            f"{name}.loss={value.loss:.17g}",
            f"{name}.duplicate={value.duplicate:.17g}",
            f"{name}.reorder={value.reorder:.17g}",
            f"{name}.rate_bps={value.rate or 0}",
            f"{name}.mtu={value.mtu or 0}",
            f"{name}.limit={value.packets}",
        ]

    return direction("up", settings.up) + direction("down", settings.down)


def start(
    link: Namespace, control: Path, settings: LinkSettings, seed: int, owner: int | None
) -> subprocess.Popen[bytes]:
    """Start it and wait until frames flow. ``owner``: a pidfd with whose process it ends; None: it goes on.

    Raises ``HostError`` with what it said if it does not start.
    """
    argv: list[str | os.PathLike[str]] = [
        program(),
        "--control",
        control,
        "--up",
        TO_CLIENT,
        "--down",
        TO_SERVER,
        "--seed",
        str(seed),
    ]
    if owner is not None:
        argv += ["--die-with", str(owner)]
    process = link.popen(
        [*argv, *words(settings)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=() if owner is None else (owner,),
        start_new_session=True,  # Ctrl-C is for whoever made the lab, which then ends this
        cwd="/",
    )
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.read() != b"ready\n":
        said = process.stderr.read().decode(errors="replace").strip()
        process.wait()
        raise HostError(Reason.NO_KERNEL_SUPPORT, f"the link does not start: {said or process.returncode}")
    process.stdout.close()
    process.stderr.close()
    return process


def _ask(control: Path, request: str) -> str:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as connection:
        connection.settimeout(_PATIENCE)
        try:
            connection.connect(os.fspath(control))
            connection.send(request.encode())
            return connection.recv(_REPLY_BYTES).decode()
        except OSError as error:
            raise HostError(
                Reason.NO_INTERFACE,
                f"the link does not answer at {control}: {error}",
                "make the lab anew: accord lab up",
            ) from error


def change(control: Path, settings: LinkSettings) -> None:
    """Give a running link new settings; packets on their way keep theirs."""
    reply = _ask(control, "set " + " ".join(words(settings)))
    if reply != "ok\n":
        raise OurError(Reason.BAD_CONFIG, f"the link refused its settings: {reply.strip()}")


def counters(control: Path) -> Counters:
    """Of a running link."""
    values: dict[str, dict[str, Any]] = {"up": {}, "down": {}}
    known = {field.name for field in fields(DirectionCounters)}
    for line in _ask(control, "show").splitlines():
        name, _, value = line.partition("=")
        direction, _, name = name.partition(".")
        if name in known:
            values[direction][name] = int(value)
    return Counters(DirectionCounters(**values["up"]), DirectionCounters(**values["down"]))
