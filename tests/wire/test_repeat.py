# SPDX-License-Identifier: Apache-2.0
"""REPEAT: what a commit says once more, and what of an answer asks for it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.negotiation.repetition import MAX_BYTES, repetition
from accord.wire import repeat, tlv
from accord.wire.constants import CookieKind, Protocol, Reason
from accord.wire.errors import AccordError
from accord.wire.node import Node

ANSWER = bytes([7, CookieKind.ANSWER]) + bytes(range(14))
SLOT = bytes([7, CookieKind.SLOT]) + bytes(14)
PROPOSALS = st.dictionaries(
    st.integers(0, 63), st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=100)), max_size=8
).map(lambda nodes: [(node, protocol, data) for node, (protocol, data) in nodes.items()])


@given(PROPOSALS)
def test_what_is_encoded_is_decoded_in_order_and_is_what_the_specification_says(
    proposal: list[tuple[int, int, bytes]],
) -> None:
    value = repeat.encode(ANSWER, proposal)
    assert repeat.decode(value) == (ANSWER, sorted(proposal))
    said = b"".join(
        bytes([node]) + struct.pack(">IH", protocol, len(data)) + data for node, protocol, data in sorted(proposal)
    )
    assert value == ANSWER + said


@given(PROPOSALS.filter(len), st.data())
def test_what_is_cut_off_within_a_node_or_out_of_order_is_refused(
    proposal: list[tuple[int, int, bytes]], data: st.DataObject
) -> None:
    value = repeat.encode(ANSWER, proposal)
    whole = {len(repeat.encode(ANSWER, sorted(proposal)[:count])) for count in range(len(proposal) + 1)}
    cut = data.draw(st.sampled_from([at for at in range(16, len(value)) if at not in whole]))
    for bad in (value[:cut], value + value[16:]):
        with pytest.raises(AccordError) as refused:
            repeat.decode(bad)
        assert refused.value.reason is Reason.BAD_TLV


def context(*tlvs: tlv.Tlv) -> Node:
    return Node(0, Protocol.UDP, (1,), tlvs)


def test_a_commit_says_what_the_answer_asks_for_and_nothing_else() -> None:
    proposal = [(0, int(Protocol.UDP), Node(0, Protocol.UDP, (1,), ())), (9, 0x7E000001, None)]
    assert repetition(context(), proposal) == ()
    assert repetition(context(tlv.repeat(SLOT)), proposal) == (tlv.repeat(SLOT),)
    (said,) = repetition(context(tlv.repeat(ANSWER)), proposal)
    assert repeat.decode(said.value) == (ANSWER, [(0, 17, b"\x01\x00\x00\x00\x01"), (9, 0x7E000001, b"")])


def test_an_answer_that_asks_for_what_no_commit_has_room_for_or_goes_on_is_refused() -> None:
    long = [(1, int(Protocol.TCP), Node(1, Protocol.TCP, (), (), bytes(MAX_BYTES)))]
    for bad, proposal in [
        (context(tlv.repeat(ANSWER)), long),
        (context(tlv.repeat(ANSWER + b"\0")), []),
        (context(tlv.continues([1]), tlv.repeat(ANSWER)), []),
    ]:
        with pytest.raises(AccordError) as refused:
            repetition(bad, proposal)
        assert refused.value.reason is Reason.BAD_TLV
