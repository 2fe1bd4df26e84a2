# SPDX-License-Identifier: Apache-2.0
"""OUTLINE: what the nodes of a long proposal are, without payloads, in its first packet (PROTOCOL.md, section 7.2).

    for each node but the context, ascending:
    u8 node ID | u32 protocol | u8 preference | u8 word | u8 child count | child IDs, u8 each, ascending

Preference 0 and ``Word.NEUTRAL`` stand for a node without PREFERENCE, and WORD.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple

from accord.wire import tlv
from accord.wire.constants import TLV_HEADER_BYTES, Limit, NodeId, Reason, TlvType, Word
from accord.wire.errors import error
from accord.wire.node import Node
from accord.wire.tlv import Tlv

_ENTRY: Final = struct.Struct(">BIBBB")


class Entry(NamedTuple):
    """One node."""

    id: int
    protocol: int
    preference: int
    word: int
    children: tuple[int, ...]

    @classmethod
    def of(cls, node: Node) -> Entry:
        """What the outline says of a node."""
        return cls(node.id, node.protocol, node.preference, node.word, node.children)

    @property
    def hollow(self) -> Node:
        """The node as far as it is known before it has come."""
        tlvs: tuple[Tlv, ...] = (tlv.preference(self.preference),) if self.preference else ()
        if self.word != Word.NEUTRAL:
            tlvs = (*tlvs, tlv.word(self.word))
        return Node(self.id, self.protocol, self.children, tlvs)


def encode(nodes: Iterable[Node]) -> Tlv:
    """The outline of a proposal's nodes; the context is left out."""
    entries = sorted(Entry.of(node) for node in nodes if node.id != NodeId.CONTEXT)
    return Tlv(
        TlvType.OUTLINE,
        b"".join(_ENTRY.pack(*entry[:4], len(entry.children)) + bytes(entry.children) for entry in entries),
    )


def room(nodes: Iterable[Node]) -> int:
    """The most bytes that an outline of these takes in its descriptor."""
    return TLV_HEADER_BYTES + sum(_ENTRY.size + len(node.children) + 1 for node in nodes)


def decode(value: bytes) -> dict[int, Entry]:
    """By node ID. Raises ``PeerError`` BAD_TLV for what no outline is; whether children make a graph is the graph's."""
    found: dict[int, Entry] = {}
    at, last = 0, int(NodeId.CONTEXT)
    while at < len(value):
        if len(value) - at < _ENTRY.size:
            raise error(Reason.BAD_TLV, f"OUTLINE ends within the entry at byte {at}")
        node, protocol, preference, word, count = _ENTRY.unpack_from(value, at)
        at += _ENTRY.size
        children = tuple(value[at : at + count])
        at += count
        ascending = all(low < high for low, high in pairwise(children))
        if len(children) != count or not ascending or not last < node < Limit.MAX_NODES:
            raise error(Reason.BAD_TLV, f"OUTLINE says of node {node}: children {children}, after node {last}")
        if word not in (Word.NEUTRAL, Word.AVOID, Word.PREFERRED, Word.REQUIRED) or node in children:
            raise error(Reason.BAD_TLV, f"OUTLINE says of node {node}: word {word}, children {children}")
        if children and children[-1] >= Limit.MAX_NODES:
            raise error(Reason.BAD_TLV, f"OUTLINE says of node {node}: children {children}")
        found[node] = Entry(node, protocol, preference, word, children)
        last = node
    if not found:
        raise error(Reason.BAD_TLV, "OUTLINE of nothing")
    return found
