# SPDX-License-Identifier: Apache-2.0
"""What both roles need around a stack: the services of its sessions, and its byte stream once it is committed."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

from accord.controller.adoption.awaited import AwaitedCarrier
from accord.controller.plans.ports import PlannedMptcp, PlannedSctp
from accord.controller.plans.tunnels import PlannedTunnels
from accord.datapath import clock, kernel_tls, tcp_tuning
from accord.datapath.births import Births
from accord.datapath.stream import SocketCarrier
from accord.datapath.tcp_born import BornTcp
from accord.datapath.tcp_repair import TcpRepair
from accord.negotiation.events import Committed
from accord.negotiation.interface import Role, Session
from accord.protocols.services import (
    Adoptions,
    ApplicationService,
    Carrier,
    CarrierSession,
    DatagramService,
    RecordKeys,
    Security,
    Services,
    SynConnection,
    TcpService,
)
from accord.protocols.wishes import NONE, Wishes
from accord.wire.constants import Protocol, Reason, protocol_name
from accord.wire.errors import AccordError, error

if TYPE_CHECKING:
    from accord.controller.controller import Controller

log = logging.getLogger("accord.stack")


def services_for(
    controller: Controller,
    role: Role,
    local: tuple[str, int],
    remote: tuple[str, int],
    security: Security,
    datagrams: DatagramService | None,
    application: ApplicationService,
    now: Callable[[], float] | None = None,
    *,
    syn: SynConnection | None = None,
    adoptions: Adoptions | None = None,
    wishes: Wishes = NONE,
    births: Births | None = None,
    names: Callable[[int], bool] = lambda protocol: False,
) -> Services:
    """The host as the sessions of one negotiation may see it. Addresses are textual, with a zone where needed.

    ``births``: TCP connections are given to the port's own program, and are not to be tuned. ``names``: of the policy
    for the peer, for protocols that are had only by name.
    """
    # What takes privileges is the operator's to allow; a program may wish for what is in the policy file.
    tunnels = names(Protocol.WIREGUARD) and controller.config.policy.names(Protocol.WIREGUARD)
    return Services(
        role=role,
        local=local,
        remote=remote,
        now=now or clock.now,
        random=os.urandom,
        call_later=call_later,
        security=security,
        tcp=_tcp(births, local[0], remote[0]) if controller.tcp_refusal is None else None,
        tuning=_TUNING if births is None else None,
        syn=syn,
        adoptions=adoptions,
        datagrams=datagrams,
        application=application,
        sctp=PlannedSctp(role, local[0], remote[0]) if names(Protocol.SCTP) else None,
        mptcp=PlannedMptcp(role, local[0], remote[0]) if names(Protocol.MPTCP) else None,
        tunnels=PlannedTunnels(role, remote[0]) if tunnels else None,
        kernel_tls=_KERNEL_TLS if wishes.kernel_tls else None,
        wishes=wishes,
    )


def _tcp(births: Births | None, local: str, remote: str) -> TcpService:
    return TcpRepair(local, remote) if births is None else BornTcp(births, local, remote)


class KernelTuning:
    """``TcpTuning`` by the kernel of this host."""

    def algorithms(self) -> tuple[str, ...]:
        """Congestion controls that any program may use."""
        return tcp_tuning.algorithms()

    def use(self, stream: Carrier, algorithm: str) -> None:
        """Of the stream's connection, at once or when that has come. Raises ``HostError``."""
        if (connection := stream.kernel_socket) is not None:
            tcp_tuning.use(connection, algorithm)
        elif isinstance(stream, AwaitedCarrier):
            stream.when_there(lambda there: self._use_late(there, algorithm))

    def describe(self, stream: Carrier) -> Mapping[str, object]:
        """As ``tcp_tuning.describe``."""
        connection = stream.kernel_socket
        return {} if connection is None else tcp_tuning.describe(connection)

    def _use_late(self, stream: Carrier, algorithm: str) -> None:
        try:
            self.use(stream, algorithm)
        except AccordError as refusal:
            log.warning("congestion control: %s", refusal)


class KernelRecords:
    """``KernelTls`` by the kernel of this host."""

    def refusal(self, cipher: str) -> str | None:
        """As ``kernel_tls.refusal``."""
        return kernel_tls.refusal(cipher)

    def install(self, stream: Carrier, send: RecordKeys, receive: RecordKeys) -> Carrier:
        """Of the stream's connection, which is the new carrier's from now on. Raises ``HostError``."""
        if not isinstance(stream, SocketCarrier):
            raise error(Reason.CANNOT_INSTALL, "TLS in the kernel: the stream is not a connection's own")
        infos = [kernel_tls.crypto_info(each.cipher, each.key, each.iv, each.sequence) for each in (send, receive)]
        connection = stream.detach()
        try:
            kernel_tls.install(connection, *infos)
        except BaseException:
            connection.close()
            raise
        return kernel_tls.KernelTlsCarrier(connection)


def inside_of(committed: Committed) -> dict[str, dict[str, object]]:
    """What was agreed inside each node of a stack, by the protocol's name; only those that say anything."""
    said = ((session.protocol, getattr(session, "inside", None)) for session in _whole(committed))
    return {protocol_name(protocol): dict(what) for protocol, what in said if what}


def still_coming(committed: Committed) -> Callable[[], Awaitable[Carrier]] | None:
    """Of a stack that nobody is to be told of before its connection is there: what to wait for, once it has been built.

    It resolves to the connection's stream, or raises ``AccordError``. None: there is nothing to wait for.
    """
    return getattr(committed.sessions[0], "there", None)


def stack_names(committed: Committed) -> list[str]:
    """The whole stack, top first, what was agreed inside of its topmost node too."""
    return [protocol_name(session.protocol) for session in reversed(_whole(committed))]


def _whole(committed: Committed) -> tuple[Session, ...]:
    """The sessions of a stack, bottom to top, those that were agreed inside of the topmost one too."""
    return *committed.sessions, *getattr(committed.sessions[-1], "nested", ())


_TUNING: Final = KernelTuning()
_KERNEL_TLS: Final = KernelRecords()


def call_later(delay: float, function: Callable[[], None]) -> Callable[[], None]:
    """A timer of the event loop; returns what cancels it."""
    return asyncio.get_running_loop().call_later(max(0.0, delay), function).cancel


def build_carrier(sessions: Sequence[Session], lowest: Callable[[Carrier], None] | None = None) -> Carrier:
    """The stream of a committed stack: each session's on top of that below it. ``lowest`` is shown the first one's.

    Raises ``AccordError`` when a session gives none; then nothing is left of those below.
    """
    carrier: Carrier | None = None
    try:
        for session in sessions:
            carrier = cast(CarrierSession, session).carrier(carrier)
            if lowest is not None:
                lowest(carrier)
                lowest = None
    except Exception as failure:
        if carrier is not None:
            carrier.abort()
        if isinstance(failure, AccordError):
            raise
        raise error(Reason.PLUGIN_FAILED, f"carrier: {type(failure).__name__}: {failure}") from failure
    assert carrier is not None, "a stack has at least one session"
    return carrier
