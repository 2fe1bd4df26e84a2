# SPDX-License-Identifier: Apache-2.0
"""The initiator of the three-step exchange (HotNets 2009, section 2.2, Figure 1), sans-IO.

READY       The graph is given, nothing has been said.
PROPOSING   A session waits for something on this host before it can give its first handshake bytes.
PROPOSED    The proposal is sent, the answer gathers. Whatever is wrong with an answer ends the negotiation:
            the transport delivers one answer, so there is no better one to wait for.
ADVANCING   The answer holds one stack that the policy allows, and a session on the way up waits, for example
            for a certificate to be looked up. Bottom to top: the topmost security session is asked, the
            transcript's MAC checked with its exporter, and only then anything above it believed.
COMMITTED   The sessions have committed, then the commit was sent: the peer's first segment finds its socket
            (the reset race). The engine repeats the commit. Only an abort of the peer still ends it.
CONFIRMED   The peer's transport has the commit. The peer can still refuse it, so an abort is still heard.
ABORTED     No stack. Nothing has any effect any more.

Stop and Failed before COMMITTED abort; after it Stop comes too late, and Failed says only that the peer's
acknowledgements are missing, not that the stack is.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from accord.negotiation import transcript
from accord.negotiation.binding import chain, check_mac, check_macs, room_for, seal
from accord.negotiation.choice import CandidateStack, Chooser, explain
from accord.negotiation.events import (
    Action,
    Confirmed,
    Failed,
    MessageArrived,
    MessageComplete,
    NodeArrived,
    NodeSkipped,
    Resume,
    Stop,
    Unconfirmed,
)
from accord.negotiation.graph import Graph, Stack
from accord.negotiation.inbox import Inbox
from accord.negotiation.interface import Refuse, Role, Session, View
from accord.negotiation.machine import EVENT_KINDS, Machine, Table, pruned_words
from accord.negotiation.walk import Call, Walk
from accord.wire import tlv
from accord.wire.constants import Limit, NodeId, Protocol, Reason, Step, TlvType, Word
from accord.wire.errors import AccordError, PeerError, error
from accord.wire.node import Node


@dataclass(frozen=True, slots=True)
class Proposed:
    """A node that the caller wants to be proposed. The context is node 0 and has no session."""

    id: int
    protocol: int
    session: Session | None
    children: tuple[int, ...] = ()
    preference: int | None = None
    """0..255, higher is preferred; None: no PREFERENCE on the wire."""
    word: int = Word.NEUTRAL
    """What this side's policy says of the protocol: WORD, which NEUTRAL needs none for."""


class InitiatorState(enum.Enum):
    """See the module's docstring."""

    READY = "ready"
    PROPOSING = "proposing"
    PROPOSED = "proposed"
    ADVANCING = "advancing"
    COMMITTED = "committed"
    CONFIRMED = "confirmed"
    ABORTED = "aborted"


_GREASE_BYTES: Final = 16

_S = InitiatorState
_HANDLED: Final[Table] = {
    (_S.READY, Failed): "_failed",
    (_S.READY, Stop): "_stop",
    (_S.PROPOSING, Failed): "_failed",
    (_S.PROPOSING, Resume): "_resume",
    (_S.PROPOSING, Stop): "_stop",
    (_S.PROPOSED, NodeArrived): "_collect",
    (_S.PROPOSED, NodeSkipped): "_collect",
    (_S.PROPOSED, MessageComplete): "_message",
    (_S.PROPOSED, Failed): "_failed",
    (_S.PROPOSED, Stop): "_stop",
    (_S.ADVANCING, NodeArrived): "_collect",
    (_S.ADVANCING, NodeSkipped): "_collect",
    (_S.ADVANCING, MessageComplete): "_message",
    (_S.ADVANCING, Failed): "_failed",
    (_S.ADVANCING, Resume): "_resume",
    (_S.ADVANCING, Stop): "_stop",
    (_S.COMMITTED, NodeArrived): "_collect",
    (_S.COMMITTED, NodeSkipped): "_collect",
    (_S.COMMITTED, MessageComplete): "_message",
    (_S.COMMITTED, MessageArrived): "_confirm",
    (_S.COMMITTED, Failed): "_unconfirmed",
    (_S.CONFIRMED, NodeArrived): "_collect",
    (_S.CONFIRMED, NodeSkipped): "_collect",
    (_S.CONFIRMED, MessageComplete): "_message",
}


class Initiator(Machine):
    """One negotiation, from this side. Call ``start`` once, then ``receive`` for each event."""

    ROLE = Role.INITIATOR
    TABLE: ClassVar[Table] = {
        (state, kind): _HANDLED.get((state, kind), "_ignore") for state in InitiatorState for kind in EVENT_KINDS
    }
    ABORTED = InitiatorState.ABORTED

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
    ) -> None:
        """``proposed`` holds the context, as node 0, and every node that may be used.

        ``grease``: 16 random bytes, to propose one node of a protocol that nobody supports (as RFC 8701);
        empty: none. ``packets_min`` as in ``Send``. ``budget``: descriptor bytes that the proposal should keep to.
        ``peer``: PEER, 32 bytes, where the other side may propose as well; None: it does not.
        ``renegotiates``: RENEGOTIATES, 48 bytes: the association that is to get another stack; None: a new one.

        Raises ``ValueError`` when ``proposed`` is no valid graph: the caller's mistake.
        """
        super().__init__(transaction, context_protocol)
        self.state = InitiatorState.READY
        self._chooser = chooser
        self._service_port = service_port
        self._grease = grease
        self._packets_min = packets_min
        self._budget = budget
        if len(grease) not in (0, _GREASE_BYTES):
            raise ValueError(f"grease is {_GREASE_BYTES} bytes, or none")
        self._sessions = {node.id: node.session for node in proposed if node.session is not None}
        if set(self._sessions) != {node.id for node in proposed} - {NodeId.CONTEXT}:
            raise ValueError("every proposed node but the context needs a session")
        try:
            self._graph = Graph(_node(node, service_port, peer, renegotiates) for node in proposed)
        except PeerError as refusal:
            raise ValueError(f"not a graph that can be proposed: {refusal}") from refusal
        if self._graph.context.protocol != context_protocol:
            raise ValueError("node 0 is not of the context's protocol")
        self._own = self._graph
        """What our policy chooses from: the graph as sent, without grease."""
        self._stack: Stack = ()
        self._security: int | None = None
        self._answer: Graph = self._graph
        self._hash = transcript.BEGIN
        self._key: bytes | None = None
        """The security session's exporter; None before the MAC of the answer was verified with it."""

    # ---- step 0 ----

    def start(self) -> tuple[Action, ...]:
        """Ask every session for its first handshake bytes, then propose. Ends in ABORTED when there is no stack."""
        if self.state is InitiatorState.READY:
            self.state = InitiatorState.PROPOSING
            calls = [
                Call(node_id, self._sessions[node_id], self._wide_view(node_id), self._sessions[node_id].propose)
                for node_id in self._graph.order()
                if node_id != NodeId.CONTEXT
            ]
            room = room_for(self._graph.nodes.values()) - (2 * _GREASE_BYTES if self._grease else 0)
            overhead = Limit.MAX_MESSAGE_BYTES - room
            self._start(Walk(calls, room=room, budget=self._budget - overhead, stop_at_refusal=False))
        return self._take_actions()

    def _wide_view(self, node_id: int) -> View:
        below = tuple(self._sessions[other] for other in self._graph.below(node_id))
        above = tuple(self._sessions[other] for other in self._graph.above(node_id))
        return View(Role.INITIATOR, Step.PROPOSAL, node_id, below, above)

    def _walked(self, walk: Walk) -> None:
        try:
            if self.state is InitiatorState.PROPOSING:
                self._propose(walk)
            else:
                self._finish(walk)
        except AccordError as fault:
            self._fault(fault)

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
            for node in _preferred_first(self._own, ordered)
        ]
        self._graph = Graph(_with_grease(nodes, self._grease))
        self._own = self._graph.prune(self._graph.nodes.keys() - self._own.nodes.keys())
        self.state = InitiatorState.PROPOSED
        self._note("proposing " + ", ".join(stack.name for stack in ordered))
        self._send(Step.PROPOSAL, self._graph.nodes.values(), self._packets_min)

    def _gone(self) -> list[int]:
        return [node for node in self._graph.nodes if node not in self._own.nodes]

    # ---- step 1 ----

    def _message(self, event: MessageComplete) -> None:
        inbox = self._inboxes.get(event.step, Inbox(event.step))
        abort = inbox.abort
        if abort is not None:
            self._abort_by_peer(abort)
        elif event.step == Step.ANSWER and self.state is InitiatorState.PROPOSED:
            self._on_answer(inbox)
        elif event.step != Step.ANSWER:
            raise error(Reason.BAD_STEP, f"step {event.step} is none of the three-step exchange's")

    def _on_answer(self, inbox: Inbox) -> None:
        inbox.check()
        answer = self._answer = self._subset(inbox)
        stack = answer.only_stack()
        if stack is None or stack[-1] not in self._own.tops:
            raise error(Reason.NOT_PROPOSED, "the answer is not one whole stack out of the proposal")
        self._stack, self._security = stack, self._security_node(stack)
        reasons = answer.context.pruned
        self._note(
            pruned_words(reasons, {i: n.protocol for i, n in self._graph.nodes.items()}) if reasons else "pruned none"
        )
        check_macs(answer.nodes.values(), self._security)
        if answer.context.tlv(TlvType.COOKIE) is None:
            raise error(Reason.BAD_TLV, "an answer without COOKIE")
        if answer.context.tlv(TlvType.PEER) and not self._own.context.tlv(TlvType.PEER):
            raise error(Reason.BAD_TLV, "PEER in the answer to a proposal without it")
        self._check_choice(stack, reasons)
        proposal = [
            transcript.Entry(node.id, node.protocol, None if reasons.get(node.id) == Reason.UNSUPPORTED else node)
            for node in self._graph.nodes.values()
        ]
        self._hash = transcript.extend(transcript.BEGIN, Step.PROPOSAL, proposal)
        self._hash = transcript.extend(self._hash, Step.ANSWER, transcript.entries(answer.nodes.values()))
        self._advance()

    def _subset(self, inbox: Inbox) -> Graph:
        """The answer as a graph, if it only took away from the proposal and says so for every node that is gone."""
        for node_id in inbox.skipped:
            raise error(Reason.NOT_PROPOSED, f"node {node_id} is of a protocol that this host does not support")
        answer = Graph(inbox.nodes.values())
        for node in answer.nodes.values():
            ours = self._own.nodes.get(node.id)
            if (
                ours is None
                or node.protocol != ours.protocol
                or node.placeholder
                or set(node.children) - set(ours.children)
            ):
                raise error(Reason.NOT_PROPOSED, f"{node.name} with children {node.children}")
        gone = self._graph.nodes.keys() - answer.nodes.keys()
        if answer.context.pruned.keys() != gone:
            raise error(
                Reason.BAD_TRANSCRIPT,
                f"nodes {sorted(gone)} are missing from the answer, which says {sorted(answer.context.pruned)}: "
                "the proposal did not arrive as it was sent",
            )
        return answer

    def _check_choice(self, stack: Stack, reasons: dict[int, int]) -> None:
        """Our own choice again, over what the responder says that it could have had (threat model, row 13)."""
        could_not = {node for node, reason in reasons.items() if reason != Reason.NOT_PREFERRED}
        chosen = self._candidate(self._own, stack)
        candidates = self._candidates(self._own.prune(could_not))
        if chosen not in candidates:
            candidates.append(chosen)
        allowed = self._chooser.order(candidates)
        if chosen in allowed:
            return
        if not chosen.secure and any(other.secure for other in allowed):
            raise error(Reason.DOWNGRADE, f"{chosen.name}, where {allowed[0].name} was to be had")
        why = explain(self._chooser, [chosen])
        raise error(self._chooser.refusal([chosen]), f"{chosen.name} was chosen by the peer" + f" ({why})" * bool(why))

    # ---- step 2 ----

    def _advance(self) -> None:
        self.state = InitiatorState.ADVANCING
        calls = self._advancing(self._stack, self._answer, Step.ANSWER)
        room = room_for(self._commit_nodes({}))
        self._start(Walk(calls, room=room, budget=room, stop_at_refusal=True, after=self._verify))

    def _commit_nodes(self, payloads: dict[int, bytes]) -> list[Node]:
        context = Node(NodeId.CONTEXT, self._context, (), (tlv.transcript(self._hash),))
        return chain(context, self._answer, self._stack, payloads, self._security)

    def _verify(self, node_id: int) -> Refuse | None:
        """Once the security session is done, and before anything above it hears of the answer."""
        if node_id != self._security:
            return None
        exporter = self._exporter(node_id)
        if isinstance(exporter, Refuse):
            return exporter
        try:
            check_mac(self._answer.nodes[node_id], exporter, Role.RESPONDER, self._hash)
        except PeerError as fault:
            return Refuse(fault.reason, fault.detail)
        self._key = exporter
        self._note("the transcript is the peer's: MAC verified")
        return None

    def _finish(self, walk: Walk) -> None:
        for refusal in walk.refused.values():
            raise error(refusal.reason, refusal.detail)
        assert (self._key is None) == (self._security is None)
        nodes = self._commit_nodes(walk.payloads)
        hashed = transcript.extend(self._hash, Step.COMMIT, transcript.entries(nodes))
        for node_id, reason in self._answer.context.pruned.items():
            self._prune(node_id, reason)
        committed = self._commit(self._stack, self._answer.protocols(self._stack), hashed)
        self.state = InitiatorState.COMMITTED
        self._send(Step.COMMIT, seal(nodes, self._key, Role.INITIATOR, hashed))
        self._actions.append(committed)

    # ---- after it, and ends ----

    def _confirm(self, event: MessageArrived) -> None:
        if event.step == Step.COMMIT:
            self.state = InitiatorState.CONFIRMED
            self._actions.append(Confirmed())

    def _unconfirmed(self, event: Failed) -> None:
        self.state = InitiatorState.CONFIRMED
        self._actions.append(Unconfirmed(event.reason))

    def _stop(self, event: Stop) -> None:
        self._abort(event.reason, event.detail, tell=self._next_step())

    def _fault(self, fault: AccordError) -> None:
        if self.state in (InitiatorState.COMMITTED, InitiatorState.CONFIRMED):
            self._note(f"ignored after the commit: {fault}")
        elif self.state is not InitiatorState.ABORTED:
            self._abort(fault.reason, fault.detail, tell=self._next_step())

    def _next_step(self) -> int | None:
        said_something = self.state in (InitiatorState.PROPOSED, InitiatorState.ADVANCING)
        return Step.COMMIT if said_something else None


def _node(node: Proposed, service_port: int | None, peer: bytes | None, renegotiates: bytes | None) -> Node:
    if node.id == NodeId.CONTEXT:
        tlvs: tuple[tlv.Tlv, ...] = () if service_port is None else (tlv.service(service_port),)
        tlvs += () if peer is None else (tlv.peer(peer),)
        tlvs += () if renegotiates is None else (tlv.renegotiates(renegotiates),)
    else:
        tlvs = () if node.preference is None else (tlv.preference(node.preference),)
        if node.word != Word.NEUTRAL:
            tlvs = (*tlvs, tlv.word(node.word))
    return Node(node.id, node.protocol, tuple(sorted(node.children)), tlvs)


def _preferred_first(graph: Graph, ordered: Sequence[CandidateStack]) -> list[int]:
    """Context, the best stack's nodes, then the next one's: the order of sending (HotNets 2009, section 3.2)."""
    ids: dict[int, None] = {NodeId.CONTEXT: None}
    for stack in ordered:
        ids.update(dict.fromkeys(stack.ids))
    ids.update(dict.fromkeys(graph.nodes))
    return list(ids)


def _with_grease(nodes: list[Node], grease: bytes) -> list[Node]:
    """One more node at the end, of a protocol that never means anything; none when there is no room."""
    free = sorted(set(range(1, Limit.MAX_NODES)) - {node.id for node in nodes})
    edges = sum(len(node.children) for node in nodes)
    if not grease or not free or edges >= Limit.MAX_EDGES:
        return nodes
    node_id = free[grease[0] % len(free)]
    protocol = int.from_bytes(bytes(byte & 0xF0 | 0x0A for byte in grease[1:5]), "big")
    context = replace(nodes[0], children=tuple(sorted((*nodes[0].children, node_id))))
    return [context, *nodes[1:], Node(node_id, protocol, payload=grease[5:_GREASE_BYTES])]
