# SPDX-License-Identifier: Apache-2.0
"""The responder of the exchange: how it chooses, whom it asks, what it does not take from a peer."""

from __future__ import annotations

import pytest

from accord.negotiation.events import Aborted, MessageComplete, NodeArrived, NodeSkipped, Resume, Send
from accord.negotiation.interface import Answer, Refuse, Wait
from accord.negotiation.responder import MAX_ATTEMPTS, Responder, ResponderState
from accord.wire.constants import Limit, Party, Protocol, Reason
from accord.wire.errors import HostError
from accord.wire.node import Node, decode_descriptor, encode_descriptor
from tests.negotiation.peers import (
    ALL,
    HTTP,
    QUIC,
    TCP,
    TLS,
    TLS_FIRST,
    TRANSACTION,
    UDP,
    FakeChooser,
    agreed,
    deliver,
    events_of,
    initiator,
    responder,
    run,
    sent,
)


def test_every_node_that_is_not_in_the_answer_is_named_with_its_reason() -> None:
    chooser = FakeChooser(secure=True, prefer=TLS_FIRST.prefer)
    one = initiator(
        shape={0: (UDP, (1, 3)), 1: (TCP, (2, 4)), 2: (TLS, (4,)), 3: (77, (4, 5)), 4: (HTTP, ()), 5: (QUIC, ())}
    )
    other = responder(chooser)
    run(one, other)
    assert agreed(one, other) == "http/tls/tcp"
    assert sent(other, 1)[0].pruned == {3: Reason.UNSUPPORTED, 5: Reason.UNREACHABLE_NODE}


def test_what_the_policy_forbids_is_told_apart_from_what_it_likes_less() -> None:
    shape = {0: (UDP, (1, 3)), 1: (TCP, (2, 4)), 2: (TLS, ()), 3: (QUIC, ()), 4: (HTTP, ())}
    one, other = initiator(shape=shape), responder(FakeChooser(secure=True, prefer=("tls/tcp",)))
    run(one, other)
    assert agreed(one, other) == "tls/tcp"
    assert sent(other, 1)[0].pruned == {3: Reason.NOT_PREFERRED, 4: Reason.POLICY}


@pytest.mark.parametrize(
    "outcome",
    [
        Refuse(Reason.BAD_CERTIFICATE),
        HostError(Reason.CANNOT_INSTALL, "no memory"),
        ZeroDivisionError("x"),
        "nonsense",
        Answer(bytes(Limit.MAX_MESSAGE_BYTES)),
    ],
)
def test_a_session_that_cannot_respond_costs_its_node_and_the_next_stack_is_tried(outcome: object) -> None:
    one, other = initiator(), responder(TLS_FIRST, script={2: {"respond": outcome}})
    run(one, other)
    assert agreed(one, other) == "http/quic"
    expected = {Refuse: Reason.BAD_CERTIFICATE, HostError: Reason.CANNOT_INSTALL}.get(
        type(outcome), Reason.PLUGIN_FAILED
    )
    assert sent(other, 1)[0].pruned[2] == expected
    assert [session.ended for session in other.sessions[1]] == [True, True]


@pytest.mark.parametrize(
    "verdict", [Refuse(Reason.CANNOT_INSTALL), HostError(Reason.CANNOT_INSTALL, "x"), Wait(), ZeroDivisionError("x")]
)
def test_an_answer_that_is_not_confirmed_costs_its_node_and_nothing_of_its_stack_is_sent(verdict: object) -> None:
    asked: list[list[str]] = []

    def confirm() -> Refuse | None:
        asked.append([entry for node in (1, 2, 4) for entry in other.session(node).log if entry == "respond"])
        if isinstance(verdict, BaseException):
            raise verdict
        return verdict  # type: ignore[return-value]

    one, other = initiator(), responder(TLS_FIRST, script={1: {"respond": Answer(b"syn-ack", confirm)}})
    run(one, other)
    assert asked == [["respond"] * 3], "once, when all of the stack have answered"
    assert agreed(one, other) == "http/quic"
    known = isinstance(verdict, Refuse | HostError)
    assert sent(other, 1)[0].pruned[1] == (Reason.CANNOT_INSTALL if known else Reason.PLUGIN_FAILED)
    assert [session.ended for session in other.sessions[1]] == [True]


def test_an_answer_that_is_confirmed_is_sent_and_one_beside_a_refusal_is_not_asked_for() -> None:
    asked: list[int] = []
    waits = {"respond": Wait("the service"), "resume": Answer(b"late")}
    for script, stack in (({}, "http/tls/tcp"), ({2: {"respond": Refuse(Reason.BAD_CERTIFICATE)}}, "http/quic")):
        first = {1: {"respond": Answer(b"syn-ack", lambda: asked.append(1))}}
        one, other = initiator(), responder(TLS_FIRST, script={**first, **script})
        run(one, other)
        assert agreed(one, other) == stack
        assert asked == [1]
    one, other = initiator(), responder(TLS_FIRST, script={**first, 4: waits})
    run(one, other)
    assert asked == [1], "not while a session waits"
    other.receive(Resume(4))
    assert asked == [1, 1]


def test_nodes_of_a_stack_that_failed_halfway_get_new_sessions_for_the_next() -> None:
    chooser = FakeChooser(prefer=("http/tls/tcp", "http/tcp"))
    one, other = initiator(), responder(chooser, script={2: {"respond": Refuse(Reason.BAD_CERTIFICATE)}})
    run(one, other)
    assert agreed(one, other) == "http/tcp"
    first, second = other.sessions[1]
    assert (first.log, second.log) == (["respond", "prune NOT_PREFERRED"], ["respond", "advance", "commit"])


def test_cheap_sessions_below_are_asked_before_what_builds_on_them() -> None:
    one, other = initiator(), responder(TLS_FIRST, script={1: {"respond": Refuse(Reason.ADDRESS_TRANSLATED)}})
    run(one, other)
    assert agreed(one, other) == "http/quic"
    assert other.session(2).log == ["prune UNREACHABLE_NODE"]


def test_a_plugin_cannot_claim_that_a_node_was_never_stored() -> None:
    one, other = initiator(), responder(TLS_FIRST, script={2: {"respond": Refuse(Reason.UNSUPPORTED)}})
    run(one, other)
    assert agreed(one, other) == "http/quic"
    assert sent(other, 1)[0].pruned[2] == Reason.HANDSHAKE_FAILED


def test_a_session_that_cannot_be_opened_costs_its_node() -> None:
    one, other = initiator(), responder(TLS_FIRST, open_fails={2: RuntimeError("broken plug-in")})
    run(one, other)
    assert agreed(one, other) == "http/quic"


@pytest.mark.parametrize("exporter", [None, b"short", RuntimeError("no keys"), "text"])
def test_a_security_session_without_exporter_is_none(exporter: object) -> None:
    one, other = initiator(), responder(TLS_FIRST, script={2: {"exporter": exporter}})
    if exporter is None:
        other = responder(TLS_FIRST, script={2: {"exporter": lambda view: None}})
    run(one, other)
    assert agreed(one, other) == "http/quic"
    assert sent(other, 1)[0].pruned[2] == Reason.PLUGIN_FAILED


def test_a_proposal_of_many_stacks_that_all_fail_is_given_up_after_a_few() -> None:
    count = 20
    shape = {0: (UDP, tuple(range(1, count + 1)))} | dict.fromkeys(range(1, count + 1), (QUIC, ()))
    script = {node: {"respond": Refuse(Reason.HANDSHAKE_FAILED)} for node in range(1, count + 1)}
    one, other = initiator(shape=shape), responder(script=script)
    run(one, other)
    asked = [row for row in other.sessions.values() if any("respond" in session.log for session in row)]
    assert len(asked) == MAX_ATTEMPTS
    assert one.aborted == Aborted(Reason.HANDSHAKE_FAILED, "", Party.PEER, True)


def test_handshakes_are_told_what_is_left_of_the_budget() -> None:
    one, other = initiator(), responder(TLS_FIRST, script={1: {"respond": Answer(bytes(100))}})
    (proposal,) = one.start()
    *arrivals, _ = events_of(proposal, proposal.nodes, other)
    for event in [*arrivals, MessageComplete(0, budget=500)]:
        other.receive(event)
    budgets = [other.session(node).views["respond"].budget for node in (1, 2, 4)]
    answer = other.only(Send)[0]
    overhead = sum(len(data) for _, _, data in answer.nodes) - 100 - len(b"answer 304") - len(b"answer 800")
    assert budgets == [500 - overhead, 400 - overhead, 390 - overhead]


def test_a_responder_s_session_that_waits_holds_up_the_answer_until_it_is_resumed() -> None:
    one, other = initiator(), responder(TLS_FIRST, script={4: {"respond": Wait("the service")}})
    run(one, other)
    assert other.machine.state is ResponderState.CHOOSING
    assert "waiting: the service" in other.notes
    assert other.receive(Resume(1)) == []
    (answer,) = other.receive(Resume(4))
    assert other.receive(Resume(4)) == []
    assert decode_descriptor(*answer.nodes[-1]).payload == b"resumed 800"
    (commit,) = deliver(answer, one)
    deliver(commit, other)
    assert agreed(one, other) == "http/tls/tcp"


def test_a_session_that_refuses_after_waiting_costs_its_node() -> None:
    script = {2: {"respond": Wait(), "resume": Refuse(Reason.BACKEND_FAILED)}}
    one, other = initiator(), responder(TLS_FIRST, script=script)
    run(one, other)
    (answer,) = other.receive(Resume(2))
    assert decode_descriptor(*answer.nodes[0]).pruned[2] == Reason.BACKEND_FAILED


def test_a_responder_s_session_with_more_to_say_than_three_steps_carry_is_a_fault() -> None:
    one, other = initiator(), responder(TLS_FIRST, script={2: {"advance": Answer(b"ticket")}})
    run(one, other)
    assert other.aborted is not None
    assert other.aborted.reason is Reason.PLUGIN_FAILED


def test_a_malformed_proposal_gets_silence() -> None:
    for nodes in (
        {0: (UDP, (1,)), 1: (TCP, (2,)), 2: (TLS, (1,))},
        {0: (UDP, (1, 9)), 1: (TCP, ())},
        {0: (TCP, (1,)), 1: (TCP, ())},
        {1: (TCP, ())},
        {},
    ):
        other = responder()
        for node, (protocol, children) in nodes.items():
            descriptor = encode_descriptor(Node(node, protocol, children))
            assert other.receive(NodeArrived(0, node, protocol, descriptor)) == []
        assert other.receive(MessageComplete(0)) == []
        assert other.aborted is not None
        assert other.aborted.party is Party.PEER


@pytest.mark.parametrize("context", [Protocol.UDP, Protocol.DIRECT])
def test_a_context_that_is_not_what_the_packets_came_by_is_refused(context: Protocol) -> None:
    other = responder(context_protocol=Protocol.DIRECT, supported=ALL | {Protocol.DIRECT})
    other.receive(NodeArrived(0, 0, context, encode_descriptor(Node(0, context, (1,)))))
    other.receive(NodeArrived(0, 1, TCP, encode_descriptor(Node(1, TCP))))
    assert other.receive(MessageComplete(0)) == []
    assert other.aborted is not None
    assert other.aborted.reason is (Reason.BAD_TLV if context is Protocol.DIRECT else Reason.NO_CONTEXT)


def test_a_node_that_comes_twice_with_other_contents_is_a_contradiction() -> None:
    for second in (NodeArrived(0, 1, TCP, encode_descriptor(Node(1, TCP, payload=b"y"))), NodeSkipped(0, 1, 99)):
        other = responder()
        other.receive(NodeArrived(0, 1, TCP, encode_descriptor(Node(1, TCP, payload=b"x"))))
        other.receive(second)
        assert other.aborted is not None
        assert other.aborted.reason is Reason.CONTRADICTION


@pytest.mark.parametrize("step", [1, 3, 10, 255])
def test_a_step_that_is_not_the_initiator_s_is_refused(step: int) -> None:
    other = responder()
    other.receive(NodeSkipped(step, 1, 99))
    assert other.aborted is not None
    assert other.aborted.reason is Reason.BAD_STEP


def test_a_commit_before_the_answer_is_refused() -> None:
    other = responder()
    other.receive(NodeArrived(2, 0, UDP, encode_descriptor(Node(0, UDP))))
    assert other.receive(MessageComplete(2)) == []
    assert other.aborted is not None
    assert other.aborted.reason is Reason.BAD_STEP


def test_a_message_is_bounded_in_nodes_and_bytes() -> None:
    other = responder()
    for node in range(65):
        other.receive(NodeSkipped(0, node, 99))
    assert other.aborted is not None
    assert other.aborted.reason is Reason.TOO_MANY_NODES
    other = responder()
    for node in range(1, 4):
        big = encode_descriptor(Node(node, TCP, payload=bytes(30000)))
        other.receive(NodeArrived(0, node, TCP, big))
    assert other.aborted is not None
    assert other.aborted.reason is Reason.MESSAGE_TOO_LONG


def test_a_cookie_has_its_length() -> None:
    with pytest.raises(ValueError, match="cookie"):
        Responder(TRANSACTION, lambda service: Refuse(Reason.NO_SERVICE), b"short")
