# SPDX-License-Identifier: Apache-2.0
"""The responder of the three-step exchange (HotNets 2009, section 2.2, Figure 1), sans-IO.

COLLECTING  The proposal gathers. Nobody has shown yet that anybody receives at the source address, so what is
            malformed gets silence; a proposal that is sound and comes to nothing gets the reason.
CHOOSING    The policy's best stack is asked for its handshakes, bottom to top, so that a session costs nothing
            when one below it has already refused. A session waits, for example for an early answer. When one
            refuses, its node is pruned and the next best stack is tried, a few times.
ANSWERED    The answer is sent. Its cookie cannot be guessed, so T(1) in a commit proves the peer's address.
ADVANCING   The commit is the peer's (T(1), and the MAC where there is a security session); a session waits.
COMMITTED   The sessions have committed. Repetitions of the commit are the engine's to acknowledge.
ABORTED     No stack. Nothing has any effect any more.

The initiator may abort in every state before COMMITTED, also before it has seen our answer.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final

from accord.negotiation import transcript
from accord.negotiation.binding import chain, check_mac, check_macs, room_for, seal
from accord.negotiation.choice import CandidateStack, Chooser, explain, forbidden
from accord.negotiation.events import (
    Failed,
    MessageComplete,
    NodeArrived,
    NodeSkipped,
    Prove,
    Resume,
    Stop,
)
from accord.negotiation.graph import Graph, Stack
from accord.negotiation.inbox import Inbox
from accord.negotiation.interface import Outcome, Refuse, Role, Session, View
from accord.negotiation.machine import EVENT_KINDS, Machine, Table, pruned_words
from accord.negotiation.walk import Walk, told
from accord.wire import tlv
from accord.wire.constants import NodeId, Protocol, Reason, Step, TlvType
from accord.wire.errors import AccordError, error
from accord.wire.node import Node

MAX_ATTEMPTS: Final = 8
"""Stacks that are asked for handshakes before a proposal is given up: a hostile one could name 63 that all cost
a signature and then fail."""

COOKIE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Accepted:
    """What this host has for the service that a proposal asks for."""

    chooser: Chooser
    open: Callable[[int, int], Session]
    """A new session for a node ID and its protocol. Called again for a node whose stack is tried anew."""
    peer: bytes | None = None
    """PEER of the answer, 32 bytes: what both proposals came to, where both sides proposed; None: one did."""


Accept = Callable[[int | None], Accepted | Refuse]
"""Given the port of SERVICE (None: the context's own port says it)."""


class ResponderState(enum.Enum):
    """See the module's docstring."""

    COLLECTING = "collecting"
    CHOOSING = "choosing"
    ANSWERED = "answered"
    ADVANCING = "advancing"
    COMMITTED = "committed"
    ABORTED = "aborted"


_S = ResponderState
_HANDLED: Final[Table] = {
    (_S.COLLECTING, NodeArrived): "_collect",
    (_S.COLLECTING, NodeSkipped): "_collect",
    (_S.COLLECTING, MessageComplete): "_message",
    (_S.COLLECTING, Failed): "_failed",
    (_S.COLLECTING, Stop): "_stop",
    (_S.CHOOSING, NodeArrived): "_collect",
    (_S.CHOOSING, NodeSkipped): "_collect",
    (_S.CHOOSING, MessageComplete): "_message",
    (_S.CHOOSING, Failed): "_failed",
    (_S.CHOOSING, Resume): "_resume",
    (_S.CHOOSING, Stop): "_stop",
    (_S.ANSWERED, NodeArrived): "_collect",
    (_S.ANSWERED, NodeSkipped): "_collect",
    (_S.ANSWERED, MessageComplete): "_message",
    (_S.ANSWERED, Failed): "_failed",
    (_S.ANSWERED, Stop): "_stop",
    (_S.ADVANCING, Failed): "_failed",
    (_S.ADVANCING, Resume): "_resume",
    (_S.ADVANCING, Stop): "_stop",
}


class Responder(Machine):
    """One negotiation, from this side: ``receive`` for each event."""

    ROLE = Role.RESPONDER
    TABLE: ClassVar[Table] = {
        (state, kind): _HANDLED.get((state, kind), "_ignore") for state in ResponderState for kind in EVENT_KINDS
    }
    ABORTED = ResponderState.ABORTED

    def __init__(
        self, transaction: bytes, accept: Accept, cookie: bytes, *, context_protocol: int = Protocol.UDP
    ) -> None:
        """``cookie``: 16 random bytes that nobody else knows. Raises ``ValueError`` when they are not 16."""
        super().__init__(transaction, context_protocol)
        if len(cookie) != COOKIE_BYTES:
            raise ValueError(f"a cookie has {COOKIE_BYTES} bytes")
        self.state = ResponderState.COLLECTING
        self._accept = accept
        self._cookie = cookie
        self._accepted: Accepted | None = None
        self._graph: Graph
        """What is left of the proposal."""
        self._protocols: dict[int, int] = {}
        self._reasons: dict[int, int] = {}
        """Why nodes of the proposal are gone."""
        self._first_refusal: Refuse | None = None
        self._attempts = 0
        self._budget = 0
        self._allowed: frozenset[int] = frozenset()
        self._stack: Stack = ()
        self._security: int | None = None
        self._key: bytes | None = None
        self._answer: Graph
        self._hash = transcript.BEGIN
        self._proven = False
        self.proposed: Graph | None = None
        """The proposal as it came, for whoever is asked to accept it."""

    # ---- messages ----

    def _message(self, event: MessageComplete) -> None:
        inbox = self._inboxes.get(event.step, Inbox(event.step))
        abort = inbox.abort
        if abort is not None:
            self._abort_by_peer(abort)
        elif event.step == Step.PROPOSAL:
            if self.state is ResponderState.COLLECTING:
                self._on_proposal(inbox, event.budget)
        elif event.step == Step.COMMIT and self.state is ResponderState.ANSWERED:
            self._on_commit(inbox)
        else:
            raise error(Reason.BAD_STEP, f"step {event.step} while {self.state.value}")

    # ---- step 0: choose ----

    def _on_proposal(self, inbox: Inbox, budget: int) -> None:
        inbox.check()
        proposal = Graph(inbox.nodes.values(), inbox.skipped)
        if proposal.context.protocol != self._context:
            raise error(Reason.NO_CONTEXT, f"{proposal.context.name} is not what its packets came by")
        service = proposal.context.service
        if service is None and self._context == Protocol.DIRECT:
            raise error(Reason.BAD_TLV, "SERVICE is missing, and the context has no ports")
        seen = [*transcript.entries(inbox.nodes.values())]
        seen += [transcript.Entry(node, protocol) for node, protocol in inbox.skipped.items()]
        self._hash = transcript.extend(transcript.BEGIN, Step.PROPOSAL, seen)
        self._protocols = {entry.id: entry.protocol for entry in seen}
        self._reasons = dict.fromkeys(inbox.skipped, Reason.UNSUPPORTED)
        # Elaborating placeholders takes more than three steps. UNSUPPORTED would say that the node was not stored.
        self._reasons |= {node.id: Reason.NOT_PREFERRED for node in inbox.nodes.values() if node.placeholder}
        self._graph = self.proposed = proposal
        self._drop(())
        self._budget = budget
        self.state = ResponderState.CHOOSING
        accepted = self._accept(service)
        if isinstance(accepted, Refuse):
            raise error(accepted.reason, accepted.detail)
        self._accepted = accepted
        self._try_next()

    def _drop(self, ids: tuple[int, ...]) -> None:
        """Nodes are out, and those that only they led to."""
        before = self._graph.nodes.keys()
        self._graph = self._graph.prune({*ids, *self._reasons})
        for node_id in before - self._graph.nodes.keys():
            self._reasons.setdefault(node_id, Reason.UNREACHABLE_NODE)

    def _refuse(self, node_id: int, refusal: Refuse) -> None:
        # To the initiator UNSUPPORTED means that the node was never stored, and goes into its transcript.
        reason = Reason.HANDSHAKE_FAILED if refusal.reason == Reason.UNSUPPORTED else refusal.reason
        self._first_refusal = self._first_refusal or refusal
        self._reasons[node_id] = reason
        self._note(f"{pruned_words({node_id: reason}, self._protocols)} {refusal.detail}".rstrip())
        self._prune(node_id, reason)
        self._drop((node_id,))

    def _try_next(self) -> None:
        """Ask the best stack that is left; raise the reason when there is none."""
        self._open_sessions()
        candidates = self._candidates(self._graph)
        assert self._accepted is not None
        ordered = self._accepted.chooser.order(candidates)
        if not ordered or self._attempts == MAX_ATTEMPTS:
            raise self._no_stack(candidates)
        self._attempts += 1
        self._allowed = frozenset(node for stack in ordered for node in stack.ids)
        self._stack = ordered[0].ids
        self._security = self._security_node(self._stack)
        calls = [
            self._call(
                self._stack,
                node_id,
                Step.PROPOSAL,
                partial(_respond, self._sessions[node_id], self._graph.nodes[node_id]),
            )
            for node_id in self._stack
        ]
        nodes = self._answer_nodes({})
        room = room_for(nodes)
        overhead = room_for(()) - room
        self._start(Walk(calls, room=room, budget=self._budget - overhead, stop_at_refusal=True, after=self._take_key))

    def _open_sessions(self) -> None:
        for node_id in self._graph.order():
            if node_id != NodeId.CONTEXT and node_id not in self._sessions and node_id in self._graph.nodes:
                failure = told(partial(self._open_session, node_id))
                if failure is not None:
                    self._refuse(node_id, failure)

    def _open_session(self, node_id: int) -> None:
        assert self._accepted is not None
        self._sessions[node_id] = self._accepted.open(node_id, self._protocols[node_id])

    def _take_key(self, node_id: int) -> Refuse | None:
        """The MAC's key is there once the security session has written its own last bytes."""
        if node_id != self._security:
            return None
        key = self._exporter(node_id)
        if isinstance(key, Refuse):
            return key
        self._key = key
        return None

    def _no_stack(self, candidates: list[CandidateStack]) -> AccordError:
        if self._first_refusal is not None:
            return error(self._first_refusal.reason, self._first_refusal.detail)
        assert self._accepted is not None
        chooser = self._accepted.chooser
        # The initiator is told which nodes a word of ours keeps out of every stack, whatever else is wrong with them.
        for node_id in forbidden(chooser, self._protocols):
            self._reasons.setdefault(node_id, Reason.POLICY)
        proposed = pruned_words(self._reasons, self._protocols) if self._reasons else ""
        reason = chooser.refusal(candidates) if candidates else Reason.NO_COMMON_STACK
        return error(reason, "; ".join(filter(None, (explain(chooser, candidates), proposed))))

    # ---- step 1: answer ----

    def _walked(self, walk: Walk) -> None:
        if self.state is ResponderState.ADVANCING:
            self._finish(walk)
            return
        if not walk.refused:
            self._answer_with(walk.payloads)
            return
        self._key = None
        for node_id, refusal in walk.refused.items():
            self._refuse(node_id, refusal)
        # What has answered did so for another stack: the next one gets new sessions.
        for node_id in walk.payloads:
            self._prune(node_id, Reason.NOT_PREFERRED)
        self._try_next()

    def _answer_nodes(self, payloads: dict[int, bytes]) -> list[Node]:
        reasons = {node_id: self._reason_why_gone(node_id) for node_id in self._protocols}
        gone = {node_id: reasons[node_id] for node_id in reasons.keys() - {NodeId.CONTEXT, *self._stack}}
        tlvs: tuple[tlv.Tlv, ...] = (tlv.cookie(self._cookie),)
        if gone:
            tlvs += (tlv.pruned(gone),)
        if self._accepted is not None and self._accepted.peer is not None:
            tlvs += (tlv.peer(self._accepted.peer),)
        return chain(Node(NodeId.CONTEXT, self._context, (), tlvs), self._graph, self._stack, payloads, self._security)

    def _reason_why_gone(self, node_id: int) -> int:
        fallback = Reason.NOT_PREFERRED if node_id in self._allowed else Reason.POLICY
        return self._reasons.get(node_id, fallback)

    def _answer_with(self, payloads: dict[int, bytes]) -> None:
        nodes = self._answer_nodes(payloads)
        self._answer = Graph(nodes)
        self._hash = transcript.extend(self._hash, Step.ANSWER, transcript.entries(nodes))
        gone = nodes[0].pruned
        for node_id, reason in gone.items():
            self._prune(node_id, reason)
        self.state = ResponderState.ANSWERED
        if gone:
            self._note(pruned_words(gone, self._protocols))
        self._send(Step.ANSWER, seal(nodes, self._key, Role.RESPONDER, self._hash))

    # ---- step 2: commit ----

    def _on_commit(self, inbox: Inbox) -> None:
        inbox.check()
        if inbox.skipped:
            raise error(Reason.NOT_PROPOSED, f"nodes {sorted(inbox.skipped)} of the commit are not in the answer")
        commit = Graph(inbox.nodes.values())
        given = commit.context.tlv(TlvType.TRANSCRIPT)
        if given is None or not transcript.equal(given, self._hash):
            raise error(Reason.BAD_TRANSCRIPT, "the commit answers another answer than ours")
        self._proven = True
        self._actions.append(Prove())
        if _shape(commit) != _shape(self._answer):
            raise error(Reason.NOT_PROPOSED, "the commit has another graph than the answer")
        check_macs(commit.nodes.values(), self._security)
        self._hash = transcript.extend(self._hash, Step.COMMIT, transcript.entries(commit.nodes.values()))
        if self._security is not None and self._key is not None:
            check_mac(commit.nodes[self._security], self._key, Role.INITIATOR, self._hash)
            self._note("the transcript is the peer's: MAC verified")
        self.state = ResponderState.ADVANCING
        self._start(Walk(self._advancing(self._stack, commit, Step.COMMIT), room=0, budget=0, stop_at_refusal=True))

    def _finish(self, walk: Walk) -> None:
        for refusal in walk.refused.values():
            raise error(refusal.reason, refusal.detail)
        committed = self._commit(self._stack, self._answer.protocols(self._stack), self._hash)
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
        answered = self.state in (ResponderState.ANSWERED, ResponderState.ADVANCING)
        step = Step.COMMIT + 1 if answered else Step.ANSWER
        return None if silent else step


def _respond(session: Session, node: Node, view: View) -> Outcome:
    return session.respond(view, node.payload)


def _shape(graph: Graph) -> dict[int, tuple[int, tuple[int, ...], bool]]:
    return {node.id: (node.protocol, node.children, node.placeholder) for node in graph.nodes.values()}
