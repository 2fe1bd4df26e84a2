# SPDX-License-Identifier: Apache-2.0
"""A man in the middle: whatever he changes is either without effect or ends the negotiation (threat model, row 13).

The sessions of these tests believe every payload, so what detects a change is the negotiation alone. The one
thing that he does not have is the exporter of the security session.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.negotiation import transcript
from accord.negotiation.events import Prove, Send
from accord.wire import tlv
from accord.wire.constants import NodeId, Protocol, Reason, Step, TlvType
from accord.wire.errors import AccordError
from accord.wire.message import Encoded, Message
from accord.wire.node import Node, decode_descriptor
from accord.wire.tlv import Tlv
from tests.negotiation.peers import ALL, SHAPE, FakeChooser, Side, Tamper, deliver, initiator, responder, run

TLS_FIRST = FakeChooser(prefer=("http/tls/tcp", "http/quic", "http/tcp"))
PLAIN = FakeChooser(prefer=("http/tcp",))
SECURE_ONLY = replace(TLS_FIRST, secure=True)
STACK = "http/tls/tcp"


def sides(policy: FakeChooser = TLS_FIRST) -> tuple[Side, Side]:
    """An initiator with one more node that the responder does not support, and a responder."""
    shape = SHAPE | {0: (SHAPE[0][0], (1, 3, 5)), 5: (77, ())}
    return initiator(policy, shape=shape), responder(policy)


def outcome(tamper: Tamper, policy: FakeChooser = TLS_FIRST) -> tuple[Side, Side]:
    """Run with the man in the middle, and check what must hold whatever he does."""
    one, other = sides(policy)
    run(one, other, tamper)
    stacks = {side.stack for side in (one, other)} - {None}
    # Nobody ever uses another stack than the one that would have been, so both never use different ones.
    assert stacks <= {STACK}, (one.notes, other.notes)
    # What did not come to a stack on both sides was noticed on at least one.
    assert len(one.only(Send)) < 2 or other.committed or other.aborted
    return one, other


def undisturbed() -> dict[int, list[Encoded]]:
    """The messages of a negotiation that nobody touches, by step."""
    one, other = sides()
    run(one, other)
    assert one.stack == other.stack == STACK
    return {message.step: list(message.nodes) for side in (one, other) for message in side.only(Send)}


MESSAGES = undisturbed()


def at(step: int, change: Tamper) -> Tamper:
    """Apply ``change`` to one step's message only."""
    return lambda current, nodes: change(current, nodes) if current == step else nodes


# ---- Each strip, each bit ----


@pytest.mark.parametrize(("step", "index"), [(step, i) for step, nodes in MESSAGES.items() for i in range(len(nodes))])
def test_a_node_that_is_cut_out_of_a_message_is_noticed(step: int, index: int) -> None:
    one, other = outcome(at(step, lambda _, nodes: nodes[:index] + nodes[index + 1 :]))
    assert other.committed is None
    assert step == Step.COMMIT or one.committed is None


@pytest.mark.parametrize(("step", "index"), [(step, i) for step, nodes in MESSAGES.items() for i in range(len(nodes))])
def test_a_flipped_bit_of_a_descriptor_is_noticed_or_without_effect(step: int, index: int) -> None:
    node, protocol, descriptor = MESSAGES[step][index]
    for bit in range(8 * len(descriptor)):
        changed = bytearray(descriptor)
        changed[bit // 8] ^= 1 << bit % 8
        swap = [(node, protocol, bytes(changed))]
        _, other = outcome(at(step, lambda _, nodes, swap=swap: nodes[:index] + swap + nodes[index + 1 :]))
        # Only what the responder never stores may change without anybody noticing.
        assert (other.committed is not None) == (protocol == 77)


@pytest.mark.parametrize(("step", "index"), [(step, i) for step, nodes in MESSAGES.items() for i in range(len(nodes))])
def test_a_flipped_bit_of_a_node_s_id_or_protocol_is_noticed(step: int, index: int) -> None:
    node, protocol, descriptor = MESSAGES[step][index]
    changed = [(node ^ 1 << bit, protocol, descriptor) for bit in range(6)]
    changed += [(node, protocol ^ 1 << bit, descriptor) for bit in range(32)]
    for swap in changed:
        _, other = outcome(at(step, lambda _, nodes, swap=swap: [*nodes[:index], swap, *nodes[index + 1 :]]))
        assert other.committed is None


@pytest.mark.parametrize("step", MESSAGES)
def test_the_order_in_which_nodes_arrive_is_without_effect(step: int) -> None:
    for order in itertools.islice(itertools.permutations(range(len(MESSAGES[step]))), 0, None, 7):
        one, other = outcome(at(step, lambda _, nodes, order=order: [nodes[i] for i in order]))
        assert one.stack == other.stack == STACK


@given(st.data())
def test_any_bytes_in_place_of_any_nodes_are_noticed_or_without_effect(data: st.DataObject) -> None:
    step = data.draw(st.sampled_from(sorted(MESSAGES)))
    original = MESSAGES[step]
    chosen = data.draw(st.lists(st.sampled_from(original), unique_by=lambda node: node[0]))
    replaced = [
        (node, data.draw(st.sampled_from([protocol, *ALL])), data.draw(st.just(descriptor) | st.binary(max_size=40)))
        for node, protocol, descriptor in chosen
    ]
    # Without the floor, an initiator may commit to less than it could have had before the responder refuses it.
    _, other = outcome(at(step, lambda _, nodes: replaced), SECURE_ONLY)
    assert other.committed is None or {n for n in replaced if n[1] != 77} == {n for n in original if n[1] != 77}


# ---- A skilled one: consistent graphs, right hashes, everything but the key ----


class Middle:
    """Takes nodes out of the proposal and everything that led to them, and repairs every hash on the way."""

    def __init__(self, removed: Iterable[int], excuse: Reason) -> None:
        self._removed = frozenset(removed)
        self._excuse = excuse
        self._forwarded: list[Node] = []
        self._hash = transcript.BEGIN

    def __call__(self, step: int, encoded: list[Encoded]) -> Iterable[Encoded]:
        nodes = [decode_descriptor(*node) for node in encoded]
        if nodes[0].reason is None:
            nodes = {0: self._proposal, 1: self._answer, 2: self._commit}.get(step, list)(nodes)
        return Message(step, tuple(nodes)).encode()

    def _proposal(self, nodes: list[Node]) -> list[Node]:
        self._forwarded = [
            replace(node, children=tuple(child for child in node.children if child not in self._removed))
            for node in nodes
            if node.id not in self._removed
        ]
        return self._forwarded

    def _answer(self, nodes: list[Node]) -> list[Node]:
        reasons = nodes[0].pruned
        seen: list[transcript.Entry] = [
            (node.id, node.protocol, None if reasons.get(node.id) == Reason.UNSUPPORTED else node)
            for node in self._forwarded
        ]
        self._hash = transcript.extend(transcript.BEGIN, 0, seen)
        self._hash = transcript.extend(self._hash, 1, transcript.entries(nodes))
        return [_with(nodes[0], tlv.pruned(reasons | dict.fromkeys(self._removed, self._excuse))), *nodes[1:]]

    def _commit(self, nodes: list[Node]) -> list[Node]:
        return [_with(nodes[0], tlv.transcript(self._hash)), *nodes[1:]]


def _with(node: Node, changed: Tlv) -> Node:
    tlvs = {each.type: each for each in (*node.tlvs, changed)}
    return replace(node, tlvs=tuple(tlvs[number] for number in sorted(tlvs)))


def removals() -> Iterator[tuple[frozenset[int], Reason]]:
    for size in range(1, 5):
        for removed in itertools.combinations((1, 2, 3, 5), size):
            for excuse in (Reason.UNSUPPORTED, Reason.NOT_PREFERRED, Reason.POLICY, Reason.UNREACHABLE_NODE):
                yield frozenset(removed), excuse


@pytest.mark.parametrize(("removed", "excuse"), list(removals()))
def test_a_consistently_smaller_proposal_never_comes_to_a_stack_where_security_is_required(
    removed: frozenset[int], excuse: Reason
) -> None:
    one, other = outcome(Middle(removed, excuse), SECURE_ONLY)
    assert one.committed is None
    assert other.committed is None
    # What he leaves may be no valid graph any more: then the responder is silent, and the initiator times out.
    assert one.aborted or (other.aborted and not other.only(Send))


@pytest.mark.parametrize("excuse", [Reason.NOT_PREFERRED, Reason.UNSUPPORTED])
def test_a_lenient_responder_cannot_be_used_to_strip_security_from_a_strict_initiator(excuse: Reason) -> None:
    one, other = initiator(SECURE_ONLY), responder(FakeChooser(prefer=("http/tcp",)))
    run(one, other, Middle((2, 3), excuse))
    assert one.committed is other.committed is None
    assert one.aborted is not None
    assert one.aborted.reason is (Reason.DOWNGRADE if excuse is Reason.NOT_PREFERRED else Reason.INSECURE)


def test_a_responder_that_chooses_below_the_initiator_s_floor_is_a_downgrade() -> None:
    one, other = initiator(SECURE_ONLY), responder(FakeChooser(prefer=("http/tcp",)))
    run(one, other)
    assert one.aborted is not None
    assert one.aborted.reason is Reason.DOWNGRADE
    assert other.aborted is not None
    assert (other.aborted.reason, other.aborted.by_peer) == (Reason.DOWNGRADE, True)


def test_without_security_a_man_in_the_middle_is_not_noticed_and_only_the_floor_holds() -> None:
    """What no transcript can give, said aloud: the same attack as above succeeds where the policy asks for nothing."""
    one, other = initiator(), responder()
    run(one, other, Middle((2, 3), Reason.UNSUPPORTED))
    assert one.stack == other.stack == "http/tcp"


def test_a_strip_by_one_who_repairs_nothing_is_noticed_without_any_security() -> None:
    def strip(_: int, nodes: list[Encoded]) -> Iterable[Encoded]:
        return Middle((3,), Reason.UNSUPPORTED)(Step.PROPOSAL, nodes)

    one, other = initiator(PLAIN), responder(PLAIN)
    run(one, other, at(Step.PROPOSAL, strip))
    assert one.aborted is not None
    assert one.aborted.reason is Reason.BAD_TRANSCRIPT


@pytest.mark.parametrize("extra", [[], [Node(9, Protocol.HTTP)]])
def test_a_commit_of_another_graph_is_refused_without_any_security(extra: list[Node]) -> None:
    def regraft(_: int, encoded: list[Encoded]) -> Iterable[Encoded]:
        context, tcp, http = (decode_descriptor(*node) for node in encoded)
        tcp = replace(tcp, children=tuple(node.id for node in extra))
        return Message(2, (replace(context, children=(1, 4)), tcp, http, *extra)).encode()

    one, other = initiator(PLAIN), responder(PLAIN)
    run(one, other, at(Step.COMMIT, regraft))
    assert other.aborted is not None
    assert other.aborted.reason is Reason.NOT_PROPOSED
    assert other.committed is None


# ---- Spliced and replayed ----


def test_the_answer_of_another_negotiation_is_not_believed() -> None:
    (one, other), (elsewhere, victim) = sides(), sides()
    victim.machine._cookie = b"d" * 16  # type: ignore[attr-defined]
    (first,), (second,) = one.start(), elsewhere.start()
    deliver(first, other)
    (answer,) = deliver(replace(second, nodes=(*second.nodes[:-2], *reversed(second.nodes[-2:]))), victim)
    (reply,) = deliver(answer, one)
    (verdict,) = deliver(reply, other) or [None]
    assert one.committed is not None, "both proposed the same bytes, so this answer could have been its own"
    assert verdict is None
    assert other.aborted is not None
    assert other.aborted.reason is Reason.BAD_TRANSCRIPT


def test_a_commit_replayed_to_another_responder_proves_nothing() -> None:
    one, other = sides()
    run(one, other)
    proposal, commit = one.only(Send)
    fresh = responder(TLS_FIRST)
    fresh.machine._cookie = b"d" * 16  # type: ignore[attr-defined]
    deliver(proposal, fresh)
    assert deliver(commit, fresh) == [], "an unproven address gets silence"
    assert fresh.aborted is not None
    assert fresh.aborted.reason is Reason.BAD_TRANSCRIPT
    assert not fresh.only(Prove)


def test_an_answer_s_mac_does_not_serve_in_a_commit() -> None:
    answers = {node: decode_descriptor(node, protocol, data) for node, protocol, data in MESSAGES[1]}
    reflected = answers[2].tlv(TlvType.MAC)
    assert reflected is not None

    def reflect(_: int, nodes: list[Encoded]) -> Iterable[Encoded]:
        decoded = [transcript.with_mac(decode_descriptor(*node), reflected) for node in nodes]
        return Message(Step.COMMIT, tuple(decoded)).encode()

    _, other = outcome(at(Step.COMMIT, reflect))
    assert other.aborted is not None
    assert other.aborted.reason is Reason.BAD_MAC
    assert other.only(Prove), "its address is proven, so it is told"


# ---- TLVs where they mean nothing ----


@pytest.mark.parametrize("step", [Step.PROPOSAL, Step.ANSWER, Step.COMMIT])
@pytest.mark.parametrize(
    "extra",
    [
        tlv.cookie(b"c"),
        tlv.pruned({9: 129}),
        tlv.preference(1),
        tlv.reason(131),
        tlv.service(443),
        tlv.transcript(bytes(32)),
        tlv.mac(bytes(32)),
    ],
    ids=lambda extra: TlvType(extra.type).name,
)
def test_a_known_tlv_in_a_step_or_on_a_node_where_it_means_nothing_is_refused(step: int, extra: Tlv) -> None:
    on_context = extra.type in (TlvType.COOKIE, TlvType.PRUNED, TlvType.REASON, TlvType.SERVICE, TlvType.TRANSCRIPT)
    target = NodeId.CONTEXT if on_context else 4

    def add(_: int, nodes: list[Encoded]) -> Iterable[Encoded]:
        decoded = [decode_descriptor(*node) for node in nodes]
        return Message(step, tuple(_with(node, extra) if node.id == target else node for node in decoded)).encode()

    for policy in (TLS_FIRST, PLAIN):
        one, other = initiator(policy), responder(policy)
        run(one, other, at(step, add))
        means_something = (step, TlvType(extra.type)) in _MEANS_SOMETHING
        verdicts = {side.aborted.reason for side in (one, other) if side.aborted}
        assert means_something or verdicts == {Reason.BAD_TLV}
        assert other.committed is None or means_something


_MEANS_SOMETHING = {
    (Step.PROPOSAL, TlvType.PREFERENCE),
    (Step.PROPOSAL, TlvType.SERVICE),
    (Step.ANSWER, TlvType.COOKIE),
    (Step.ANSWER, TlvType.PRUNED),
    (Step.COMMIT, TlvType.TRANSCRIPT),
}


@pytest.mark.parametrize("step", [Step.ANSWER, Step.COMMIT])
@pytest.mark.parametrize("missing", [TlvType.COOKIE, TlvType.PRUNED, TlvType.MAC, TlvType.TRANSCRIPT])
def test_a_message_without_a_tlv_that_it_needs_is_refused(step: Step, missing: TlvType) -> None:
    def remove(_: int, nodes: list[Encoded]) -> Iterable[Encoded]:
        decoded = [decode_descriptor(*node) for node in nodes]
        assert any(node.tlv(missing) for node in decoded) or missing not in _NEEDED[step]
        bare = [replace(node, tlvs=tuple(each for each in node.tlvs if each.type != missing)) for node in decoded]
        return Message(step, tuple(bare)).encode()

    _, other = outcome(at(step, remove))
    assert (other.committed is None) == (missing in _NEEDED[step])


_NEEDED = {
    Step.ANSWER: (TlvType.COOKIE, TlvType.PRUNED, TlvType.MAC),
    Step.COMMIT: (TlvType.TRANSCRIPT, TlvType.MAC),
}


def test_unknown_tlvs_that_are_not_critical_travel_and_are_covered_by_the_transcript() -> None:
    def add(_: int, nodes: list[Encoded]) -> Iterable[Encoded]:
        decoded = [decode_descriptor(*node) for node in nodes]
        return Message(0, (_with(decoded[0], Tlv(0x0A0A, b"grease")), *decoded[1:])).encode()

    one, _ = outcome(at(0, add))
    assert one.aborted is not None
    assert one.aborted.reason is Reason.BAD_MAC


def test_every_error_of_these_tests_would_be_an_accord_error() -> None:
    one, _ = outcome(at(1, lambda _, nodes: nodes[:1]))
    assert one.aborted is not None
    assert isinstance(one.aborted.error(), AccordError)
