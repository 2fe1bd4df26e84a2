# SPDX-License-Identifier: Apache-2.0
"""The responder's choice (HotNets 2009, section 2.2): the best stack of a graph whose sessions all answer, sans-IO."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Final

from accord.negotiation import transcript
from accord.negotiation.binding import chain, room_for
from accord.negotiation.choice import CandidateStack, Chooser, explain, forbidden
from accord.negotiation.elaboration import compose, fills, is_subgraph, places, replaced, vouching
from accord.negotiation.graph import Graph, Stack
from accord.negotiation.interface import Elaboration, Outcome, Refuse, Role, Session, View, elaboration_of
from accord.negotiation.machine import Machine, pruned_words
from accord.negotiation.outline import Outline
from accord.negotiation.responder_table import ResponderState
from accord.negotiation.walk import Call, Walk, told
from accord.wire import tlv
from accord.wire.constants import NodeId, Protocol, Reason, Step
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


@dataclass(frozen=True, slots=True)
class Said:
    """What sessions have to say in an answer."""

    payloads: Mapping[int, bytes]
    left: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Nodes that could not be asked, or defer."""
    more: Set[int] = frozenset()
    """Nodes that are not done."""


class Choosing(Machine):
    """What a responder does from a graph that it has to choose from to the nodes of its answer."""

    ROLE = Role.RESPONDER

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
        self._verdict: Accepted | Refuse | None = None
        """What this host says of the proposal's service; None: it was not asked yet."""
        self._accepted: Accepted | None = None
        self._graph: Graph
        """What is left of the proposal."""
        self._protocols: dict[int, int] = {}
        self._reasons: dict[int, int] = {}
        """Why nodes of the proposal are gone."""
        self._refused: set[int] = set()
        """Of these, those that a session refused."""
        self._outline: Outline | None = None
        self._hollow: frozenset[int] = frozenset()
        """Nodes that the choice is made without: they have not come."""
        self._awaited: frozenset[int] = frozenset()
        """Of these, those that the best stack has."""
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
        self._bare: list[Node] = []
        """The answer without what the sessions have to say."""
        self._is_chain = False
        """It holds one stack, of which nothing is left open."""
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
        self.bound = False
        """The initiator's latest message is of this negotiation: it bore the right T, and MAC where it has to."""
        self._proven = False
        self.repeat: Callable[[bytes, bool], bytes] | None = None
        """Of a responder that keeps nothing: the value of REPEAT, given T(0) and whether the stack has security."""
        self.proposed: Graph | None = None
        """The proposal as it came, for whoever is asked to accept it."""

    def forget(self) -> None:
        """As ``Machine.forget``."""
        super().forget()
        self._accept, self._accepted, self._verdict = _nobody, None, None

    def _fill(self, accepted: Accepted) -> None:
        """Put what we have into the placeholders that are ours to fill, and forget those that cannot be filled."""
        for node in list(self._graph.nodes.values()):
            if not is_subgraph(node) or node.id not in self._graph.nodes:  # it may have gone with one before
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
        self._refused.add(node_id)
        self._note(f"{pruned_words({node_id: reason}, self._protocols)} {refusal.detail}".rstrip())
        self._prune(node_id, reason)
        self._drop((node_id,))

    def _try_next(self) -> None:
        """Ask the best stack that is left; raise the reason when there is none."""
        self._open_sessions()
        candidates = self._candidates(self._graph)
        assert self._accepted is not None
        ordered = self._accepted.chooser.order(candidates)
        enough = bool(ordered) and self._attempts < MAX_ATTEMPTS
        if self._hollow and not (enough and self._hollow.isdisjoint(ordered[0].ids)):
            self._await(self._hollow.intersection(ordered[0].ids) if enough else self._hollow)
            return
        if not enough:
            raise self._no_stack(candidates)
        self._attempts += 1
        self._allowed = frozenset(node for stack in ordered for node in stack.ids)
        self._stack = ordered[0].ids
        self._security = self._security_node(self._stack)
        self._share(ordered)
        calls = [call for node_id in self._order() if (call := self._asked(node_id)) is not None]
        self._bare = self._answer_nodes(Said({}))
        room = room_for(self._bare)
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

    def _await(self, nodes: frozenset[int]) -> None:
        """What is here does not decide."""
        self._awaited = nodes
        self.state = ResponderState.COLLECTING

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
                if failure is not None and node_id in self._hollow:
                    self._drop((node_id,))  # it cannot be had; why is seen, and said, if it comes
                elif failure is not None:
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

    # ---- what is chosen, as a message ----

    def _answer_nodes(self, said: Said) -> list[Node]:
        kept = self._shared.nodes.keys()
        gone_ = self._seen - kept - {self._graph.nodes[each].elaborates for each in kept & self._new.keys()}
        gone = {node_id: self._reason_why_gone(node_id) for node_id in gone_}
        tlvs: tuple[tlv.Tlv, ...] = (tlv.cookie(self._cookie),) if self._step < Step.ANSWER else ()
        if gone:
            tlvs += (tlv.pruned(gone),)
        if self._accepted is not None and self._accepted.peer is not None and self._step < Step.ANSWER:
            tlvs += (tlv.peer(self._accepted.peer),)
        if self.repeat is not None and self._step < Step.ANSWER:
            tlvs += (tlv.repeat(self.repeat(self._hash, self._security is not None)),)
        held = self._held(said)
        if not held and not said.more and len(kept) == len(self._stack) + 1 and not self._new.keys() & kept:
            self._is_chain = True
            context = Node(NodeId.CONTEXT, self._context, (), tlvs)
            return chain(context, self._graph, self._stack, said.payloads, self._security)
        self._is_chain = False
        continues = held.keys() | said.more
        if continues:  # its type is lower than PEER's
            tlvs = tuple(sorted((*tlvs, tlv.continues(continues)), key=attrgetter("type")))
        context = Node(NodeId.CONTEXT, self._context, (), tlvs)
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
        if node_id in self._hollow and self._step < Step.ANSWER:
            return Reason.NOT_AWAITED
        fallback = Reason.NOT_PREFERRED if node_id in self._allowed else Reason.POLICY
        return self._reasons.get(node_id, fallback)


def _respond(session: Session, payload: bytes, view: View) -> Outcome:
    return session.respond(view, payload)


def _nobody(service: int | None) -> Refuse:
    """Who accepts when all is over."""
    return Refuse(Reason.CLOSED)
