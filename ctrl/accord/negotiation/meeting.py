# SPDX-License-Identifier: Apache-2.0
"""Two hosts that propose to each other at once, sans-IO (HotNets 2009, section 2.3; PROTOCOL.md, section 17).

Each side opens transactions of its own, one to each address at which the other may be, and hears the other's. Both
proposals together say who leads and which stack it is (``merge``):

- who leads does not answer the other's proposal but with PEER_PROPOSED. It takes an answer whose PEER is what it merged
  itself, and holds one that speaks of a proposal that it has not heard yet. It commits to one, on one path;
- who does not lead answers each of the leader's proposals, with PEER. Its own ones are repeated by the transport until
  the leader has them, because the leader needs to hear them: they end with the leader's PEER_PROPOSED;
- where nobody proposes but this host, the answer bears no PEER, and it is the ordinary exchange.

``MeetingInitiator`` and ``MeetingResponder`` are the machines of the ordinary exchange behind a gate that keeps these
rules; a ``Meeting`` is what the gates of one side share.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from accord.negotiation.choice import CandidateStack, Chooser
from accord.negotiation.events import (
    Action,
    Committed,
    Event,
    MessageComplete,
    NodeArrived,
    NodeSkipped,
    Note,
    Resume,
    Send,
    Stop,
)
from accord.negotiation.graph import Graph
from accord.negotiation.guard import Guard
from accord.negotiation.initiator import Initiator, Proposed
from accord.negotiation.interface import Refuse, Session
from accord.negotiation.merge import IDENTITY_BYTES, Merged, Proposal, merge
from accord.negotiation.responder import Accepted, Responder
from accord.wire.constants import NodeId, Reason, Step, TlvType, is_grease_protocol, protocol_name
from accord.wire.errors import PeerError
from accord.wire.node import Node, decode_descriptor

MEETING_BYTES: Final = 16
_MEETING_LABEL: Final = b"accord meeting 1"
_PEERS: Final = 4
"""Sides that one meeting hears: the peer, and the peer again after a restart; the rest is somebody else."""


def meeting_id(name: str) -> bytes:
    """The 16 bytes that tell the proposals of one meeting from those of others, from the name that both sides use."""
    return hashlib.sha256(_MEETING_LABEL + name.encode()).digest()[:MEETING_BYTES]


class Meeting:
    """One side of a meeting: what it offers, and whom it has heard."""

    def __init__(self, meeting: bytes, identity: bytes, secure: Collection[int]) -> None:
        """``identity``: 16 random bytes, fresh for each meeting. ``secure``: as for ``merge``.

        Raises ``ValueError`` for other lengths than 16.
        """
        if (len(meeting), len(identity)) != (MEETING_BYTES, IDENTITY_BYTES):
            raise ValueError(f"a meeting has {MEETING_BYTES} bytes, an identity {IDENTITY_BYTES}")
        self.meeting = meeting
        self.identity = identity
        self.decided: object | None = None
        """The machine that has committed; no other does any more."""
        self._secure = secure
        self._own: Proposal | None = None
        self._heard: dict[bytes, Merged] = {}

    @property
    def peer(self) -> bytes:
        """The value of PEER in our proposals: u8[16] meeting || u8[16] identity."""
        return self.meeting + self.identity

    @property
    def heard(self) -> bool:
        """Somebody has proposed to us."""
        return bool(self._heard)

    @property
    def proposed(self) -> bool:
        """This side has a proposal."""
        return self._own is not None

    def offer(self, graph: Graph) -> bool:
        """Our proposal, as it leaves. False where it offers other stacks than our first one: then it must not."""
        if self._own is None:
            self._own = Proposal(self.identity, graph)
        return _offered(graph) == _offered(self._own.graph)

    def hear(self, identity: bytes, graph: Graph) -> Merged:
        """The other's proposal. Raises ``PeerError`` (NOT_MERGED) for our own, thrown back."""
        assert self._own is not None, "nobody is heard before this side has proposed"
        merged = merge(self._own, Proposal(identity, graph), self._secure)
        before = self._heard.get(identity)
        if before is None and len(self._heard) < _PEERS:
            self._heard[identity] = merged
        return before or merged

    def merged(self, digest: bytes) -> Merged | None:
        """What we merged, when it is what the answer speaks of; None while its proposal is not here."""
        return next((merged for merged in self._heard.values() if merged.digest == digest), None)


def _offered(graph: Graph) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Reserved protocols (RFC 8701) are drawn anew for each proposal, and offer nothing."""
    stacks = (
        (graph.protocols(stack), tuple(graph.nodes[node].preference for node in stack)) for stack in graph.stacks()
    )
    return {(protocols, likings) for protocols, likings in stacks if not any(map(is_grease_protocol, protocols))}


@dataclass(slots=True)
class MergedChooser:
    """A policy, and what the two proposals come to once that is known. The order is the merged one; ``best_only``:
    nothing but its first is allowed, for whoever checks the other's choice."""

    policy: Chooser
    best_only: bool
    merged: Merged | None = None

    def order(self, stacks: Sequence[CandidateStack]) -> Sequence[CandidateStack]:
        """The policy's before both proposals are known, then the merged one."""
        allowed = self.policy.order(stacks)
        if self.merged is None:
            return allowed
        place = {protocols: at for at, protocols in enumerate(self.merged.stacks)}
        ordered = sorted(
            (stack for stack in allowed if stack.protocols in place),
            key=lambda stack: (place[stack.protocols], -stack.preference, stack.ids),
        )
        return [stack for stack in ordered if stack.protocols == ordered[0].protocols] if self.best_only else ordered

    def refusal(self, stacks: Sequence[CandidateStack]) -> Reason:
        """The policy's reason where it allows none of them, else that the other proposal does not."""
        if self.merged is None or not self.policy.order(stacks):
            return self.policy.refusal(stacks)
        return Reason.NOT_MERGED if self.best_only else Reason.NO_COMMON_STACK


class MeetingInitiator:
    """Our proposal to one address of the other's, and what becomes of it. As ``Machine`` to whoever drives it.

    ``Resume(NodeId.CONTEXT)`` says that the other's proposal has been heard, by another transaction.
    """

    def __init__(
        self,
        meeting: Meeting,
        transaction: bytes,
        proposed: Sequence[Proposed],
        policy: Chooser,
        *,
        context_protocol: int,
        grease: bytes = b"",
        packets_min: int = 0,
    ) -> None:
        """As ``Initiator``."""
        self._meeting = meeting
        self._chooser = MergedChooser(policy, best_only=True)
        self._inner = Initiator(
            transaction,
            proposed,
            self._chooser,
            context_protocol=context_protocol,
            grease=grease,
            packets_min=packets_min,
            peer=meeting.peer,
        )
        self._context: Node | None = None
        self._held: MessageComplete | None = None

    def guarded_by(self, guard: Guard) -> None:
        """As ``Machine.guard``."""
        self._inner.guard = guard

    def forget(self) -> None:
        """As ``Machine.forget``."""
        self._inner.forget()

    @property
    def waiting(self) -> int | None:
        """The node whose session waits for something on this host; the context: for the other's proposal."""
        return NodeId.CONTEXT if self._held is not None else self._inner.waiting

    @property
    def early(self) -> bool:
        """As ``Machine.early``."""
        return False

    def start(self) -> tuple[Action, ...]:
        """As ``Initiator.start``. Ends without a word where it would offer other stacks than the meeting does."""
        return self._offered(self._inner.start())

    def receive(self, event: Event) -> tuple[Action, ...]:
        """Handle one event."""
        if self._meeting.decided not in (None, self):
            return self._passed(_LOST)
        match event:
            case NodeArrived(Step.ANSWER, NodeId.CONTEXT):
                with contextlib.suppress(PeerError):  # the machine meets it too, and ends with it
                    self._context = decode_descriptor(event.id, event.protocol, event.data)
            case MessageComplete(Step.ANSWER):
                return self._gate(event)
            case Resume(NodeId.CONTEXT):
                held, self._held = self._held, None
                return () if held is None else self._gate(held)
        return self._offered(self._passed(event))

    def _gate(self, event: MessageComplete) -> tuple[Action, ...]:
        context = self._context
        if context is None or context.reason is not None:
            return self._passed(event)
        digest = context.tlv(TlvType.PEER)
        if digest is None:
            if self._meeting.heard:
                return self._passed(Stop(Reason.NOT_MERGED, "the peer proposed, and answers as if it had not"))
            return self._passed(event)
        merged = self._meeting.merged(digest)
        if merged is None:
            self._held = event
            return (Note("waiting: the peer's own proposal, of which its answer speaks"),)
        if merged.leader != self._meeting.identity:
            return self._passed(Stop(Reason.NOT_MERGED, "the peer leads, and answers nevertheless"))
        self._chooser.merged = merged
        return (Note("this side leads: " + _names(merged)), *self._passed(event))

    def _offered(self, actions: tuple[Action, ...]) -> tuple[Action, ...]:
        """Hold what is proposed against what the meeting has offered before, at the moment when it is known."""
        for action in actions:
            if isinstance(action, Send) and action.step == Step.PROPOSAL:
                graph = Graph(decode_descriptor(*encoded) for encoded in action.nodes)
                if not self._meeting.offer(graph):
                    why = Stop(Reason.POLICY, "other stacks than at the first address: the two could not be merged")
                    return tuple(a for a in self._inner.receive(why) if not isinstance(a, Send))
        return actions

    def _passed(self, event: Event) -> tuple[Action, ...]:
        actions = self._inner.receive(event)
        if any(isinstance(action, Committed) for action in actions):
            self._meeting.decided = self
        return actions


class MeetingResponder:
    """The other's proposal from one address. As ``Machine`` to whoever drives it."""

    def __init__(
        self,
        meeting: Meeting,
        transaction: bytes,
        policy: Chooser,
        open_session: Callable[[int, int], Session],
        cookie: bytes,
        *,
        context_protocol: int,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        """``open_session``: as ``Accepted.open``. ``heard`` is called when there is news of the other's proposal."""
        self._meeting = meeting
        self._policy = policy
        self._open = open_session
        self._heard = heard
        self._nodes: dict[int, Node] = {}
        self._skipped: dict[int, int] = {}
        self._inner = Responder(transaction, self._accept, cookie, context_protocol=context_protocol)

    def guarded_by(self, guard: Guard) -> None:
        """As ``Machine.guard``."""
        self._inner.guard = guard

    def forget(self) -> None:
        """As ``Machine.forget``."""
        self._inner.forget()

    @property
    def waiting(self) -> int | None:
        """The node whose session waits for something on this host."""
        return self._inner.waiting

    @property
    def early(self) -> bool:
        """As ``Machine.early``: both proposals are to be merged whole."""
        return False

    def receive(self, event: Event) -> tuple[Action, ...]:
        """Handle one event."""
        if self._meeting.decided not in (None, self) and not isinstance(event, NodeArrived | NodeSkipped):
            event = event if isinstance(event, MessageComplete) and event.step == Step.PROPOSAL else _LOST
        actions = self._inner.receive(event)
        # After the machine, which has then refused what comes twice and differs, or is too much.
        match event:
            case NodeArrived(Step.PROPOSAL):
                with contextlib.suppress(PeerError):  # the machine has ended with it
                    self._nodes.setdefault(event.id, decode_descriptor(event.id, event.protocol, event.data))
            case NodeSkipped(Step.PROPOSAL):
                self._skipped.setdefault(event.id, event.protocol)
        if any(isinstance(action, Committed) for action in actions):
            self._meeting.decided = self
        return actions

    def _accept(self, service: int | None) -> Accepted | Refuse:
        graph = Graph(self._nodes.values(), self._skipped)
        value = graph.context.tlv(TlvType.PEER)
        if value is None or value[:MEETING_BYTES] != self._meeting.meeting:
            return Refuse(Reason.NO_SERVICE, "this port is there for another meeting")
        if self._meeting.decided is not None:
            return Refuse(Reason.PEER_PROPOSED, "the meeting is decided")
        if not self._meeting.proposed:
            return Refuse(Reason.NO_SERVICE, "this side has not proposed yet")
        merged = self._meeting.hear(value[MEETING_BYTES:], graph)
        self._heard()
        if not merged.stacks:
            return Refuse(Reason.NO_COMMON_STACK, "the two proposals have no stack in common")
        if merged.leader == self._meeting.identity:
            return Refuse(Reason.PEER_PROPOSED, "this side leads: " + _names(merged))
        return Accepted(MergedChooser(self._policy, best_only=False, merged=merged), self._open, merged.digest)


_LOST: Final = Stop(Reason.CLOSED, "the meeting is decided on another path")


def _names(merged: Merged) -> str:
    stacks = ("/".join(protocol_name(protocol) for protocol in reversed(stack)) for stack in merged.stacks)
    return ", ".join(stacks) or "no stack in common"
