# SPDX-License-Identifier: Apache-2.0
"""What an initiator says in step 0: every stack that it could use, with its sessions' first words, sans-IO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Final

from accord.negotiation import transcript
from accord.negotiation.binding import room_for
from accord.negotiation.choice import Chooser, explain
from accord.negotiation.events import Action
from accord.negotiation.graph import Graph, Stack
from accord.negotiation.initiator_table import InitiatorState
from accord.negotiation.interface import Role, Session
from accord.negotiation.machine import Machine, pruned_words
from accord.negotiation.proposing import GREASE_BYTES, Proposed, plan, preferred_first, with_grease
from accord.negotiation.walk import Call, Walk
from accord.wire import outline, tlv
from accord.wire.constants import Limit, NodeId, Packet, Protocol, Reason, Step, TlvType
from accord.wire.errors import error
from accord.wire.node import Node, descriptor_bytes

PLACEHOLDER_BYTES: Final = 12
"""What a node may need more than its payload, if it becomes a placeholder after all: PLACEHOLDER, of five bytes."""


OUTLINE_PACKETS: Final = 4
"""A proposal of more packets has OUTLINE. The usual ones, with a ClientHello and a QUIC Initial, are no longer, and go
without: that bytes are lost of so few is rare."""
_PACKET_ROOM: Final = Limit.MIN_MTU_PACKET - Packet.HEADER_BYTES


class Proposer(Machine):
    """The first half of an initiator: from a graph to a proposal. Call ``start`` once."""

    ROLE = Role.INITIATOR

    def __init__(
        self,
        transaction: bytes,
        proposed: Sequence[Proposed],
        chooser: Chooser,
        *,
        context_protocol: int = Protocol.UDP,
        service_port: int | None = None,
        grease: bytes = b"",
        packets_min: int = 0,
        budget: int = Limit.MAX_MESSAGE_BYTES,
        peer: bytes | None = None,
        renegotiates: bytes | None = None,
        data_path: str | None = None,
        open: Callable[[int, int], Session] | None = None,
    ) -> None:
        """``proposed`` holds the context, as node 0, and every node that may be used.

        ``grease``: 16 random bytes, to propose one node of a protocol that nobody supports (as RFC 8701);
        empty: none. ``packets_min`` as in ``Send``. ``budget``: descriptor bytes that the proposal should keep to.
        ``peer``: PEER, 32 bytes, where the other side may propose as well; None: it does not.
        ``renegotiates``: RENEGOTIATES, 48 bytes: the association that is to get another stack; None: a new one.
        ``data_path``: the own address on the path of the stack, where that is not the negotiation's.
        ``open``: a new session for a node ID and its protocol, which the responder has put into a placeholder.

        Raises ``ValueError`` when ``proposed`` is no valid graph: the caller's mistake.
        """
        super().__init__(transaction, context_protocol)
        self.state = InitiatorState.READY
        self._chooser = chooser
        self._grease = grease
        self._packets_min = packets_min
        self._budget = budget
        if len(grease) not in (0, GREASE_BYTES):
            raise ValueError(f"grease is {GREASE_BYTES} bytes, or none")
        self._sessions = {node.id: node.session for node in proposed if node.session is not None}
        self._plan = plan(proposed, _context_tlvs(service_port, peer, renegotiates, data_path))
        if open is None and any(node.choices for node in proposed):
            raise ValueError("who lets the responder fill a placeholder has to open sessions for what is in it")
        self._open = open
        self._graph = self._plan.graph
        """Of our latest message."""
        if self._graph.context.protocol != context_protocol:
            raise ValueError("node 0 is not of the context's protocol")
        self._own = self._graph
        """What our policy chooses from: the graph as sent, without grease."""
        self._stack: Stack = ()
        self._security: int | None = None
        self._answer: Graph = self._graph
        self._next: Graph = self._graph
        """What the next message is about."""
        self._liked: frozenset[int] = frozenset()
        """Nodes that our policy allows, of those that were ours to choose from."""
        self._refused: dict[int, int] = {}
        """Nodes of the answer that our sessions refused, of those that were ours to choose from."""
        self._tried = 0
        """Stacks of this answer that a session has refused."""
        self._expected: frozenset[int] = frozenset()
        """Nodes that the next answer may say something of."""
        self._unheard: dict[int, bytes] = {}
        """What the peer has said to sessions above a security node that is not done yet."""
        self._bare: list[Node] = []
        """The commit without what the sessions have to say."""
        self._repetition: tuple[tlv.Tlv, ...] = ()
        """REPEAT of the commit, where the answer asks for it."""
        self._words: dict[int, bytes] = {}
        """What the commit will say."""
        self._hash = transcript.BEGIN

    def start(self) -> tuple[Action, ...]:
        """Ask every session for its first handshake bytes, then propose. Ends in ABORTED when there is no stack."""
        if self.state is InitiatorState.READY:
            self.state = InitiatorState.PROPOSING
            calls = [
                self._proposing(self._graph, node_id, Step.PROPOSAL)
                for node_id in self._graph.order()
                if node_id != NodeId.CONTEXT and node_id not in self._plan.held
            ]
            room = room_for(self._graph.nodes.values()) - (2 * GREASE_BYTES if self._grease else 0)
            overhead = Limit.MAX_MESSAGE_BYTES - room
            needs = partial(self._needs, self._graph)
            room -= PLACEHOLDER_BYTES * len(calls) + outline.room(self._graph.nodes.values())
            self._start(Walk(calls, room=room, budget=self._budget - overhead, stop_at_refusal=False, needs=needs))
        return self._take_actions()

    def _proposing(self, graph: Graph, node_id: int, step: int, after: frozenset[int] = frozenset()) -> Call:
        session = self._sessions[node_id]
        return Call(node_id, session, self._wide_view(graph, node_id, step), session.propose, after, concludes=False)

    def _propose(self, walk: Walk) -> None:
        self._own = self._graph.prune(walk.refused)
        reasons = {
            node: walk.refused[node].reason if node in walk.refused else Reason.UNREACHABLE_NODE
            for node in self._gone()
        }
        for node_id, reason in reasons.items():
            self._prune(node_id, reason)
        if reasons:
            self._note(pruned_words(reasons, {node: self._graph.nodes[node].protocol for node in reasons}))
        candidates = self._candidates(self._own)
        ordered = self._chooser.order(candidates)
        if not ordered:
            first = next(iter(walk.refused.values()), None)
            reason = first.reason if first else self._chooser.refusal(candidates)
            raise error(reason, first.detail if first else explain(self._chooser, candidates) or "nothing to propose")
        nodes = [
            replace(self._own.nodes[node], children=self._own.children(node), payload=walk.payloads.get(node, b""))
            for node in preferred_first(self._own, ordered)
        ]
        if walk.left or self._plan.held:
            nodes = self._with_placeholders(nodes, walk)
        self._used = {node.id for node in nodes}.union(*self._plan.hidden.values())
        self._graph = Graph(self._outlined(with_grease(nodes, self._grease, self._used)))
        self._used.update(self._graph.nodes)
        self._own = self._graph.prune(self._graph.nodes.keys() - self._own.nodes.keys())
        self._expected = frozenset(self._used)
        self.state = InitiatorState.PROPOSED
        self._note("proposing " + ", ".join(stack.name for stack in ordered))
        self._send(Step.PROPOSAL, self._graph.nodes.values(), self._packets_min)

    def _outlined(self, nodes: list[Node]) -> list[Node]:
        """With OUTLINE, where packets enough can get lost for it to be worth its bytes, and it is allowed."""
        context = nodes[0]
        packed = sum(descriptor_bytes(node) + Packet.CHUNK_HEADER_BYTES for node in nodes)
        if packed <= OUTLINE_PACKETS * _PACKET_ROOM or context.protocol == Protocol.INNER:
            return nodes
        if context.tlv(TlvType.PEER) is not None or any(node.placeholder for node in nodes):
            return nodes
        tlvs = sorted((*context.tlvs, outline.encode(nodes)), key=attrgetter("type"))
        return [replace(context, tlvs=tuple(tlvs)), *nodes[1:]]

    def _with_placeholders(self, nodes: list[Node], walk: Walk) -> list[Node]:
        self._deferred = walk.left
        held = {**dict.fromkeys(self._deferred, tlv.placeholder(by_responder=False)), **self._plan.held}
        return [
            replace(node, placeholder=True, tlvs=(*node.tlvs, held[node.id])) if node.id in held else node
            for node in nodes
        ]

    def _gone(self) -> list[int]:
        return [node for node in self._graph.nodes if node not in self._own.nodes]


def _context_tlvs(
    service_port: int | None, peer: bytes | None, renegotiates: bytes | None, data_path: str | None
) -> tuple[tlv.Tlv, ...]:
    tlvs: tuple[tlv.Tlv, ...] = () if service_port is None else (tlv.service(service_port),)
    tlvs += () if peer is None else (tlv.peer(peer),)
    tlvs += () if renegotiates is None else (tlv.renegotiates(renegotiates),)
    tlvs += () if data_path is None else (tlv.data_path(data_path),)
    return tlvs
