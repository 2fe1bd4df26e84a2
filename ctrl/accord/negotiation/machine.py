# SPDX-License-Identifier: Apache-2.0
"""What the initiator's and the responder's state machines have in common.

A machine is a table: (state, kind of event) to the name of the method that handles it. Every pair is in it,
also those in which nothing happens, so that what a repeated or late event does is a decision that was taken.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, get_args

from accord.negotiation.choice import CandidateStack
from accord.negotiation.elaboration import is_subgraph
from accord.negotiation.events import (
    Aborted,
    Action,
    Committed,
    Event,
    Failed,
    NodeArrived,
    NodeSkipped,
    Note,
    Resume,
    Send,
)
from accord.negotiation.graph import Graph, Stack, stack_name
from accord.negotiation.guard import UNGUARDED, Guard
from accord.negotiation.inbox import Inbox
from accord.negotiation.interface import Outcome, Refuse, Role, Session, View
from accord.negotiation.walk import Call, Walk
from accord.wire import tlv
from accord.wire.constants import Limit, NodeId, Party, Reason, TlvType, protocol_name, reason_of
from accord.wire.errors import AccordError, error
from accord.wire.message import Message
from accord.wire.node import Node

MAX_COSTLY: Final = 4
"""Handshakes that cost a signature or a decapsulation (``Session.costly``), begun for one message of a responder:
enough for two stacks of two such nodes. A proposal may name 63, on stacks of which each fails only at its top."""

EVENT_KINDS: Final[tuple[type, ...]] = get_args(Event)

Table = Mapping[tuple[Any, type], str]


class Machine:
    """Events in, actions out."""

    ROLE: ClassVar[Role]
    TABLE: ClassVar[Table]
    ABORTED: ClassVar[enum.Enum]
    """The state that ends a negotiation without a stack."""

    def __init__(self, transaction: bytes, context_protocol: int) -> None:
        self.transaction = transaction
        self.state: enum.Enum
        self._context = context_protocol
        self._actions: list[Action] = []
        self._inboxes: dict[int, Inbox] = {}
        self._sessions: dict[int, Session] = {}
        """Those that have not been pruned, by node ID. A placeholder for a subgraph has none."""
        self._step = -1
        """Of our latest message."""
        self._used: set[int] = set()
        """Every node ID that the negotiation has had."""
        self._results: set[int] = set()
        """Nodes of which this side knows what comes of them."""
        self._deferred: dict[int, frozenset[int]] = {}
        """Our own placeholders for one protocol: what each waits for."""
        self._keys: dict[int, bytes] = {}
        """Exporters of security nodes, those of the initiator's once a MAC of the peer's was verified with it."""
        self._walk: Walk | None = None
        self._costly = 0
        """Sessions that were asked for a costly handshake since our latest message."""
        self.guard: Guard = UNGUARDED
        """Through which sessions are called."""

    def receive(self, event: Event) -> tuple[Action, ...]:
        """Handle one event. The actions are to be carried out in their order."""
        handler: Callable[[Any], None] = getattr(self, self.TABLE[self.state, type(event)])
        try:
            handler(event)
        except AccordError as fault:
            self._fault(fault)
        return self._take_actions()

    @property
    def waiting(self) -> int | None:
        """The node whose session waits for something on this host; None: none does."""
        return None if self._walk is None or self.state is self.ABORTED else self._walk.waiting

    @property
    def early(self) -> bool:
        """Whether the next node of the peer's may be answered before its message is whole: then its budget counts."""
        return False

    def forget(self) -> None:
        """Nothing more will be asked of it: let go of what refers back to it, and of the sessions."""
        self._walk = None
        self._sessions = {}
        self._inboxes = {}

    # ---- handlers that both tables name ----

    def _ignore(self, event: Event) -> None:
        """Too late, too early or a repetition."""

    def _collect(self, event: NodeArrived | NodeSkipped) -> None:
        steps_of_peer = 1 if self.ROLE is Role.INITIATOR else 0
        if event.step % 2 != steps_of_peer or event.step >= Limit.MAX_STEPS:
            raise error(Reason.BAD_STEP, f"step {event.step} is not the peer's")
        if event.step not in self._inboxes:
            self._inboxes[event.step] = Inbox(event.step)
        self._inboxes[event.step].add(event)

    def _failed(self, event: Failed) -> None:
        self._abort(event.reason, event.detail)

    def _resume(self, event: Resume) -> None:
        assert self._walk is not None
        if self._walk.waiting == event.id and self._walk.resume(event.id):
            self._walked(self._walk)

    # ---- what a role adds ----

    def _fault(self, fault: AccordError) -> None:
        """A handler found that the peer broke the protocol, or that there is no stack."""
        raise NotImplementedError

    def _walked(self, walk: Walk) -> None:
        """Every session of the walk has answered, or one refused."""
        raise NotImplementedError

    # ---- actions ----

    def _take_actions(self) -> tuple[Action, ...]:
        actions, self._actions = tuple(self._actions), []
        return actions

    def _note(self, text: str) -> None:
        self._actions.append(Note(text))

    def _send(self, step: int, nodes: Iterable[Node], packets_min: int = 0) -> None:
        self._actions.append(Send(step, Message(step, tuple(nodes)).encode(), packets_min))
        self._step, self._costly = step, 0

    def _start(self, walk: Walk) -> None:
        self._walk, walk.guard = walk, self.guard
        if self.ROLE is Role.RESPONDER:
            walk.admit = self._admit
        if walk.run():
            self._walked(walk)
        else:
            self._note(f"waiting: {walk.why}" if walk.why else "waiting")

    def _admit(self, call: Call) -> Refuse | None:
        """Whoever proposes pays nothing for what we compute: there is a bound to that (threat model, row 7)."""
        if call.method != "respond" or not getattr(call.session, "costly", False):
            return None
        self._costly += 1
        if self._costly <= MAX_COSTLY:
            return None
        return Refuse(Reason.OVER_BUDGET, f"{MAX_COSTLY} costly handshakes have been begun for this message")

    # ---- ends ----

    def _abort(
        self,
        reason: Reason,
        detail: str = "",
        *,
        tell: int | None = None,
        pruned: Mapping[int, int] | None = None,
        by_peer: bool = False,
    ) -> None:
        """End without a stack. ``tell``: the step of the message that tells the peer; None: silence."""
        self.state = self.ABORTED
        for node_id in list(self._sessions):
            session = self._sessions.pop(node_id)
            self._told(node_id, session, "abort", partial(session.abort, reason))
        if tell is not None and tell < Limit.MAX_STEPS:
            tlvs = (tlv.pruned(pruned),) if pruned else ()
            self._send(tell, [Node(NodeId.CONTEXT, self._context, (), (*tlvs, tlv.reason(reason)))])
        # The table of reasons says OURS, HOST or USER from where the reason arose; what arose over there is the peer's.
        theirs = by_peer and reason.party in (Party.OURS, Party.HOST, Party.USER)
        self._actions.append(Aborted(reason, detail, Party.PEER if theirs else reason.party, by_peer))

    def _abort_by_peer(self, context: Node) -> None:
        number = context.reason or 0
        reason = reason_of(number)
        detail = "" if reason else f"with reason number {number}, which is not known here"
        if context.pruned:
            self._note("the peer " + pruned_words(context.pruned))
        self._abort(reason or Reason.NO_COMMON_STACK, detail, by_peer=True)

    def _prune(self, node_id: int, reason: int) -> None:
        """Tell a session that its node is out."""
        session = self._sessions.pop(node_id, None)
        if session is not None:
            known = reason_of(reason) or Reason.NOT_PREFERRED
            self._told(node_id, session, "prune", partial(session.prune, known))

    def _commit(self, stack: Stack, protocols: Sequence[int], hashed: bytes, step: int) -> Committed:
        """Bottom to top: a session that commits finds the one below it committed. Raises its error.

        ``hashed``: the transcript with the commit, which is the message of this ``step``."""
        for node_id in stack:
            session, view = self._sessions[node_id], self._view(stack, node_id, step)
            failure = self.guard.tell(session, "commit", partial(session.commit, view))
            if failure is not None:
                raise error(failure.reason, failure.detail or f"node {node_id} could not commit")
        sessions = tuple(self._sessions[node_id] for node_id in stack)
        return Committed(stack, tuple(protocols), sessions, stack_name(protocols), hashed)

    def _told(self, node_id: int, session: Session, method: str, call: Callable[[], None]) -> None:
        failure = self.guard.tell(session, method, call)
        if failure is not None:
            self._note(f"node {node_id} failed while it was let go, {failure.detail}")

    # ---- stacks ----

    def _candidates(self, graph: Graph) -> list[CandidateStack]:
        return [self._candidate(graph, stack) for stack in graph.stacks()]

    def _candidate(self, graph: Graph, stack: Stack) -> CandidateStack:
        secure, preference, worded, protocols = False, 0, False, []
        for node_id in stack:
            node = graph.nodes[node_id]
            protocols.append(node.protocol)
            # What a placeholder will hold may be secure: whether it is, is asked again when it is there.
            secure = secure or self._secure(node_id) or is_subgraph(node)
            if node.tlvs:
                preference = node.preference or preference
                worded = worded or node.tlv(TlvType.WORD) is not None
        words: tuple[int, ...] = ()
        if worded and self.ROLE is Role.RESPONDER:
            words = tuple([graph.nodes[node_id].word for node_id in stack])
        return CandidateStack(stack, tuple(protocols), secure, preference, words)

    def _security_node(self, stack: Stack) -> int | None:
        """The topmost one: its MAC vouches for everything."""
        return next((node_id for node_id in reversed(stack) if self._secure(node_id)), None)

    def _secure(self, node_id: int) -> bool:
        session = self._sessions.get(node_id)
        return session is not None and session.secure

    def _view(self, stack: Stack, node_id: int, step: int) -> View:
        place = stack.index(node_id)
        below = tuple([self._sessions[other] for other in reversed(stack[:place]) if other in self._sessions])
        above = tuple([self._sessions[other] for other in stack[place + 1 :] if other in self._sessions])
        return View(self.ROLE, step, node_id, below, above)

    def _wide_view(self, graph: Graph, node_id: int, step: int) -> View:
        """As long as there are several stacks: all that may be next to the session."""
        below = tuple([self._sessions[other] for other in graph.below(node_id) if other in self._sessions])
        above = tuple([self._sessions[other] for other in graph.above(node_id) if other in self._sessions])
        return View(self.ROLE, step, node_id, below, above)

    def _advancing(
        self, view: View, payload: bytes, after: frozenset[int] = frozenset(), *, concludes: bool = True
    ) -> Call:
        """The node's session is to be given what the peer's message holds for it."""
        session = self._sessions[view.node_id]
        return Call(view.node_id, session, view, partial(_advance, session, payload), after, concludes, defers=False)

    def _needs(self, graph: Graph, node_id: int, after: frozenset[int]) -> frozenset[int]:
        """The nodes that a session means that defers: those below with that protocol, else the one with that ID. None
        at all when it means one that is not there."""
        below = graph.below(node_id)
        found: set[int] = set()
        for number in after:
            named = [other for other in below if graph.nodes[other].protocol == number]
            if not named and number in graph.nodes.keys() - {NodeId.CONTEXT, node_id}:
                named = [number]
            if not named:
                return frozenset()
            found.update(named)
        return frozenset(found)

    def _check_continues(self, message: Graph) -> None:
        """Who is not done says so. Raises ``PeerError`` BAD_ELABORATION."""
        continues = message.context.continues
        held = {node.id for node in message.nodes.values() if node.placeholder}
        if not held <= continues or not continues <= message.nodes.keys():
            raise error(Reason.BAD_ELABORATION, f"CONTINUES is {sorted(continues)}, placeholders are {sorted(held)}")

    def _exporter(self, node_id: int) -> bytes | Refuse:
        key = self.guard.export(self._sessions[node_id])
        if isinstance(key, Refuse):
            return key
        if key is None or len(key) != tlv.HASH_BYTES:
            return Refuse(Reason.PLUGIN_FAILED, f"node {node_id} has no exporter to key the transcript's MAC")
        return key


def _advance(session: Session, payload: bytes, view: View) -> Outcome:
    return session.advance(view, payload)


def pruned_words(reasons: Mapping[int, int], protocols: Mapping[int, int] | None = None) -> str:
    """For the ladder: ``pruned 3 quic (UNSUPPORTED), ...``."""
    words = []
    for node_id, number in sorted(reasons.items()):
        known = reason_of(number)
        protocol = f" {protocol_name(protocols[node_id])}" if protocols and node_id in protocols else ""
        words.append(f"{node_id}{protocol} ({known.name if known else number})")
    return "pruned " + ", ".join(words)
