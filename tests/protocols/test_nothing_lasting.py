# SPDX-License-Identifier: Apache-2.0
"""Before the commit nothing that a plug-in has asked of the host outlives ``prune`` or ``abort`` (row 30), but a port,
which an initiator keeps for the two seconds in which it tells its peer.

The built-in plug-ins in real negotiations, on a host that keeps account of what it has lent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from accord.negotiation.choice import CandidateStack
from accord.negotiation.events import Action, MessageComplete, NodeArrived, Send, Stop
from accord.negotiation.initiator import Initiator, Proposed
from accord.negotiation.interface import Role
from accord.negotiation.responder import Accepted, Responder
from accord.protocols.http import HttpPlugin
from accord.protocols.quic import QuicPlugin
from accord.protocols.services import Carrier, Plugin, Services, TcpParameters
from accord.protocols.tcp import TcpPlugin
from accord.protocols.tls import TlsPlugin
from accord.wire.constants import Protocol, Reason
from tests.protocols.conftest import Pki
from tests.protocols.support import HOST, Application, services

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass
class Lender:
    """A host: what it has lent and not got back, and what was done that cannot be undone."""

    lent: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    heard: list[Callable[[bytes], None] | None] = field(default_factory=list)
    timers: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    # DatagramService
    def send(self, data: bytes) -> None:
        self.done.append("sent a datagram")

    def receive(self, callback: Callable[[bytes], None] | None, ending: Callable[[], None] | None = None) -> None:
        if callback is not None:
            self.done.append("listened to datagrams")

    def later(self, delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        self.lent.append("timer")
        self.timers.append((delay, callback))
        return lambda: self.lent.remove("timer") if "timer" in self.lent else None

    def pass_seconds(self, seconds: float) -> None:
        """What is due by then is done."""
        while self.timers and self.timers[0][0] <= seconds:
            self.lent.remove("timer")
            self.timers.pop(0)[1]()

    # TcpService
    def reserve(self, port: int | None = None) -> Endpoint:
        self.lent.append("port")
        return Endpoint(self, port or 40001)


class Endpoint:
    """A reserved port."""

    def __init__(self, lender: Lender, port: int) -> None:
        self._lender = lender
        self._back = False
        self.parameters = TcpParameters(port, 1000, 1460, 65535, 7, True, 7)

    def install(self, peer: TcpParameters) -> None:
        """May be made, as it is dropped again without a segment."""
        self._lender.lent.append("socket")

    def installed(self) -> None:
        """It is."""

    def release(self) -> None:
        if not self._back:
            self._back = True
            self._lender.lent.remove("port")
            if "socket" in self._lender.lent:
                self._lender.lent.remove("socket")

    def stream(self) -> Carrier:
        self._lender.done.append("took the stream")
        raise AssertionError("before the commit")


class Best:
    """Takes what the initiator likes."""

    def order(self, stacks: object) -> list[CandidateStack]:
        return sorted(stacks, key=lambda stack: (-stack.preference, stack.ids))  # type: ignore[call-overload, no-any-return]

    def refusal(self, stacks: object) -> Reason:
        return Reason.NO_COMMON_STACK


TCP_ID, TLS_ID, QUIC_ID, HTTP_ID = 1, 2, 3, 4


@dataclass
class Both:
    """Two machines, their hosts, and the initiator's first actions."""

    one: Initiator
    other: Responder
    hosts: dict[Role, Lender]
    service: Application

    def deliver(self, actions: tuple[Action, ...], machine: Initiator | Responder) -> tuple[Action, ...]:
        """A message from one to the other, and what that one says to it."""
        said: tuple[Action, ...] = ()
        for action in actions:
            if isinstance(action, Send):
                for node, protocol, data in action.nodes:
                    said += machine.receive(NodeArrived(action.step, node, protocol, data))
                said += machine.receive(MessageComplete(action.step))
        return said


def pair_of(pki: Pki, prefer: int) -> Both:
    hosts = {role: Lender() for role in Role}
    service = Application(early_limit=1000)

    def host(role: Role) -> Services:
        lender = hosts[role]
        security = pki.trusting(HOST) if role is Role.INITIATOR else pki.being(pki.good)
        application = Application(early_request=REQUEST) if role is Role.INITIATOR else service
        made = services(role, security, datagrams=lender, application=application)  # type: ignore[arg-type]
        return replace(made, tcp=lender, call_later=lender.later)  # type: ignore[arg-type]

    plugins: dict[int, Plugin] = {
        TCP_ID: TcpPlugin(),
        TLS_ID: TlsPlugin(),
        QUIC_ID: QuicPlugin(),
        HTTP_ID: HttpPlugin(),
    }
    children = {TCP_ID: (TLS_ID, HTTP_ID), TLS_ID: (HTTP_ID,), QUIC_ID: (HTTP_ID,), HTTP_ID: ()}
    ours, theirs = host(Role.INITIATOR), host(Role.RESPONDER)
    proposed = [Proposed(0, Protocol.UDP, None, (TCP_ID, QUIC_ID))]
    for node, plugin in plugins.items():
        session = plugin.open(Role.INITIATOR, ours)
        proposed.append(Proposed(node, plugin.protocol, session, children[node], 5 if node == prefer else None))
    one = Initiator(b"t" * 12, proposed, Best())
    accepted = Accepted(Best(), lambda node, _: plugins[node].open(Role.RESPONDER, theirs))
    return Both(one, Responder(b"t" * 12, lambda _: accepted, b"c" * 16), hosts, service)


@pytest.mark.parametrize("prefer", [TCP_ID, TLS_ID, QUIC_ID])
@pytest.mark.parametrize("when", ["proposed", "answered"])
def test_whoever_ends_a_negotiation_before_the_commit_has_everything_back(pki: Pki, prefer: int, when: str) -> None:
    async def work() -> None:
        both = pair_of(pki, prefer)
        proposal = both.one.start()
        ours, theirs = both.hosts[Role.INITIATOR], both.hosts[Role.RESPONDER]
        assert "port" in ours.lent, "something was lent, so that there is something to be given back"
        if when == "answered":
            both.deliver(proposal, both.other)
        both.one.receive(Stop(Reason.CLOSED))
        both.other.receive(Stop(Reason.CLOSED))
        assert ours.lent == ["port", "timer"], "until the peer has been told"
        ours.pass_seconds(2.0)
        assert (ours.lent, ours.done) == ([], [])
        assert (theirs.lent, theirs.done) == ([], [])
        assert all(fetch.cancelled for fetch in both.service.fetches)

    asyncio.run(work())


@pytest.mark.parametrize("prefer", [TCP_ID, TLS_ID, QUIC_ID])
def test_what_is_pruned_has_given_everything_back_when_the_answer_leaves(pki: Pki, prefer: int) -> None:
    async def work() -> None:
        both = pair_of(pki, prefer)
        both.deliver(both.one.start(), both.other)
        lent = both.hosts[Role.RESPONDER].lent
        assert lent == [] if prefer == QUIC_ID else "port" in lent
        assert both.hosts[Role.RESPONDER].done == []

    asyncio.run(work())
