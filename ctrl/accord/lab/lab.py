# SPDX-License-Identifier: Apache-2.0
"""A lab: a client, a server and the link between them, made for a while and then gone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import accord
from accord.lab import capture, forwarder, netem, state, topology
from accord.lab.forwarder import Counters
from accord.lab.namespace import Namespace
from accord.lab.paths import path_named
from accord.lab.settings import Both, LinkSettings
from accord.wire.constants import Reason
from accord.wire.errors import HostError, PathError, UserError

KINDS = ("auto", "netem", "forwarder")


@dataclass(frozen=True, slots=True)
class Rtt:
    """Round trips that were measured, in seconds."""

    min: float
    median: float
    max: float
    samples: tuple[float, ...]


class Lab:
    """A client, a server and the link between them.

    Times are seconds, probabilities 0..1, the rate is bits per second. ``rtt`` is shared by both directions;
    ``up`` (client to server) and ``down`` are the delay of one and win over it. The others apply each way: one
    value for both, or the pair (up, down); see ``Direction`` for their meaning. ``seed``: with our own link the
    same seed treats the i-th packet of a direction the same way in every run; netem promises no such thing, so a
    seed other than 0 chooses our own. ``kind``: ``netem``, ``forwarder`` (our own), or ``auto``: netem if this
    kernel has it. ``path``: one of ``accord.lab.paths.PATHS``, a router between the hosts that does what middleboxes
    do; link settings that belong to the path hold unless others are given.

    The lab ends with ``close``, at the end of a ``with``, and with this process however that ends; and every
    process that runs in it ends with it. ``detached``: it stays until ``close`` or ``accord lab down`` instead.

    Raises ``UserError(BAD_CONFIG)``, ``HostError(NO_PRIVILEGE, NO_KERNEL_SUPPORT)``.
    """

    def __init__(
        self,
        name: str,
        rtt: float = 0.05,
        up: float | None = None,
        down: float | None = None,
        jitter: Both[float] | None = None,
        loss: Both[float] | None = None,
        duplicate: Both[float] | None = None,
        reorder: Both[float] | None = None,
        rate: Both[int | None] = None,
        mtu: Both[int | None] = None,
        limit: Both[int | None] = None,
        seed: int = 0,
        kind: str = "auto",
        detached: bool = False,
        path: str = "",
    ) -> None:
        state.check_name(name)
        if kind not in KINDS:
            raise UserError(Reason.BAD_CONFIG, f"no kind of link is called {kind!r}", f"allowed: {', '.join(KINDS)}")
        if not 0 <= seed < 1 << 64:
            raise UserError(Reason.BAD_CONFIG, f"a seed of {seed}", "allowed: 0 to 2^64 - 1")
        settings = LinkSettings().changed(rtt=rtt, up=up, down=down)
        route = path_named(path) if path else None
        if route is not None:
            settings = settings.changed(**route.settings(min(settings.up.delay, settings.down.delay)))
        given = {"jitter": jitter, "loss": loss, "duplicate": duplicate, "reorder": reorder, "rate": rate, "mtu": mtu}
        given["limit"] = limit
        settings = settings.changed(**{name: value for name, value in given.items() if value is not None})
        need_root()
        self._processes: list[subprocess.Popen[bytes]] = []
        owner = None if detached else state.Process.of(os.getpid())
        with state.locked(name):
            _make_room(name)
            self._state = state.State(name, "", settings, seed, owner, path=path)
            self._state.write()
            try:
                self._make(kind)
            except BaseException:
                state.dismantle(name)
                self._reap()
                raise
        self._owner = True

    @classmethod
    def attach(cls, name: str) -> Lab:
        """The lab of that name that is up. It outlives the object, unless that is told to ``close`` it.

        Raises ``UserError`` if there is none.
        """
        state.check_name(name)
        found = state.read(name)
        if found is None or not found.alive:
            left = " but for what is left of one" if state.there_is(name) else ""
            raise UserError(
                Reason.BAD_CONFIG, f"no lab called {name} is up{left}", f"make it with: accord lab up --name {name}"
            )
        lab = cls.__new__(cls)
        lab._processes = []
        lab._state = found
        lab._spaces = topology.namespaces(name, found.route)
        lab._owner = False
        return lab

    # ---- What it is ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """As in ``accord lab list``."""
        return self._state.name

    @property
    def up(self) -> bool:
        """It is still there: nobody has taken it down, and its link runs."""
        found = state.read(self.name)
        return found is not None and found.instance == self._state.instance and found.alive

    @property
    def kind(self) -> str:
        """``netem`` or ``forwarder``."""
        return self._state.kind

    @property
    def path(self) -> str:
        """The kind of path (``accord.lab.paths.PATHS``); empty: a bare link."""
        return self._state.path

    @property
    def settings(self) -> LinkSettings:
        """Of the link, as of now."""
        return self._state.settings

    @property
    def seed(self) -> int:
        """Of the link's chance."""
        return self._state.seed

    @property
    def client(self) -> Namespace:
        """The host at the upper end, 10.83.0.1 and fd83::1."""
        return self._spaces["client"]

    @property
    def server(self) -> Namespace:
        """The host at the lower end, 10.83.0.2 and fd83::2; behind a router 10.83.1.2 and fd83:0:0:1::2."""
        return self._spaces["server"]

    @property
    def router(self) -> Namespace:
        """Of a lab with a path. Raises ``UserError`` where there is none."""
        return self.role("router")

    @property
    def client2(self) -> Namespace:
        """The second host behind the router, 10.83.2.1 and fd83:0:0:2::1, of the path ``nat-two``."""
        return self.role("client2")

    @property
    def link(self) -> Namespace:
        """The middle, which has no addresses."""
        return self._spaces["link"]

    def role(self, role: str) -> Namespace:
        """``client``, ``link`` or ``server``, with a path ``router``. Raises ``UserError`` for anything else."""
        if role not in self._spaces:
            raise UserError(Reason.BAD_CONFIG, f"a lab has no {role!r}", f"allowed: {', '.join(self._spaces)}")
        return self._spaces[role]

    def counters(self) -> Counters:
        """What the link did to the packets so far."""
        if self.kind == "netem":
            return netem.counters(self.link)
        return forwarder.counters(state.control_path(self.name))

    # ---- What it does -------------------------------------------------------------------------------

    def change(self, **settings: Any) -> None:
        """Change the link while it runs: ``rtt``, ``up``, ``down``, ``jitter``, ``loss``, ``duplicate``,
        ``reorder``, ``rate``, ``mtu``, ``limit``, as when making it; what is not given stays. Packets on their way keep
        their time. Raises ``UserError(BAD_CONFIG)``, and then nothing has changed."""
        changed = self.settings.changed(**settings)
        if self.kind == "netem":
            if changed.up.mtu is not None or changed.down.mtu is not None:
                raise UserError(Reason.BAD_CONFIG, "netem has no MTU", "make the lab with kind forwarder")
            netem.change(self.link, changed)
        else:
            forwarder.change(state.control_path(self.name), changed)
        self._state = dataclasses.replace(self._state, settings=changed)
        self._state.write()

    def measure_rtt(self, count: int = 20, family: int = 4) -> Rtt:
        """The link's own round trip: a small UDP echo between two processes, ``count`` times in a row.

        ``family``: 4 or 6. Raises ``PathError`` if nothing comes back.
        """
        address = self.server.address6 if family == 6 else self.server.address4
        # The longest that a packet and its answer can take, and room for a busy machine.
        wait = self.settings.rtt + self.settings.up.jitter + self.settings.down.jitter + 0.25
        script = [sys.executable, "-I", "-S", str(Path(__file__).with_name("echo.py"))]
        with self.server.popen(
            [*script, "serve", address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        ) as server:
            assert server.stdout is not None
            assert server.stdin is not None
            port = server.stdout.readline().decode().strip()
            if not port:
                raise HostError(Reason.NO_INTERFACE, f"nothing can listen on {address} in the lab")
            asked = self.client.run(
                [*script, "ask", address, port, str(count), str(wait)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
            )
            server.stdin.close()
        samples = tuple(json.loads(asked.stdout or "[]"))
        if not samples:
            raise PathError(Reason.TIMEOUT, f"no echo came back from {address} through the lab's link")
        return Rtt(min(samples), statistics.median(samples), max(samples), samples)

    def capture(
        self, path: str | os.PathLike[str], where: str = "client", expression: str = ""
    ) -> contextlib.AbstractContextManager[Path]:
        """Capture packets to a file while the context is open; see ``accord.lab.capture``."""
        return capture.capture(self.role(where), path, expression)

    def close(self) -> None:
        """Take the lab down, with all that runs in it. May be called more than once."""
        with state.locked(self.name):
            state.dismantle(self.name, self._state.instance)
        self._reap()

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owner:
            self.close()

    # ---- How it is made -----------------------------------------------------------------------------

    def _make(self, kind: str) -> None:
        with _pidfd_of_this_process() as pidfd:
            owner = None if self._state.owner is None else pidfd
            if owner is not None:
                self._processes.append(_start_keeper(self._state, owner))
            self._spaces = topology.build(self.name, self._state.route)
            has_mtu = self.settings.up.mtu is not None or self.settings.down.mtu is not None
            if kind == "netem" and has_mtu:
                raise UserError(Reason.BAD_CONFIG, "netem has no MTU", "use our own link: kind forwarder, or auto")
            if kind == "netem" or (kind == "auto" and self.seed == 0 and not has_mtu):
                if netem.start(self.link, self.settings):
                    self._state = dataclasses.replace(self._state, kind="netem")
                    self._state.write()
                    return
                if kind == "netem":
                    raise HostError(
                        Reason.NO_KERNEL_SUPPORT,
                        "this kernel has no netem",
                        "use our own link: kind forwarder, or auto",
                    )
            process = forwarder.start(self.link, state.control_path(self.name), self.settings, self.seed, owner)
        self._processes.append(process)
        self._state = dataclasses.replace(self._state, kind="forwarder", link=state.Process.of(process.pid))
        self._state.write()

    def _reap(self) -> None:
        """Wait for our own: the keeper, which has nothing left to keep, and the link."""
        for process in self._processes:
            process.terminate()
            process.wait()
        self._processes.clear()


@contextlib.contextmanager
def _pidfd_of_this_process() -> Iterator[int]:
    pidfd = os.pidfd_open(os.getpid())
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def _start_keeper(made: state.State, pidfd: int) -> subprocess.Popen[bytes]:
    package = str(Path(accord.__file__).parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "accord.lab.keeper", made.name, made.instance, str(pidfd)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(pidfd,),
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd="/",
    )


def need_root() -> None:
    """Raises ``HostError`` (NO_PRIVILEGE)."""
    if os.geteuid() != 0:
        raise HostError(Reason.NO_PRIVILEGE, "a lab is made of network namespaces", "run it as root, with sudo")


def _make_room(name: str) -> None:
    """Remove what a dead lab of this name left; refuse to touch one that lives."""
    found = state.read(name)
    if found is not None and found.alive:
        who = "it stays until taken down" if found.owner is None else f"process {found.owner.pid} uses it"
        raise UserError(
            Reason.BAD_CONFIG,
            f"a lab called {name} is up already: {who}",
            f"choose another name, or: accord lab down --name {name}",
        )
    if state.there_is(name):
        state.dismantle(name)
