# SPDX-License-Identifier: Apache-2.0
"""Negotiations that end without a stack: who is told what, and what comes too late."""

from __future__ import annotations

import pytest

from accord.negotiation.events import Aborted, Failed, MessageComplete, NodeArrived, Send, Stop
from accord.negotiation.interface import Refuse, Wait
from accord.wire import tlv
from accord.wire.constants import Party, Reason, Step
from accord.wire.errors import HostError, PeerError
from accord.wire.node import Node, encode_descriptor
from tests.negotiation.peers import (
    ALL,
    HTTP,
    SECURE,
    TLS_FIRST,
    UDP,
    FakeChooser,
    deliver,
    initiator,
    responder,
    run,
    sent,
)


def test_nothing_in_common_is_told_to_the_initiator_with_every_node_s_reason() -> None:
    one, other = initiator(), responder(supported=frozenset({UDP, HTTP}))
    run(one, other)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.NO_COMMON_STACK
    assert one.aborted.by_peer
    assert other.aborted is not None
    assert not other.aborted.by_peer
    assert set(sent(other, 1)) == {0}
    assert sent(other, 1)[0].pruned == {
        1: Reason.UNSUPPORTED,
        2: Reason.UNSUPPORTED,
        3: Reason.UNSUPPORTED,
        4: Reason.UNREACHABLE_NODE,
    }
    assert all(session.ended for side in (one, other) for row in side.sessions.values() for session in row)


def test_a_responder_that_requires_security_says_insecure_when_none_is_left() -> None:
    one, other = initiator(), responder(FakeChooser(secure=True), supported=ALL - SECURE)
    run(one, other)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.INSECURE
    assert one.aborted.party is Party.PEER


def test_the_service_s_refusal_reaches_the_initiator() -> None:
    one, other = initiator(), responder(refuse=Refuse(Reason.NO_SERVICE, "port 443"))
    run(one, other)
    assert one.aborted is not None
    assert (one.aborted.reason, one.aborted.by_peer) == (Reason.NO_SERVICE, True)
    assert "so says the peer" in str(one.aborted.error())
    assert isinstance(one.aborted.error(), PeerError)


@pytest.mark.parametrize("node", [1, 2, 4])
@pytest.mark.parametrize(
    "outcome", [Refuse(Reason.CERTIFICATE_EXPIRED, "yesterday"), PeerError(Reason.CERTIFICATE_EXPIRED, "yesterday")]
)
def test_an_initiator_s_session_that_rejects_the_answer_aborts_both_sides(node: int, outcome: object) -> None:
    one, other = initiator(script={node: {"advance": outcome}}), responder(TLS_FIRST)
    run(one, other)
    assert one.aborted == Aborted(Reason.CERTIFICATE_EXPIRED, "yesterday", Party.PEER, False)
    assert other.aborted is not None
    assert (other.aborted.reason, other.aborted.by_peer) == (Reason.CERTIFICATE_EXPIRED, True)
    assert one.committed is other.committed is None
    assert all(session.ended for side in (one, other) for row in side.sessions.values() for session in row)


@pytest.mark.parametrize("node", [1, 2, 4])
def test_a_responder_s_session_that_rejects_the_commit_aborts_both_although_one_had_committed(node: int) -> None:
    one, other = initiator(), responder(TLS_FIRST, script={node: {"advance": Refuse(Reason.HANDSHAKE_FAILED)}})
    run(one, other)
    assert other.committed is None
    assert one.committed is not None
    assert one.aborted is not None
    assert (one.aborted.reason, one.aborted.by_peer) == (Reason.HANDSHAKE_FAILED, True)
    assert [action.step for action in other.only(Send)] == [1, 3]


@pytest.mark.parametrize("failure", [HostError(Reason.CANNOT_INSTALL, "EPERM"), RuntimeError("x")])
def test_a_commit_that_fails_on_this_host_aborts_before_the_peer_hears_of_it(failure: Exception) -> None:
    one, other = initiator(script={4: {"commit": failure}}), responder(TLS_FIRST)
    run(one, other)
    reason = failure.reason if isinstance(failure, HostError) else Reason.PLUGIN_FAILED
    assert one.aborted is not None
    assert one.aborted.reason is reason
    assert one.committed is other.committed is None
    assert other.aborted is not None
    assert other.aborted.by_peer
    assert other.aborted.party is Party.PEER
    assert one.session(1).log[-1] == f"abort {reason.name}"


def test_a_commit_that_fails_on_the_responder_aborts_both() -> None:
    one, other = initiator(), responder(TLS_FIRST, script={1: {"commit": HostError(Reason.CANNOT_INSTALL)}})
    run(one, other)
    assert other.committed is None
    assert one.aborted is not None
    assert one.aborted.reason is Reason.CANNOT_INSTALL


@pytest.mark.parametrize("method", ["prune NOT_PREFERRED", "abort BAD_CERTIFICATE"])
def test_a_session_that_fails_while_it_is_let_go_does_no_harm(method: str) -> None:
    script: dict[int, dict[str, object]] = {3: {method: RuntimeError("stuck")}, 4: {method: RuntimeError("stuck")}}
    if method.startswith("abort"):
        script[2] = {"advance": Refuse(Reason.BAD_CERTIFICATE)}
    one, other = initiator(script=script), responder(TLS_FIRST)
    run(one, other)
    assert (one.stack or one.aborted) is not None
    assert "RuntimeError: stuck" in one.notes


def test_a_host_that_stops_while_it_waits_for_the_answer_tells_the_peer() -> None:
    one, other = initiator(), responder(TLS_FIRST)
    (proposal,) = one.start()
    (abort,) = one.receive(Stop(Reason.LEGACY_FIRST, "TCP was faster"))
    assert abort.step == Step.COMMIT
    deliver(proposal, other)
    deliver(abort, other)
    assert one.aborted == Aborted(Reason.LEGACY_FIRST, "TCP was faster", Party.NONE, False)
    assert other.aborted == Aborted(Reason.LEGACY_FIRST, "", Party.NONE, True)
    assert one.receive(Stop(Reason.SHUTDOWN)) == []


def test_an_abort_that_overtakes_the_proposal_is_heard() -> None:
    other = responder()
    abort = encode_descriptor(Node(0, UDP, (), (tlv.reason(Reason.LEGACY_FIRST),)))
    other.receive(NodeArrived(2, 0, UDP, abort))
    other.receive(MessageComplete(2))
    assert other.aborted == Aborted(Reason.LEGACY_FIRST, "", Party.NONE, True)


@pytest.mark.parametrize(
    ("script", "steps"), [({}, [1, 3]), ({4: {"respond": Wait()}}, [1])], ids=["answered", "choosing"]
)
def test_a_responder_that_stops_tells_the_initiator(script: dict[int, dict[str, object]], steps: list[int]) -> None:
    one, other = initiator(), responder(TLS_FIRST, script=script)
    (proposal,) = one.start()
    deliver(proposal, other)
    (told,) = other.receive(Stop(Reason.SHUTDOWN))
    assert [action.step for action in other.only(Send)] == steps
    deliver(told, one)
    assert one.aborted == Aborted(Reason.SHUTDOWN, "", Party.NONE, True)


def test_stopping_before_anything_was_said_is_silent() -> None:
    one, other = initiator(), responder()
    for side in (one, other):
        assert side.receive(Stop(Reason.SHUTDOWN)) == []
        assert side.aborted is not None


def test_stopping_comes_too_late_after_the_commit() -> None:
    one, other = initiator(), responder(TLS_FIRST)
    run(one, other)
    for side in (one, other):
        assert side.receive(Stop(Reason.SHUTDOWN)) == []
        assert side.aborted is None


def test_a_transport_that_gives_up_ends_both_sides_without_a_word() -> None:
    one, other = initiator(), responder()
    one.start()
    for side in (one, other):
        assert side.receive(Failed(Reason.TIMEOUT, "10 s")) == []
        assert side.aborted == Aborted(Reason.TIMEOUT, "10 s", Party.PATH, False)
        assert all(session.ended for row in side.sessions.values() for session in row)


@pytest.mark.parametrize(
    "event",
    [
        NodeArrived(3, 0, UDP, b"nonsense"),
        NodeArrived(2, 0, UDP, encode_descriptor(Node(0, UDP))),
        MessageComplete(3),
        MessageComplete(1),
    ],
)
def test_what_is_no_abort_does_not_shake_a_committed_stack(event: NodeArrived | MessageComplete) -> None:
    one, other = initiator(), responder(TLS_FIRST)
    run(one, other)
    for side in (one, other):
        assert side.receive(event) == []
        assert side.aborted is None
        assert not any(session.ended for session in side.committed.sessions)  # type: ignore[union-attr]
