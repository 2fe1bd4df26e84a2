# SPDX-License-Identifier: Apache-2.0
"""Node descriptors: one valid encoding each, and everything else refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.scapy_layer import AccordNode, AccordTlv
from accord.wire import tlv
from accord.wire.constants import Limit, Protocol, Reason, TlvType
from accord.wire.errors import PeerError
from accord.wire.message import Message
from accord.wire.node import Node, decode_descriptor, descriptor_bytes, encode_descriptor
from accord.wire.tlv import Tlv
from tests.wire.strategies import nodes

REFUSALS = {Reason.BAD_DESCRIPTOR, Reason.NOT_CANONICAL, Reason.UNKNOWN_CRITICAL_TLV, Reason.BAD_TLV}


def decoded(node_id: int, data: bytes, protocol: int = Protocol.TCP) -> Any:
    """The node, or the reason why there is none."""
    try:
        return decode_descriptor(node_id, protocol, data)
    except PeerError as refusal:
        return refusal.reason


def refused(data: bytes, node_id: int = 1) -> Reason:
    with pytest.raises(PeerError) as caught:
        decode_descriptor(node_id, Protocol.TCP, data)
    return caught.value.reason


@given(nodes())
def test_decoding_what_was_encoded_gives_the_node(node: Node) -> None:
    assert decode_descriptor(node.id, node.protocol, encode_descriptor(node)) == node


@given(nodes())
def test_the_length_that_is_counted_is_the_length_of_the_encoding(node: Node) -> None:
    assert descriptor_bytes(node) == len(encode_descriptor(node))


@given(nodes())
def test_scapy_builds_the_same_bytes_from_the_same_values(node: Node) -> None:
    theirs = AccordNode(
        children=list(node.children),
        flags=int(node.placeholder),
        tlvs=[AccordTlv(type=each.type, value=each.value) for each in node.tlvs],
        handshake=node.payload,
    )
    assert bytes(theirs) == encode_descriptor(node)


@given(nodes())
def test_scapy_dissects_what_we_encode_into_the_same_values(node: Node) -> None:
    theirs = AccordNode(encode_descriptor(node))
    assert tuple(theirs.children) == node.children
    assert [(each.type, each.value) for each in theirs.tlvs] == [(each.type, each.value) for each in node.tlvs]
    assert (theirs.handshake, bool(theirs.flags.placeholder)) == (node.payload, node.placeholder)


@given(nodes())
def test_every_truncation_before_the_payload_is_refused(node: Node) -> None:
    data = encode_descriptor(node)
    for length in range(len(data) - len(node.payload)):
        with pytest.raises(PeerError) as caught:
            decode_descriptor(node.id, node.protocol, data[:length])
        assert caught.value.reason is Reason.BAD_DESCRIPTOR


@given(nodes(), st.data())
def test_a_changed_byte_gives_another_node_or_a_named_refusal(node: Node, data: st.DataObject) -> None:
    encoded = bytearray(encode_descriptor(node))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    changed = decoded(node.id, bytes(encoded), node.protocol)
    if isinstance(changed, Node):
        assert changed != node
        assert encode_descriptor(changed) == encoded
    else:
        assert changed in REFUSALS


@given(st.integers(0, 63), st.binary(max_size=80))
def test_random_bytes_are_refused_or_are_exactly_one_encoding(node_id: int, data: bytes) -> None:
    node = decoded(node_id, data)
    assert node in REFUSALS or encode_descriptor(node) == data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("02 00 0000 0302", Reason.NOT_CANONICAL),  # children descend
        ("02 00 0000 0202", Reason.NOT_CANONICAL),  # a child twice
        ("00 02 0000", Reason.NOT_CANONICAL),  # an unknown flag
        ("00 80 0000", Reason.NOT_CANONICAL),
        ("00 00 000a 0a0a0000 000300 01 07", Reason.BAD_DESCRIPTOR),  # a TLV ends beyond the TLVs
        ("00 00 0009 0a0a0000 00030001 07", Reason.NOT_CANONICAL),  # types descend
        ("00 00 0008 0a0a0000 0a0a0000", Reason.NOT_CANONICAL),  # a type twice
        ("01 00 0000 40", Reason.BAD_DESCRIPTOR),  # node 64 does not exist
        ("01 00 0000 01", Reason.BAD_DESCRIPTOR),  # its own child
        ("05 00 0000 0203", Reason.BAD_DESCRIPTOR),  # fewer children than said
        ("00 00 0004 0a0a00", Reason.BAD_DESCRIPTOR),
        ("00 00 0003 0a0a00", Reason.BAD_DESCRIPTOR),  # ends within a TLV's head
        ("00 00 0004 0a0a0001 07", Reason.BAD_DESCRIPTOR),  # a value that reaches into the payload
        ("00 00 0004 ff000000", Reason.UNKNOWN_CRITICAL_TLV),
        ("00 00 0004 8a0a0000", Reason.UNKNOWN_CRITICAL_TLV),  # a reserved type with the critical bit
        ("", Reason.BAD_DESCRIPTOR),
    ],
)
def test_a_second_encoding_or_a_lying_length_is_refused(data: str, reason: Reason) -> None:
    assert refused(bytes.fromhex(data)) is reason


@pytest.mark.parametrize(
    ("node_id", "bad"),
    [
        (0, Tlv(TlvType.COOKIE, b"")),
        (0, Tlv(TlvType.PRUNED, b"")),
        (0, Tlv(TlvType.PRUNED, b"\x01")),
        (0, Tlv(TlvType.PRUNED, b"\x02\x80\x01\x80")),
        (0, Tlv(TlvType.PRUNED, b"\x02\x80\x02\x80")),
        (0, Tlv(TlvType.PRUNED, b"\x00\x80")),
        (0, Tlv(TlvType.PRUNED, b"\x40\x80")),
        (0, Tlv(TlvType.PRUNED, b"\x02\x00")),
        (0, Tlv(TlvType.REASON, b"\x00")),
        (0, Tlv(TlvType.REASON, b"\x01\x01")),
        (0, Tlv(TlvType.SERVICE, b"\x00\x00")),
        (0, Tlv(TlvType.SERVICE, b"\x01")),
        (0, Tlv(TlvType.TRANSCRIPT, bytes(31))),
        (0, Tlv(TlvType.RENEGOTIATES, bytes(47))),
        (1, Tlv(TlvType.RENEGOTIATES, bytes(48))),
        (0, Tlv(TlvType.DATA_PATH, bytes(5))),
        (0, Tlv(TlvType.DATA_PATH, b"")),
        (1, Tlv(TlvType.DATA_PATH, bytes(4))),
        (0, Tlv(TlvType.MAC, bytes(32))),
        (0, Tlv(TlvType.PREFERENCE, b"\x01")),
        (1, Tlv(TlvType.PREFERENCE, b"")),
        (1, Tlv(TlvType.MAC, bytes(33))),
        (0, Tlv(TlvType.WORD, b"\x03")),
        (1, Tlv(TlvType.WORD, b"")),
        (1, Tlv(TlvType.WORD, b"\x00")),  # what is forbidden is not proposed
        (1, Tlv(TlvType.WORD, b"\x02")),  # what is neutral says nothing
        (1, Tlv(TlvType.WORD, b"\x05")),
        (1, Tlv(TlvType.COOKIE, b"c")),
        (1, Tlv(TlvType.REASON, b"\x01")),
        (1, Tlv(TlvType.TRANSCRIPT, bytes(32))),
        (1, Tlv(TlvType.PLACEHOLDER, b"")),
        (1, Tlv(TlvType.PLACEHOLDER, b"\x02")),
        (1, Tlv(TlvType.PLACEHOLDER, b"\x01\x00\x00\x00")),
        (1, Tlv(TlvType.PLACEHOLDER, b"\x01" + 2 * b"\x00\x00\x00\x06")),
        (0, Tlv(TlvType.PLACEHOLDER, b"\x01")),
        (1, Tlv(TlvType.ELABORATES, b"\x00")),
        (1, Tlv(TlvType.ELABORATES, b"\x40")),
        (0, Tlv(TlvType.ELABORATES, b"\x01")),
        (0, Tlv(TlvType.CONTINUES, b"")),
        (0, Tlv(TlvType.CONTINUES, b"\x00")),
        (0, Tlv(TlvType.CONTINUES, b"\x02\x01")),
        (0, Tlv(TlvType.CONTINUES, b"\x40")),
        (1, Tlv(TlvType.CONTINUES, b"\x01")),
    ],
)
def test_a_tlv_of_the_wrong_form_or_on_the_wrong_node_is_refused(node_id: int, bad: Tlv) -> None:
    data = bytes(AccordNode(tlvs=[AccordTlv(type=bad.type, value=bad.value)]))
    assert refused(data, node_id) is Reason.BAD_TLV


def test_tlvs_may_fill_their_limit_and_no_more() -> None:
    fits = AccordNode(tlvs=[AccordTlv(type=0x0A0A, value=bytes(Limit.MAX_TLV_BYTES - 4))])
    assert len(decode_descriptor(1, 6, bytes(fits)).tlvs) == 1
    over = AccordNode(tlvs=[AccordTlv(type=0x0A0A, value=bytes(Limit.MAX_TLV_BYTES - 3))])
    assert refused(bytes(over)) is Reason.BAD_DESCRIPTOR


def test_a_descriptor_may_fill_a_message_and_no_more() -> None:
    largest = bytes(4) + bytes(Limit.MAX_MESSAGE_BYTES - 4)
    assert len(decode_descriptor(1, 6, largest).payload) == Limit.MAX_MESSAGE_BYTES - 4
    assert refused(largest + b"x") is Reason.BAD_DESCRIPTOR


@pytest.mark.parametrize(
    "node",
    [
        Node(64, 6),
        Node(1, 6, (1,)),
        Node(1, 6, (3, 2)),
        Node(1, 6, (64,)),
        Node(1, 6, tuple(range(2, 300))),
        Node(1, 6, (), (Tlv(0x0A0A, bytes(70000)),)),
        Node(1, 6, (), (Tlv(3, b"\x01"), Tlv(3, b"\x01"))),
        Node(1, 6, payload=bytes(Limit.MAX_MESSAGE_BYTES)),
    ],
)
def test_what_has_no_valid_encoding_is_not_encoded(node: Node) -> None:
    with pytest.raises(ValueError, match=r"cannot be encoded|range"):
        encode_descriptor(node)


def test_values_are_read_back_as_they_were_made() -> None:
    context = Node(0, 17, (), (tlv.cookie(b"c"), tlv.pruned({9: 128, 3: 129}), tlv.reason(131), tlv.service(443)))
    again = decode_descriptor(0, 17, encode_descriptor(context))
    assert (again.tlv(TlvType.COOKIE), again.pruned, again.reason, again.service) == (b"c", {3: 129, 9: 128}, 131, 443)
    assert decode_descriptor(1, 6, encode_descriptor(Node(1, 6, (), (tlv.preference(200),)))).preference == 200
    bare = Node(1, 6)
    assert (bare.pruned, bare.reason, bare.service, bare.preference, bare.tlv(TlvType.MAC)) == ({}, None, None, 0, None)


@pytest.mark.parametrize(
    "message",
    [
        Message(0, ()),
        Message(Limit.MAX_STEPS, (Node(0, 17),)),
        Message(0, (Node(0, 17, payload=bytes(40000)), Node(1, 6, payload=bytes(40000)))),
    ],
)
def test_a_message_over_a_limit_is_not_encoded(message: Message) -> None:
    with pytest.raises(ValueError, match=r"cannot be sent|does not exist"):
        message.encode()
