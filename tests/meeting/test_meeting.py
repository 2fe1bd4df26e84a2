# SPDX-License-Identifier: Apache-2.0
"""Proposals that cross: one stack, the same at both ends, whatever is lost, doubled, late or begun later."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.negotiation.events import Send
from accord.negotiation.graph import Graph
from accord.negotiation.interface import Refuse
from accord.negotiation.meeting import Meeting, meeting_id
from accord.wire import tlv
from accord.wire.constants import Reason, Step, TlvType
from accord.wire.message import Message
from accord.wire.node import decode_descriptor
from tests.meeting.hosts import Host, identity_of, run
from tests.negotiation.peers import ALL, HTTP, QUIC, SECURE, SHAPE, TCP, FakeChooser, deliver, initiator, responder
from tests.negotiation.peers import run as run_pair

# Of SHAPE: 2 is TLS on TCP, 3 is QUIC; HTTP is on top of all.
TLS_FIRST, QUIC_FIRST = {2: 3, 3: 2, 1: 1}, {3: 3, 2: 2, 1: 1}


def pair(one: dict[int, int] = TLS_FIRST, other: dict[int, int] = QUIC_FIRST, **options: object) -> tuple[Host, Host]:
    return Host("ada", one, **options), Host("bob", other, **options)  # type: ignore[arg-type]


def converged(one: Host, other: Host) -> str:
    """The stack of both, with one leader."""
    assert one.stack == other.stack
    assert one.stack is not None
    assert {one.leads, other.leads} == {True, False}
    return one.stack


def mask(bits: int, what: str = "lose") -> Callable[[int], str]:
    return lambda number: what if number < 64 and bits >> number & 1 else ""


def test_crossed_proposals_become_one_stack() -> None:
    one, other = pair()
    run(one, other)
    assert converged(one, other) == "http/quic"


def test_who_leads_follows_from_the_identities_not_from_who_began() -> None:
    leaders = set()
    for first, lag in itertools.product((True, False), (0, 1, 2, 5)):
        one, other = pair()
        run(*((one, other) if first else (other, one)), lag=lag)
        converged(one, other)
        leaders.add("ada" if one.leads else "bob")
    assert len(leaders) == 1


def test_both_orders_of_preference_weigh_the_same() -> None:
    stacks = set()
    for preferences in ((TLS_FIRST, QUIC_FIRST), (QUIC_FIRST, TLS_FIRST)):
        one, other = pair(*preferences)
        run(one, other)
        stacks.add(converged(one, other))
    assert len(stacks) == 1


@pytest.mark.parametrize(("what", "first"), [("lose", 8), ("double", 6), ("late", 6)])
def test_every_fate_of_the_first_messages_leads_to_the_same_stack(what: str, first: int) -> None:
    for bits in range(1 << first):
        one, other = pair()
        run(one, other, mask(bits, what))
        assert converged(one, other) == "http/quic", f"mask {bits:b}"


@settings(max_examples=150)
@given(st.randoms(use_true_random=False), st.integers(0, 12), st.integers(1, 3))
def test_any_mixture_of_fates_and_paths_leads_to_the_same_stack(chance: random.Random, lag: int, paths: int) -> None:
    one, other = pair(paths=paths)
    fates = [chance.choice(["", "", "", "lose", "double", "late"]) for _ in range(60)]
    run(one, other, lambda number: fates[number] if number < len(fates) else "", lag)
    assert converged(one, other) == "http/quic"


def test_sessions_that_lost_are_all_let_go() -> None:
    one, other = pair(paths=2)
    run(one, other)
    for host in (one, other):
        (committed,) = host.committed
        for session in host.sessions:
            kept = any(session is used for used in committed.sessions)
            assert kept or not session.log or session.ended, session
            assert not (kept and session.ended), session


def test_a_peer_that_only_answers_is_negotiated_with_as_ever() -> None:
    meeting = Meeting(meeting_id("x"), identity_of("x"), SECURE)
    one = initiator(peer=meeting.peer)
    other = responder(FakeChooser(prefer=("http/quic",)))
    run_pair(one, other)
    assert one.stack == other.stack == "http/quic"


def test_a_refusal_on_one_side_takes_the_next_stack_on_both() -> None:
    script = {3: {"respond": Refuse(Reason.HANDSHAKE_FAILED)}}
    one, other = pair(QUIC_FIRST, QUIC_FIRST, refuses=script)
    run(one, other)
    assert converged(one, other) == "http/tls/tcp"


def test_nothing_in_common_ends_both_with_a_reason() -> None:
    one = Host("ada", {}, shape={0: (SHAPE[0][0], (1,)), 1: (TCP, (2,)), 2: (HTTP, ())})
    other = Host("bob", {}, shape={0: (SHAPE[0][0], (1,)), 1: (QUIC, (2,)), 2: (HTTP, ())})
    run(one, other)
    assert one.stack is None
    assert other.stack is None
    assert "NO_COMMON_STACK" in one.reasons & other.reasons


def test_what_a_side_does_not_support_is_merged_without_it() -> None:
    one = Host("ada", QUIC_FIRST)
    without = {0: (SHAPE[0][0], (1,)), 1: (TCP, (2, 3)), 2: (SHAPE[2][0], (3,)), 3: (HTTP, ())}
    other = Host("bob", {1: 2, 2: 1}, shape=without, supported=ALL - {QUIC})
    run(one, other)
    assert converged(one, other) == "http/tls/tcp"


def test_hosts_of_two_meetings_do_not_meet() -> None:
    one, other = Host("ada", TLS_FIRST, meeting_name="tea"), Host("bob", TLS_FIRST, meeting_name="coffee")
    run(one, other)
    assert one.stack is None
    assert other.stack is None
    assert "NO_SERVICE" in one.reasons


def leading_and_following() -> tuple[Host, Host]:
    """The sides of a meeting by their roles, neither started."""
    one, other = pair()
    run(one, other)
    return (Host("ada", TLS_FIRST), Host("bob", QUIC_FIRST)) if one.leads else (
        Host("bob", QUIC_FIRST),
        Host("ada", TLS_FIRST),
    )  # fmt: skip


def test_an_answer_before_the_proposal_that_it_speaks_of_is_held() -> None:
    leads, follows = leading_and_following()
    (proposal,) = leads.start()
    (late,) = follows.start()
    answer = next(letter for letter in follows.take(proposal) if letter.message.step == Step.ANSWER)
    assert all(letter.acknowledges for letter in leads.take(answer)), "nothing is committed to that was not heard"
    commit = [letter for letter in leads.take(late) if letter.message.step == Step.COMMIT]
    assert len(commit) == 1
    follows.take(commit[0])
    assert converged(leads, follows) == "http/quic"


@pytest.mark.parametrize("value", [bytes(32), b"\xff" * 32, None])
def test_an_answer_that_merged_something_else_is_refused(value: bytes | None) -> None:
    leads, follows = leading_and_following()
    (proposal,) = leads.start()
    (own,) = follows.start()
    leads.take(own)
    answer = next(letter for letter in follows.take(proposal) if letter.message.step == Step.ANSWER)
    answer.message = _with_peer(answer.message, value)
    leads.take(answer)
    assert leads.stack is None
    if value is None:
        assert "NOT_MERGED" in leads.reasons


def _with_peer(message: Send, value: bytes | None) -> Send:
    nodes = [decode_descriptor(*encoded) for encoded in message.nodes]
    tlvs = tuple(t for t in nodes[0].tlvs if t.type != TlvType.PEER) + (() if value is None else (tlv.peer(value),))
    nodes[0] = replace(nodes[0], tlvs=tlvs)
    return Send(message.step, Message(message.step, tuple(nodes)).encode())


def test_a_follower_cannot_choose_another_stack_than_the_merged_one() -> None:
    """It prefers what its own policy puts first, and the leader sees that this is not what both proposals say."""
    leads, follows = leading_and_following()
    (proposal,) = leads.start()
    (own,) = follows.start()
    leads.take(own)

    answer = next(letter for letter in follows.take(proposal) if letter.message.step == Step.ANSWER)
    digest = decode_descriptor(*answer.message.nodes[0]).tlv(TlvType.PEER)
    cheat = responder(FakeChooser(prefer=("http/tls/tcp",)))
    accept = cheat.machine._accept  # type: ignore[attr-defined]

    def tilted(service: int | None) -> object:
        return replace(accept(service), peer=digest)

    cheat.machine._accept = tilted  # type: ignore[attr-defined]
    (forged,) = deliver(proposal.message, cheat)
    answer.message = forged
    leads.take(answer)
    assert leads.stack is None
    assert "NOT_MERGED" in leads.reasons


def test_a_leader_that_answers_is_refused() -> None:
    leads, follows = leading_and_following()
    (proposal,) = leads.start()
    (own,) = follows.start()
    follows.take(proposal)
    pretender = responder()
    (answer,) = deliver(own.message, pretender)
    digest = next(iter(follows.meeting._heard.values())).digest
    own.sender, own.message = leads.name, _with_peer(answer, digest)
    follows.take(own)
    assert "NOT_MERGED" in follows.reasons


def test_a_meeting_hears_a_bounded_number_of_strangers() -> None:
    meeting = Meeting(meeting_id("x"), identity_of("x"), SECURE)
    one = initiator(peer=meeting.peer)
    graph = Graph(decode_descriptor(*encoded) for encoded in one.start()[0].nodes)
    assert meeting.offer(graph)
    for number in range(1000):
        meeting.hear(identity_of(str(number)), graph)
    assert len(meeting._heard) == 4


def test_another_address_is_not_offered_other_stacks() -> None:
    one = Host("ada", TLS_FIRST)
    one.start()
    one.preferences, one.paths = QUIC_FIRST, 2
    one.machines.clear()
    assert one.start() == []
    assert one.reasons == {"POLICY"}


def test_nobody_is_answered_before_this_side_has_proposed() -> None:
    one, other = pair()
    (proposal,) = one.start()
    answer = next(letter for letter in other.take(proposal) if letter.message.step == Step.ANSWER)
    assert decode_descriptor(*answer.message.nodes[0]).reason == Reason.NO_SERVICE


@pytest.mark.parametrize("size", [0, 15, 17])
def test_an_identity_has_sixteen_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="16"):
        Meeting(meeting_id("x"), bytes(size), SECURE)


def test_an_ordinary_initiator_refuses_an_answer_that_merged() -> None:
    one, other = initiator(), responder()
    accept = other.machine._accept  # type: ignore[attr-defined]

    def merged(service: int | None) -> object:
        return replace(accept(service), peer=bytes(32))

    other.machine._accept = merged  # type: ignore[attr-defined]
    run_pair(one, other)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.BAD_TLV
