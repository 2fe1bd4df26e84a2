# SPDX-License-Identifier: Apache-2.0
"""The responder of an exchange of three steps, or more (HotNets 2009, sections 2.2 and 2.3), sans-IO: what it makes of
messages. ``responder_table.py`` has its states, ``choosing.py`` how it comes to a stack.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from accord.negotiation import transcript
from accord.negotiation.binding import check_mac, check_macs, filled, seal
from accord.negotiation.choosing import COOKIE_BYTES, MAX_ATTEMPTS, Accept, Accepted, Choosing, Said
from accord.negotiation.elaboration import gone, successor, vouching
from accord.negotiation.events import MessageComplete, NodeArrived, NodeSkipped, Prove, Stop
from accord.negotiation.graph import Graph
from accord.negotiation.inbox import Inbox
from accord.negotiation.interface import Refuse, Role
from accord.negotiation.machine import Table, pruned_words
from accord.negotiation.outline import Outline
from accord.negotiation.responder_table import TABLE, ResponderState
from accord.negotiation.walk import Walk
from accord.wire.constants import Limit, NodeId, Protocol, Reason, Step, TlvType
from accord.wire.errors import AccordError, error

__all__ = ["COOKIE_BYTES", "MAX_ATTEMPTS", "Accept", "Accepted", "Responder", "ResponderState"]


class Responder(Choosing):
    """One negotiation, from this side: ``receive`` for each event."""

    TABLE: ClassVar[Table] = TABLE
    ABORTED = ResponderState.ABORTED

    @property
    def early(self) -> bool:
        """As ``Machine.early``: the context has told what the other nodes are."""
        return self._outline is not None and self.state is ResponderState.COLLECTING

    @property
    def hashed(self) -> bytes:
        """The transcript over all messages so far: T(1) once the answer was made."""
        return self._hash

    # ---- messages ----

    def _collect(self, event: NodeArrived | NodeSkipped) -> None:
        proposal = event.step == Step.PROPOSAL
        if proposal and self._hollow and self.state not in (ResponderState.COLLECTING, ResponderState.CHOOSING):
            return  # nobody waits for it any more, nor keeps it
        super()._collect(event)
        told = self._outline is not None or event.id == NodeId.CONTEXT
        if proposal and told and self.state is ResponderState.COLLECTING:
            self._on_part(self._inboxes[event.step], event.budget)

    def _message(self, event: MessageComplete) -> None:
        inbox = self._inboxes.get(event.step, Inbox(event.step))
        abort = inbox.abort
        if abort is not None:
            self._abort_by_peer(abort)
        elif event.step == Step.PROPOSAL:
            if self.state is ResponderState.COLLECTING:
                self._on_proposal(inbox, event.budget)
        elif event.step == self._step + 1 and self.state is ResponderState.ANSWERED:
            self._on_next(inbox, event.budget)
        elif event.step > self._step + 1:
            raise error(Reason.BAD_STEP, f"step {event.step} while {self.state.value}")

    def _on_part(self, inbox: Inbox, budget: int) -> None:
        """Choose before everything is here, where the context says what the rest is."""
        if self._outline is None:
            self._outline = Outline.of(inbox)
        outline = self._outline
        if outline is None or not budget or not (self._awaited <= inbox.met and outline.may_decide(inbox.nodes)):
            return
        inbox.check()
        outline.check(inbox)
        self._take_proposal(inbox, outline.graph(inbox), outline.missing(inbox))
        self._budget = budget
        self._ask_service()
        if isinstance(self._verdict, Accepted):
            self._choose()
        else:  # it is said when the proposal is whole, and sound
            self._awaited = frozenset(self._hollow)

    def _on_proposal(self, inbox: Inbox, budget: int) -> None:
        inbox.check()
        if self._outline is not None:
            outline = self._outline
            outline.check(inbox)
            if missing := outline.missing(inbox):
                raise error(Reason.BAD_TLV, f"nodes {sorted(missing)} of OUTLINE are not in the proposal")
        self._take_proposal(inbox, Graph(inbox.nodes.values(), inbox.skipped), {})
        self._budget = budget
        self.state = ResponderState.CHOOSING
        self._ask_service()
        if isinstance(self._verdict, Refuse):
            raise error(self._verdict.reason, self._verdict.detail)
        self._choose()

    def _take_proposal(self, inbox: Inbox, proposal: Graph, missing: Mapping[int, int]) -> None:
        """Whatever is chosen next is chosen from this. ``missing``: ID to protocol of what is hollow in it."""
        if proposal.context.protocol != self._context:
            raise error(Reason.NO_CONTEXT, f"{proposal.context.name} is not what its packets came by")
        if proposal.context.service is None and self._context == Protocol.DIRECT:
            raise error(Reason.BAD_TLV, "SERVICE is missing, and the context has no ports")
        seen = [*transcript.entries(inbox.nodes.values())]
        seen += [(node, protocol, None) for node, protocol in (*inbox.skipped.items(), *missing.items())]
        self._hash = transcript.extend(transcript.BEGIN, Step.PROPOSAL, seen)
        self._protocols = {node: protocol for node, protocol, _ in seen}
        self._hollow = frozenset(missing)
        refused = {node: reason for node, reason in self._reasons.items() if node in self._refused}
        self._reasons = {**dict.fromkeys(inbox.skipped, Reason.UNSUPPORTED), **refused}
        self._used, self._seen = set(self._protocols), set(self._protocols)
        self._graph = self.proposed = proposal
        self._drop(())

    def _ask_service(self) -> None:
        """Whether this host has what the proposal is for: asked once."""
        if self._verdict is None:
            assert self.proposed is not None, "asked about a proposal"
            self._verdict = self._accept(self.proposed.context.service)

    def _choose(self) -> None:
        assert isinstance(self._verdict, Accepted)
        self.state = ResponderState.CHOOSING
        self._accepted = self._verdict
        if any(node.placeholder for node in self._graph.nodes.values()):
            self._fill(self._accepted)
        self._try_next()

    # ---- the answers ----

    def _walked(self, walk: Walk) -> None:
        if self.state is ResponderState.ADVANCING:
            self._finish(walk)
            return
        if not walk.refused:
            self._answer_with(walk)
            return
        if any(node_id in self._answered for node_id in (*walk.payloads, *walk.refused)):
            for refusal in walk.refused.values():  # what has been said to the peer cannot be said anew
                raise error(refusal.reason, refusal.detail)
        for node_id in walk.payloads:
            self._keys.pop(node_id, None)
        for node_id, refusal in walk.refused.items():
            self._keys.pop(node_id, None)
            self._refuse(node_id, refusal)
        # What has answered did so for another stack: the next one gets new sessions.
        for node_id in walk.payloads:
            self._prune(node_id, Reason.NOT_PREFERRED)
        self._try_next()

    def _answer_with(self, walk: Walk) -> None:
        self._open_ended = (self._open_ended - walk.payloads.keys()) | walk.more
        said = Said(walk.payloads, walk.left, self._open_ended & self._shared.nodes.keys())
        as_foreseen = self._is_chain and not said.left and not said.more
        nodes = filled(self._bare, said.payloads) if as_foreseen else self._answer_nodes(said)
        step = self._step + 2 if self._step > 0 else Step.ANSWER
        if nodes[0].continues and step + 3 > Limit.MAX_STEPS:
            raise error(Reason.TOO_MANY_STEPS, f"and nodes {sorted(nodes[0].continues)} are not done")
        self._answer = Graph(nodes, tops=self._shared.tops)
        self._results, self._deferred = walk.results, walk.left
        self._answered |= walk.payloads.keys()
        for node_id in walk.left:
            self._heard.setdefault(node_id, self._graph.nodes[node_id].payload)
        self._hash = transcript.extend(self._hash, step, transcript.entries(nodes))
        gone = nodes[0].pruned
        for node_id in [*gone, *(self._sessions.keys() - self._answer.nodes.keys())]:
            self._prune(node_id, gone.get(node_id, Reason.NOT_PREFERRED))
        self._new = {}
        self.state = ResponderState.ANSWERED
        if gone:
            self._note(pruned_words(gone, self._protocols))
        self._send(step, seal(nodes, self._keys, Role.RESPONDER, self._hash))

    # ---- steps 2 and later ----

    def _on_next(self, inbox: Inbox, budget: int) -> None:
        """The commit, or another message before it."""
        inbox.check()
        if inbox.skipped:
            raise error(Reason.NOT_PROPOSED, f"nodes {sorted(inbox.skipped)} of the commit are not in the answer")
        context = inbox.nodes.get(NodeId.CONTEXT)
        given = context.tlv(TlvType.TRANSCRIPT) if context is not None else None
        if given is None or not transcript.equal(given, self._hash):
            raise error(Reason.BAD_TRANSCRIPT, "the commit answers another answer than ours")
        if not self._proven:
            self._proven = True
            self._actions.append(Prove())
        message = successor(self._answer, inbox.nodes.values(), Role.INITIATOR, self._used)
        pruned = message.context.pruned
        missing = gone(self._answer.nodes, message)
        if not pruned.keys() <= missing:
            raise error(Reason.BAD_TLV, f"PRUNED names nodes {sorted(pruned)}, and gone are {sorted(missing)}")
        if pruned.keys() != missing:
            raise error(Reason.NOT_PROPOSED, "the commit has another graph than the answer")
        self._check_continues(message)
        final = not message.context.continues
        stack = message.only_stack()
        if stack is not None and stack[-1] not in message.tops:
            stack = None
        if final and (stack not in self._offered or not self._answer.context.continues.isdisjoint(stack or ())):
            raise error(Reason.NOT_PROPOSED, "a commit of what is not decided, or not done")
        if stack is not None:
            self._stack, self._security = stack, self._security_node(stack)
        if stack is not None:
            vouches = frozenset() if self._security is None else frozenset({self._security})
        else:
            vouches = vouching(message, self._secure)
        check_macs(message.nodes.values(), vouches if final else vouches & self._keys.keys())
        self._hash = transcript.extend(self._hash, inbox.step, transcript.entries(message.nodes.values()))
        for node_id in vouches & self._keys.keys():
            check_mac(message.nodes[node_id], self._keys[node_id], Role.INITIATOR, self._hash)
            self._note("the transcript is the peer's: MAC verified")
        self.bound = True
        for node_id, reason in pruned.items():
            self._prune(node_id, reason)
        if pruned:
            self._note("the peer " + pruned_words(pruned, self._protocols))
        if final:
            self.state = ResponderState.ADVANCING
            calls = [
                self._advancing(self._view(self._stack, node_id, inbox.step), message.nodes[node_id].payload)
                for node_id in self._stack
            ]
            self._answer = message
            self._start(Walk(calls, room=0, budget=0, stop_at_refusal=True))
        else:
            self._on_more(message, budget)

    def _on_more(self, message: Graph, budget: int) -> None:
        continues = message.context.continues
        for node in message.nodes.values():
            if node.payload and (node.placeholder or node.id not in continues):
                raise error(Reason.NOT_PROPOSED, f"{node.name} speaks out of turn")
        self._protocols = {node.id: node.protocol for node in message.nodes.values()}
        self._seen = set(message.nodes)
        self._used.update(message.nodes)
        self._graph, self._reasons, self._budget, self._attempts = message, {}, budget, 0
        self._hollow = frozenset()
        self._first_refusal = None
        self.state = ResponderState.ELABORATING
        self._try_next()

    def _finish(self, walk: Walk) -> None:
        for refusal in walk.refused.values():
            raise error(refusal.reason, refusal.detail)
        committed = self._commit(self._stack, self._answer.protocols(self._stack), self._hash, self._step + 1)
        self.state = ResponderState.COMMITTED
        self._actions.append(committed)

    # ---- ends ----

    def _stop(self, event: Stop) -> None:
        # Before a whole proposal is in there is nothing to answer.
        self._abort(event.reason, event.detail, tell=self._next_step(silent=self.state is ResponderState.COLLECTING))

    def _fault(self, fault: AccordError) -> None:
        if self.state in (ResponderState.COMMITTED, ResponderState.ABORTED):
            return
        choosing = self.state is ResponderState.CHOOSING
        silent = not choosing and not self._proven
        pruned = self._reasons if choosing else None
        self._abort(fault.reason, fault.detail, tell=self._next_step(silent=silent), pruned=pruned)

    def _next_step(self, *, silent: bool) -> int | None:
        step = self._step + 2 if self._step > 0 else int(Step.ANSWER)
        return None if silent else step
