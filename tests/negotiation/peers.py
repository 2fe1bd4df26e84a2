# SPDX-License-Identifier: Apache-2.0
"""Two negotiations joined in memory: sessions that record what they are told, a transport that can be tampered with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from accord.negotiation.choice import CandidateStack
from accord.negotiation.events import (
    Aborted,
    Action,
    Committed,
    Event,
    Failed,
    MessageArrived,
    MessageComplete,
    NodeArrived,
    NodeSkipped,
    Note,
    Send,
)
from accord.negotiation.initiator import Initiator, Proposed
from accord.negotiation.interface import Answer, Outcome, Refuse, Role, Session, View
from accord.negotiation.machine import Machine
from accord.negotiation.responder import Accepted, Responder
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError
from accord.wire.message import Encoded
from accord.wire.node import Node, decode_descriptor

TCP, UDP, TLS, QUIC, HTTP = Protocol.TCP, Protocol.UDP, Protocol.TLS13, Protocol.QUIC, Protocol.HTTP
SECRET = bytes(range(32))
COOKIE = b"c" * 16
TRANSACTION = b"t" * 12


@dataclass
class FakeSession:
    """Says its protocol and step, believes everything it hears: what detects tampering is the negotiation alone.

    ``script`` replaces the outcome of a method by name: an outcome, an exception to be raised, or a function.
    """

    protocol: int
    role: Role
    secure: bool = False
    script: dict[str, object] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    heard: dict[str, bytes] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict, repr=False)

    def _said(self, method: str, view: View | None, default: object) -> object:
        self.log.append(method)
        if view is not None:
            self.views[method] = view
        scripted = self.script.get(method, default)
        if isinstance(scripted, BaseException):
            raise scripted
        return scripted(view) if callable(scripted) else scripted

    def _outcome(self, method: str, view: View, payload: bytes) -> Outcome:
        return self._said(method, view, Answer(payload))  # type: ignore[return-value]

    def propose(self, view: View) -> Outcome:
        return self._outcome("propose", view, b"hello %x" % self.protocol)

    def respond(self, view: View, payload: bytes) -> Outcome:
        self.heard["respond"] = payload
        return self._outcome("respond", view, b"answer %x" % self.protocol)

    def resume(self, view: View) -> Outcome:
        return self._outcome("resume", view, b"resumed %x" % self.protocol)

    def advance(self, view: View, payload: bytes) -> Outcome:
        self.heard["advance"] = payload
        return self._outcome("advance", view, b"finish %x" % self.protocol if self.role is Role.INITIATOR else b"")

    def exporter(self) -> bytes | None:
        return self._said("exporter", None, SECRET if self.secure else None)  # type: ignore[return-value]

    def prune(self, reason: Reason) -> None:
        self._said(f"prune {reason.name}", None, None)

    def commit(self, view: View) -> None:
        self._said("commit", view, None)

    def abort(self, reason: Reason) -> None:
        self._said(f"abort {reason.name}", None, None)

    @property
    def ended(self) -> bool:
        """Pruned or aborted."""
        return any(entry.startswith(("prune", "abort")) for entry in self.log)


@dataclass(frozen=True)
class FakeChooser:
    """Allows what is secure enough; best is what comes first in ``prefer``, then what the initiator likes."""

    secure: bool = False
    prefer: tuple[str, ...] = ()

    def order(self, stacks: Sequence[CandidateStack]) -> Sequence[CandidateStack]:
        def rank(stack: CandidateStack) -> tuple[int, int, tuple[int, ...]]:
            place = self.prefer.index(stack.name) if stack.name in self.prefer else len(self.prefer)
            return (place, -stack.preference, stack.ids)

        return sorted((stack for stack in stacks if stack.secure or not self.secure), key=rank)

    def refusal(self, stacks: Sequence[CandidateStack]) -> Reason:
        return Reason.INSECURE if stacks and self.secure else Reason.NO_COMMON_STACK


# The graph of most tests: http on tls on tcp, http on tcp, http on quic.
SHAPE: dict[int, tuple[int, tuple[int, ...]]] = {
    0: (UDP, (1, 3)),
    1: (TCP, (2, 4)),
    2: (TLS, (4,)),
    3: (QUIC, (4,)),
    4: (HTTP, ()),
}
SECURE = frozenset({TLS, QUIC})
ALL = frozenset({UDP, Protocol.DIRECT, TCP, TLS, QUIC, HTTP})

A = TypeVar("A")
Shape = dict[int, tuple[int, tuple[int, ...]]]
Tamper = Callable[[int, list[Encoded]], Iterable[Encoded]]


@dataclass
class Side:
    """A machine, the sessions that it was given, and all of its actions."""

    machine: Machine
    sessions: dict[int, list[FakeSession]]
    supported: frozenset[int]
    actions: list[Action] = field(default_factory=list)

    def take(self, actions: Iterable[Action]) -> list[Send]:
        fresh = list(actions)
        self.actions += fresh
        return [action for action in fresh if isinstance(action, Send)]

    def start(self) -> list[Send]:
        assert isinstance(self.machine, Initiator)
        return self.take(self.machine.start())

    def receive(self, event: Event) -> list[Send]:
        return self.take(self.machine.receive(event))

    def only(self, kind: type[A]) -> list[A]:
        return [action for action in self.actions if isinstance(action, kind)]

    @property
    def committed(self) -> Committed | None:
        found = self.only(Committed)
        assert len(found) <= 1, "a negotiation commits once"
        return found[0] if found else None

    @property
    def aborted(self) -> Aborted | None:
        found = self.only(Aborted)
        assert len(found) <= 1, "a negotiation aborts once"
        return found[0] if found else None

    @property
    def notes(self) -> str:
        return "\n".join(action.text for action in self.actions if isinstance(action, Note))

    @property
    def stack(self) -> str | None:
        return self.committed.name if self.committed else None

    def session(self, node_id: int) -> FakeSession:
        """The last one that was opened for the node."""
        return self.sessions[node_id][-1]


Script = dict[int, dict[str, object]]


def initiator(
    chooser: FakeChooser | None = None,
    shape: Shape | None = None,
    script: Script | None = None,
    supported: frozenset[int] = ALL,
    preferences: dict[int, int] | None = None,
    **options: object,
) -> Side:
    """An initiator that proposes ``shape``. ``script``: by node ID, what its session does otherwise."""
    sessions: dict[int, list[FakeSession]] = {}
    proposed = []
    for node_id, (protocol, children) in (shape or SHAPE).items():
        session = FakeSession(protocol, Role.INITIATOR, protocol in SECURE, dict((script or {}).get(node_id, {})))
        if node_id:
            sessions[node_id] = [session]
        preference = (preferences or {}).get(node_id)
        proposed.append(Proposed(node_id, protocol, session if node_id else None, children, preference))
    machine = Initiator(TRANSACTION, proposed, chooser or FakeChooser(), **options)  # type: ignore[arg-type]
    return Side(machine, sessions, supported)


def responder(
    chooser: FakeChooser | None = None,
    supported: frozenset[int] = ALL,
    script: Script | None = None,
    refuse: Refuse | None = None,
    open_fails: dict[int, Exception] | None = None,
    **options: object,
) -> Side:
    """A responder for any proposal. ``script``: as for ``initiator``; each new session of a node gets it."""
    sessions: dict[int, list[FakeSession]] = {}

    def open_session(node_id: int, protocol: int) -> Session:
        if open_fails and node_id in open_fails:
            raise open_fails[node_id]
        session = FakeSession(protocol, Role.RESPONDER, protocol in SECURE, dict((script or {}).get(node_id, {})))
        sessions.setdefault(node_id, []).append(session)
        return session

    def accept(service: int | None) -> Accepted | Refuse:
        return refuse or Accepted(chooser or FakeChooser(), open_session)

    machine = Responder(TRANSACTION, accept, COOKIE, **options)  # type: ignore[arg-type]
    return Side(machine, sessions, supported)


def events_of(message: Send, nodes: Iterable[Encoded], receiver: Side) -> list[Event]:
    """What the receiver's engine would make of the nodes: it checks descriptors, and stores what is supported."""
    events: list[Event] = []
    for node_id, protocol, descriptor in nodes:
        if protocol not in receiver.supported:
            events.append(NodeSkipped(message.step, node_id, protocol))
            continue
        try:
            decode_descriptor(node_id, protocol, descriptor)
        except AccordError as fault:
            return [*events, Failed(fault.reason, fault.detail)]
        events.append(NodeArrived(message.step, node_id, protocol, descriptor))
    return [*events, MessageComplete(message.step)]


def deliver(message: Send, receiver: Side) -> list[Send]:
    """The message arrives whole. What the receiver sends in return."""
    return [reply for event in events_of(message, message.nodes, receiver) for reply in receiver.receive(event)]


def run(one: Side, other: Side, tamper: Tamper | None = None, repeat: bool = False) -> None:
    """Let both talk until nobody has anything more to say. ``one`` is the initiator.

    ``tamper`` sits on the path: step and nodes in, nodes out. ``repeat``: every event comes twice.
    """
    times = 2 if repeat else 1
    waiting = [(one, other, message) for message in one.start()]
    while waiting:
        sender, receiver, message = waiting.pop(0)
        arriving = list(tamper(message.step, list(message.nodes))) if tamper else message.nodes
        for event in events_of(message, arriving, receiver):
            for _ in range(times):
                waiting += [(receiver, sender, reply) for reply in receiver.receive(event)]
        for _ in range(times):
            waiting += [(sender, receiver, more) for more in sender.receive(MessageArrived(message.step))]


TLS_FIRST = FakeChooser(prefer=("http/tls/tcp", "http/quic", "http/tcp"))
QUIC_FIRST = FakeChooser(prefer=("http/quic", "http/tls/tcp", "http/tcp"))
PLAIN_FIRST = FakeChooser(prefer=("http/tcp",))


def sent(side: Side, step: int) -> dict[int, Node]:
    """The nodes of the message that the side sent as this step."""
    (message,) = (action for action in side.actions if isinstance(action, Send) and action.step == step)
    return {node: decode_descriptor(node, protocol, data) for node, protocol, data in message.nodes}


def agreed(one: Side, other: Side) -> str | None:
    """The stack, when both have the same."""
    assert one.stack == other.stack
    return one.stack
