# SPDX-License-Identifier: Apache-2.0
"""A message that proposes no stack: what a real responder makes of it, and what its sender of the answer."""

from __future__ import annotations

import pytest

from accord.negotiation import events
from accord.negotiation.interface import Refuse
from accord.negotiation.notice import Notice, NoticeState
from accord.negotiation.responder import Accepted, Responder
from accord.wire import tlv
from accord.wire.constants import Protocol, Reason, Step
from accord.wire.node import Node, encode_descriptor

CLAIM = bytes(range(48))
TRANSACTION = bytes(12)


def notice(**options: int) -> Notice:
    return Notice(TRANSACTION, CLAIM, context_protocol=options.pop("context", Protocol.UDP), **options)


def answered(machine: Notice, *nodes: Node, step: int = Step.ANSWER) -> tuple[events.Action, ...]:
    for node in nodes:
        machine.receive(events.NodeArrived(step, node.id, node.protocol, encode_descriptor(node)))
    return machine.receive(events.MessageComplete(step))


def test_a_responder_sees_the_claim_and_no_stack_and_its_refusal_is_the_answer() -> None:
    asked: list[Node] = []

    def accept(service: int | None) -> Accepted | Refuse:
        assert responder.proposed is not None
        asked.append(responder.proposed.context)
        return Refuse(Reason.RENEGOTIATING)

    responder = Responder(TRANSACTION, accept, bytes(16))
    machine = notice()
    (sent,) = machine.start()
    assert isinstance(sent, events.Send)
    assert sent.step == Step.PROPOSAL
    for node_id, protocol, data in sent.nodes:
        responder.receive(events.NodeArrived(Step.PROPOSAL, node_id, protocol, data))
    actions = responder.receive(events.MessageComplete(Step.PROPOSAL))
    assert [(node.renegotiates, node.children) for node in asked] == [(CLAIM, ())]
    (answer,) = (action for action in actions if isinstance(action, events.Send))
    for node_id, protocol, data in answer.nodes:
        machine.receive(events.NodeArrived(answer.step, node_id, protocol, data))
    (ended,) = machine.receive(events.MessageComplete(answer.step))
    assert isinstance(ended, events.Aborted)
    assert (ended.reason, ended.by_peer) == (Reason.RENEGOTIATING, True)


def test_where_the_context_has_no_ports_the_service_is_named() -> None:
    (sent,) = notice(context=Protocol.DIRECT, service_port=443).start()
    assert isinstance(sent, events.Send)
    expected = Node(0, Protocol.DIRECT, (), (tlv.service(443), tlv.renegotiates(CLAIM)))
    assert sent.nodes == ((0, Protocol.DIRECT, encode_descriptor(expected)),)


@pytest.mark.parametrize(
    "context",
    [Node(0, Protocol.UDP, (), (tlv.cookie(b"c"),)), Node(0, Protocol.UDP)],
    ids=["an answer", "nothing"],
)
def test_an_answer_that_is_no_abort_ends_it_as_the_peers_fault(context: Node) -> None:
    machine = notice()
    machine.start()
    (ended,) = answered(machine, context)
    assert isinstance(ended, events.Aborted)
    assert (ended.reason, ended.by_peer) == (Reason.NOT_PROPOSED, False)
    assert machine.state is NoticeState.ABORTED


@pytest.mark.parametrize("event", [events.Failed(Reason.TIMEOUT), events.Stop(Reason.SHUTDOWN)])
def test_without_an_answer_it_ends_with_the_reason_and_says_no_more(event: events.Event) -> None:
    machine = notice()
    machine.start()
    (ended,) = machine.receive(event)
    assert isinstance(ended, events.Aborted)
    assert ended.reason is event.reason  # type: ignore[union-attr]
    assert machine.receive(event) == ()
    assert machine.start() == ()
