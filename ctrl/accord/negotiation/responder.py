# SPDX-License-Identifier: Apache-2.0
"""The responder of an exchange of three steps, or more (HotNets 2009, sections 2.2 and 2.3), sans-IO.

COLLECTING  The proposal gathers. Nobody has shown yet that anybody receives at the source address, so what is
            malformed gets silence; a proposal that is sound and comes to nothing gets the reason.
CHOOSING    The policy's best stack is asked for its handshakes, bottom to top, so that a session costs nothing
            when one below it has already refused. A session waits, for example for an early answer. When one
            refuses, its node is pruned and the next best stack is tried, a few times.
ANSWERED    The answer is sent. Its cookie cannot be guessed, so T(1) in a commit proves the peer's address.
ELABORATING The initiator's next message is no commit: it answers what was left open, or fills its placeholders. What
            is new in it is chosen from and asked as in CHOOSING, what goes on is asked, and a session waits. The
            answer to it leads to ANSWERED again.
ADVANCING   The commit is the peer's (T(1), and the MAC where there is a security session); a session waits.
COMMITTED   The sessions have committed. Repetitions of the commit are the engine's to acknowledge.
ABORTED     No stack. Nothing has any effect any more.

The initiator may abort in every state before COMMITTED, also before it has seen our answer.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Final

from accord.negotiation import transcript
from accord.negotiation.binding import chain, check_mac, check_macs, room_for, seal
from accord.negotiation.choice import CandidateStack, Chooser, explain, forbidden
from accord.negotiation.elaboration import compose, fills, gone, is_subgraph, places, replaced, successor, vouching
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
from accord.negotiation.interface import Elaboration, Outcome, Refuse, Role, Session, View, elaboration_of
from accord.negotiation.machine import EVENT_KINDS, Machine, Table, pruned_words
from accord.negotiation.walk import Call, Walk, told
from accord.wire import tlv
from accord.wire.constants import Limit, NodeId, Protocol, Reason, Step, TlvType
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
    elaborate: Callable[[frozenset[int]], Sequence[tuple[int, ...]]] | None = None
    """Stacks of protocols, bottom to top, best first, that this host would put into a placeholder that may be filled
    with these; None: it fills none."""
    known: frozenset[int] = frozenset()
    """Protocols that an initiator may fill a placeholder of its own with."""


Accept = Callable[[int | None], Accepted | Refuse]
"""Given the port of SERVICE (None: the context's own port says it)."""


class ResponderState(enum.Enum):
    """See the module's docstring."""

    COLLECTING = "collecting"
    CHOOSING = "choosing"
    ANSWERED = "answered"
    ELABORATING = "elaborating"
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
    (_S.ELABORATING, NodeArrived): "_collect",
    (_S.ELABORATING, NodeSkipped): "_collect",
    (_S.ELABORATING, MessageComplete): "_message",
    (_S.ELABORATING, Failed): "_failed",
    (_S.ELABORATING, Resume): "_resume",
    (_S.ELABORATING, Stop): "_stop",
    (_S.ADVANCING, Failed): "_failed",
    (_S.ADVANCING, Resume): "_resume",
    (_S.ADVANCING, Stop): "_stop",
}


@dataclass(frozen=True, slots=True)
class Said:
    """What sessions have to say in an answer."""

    payloads: Mapping[int, bytes]
    left: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Nodes that could not be asked, or defer."""
    more: Set[int] = frozenset()
    """Nodes that are not done."""


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
        self._answer: Graph
        self._shared: Graph
        """What this answer is about: the best stack, or with it what it is the initiator's to choose from."""
        self._offered: list[Stack] = []
        """The stacks of the answer: one, or those that it is the initiator's to choose from."""
        self._new: dict[int, tuple[tlv.Tlv, ...]] = {}
        """Nodes that we put into a placeholder, and their TLVs."""
        self._seen: set[int] = set()
        """Node IDs of the initiator's latest message."""
        self._answered: set[int] = set()
        """Nodes whose sessions have said something to the peer."""
        self._heard: dict[int, bytes] = {}
        """First handshake bytes that a session has not answered yet."""
        self._open_ended: set[int] = set()
        """Nodes whose sessions expect another message before they are done."""
        self._vouches: frozenset[int] = frozenset()
        """Security nodes that bear a MAC in the answer, if their keys are there."""
        self._unfilled: frozenset[int] = frozenset()
        """Subgraphs of the stack that the initiator has still to fill."""
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
        elif event.step == self._step + 1 and self.state is ResponderState.ANSWERED:
            self._on_next(inbox, event.budget)
        elif event.step > self._step + 1:
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
        self._used, self._seen = set(self._protocols), set(self._protocols)
        self._graph = self.proposed = proposal
        self._drop(())
        self._budget = budget
        self.state = ResponderState.CHOOSING
        accepted = self._accept(service)
        if isinstance(accepted, Refuse):
            raise error(accepted.reason, accepted.detail)
        self._accepted = accepted
        if any(node.placeholder for node in self._graph.nodes.values()):
            self._fill(accepted)
        self._try_next()

    def _fill(self, accepted: Accepted) -> None:
        """Put what we have into the placeholders that are ours to fill, and forget those that cannot be filled."""
        for node in list(self._graph.nodes.values()):
            if not is_subgraph(node):
                continue
            if fills(node, Role.INITIATOR):
                if not accepted.known:
                    self._reasons[node.id] = Reason.UNFILLED
                continue
            stacks = accepted.elaborate(node.filling[1]) if accepted.elaborate else ()
            known = [stack for stack in stacks if node.filling[1].issuperset(stack)]
            self._graph, protocols = replaced(self._graph, node.id, known, self._used)
            self._used.update(protocols)
            self._protocols |= protocols
            if not protocols.keys() & self._graph.nodes.keys():
                self._reasons[node.id] = Reason.UNFILLED
            for node_id in protocols:
                self._new[node_id] = (tlv.elaborates(node.id),)
        self._drop(())

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
        self._share(ordered)
        calls = [call for node_id in self._order() if (call := self._asked(node_id)) is not None]
        nodes = self._answer_nodes(Said({}))
        room = room_for(nodes)
        overhead = room_for(()) - room
        self._start(
            Walk(
                calls,
                room=room,
                budget=self._budget - overhead,
                stop_at_refusal=True,
                after=self._take_key,
                results=self._results,
                needs=partial(self._needs, self._shared),
            )
        )

    def _share(self, ordered: Sequence[CandidateStack]) -> None:
        """The best stack. Where it goes through what we put into a placeholder, all that could be there: it is the
        initiator who chooses from that."""
        self._offered = [self._stack]
        if not self._new.keys().isdisjoint(self._stack):
            at = places(self._graph, self._stack)
            self._offered = [stack.ids for stack in ordered if places(self._graph, stack.ids) == at]
        self._shared = self._graph.along(self._offered)
        if len(self._offered) == 1:
            self._vouches = frozenset() if self._security is None else frozenset({self._security})
        else:
            self._vouches = vouching(self._shared, self._secure)
        self._unfilled = frozenset(each for each in self._stack if is_subgraph(self._graph.nodes[each]))

    def _order(self) -> Sequence[int]:
        """The nodes of the answer, bottom to top, without the context."""
        if len(self._shared.nodes) == len(self._stack) + 1:
            return self._stack
        return [node_id for node_id in self._shared.order() if node_id != NodeId.CONTEXT]

    def _asked(self, node_id: int) -> Call | None:
        """What is to be asked of a session now; None: nothing, it is not its turn."""
        node, session = self._graph.nodes[node_id], self._sessions.get(node_id)
        step = self._step + 1
        if session is None or self._is_theirs(node):
            return None
        single = len(self._shared.nodes) == len(self._stack) + 1
        view = self._view(self._stack, node_id, step) if single else self._wide_view(self._shared, node_id, step)
        if node_id in self._answered:
            return self._advancing(view, node.payload) if node_id in self._graph.context.continues else None
        after = self._deferred.get(node_id, frozenset()) & self._shared.nodes.keys()
        if self._unfilled:  # whoever does not know yet what is below it waits: it may be less secure, or more
            after |= self._unfilled.intersection(self._shared.below(node_id))
        payload = self._heard.get(node_id, node.payload)
        return Call(node_id, session, view, partial(_respond, session, payload), after)

    def _is_theirs(self, node: Node) -> bool:
        """A placeholder that the initiator fills: one of its own, or what we offer and it has to begin."""
        if node.id in self._new:
            return elaboration_of(self._sessions[node.id]) is Elaboration.FREE
        return fills(node, Role.INITIATOR)

    def _open_sessions(self) -> None:
        for node_id in self._graph.order():
            if node_id != NodeId.CONTEXT and node_id not in self._sessions and node_id in self._graph.nodes:
                failure = told(partial(self._open_session, node_id))
                if failure is not None:
                    self._refuse(node_id, failure)

    def _open_session(self, node_id: int) -> None:
        assert self._accepted is not None
        node = self._graph.nodes[node_id]
        if is_subgraph(node):
            return
        session = self._accepted.open(node_id, self._protocols[node_id])
        rule = elaboration_of(session)
        filled = node.placeholder and fills(node, Role.RESPONDER)
        if (node_id in self._new and rule is Elaboration.EXPLICIT) or (
            filled and rule is not Elaboration.INITIATOR_PLACEHOLDER
        ):
            raise error(Reason.BAD_ELABORATION, f"{node.name} has to be explicit, by its protocol's rule")
        self._sessions[node_id] = session

    def _take_key(self, node_id: int) -> Refuse | None:
        """The MAC's key is there once the security session has written its own last bytes."""
        if node_id not in self._vouches or node_id in self._keys:
            return None
        key = self._exporter(node_id)
        if isinstance(key, Refuse):
            return key
        self._keys[node_id] = key
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

    def _answer_nodes(self, said: Said) -> list[Node]:
        kept = self._shared.nodes.keys()
        gone_ = self._seen - kept - {self._graph.nodes[each].elaborates for each in kept & self._new.keys()}
        gone = {node_id: self._reason_why_gone(node_id) for node_id in gone_}
        tlvs: tuple[tlv.Tlv, ...] = (tlv.cookie(self._cookie),) if self._step < Step.ANSWER else ()
        if gone:
            tlvs += (tlv.pruned(gone),)
        if self._accepted is not None and self._accepted.peer is not None and self._step < Step.ANSWER:
            tlvs += (tlv.peer(self._accepted.peer),)
        held = self._held(said)
        if not held and not said.more and len(kept) == len(self._stack) + 1 and not self._new.keys() & kept:
            context = Node(NodeId.CONTEXT, self._context, (), tlvs)
            return chain(context, self._graph, self._stack, said.payloads, self._security)
        continues = held.keys() | said.more
        context = Node(NodeId.CONTEXT, self._context, (), (*tlvs, *([tlv.continues(continues)] if continues else [])))
        own = {each: [*self._new.get(each, ()), *([held[each]] if each in held else [])] for each in kept}
        return compose(context, self._shared, self._order(), said.payloads, own, self._vouches & self._keys.keys())

    def _held(self, said: Said) -> dict[int, tlv.Tlv]:
        """PLACEHOLDER of those nodes of the answer that are still, or for now, placeholders."""
        held = {}
        for node_id in self._order():
            node = self._graph.nodes[node_id]
            if node_id in said.left:
                held[node_id] = tlv.placeholder(by_responder=True)
            elif is_subgraph(node):
                assert self._accepted is not None
                held[node_id] = tlv.placeholder(by_responder=False, protocols=self._accepted.known)
            elif self._is_theirs(node):
                held[node_id] = tlv.placeholder(by_responder=False)
        return held

    def _reason_why_gone(self, node_id: int) -> int:
        fallback = Reason.NOT_PREFERRED if node_id in self._allowed else Reason.POLICY
        return self._reasons.get(node_id, fallback)

    def _answer_with(self, walk: Walk) -> None:
        self._open_ended = (self._open_ended - walk.payloads.keys()) | walk.more
        said = Said(walk.payloads, walk.left, self._open_ended & self._shared.nodes.keys())
        nodes = self._answer_nodes(said)
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


def _respond(session: Session, payload: bytes, view: View) -> Outcome:
    return session.respond(view, payload)
