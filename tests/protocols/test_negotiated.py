# SPDX-License-Identifier: Apache-2.0
"""The plug-ins inside real negotiations: both state machines, in memory, and then data over the stack."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from accord.negotiation.choice import CandidateStack
from accord.negotiation.events import Aborted, Action, Committed, MessageComplete, NodeArrived, Resume, Send
from accord.negotiation.initiator import Initiator, Proposed
from accord.negotiation.interface import Answer, Outcome, Role, View
from accord.negotiation.responder import Accepted, Responder
from accord.protocols import tls_context
from accord.protocols.http import HttpPlugin, HttpSession
from accord.protocols.quic import QuicPlugin
from accord.protocols.services import Carrier, CarrierSession, Plugin, Security, Services
from accord.protocols.tls import TlsPlugin
from accord.wire.constants import Protocol, Reason
from tests.protocols.conftest import Pki
from tests.protocols.support import HOST, Application, DatagramEnd, MemoryCarrier, memory_pair, services

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
RESPONSE = b"HTTP/1.1 204 No Content\r\n\r\n"

PIPE = 0x7E000002


@dataclass
class Pipe:
    """A transport that needs no handshake: one end of a stream in memory."""

    end: MemoryCarrier
    protocol: int = PIPE
    secure: bool = False

    def propose(self, view: View) -> Outcome:
        return Answer()

    def respond(self, view: View, payload: bytes) -> Outcome:
        return Answer()

    def resume(self, view: View) -> Outcome:
        return Answer()

    def advance(self, view: View, payload: bytes) -> Outcome:
        return Answer()

    def exporter(self) -> bytes | None:
        return None

    def prune(self, reason: Reason) -> None: ...

    def commit(self, view: View) -> None: ...

    def abort(self, reason: Reason) -> None: ...

    def carrier(self, below: Carrier | None) -> Carrier:
        return self.end


class FirstIsBest:
    """A policy that takes what the initiator prefers."""

    def order(self, stacks: Sequence[CandidateStack]) -> Sequence[CandidateStack]:
        return sorted(stacks, key=lambda stack: (-stack.preference, stack.ids))

    def refusal(self, stacks: Sequence[CandidateStack]) -> Reason:
        return Reason.NO_COMMON_STACK


@dataclass
class Exchange:
    """Both machines; messages go to and fro at once, and what came of it."""

    initiator: Initiator
    responder: Responder
    committed: dict[Role, Committed] = field(default_factory=dict)
    aborted: dict[Role, Aborted] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)

    def carry(self, role: Role, actions: Sequence[Action]) -> None:
        other = Role.RESPONDER if role is Role.INITIATOR else Role.INITIATOR
        machine = self.responder if role is Role.INITIATOR else self.initiator
        for action in actions:
            if isinstance(action, Committed):
                self.committed[role] = action
            elif isinstance(action, Aborted):
                self.aborted[role] = action
            elif isinstance(action, Send):
                self.sent.append(action.step)
                for node, protocol, data in action.nodes:
                    self.carry(other, machine.receive(NodeArrived(action.step, node, protocol, data)))
                self.carry(other, machine.receive(MessageComplete(action.step)))


# Node IDs of the graph: http over either tls over the pipe, quic, or the pipe alone.
PIPE_ID, TLS_ID, QUIC_ID, HTTP_ID = 1, 2, 3, 4


class NextTurn:
    """No delay but the running loop's next turn."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        return asyncio.get_running_loop().call_soon(callback)


def exchange(
    pki: Pki,
    prefer: int,
    *,
    server_name: str = HOST,
    applications: tuple[Application, Application] | None = None,
    only: Sequence[int] = (PIPE_ID, TLS_ID, QUIC_ID),
) -> Exchange:
    """A negotiation between two hosts in one loop; the initiator prefers the stack of that node."""
    near_pipe, far_pipe = memory_pair()
    near_end, far_end = (DatagramEnd(NextTurn(), lambda: [0.0]) for _ in range(2))
    near_end.peer, far_end.peer = far_end, near_end
    early = applications or (Application(), Application())
    near = services(Role.INITIATOR, pki.trusting(server_name), datagrams=near_end, application=early[0])
    far = services(Role.RESPONDER, pki.being(pki.good), datagrams=far_end, application=early[1])
    plugins: dict[int, Plugin] = {TLS_ID: TlsPlugin(), QUIC_ID: QuicPlugin(), HTTP_ID: HttpPlugin()}

    def open_session(role: Role, host: Services, node: int) -> CarrierSession:
        if node == PIPE_ID:
            return Pipe(near_pipe if role is Role.INITIATOR else far_pipe)
        return plugins[node].open(role, host)

    tops = {PIPE_ID: tuple(n for n in (TLS_ID, HTTP_ID) if n != TLS_ID or TLS_ID in only), TLS_ID: (HTTP_ID,)}
    nodes = [Proposed(0, Protocol.UDP, None, tuple(n for n in (PIPE_ID, QUIC_ID) if n in only or n == PIPE_ID))]
    for node in (PIPE_ID, TLS_ID, QUIC_ID, HTTP_ID):
        if node in (*only, PIPE_ID, HTTP_ID):
            session = open_session(Role.INITIATOR, near, node)
            children = tops.get(node, () if node == HTTP_ID else (HTTP_ID,))
            preference = 9 if node == prefer else 0
            nodes.append(Proposed(node, session.protocol, session, children, preference))
    accepted = Accepted(FirstIsBest(), lambda node, protocol: open_session(Role.RESPONDER, far, node))
    both = Exchange(
        Initiator(b"t" * 12, nodes, FirstIsBest()), Responder(b"t" * 12, lambda service: accepted, b"c" * 16)
    )
    both.carry(Role.INITIATOR, both.initiator.start())
    return both


def stream(committed: Committed) -> Carrier:
    carrier: Carrier | None = None
    for session in committed.sessions:
        carrier = session.carrier(carrier)  # type: ignore[attr-defined]
    assert carrier is not None
    return carrier


@pytest.mark.parametrize(
    ("prefer", "name"), [(TLS_ID, [Protocol.HTTP, Protocol.TLS13, PIPE]), (QUIC_ID, [Protocol.HTTP, Protocol.QUIC])]
)
def test_three_messages_make_a_secure_stack_that_carries_data_both_ways(pki: Pki, prefer: int, name: list[int]) -> None:
    async def talk() -> None:
        both = exchange(pki, prefer)
        assert both.aborted == {}
        assert both.sent == [0, 1, 2]
        near, far = both.committed[Role.INITIATOR], both.committed[Role.RESPONDER]
        assert list(reversed(near.protocols)) == name
        assert near.protocols == far.protocols
        assert [getattr(each, "alpn_selected", "http/1.1") for each in far.sessions] == ["http/1.1"] * len(far.sessions)
        client, server = stream(near), stream(far)
        await client.write(b"question")
        assert await server.read() == b"question"
        await server.write(b"answer")
        await server.finish()
        assert await client.read() == b"answer"
        assert await client.read() == b""
        await asyncio.gather(client.close(), server.close())

    asyncio.run(asyncio.wait_for(talk(), 30))


@pytest.mark.parametrize("prefer", [TLS_ID, QUIC_ID])
def test_a_certificate_for_another_name_ends_the_negotiation_by_that_name(pki: Pki, prefer: int) -> None:
    async def talk() -> None:
        both = exchange(pki, prefer, server_name="elsewhere.test")
        assert both.committed == {}
        assert both.aborted[Role.INITIATOR].reason is Reason.CERTIFICATE_NAME
        assert not both.aborted[Role.INITIATOR].by_peer
        assert both.aborted[Role.RESPONDER].reason is Reason.CERTIFICATE_NAME
        assert both.aborted[Role.RESPONDER].by_peer

    asyncio.run(talk())


def test_a_request_in_clear_is_answered_in_the_second_message(pki: Pki) -> None:
    async def talk() -> None:
        applications = Application(REQUEST), Application(early_limit=200)
        both = exchange(pki, PIPE_ID, applications=applications, only=(PIPE_ID,))
        assert both.sent == [0]
        applications[1].fetches[0].response = RESPONSE
        both.carry(Role.RESPONDER, both.responder.receive(Resume(HTTP_ID)))
        assert both.sent == [0, 1, 2]
        assert await stream(both.committed[Role.INITIATOR]).read() == RESPONSE
        top = both.committed[Role.RESPONDER].sessions[-1]
        assert isinstance(top, HttpSession)
        assert top.fetch_taken is applications[1].fetches[0]

    asyncio.run(talk())


@pytest.mark.parametrize("prefer", [TLS_ID, QUIC_ID])
def test_under_a_secure_stack_the_request_waits_for_the_stack(pki: Pki, prefer: int) -> None:
    async def talk() -> None:
        applications = Application(REQUEST), Application(early_limit=200)
        both = exchange(pki, prefer, applications=applications)
        assert applications[1].fetched == []
        client, server = stream(both.committed[Role.INITIATOR]), stream(both.committed[Role.RESPONDER])
        assert await server.read() == REQUEST
        await asyncio.gather(client.close(), server.close())

    asyncio.run(asyncio.wait_for(talk(), 30))


def test_a_server_of_other_groups_asks_again_and_the_stack_takes_one_round_trip_more(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = tls_context._make

    def of_one_group(role: Role, security: Security) -> SSL.Context:
        made = genuine(role, security)
        if role is Role.RESPONDER:
            made.set_tmp_ecdh(ec.SECP256R1())
        return made

    monkeypatch.setattr(tls_context, "_make", of_one_group)
    monkeypatch.setattr(tls_context, "_cache", {})

    async def talk() -> None:
        both = exchange(pki, TLS_ID)
        assert both.aborted == {}
        assert both.sent == [0, 1, 2, 3, 4]
        near, far = both.committed[Role.INITIATOR], both.committed[Role.RESPONDER]
        assert list(reversed(near.protocols)) == [Protocol.HTTP, Protocol.TLS13, PIPE]
        assert near.transcript == far.transcript
        client, server = stream(near), stream(far)
        await client.write(b"question")
        assert await server.read() == b"question"
        await asyncio.gather(client.close(), server.close())

    asyncio.run(asyncio.wait_for(talk(), 30))
