# SPDX-License-Identifier: Apache-2.0
"""Nodes for hypothesis: every node that has an encoding, small ones more often."""

from __future__ import annotations

from hypothesis import strategies as st

from accord.wire import tlv
from accord.wire.constants import TLV_CRITICAL, TlvType
from accord.wire.node import Node
from accord.wire.tlv import Tlv

KNOWN = frozenset(map(int, TlvType))
SMALL = st.binary(max_size=24)

hashes = st.binary(min_size=32, max_size=32)
unknown_tlvs = st.builds(Tlv, st.integers(0, TLV_CRITICAL - 1).filter(lambda number: number not in KNOWN), SMALL)
context_tlvs = st.one_of(
    unknown_tlvs,
    st.binary(min_size=1, max_size=24).map(tlv.cookie),
    st.dictionaries(st.integers(1, 63), st.integers(1, 255), min_size=1).map(tlv.pruned),
    st.integers(1, 255).map(tlv.reason),
    st.integers(1, 65535).map(tlv.service),
    hashes.map(tlv.transcript),
    st.binary(min_size=48, max_size=48).map(tlv.renegotiates),
    st.sets(st.integers(1, 63), min_size=1).map(tlv.continues),
)
other_tlvs = st.one_of(
    unknown_tlvs,
    st.integers(0, 255).map(tlv.preference),
    hashes.map(tlv.mac),
    st.sampled_from([1, 3, 4]).map(tlv.word),
    st.builds(tlv.placeholder, st.booleans(), st.sets(st.integers(0, 0xFFFFFFFF), max_size=3)),
    st.integers(1, 63).map(tlv.elaborates),
)


@st.composite
def nodes(draw: st.DrawFn) -> Node:
    """One node with any ID, children, TLVs and payload that it may have."""
    node_id = draw(st.sampled_from([0, 0, 1, 2, 63]) | st.integers(0, 63))
    children = sorted(draw(st.sets(st.integers(0, 63), max_size=6)) - {node_id})
    tlvs = draw(st.lists(other_tlvs if node_id else context_tlvs, max_size=4, unique_by=lambda each: each.type))
    return Node(
        node_id,
        draw(st.sampled_from([0, 6, 17, 253, 0x304, 0x7E000001, 0xFFFFFFFF])),
        tuple(children),
        tuple(sorted(tlvs, key=lambda each: each.type)),
        draw(SMALL | st.binary(max_size=2000)),
        draw(st.booleans()),
    )
