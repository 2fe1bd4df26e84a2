# SPDX-License-Identifier: Apache-2.0
"""TCP's options by the words of two policies: in the node, in both kernels, and in every segment on the wire."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest
from scapy.layers.inet import TCP

from accord.controller.stack import KernelTuning
from accord.datapath import tcp_sockopt, tcp_tuning
from accord.datapath.tcp_numbers import forget
from accord.datapath.tcp_repair import TcpRepair
from accord.negotiation.interface import Answer, Outcome, Refuse, Role
from accord.protocols.services import Services, TcpParameters
from accord.protocols.tcp import TcpPlugin, TcpSession
from accord.protocols.wishes import TcpWishes, Wishes
from accord.wire.constants import Reason, Word
from tests.tcp.conftest import Host, Tap, Wire, receive, reset_on_close
from tests.tcp.test_session import NONE, FakeEndpoint, InHost, services

pytestmark = pytest.mark.root
F, A, N, P, R = Word
SACK, TIMESTAMPS, SCALE = "SAckOK", "Timestamp", "WScale"


class Tuning(KernelTuning):
    """The algorithms of one namespace."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def algorithms(self) -> tuple[str, ...]:
        with self._host.inside():
            return super().algorithms()


Negotiated = tuple[bytes, bytes, list[socket.socket], list[Mapping[str, object]]]


def session(wire: Wire, role: Role, wishes: TcpWishes) -> TcpSession:
    here, there = (wire.a, wire.b) if role is Role.INITIATOR else (wire.b, wire.a)
    host = services(role, here.ipv4, there.ipv4, InHost(here, TcpRepair(here.ipv4, there.ipv4)))
    return TcpPlugin().open(role, replace(host, tuning=Tuning(here), wishes=Wishes(tcp=wishes)))


def payload(outcome: Outcome) -> bytes:
    assert isinstance(outcome, Answer), outcome
    if outcome.confirm is not None:
        assert outcome.confirm() is None
    return outcome.payload


def options(node: bytes) -> dict[str, object]:
    """Those of the header in a node, as scapy reads them."""
    return dict(TCP(node).options)


def negotiated(wire: Wire, ours: TcpWishes, theirs: TcpWishes) -> Negotiated:
    """Both nodes, both kernels' sockets and what each session says of its own."""
    client, server = session(wire, Role.INITIATOR, ours), session(wire, Role.RESPONDER, theirs)
    proposal = payload(client.propose(NONE))
    answer = payload(server.respond(NONE, proposal))
    commit = payload(client.advance(NONE, answer))
    client.commit(NONE)
    payload(server.advance(NONE, commit))
    server.commit(NONE)
    found = []
    for each in (client, server):
        stream = each.carrier(None)
        assert stream.kernel_socket is not None
        found.append(stream.kernel_socket)
    return proposal, answer, found, [client.inside, server.inside]


def exchange(sockets: list[socket.socket]) -> None:
    """Some data both ways."""
    one, other = sockets
    one.send(b"question" * 400)
    assert len(receive(other, 3200)) == 3200
    other.send(b"answer" * 400)
    assert len(receive(one, 2400)) == 2400


def close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        reset_on_close(each)
        each.close()


@pytest.mark.parametrize(
    ("ours", "theirs", "sack", "timestamps", "scale"),
    [
        (TcpWishes(), TcpWishes(), True, True, True),
        (TcpWishes(timestamps=F), TcpWishes(), True, False, True),
        (TcpWishes(), TcpWishes(timestamps=F), True, False, True),
        (TcpWishes(timestamps=A), TcpWishes(), True, False, True),
        (TcpWishes(timestamps=A), TcpWishes(timestamps=P), True, True, True),
        (TcpWishes(timestamps=A), TcpWishes(timestamps=R), True, True, True),
        (TcpWishes(sack=F), TcpWishes(sack=A), False, True, True),
        (TcpWishes(sack=R), TcpWishes(sack=A), True, True, True),
        (TcpWishes(window_scale=F), TcpWishes(), True, True, False),
        (TcpWishes(), TcpWishes(window_scale=A, sack=F, timestamps=F), False, False, False),
        (TcpWishes(window_scale=A, sack=A, timestamps=A), TcpWishes(), False, False, False),
    ],
)
def test_both_kernels_and_every_segment_have_the_options_that_the_words_come_to(
    wire: Wire, tap: Tap, ours: TcpWishes, theirs: TcpWishes, sack: bool, timestamps: bool, scale: bool
) -> None:
    proposal, answer, sockets, said = negotiated(wire, ours, theirs)
    try:
        agreed = options(answer[: (answer[12] >> 4) * 4])
        assert (SACK in agreed, TIMESTAMPS in agreed, SCALE in agreed) == (sack, timestamps, scale)
        assert set(agreed) <= set(options(proposal[: (proposal[12] >> 4) * 4]))
        for each in sockets:
            info = tcp_sockopt.info(each)
            scaled = info.window_scales not in (None, (0, 0))  # repair mode knows no other way to have none
            assert (info.sack, info.timestamps, scaled) == (sack, timestamps, scale)
        for words in said:
            assert (words["way"], words["sack"], words["timestamps"]) == ("no-syn", sack, timestamps)
        exchange(sockets)
        port = sockets[0].getsockname()[1]
        seen = [each for each in tap.segments() if port in (each.sport, each.dport) and bytes(each.payload)]
        assert seen
        assert {"Timestamp" in dict(each.options) for each in seen} == {timestamps}
    finally:
        close(sockets)


def blocks(wire: Wire, tap: Tap, wishes: TcpWishes) -> bool:
    """Whether a receiver that misses a segment says with SACK what it has (the segment behind the hole)."""
    _, _, sockets, _ = negotiated(wire, wishes, TcpWishes())
    one, other = sockets
    port = one.getsockname()[1]
    try:
        one.send(b"x")
        receive(other, 1)
        last = [each for each in tap.segments() if each.sport == port and bytes(each.payload)][-1]
        # A segment a hole further on, as if one had been lost: sent by hand from the initiator's host.
        forged = last.underlayer.copy()
        forged[TCP].seq = last.seq + 1 + 100
        forged[TCP].remove_payload()
        forged = forged / b"later"
        del forged.chksum, forged.len, forged[TCP].chksum
        with wire.a.inside(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(bytes(forged), (wire.b.ipv4, 0))
        for _ in range(200):
            answers = [each for each in tap.segments() if each.dport == port]
            if any("SAck" in dict(each.options) for each in answers):
                return True
            if len(answers) >= 2:  # the acknowledgement of the first byte, and that of the hole
                return False
            asyncio.run(asyncio.sleep(0.005))
        raise AssertionError("the segment behind the hole was not answered")
    finally:
        close(sockets)


def test_a_hole_is_told_with_sack_blocks_where_sack_was_agreed(wire: Wire, tap: Tap) -> None:
    assert blocks(wire, tap, TcpWishes(sack=R))


def test_a_hole_is_told_without_sack_blocks_where_it_was_forbidden(wire: Wire, tap: Tap) -> None:
    assert not blocks(wire, tap, TcpWishes(sack=F))


@pytest.mark.parametrize(("ours", "theirs"), [(600, None), (None, 700), (500, 900)])
def test_nobody_sends_longer_segments_than_the_other_side_wants(
    wire: Wire, tap: Tap, ours: int | None, theirs: int | None
) -> None:
    proposal, answer, sockets, _ = negotiated(wire, TcpWishes(mss=ours), TcpWishes(mss=theirs))
    try:
        assert (options(proposal)["MSS"], options(answer)["MSS"]) == (ours or 1460, theirs or 1460)
        exchange(sockets)
        for limit, at in ((theirs, sockets[0]), (ours, sockets[1])):
            if limit is not None:
                # Timestamps take 12 bytes of each segment (RFC 7323, appendix A).
                assert tcp_sockopt.info(at).send_mss == limit - 12
    finally:
        close(sockets)


def test_both_kernels_use_the_congestion_control_that_was_agreed_by_name(wire: Wire) -> None:
    with wire.a.inside():
        here = tcp_tuning.algorithms()
    if len(here) < 2:
        pytest.skip(f"a choice needs two congestion controls, this kernel has {here}: modprobe tcp_bbr")
    for name in here:
        _, answer, sockets, said = negotiated(wire, TcpWishes(congestion=((name, P),)), TcpWishes())
        try:
            assert answer.endswith(name.encode())
            for each in sockets:
                assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == name.encode()
            assert {each["congestion"] for each in said} == {name}
            exchange(sockets)
        finally:
            close(sockets)


def test_an_algorithm_that_one_host_lacks_changes_nothing_unless_it_is_required(wire: Wire) -> None:
    with wire.a.inside():
        default = tcp_tuning.algorithms()[0]
    _, _, sockets, said = negotiated(
        wire, TcpWishes(congestion=(("nosuch", P),)), TcpWishes(congestion=(("other", P),))
    )
    close(sockets)
    assert {each["congestion"] for each in said} == {default}
    refused = session(wire, Role.INITIATOR, TcpWishes(congestion=(("nosuch", R),))).propose(NONE)
    assert isinstance(refused, Refuse)
    assert refused.reason is Reason.REQUIRED_MISSING
    proposal = payload(session(wire, Role.INITIATOR, TcpWishes()).propose(NONE))
    refused = session(wire, Role.RESPONDER, TcpWishes(congestion=(("nosuch", R),))).respond(NONE, proposal)
    assert isinstance(refused, Refuse)
    assert refused.reason is Reason.REQUIRED_MISSING


def test_what_this_kernel_has_turned_off_is_refused_where_it_is_required(wire: Wire) -> None:
    try:
        wire.a.setting("net/ipv4/tcp_sack", "0")
        forget()
        client = session(wire, Role.INITIATOR, TcpWishes(sack=R)).propose(NONE)
        assert isinstance(client, Refuse)
        assert client.reason is Reason.REQUIRED_MISSING
        proposal = payload(session(wire, Role.INITIATOR, TcpWishes()).propose(NONE))
        server = session(wire, Role.RESPONDER, TcpWishes(sack=R)).respond(NONE, proposal)
        assert isinstance(server, Refuse)
        assert server.reason is Reason.REQUIRED_MISSING
    finally:
        wire.a.setting("net/ipv4/tcp_sack", "1")
        forget()


# ---- without a kernel: what is in the nodes


def fakes(ours: TcpWishes, theirs: TcpWishes) -> tuple[TcpSession, TcpSession]:
    def host(role: Role, wishes: TcpWishes) -> Services:
        own = TcpParameters(40000 if role is Role.INITIATOR else 443, 7, 1460, 64240, 7, True, 1000)
        service = SimpleNamespace(reserve=lambda port=None: FakeEndpoint(own))
        here, there = ("192.0.2.1", "192.0.2.2") if role is Role.INITIATOR else ("192.0.2.2", "192.0.2.1")
        return replace(services(role, here, there, service), wishes=Wishes(tcp=wishes))

    return (
        TcpPlugin().open(Role.INITIATOR, host(Role.INITIATOR, ours)),
        TcpPlugin().open(Role.RESPONDER, host(Role.RESPONDER, theirs)),
    )


def test_a_policy_that_says_nothing_leaves_the_nodes_as_they_are() -> None:
    client, server = fakes(TcpWishes(), TcpWishes())
    proposal = payload(client.propose(NONE))
    answer = server.respond(NONE, proposal)
    assert isinstance(answer, Answer)
    assert (len(proposal), len(answer.payload)) == (40, 40)


def test_for_every_pair_of_words_the_sides_agree_or_one_refuses_for_what_is_required() -> None:
    for ours, theirs in itertools.product(Word, Word):
        client, server = fakes(TcpWishes(timestamps=ours), TcpWishes(timestamps=theirs))
        answer = server.respond(NONE, payload(client.propose(NONE)))
        if {ours, theirs} == {R, F}:
            assert isinstance(answer, Refuse)
            assert answer.reason is Reason.REQUIRED_MISSING
            continue
        assert isinstance(answer, Answer)
        assert client.advance(NONE, answer.payload) == Answer(), (ours, theirs)


@pytest.mark.parametrize("junk", [b"\0", b"\xfe\x07\xac\xc2\x02\x02", b"\xfe\x07\xac\xc2\x02\x02\x09"])
def test_junk_behind_a_header_is_refused_on_both_sides(junk: bytes) -> None:
    client, server = fakes(TcpWishes(sack=P), TcpWishes())
    proposal = payload(client.propose(NONE))
    bare = proposal[: (proposal[12] >> 4) * 4]
    assert isinstance(server.respond(NONE, bare + junk), Refuse)
    answer = server.respond(NONE, proposal)
    assert isinstance(answer, Answer)
    length = (answer.payload[12] >> 4) * 4
    assert isinstance(client.advance(NONE, answer.payload[:length] + junk), Refuse)


def test_an_answer_against_the_words_it_bears_is_refused() -> None:
    client, server = fakes(TcpWishes(sack=P), TcpWishes())
    answer = server.respond(NONE, payload(client.propose(NONE)))
    assert isinstance(answer, Answer)
    at = (answer.payload[12] >> 4) * 4 + 4
    lying = answer.payload[:at] + bytes((F,)) + answer.payload[at + 1 :]  # SACK in the header, forbidden beside it
    refused = client.advance(NONE, lying)
    assert isinstance(refused, Refuse)
    assert refused.reason is Reason.POLICY


def test_an_answer_with_an_algorithm_that_was_not_offered_is_refused() -> None:
    client, server = fakes(TcpWishes(congestion=(("bbr", P),)), TcpWishes())
    answer = server.respond(NONE, payload(client.propose(NONE)))
    assert isinstance(answer, Answer)
    at = (answer.payload[12] >> 4) * 4
    named = answer.payload[:at] + bytes.fromhex("fe0aacc2020202") + b"bbr"
    refused = client.advance(NONE, named)
    assert isinstance(refused, Refuse)
    assert refused.reason is Reason.HANDSHAKE_FAILED
