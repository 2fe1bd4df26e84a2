# SPDX-License-Identifier: Apache-2.0
"""A whole negotiation between two hosts, real engines and real machines, and somebody on the path who changes the
packets of one direction as a fuzzer's input says.

The input is a byte for the graph, one for how each side is set up, and then edits: the number of the packet, what to
change, where, and with what. So a mutation of the input is a change of the conversation, not of a checksum. He knows
everything but the exporter of the security sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from accord.datapath.engine import Engine, EventKind
from accord.datapath.path import Path
from accord.negotiation import events
from accord.negotiation.choice import CandidateStack
from accord.negotiation.initiator import Initiator, Proposed
from accord.negotiation.interface import Answer, Elaboration, Outcome, Role, Session, View
from accord.negotiation.machine import Machine
from accord.negotiation.responder import Accepted, Responder
from accord.protocols.compression import CompressionPlugin
from accord.protocols.framing import FramingPlugin
from accord.protocols.http import HttpPlugin
from accord.protocols.tcp import TcpPlugin
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import PeerError
from fuzz.bytes_in import BytesIn
from fuzz.hosts import HERE, THERE, Tcp, services
from fuzz.packets import Edit, edited, read_edits

TRANSACTION: Final = b"\xff\xff\xff\xf8\xff\xff\xff\xfcfuzz"
COOKIE: Final = b"c" * 16
SECRET: Final = bytes(range(32))
_MOST_TURNS: Final = 3000
_SECOND: Final = 1_000_000
_TELLING_S: Final = 2
"""For so long an initiator tells its peer again that it has given up."""
_LINGER_US: Final = 100_000

UDP, TCP, TLS, QUIC, HTTP = Protocol.UDP, Protocol.TCP, Protocol.TLS13, Protocol.QUIC, Protocol.HTTP
SUBGRAPH, FRAMING, COMPRESSION = Protocol.SUBGRAPH, Protocol.FRAMING, Protocol.COMPRESSION
SPEAKS_FIRST, UNKNOWN = 0x7E0000C0, 77
"""A secure protocol whose responder speaks first, and one that the responder does not have."""
SECURE: Final = frozenset({int(TLS), int(QUIC), SPEAKS_FIRST})
PLUGINS: Final[dict[int, Any]] = {
    int(TCP): TcpPlugin(), int(HTTP): HttpPlugin(),
    int(FRAMING): FramingPlugin(), int(COMPRESSION): CompressionPlugin(),
}  # fmt: skip

Shape = Sequence[tuple[int, int, tuple[int, ...], dict[str, Any]]]
SHAPES: Final[tuple[Shape, ...]] = (
    # http on tls on tcp, on tcp, on quic; and something that the responder passes over
    ((0, UDP, (1, 3, 5), {}), (1, TCP, (2, 4), {}), (2, TLS, (4,), {"preference": 9}), (3, QUIC, (4,), {}),
     (4, HTTP, (), {}), (5, UNKNOWN, (), {})),
    # layers above
    ((0, UDP, (1,), {}), (1, TCP, (2,), {}), (2, TLS, (3, 4), {}), (3, COMPRESSION, (4,), {"word": 3}),
     (4, FRAMING, (), {"preference": 1})),
    # what the responder has is the initiator's to choose from: five steps
    ((0, UDP, (1,), {}), (1, TCP, (2, 3), {}), (2, SUBGRAPH, (3,), {"choices": (int(TLS), SPEAKS_FIRST)}),
     (3, HTTP, (), {})),
    # the initiator hides what it would like most
    ((0, UDP, (1, 5), {}), (1, TCP, (2, 4), {}), (2, TLS, (4,), {"within": 3, "preference": 9}), (3, SUBGRAPH, (), {}),
     (4, HTTP, (), {}), (5, QUIC, (4,), {})),
    # the responder of a security protocol speaks first
    ((0, UDP, (1,), {}), (1, TCP, (2,), {}), (2, SPEAKS_FIRST, (3,), {}), (3, HTTP, (), {})),
)  # fmt: skip
KNOWN: Final = frozenset(
    {int(each) for each in (UDP, TCP, TLS, QUIC, HTTP, SUBGRAPH, FRAMING, COMPRESSION)} | {SPEAKS_FIRST}
)
"""What both hosts have."""


@dataclass
class Believer:
    """A session that believes every payload: what finds a change is the negotiation alone."""

    protocol: int
    role: Role
    rounds: int = 0
    """Messages that it has to say after its first one."""
    secure: bool = True
    elaboration: Elaboration = Elaboration.FREE
    ended: bool = False
    committed: bool = False

    def _said(self, word: bytes) -> Outcome:
        more = self.rounds > 0 and self.role is Role.RESPONDER
        self.rounds -= 1
        return Answer(word + b" %x" % self.protocol, more=more)

    def propose(self, view: View) -> Outcome:
        """A few bytes."""
        return Answer(b"hello %x" % self.protocol)

    def respond(self, view: View, payload: bytes) -> Outcome:
        """A few bytes."""
        return self._said(b"answer")

    def resume(self, view: View) -> Outcome:
        """Nothing is waited for."""
        raise AssertionError("nobody waits")

    def advance(self, view: View, payload: bytes) -> Outcome:
        """A few bytes, and nothing at the end."""
        return self._said(b"finish") if self.role is Role.INITIATOR or self.rounds > 0 else Answer()

    def exporter(self) -> bytes | None:
        """What he on the path does not have."""
        return SECRET

    def prune(self, reason: Reason) -> None:
        """It is out."""
        self.ended = True

    def commit(self, view: View) -> None:
        """It is in."""
        assert not self.ended, "a session that was let go commits"
        assert not self.committed, "a session commits twice"
        self.committed = True

    def abort(self, reason: Reason) -> None:
        """It is out."""
        self.ended = True


class SecureOnly:
    """A policy: only what is secure; then what the initiator prefers."""

    def order(self, stacks: Sequence[CandidateStack]) -> Sequence[CandidateStack]:
        """The best first."""
        return sorted((stack for stack in stacks if stack.secure), key=lambda stack: (-stack.preference, stack.ids))

    def refusal(self, stacks: Sequence[CandidateStack]) -> Reason:
        """Why there is none."""
        return Reason.INSECURE if stacks else Reason.NO_COMMON_STACK


@dataclass
class Side:
    """One host: engine, machine, and what came of it."""

    role: Role
    path: Path
    engine: Engine
    tcp: Tcp
    machine: Machine | None = None
    handle: int = 0
    committed: events.Committed | None = None
    aborted: events.Aborted | None = None
    ends_at: int | None = None
    """When the engine's transaction is to be closed, whatever the peer says, microseconds."""
    arrived: int = -1
    """The latest message of ours that the peer has."""
    sent: int = -1
    gone: bool = False
    """The engine has given it up."""
    closed: bool = False
    opened: list[Any] = field(default_factory=list)
    due: list[Callable[[], None]] = field(default_factory=list)
    """What a session does later, in order."""

    def _later(self, delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        assert delay <= _TELLING_S, "a session keeps something for longer than its peer is told that it has ended"
        self.due.append(callback)
        return lambda: self.due.remove(callback) if callback in self.due else None

    def open(self, protocol: int, rounds: int = 0) -> Session:
        """A session for a node."""
        if protocol in SECURE:
            rule = Elaboration.INITIATOR_PLACEHOLDER if protocol == SPEAKS_FIRST else Elaboration.FREE
            session: Any = Believer(protocol, self.role, rounds, elaboration=rule)
        else:
            session = PLUGINS[protocol].open(self.role, services(self.role, tcp=self.tcp, later=self._later))
        self.opened.append(session)
        return session  # type: ignore[no-any-return]

    def perform(self, now: int, actions: Sequence[events.Action]) -> None:
        """As ``controller.exchange`` does."""
        for action in actions:
            match action:
                case events.Send():
                    try:
                        self.engine.send(now, self.handle, action.step, action.nodes, action.packets_min)
                    except PeerError as failure:  # what came meanwhile has ended it: that event is still to be heard
                        assert self.machine is not None
                        self.perform(now, self.machine.receive(events.Failed(failure.reason, failure.detail)))
                        self.ends_at = now
                        return
                    self.sent = action.step
                case events.Prove():
                    self.engine.prove(self.handle)
                case events.Committed():
                    assert self.committed is None, "a negotiation commits once"
                    assert self.aborted is None, "a negotiation that was given up commits"
                    self.committed = action
                    if self.role is Role.RESPONDER:
                        self.ends_at = now + _LINGER_US
                case events.Aborted():
                    assert self.aborted is None, "a negotiation aborts once"
                    self.aborted = action
                    self.ends_at = now + _TELLING_S * _SECOND
                case events.Confirmed() | events.Unconfirmed():
                    self.ends_at = now + _LINGER_US

    def end(self, now: int) -> None:
        """Close the transaction when it is time: the peer has heard of the end, or does not answer."""
        told = self.gone or (self.aborted is not None and self.arrived >= self.sent)
        if self.ends_at is not None and not self.closed and (told or now >= self.ends_at):
            self.closed = True
            self.engine.close(now, self.handle, _LINGER_US)

    def hear(self, now: int, make: Callable[[], Machine] | None) -> None:
        """What the engine has to say, to the machine."""
        for event in self.engine.events():
            if event.kind is EventKind.OPENED:
                if self.machine is None and make is not None:
                    self.handle, self.machine = event.handle, make()
                else:
                    self.engine.close(now, event.handle)
            elif self.machine is not None and event.handle == self.handle:
                told = self._told(event)
                if told is not None:
                    self.perform(now, self.machine.receive(told))

    def _told(self, event: Any) -> events.Event | None:
        match event.kind:
            case EventKind.NODE:
                return events.NodeArrived(event.step, event.node, event.protocol, event.data)
            case EventKind.SKIPPED:
                return events.NodeSkipped(event.step, event.node, event.protocol)
            case EventKind.MESSAGE:
                return events.MessageComplete(event.step, self.engine.budget(self.handle))
            case EventKind.ARRIVED:
                self.arrived = event.step
                return events.MessageArrived(event.step)
            case EventKind.FAILED:
                self.gone = True
                return events.Failed(event.reason)
        return None

    def check(self, stack: tuple[int, ...]) -> None:
        """What holds of one side, whatever was done on the path. ``stack``: what it would have been."""
        if self.committed is not None:
            assert self.committed.protocols == stack, f"{self.role}: {self.committed.name} instead of {stack}"
        if self.committed is None and self.machine is not None and self.aborted is not None:
            # "No long-term effect before commit", once the peer has been told.
            while self.due:
                self.due.pop(0)()
            assert all(endpoint.released for endpoint in self.tcp.endpoints), "a reserved connection was left behind"
            assert not any(getattr(each, "committed", False) for each in self.opened)


def _sides(shape: Shape, rounds: int) -> tuple[Side, Side, Callable[[], Machine]]:
    near, far = (
        Side(role, Path.udp(*ends), Engine(transactions=4, unproven=4, buffers=96, events=256), Tcp())
        for role, ends in ((Role.INITIATOR, (HERE, THERE)), (Role.RESPONDER, (THERE, HERE)))
    )
    near.engine.support(KNOWN)
    far.engine.support(KNOWN)

    def opened(node: int, protocol: int) -> Session:
        return near.open(protocol)

    nodes = [
        Proposed(node, protocol, None if protocol in (UDP, SUBGRAPH) else _proposed(near, protocol), children, **fields)
        for node, protocol, children, fields in shape
    ]
    near.machine = Initiator(TRANSACTION, nodes, SecureOnly(), open=opened)

    def respond() -> Machine:
        accepted = Accepted(
            SecureOnly(),
            lambda node, protocol: far.open(protocol, rounds),
            elaborate=lambda allowed: ((int(TLS),), (SPEAKS_FIRST,), ()),
            known=KNOWN - {int(UDP), int(SUBGRAPH)},
        )
        return Responder(TRANSACTION, lambda service: accepted, COOKIE)

    return near, far, respond


def _proposed(near: Side, protocol: int) -> Session:
    if protocol == UNKNOWN:
        session = Believer(protocol, Role.INITIATOR, secure=False)
        near.opened.append(session)
        return session
    return near.open(protocol)


def converse(shape: Shape, rounds: int, attacked: Role, edits: Sequence[Edit]) -> tuple[Side, Side]:
    """From the first packet until nothing is left to be sent, in virtual time."""
    near, far, respond = _sides(shape, rounds)
    now = _SECOND
    assert isinstance(near.machine, Initiator)
    near.handle = near.engine.open(now, TRANSACTION, near.path)
    near.perform(now, near.machine.start())
    numbers = {Role.INITIATOR: 0, Role.RESPONDER: 0}
    late: list[tuple[Side, Path, bytes]] = []
    seen: list[bytes] = []
    for _ in range(_MOST_TURNS):
        arriving, late = late, []
        for side, other in ((near, far), (far, near)):
            while sent := side.engine.output(now):
                for _, datagram in sent:
                    number = numbers[side.role]
                    numbers[side.role] += 1
                    if other.role is not attacked:
                        arriving.append((other, other.path, datagram))
                        continue
                    seen.append(datagram)
                    for delayed, data in edited(datagram, number, edits, seen):
                        (late if delayed else arriving).append((other, other.path, data))
        for other, path, datagram in arriving:
            other.engine.input(now, path, datagram)
        before = [side.engine.deadline() for side in (near, far)]
        near.hear(now, None)
        far.hear(now, respond)
        for side in (near, far):
            side.end(now)
        if arriving or late:
            continue
        dues = [due for side in (near, far) if (due := side.engine.deadline()) is not None]
        dues += [side.ends_at for side in (near, far) if side.ends_at is not None and not side.closed]
        if not dues:
            return near, far
        if min(dues) > now:
            now = min(dues)
        elif before == [side.engine.deadline() for side in (near, far)]:
            now += 1000
    raise AssertionError("the conversation does not come to an end")


UNDISTURBED: dict[tuple[int, int], tuple[int, ...]] = {}


def undisturbed(shape: int, rounds: int) -> tuple[int, ...]:
    """The stack that both have when nobody is on the path."""
    if (shape, rounds) not in UNDISTURBED:
        near, far = converse(SHAPES[shape], rounds, Role.RESPONDER, ())
        assert near.committed is not None, near.aborted
        assert far.committed is not None, far.aborted
        assert near.committed.protocols == far.committed.protocols
        UNDISTURBED[shape, rounds] = near.committed.protocols
    return UNDISTURBED[shape, rounds]


def run(data: bytes, attacked: Role) -> None:
    """One input."""
    source = BytesIn(data)
    shape, rounds = source.number() % len(SHAPES), source.number() % 3
    stack = undisturbed(shape, rounds)
    near, far = converse(SHAPES[shape], rounds, attacked, read_edits(source))
    near.check(stack)
    far.check(stack)
    if near.committed is not None and far.committed is not None:
        assert near.committed.transcript == far.committed.transcript, "two transcripts, and both believed"
    for side in (near, far):
        assert side.engine.transactions == 0
        usage = side.engine.usage()
        assert usage.buffers == 0, f"{side.role}: {usage.buffers} buffers are not back"
