# SPDX-License-Identifier: Apache-2.0
"""The C engine and scapy, two implementations of packets and chunks, say the same bytes and hear the same nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.packet import Packet

from accord.datapath._core import ffi, lib
from accord.datapath.engine import Engine, EventKind
from accord.datapath.path import Path
from accord.scapy_layer import Accord, AccordChunk, descriptors, packets
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError
from accord.wire.node import decode_descriptor, encode_descriptor
from tests.wire import example
from tests.wire.strategies import nodes

HERE = Path(4, Protocol.UDP, "127.0.0.1", 4000, "127.0.0.2", 5000)
SUPPORTED = [6, 17, 253, 0x304, 0x800]
Nodes = list[tuple[int, int, bytes]]

payloads = st.binary(max_size=40) | st.integers(0, 3000).map(bytes)
descriptor = payloads.map(lambda payload: bytes(4) + payload)
messages = st.lists(
    st.tuples(st.integers(0, 63), st.sampled_from(SUPPORTED), descriptor),
    min_size=1,
    max_size=8,
    unique_by=lambda node: node[0],
)


def engine() -> Engine:
    made = Engine(transactions=4, unproven=4, buffers=64, events=128)
    made.support(SUPPORTED)
    return made


def output(made: Engine, now: int = 0) -> list[bytes]:
    """Every packet that the engine would send now."""
    out = ffi.new("struct accord_packet_out[]", 64)
    count: int = lib.accord_engine_output(made.pointer, now, out, 64)
    return [bytes(ffi.buffer(out[index].data, out[index].length)) for index in range(count)]


def datagrams(made: Engine, now: int = 0) -> list[bytes]:
    """The same, as what goes into one datagram stands together."""
    out = ffi.new("struct accord_packet_out[]", 64)
    count: int = lib.accord_engine_output(made.pointer, now, out, 64)
    sent, shared = [], b""
    for packet in out[0:count]:
        shared += bytes(ffi.buffer(packet.data, packet.length))
        if not packet.joined:
            sent.append(shared)
            shared = b""
    assert not shared, "what is joined to nothing"
    return sent


def receive(made: Engine, data: bytes) -> int:
    return int(lib.accord_engine_input(made.pointer, 0, HERE.to_c(), data, len(data)))


def heard(made: Engine) -> Nodes:
    return [(event.node, event.protocol, event.data) for event in made.events() if event.kind is EventKind.NODE]


def test_the_engine_says_the_worked_example_byte_for_byte() -> None:
    built = example.build()
    one, other = engine(), engine()
    handle = one.open(0, example.TRANSACTION, HERE)
    one.send(0, handle, 0, descriptors([Accord(built.proposal)]))
    assert output(one) == [built.proposal]
    assert receive(other, built.proposal) == 0
    responder = other.events()[0].handle
    other.send(0, responder, 1, descriptors([Accord(built.answer)]))
    assert output(other) == [built.answer]
    assert receive(one, built.answer) == 0
    one.send(0, handle, 2, descriptors([Accord(built.commit)]))
    assert output(one) == [built.commit]
    assert receive(other, built.commit) == 0
    assert set(descriptors([Accord(built.commit)])) <= set(heard(other))


@given(messages, st.binary(min_size=12, max_size=12))
@settings(max_examples=50)
def test_both_cut_a_message_into_the_same_packets(message: Nodes, transaction: bytes) -> None:
    made = engine()
    handle = made.open(0, transaction, HERE)
    made.send(0, handle, 0, message)
    expected = [bytes(packet) for packet in packets(transaction, 0, message)]
    assert output(made) == expected[:10], "the initial window is ten packets"


@given(messages, st.binary(min_size=12, max_size=12), st.integers(60, 1200), st.randoms())
@settings(max_examples=50)
def test_the_engine_hears_what_scapy_says_however_it_is_cut_and_reordered(
    message: Nodes, transaction: bytes, limit: int, random: Any
) -> None:
    sent = [bytes(packet) for packet in packets(transaction, 0, message, limit=limit)][:200]
    made = engine()
    order = list(range(len(sent)))
    random.shuffle(order)
    heard_nodes: Nodes = []
    for index in order:
        verdict = receive(made, sent[index])
        heard_nodes += heard(made)
        if verdict:
            # Memory is fixed: what does not fit is dropped and its sender repeats it. It is never misread.
            assert -verdict == lib.ACCORD_REASON_NO_MEMORY
    assert set(heard_nodes) <= set(message)
    assert len(heard_nodes) == len(set(heard_nodes))


@given(st.integers(22_000, 60_000), st.sampled_from([1500, 2500, 4000, 9000]))
@settings(max_examples=20)
def test_scapy_takes_shared_datagrams_apart_into_the_packets_that_travel_alone_elsewhere(size: int, mtu: int) -> None:
    message = [(0, 17, bytes(4)), (1, 6, bytes(4) + bytes(size))]
    made, other = Engine(transactions=4, buffers=128), Engine(transactions=4, unproven=1, buffers=128)
    other.support(SUPPORTED)
    transaction = bytes(range(12))
    made.send(0, made.open(0, transaction, replace(HERE, mtu=mtu)), 0, message)
    seen: list[bytes] = []
    longest = 0
    while sent := datagrams(made):
        for datagram in sent:
            longest = max(longest, len(datagram))
            packet: Packet = Accord(datagram)
            while isinstance(packet, Accord):
                alone = packet.copy()
                alone.remove_payload()
                alone.flags &= ~8
                alone.checksum = None
                seen.append(bytes(alone))
                packet = packet.payload
            receive(other, datagram)
        for acknowledgement in output(other, 30_000):
            receive(made, acknowledgement)
    assert seen == [bytes(packet) for packet in packets(transaction, 0, message)]
    assert longest <= mtu - 28
    assert longest > min(mtu - 28, 9000) - 1200


@given(st.integers(1200, 1500))
def test_the_engine_takes_apart_what_scapy_put_together(size: int) -> None:
    message = [(0, 17, bytes(4) + bytes(size))]
    one, two = packets(bytes(12), 0, message)
    one.flags |= 8
    assert receive(made := engine(), bytes(one / two)) == 0
    assert heard(made) == message


@given(messages.filter(lambda message: sum(len(data) for _, _, data in message) < 8000), st.randoms())
@settings(max_examples=50)
def test_nothing_is_missing_when_everything_arrived(message: Nodes, random: Any) -> None:
    transaction = bytes(range(12))
    made = engine()
    sent = [bytes(packet) for packet in packets(transaction, 0, message)]
    random.shuffle(sent)
    assert {receive(made, data) for data in sent} == {0}
    assert sorted(heard(made)) == sorted(message)


@given(nodes())
def test_the_engine_and_python_accept_the_same_descriptors(node: Any) -> None:
    made = engine()
    data = encode_descriptor(node)
    protocol = Protocol.TCP if node.id else Protocol.UDP
    for packet in packets(bytes(12), 0, [(node.id, protocol, data)]):
        assert receive(made, bytes(packet)) == 0
    assert heard(made) == [(node.id, protocol, data)]


def first_refusal_of_python(node_id: int, data: bytes) -> Reason | None:
    try:
        decode_descriptor(node_id, Protocol.TCP if node_id else Protocol.UDP, data)
    except AccordError as refusal:
        return refusal.reason
    return None


@given(nodes(), st.lists(st.tuples(st.integers(0, 60), st.integers(1, 255)), max_size=3), st.integers(1, 3000))
def test_the_engine_and_python_refuse_the_same_descriptors(
    node: Any, changes: list[tuple[int, int]], length: int
) -> None:
    changed = bytearray(encode_descriptor(node))
    for place, bits in changes:
        changed[place % len(changed)] ^= bits
    data = bytes(changed[:length])
    made = engine()
    verdicts = {
        receive(made, bytes(packet))
        for packet in packets(bytes(12), 0, [(node.id, Protocol.TCP if node.id else Protocol.UDP, data)])
    }
    reason = first_refusal_of_python(node.id, data)
    # What TLVs mean is for Python alone to know; the engine checks how they are laid out.
    by_layout = reason in (Reason.BAD_DESCRIPTOR, Reason.NOT_CANONICAL)
    assert (verdicts != {0}) == by_layout
    assert {-verdict for verdict in verdicts} <= {0, Reason.BAD_DESCRIPTOR, Reason.NOT_CANONICAL}


def test_the_engine_reports_the_reason_that_the_specification_names() -> None:
    good: dict[str, Any] = {"transaction": bytes(12), "flags": "I+E", "chunks": [AccordChunk(data=bytes(4))]}
    cases: dict[str, dict[str, Any]] = {
        "BAD_VERSION": {"version": 5},
        "BAD_MAGIC": {"magic": 1},
        "BAD_CHECKSUM": {"checksum": 1},
        "BAD_FLAGS": {"ack_count": 1},
        "BAD_STEP": {"step": 1},
        "BAD_TSN": {"tsn": 256},
        "BAD_CHUNK": {"chunks": [AccordChunk(node=255, data=bytes(4))]},
        "UNKNOWN_TRANSACTION": {"step": 2},
        "BAD_ACK": {"flags": "I+A+E", "ack_count": 1, "ack_tsn": 0},
    }
    for name, change in cases.items():
        verdict = receive(engine(), bytes(Accord(**good | change)))
        assert -verdict == getattr(lib, f"ACCORD_REASON_{name}"), name
    assert receive(engine(), bytes(Accord(**good))) == 0
