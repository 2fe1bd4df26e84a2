# SPDX-License-Identifier: Apache-2.0
"""The initiator of the exchange: what it proposes, what it takes for an answer, when it commits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from accord.negotiation.events import Aborted, Confirmed, Failed, MessageArrived, Send, Unconfirmed
from accord.negotiation.initiator import Initiator, Proposed
from accord.negotiation.interface import Answer, Refuse
from accord.wire import tlv
from accord.wire.constants import Party, Protocol, Reason, Step
from accord.wire.message import Encoded, Message
from accord.wire.node import decode_descriptor
from tests.negotiation.peers import (
    ALL,
    PLAIN_FIRST,
    QUIC,
    QUIC_FIRST,
    TCP,
    TLS,
    TLS_FIRST,
    TRANSACTION,
    UDP,
    FakeChooser,
    agreed,
    deliver,
    initiator,
    responder,
    run,
    sent,
)


def test_the_initiator_s_preference_travels_and_breaks_the_responder_s_ties() -> None:
    for preferences, stack in (({3: 9}, "http/quic"), ({2: 9}, "http/tls/tcp")):
        one, other = initiator(preferences=preferences), responder()
        run(one, other)
        assert agreed(one, other) == stack


def test_the_initiator_s_kernel_state_is_there_before_its_commit_leaves() -> None:
    one, other = initiator(), responder(TLS_FIRST)
    order: list[str] = []
    one.session(1).script["commit"] = lambda view: order.append("committed")
    run(one, other, tamper=lambda step, nodes: order.append(f"step {step}") or nodes)
    assert order == ["step 0", "step 1", "committed", "step 2"]


def test_the_best_stack_s_nodes_are_sent_first_and_grease_last() -> None:
    one = initiator(TLS_FIRST, grease=bytes(range(16)))
    (message,) = one.start()
    assert [node for node, _, _ in message.nodes][:5] == [0, 1, 2, 4, 3]
    assert message.nodes[5][1] & 0x0F0F0F0F == 0x0A0A0A0A


@pytest.mark.parametrize("seed", range(0, 256, 17))
def test_grease_is_skipped_and_changes_nothing(seed: int) -> None:
    one, other = initiator(grease=bytes([seed] * 16)), responder(TLS_FIRST)
    run(one, other)
    assert agreed(one, other) == "http/tls/tcp"


def test_the_service_port_and_padding_reach_the_wire() -> None:
    shape = {0: (Protocol.DIRECT, (1,)), 1: (TCP, ())}
    one = initiator(shape=shape, context_protocol=Protocol.DIRECT, service_port=443, packets_min=3)
    other = responder(context_protocol=Protocol.DIRECT, supported=ALL | {Protocol.DIRECT})
    run(one, other)
    assert agreed(one, other) == "tcp"
    assert sent(one, 0)[0].service == 443
    assert one.only(Send)[0].packets_min == 3


@pytest.mark.parametrize(
    "outcome",
    [Refuse(Reason.NO_KERNEL_SUPPORT, "no TCP_REPAIR"), OSError("boom"), None, Answer("text"), Answer(bytes(70000))],
)
def test_a_node_whose_session_cannot_propose_is_left_out(outcome: object) -> None:
    one, other = initiator(script={2: {"propose": outcome}}), responder(TLS_FIRST)
    run(one, other)
    assert agreed(one, other) == "http/quic"
    assert 2 not in sent(one, 0)
    assert sent(one, 0)[1].children == (4,)
    assert one.session(2).ended


def test_what_only_led_to_a_node_that_is_left_out_is_no_top_of_its_own() -> None:
    shape = {0: (UDP, (1, 3)), 1: (TCP, (2,)), 2: (TLS, ()), 3: (QUIC, ())}
    one, other = initiator(shape=shape, script={2: {"propose": OSError("boom")}}), responder()
    run(one, other)
    assert agreed(one, other) == "quic"
    assert set(sent(one, 0)) == {0, 3}


def test_when_nothing_can_be_proposed_the_first_refusal_is_the_reason_and_nothing_is_sent() -> None:
    one = initiator(script={4: {"propose": Refuse(Reason.NO_KERNEL_SUPPORT, "why")}})
    assert one.start() == []
    assert one.aborted == Aborted(Reason.NO_KERNEL_SUPPORT, "why", Party.HOST, False)
    assert all(row[0].ended for row in one.sessions.values())


def test_a_policy_that_allows_nothing_of_it_says_so_before_anything_is_sent() -> None:
    one = initiator(FakeChooser(secure=True), shape={0: (UDP, (1,)), 1: (TCP, ())})
    assert one.start() == []
    assert one.aborted is not None
    assert one.aborted.reason is Reason.INSECURE


def test_nothing_above_the_security_session_hears_of_an_answer_whose_mac_is_wrong() -> None:
    one, other = initiator(script={2: {"exporter": bytes(32)}}), responder(TLS_FIRST)
    run(one, other)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.BAD_MAC
    assert "advance" not in one.session(4).log
    assert other.aborted is not None
    assert other.aborted.reason is Reason.BAD_MAC


def test_a_commit_that_is_never_acknowledged_leaves_the_stack_to_show_itself() -> None:
    one, other = initiator(), responder(TLS_FIRST)
    (proposal,) = one.start()
    (answer,) = deliver(proposal, other)
    deliver(answer, one)
    one.receive(MessageArrived(Step.PROPOSAL))
    assert not one.only(Confirmed)
    one.receive(Failed(Reason.TIMEOUT))
    assert one.only(Unconfirmed) == [Unconfirmed(Reason.TIMEOUT)]
    assert one.aborted is None
    before = list(one.actions)
    assert one.receive(Failed(Reason.TIMEOUT)) == one.receive(MessageArrived(Step.COMMIT)) == []
    assert one.actions == before


def test_an_answer_that_ends_below_a_top_is_not_what_was_proposed() -> None:
    def cut_off(step: int, nodes: list[Encoded]) -> list[Encoded]:
        if step != Step.ANSWER:
            return nodes
        context, tcp, *_ = (decode_descriptor(*node) for node in nodes)
        reasons = context.pruned | dict.fromkeys((2, 4), int(Reason.NOT_PREFERRED))
        context = replace(context, tlvs=(context.tlvs[0], tlv.pruned(reasons)))
        return list(Message(step, (context, replace(tcp, children=()))).encode())

    one, other = initiator(), responder(PLAIN_FIRST)
    run(one, other, cut_off)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.NOT_PROPOSED


def test_an_initiator_whose_security_session_has_no_key_cannot_check_the_mac_and_aborts() -> None:
    one, other = initiator(script={2: {"exporter": RuntimeError("no keys yet")}}), responder(TLS_FIRST)
    run(one, other)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.PLUGIN_FAILED
    assert one.committed is other.committed is None


def test_a_responder_may_look_at_more_stacks_than_the_initiator(monkeypatch: pytest.MonkeyPatch) -> None:
    def shortsighted(step: int, nodes: list[Encoded]) -> list[Encoded]:
        if step == Step.ANSWER:
            monkeypatch.setattr("accord.negotiation.graph.MAX_STACKS", 1)
        return nodes

    one, other = initiator(), responder(QUIC_FIRST)
    run(one, other, shortsighted)
    assert agreed(one, other) == "http/quic"


@pytest.mark.parametrize(
    "proposed",
    [
        [],
        [Proposed(0, UDP, None, (1,))],
        [Proposed(0, UDP, None, (1,)), Proposed(1, TCP, None)],
        [Proposed(0, Protocol.DIRECT, None)],
    ],
)
def test_a_graph_that_cannot_be_proposed_is_the_caller_s_mistake(proposed: list[Proposed]) -> None:
    with pytest.raises(ValueError, match=r"graph|session|context"):
        Initiator(TRANSACTION, proposed, FakeChooser())


def test_grease_has_its_length() -> None:
    with pytest.raises(ValueError, match="grease"):
        initiator(grease=b"short")
