# SPDX-License-Identifier: Apache-2.0
"""What is known of the labs on this machine: one file each in /run/accord, and how to take a lab down.

The file is written before the first namespace is made and removed after the last is gone, so whatever
happens in between, whoever comes next knows what there is to clean up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accord.lab import namespace
from accord.lab.paths import EVERY_PATH, PathKind
from accord.lab.settings import LinkSettings
from accord.lab.topology import ALL_ROLES, handle_name, roles
from accord.wire.constants import Reason
from accord.wire.errors import UserError

DIRECTORY = Path("/run/accord")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", re.ASCII)
_HANDLE = re.compile(r"accord-(.+)-(?:client2?|link|server|router)", re.ASCII)


def check_name(name: str) -> str:
    """The name, or ``UserError`` if a lab cannot be called that."""
    if _NAME.fullmatch(name):
        return name
    raise UserError(
        Reason.BAD_CONFIG,
        f"a lab cannot be called {name!r}",
        "use 1 to 32 small letters, digits and inner hyphens",
    )


def state_path(name: str) -> Path:
    """The state file of a lab."""
    return DIRECTORY / f"lab-{name}.json"


def control_path(name: str) -> Path:
    """The forwarder's control socket."""
    return DIRECTORY / f"lab-{name}-link.sock"


def started(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: with its ID, what tells it from a later one of the same
    ID. None if it does not run (any more)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # proc(5): the command, in brackets, may itself hold brackets and blanks; field 3 is the state, 22 the start.
    rest = text.rpartition(")")[2].split()
    return None if rest[0] in "ZX" else int(rest[19])


@dataclass(frozen=True, slots=True)
class Process:
    """A process that can be recognised."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """The one that runs now."""
        return cls(pid, started(pid) or 0)

    @property
    def alive(self) -> bool:
        """It runs, and is the same."""
        return started(self.pid) == self.started


@dataclass(frozen=True, slots=True)
class State:
    """One lab."""

    name: str
    kind: str
    """``netem`` or ``forwarder``; empty while it is being made."""
    settings: LinkSettings
    seed: int
    owner: Process | None
    """With whose end the lab ends; None: it stays until it is taken down."""
    link: Process | None = None
    """The forwarder."""
    path: str = ""
    """The kind of path (``accord.lab.paths``); empty: a bare link."""
    instance: str = field(default_factory=lambda: secrets.token_hex(8))
    """Tells this lab from an earlier one of the same name."""

    @property
    def alive(self) -> bool:
        """Its owner (or, left to itself, its link) runs and its namespaces are there."""
        if self.owner is not None and not self.owner.alive:
            return False
        if self.link is not None and not self.link.alive:
            return False
        return bool(self.kind) and all(namespace.exists(handle_name(self.name, role)) for role in roles(self.route))

    @property
    def route(self) -> PathKind | None:
        """The path of that name."""
        return EVERY_PATH[self.path] if self.path else None

    def write(self) -> None:
        """Replace the state file."""
        DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = state_path(self.name)
        value: dict[str, Any] = asdict(self)
        value["settings"] = self.settings.to_json()
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(value, indent=1) + "\n")
        fresh.replace(path)


def read(name: str) -> State | None:
    """The state of a lab; None if there is none, or the file is damaged (then the lab counts as left over)."""
    try:
        value = json.loads(state_path(name).read_text())
        value["settings"] = LinkSettings.from_json(value["settings"])
        for key in ("owner", "link"):
            value[key] = None if value[key] is None else Process(**value[key])
        if value["path"] and value["path"] not in EVERY_PATH:
            return None
        return State(**value)
    except (OSError, ValueError, TypeError, KeyError, UserError):
        return None


def names() -> list[str]:
    """Every lab of which there is a state file or a namespace, in order."""
    found = {path.name[4:-5] for path in DIRECTORY.glob("lab-*.json")}
    if namespace.HANDLES.is_dir():
        matches = (_HANDLE.fullmatch(entry.name) for entry in namespace.HANDLES.iterdir())
        found |= {match[1] for match in matches if match}
    return sorted(name for name in found if _NAME.fullmatch(name))


def there_is(name: str) -> bool:
    """Whether anything at all of this lab is left."""
    return state_path(name).exists() or any(namespace.exists(handle_name(name, role)) for role in ALL_ROLES)


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one at a time makes or takes down a lab of this name."""
    DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = DIRECTORY / f"lab-{name}.lock"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):
            if os.fstat(handle).st_ino == path.stat().st_ino:
                break
        os.close(handle)  # whoever had the lock removed this file: what we hold locks nothing
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def dismantle(name: str, instance: str | None = None) -> bool:
    """End what runs in a lab, remove its namespaces and files. Call it with the lab ``locked``.

    ``instance``: only if it is still that one. Returns whether there was anything.
    """
    state = read(name)
    if instance is not None and (state is None or state.instance != instance):
        return False
    found = there_is(name)
    handles = [handle_name(name, role) for role in ALL_ROLES]
    # Hosts first: they may want to say goodbye over the link.
    namespace.end_processes([handle_name(name, role) for role in ("client", "client2", "server")])
    namespace.end_processes([handle_name(name, role) for role in ("link", "router")])
    for handle in handles:
        namespace.remove(handle)
    for path in (
        control_path(name),
        *(DIRECTORY / f"lab-{name}-{role}.sock" for role in ("client", "client2", "server")),
    ):
        path.unlink(missing_ok=True)
    state_path(name).unlink(missing_ok=True)
    return found
