# SPDX-License-Identifier: Apache-2.0
"""The tcp plug-in: two sessions, in two namespaces, exchange their headers as a negotiation would."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path as FilePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.datapath.tcp_repair import TcpRepair
from accord.negotiation.interface import Answer, Outcome, Refuse, Role, Session, View
from accord.protocols.services import Plugin, Services, TcpEndpoint, TcpParameters
from accord.protocols.tcp import TcpPlugin, TcpSession
from accord.wire import tcp_header
from accord.wire.constants import Protocol, Reason
from accord.wire.tcp_header import TcpHeader
from tests.tcp.conftest import Host, Tap, Wire, receive

SERVICE = 443
NONE = View(Role.INITIATOR, 0, 1)


def at_once(delay: float, call: Callable[[], None]) -> Callable[[], None]:
    """As if the time were over."""
    assert 0 < delay <= 2, "no longer than the peer is told for"
    call()
    return lambda: None


def services(
    role: Role,
    local: str,
    remote: str,
    tcp: object,
    later: Callable[[float, Callable[[], None]], Callable[[], None]] = at_once,
) -> Services:
    """Services that have nothing but TCP; the initiator's context has some port of its own."""
    ours, theirs = (50000, SERVICE) if role is Role.INITIATOR else (SERVICE, 50000)
    return Services(role, (local, ours), (remote, theirs), time.monotonic, os.urandom, later, tcp=tcp)  # type: ignore[arg-type]


def sessions(wire: Wire, family: int = 4) -> tuple[TcpSession, TcpSession]:
    """An initiator's at a, a responder's at b."""
    a, b = wire.a.address(family), wire.b.address(family)
    return (
        TcpPlugin().open(Role.INITIATOR, services(Role.INITIATOR, a, b, InHost(wire.a, TcpRepair(a, b)))),
        TcpPlugin().open(Role.RESPONDER, services(Role.RESPONDER, b, a, InHost(wire.b, TcpRepair(b, a)))),
    )


class InHost:
    """A TcpService that works in one namespace."""

    def __init__(self, host: Host, service: TcpRepair) -> None:
        self.host, self.service = host, service

    def reserve(self, port: int | None = None) -> TcpEndpoint:
        with self.host.inside():
            return self.service.reserve(port)


class FakeEndpoint:
    """An endpoint that remembers what was done with it."""

    def __init__(self, parameters: TcpParameters) -> None:
        self.parameters = parameters
        self.peer: TcpParameters | None = None
        self.released = False
        self.sure = False

    def install(self, peer: TcpParameters) -> None:
        self.peer = peer

    def installed(self) -> None:
        assert self.peer is not None
        self.sure = True

    def release(self) -> None:
        self.released = True

    def stream(self) -> object:
        return self


class FakeTcp:
    """A TcpService without a kernel."""

    def __init__(self, parameters: TcpParameters) -> None:
        self.parameters = parameters
        self.endpoints: list[FakeEndpoint] = []

    def reserve(self, port: int | None = None) -> FakeEndpoint:
        self.endpoints.append(FakeEndpoint(replace(self.parameters, port=port or self.parameters.port)))
        return self.endpoints[-1]


OURS = TcpParameters(40000, 0xFFFFFFFF, 1460, 64240, 7, True, 1000)
THEIRS = TcpParameters(1, 5000, 1400, 65535, 10, True, 2000)


def fake(role: Role, parameters: TcpParameters) -> tuple[TcpSession, FakeTcp]:
    tcp = FakeTcp(parameters)
    here, there = ("192.0.2.1", "192.0.2.2") if role is Role.INITIATOR else ("192.0.2.2", "192.0.2.1")
    return TcpPlugin().open(role, services(role, here, there, tcp)), tcp


def payload(outcome: Outcome) -> bytes:
    assert isinstance(outcome, Answer), outcome
    return outcome.payload


def confirmed(outcome: Outcome) -> Refuse | None:
    assert isinstance(outcome, Answer), outcome
    assert outcome.confirm is not None
    return outcome.confirm()


def refusal(outcome: Outcome, reason: Reason = Reason.HANDSHAKE_FAILED) -> str:
    assert isinstance(outcome, Refuse), outcome
    assert outcome.reason is reason
    return outcome.detail


def test_the_plug_in_is_what_the_registry_expects() -> None:
    plugin: Plugin = TcpPlugin()
    assert (plugin.name, plugin.protocol) == ("tcp", Protocol.TCP)
    session, _ = fake(Role.INITIATOR, OURS)
    assert isinstance(session, Session)
    assert not session.secure
    assert session.exporter() is None


def test_the_syn_goes_to_the_service_port_and_the_syn_ack_comes_back_with_what_both_have() -> None:
    initiator, ours = fake(Role.INITIATOR, OURS)
    responder, theirs = fake(Role.RESPONDER, replace(THEIRS, sack=False))
    syn = payload(initiator.propose(NONE))
    assert tcp_header.decode(syn) == TcpHeader(SERVICE, None, 0, OURS)
    answer = responder.respond(NONE, syn)
    syn_ack = payload(answer)
    assert (theirs.endpoints[0].peer, theirs.endpoints[0].sure) == (OURS, False)
    assert confirmed(answer) is None
    assert theirs.endpoints[0].sure
    expected = replace(THEIRS, port=SERVICE, sack=False)
    assert tcp_header.decode(syn_ack) == TcpHeader(OURS.port, 0, OURS.timestamp, expected)
    assert payload(initiator.advance(NONE, syn_ack)) == b""
    # Both begin as early as they can; the initiator has its socket for certain before the commit leaves.
    assert (ours.endpoints[0].peer, ours.endpoints[0].sure) == (expected, False)
    initiator.commit(NONE)
    assert ours.endpoints[0].sure
    assert payload(responder.advance(NONE, b"")) == b""
    responder.commit(NONE)
    assert initiator.carrier(None) is ours.endpoints[0]
    assert responder.carrier(None) is theirs.endpoints[0]


@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_an_option_is_in_the_syn_ack_only_if_both_have_it(have: list[bool]) -> None:
    def some(parameters: TcpParameters, scale: bool, sack: bool, stamps: bool) -> TcpParameters:
        return replace(
            parameters,
            window_scale=parameters.window_scale if scale else None,
            sack=sack,
            timestamp=parameters.timestamp if stamps else None,
        )

    initiator, _ = fake(Role.INITIATOR, some(OURS, *have[:3]))
    responder, _ = fake(Role.RESPONDER, some(THEIRS, *have[3:]))
    syn_ack = payload(responder.respond(NONE, payload(initiator.propose(NONE))))
    answer = tcp_header.decode(syn_ack)
    agreed = (answer.sender.window_scale is not None, answer.sender.sack, answer.sender.timestamp is not None)
    assert agreed == tuple(mine and yours for mine, yours in zip(have[:3], have[3:], strict=True))
    assert answer.echo == (OURS.timestamp if agreed[2] else 0)
    assert payload(initiator.advance(NONE, syn_ack)) == b""


def test_a_translated_address_is_found_out_by_the_responder_and_by_the_initiator() -> None:
    initiator, ours = fake(Role.INITIATOR, OURS)
    syn = payload(initiator.propose(NONE))
    tcp = FakeTcp(THEIRS)
    behind_nat = TcpPlugin().open(Role.RESPONDER, services(Role.RESPONDER, "192.0.2.2", "203.0.113.9", tcp))
    detail = refusal(behind_nat.respond(NONE, syn), Reason.ADDRESS_TRANSLATED)
    assert "203.0.113.9" in detail
    assert tcp.endpoints == []
    other_view = tcp_header.encode(
        TcpHeader(OURS.port, 0, 1000, replace(THEIRS, port=SERVICE)), "10.0.0.1", "192.0.2.1"
    )
    refusal(initiator.advance(NONE, other_view), Reason.ADDRESS_TRANSLATED)
    assert ours.endpoints[0].released


def test_without_the_service_the_node_is_refused_on_both_sides() -> None:
    for role in Role:
        session = TcpPlugin().open(role, services(role, "192.0.2.1", "192.0.2.2", None))
        initiator, _ = fake(Role.INITIATOR, OURS)
        syn = tcp_header.encode(tcp_header.decode(payload(initiator.propose(NONE))), "192.0.2.2", "192.0.2.1")
        outcome = session.propose(NONE) if role is Role.INITIATOR else session.respond(NONE, syn)
        assert "accord doctor" in refusal(outcome, Reason.NO_KERNEL_SUPPORT)


def syn_ack_with(**changes: object) -> bytes:
    header = TcpHeader(OURS.port, 0, 1000, replace(THEIRS, port=SERVICE))
    sender = replace(header.sender, **{k: v for k, v in changes.items() if hasattr(header.sender, k)})
    rest = {k: v for k, v in changes.items() if not hasattr(header.sender, k)}
    return tcp_header.encode(replace(header, sender=sender, **rest), "192.0.2.2", "192.0.2.1")


@pytest.mark.parametrize(
    ("changes", "ours", "why"),
    [
        ({"acknowledgement": 1}, {}, "another SYN's sequence number"),
        ({"acknowledgement": None}, {}, "a SYN where"),
        ({"port": 444}, {}, "runs from port 444"),
        ({"destination_port": 4}, {}, "to 4"),
        ({"echo": 999}, {}, "another timestamp"),
        ({}, {"sack": False}, "did not offer"),
        ({}, {"window_scale": None}, "did not offer"),
        ({}, {"timestamp": None}, "did not offer"),
    ],
)
def test_a_syn_ack_that_does_not_answer_the_syn_is_refused(
    changes: dict[str, object], ours: dict[str, object], why: str
) -> None:
    initiator, tcp = fake(Role.INITIATOR, replace(OURS, **ours))
    initiator.propose(NONE)
    assert why in refusal(initiator.advance(NONE, syn_ack_with(**changes)))
    assert tcp.endpoints[0].released
    assert tcp.endpoints[0].peer is None


def test_a_syn_for_another_port_or_a_syn_ack_or_bytes_in_the_commit_are_refused() -> None:
    responder, tcp = fake(Role.RESPONDER, THEIRS)
    wrong_port = tcp_header.encode(TcpHeader(444, None, 0, OURS), "192.0.2.1", "192.0.2.2")
    assert "for port 444, the negotiation for 443" in refusal(responder.respond(NONE, wrong_port))
    answer = tcp_header.encode(TcpHeader(SERVICE, 7, 0, OURS), "192.0.2.1", "192.0.2.2")
    assert "a SYN-ACK where" in refusal(responder.respond(NONE, answer))
    assert tcp.endpoints == []
    responder.respond(NONE, tcp_header.encode(TcpHeader(SERVICE, None, 0, OURS), "192.0.2.1", "192.0.2.2"))
    assert "1 bytes in the commit" in refusal(responder.advance(NONE, b"x"))
    assert tcp.endpoints[0].released


@given(st.binary(max_size=64))
def test_any_payload_is_answered_or_refused_and_leaves_nothing_behind(data: bytes) -> None:
    for role in Role:
        session, tcp = fake(role, OURS)
        if role is Role.INITIATOR:
            session.propose(NONE)
            outcome = session.advance(NONE, data)
        else:
            outcome = session.respond(NONE, data)
        assert isinstance(outcome, Refuse)
        assert all(endpoint.released for endpoint in tcp.endpoints)


def test_commit_without_an_agreement_and_a_second_stream_are_mistakes_of_the_caller() -> None:
    initiator, _ = fake(Role.INITIATOR, OURS)
    with pytest.raises(RuntimeError, match="no agreed numbers"):
        initiator.commit(NONE)
    initiator.propose(NONE)
    initiator.advance(NONE, syn_ack_with())
    with pytest.raises(RuntimeError, match="only after commit"):
        initiator.carrier(None)
    initiator.commit(NONE)
    initiator.commit(NONE)
    initiator.carrier(None)
    with pytest.raises(RuntimeError, match="only one"):
        initiator.carrier(None)


# ---- In two namespaces


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_first_data_before_the_commit_message_meets_a_socket_and_no_reset_is_ever_sent(
    wire: Wire, tap: Tap, family: int
) -> None:
    initiator, responder = sessions(wire, family)
    syn_ack = payload(responder.respond(NONE, payload(initiator.propose(NONE))))
    payload(initiator.advance(NONE, syn_ack))
    initiator.commit(NONE)

    async def run() -> bytes:
        # The first segment overtakes the commit message: the responder's session has not heard of it yet.
        mine = initiator.carrier(None)
        await mine.write(b"early bird")
        await asyncio.sleep(0.05)
        payload(responder.advance(NONE, b""))
        responder.commit(NONE)
        yours = responder.carrier(None)
        assert await yours.read() == b"early bird"
        await yours.write(b"welcome")
        answer = await mine.read()
        await mine.close()
        assert await yours.read() == b""
        await yours.close()
        return answer

    assert asyncio.run(run()) == b"welcome"
    flags = [str(segment.flags) for segment in tap.segments()]
    assert flags
    assert not any("R" in text or "S" in text for text in flags)


@pytest.mark.root
@pytest.mark.parametrize("family", [4, 6])
def test_a_server_that_speaks_first_meets_a_socket_too(wire: Wire, tap: Tap, family: int) -> None:
    initiator, responder = sessions(wire, family)
    payload(initiator.advance(NONE, payload(responder.respond(NONE, payload(initiator.propose(NONE))))))
    initiator.commit(NONE)
    payload(responder.advance(NONE, b""))
    responder.commit(NONE)

    async def run() -> None:
        yours, mine = responder.carrier(None), initiator.carrier(None)
        await yours.write(b"220 ready\r\n")
        assert await mine.read() == b"220 ready\r\n"
        await asyncio.gather(yours.close(), mine.close())

    asyncio.run(run())
    assert not tap.flags() & {"S", "R"}


@pytest.mark.root
def test_in_the_wrong_order_there_is_the_reset_that_the_order_avoids(wire: Wire, tap: Tap) -> None:
    """The control: were the responder to install at the commit only, the first segment would find no socket."""
    initiator, responder = sessions(wire)
    payload(initiator.advance(NONE, payload(responder.respond(NONE, payload(initiator.propose(NONE))))))
    initiator.commit(NONE)
    responder.prune(Reason.NOT_PREFERRED)
    stream = initiator.carrier(None)
    connection = stream.kernel_socket
    assert connection is not None
    connection.send(b"too early")
    with pytest.raises(ConnectionResetError):
        receive(connection, 1)
    assert "R" in tap.flags()
    stream.abort()


@pytest.mark.root
@pytest.mark.parametrize("end", ["prune", "abort"])
def test_pruning_or_aborting_frees_port_and_socket_without_a_segment(wire: Wire, tap: Tap, end: str) -> None:
    for _ in range(20):
        initiator, responder = sessions(wire)
        payload(responder.respond(NONE, payload(initiator.propose(NONE))))
        for session in (initiator, responder):
            getattr(session, end)(Reason.NOT_PREFERRED)
    assert tap.segments() == []
    for host in (wire.a, wire.b):
        with host.inside(), open("/proc/net/tcp") as table:
            established = [line for line in table.readlines()[1:] if line.split()[3] == "01"]
        assert established == []


def _two_ports() -> None:
    FilePath("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40001")


@pytest.mark.root
def test_a_port_is_taken_until_the_peer_that_may_have_its_connection_was_told_of_the_abort(wire: Wire) -> None:
    """Else the next negotiation from it is refused by the kernel over there (EADDRNOTAVAIL)."""
    with wire.a.inside():
        before = FilePath("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        _two_ports()
    try:
        for _ in range(8):
            told: list[Callable[[], None]] = []

            def later(
                delay: float, call: Callable[[], None], told: list[Callable[[], None]] = told
            ) -> Callable[[], None]:
                told.append(call)
                return lambda: None

            a, b = wire.a.address(4), wire.b.address(4)
            given = services(Role.INITIATOR, a, b, InHost(wire.a, TcpRepair(a, b)), later)
            first, second = (TcpPlugin().open(Role.INITIATOR, given) for _ in range(2))
            (_, slow), (_, next_) = sessions(wire), sessions(wire)
            assert confirmed(slow.respond(NONE, payload(first.propose(NONE)))) is None
            first.abort(Reason.CLOSED)  # which the peer has not heard yet
            assert confirmed(next_.respond(NONE, payload(second.propose(NONE)))) is None
            second.abort(Reason.CLOSED)
            for session in (slow, next_):
                session.abort(Reason.CLOSED)
            assert "EADDRINUSE" in refusal(TcpPlugin().open(Role.INITIATOR, given).propose(NONE), Reason.CANNOT_INSTALL)
            for call in told:
                call()
    finally:
        with wire.a.inside():
            FilePath("/proc/sys/net/ipv4/ip_local_port_range").write_text(before)


@pytest.mark.root
def test_the_installed_connection_is_refused_as_cannot_install_when_its_ports_are_taken(wire: Wire) -> None:
    initiator, first = sessions(wire)
    _, second = sessions(wire)
    syn = payload(initiator.propose(NONE))
    payload(first.respond(NONE, syn))
    refused = confirmed(second.respond(NONE, syn))
    assert refused is not None
    assert "a pair of ports that no live connection has" in refusal(refused, Reason.CANNOT_INSTALL)
    for session in (initiator, first, second):
        session.abort(Reason.SHUTDOWN)
