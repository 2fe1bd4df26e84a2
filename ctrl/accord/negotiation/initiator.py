# SPDX-License-Identifier: Apache-2.0
"""The initiator of an exchange of three steps, or more (HotNets 2009, sections 2.2 and 2.3), sans-IO: what it makes of
answers. ``initiator_table.py`` has its states, ``proposer.py`` what it says first.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import ClassVar, Final

from accord.negotiation import transcript
from accord.negotiation.binding import chain, check_mac, check_macs, filled, room_for, seal
from accord.negotiation.choice import explain
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
from accord.negotiation.events import Confirmed, Failed, MessageArrived, MessageComplete, Stop, Unconfirmed
from accord.negotiation.graph import Graph, Stack
from accord.negotiation.inbox import Inbox
from accord.negotiation.initiator_table import TABLE, InitiatorState
from accord.negotiation.interface import Refuse, Role
from accord.negotiation.machine import Table, pruned_words
from accord.negotiation.proposer import PLACEHOLDER_BYTES, Proposer
from accord.negotiation.proposing import Proposed, revealed
from accord.negotiation.repetition import repetition
from accord.negotiation.walk import Call, Walk
from accord.wire import tlv
from accord.wire.constants import Limit, NodeId, Reason, Step, TlvType
from accord.wire.errors import AccordError, PeerError, error
from accord.wire.node import Node

__all__ = ["Initiator", "InitiatorState", "Proposed"]

MAX_ATTEMPTS: Final = 8
"""Stacks of one answer that sessions are asked about, before it is given up."""
_NOT_STORED: Final = (Reason.UNSUPPORTED, Reason.NOT_AWAITED)
"""Reasons for nodes of a proposal of which the responder knows no more than the ID and the protocol."""
_TO_BE_HAD: Final = (Reason.NOT_PREFERRED, Reason.NOT_AWAITED)
"""Reasons for nodes that the responder could have had."""


class Initiator(Proposer):
    """One negotiation, from this side. Call ``start`` once, then ``receive`` for each event."""

    TABLE: ClassVar[Table] = TABLE
    ABORTED = InitiatorState.ABORTED

    def _walked(self, walk: Walk) -> None:
        try:
            if self.state is InitiatorState.PROPOSING:
                self._propose(walk)
            else:
                self._finish(walk)
        except AccordError as fault:
            self._fault(fault)

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
        self._refused, self._tried = {}, 0
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
        hollow = {node for node, reason in reasons.items() if reason == Reason.NOT_AWAITED}
        if hollow and (inbox.step != Step.ANSWER or self._graph.context.tlv(TlvType.OUTLINE) is None):
            raise error(
                Reason.BAD_TLV, f"NOT_AWAITED are nodes {sorted(hollow)}, of which nothing was to be known before"
            )
        self._check_choice(stack, reasons)
        if inbox.step == Step.ANSWER:
            proposal: list[transcript.Entry] = [
                (node.id, node.protocol, None if reasons.get(node.id) in _NOT_STORED else node)
                for node in self._graph.nodes.values()
            ]
            self._hash = transcript.extend(transcript.BEGIN, Step.PROPOSAL, proposal)
            self._repetition = repetition(answer.context, proposal)
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
        could_not = {node for node, reason in reasons.items() if reason not in _TO_BE_HAD}
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

    def _advance(self, step: int, before: Walk | None = None) -> None:
        """Whoever got an answer is given it; whoever could not speak so far is asked again. ``before``: who was asked
        already, for another stack of the same answer."""
        self.state = InitiatorState.ADVANCING
        answer, stack = self._answer, self._stack
        lower = answer if answer.only_stack() else answer.along([stack])
        self._next = lower
        reveals = False
        if any(answer.nodes[node_id].placeholder for node_id in stack):
            self._next = revealed(settled(lower), stack, self._plan)
            reveals = self._next.nodes.keys() != lower.nodes.keys()
        calls, above, continues = [], frozenset[int](), answer.context.continues
        for node_id in stack:
            node = answer.nodes[node_id]
            if before is not None and node_id in before.payloads:
                pass
            elif node.placeholder:
                calls += self._fillings(node, step + 1)
            elif (payload := self._due(node)) is not None:
                view = self._view(stack, node_id, step)
                # Whatever its session thinks of it: the other side's may not be done.
                calls.append(self._advancing(view, payload, above, concludes=node_id not in continues))
            if node_id == self._security and node_id not in self._keys:
                above = frozenset({node_id})  # nothing above hears of an answer that nobody vouches for yet
        self._bare = self._commit_nodes()
        room = room_for(self._bare) - PLACEHOLDER_BYTES * len(self._next.nodes)
        needs = partial(self._needs, self._next)
        walk = Walk(
            calls,
            room=room,
            budget=room,
            stop_at_refusal=not reveals,
            after=self._verify,
            results=self._results,
            needs=needs,
        )
        if before is not None:
            walk.follow(before, stack)
        self._start(walk)

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
        if self._take_next(walk):
            return
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

    def _take_next(self, walk: Walk) -> bool:
        """When a session refuses one of several stacks that are ours to choose from, the next best is asked.

        It has to be as secure: the refused payload may have been changed on the way, and only the MAC of another
        security node tells. What has been given to sessions stays so: above the same nodes, or not at all.
        """
        answer, old = self._answer, self._stack
        refused = {node_id: refusal for node_id, refusal in walk.refused.items() if node_id in old}
        if not refused or answer.only_stack() or any(each.reason == Reason.BAD_MAC for each in refused.values()):
            return False
        self._tried += 1
        self._refused.update({node_id: _reason_of(refusal) for node_id, refusal in refused.items()})
        heard = walk.payloads.keys()
        ordered = [
            each
            for each in self._chooser.order(self._candidates(answer.prune(self._refused)))
            if (each.secure or self._security is None) and _same_below(heard, old, each.ids)
        ]
        if not ordered or self._tried >= MAX_ATTEMPTS:
            return False
        for node_id, reason in self._refused.items():
            self._prune(node_id, reason)
        self._note(f"{pruned_words(self._refused)}; choosing {ordered[0].name} instead")
        self._stack, self._security = ordered[0].ids, self._security_node(ordered[0].ids)
        self._advance(self._step + 1, walk)
        return True

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
            node_id: self._refused.get(node_id, Reason.NOT_PREFERRED if node_id in self._liked else Reason.POLICY)
            for node_id in gone(self._answer.nodes, graph)
        }

    def _pruned_tlv(self, graph: Graph) -> tuple[tlv.Tlv, ...]:
        pruned = self._pruned(graph) if len(graph.nodes) != len(self._answer.nodes) else {}
        return (tlv.pruned(pruned),) if pruned else ()

    def _commit_nodes(self) -> list[Node]:
        """The commit without what the sessions have to say."""
        tlvs = (*self._pruned_tlv(self._next), tlv.transcript(self._hash), *self._repetition)
        context = Node(NodeId.CONTEXT, self._context, (), tlvs)
        return chain(context, self._answer, self._stack, {}, self._security)

    def _finally(self) -> None:
        assert self._security is None or self._security in self._keys
        nodes = filled(self._bare, self._words)
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


def _reason_of(refusal: Refuse) -> Reason:
    """To the other side UNSUPPORTED means something else: that a node was not stored."""
    return Reason.HANDSHAKE_FAILED if refusal.reason == Reason.UNSUPPORTED else refusal.reason


def _same_below(heard: AbstractSet[int], old: Stack, new: Stack) -> bool:
    """Whether all of these that are on both stacks stand on the same nodes in both."""
    return all(new[: new.index(node)] == old[: old.index(node)] for node in heard & set(old) & set(new))
