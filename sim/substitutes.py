# SPDX-License-Identifier: Apache-2.0
"""What the control plane finds in the place of a host: the one list of everything that is simulated.

Names of modules are replaced for as long as a simulation runs in this process. Each replacement asks which host it is
called for: the life of a host in whose context the code runs (``loop.INCARNATION``).
"""

from __future__ import annotations

import contextlib
import functools
import os as real_os
import socket as real
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aioquic.tls
from aioquic.quic import connection

from accord.controller import (
    controller,
    endpoint,
    exposed,
    initiating,
    negotiating,
    prepared,
    recursion,
    rendezvous,
    responding,
    stack,
    udp_sockets,
)
from accord.controller.peers import lessons
from accord.controller.race import legacy, racing
from accord.controller.renegotiation import notices
from accord.controller.strangers import strangers
from accord.datapath import clock
from accord.datapath.port import Rung
from accord.negotiation import initiator, meeting, responder
from accord.protocols.services import TcpService
from sim.kernel import SimRepair, SimSocket, SimSynOptions, saved_syn
from sim.loop import CALLED, INCARNATION
from sim.port import SimPort

if TYPE_CHECKING:
    from sim.host import Life


def life() -> Life:
    """Of the host that this code runs for."""
    found: Life | None = INCARNATION.get()
    if found is None:
        raise RuntimeError("code of a host runs outside of any")
    return found


class _Sockets:
    """The module ``socket``, with a host's own sockets."""

    @staticmethod
    def socket(family: int = real.AF_INET, kind: int = real.SOCK_STREAM, proto: int = 0) -> SimSocket:
        """As ``socket.socket``."""
        return SimSocket(life().kernel, family, kind)

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)


class _Secrets:
    @staticmethod
    def token_bytes(count: int) -> bytes:
        """As ``secrets.token_bytes``."""
        return life().entropy.token_bytes(count)


class _Os:
    """The module ``os``, with a host's own randomness."""

    def __getattr__(self, name: str) -> Any:
        return _Secrets.token_bytes if name == "urandom" else getattr(real_os, name)


class _Tls:
    """The module ``protocols.tls``: itself, or the stand-in."""

    def __getattr__(self, name: str) -> Any:
        return getattr(life().tls, name)


class _Ports:
    @staticmethod
    def open(*_: Any, **__: Any) -> SimPort:
        """As ``Port.open``."""
        return life().make_port()


class _Initiator(initiator.Initiator):
    """Tells what it does."""

    def start(self) -> Any:
        actions = super().start()
        life().observe(self, actions)
        return actions

    def receive(self, event: Any) -> Any:
        actions = super().receive(event)
        life().observe(self, actions)
        return actions


class _Responder(responder.Responder):
    """Tells what it does."""

    def receive(self, event: Any) -> Any:
        actions = super().receive(event)
        life().observe(self, actions)
        return actions


class _MeetingInitiator(_Initiator):
    """One of a meeting."""

    meets = True


class _Contest(racing.Contest):
    """Tells who won."""

    async def run(self) -> racing.Won:
        won = await super().run()
        if won.negotiation is not None:
            CALLED.get().transaction = won.negotiation.transaction
        return won


def _now_us() -> int:
    return life().now_us()


def _now() -> float:
    return life().now_us() / 1_000_000


def _bind(sock: SimSocket, host: str, port: int, scope: int = 0) -> None:
    sock.bind((host, port))


def _repair(local: str, remote: str) -> TcpService:
    return SimRepair(life().kernel, local, remote)


def _info(connection: SimSocket) -> Any:
    there = connection.connection
    if there is None:
        return SimpleNamespace(acknowledged=0, received=0, retransmitted=0)
    return SimpleNamespace(acknowledged=there.acknowledged, received=there.received, retransmitted=there.repeated)


def _plan(*_: Any) -> Any:
    return SimpleNamespace(rungs=(Rung.PACKET,), skipped=frozenset(), why="simulated", driver="simulated")


def _plugins() -> Any:
    return life().plugins, {}


def _syn_options(port: Any) -> Any:
    return SimSynOptions() if life().spec.options else _no_options()


def _no_options() -> Any:
    from accord.wire.constants import Reason
    from accord.wire.errors import error

    raise error(Reason.NO_KERNEL_SUPPORT, "simulated: no sockops program", "none")


# One congestion control, that of ``sim.tcp``, and no options to tell of.
_TUNING = SimpleNamespace(algorithms=lambda: ("none",), use=lambda connection, name: None, describe=lambda _: {})
_PRIVILEGE = SimpleNamespace(bind=_bind, asks=lambda: False)
_LIST: tuple[tuple[Any, str, Any], ...] = (
    (aioquic.tls, "os", _Os()),
    (connection, "os", _Os()),
    (clock, "now_us", _now_us),
    (clock, "now", _now),
    (controller, "TcpRepair", _repair),
    (controller, "Strangers", functools.partial(strangers.Strangers, spent=lambda: 0.0)),
    (controller, "SynOptions", _syn_options),
    (controller, "load_plugins", _plugins),
    (controller, "privilege", _PRIVILEGE),
    (endpoint, "Port", _Ports),
    (endpoint, "plan", _plan),
    (udp_sockets, "privilege", _PRIVILEGE),
    (udp_sockets, "socket", _Sockets()),
    (endpoint, "secrets", _Secrets()),
    (endpoint, "_HEARTBEAT_SECONDS", 30.0),
    (exposed, "privilege", _PRIVILEGE),
    (exposed, "saved_syn", saved_syn),
    (exposed, "socket", _Sockets()),
    (exposed, "tls", _Tls()),
    (initiating, "Contest", _Contest),
    (legacy, "socket", _Sockets()),
    (legacy, "tls", _Tls()),
    (lessons, "tcp_sockopt", SimpleNamespace(info=_info)),
    (negotiating, "socket", _Sockets()),
    (meeting, "Initiator", _MeetingInitiator),
    (meeting, "Responder", _Responder),
    (prepared, "secrets", _Secrets()),
    (prepared, "Initiator", _Initiator),
    (rendezvous, "secrets", _Secrets()),
    (notices, "secrets", _Secrets()),
    (recursion, "time", SimpleNamespace(time=_now)),
    (responding, "secrets", _Secrets()),
    (responding, "Responder", _Responder),
    (strangers, "os", _Os()),
    (stack, "TcpRepair", _repair),
    (stack, "tcp_tuning", _TUNING),
    (stack, "os", SimpleNamespace(urandom=_Secrets.token_bytes)),
)


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Hosts are simulated."""
    before = [(module, name, getattr(module, name)) for module, name, _ in _LIST]
    for module, name, value in _LIST:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
