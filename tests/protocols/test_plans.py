# SPDX-License-Identifier: Apache-2.0
"""SCTP, MPTCP, WireGuard as nodes: what they say to each other, what they ask of the host, when they give it back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.negotiation.interface import Role
from accord.protocols.mptcp import MptcpPlugin, MptcpSession
from accord.protocols.sctp import SctpPlugin, SctpSession
from accord.protocols.services import Carrier
from accord.protocols.wireguard import WireguardPlugin, WireguardSession
from accord.wire.constants import Party, Reason
from accord.wire.errors import AccordError, error
from tests.protocols.support import BARE, memory_pair, payload, refusal, services, view

ALONE = ()


@dataclass
class Port:
    """``PlannedPort`` and ``MptcpPort`` that notes what is asked of it."""

    port: int
    asked: list[str] = field(default_factory=list)
    multipath: bool | None = None

    def listen(self) -> None:
        self.asked.append("listen")

    def stream(self, peer_port: int) -> Carrier:
        self.asked.append(f"stream {peer_port}")
        return memory_pair()[0]

    def release(self) -> None:
        self.asked.append("release")


@dataclass
class Tunnel:
    """``Tunnel`` that notes what is asked of it."""

    public_key: bytes
    port: int
    asked: list[str] = field(default_factory=list)

    def establish(self, peer_key: bytes, peer_port: int) -> None:
        self.asked.append(f"establish {peer_key[0]} {peer_port}")

    def stream(self) -> Carrier:
        self.asked.append("stream")
        return memory_pair()[0]

    def release(self) -> None:
        self.asked.append("release")


@dataclass
class Host:
    """``SctpService``, ``MptcpService`` and ``TunnelService``."""

    gives: Port | Tunnel
    refuses: AccordError | None = None

    def reserve(self) -> Port | Tunnel:
        if self.refuses is not None:
            raise self.refuses
        return self.gives


def sctp(role: Role, port: Port | None, refuses: AccordError | None = None) -> SctpSession:
    host = None if port is None else Host(port, refuses)
    return SctpPlugin().open(role, replace(services(role), sctp=host))  # type: ignore[arg-type]


def mptcp(role: Role, port: Port | None, refuses: AccordError | None = None) -> MptcpSession:
    host = None if port is None else Host(port, refuses)
    return MptcpPlugin().open(role, replace(services(role), mptcp=host))  # type: ignore[arg-type]


def wireguard(role: Role, tunnel: Tunnel | None, refuses: AccordError | None = None) -> WireguardSession:
    host = None if tunnel is None else Host(tunnel, refuses)
    return WireguardPlugin().open(role, replace(services(role), tunnels=host))  # type: ignore[arg-type]


Planned = SctpSession | MptcpSession | WireguardSession


def exchange(client: Planned, server: Planned) -> tuple[bytes, bytes]:
    """The three steps; what the first two say."""
    first = payload(client.propose(view(Role.INITIATOR, 0, under=ALONE)))
    answer = payload(server.respond(view(Role.RESPONDER, 0, under=ALONE), first))
    assert payload(client.advance(view(Role.INITIATOR, 1, under=ALONE), answer)) == b""
    assert payload(server.advance(view(Role.RESPONDER, 2, under=ALONE), b"")) == b""
    client.commit(view(Role.INITIATOR, 2, under=ALONE))
    server.commit(view(Role.RESPONDER, 2, under=ALONE))
    return first, answer


@pytest.mark.parametrize("made", [sctp, mptcp])
def test_sides_tell_their_ports_and_only_the_responder_listens_before_the_commit(
    made: Callable[[Role, Port], SctpSession | MptcpSession],
) -> None:
    one, other = Port(40001), Port(50002)
    client, server = made(Role.INITIATOR, one), made(Role.RESPONDER, other)
    assert exchange(client, server) == (b"\x9c\x41", b"\xc3\x52")

    async def carried() -> None:
        client.carrier(None)
        server.carrier(None)

    asyncio.run(carried())
    assert [each for each in one.asked if each != "release"] == ["stream 50002"]
    assert [each for each in other.asked if each != "release"] == ["listen", "stream 40001"]
    assert client.inside == {"port": 40001, "peer_port": 50002}
    assert not client.secure


def test_an_mptcp_connection_says_what_it_is_once_it_is_there_and_a_plain_one_whose_fault_that_is() -> None:
    own = Port(40001)
    client = mptcp(Role.INITIATOR, own)
    exchange(client, mptcp(Role.RESPONDER, Port(50002)))
    assert client.inside == {"port": 40001, "peer_port": 50002}, "nobody knows yet"
    assert client.remark is None
    own.multipath = True
    assert client.inside["multipath"] is True
    assert client.remark is None
    own.multipath = False
    assert client.inside["multipath"] is False
    assert client.remark is not None
    reason, said = client.remark
    assert reason.party is Party.PATH
    assert "plain TCP" in said


def test_wireguard_sides_tell_keys_and_ports_and_make_the_tunnel_at_the_commit() -> None:
    one, other = Tunnel(b"\x01" * 32, 51001), Tunnel(b"\x02" * 32, 51002)
    client, server = wireguard(Role.INITIATOR, one), wireguard(Role.RESPONDER, other)
    first, answer = exchange(client, server)
    assert first == b"\x01" * 32 + b"\xc7\x39"
    assert answer == b"\x02" * 32 + b"\xc7\x3a"
    assert one.asked == ["establish 2 51002"]
    assert other.asked == ["establish 1 51001"]
    assert not server.secure, "whoever is on the path may have put the keys in"


@pytest.mark.parametrize(
    "made", [lambda role: sctp(role, None), lambda role: mptcp(role, None), lambda role: wireguard(role, None)]
)
def test_a_host_without_it_proposes_none_and_says_what_mends_that(made: object) -> None:
    found = refusal(made(Role.INITIATOR).propose(view(Role.INITIATOR, 0, under=ALONE)))  # type: ignore[operator]
    assert found.reason is Reason.NO_KERNEL_SUPPORT
    assert "accord doctor" in found.detail


def test_a_kernel_that_refuses_makes_the_node_refused_with_its_words() -> None:
    failure = error(Reason.NO_KERNEL_SUPPORT, "SCTP sockets: Protocol not supported")
    found = refusal(sctp(Role.RESPONDER, Port(1), failure).respond(view(Role.RESPONDER, 0, under=ALONE), b"\x00\x01"))
    assert found.reason is Reason.NO_KERNEL_SUPPORT
    assert "Protocol not supported" in found.detail


def test_all_run_on_the_context_only() -> None:
    tunnel = wireguard(Role.RESPONDER, Tunnel(bytes(32), 1))
    for session in (sctp(Role.RESPONDER, Port(1)), mptcp(Role.RESPONDER, Port(1)), tunnel):
        assert "runs on the context" in refusal(session.respond(view(Role.RESPONDER, 0, under=BARE), b"\0\1")).detail


@given(st.binary(max_size=80))
def test_a_payload_of_another_form_is_refused_and_what_was_reserved_is_given_back(data: bytes) -> None:
    port, other, tunnel = Port(1), Port(2), Tunnel(b"\x07" * 32, 1)
    for session, own, valid in (
        (sctp(Role.RESPONDER, port), port, len(data) == 2 and any(data)),
        (mptcp(Role.RESPONDER, other), other, len(data) == 2 and any(data)),
        (wireguard(Role.RESPONDER, tunnel), tunnel, len(data) == 34 and any(data[32:]) and data[:32] != b"\x07" * 32),
    ):
        outcome = session.respond(view(Role.RESPONDER, 0, under=ALONE), data)
        if valid:
            payload(outcome)
            continue
        assert refusal(outcome).reason is Reason.HANDSHAKE_FAILED
        assert not own.asked or own.asked[-1] == "release"


@pytest.mark.parametrize("cut", [1, 33, 35])
def test_a_truncated_or_longer_answer_is_refused(cut: int) -> None:
    client = wireguard(Role.INITIATOR, Tunnel(bytes(32), 1))
    client.propose(view(Role.INITIATOR, 0, under=ALONE))
    assert refusal(client.advance(view(Role.INITIATOR, 1, under=ALONE), b"\x09" * cut)).reason is (
        Reason.HANDSHAKE_FAILED
    )


def test_a_peer_that_gives_our_own_key_back_is_refused() -> None:
    client = wireguard(Role.INITIATOR, Tunnel(b"\x05" * 32, 7))
    echo = payload(client.propose(view(Role.INITIATOR, 0, under=ALONE)))
    assert "our own key" in refusal(client.advance(view(Role.INITIATOR, 1, under=ALONE), echo)).detail


def test_a_pruned_node_gives_back_what_it_reserved() -> None:
    port, other, tunnel = Port(1), Port(2), Tunnel(bytes(32), 1)
    for session in (sctp(Role.INITIATOR, port), mptcp(Role.INITIATOR, other), wireguard(Role.INITIATOR, tunnel)):
        session.propose(view(Role.INITIATOR, 0, under=ALONE))
        session.prune(Reason.NOT_PREFERRED)
    assert port.asked == other.asked == tunnel.asked == ["release"]
