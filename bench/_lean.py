# SPDX-License-Identifier: Apache-2.0
"""The initiator's messages of one kind of negotiation, as a controller would send them, for a fraction of its work.

What is alike in all proposals of a kind is made once, by the package's own proposing side. New in each are the ID,
TCP's port and numbers, and the ClientHello; its answer is checked as far as it decides anything, its MAC with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from accord.controller.proposal import propose
from accord.controller.settings.policy import EffectivePolicy, Secure
from accord.datapath import clock
from accord.datapath.tcp_repair import RepairEndpoint, TcpRepair
from accord.negotiation import events, transcript
from accord.negotiation.binding import chain, check_mac, check_macs, filled, seal
from accord.negotiation.graph import Graph
from accord.negotiation.initiator import Initiator
from accord.negotiation.interface import Role
from accord.negotiation.repetition import repetition
from accord.protocols import tls
from accord.protocols.http import HttpPlugin
from accord.protocols.services import Plugin, Security, Services
from accord.protocols.tcp import TcpPlugin
from accord.protocols.tls import TlsPlugin
from accord.protocols.tls_connection import TlsConnection
from accord.wire import tcp_header, tlv
from accord.wire.constants import NodeId, Protocol, Reason, Step, reason_of
from accord.wire.errors import error
from accord.wire.message import Encoded, Message
from accord.wire.node import Node, decode_descriptor
from accord.wire.tcp_header import TcpHeader

TLS: tuple[int, ...] = (Protocol.TCP, Protocol.TLS13)
TCP: tuple[int, ...] = (Protocol.TCP,)
"""Stacks, bottom to top, without the application's node."""
_PLUGINS: dict[str, Plugin] = {plugin.name: plugin for plugin in (TcpPlugin(), TlsPlugin(), HttpPlugin())}
_ALPN = ("http/1.1",)
_GREASE_BYTES = 16
_NEXT = 0xFFFFFFFF


@dataclass(slots=True)
class Proposal:
    """One that has been made."""

    nodes: Sequence[Node]
    tcp: RepairEndpoint
    tls: TlsConnection | None


class Kind:
    """Proposals of one stack for one port."""

    def __init__(
        self, stack: tuple[int, ...], security: Security, local: tuple[str, int], remote: tuple[str, int]
    ) -> None:
        """Between these addresses and UDP ports. Raises ``AccordError``."""
        self._local, self._remote, self._security = local, remote, security
        self._kernel = TcpRepair(local[0], remote[0])
        services = Services(
            role=Role.INITIATOR,
            local=local,
            remote=remote,
            now=clock.now,
            random=os.urandom,
            call_later=lambda delay, function: lambda: None,
            security=security,
            tcp=self._kernel,
        )
        secure = Secure.REQUIRED if Protocol.TLS13 in stack else Secure.NO
        policy = EffectivePolicy(secure, (stack,), only=True)
        machine = Initiator(bytes(12), propose(_PLUGINS, policy, services), policy, grease=os.urandom(_GREASE_BYTES))
        (said,) = (action for action in machine.start() if isinstance(action, events.Send))
        machine.receive(events.Stop(Reason.CLOSED))
        nodes = [decode_descriptor(*encoded) for encoded in said.nodes]
        by_protocol = {node.protocol: node.id for node in nodes}
        self._tcp, self._tls = by_protocol[Protocol.TCP], by_protocol.get(Protocol.TLS13)
        self._stack = tuple(by_protocol[protocol] for protocol in (*stack, Protocol.HTTP))
        self._nodes, self._graph = nodes, Graph(nodes)
        self._grease = self._graph.nodes.keys() - {NodeId.CONTEXT, *self._stack}

    def propose(self) -> Proposal:
        """A new one, with a port of its own. Raises ``AccordError``."""
        tcp = self._kernel.reserve()
        syn = TcpHeader(self._remote[1], None, 0, tcp.parameters)
        payloads = {self._tcp: tcp_header.encode(syn, self._local[0], self._remote[0])}
        connection = None
        if self._tls is not None:
            connection = tls.begin(self._security, _ALPN)
            payloads[self._tls] = connection.output()
        return Proposal(filled(self._nodes, payloads), tcp, connection)

    def commit(self, proposal: Proposal, answer: Sequence[Node]) -> tuple[Encoded, ...]:
        """The message that commits to the answer, with this side's TCP installed. Raises ``AccordError``."""
        said = {node.id: node for node in answer}
        context = said[NodeId.CONTEXT]
        if context.reason is not None:
            raise error(reason_of(context.reason) or Reason.NO_COMMON_STACK, "in the answer")
        if said.keys() != {NodeId.CONTEXT, *self._stack} or context.pruned != dict.fromkeys(
            self._grease, Reason.UNSUPPORTED
        ):
            raise error(Reason.NOT_PROPOSED, f"the answer is nodes {sorted(said)} and has pruned {context.pruned}")
        proposed = [(node.id, node.protocol, None if node.id in self._grease else node) for node in proposal.nodes]
        hashed = transcript.extend(transcript.BEGIN, Step.PROPOSAL, proposed)
        hashed = transcript.extend(hashed, Step.ANSWER, transcript.entries(answer))
        payloads, exporters = {}, {}
        if self._tls is not None:
            payloads[self._tls], exporters[self._tls] = self._finish(proposal, said[self._tls], hashed)
        check_macs(answer, exporters)
        self._install(proposal, said[self._tcp].payload)
        tlvs = (tlv.transcript(hashed), *repetition(context, proposed))
        bare = Node(NodeId.CONTEXT, Protocol.UDP, (), tlvs)
        nodes = chain(bare, self._graph, self._stack, payloads, self._tls)
        hashed = transcript.extend(hashed, Step.COMMIT, transcript.entries(nodes))
        proposal.tcp.installed()
        return Message(Step.COMMIT, tuple(seal(nodes, exporters, Role.INITIATOR, hashed))).encode()

    def _finish(self, proposal: Proposal, node: Node, hashed: bytes) -> tuple[bytes, bytes]:
        """Finished, and the exporter that vouches for the answer."""
        connection = proposal.tls
        assert connection is not None, "it was proposed"
        connection.feed(node.payload)
        if not connection.handshake():
            raise error(Reason.HANDSHAKE_FAILED, "TLS: the answer is not the whole flight")
        exporter = connection.exporter()
        assert exporter is not None, "the handshake is complete"
        check_mac(node, exporter, Role.RESPONDER, hashed)
        return connection.output(), exporter

    def _install(self, proposal: Proposal, payload: bytes) -> None:
        header, _ = tcp_header.split(payload)
        syn_ack = tcp_header.decode(header, tcp_header.DEFAULT_MSS_IPV4)
        if syn_ack.acknowledgement != (proposal.tcp.parameters.isn + 1) & _NEXT:
            raise error(Reason.HANDSHAKE_FAILED, "the SYN-ACK acknowledges another SYN")
        proposal.tcp.install(syn_ack.sender)


def given_up() -> tuple[Encoded, ...]:
    """In place of a commit: nobody wants it any more."""
    return Message(Step.COMMIT, (Node(NodeId.CONTEXT, Protocol.UDP, (), (tlv.reason(Reason.CLOSED),)),)).encode()
