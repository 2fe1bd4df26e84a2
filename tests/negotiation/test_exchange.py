# SPDX-License-Identifier: Apache-2.0
"""The three-step exchange: both sides against each other, in memory, and what they agree on."""

from __future__ import annotations

import pytest

from accord.negotiation.events import Confirmed, Prove, Resume, Send
from accord.negotiation.initiator import InitiatorState
from accord.negotiation.interface import Answer, Wait
from accord.negotiation.responder import ResponderState
from accord.wire.constants import Protocol, Reason, TlvType
from tests.negotiation.peers import (
    ALL,
    HTTP,
    PLAIN_FIRST,
    QUIC,
    QUIC_FIRST,
    TCP,
    TLS,
    TLS_FIRST,
    UDP,
    FakeChooser,
    Side,
    agreed,
    deliver,
    initiator,
    responder,
    run,
    sent,
)


@pytest.mark.parametrize(
    ("policy", "stack"), [(TLS_FIRST, "http/tls/tcp"), (QUIC_FIRST, "http/quic"), (PLAIN_FIRST, "http/tcp")]
)
def test_the_responder_s_best_stack_is_committed_by_both_in_three_messages(policy: FakeChooser, stack: str) -> None:
    one, other = initiator(), responder(policy)
    run(one, other)
    assert agreed(one, other) == stack
    assert [action.step for side in (one, other) for action in side.only(Send)] == [0, 2, 1]
    assert (one.machine.state, other.machine.state) == (InitiatorState.CONFIRMED, ResponderState.COMMITTED)
    assert len(one.only(Confirmed)) == len(other.only(Prove)) == 1


@pytest.mark.parametrize("missing", [TLS, QUIC, TCP])
def test_a_protocol_that_the_responder_lacks_is_pruned_and_another_stack_taken(missing: Protocol) -> None:
    one, other = initiator(), responder(supported=ALL - {missing})
    run(one, other)
    stack = agreed(one, other)
    assert stack is not None
    assert missing.name.removesuffix("13").lower() not in stack.split("/")
    assert Reason.UNSUPPORTED in sent(other, 1)[0].pruned.values()


def test_sessions_are_called_in_the_order_of_the_interface_and_no_others_commit() -> None:
    one, other = initiator(), responder(TLS_FIRST)
    run(one, other)
    assert [one.session(node).log for node in (1, 2, 4)] == [
        ["propose", "advance", "commit"],
        ["propose", "advance", "exporter", "commit"],
        ["propose", "advance", "commit"],
    ]
    assert [other.session(node).log for node in (1, 2, 4)] == [
        ["respond", "advance", "commit"],
        ["respond", "exporter", "advance", "commit"],
        ["respond", "advance", "commit"],
    ]
    assert one.session(3).log == ["propose", "prune NOT_PREFERRED"]
    assert other.session(3).log == ["prune NOT_PREFERRED"]


def test_each_session_hears_what_its_peer_said() -> None:
    one, other = initiator(), responder(TLS_FIRST)
    run(one, other)
    assert other.session(2).heard == {"respond": b"hello 304", "advance": b"finish 304"}
    assert one.session(2).heard == {"advance": b"answer 304"}


def test_sessions_see_their_neighbours_nearest_first() -> None:
    one, other = initiator(), responder(TLS_FIRST)
    run(one, other)
    proposing = one.session(4).views["propose"]
    assert {session.protocol for session in proposing.below} == {TCP, TLS, QUIC}
    answering, committing = other.session(2).views["respond"], one.session(4).views["commit"]
    assert [session.protocol for session in answering.below] == [TCP]
    assert [session.protocol for session in answering.above] == [HTTP]
    assert [session.protocol for session in committing.below] == [TLS, TCP]
    assert (proposing.step, answering.step, committing.step) == (0, 0, 2)


def test_the_mac_is_on_the_topmost_security_node_alone() -> None:
    shape = {0: (UDP, (1,)), 1: (QUIC, (2,)), 2: (TLS, (3,)), 3: (HTTP, ())}
    one, other = initiator(shape=shape), responder()
    run(one, other)
    assert agreed(one, other) == "http/tls/quic"
    for message in (sent(other, 1), sent(one, 2)):
        assert [node for node in message if message[node].tlv(TlvType.MAC)] == [2]


def test_a_stack_without_security_bears_no_mac_and_still_proves_the_address() -> None:
    one, other = initiator(), responder(PLAIN_FIRST)
    run(one, other)
    assert agreed(one, other) == "http/tcp"
    assert not any(node.tlv(TlvType.MAC) for node in (sent(other, 1) | sent(one, 2)).values())
    assert len(sent(one, 2)[0].tlv(TlvType.TRANSCRIPT) or b"") == 32
    assert len(other.only(Prove)) == 1


def test_events_that_come_twice_change_nothing() -> None:
    once, twice = (initiator(), responder(TLS_FIRST)), (initiator(), responder(TLS_FIRST))
    run(*once)
    run(*twice, repeat=True)
    assert [side.only(Send) for side in once] == [side.only(Send) for side in twice]
    assert [session.log for side in once for row in side.sessions.values() for session in row] == [
        session.log for side in twice for row in side.sessions.values() for session in row
    ]


def test_every_session_of_both_sides_may_wait_and_the_stack_is_the_same() -> None:
    patient: dict[int, dict[str, object]] = {
        node: {"propose": Wait(), "respond": Wait(), "advance": Wait()} for node in (1, 2, 4)
    }
    last_word = {"resume": lambda view: Answer(b"late" if view.step == 0 else b"")}
    silent_at_last = {node: script | last_word for node, script in patient.items()}
    one, other = initiator(TLS_FIRST, script=patient), responder(TLS_FIRST, script=silent_at_last)

    def resumed(side: Side) -> Send | None:
        """Wake every session of the stack; none of them is the last before all have been."""
        messages = [message for node in (1, 2, 4) for message in side.receive(Resume(node))]
        return messages[-1] if messages else None

    assert one.start() == []
    for sender, receiver in ((one, other), (other, one), (one, other)):
        message = resumed(sender)
        assert message is not None
        assert deliver(message, receiver) == []
    assert other.committed is None
    assert resumed(other) is None
    assert agreed(one, other) == "http/tls/tcp"
