# SPDX-License-Identifier: Apache-2.0
"""The three-step exchange: both sides against each other, in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from accord.negotiation.events import (
    Aborted,
    Confirmed,
    Failed,
    MessageArrived,
    MessageComplete,
    NodeArrived,
    NodeSkipped,
    Prove,
    Resume,
    Send,
    Stop,
    Unconfirmed,
)
from accord.negotiation.initiator import Initiator, InitiatorState, Proposed
from accord.negotiation.interface import Answer, Refuse, Wait
from accord.negotiation.responder import MAX_ATTEMPTS, Responder, ResponderState
from accord.wire import tlv
from accord.wire.constants import Limit, Party, Protocol, Reason, Step, TlvType
from accord.wire.errors import HostError, PeerError
from accord.wire.message import Encoded, Message
from accord.wire.node import Node, decode_descriptor, encode_descriptor
from tests.negotiation.peers import (
    ALL,
    HTTP,
    QUIC,
    SECURE,
    TCP,
    TLS,
    TRANSACTION,
    UDP,
    FakeChooser,
    Side,
    deliver,
    events_of,
    initiator,
    responder,
    run,
)

TLS_FIRST = FakeChooser(prefer=("http/tls/tcp", "http/quic", "http/tcp"))
QUIC_FIRST = FakeChooser(prefer=("http/quic", "http/tls/tcp", "http/tcp"))
PLAIN_FIRST = FakeChooser(prefer=("http/tcp",))


def sent(side: Side, step: int) -> dict[int, Node]:
    """The nodes of the message that the side sent as this step."""
    (message,) = (action for action in side.actions if isinstance(action, Send) and action.step == step)
    return {node: decode_descriptor(node, protocol, data) for node, protocol, data in message.nodes}


def agreed(one: Side, other: Side) -> str | None:
    """The stack, when both have the same."""
    assert one.stack == other.stack
    return one.stack


# ---- What comes out ----


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


def test_the_initiator_s_preference_travels_and_breaks_the_responder_s_ties() -> None:
    for preferences, stack in (({3: 9}, "http/quic"), ({2: 9}, "http/tls/tcp")):
        one, other = initiator(preferences=preferences), responder()
        run(one, other)
        assert agreed(one, other) == stack


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


# ---- What the sessions may do ----


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


# ---- Waiting ----


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


def test_a_session_that_refuses_after_waiting_costs_its_node() -> None:
    script = {2: {"respond": Wait(), "resume": Refuse(Reason.BACKEND_FAILED)}}
    one, other = initiator(), responder(TLS_FIRST, script=script)
    run(one, other)
    (answer,) = other.receive(Resume(2))
    assert decode_descriptor(*answer.nodes[0]).pruned[2] == Reason.BACKEND_FAILED


# ---- Aborts ----


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


def test_nothing_above_the_security_session_hears_of_an_answer_whose_mac_is_wrong() -> None:
    one, other = initiator(script={2: {"exporter": bytes(32)}}), responder(TLS_FIRST)
    run(one, other)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.BAD_MAC
    assert "advance" not in one.session(4).log
    assert other.aborted is not None
    assert other.aborted.reason is Reason.BAD_MAC


@pytest.mark.parametrize("node", [1, 2, 4])
def test_a_responder_s_session_that_rejects_the_commit_aborts_both_although_one_had_committed(node: int) -> None:
    one, other = initiator(), responder(TLS_FIRST, script={node: {"advance": Refuse(Reason.HANDSHAKE_FAILED)}})
    run(one, other)
    assert other.committed is None
    assert one.committed is not None
    assert one.aborted is not None
    assert (one.aborted.reason, one.aborted.by_peer) == (Reason.HANDSHAKE_FAILED, True)
    assert [action.step for action in other.only(Send)] == [1, 3]


def test_a_responder_s_session_with_more_to_say_than_three_steps_carry_is_a_fault() -> None:
    one, other = initiator(), responder(TLS_FIRST, script={2: {"advance": Answer(b"ticket")}})
    run(one, other)
    assert other.aborted is not None
    assert other.aborted.reason is Reason.PLUGIN_FAILED


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
    assert "failed while it was let go: RuntimeError: stuck" in one.notes


# ---- Ends from outside ----


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


# ---- Malformed ----


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


@pytest.mark.parametrize("step", [1, 3, 8, 255])
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


def test_a_placeholder_is_pruned_as_it_cannot_be_elaborated_in_three_steps() -> None:
    def with_placeholder(step: int, nodes: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
        return [(n, p, d[:1] + b"\x01" + d[2:] if step == 0 and n == 2 else d) for n, p, d in nodes]

    one, other = initiator(), responder(TLS_FIRST)
    run(one, other, with_placeholder)
    assert sent(other, 1)[0].pruned[2] == Reason.NOT_PREFERRED


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


# ---- What the caller may not do ----


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


def test_grease_and_cookies_have_their_lengths() -> None:
    with pytest.raises(ValueError, match="grease"):
        initiator(grease=b"short")
    with pytest.raises(ValueError, match="cookie"):
        Responder(TRANSACTION, lambda service: Refuse(Reason.NO_SERVICE), b"short")
