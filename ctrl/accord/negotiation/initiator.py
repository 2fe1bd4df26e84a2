# SPDX-License-Identifier: Apache-2.0
"""The initiator of an exchange of three steps, or more (HotNets 2009, sections 2.2 and 2.3), sans-IO.

READY       The graph is given, nothing has been said.
PROPOSING   A session waits for something on this host before it can give its first handshake bytes.
PROPOSED    The proposal is sent, the answer gathers. Whatever is wrong with an answer ends the negotiation:
            the transport delivers one answer, so there is no better one to wait for.
ADVANCING   The answer holds one stack that the policy allows, or several, of which we have chosen one, and a session on
            the way up waits, for example for a certificate to be looked up. Bottom to top: the topmost security
            session is asked, the transcript's MAC checked with its exporter, and only then anything above it believed.
CONTINUED   Something was left open: a session has more to say, a placeholder was to be filled. Our next message is
            sent, and is no commit; the next answer gathers. From here it goes to ADVANCING again.
COMMITTED   The sessions have committed, then the commit was sent: the peer's first segment finds its socket
            (the reset race). The engine repeats the commit. Only an abort of the peer still ends it.
CONFIRMED   The peer's transport has the commit. The peer can still refuse it, so an abort is still heard.
ABORTED     No stack. Nothing has any effect any more.

Stop and Failed before COMMITTED abort; after it Stop comes too late, and Failed says only that the peer's
acknowledgements are missing, not that the stack is.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import ClassVar, Final

from accord.negotiation import transcript
from accord.negotiation.binding import chain, check_mac, check_macs, room_for, seal
from accord.negotiation.choice import Chooser, explain
from accord.negotiation.elaboration import (
    compose,
    fills,
    gone,
    is_subgraph,
    place,
    places,
    settled,
    successor,
    vouching,
)
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
from accord.negotiation.interface import Refuse, Role, Session
from accord.negotiation.machine import EVENT_KINDS, Machine, Table, pruned_words
from accord.negotiation.proposing import GREASE_BYTES, Proposed, plan, preferred_first, revealed, with_grease
from accord.negotiation.walk import Call, Walk
from accord.wire import tlv
from accord.wire.constants import Limit, NodeId, Protocol, Reason, Step, TlvType
from accord.wire.errors import AccordError, PeerError, error
from accord.wire.node import Node

__all__ = ["Initiator", "InitiatorState", "Proposed"]


class InitiatorState(enum.Enum):
    """See the module's docstring."""

    READY = "ready"
    PROPOSING = "proposing"
    PROPOSED = "proposed"
    ADVANCING = "advancing"
    CONTINUED = "continued"
    COMMITTED = "committed"
    CONFIRMED = "confirmed"
    ABORTED = "aborted"


_PLACEHOLDER_BYTES: Final = 12
"""What a node may need more than its payload, if it becomes a placeholder after all: PLACEHOLDER, of five bytes."""

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
    (_S.CONTINUED, NodeArrived): "_collect",
    (_S.CONTINUED, NodeSkipped): "_collect",
    (_S.CONTINUED, MessageComplete): "_message",
    (_S.CONTINUED, Failed): "_failed",
    (_S.CONTINUED, Stop): "_stop",
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
        self._expected: frozenset[int] = frozenset()
        """Nodes that the next answer may say something of."""
        self._unheard: dict[int, bytes] = {}
        """What the peer has said to sessions above a security node that is not done yet."""
        self._words: dict[int, bytes] = {}
        """What the commit will say."""
        self._hash = transcript.BEGIN

    # ---- step 0 ----

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
            room -= _PLACEHOLDER_BYTES * len(calls)
            self._start(Walk(calls, room=room, budget=self._budget - overhead, stop_at_refusal=False, needs=needs))
        return self._take_actions()

    def _proposing(self, graph: Graph, node_id: int, step: int, after: frozenset[int] = frozenset()) -> Call:
        session = self._sessions[node_id]
        return Call(node_id, session, self._wide_view(graph, node_id, step), session.propose, after, concludes=False)

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
            for node in preferred_first(self._own, ordered)
        ]
        if walk.left or self._plan.held:
            nodes = self._with_placeholders(nodes, walk)
        self._used = {node.id for node in nodes}.union(*self._plan.hidden.values())
        self._graph = Graph(with_grease(nodes, self._grease, self._used))
        self._used.update(self._graph.nodes)
        self._own = self._graph.prune(self._graph.nodes.keys() - self._own.nodes.keys())
        self._expected = frozenset(self._used)
        self.state = InitiatorState.PROPOSED
        self._note("proposing " + ", ".join(stack.name for stack in ordered))
        self._send(Step.PROPOSAL, self._graph.nodes.values(), self._packets_min)

    def _with_placeholders(self, nodes: list[Node], walk: Walk) -> list[Node]:
        self._deferred = walk.left
        held = {**dict.fromkeys(self._deferred, tlv.placeholder(by_responder=False)), **self._plan.held}
        return [
            replace(node, placeholder=True, tlvs=(*node.tlvs, held[node.id])) if node.id in held else node
            for node in nodes
        ]

    def _gone(self) -> list[int]:
        return [node for node in self._graph.nodes if node not in self._own.nodes]

    # ---- the answers ----

    def _message(self, event: MessageComplete) -> None:
        inbox = self._inboxes.get(event.step, Inbox(event.step))
        abort = inbox.abort
        if abort is not None:
            self._abort_by_peer(abort)
        elif event.step == self._step + 1 and self.state in (InitiatorState.PROPOSED, InitiatorState.CONTINUED):
            self._on_answer(inbox)
        elif event.step > self._step + 1:
            raise error(Reason.BAD_STEP, f"step {event.step} after our step {self._step}")

    def _on_answer(self, inbox: Inbox) -> None:
        inbox.check()
        answer = self._answer = self._read(inbox)
        self._open_new(answer)
        reasons = answer.context.pruned
        self._note(
            pruned_words(reasons, {i: n.protocol for i, n in self._graph.nodes.items()}) if reasons else "pruned none"
        )
        stack = answer.only_stack() or self._pick(answer)
        if stack[-1] not in answer.tops:
            raise error(Reason.NOT_PROPOSED, "the answer is not one whole stack out of the proposal")
        self._stack, self._security = stack, self._security_node(stack)
        self._check_macs(answer)
        if inbox.step == Step.ANSWER and answer.context.tlv(TlvType.COOKIE) is None:
            raise error(Reason.BAD_TLV, "an answer without COOKIE")
        if answer.context.tlv(TlvType.PEER) and not self._own.context.tlv(TlvType.PEER):
            raise error(Reason.BAD_TLV, "PEER in the answer to a proposal without it")
        self._check_choice(stack, reasons)
        if inbox.step == Step.ANSWER:
            proposal = [
                transcript.Entry(node.id, node.protocol, None if reasons.get(node.id) == Reason.UNSUPPORTED else node)
                for node in self._graph.nodes.values()
            ]
            self._hash = transcript.extend(transcript.BEGIN, Step.PROPOSAL, proposal)
        self._hash = transcript.extend(self._hash, inbox.step, transcript.entries(answer.nodes.values()))
        for node_id in self._keys.keys() & answer.nodes.keys():
            if answer.nodes[node_id].tlv(TlvType.MAC):
                check_mac(answer.nodes[node_id], self._keys[node_id], Role.RESPONDER, self._hash)
        self._advance(inbox.step)

    def _read(self, inbox: Inbox) -> Graph:
        """The answer as a graph, if it only took away from what was proposed, and says so for every node that is gone,
        or put into it what it was asked to."""
        for node_id in inbox.skipped:
            raise error(Reason.NOT_PROPOSED, f"node {node_id} is of a protocol that this host does not support")
        answer = successor(self._own, inbox.nodes.values(), Role.RESPONDER, self._used)
        missing = gone(self._graph.nodes, answer)
        if answer.context.pruned.keys() != missing:
            raise error(
                Reason.BAD_TRANSCRIPT,
                f"nodes {sorted(missing)} are missing from the answer, which says {sorted(answer.context.pruned)}: "
                "the proposal did not arrive as it was sent",
            )
        self._check_continues(answer)
        for node in answer.nodes.values():
            if node.payload and node.id in self._used and node.id not in self._expected:
                raise error(Reason.NOT_PROPOSED, f"{node.name} speaks out of turn")
        self._used.update(answer.nodes)
        return answer

    def _open_new(self, answer: Graph) -> None:
        for node in answer.nodes.values():
            if node.tlvs and node.elaborates is not None:
                assert self._open is not None, "without it nothing is given to the responder to fill"
                self._sessions[node.id] = self._open(node.id, node.protocol)

    def _pick(self, answer: Graph) -> Stack:
        """Our choice among what the responder has put into a placeholder (HotNets 2009, section 2.3)."""
        stacks = list(answer.stacks())
        if len({places(answer, stack) for stack in stacks}) != 1 or len(stacks) == 1:
            raise error(Reason.NOT_PROPOSED, "the answer is not one whole stack out of the proposal")
        candidates = self._candidates(answer)
        ordered = self._chooser.order(candidates)
        if not ordered:
            raise error(self._chooser.refusal(candidates), "of all that the peer has put into a placeholder")
        self._liked = frozenset(node_id for each in ordered for node_id in each.ids)
        self._note("choosing " + ", ".join(stack.name for stack in ordered))
        return ordered[0].ids

    def _check_macs(self, answer: Graph) -> None:
        """On the topmost security node, unless its handshake goes on."""
        security = set() if self._security is None else {self._security}
        if len(answer.nodes) == len(self._stack) + 1 and not answer.context.continues:
            check_macs(answer.nodes.values(), security)
            return
        done = {node_id for node_id in security if node_id not in answer.context.continues or node_id in self._keys}
        check_macs(answer.nodes.values(), done, vouching(answer, self._secure))

    def _check_choice(self, stack: Stack, reasons: dict[int, int]) -> None:
        """Our own choice again, over what the responder says that it could have had (threat model, row 13)."""
        could_not = {node for node, reason in reasons.items() if reason != Reason.NOT_PREFERRED}
        could_not |= {place(node) for node in self._answer.nodes.values() if node.tlvs and node.elaborates is not None}
        chosen = self._candidate(self._answer, stack)
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

    # ---- the next message ----

    def _advance(self, step: int) -> None:
        """Whoever got an answer is given it; whoever could not speak so far is asked again."""
        self.state = InitiatorState.ADVANCING
        answer, stack = self._answer, self._stack
        lower = answer if answer.only_stack() else answer.along([stack])
        self._next = lower
        reveals = False
        if any(answer.nodes[node_id].placeholder for node_id in stack):
            self._next = revealed(settled(lower), stack, self._plan)
            reveals = self._next.nodes.keys() != lower.nodes.keys()
        calls, above = [], frozenset[int]()
        for node_id in stack:
            node = answer.nodes[node_id]
            if node.placeholder:
                calls += self._fillings(node, step + 1)
            elif (payload := self._due(node)) is not None:
                call = self._advancing(self._view(stack, node_id, step), payload, above)
                # Whatever its session thinks of it: the other side's is not done.
                calls.append(call._replace(concludes=node_id not in answer.context.continues))
            if node_id == self._security and node_id not in self._keys:
                above = frozenset({node_id})  # nothing above hears of an answer that nobody vouches for yet
        room = room_for(self._commit_nodes({})) - _PLACEHOLDER_BYTES * len(self._next.nodes)
        needs = partial(self._needs, self._next)
        self._start(
            Walk(
                calls,
                room=room,
                budget=room,
                stop_at_refusal=not reveals,
                after=self._verify,
                results=self._results,
                needs=needs,
            )
        )

    def _due(self, node: Node) -> bytes | None:
        """What a session is to be given of this answer, or of an earlier one; None: it is not its turn."""
        if node.id in self._unheard:
            return self._unheard[node.id]
        return node.payload if node.id in self._expected or node.elaborates is not None else None

    def _fillings(self, node: Node, step: int) -> list[Call]:
        """Sessions to be asked for what we put in place of a placeholder of ours."""
        if not fills(node, Role.INITIATOR):
            return []
        if not is_subgraph(node):
            after = self._deferred.get(node.id, frozenset()) & self._next.nodes.keys()
            return [self._proposing(self._next, node.id, step, after)]
        hidden = self._plan.hidden[node.id] & self._next.nodes.keys()
        return [
            self._proposing(self._next, node_id, step)
            for node_id in self._next.order()
            if node_id in hidden and node_id not in self._plan.held
        ]

    def _verify(self, node_id: int) -> Refuse | None:
        """Once the security session is done, and before anything above it hears of the answer."""
        if node_id != self._security or node_id in self._keys:
            return None
        exporter = self._exporter(node_id)
        if isinstance(exporter, Refuse):
            return exporter
        try:
            check_mac(self._answer.nodes[node_id], exporter, Role.RESPONDER, self._hash)
        except PeerError as fault:
            return Refuse(fault.reason, fault.detail)
        self._keys[node_id] = exporter
        self._note("the transcript is the peer's: MAC verified")
        return None

    def _finish(self, walk: Walk) -> None:
        """Commit, if there is nothing more to be said and to be heard; else the exchange goes on."""
        answer = self._answer
        for node_id, refusal in walk.refused.items():
            if node_id in self._stack or not any(self._next.prune(walk.refused).tops):
                raise error(refusal.reason, refusal.detail)
        self._results = walk.results
        fillings = walk.payloads.keys() - answer.nodes.keys() | {
            node_id for node_id in walk.payloads.keys() & answer.nodes.keys() if answer.nodes[node_id].placeholder
        }
        spoken = fillings | walk.more | (walk.payloads.keys() & answer.context.continues)
        self._words.update({node_id: walk.payloads[node_id] for node_id in walk.payloads.keys() - spoken})
        self._unheard = {
            node_id: self._unheard.get(node_id, answer.nodes[node_id].payload)
            for node_id in walk.left
            if node_id in answer.nodes and not answer.nodes[node_id].placeholder
        }
        self._deferred = {node_id: after for node_id, after in walk.left.items() if node_id not in self._unheard}
        held = any(self._next.nodes[node_id].placeholder for node_id in self._stack if node_id in self._next.nodes)
        if spoken or self._unheard or self._deferred or held or len(self._next.nodes) != len(self._stack) + 1:
            self._go_on(spoken, self._next.prune(walk.refused), walk.payloads)
        else:
            self._finally()

    def _go_on(self, spoken: AbstractSet[int], graph: Graph, payloads: Mapping[int, bytes]) -> None:
        """Another message that is no commit: something waits for an answer, or for what an answer brings."""
        step = self._step + 2
        answer, held = self._answer, self._plan.held
        new = graph.nodes.keys() - answer.nodes.keys()
        if step + 2 >= Limit.MAX_STEPS:
            raise error(Reason.TOO_MANY_STEPS, f"and nodes {sorted(spoken | self._deferred.keys())} are not done")
        if not spoken | new:
            raise error(Reason.UNFILLED, f"nodes {sorted(graph.nodes.keys() & self._deferred.keys())} wait in vain")
        tlvs: dict[int, list[tlv.Tlv]] = {node_id: list(graph.nodes[node_id].tlvs) for node_id in new}
        for node_id in graph.nodes.keys() - {NodeId.CONTEXT}:
            if node_id in self._deferred or (node_id in new and node_id in held):
                tlvs.setdefault(node_id, []).append(held.get(node_id) or tlv.placeholder(by_responder=False))
            elif node_id not in new and answer.nodes[node_id].placeholder and node_id not in spoken:
                tlvs[node_id] = [each for each in answer.nodes[node_id].tlvs if each.type == TlvType.PLACEHOLDER]
        waits = {node_id for node_id, own in tlvs.items() if any(each.type == TlvType.PLACEHOLDER for each in own)}
        context = Node(
            NodeId.CONTEXT,
            self._context,
            (),
            (*self._pruned_tlv(graph), tlv.transcript(self._hash), tlv.continues(spoken | waits)),
        )
        macs = vouching(graph, self._secure) & self._keys.keys()
        order = [node_id for node_id in graph.order() if node_id != NodeId.CONTEXT]
        said = {node_id: payloads[node_id] for node_id in spoken}
        nodes = compose(context, graph, order, said, tlvs, macs)
        for node_id, reason in {**answer.context.pruned, **self._pruned(graph)}.items():
            self._prune(node_id, reason)
        self._graph = self._own = Graph(nodes, tops=graph.tops)
        self._used.update(self._graph.nodes)
        self._expected = frozenset(spoken | waits)
        self._hash = transcript.extend(self._hash, step, transcript.entries(nodes))
        self.state = InitiatorState.CONTINUED
        self._note("not done: " + ", ".join(self._graph.nodes[node_id].name for node_id in sorted(spoken | waits)))
        self._send(step, seal(nodes, {node_id: self._keys[node_id] for node_id in macs}, Role.INITIATOR, self._hash))

    def _pruned(self, graph: Graph) -> dict[int, int]:
        """What our choice takes out of the answer."""
        return {
            node_id: Reason.NOT_PREFERRED if node_id in self._liked else Reason.POLICY
            for node_id in gone(self._answer.nodes, graph)
        }

    def _pruned_tlv(self, graph: Graph) -> tuple[tlv.Tlv, ...]:
        pruned = self._pruned(graph) if len(graph.nodes) != len(self._answer.nodes) else {}
        return (tlv.pruned(pruned),) if pruned else ()

    def _commit_nodes(self, payloads: Mapping[int, bytes]) -> list[Node]:
        context = Node(NodeId.CONTEXT, self._context, (), (*self._pruned_tlv(self._next), tlv.transcript(self._hash)))
        return chain(context, self._answer, self._stack, payloads, self._security)

    def _finally(self) -> None:
        assert self._security is None or self._security in self._keys
        nodes = self._commit_nodes(self._words)
        step = self._step + 2
        hashed = transcript.extend(self._hash, step, transcript.entries(nodes))
        for node_id, reason in {**self._answer.context.pruned, **self._pruned(self._next)}.items():
            self._prune(node_id, reason)
        committed = self._commit(self._stack, self._answer.protocols(self._stack), hashed, step)
        self.state = InitiatorState.COMMITTED
        self._send(step, seal(nodes, self._keys, Role.INITIATOR, hashed))
        self._actions.append(committed)

    # ---- after it, and ends ----

    def _confirm(self, event: MessageArrived) -> None:
        if event.step == self._step:
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
        return self._step + 2 if self._step >= Step.PROPOSAL else None


def _context_tlvs(
    service_port: int | None, peer: bytes | None, renegotiates: bytes | None, data_path: str | None
) -> tuple[tlv.Tlv, ...]:
    tlvs: tuple[tlv.Tlv, ...] = () if service_port is None else (tlv.service(service_port),)
    tlvs += () if peer is None else (tlv.peer(peer),)
    tlvs += () if renegotiates is None else (tlv.renegotiates(renegotiates),)
    tlvs += () if data_path is None else (tlv.data_path(data_path),)
    return tlvs
