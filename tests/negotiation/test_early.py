# SPDX-License-Identifier: Apache-2.0
"""An answer before the whole proposal is here (PROTOCOL.md, section 7.2): the same choice, and nobody can tilt it.

The oracle is the choice over the whole proposal.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.negotiation.events import MessageArrived, MessageComplete, NodeArrived, NodeSkipped, Resume, Send
from accord.negotiation.graph import Graph
from accord.negotiation.interface import Answer, Refuse, Wait
from accord.wire import outline
from accord.wire.constants import Limit, NodeId, Reason, Step, TlvType, Word
from accord.wire.errors import PeerError
from accord.wire.message import Encoded, Message
from accord.wire.node import Node, decode_descriptor
from accord.wire.tlv import Tlv
from tests.negotiation.peers import (
    ALL,
    HTTP,
    QUIC,
    SHAPE,
    TCP,
    TLS,
    UDP,
    FakeChooser,
    Script,
    Shape,
    Side,
    deliver,
    events_of,
    initiator,
    responder,
    sent,
)

BUDGET = 60000
LONG: Script = {node: {"propose": Answer(bytes(1500))} for node in range(1, 64)}
"""Every first handshake takes more than a packet."""
TLS_FIRST = FakeChooser(prefer=("http/tls/tcp", "http/quic", "http/tcp"))
QUIC_FIRST = FakeChooser(prefer=("http/quic", "http/tls/tcp", "http/tcp"))


def proposing(chooser: FakeChooser = TLS_FIRST, shape: Shape | None = None, **options: object) -> tuple[Side, Send]:
    """An initiator, and its proposal of more than four packets."""
    one = initiator(chooser, shape=shape, script=LONG, **options)  # type: ignore[arg-type]
    (proposal,) = one.start()
    return one, proposal


def arrive(side: Side, message: Send, *nodes: int) -> list[Send]:
    """These nodes of the message arrive, in this order."""
    by_id = {node: (node, protocol, data) for node, protocol, data in message.nodes}
    said: list[Send] = []
    for event in events_of(message, [by_id[node] for node in nodes], side)[:-1]:
        assert isinstance(event, NodeArrived | NodeSkipped)
        said += side.receive(event._replace(budget=BUDGET))
    return said


def end(one: Side, other: Side, answer: Send) -> None:
    """The rest of the exchange, undisturbed."""
    for commit in deliver(answer, one):
        deliver(commit, other)
        one.receive(MessageArrived(commit.step))


def test_the_usual_proposal_has_no_outline_and_a_long_one_has_one_of_all_its_nodes() -> None:
    usual = initiator(TLS_FIRST)
    usual.start()
    assert sent(usual, Step.PROPOSAL)[0].tlv(TlvType.OUTLINE) is None
    one, _ = proposing(grease=bytes(range(16)))
    nodes = sent(one, Step.PROPOSAL)
    value = nodes[0].tlv(TlvType.OUTLINE)
    assert value is not None
    found = outline.decode(value)
    assert found == {node.id: outline.Entry.of(node) for node in nodes.values() if node.id}
    assert len(found) == len(SHAPE)  # with the one of a reserved protocol, without the context


@pytest.mark.parametrize(
    ("policy", "stack", "needed"), [(TLS_FIRST, "http/tls/tcp", {0, 1, 2, 4}), (QUIC_FIRST, "http/quic", {0, 3, 4})]
)
def test_the_answer_leaves_with_the_last_node_of_the_favourite_whatever_the_order(
    policy: FakeChooser, stack: str, needed: set[int]
) -> None:
    for order in itertools.permutations(SHAPE):
        one, proposal = proposing()
        other = responder(policy)
        here: set[int] = set()
        for node in order:
            here.add(node)
            answers = arrive(other, proposal, node)
            assert bool(answers) is (needed <= here)
            if answers:
                break
        end(one, other, answers[0])
        assert one.stack == other.stack == stack
        gone = sent(other, Step.ANSWER)[0].pruned
        assert {node for node, reason in gone.items() if reason == Reason.NOT_AWAITED} == set(SHAPE) - here


def test_a_packet_that_holds_the_favourite_back_is_waited_for_however_long() -> None:
    for missing in (1, 2, 4):
        _, proposal = proposing()
        other = responder(TLS_FIRST)
        assert arrive(other, proposal, *(node for node in SHAPE if node != missing)) == []
        assert other.committed is other.aborted is None
        assert arrive(other, proposal, missing)


def test_without_the_context_nothing_is_decided_and_without_an_outline_nothing_is_early() -> None:
    _, proposal = proposing()
    assert arrive(responder(TLS_FIRST), proposal, 4, 2, 1, 3) == []
    one = initiator(TLS_FIRST)
    (usual,) = one.start()
    other = responder(TLS_FIRST)
    assert arrive(other, usual, *SHAPE) == []
    assert other.receive(MessageComplete(Step.PROPOSAL))


def test_when_the_favourite_refuses_the_next_one_is_asked_if_it_is_here_and_else_awaited() -> None:
    refusing: Script = {2: {"respond": Refuse(Reason.HANDSHAKE_FAILED)}}
    one, proposal = proposing()
    other = responder(TLS_FIRST, script=refusing)
    assert arrive(other, proposal, 0, 1, 2, 4) == []
    (answer,) = arrive(other, proposal, 3)
    end(one, other, answer)
    assert one.stack == other.stack == "http/quic"
    assert sent(other, Step.ANSWER)[0].pruned[2] == Reason.HANDSHAKE_FAILED
    one, proposal = proposing()
    other = responder(FakeChooser(prefer=("http/tls/tcp", "http/tcp", "http/quic")), script=refusing)
    (answer,) = arrive(other, proposal, 0, 1, 2, 4)
    end(one, other, answer)
    assert one.stack == other.stack == "http/tcp"


def test_what_cannot_be_had_is_not_awaited_and_a_refusal_is_said_of_a_whole_proposal_only() -> None:
    shape = SHAPE | {0: (UDP, (1, 3, 5)), 5: (77, (4,))}
    one, proposal = proposing(shape=shape)
    other = responder(FakeChooser(prefer=("http/77", "http/tls/tcp")), open_fails={5: KeyError(77)})
    (answer,) = arrive(other, proposal, 0, 1, 2, 4)
    end(one, other, answer)
    assert one.stack == other.stack == "http/tls/tcp"
    _, proposal = proposing()
    other = responder(refuse=Refuse(Reason.NO_SERVICE))
    assert arrive(other, proposal, 0, 1, 2, 4, 3) == []
    (abort,) = other.receive(MessageComplete(Step.PROPOSAL))
    assert decode_descriptor(*abort.nodes[0]).reason == Reason.NO_SERVICE
    assert other.aborted is not None


def test_what_comes_after_the_answer_changes_nothing_whatever_it_is() -> None:
    one, proposal = proposing()
    other = responder(TLS_FIRST)
    (answer,) = arrive(other, proposal, 0, 1, 2, 4)
    assert other.receive(NodeArrived(Step.PROPOSAL, 3, QUIC, b"\xff")) == []
    assert other.receive(MessageComplete(Step.PROPOSAL)) == []
    end(one, other, answer)
    assert one.stack == other.stack == "http/tls/tcp"


def test_a_node_that_comes_while_a_session_waits_is_one_that_was_not_awaited() -> None:
    one, proposal = proposing()
    other = responder(TLS_FIRST, script={4: {"respond": Wait("a service")}})
    assert arrive(other, proposal, 0, 1, 2, 4, 3) == []
    assert other.receive(MessageComplete(Step.PROPOSAL)) == []
    (answer,) = other.receive(Resume(4))
    end(one, other, answer)
    assert one.stack == other.stack == "http/tls/tcp"
    assert sent(other, Step.ANSWER)[0].pruned[3] == Reason.NOT_AWAITED


# ---- nobody can tilt it ----


def changed(proposal: Send, change: dict[int, Encoded | None]) -> Send:
    return replace(
        proposal, nodes=tuple(new for node in proposal.nodes if (new := change.get(node[0], node)) is not None)
    )


def with_outline(context: Node, value: bytes) -> Node:
    return replace(
        context, tlvs=tuple(Tlv(each.type, value) if each.type == TlvType.OUTLINE else each for each in context.tlvs)
    )


def encoded(node: Node) -> Encoded:
    return Message(0, (node,)).encode()[0]


@pytest.mark.parametrize("told", ["worse", "gone"])
def test_an_outline_that_is_changed_on_the_way_is_noticed_before_anybody_uses_the_stack(told: str) -> None:
    """The better stack's packets are dropped, and the context is made to say that it is not better, or not there."""
    one, proposal = proposing(QUIC_FIRST, preferences={3: 200, 2: 9})
    context = decode_descriptor(*proposal.nodes[0])
    value = context.tlv(TlvType.OUTLINE)
    assert value is not None
    entries = outline.decode(value)
    nodes = [entry.hollow for node, entry in entries.items() if node != 3 or told == "worse"]
    nodes = [replace(node, tlvs=()) if node.id == 3 else node for node in nodes]
    forged = with_outline(context, outline.encode(nodes).value)
    if told == "gone":
        forged = replace(forged, children=tuple(child for child in forged.children if child != 3))
    other = responder(FakeChooser())  # the initiator's preference decides
    (answer,) = arrive(other, changed(proposal, {0: encoded(forged)}), 0, 1, 2, 4)
    assert deliver(answer, one)[0].step == Step.COMMIT
    assert one.committed is None
    assert one.aborted is not None
    assert one.aborted.reason in (Reason.BAD_MAC, Reason.BAD_TRANSCRIPT)


def test_a_responder_ends_with_an_outline_that_its_nodes_do_not_keep_to() -> None:
    _, proposal = proposing()
    context = decode_descriptor(*proposal.nodes[0])
    value = context.tlv(TlvType.OUTLINE)
    assert value is not None
    entries = list(outline.decode(value).values())
    lies = [
        [replace(entry.hollow, protocol=77) if entry.id == 2 else entry.hollow for entry in entries],
        [replace(entry.hollow, children=()) if entry.id == 1 else entry.hollow for entry in entries],
        [entry._replace(preference=7).hollow if entry.id == 2 else entry.hollow for entry in entries],
        [entry._replace(word=Word.AVOID).hollow if entry.id == 2 else entry.hollow for entry in entries],
        [entry.hollow for entry in entries if entry.id != 2],
        [*(entry.hollow for entry in entries), Node(9, 77)],
    ]
    for lie in lies:
        other = responder(TLS_FIRST)
        forged = changed(proposal, {0: encoded(with_outline(context, outline.encode(lie).value))})
        assert arrive(other, forged, *SHAPE) == []
        assert other.receive(MessageComplete(Step.PROPOSAL, BUDGET)) == []
        assert other.aborted is not None
        assert other.committed is None


def test_an_initiator_that_said_nothing_of_its_nodes_takes_no_answer_that_did_not_await_them() -> None:
    one = initiator(TLS_FIRST)
    (proposal,) = one.start()
    other = responder(TLS_FIRST)
    (answer,) = deliver(proposal, other)
    context = decode_descriptor(*answer.nodes[0])
    pruned = next(each for each in context.tlvs if each.type == TlvType.PRUNED)
    forged = replace(
        context,
        tlvs=tuple(
            Tlv(each.type, bytes((pruned.value[0], Reason.NOT_AWAITED)) + each.value[2:]) if each is pruned else each
            for each in context.tlvs
        ),
    )
    deliver(changed(answer, {0: encoded(forged)}), one)
    assert one.committed is None
    assert one.aborted is not None
    assert one.aborted.reason is Reason.BAD_TLV


# ---- the same choice as over the whole ----


@st.composite
def cases(draw: st.DrawFn) -> tuple[Shape, dict[int, int], tuple[str, ...], list[int]]:
    """A graph of up to seven nodes, what the initiator prefers, what the responder does, an order of arrival."""
    count = draw(st.integers(2, 7))
    shape: Shape = {0: (UDP, ())}
    for node in range(1, count + 1):
        protocol = draw(st.sampled_from((TCP, TLS, QUIC, HTTP)))
        children = draw(st.sets(st.integers(node + 1, count), max_size=3)) if node < count else set()
        shape[node] = (int(protocol), tuple(sorted(children)))
    below = {child for _, children in shape.values() for child in children}
    shape[0] = (UDP, tuple(node for node in shape if node and node not in below))
    preferences = draw(st.dictionaries(st.integers(1, count), st.integers(0, 3)))
    names = ("http/tls/tcp", "http/tcp", "http/quic", "tls/tcp", "tcp", "quic", "http", "tls")
    return shape, preferences, tuple(draw(st.permutations(names))[:4]), draw(st.permutations(sorted(shape)))


@given(cases(), st.sampled_from((ALL, ALL - {QUIC}, ALL - {TLS})))
def test_the_choice_is_that_over_the_whole_proposal_whatever_arrives_first(
    case: tuple[Shape, dict[int, int], tuple[str, ...], list[int]], supported: frozenset[int]
) -> None:
    shape, preferences, prefer, order = case
    policy = FakeChooser(prefer=prefer)
    script: Script = {node: {"propose": Answer(bytes(2000 + 3000 // len(shape)))} for node in shape}
    stacks = []
    for early in (False, True):
        one = initiator(shape=shape, preferences=preferences, script=script)
        (proposal,) = one.start()
        other = responder(policy, supported)
        if early:
            answers = arrive(other, proposal, *order)
            answers += other.receive(MessageComplete(Step.PROPOSAL, BUDGET))
        else:
            answers = deliver(proposal, other)
        (answer,) = answers
        end(one, other, answer)
        assert one.stack == other.stack
        stacks.append((one.committed and one.committed.ids, other.aborted and other.aborted.reason))
    assert stacks[0] == stacks[1]


# ---- the encoding ----


@given(cases())
def test_an_outline_is_read_as_it_was_written_and_each_of_its_beginnings_is_refused(
    case: tuple[Shape, dict[int, int], tuple[str, ...], list[int]],
) -> None:
    shape = case[0]
    nodes = [Node(node, protocol, children) for node, (protocol, children) in shape.items()]
    Graph(nodes)
    value = outline.encode(nodes).value
    read = outline.decode(value)
    assert [entry.hollow for entry in read.values()] == nodes[1:]
    assert outline.encode(entry.hollow for entry in read.values()).value == value
    starts = {0, *itertools.accumulate(8 + len(entry.children) for entry in read.values())}
    for cut in range(len(value)):
        if cut not in starts or not cut:
            with pytest.raises(PeerError, match="OUTLINE"):
                outline.decode(value[:cut])


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00 00000006 00 02 00",  # the context
        "40 00000006 00 02 00",  # node 64
        "01 00000006 00 02 00 01 00000006 00 02 00",  # twice
        "02 00000006 00 02 00 01 00000006 00 02 00",  # descending
        "01 00000006 00 02 02 03 02",  # children descending
        "01 00000006 00 02 01 40",  # child 64
        "01 00000006 00 02 01 01",  # its own child
        "01 00000006 00 00 00",  # a forbidden protocol
        "01 00000006 00 05 00",  # no word
        "01 00000006 00 02 03 02",  # more children than bytes
    ],
)
def test_an_outline_of_another_form_is_refused(value: str) -> None:
    with pytest.raises(PeerError) as refusal:
        outline.decode(bytes.fromhex(value))
    assert refusal.value.reason is Reason.BAD_TLV


def test_the_longest_outline_fits_beside_all_else_that_a_context_bears() -> None:
    nodes = [Node(node, 6, tuple(range(node + 1, min(node + 5, Limit.MAX_NODES)))) for node in range(Limit.MAX_NODES)]
    edges = sum(len(node.children) for node in nodes)
    assert edges <= Limit.MAX_EDGES
    assert outline.room(nodes) <= Limit.MAX_TLV_BYTES - 100
    assert len(outline.encode(nodes).value) + 4 <= outline.room(nodes)
    assert NodeId.CONTEXT not in outline.decode(outline.encode(nodes).value)
