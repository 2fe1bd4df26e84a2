# SPDX-License-Identifier: Apache-2.0
"""A whole negotiation without a host: both engines, both machines and the protocols' own sessions, in one thread.

What is left out is what a kernel and a daemon do around it: sockets, the installation of TCP (a stand-in has its
numbers), the race with the plain connection, the programs at both ends.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from accord.controller.proposal import propose
from accord.controller.settings.policy import EffectivePolicy, Secure
from accord.datapath.engine import Engine, Event, EventKind
from accord.datapath.path import Path as Way
from accord.negotiation import events
from accord.negotiation.choosing import Accepted
from accord.negotiation.initiator import Initiator
from accord.negotiation.interface import Role
from accord.negotiation.machine import Machine
from accord.negotiation.responder import Responder
from accord.protocols.authority import issue, make_ca
from accord.protocols.http import HttpPlugin
from accord.protocols.services import Carrier, Plugin, Security, Services
from accord.protocols.tcp import TcpPlugin
from accord.protocols.tls import TlsPlugin
from accord.protocols.tls_connection import TlsConnection
from accord.wire.constants import Protocol
from accord.wire.tcp_header import TcpParameters

NAME = "server.accord.test"
NEAR, FAR = ("192.0.2.1", 40000), ("192.0.2.2", 443)
TLS: tuple[int, ...] = (Protocol.TCP, Protocol.TLS13)
TCP: tuple[int, ...] = (Protocol.TCP,)
"""Stacks, bottom to top, without the application's node."""
_GREASE_BYTES = 16
_OUT, _BACK = Way.udp(NEAR, FAR), Way.udp(FAR, NEAR)
_COOKIE = bytes(16)
_PLUGINS: dict[str, Plugin] = {plugin.name: plugin for plugin in (TcpPlugin(), TlsPlugin(), HttpPlugin())}
_BY_PROTOCOL = {plugin.protocol: plugin for plugin in _PLUGINS.values()}
_MICROSECONDS = 1000
"""Between two packets, of the engines' clock."""


class StandIn:
    """One end of a TCP connection that is in no kernel (``TcpEndpoint``)."""

    def __init__(self, port: int) -> None:
        isn, timestamp = (int.from_bytes(os.urandom(4), "big") for _ in range(2))
        self.parameters = TcpParameters(port, isn, 1460, 64240, 7, sack=True, timestamp=timestamp)

    def install(self, peer: TcpParameters) -> None:
        """Nothing to do."""

    def installed(self) -> None:
        """It always is."""

    def release(self) -> None:
        """Nothing to give back."""

    def stream(self) -> Carrier:
        """Never asked for: no data is sent."""
        raise NotImplementedError


class StandIns:
    """``TcpService`` of them."""

    def reserve(self, port: int | None = None) -> StandIn:
        """A new one."""
        return StandIn(NEAR[1] if port is None else port)


@dataclass
class Side:
    """One host: its engine, which is as new as ever between two negotiations, and what it has sent."""

    role: Role
    engine: Engine = field(default_factory=lambda: Engine(transactions=64, unproven=64, buffers=512, seed=7))
    machine: Machine | None = None
    handle: int = 0
    committed: events.Committed | None = None
    packets: int = 0
    events: int = 0

    def __post_init__(self) -> None:
        self.engine.support([Protocol.UDP, Protocol.SUBGRAPH, *_BY_PROTOCOL])


class Hosts:
    """Both, with certificates in ``directory``. Not a host's: the clock, which runs with the packets."""

    def __init__(self, directory: Path) -> None:
        ca, own = make_ca(directory), issue(directory, [NAME])
        self.trusting = Security(server_name=NAME, ca_file=ca.certificate)
        self.being = Security(certificate=own.certificate, private_key=own.private_key, alpn=("http/1.1",))
        self.near, self.far = Side(Role.INITIATOR), Side(Role.RESPONDER)
        self.now = 1_000_000
        self._tcp = StandIns()
        self._policies = {
            stack: EffectivePolicy(Secure.REQUIRED if Protocol.TLS13 in stack else Secure.NO, (stack,), only=True)
            for stack in (TLS, TCP)
        }

    def _services(self, role: Role) -> Services:
        near = role is Role.INITIATOR
        return Services(
            role=role,
            local=NEAR if near else FAR,
            remote=FAR if near else NEAR,
            now=lambda: self.now / 1e6,
            random=os.urandom,
            call_later=lambda delay, function: lambda: None,
            security=self.trusting if near else self.being,
            tcp=self._tcp,
        )

    def negotiate(self, stack: tuple[int, ...]) -> None:
        """One negotiation, from nothing to both sides' commit. Raises ``RuntimeError`` when there is none."""
        near, far, policy = self.near, self.far, self._policies[stack]
        transaction = os.urandom(12)
        near.committed = far.committed = None
        services = self._services(Role.INITIATOR)
        proposed = propose(_PLUGINS, policy, services)
        machine = near.machine = Initiator(transaction, proposed, policy, grease=os.urandom(_GREASE_BYTES))
        near.handle = near.engine.open(self.now, transaction, _OUT)
        self._do(near, machine.start())
        while self._carry(near, far, _BACK) or self._carry(far, near, _OUT):
            pass
        if near.committed is None or far.committed is None:
            raise RuntimeError("no stack came up")
        for side in (near, far):
            side.engine.close(self.now, side.handle)

    def _carry(self, sender: Side, receiver: Side, way: Way) -> bool:
        """What one side has to send, and what the other makes of it. Whether there was anything."""
        self.now += _MICROSECONDS
        datagrams = sender.engine.output(self.now)
        for _, datagram in datagrams:
            receiver.engine.input(self.now, way, datagram)
        sender.packets += len(datagrams)
        for side in (receiver, sender):
            for event in side.engine.events():
                side.events += 1
                if event.kind is EventKind.OPENED:
                    side.handle, side.machine = event.handle, self._responder(event.transaction)
                elif event.handle == side.handle and side.machine is not None:
                    self._do(side, side.machine.receive(self._told(side, event)))
        return bool(datagrams)

    def _responder(self, transaction: bytes) -> Responder:
        services, policy = self._services(Role.RESPONDER), EffectivePolicy(Secure.NO)
        accepted = Accepted(policy, lambda node, protocol: _BY_PROTOCOL[protocol].open(Role.RESPONDER, services))
        return Responder(transaction, lambda service: accepted, _COOKIE)

    @staticmethod
    def _told(side: Side, event: Event) -> events.Event:
        """An engine's event in the machine's terms."""
        if event.kind is EventKind.NODE:
            return events.NodeArrived(event.step, event.node, event.protocol, event.data)
        if event.kind is EventKind.SKIPPED:
            return events.NodeSkipped(event.step, event.node, event.protocol)
        if event.kind is EventKind.MESSAGE:
            return events.MessageComplete(event.step, side.engine.budget(side.handle))
        if event.kind is EventKind.ARRIVED:
            return events.MessageArrived(event.step)
        raise RuntimeError(f"the transport failed: {event.reason.name}")

    def _do(self, side: Side, actions: Sequence[events.Action]) -> None:
        for action in actions:
            if isinstance(action, events.Send):
                side.engine.send(self.now, side.handle, action.step, action.nodes, action.packets_min)
            elif isinstance(action, events.Prove):
                side.engine.prove(side.handle)
            elif isinstance(action, events.Committed):
                side.committed = action
            elif isinstance(action, events.Aborted):
                raise RuntimeError(f"no stack: {action.error()}")

    def handshake(self) -> None:
        """The TLS handshake alone: the same contexts and options, from one memory buffer to the other."""
        client = TlsConnection(Role.INITIATOR, self.trusting, ("http/1.1",))
        server = TlsConnection(Role.RESPONDER, self.being, ("http/1.1",))
        client.handshake()
        server.feed(client.output())
        server.handshake()
        client.feed(server.output())
        if not client.handshake():
            raise RuntimeError("no handshake")
        server.feed(client.output())
        if not server.handshake():
            raise RuntimeError("no handshake")
