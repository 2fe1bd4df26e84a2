# SPDX-License-Identifier: Apache-2.0
"""A proposal that is ready to leave: its socket is bound, its sessions have spoken.

Making one costs key shares, a ClientHello, a QUIC Initial and a TCP port, two milliseconds and more, and depends
on nothing that a peer says. So after a negotiation the next proposal for the same peer is made in idle time, and
whoever asks again within seconds gets it at once. Nothing of it is on the wire before that; each is used once.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from accord.controller.adoption.parallel import ParallelSyn
from accord.controller.host import DatagramChannel, HostApplication
from accord.controller.placeholders import hold_back
from accord.controller.proposal import propose
from accord.controller.recursion import Remarks, proposing
from accord.controller.renegotiation.identity import Identity
from accord.controller.settings.policy import Context, EffectivePolicy
from accord.controller.stack import services_for
from accord.controller.udp_sockets import UdpSocket
from accord.datapath import clock
from accord.datapath.path import Path
from accord.datapath.port import Rung
from accord.negotiation import events
from accord.negotiation.initiator import Initiator, Proposed
from accord.negotiation.interface import Role
from accord.protocols.sealed.configuration import KeyConfiguration
from accord.protocols.services import Security, TcpService
from accord.protocols.tls import TlsSession
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import error

if TYPE_CHECKING:
    from accord.controller.controller import Controller

STOCK_SECONDS = 10.0
STOCK_LIMIT = 16
ORDER_SECONDS = 0.015
"""After the negotiation that asked: its commit and first request have left by then, and on a path that is long
enough for this to matter the response is not here yet."""

_TRANSACTION_BYTES = 12
_GREASE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a proposal is for and what is in it: two of one target differ only in what is random."""

    source: str
    address: str
    port: int
    policy: EffectivePolicy
    security: Security
    mtu: int = 0
    """Of the route, bytes with the IP header."""
    adopts: bool = False
    """TCP is to be the connection of a SYN that leaves beside it (parallel-syn)."""
    renews: Identity | None = None
    """The association that is to get another stack; None: it is for a new one."""
    key: KeyConfiguration | None = None
    """What an inner negotiation is sealed to; None: the peer is asked, if there is one."""
    early: bool = False
    """A request is in it: one that is made ahead waits for that alone."""
    bare: bool = False
    """An unmodified program's: no application node, about whose protocol nobody here knows anything."""
    held: TcpService | None = None
    """Has the numbers of a SYN that an unmodified program has sent; None: there are to be fresh ones."""
    via: tuple[str, str] | None = None
    """Out-of-band: the own and the peer's address that the negotiation goes by; None: by those of the connection."""

    def __hash__(self) -> int:
        """Of what mostly tells two targets apart, as a policy's."""
        return hash((self.source, self.address, self.port, self.policy))

    @property
    def negotiated_by(self) -> tuple[str, str]:
        """The own and the peer's address of the negotiation's packets."""
        return self.via or (self.source, self.address)


class HeldClock:
    """Stands still until ``go``: a session that waits on the shelf must not take its age for a round trip."""

    def __init__(self) -> None:
        self._behind = 0.0
        self._held_at: float | None = clock.now()

    def now(self) -> float:
        """Seconds."""
        return clock.now() - self._behind if self._held_at is None else self._held_at

    def go(self) -> None:
        """Run on from where it was held."""
        if self._held_at is not None:
            self._behind, self._held_at = clock.now() - self._held_at, None


@dataclass(slots=True)
class Prepared:
    """See the module's docstring. Whoever takes it owns its socket and its sessions."""

    path: Path
    bound: UdpSocket | None
    """None over IP protocol 253, which has no ports and so no in-band datagrams."""
    channel: DatagramChannel | None
    clock: HeldClock
    transaction: bytes
    syn: ParallelSyn | None
    """Parallel-syn: the connection that the proposal speaks of, for whoever opens it."""
    remarks: Remarks
    tls: TlsSession | None
    """Parallel-syn: the session that would be on that connection."""
    request: HostApplication
    """Has the request that travels in the proposal, if one does."""
    machine: Initiator
    actions: Sequence[events.Action]
    """The machine's first ones: the proposal to be sent, or why there is none."""

    def give(self, early: bytes) -> None:
        """The request that it was made ahead for is here."""
        node = self.machine.waiting
        if self.request.early_request is None and node is not None:
            self.request.early_request = early
            self.actions = self.machine.receive(events.Resume(node))


def new_transaction() -> bytes:
    """An ID that nobody has had (docs/PROTOCOL.md, MUST-6)."""
    return secrets.token_bytes(_TRANSACTION_BYTES)


def prepare(controller: Controller, target: Target, early: bytes = b"", transaction: bytes | None = None) -> Prepared:
    """Everything up to the first packet; where ``early`` is empty, and the target says that a request will travel in
    it, up to that. ``transaction``: its ID, if it is on a SYN already.

    Raises ``AccordError``, and leaves nothing behind then.
    """
    endpoint = controller.endpoint
    direct = target.policy.context is Context.DIRECT
    if direct and endpoint.port.report.rung is Rung.UDP:
        raise error(
            Reason.NO_KERNEL_SUPPORT,
            "the context direct: UDP sockets carry no IP protocol 253",
            'give the daemon an interface and a back end with frames, or leave context = "udp"',
        )
    if target.via and controller.syn_options is None:
        raise error(
            Reason.NO_KERNEL_SUPPORT,
            "out-of-band: without the option on the SYN nothing shows where the connection leads",
            "see accord doctor for why it is not written, or leave out via",
        )
    bound = None if direct else endpoint.sockets.bind(target.negotiated_by[0], 0)
    try:
        path = _direct_path(target) if bound is None else _udp_path(target, bound)
        held = HeldClock()
        # What shares the negotiation's ports would go by its path too.
        channel = None if bound is None or target.via else endpoint.sockets.channel(bound, path)
        transaction = transaction or new_transaction()
        syn = ParallelSyn(transaction) if target.adopts or target.via else None
        remarks = Remarks()
        request = HostApplication(_nobody_waits, early_request=early if early or not target.early else None)
        nothing = HostApplication(_nobody_waits)
        services = services_for(
            controller,
            Role.INITIATOR,
            (target.source, path.local_port),
            (target.address, target.port),
            replace(target.security, sni=False) if target.policy.hides else target.security,
            channel,
            request if target.policy.early_in_clear else nothing,
            held.now,
            syn=syn,
            wishes=target.policy.inside,
            names=target.policy.names,
        )
        if target.policy.hides:
            sealed = request if target.policy.early_sealed else nothing
            inner = proposing(controller, transaction, target.policy, services, target.key, sealed, remarks)
            services = replace(services, inner=inner)
        if target.held is not None:
            services = replace(services, tcp=target.held)
        guard = controller.guard
        nodes = propose(
            guard.usable(controller.plugins),
            target.policy,
            services,
            context=path.context,
            open_session=guard.open,
            bare=target.bare,
        )
        proposed = hold_back(nodes, target.policy)
        by_protocol = {plugin.protocol: plugin for plugin in controller.plugins.values()}
        machine = Initiator(
            transaction,
            proposed,
            target.policy,
            context_protocol=path.context,
            service_port=target.port if direct else None,
            grease=secrets.token_bytes(_GREASE_BYTES),
            open=lambda node, protocol: guard.open(by_protocol[protocol], Role.INITIATOR, services),
            packets_min=target.policy.packets_min,
            data_path=target.source.partition("%")[0] if target.via else None,
            renegotiates=None if target.renews is None else target.renews.claim(Role.INITIATOR, transaction),
        )
        machine.guard = guard
        tls = None if syn is None or target.policy.hides else _on_tcp(proposed)
        return Prepared(path, bound, channel, held, transaction, syn, remarks, tls, request, machine, machine.start())
    except BaseException:
        if bound is not None:
            endpoint.sockets.unbind(bound)
        raise


def _on_tcp(proposed: Sequence[Proposed]) -> TlsSession | None:
    """The session of TLS right above TCP."""
    above = {child for node in proposed if node.protocol == Protocol.TCP for child in node.children}
    shown = [node for node in proposed if node.id in above and node.within is None]
    sessions = [node.session for node in shown if node.protocol == Protocol.TLS13]
    return cast("TlsSession | None", next(iter(sessions), None))


def _udp_path(target: Target, bound: UdpSocket) -> Path:
    name, remote = bound.sock.getsockname(), target.negotiated_by[1]
    return Path(
        family=6 if ":" in remote else 4,
        context=int(Protocol.UDP),
        local=name[0].partition("%")[0],
        local_port=bound.port,
        remote=remote.partition("%")[0],
        remote_port=target.port,
        socket=bound.index,
        scope=name[3] if ":" in remote else 0,
        mtu=target.mtu,
    )


def _direct_path(target: Target) -> Path:
    remote, _, zone = target.address.partition("%")
    return Path(
        family=6 if ":" in remote else 4,
        context=int(Protocol.DIRECT),
        local=target.source.partition("%")[0],
        local_port=0,
        remote=remote,
        remote_port=0,
        scope=socket.if_nametoindex(zone) if zone and not zone.isdecimal() else int(zone or 0),
        mtu=target.mtu,
    )


def discard(controller: Controller) -> Callable[[Prepared], None]:
    """What the stock does with a proposal that nobody wanted: its sessions let go, its socket is closed."""

    def let_go(prepared: Prepared) -> None:
        prepared.machine.receive(events.Stop(Reason.CLOSED))
        prepared.machine.forget()
        if prepared.bound is not None:
            controller.endpoint.sockets.unbind(prepared.bound)

    return let_go


def _nobody_waits() -> None:
    """An initiator's sessions fetch nothing."""
