# SPDX-License-Identifier: Apache-2.0
"""Node descriptors (HotNets 2009, section 3.2): what the chunks of one node carry, joined.

    child count u8 | flags u8 | TLV length u16 | child IDs, u8 each | TLVs | payload, to the end

A node has exactly one valid encoding, because the transcript hash is over the bytes: children and TLV types
strictly ascending, unknown flags zero, no padding. So decoding and encoding again gives the same bytes.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from accord.wire import tlv as tlvs_of
from accord.wire.constants import (
    DESCRIPTOR_HEADER_BYTES,
    NODE_FLAGS_KNOWN,
    TLV_HEADER_BYTES,
    Limit,
    NodeFlag,
    NodeId,
    Reason,
    TlvType,
    Word,
    protocol_name,
)
from accord.wire.errors import AccordError, error
from accord.wire.tlv import Tlv

_HEADER: Final = struct.Struct(">BBH")
_TLV_HEADER: Final = struct.Struct(">HH")


@dataclass(frozen=True, slots=True)
class Node:
    """One node of a protocol graph. Its ID and protocol travel in the chunk headers, the rest in the descriptor."""

    id: int
    protocol: int
    children: tuple[int, ...] = ()
    """Nodes that may build on this one, IDs ascending."""
    tlvs: tuple[Tlv, ...] = ()
    """Types ascending."""
    payload: bytes = b""
    """The protocol's own handshake bytes."""
    placeholder: bool = False
    """To be elaborated in a later step (HotNets 2009, section 2.3)."""
    _encoded: bytes = field(default=b"", init=False, compare=False, repr=False)
    """The descriptor, once it is known; not copied by ``replace``. The transcript asks for it again and again."""

    def tlv(self, tlv_type: TlvType) -> bytes | None:
        """The value of one TLV; None when the node does not bear it."""
        for tlv in self.tlvs:
            if tlv.type == tlv_type:
                return tlv.value
        return None

    @property
    def preference(self) -> int:
        """The initiator's PREFERENCE, 0 without one."""
        return tlvs_of.read_number(self.tlv(TlvType.PREFERENCE) or b"")

    @property
    def word(self) -> int:
        """What the initiator's policy says of the protocol: WORD, ``Word.NEUTRAL`` without one."""
        value = self.tlv(TlvType.WORD)
        return Word.NEUTRAL if value is None else tlvs_of.read_number(value)

    @property
    def pruned(self) -> dict[int, int]:
        """PRUNED: node ID to reason number; empty without one."""
        return tlvs_of.read_pruned(self.tlv(TlvType.PRUNED) or b"")

    @property
    def service(self) -> int | None:
        """The port of SERVICE."""
        value = self.tlv(TlvType.SERVICE)
        return None if value is None else tlvs_of.read_number(value)

    @property
    def reason(self) -> int | None:
        """The reason number of REASON: the message is an abort."""
        value = self.tlv(TlvType.REASON)
        return None if value is None else tlvs_of.read_number(value)

    @property
    def renegotiates(self) -> bytes | None:
        """RENEGOTIATES: the association that a proposal is about, and the proof."""
        return self.tlv(TlvType.RENEGOTIATES)

    @property
    def data_path(self) -> str | None:
        """DATA_PATH: the address that the connection of a proposal's stack comes from; None: the context's."""
        value = self.tlv(TlvType.DATA_PATH)
        return None if value is None else str(ipaddress.ip_address(value))

    @property
    def continues(self) -> frozenset[int]:
        """CONTINUES: the nodes on which the sender waits for more; empty without one."""
        return frozenset(self.tlv(TlvType.CONTINUES) or b"")

    @property
    def filling(self) -> tuple[bool, frozenset[int]]:
        """PLACEHOLDER: whether the responder fills it, and the protocols that it may be filled with."""
        return tlvs_of.read_placeholder(self.tlv(TlvType.PLACEHOLDER) or b"\0")

    @property
    def elaborates(self) -> int | None:
        """ELABORATES: the placeholder that this new node is in place of."""
        value = self.tlv(TlvType.ELABORATES)
        return None if value is None else tlvs_of.read_number(value)

    @property
    def name(self) -> str:
        """For messages to people: ``node 2 (tls)``."""
        return f"node {self.id} ({protocol_name(self.protocol)})"


def descriptor_bytes(node: Node) -> int:
    """Length of the encoding."""
    length = DESCRIPTOR_HEADER_BYTES + len(node.children) + len(node.payload)
    for tlv in node.tlvs:
        length += TLV_HEADER_BYTES + len(tlv.value)
    return length


def encode_descriptor(node: Node) -> bytes:
    """The one valid encoding of a node. Raises ``ValueError`` for a node that has none: our own mistake."""
    if node._encoded:
        return node._encoded
    flags = NodeFlag.PLACEHOLDER if node.placeholder else 0
    try:
        area = b"".join([_TLV_HEADER.pack(tlv.type, len(tlv.value)) + tlv.value for tlv in node.tlvs])
        head = _HEADER.pack(len(node.children), flags, len(area)) + bytes(node.children)
        data = head + area + node.payload
        _check(node, len(area))
    except (AccordError, struct.error) as refusal:
        raise ValueError(f"{node.name} cannot be encoded: {refusal}") from refusal
    if len(data) > Limit.MAX_MESSAGE_BYTES:
        raise ValueError(f"{node.name} cannot be encoded: {len(data)} bytes are more than a message may have")
    object.__setattr__(node, "_encoded", data)
    return data


def decode_descriptor(node_id: int, protocol: int, data: bytes) -> Node:
    """The node that a descriptor, strictly, is. Bounded, O(n).

    Raises ``PeerError``: BAD_DESCRIPTOR, NOT_CANONICAL, UNKNOWN_CRITICAL_TLV, BAD_TLV.
    """
    if not DESCRIPTOR_HEADER_BYTES <= len(data) <= Limit.MAX_MESSAGE_BYTES:
        raise error(Reason.BAD_DESCRIPTOR, f"node {node_id} has {len(data)} bytes")
    child_count, flags, tlv_length = _HEADER.unpack_from(data)
    if flags & ~NODE_FLAGS_KNOWN:
        raise error(Reason.NOT_CANONICAL, f"node {node_id} has flags 0x{flags:02x}")
    tlv_begin = DESCRIPTOR_HEADER_BYTES + child_count
    tlv_end = tlv_begin + tlv_length
    if tlv_length > Limit.MAX_TLV_BYTES or tlv_end > len(data):
        raise error(
            Reason.BAD_DESCRIPTOR,
            f"node {node_id} says {child_count} children and {tlv_length} bytes of TLVs in {len(data)} bytes",
        )
    node = Node(
        node_id,
        protocol,
        tuple(data[DESCRIPTOR_HEADER_BYTES:tlv_begin]) if child_count else (),
        _decode_tlvs(node_id, data, tlv_begin, tlv_end) if tlv_length else (),
        bytes(data[tlv_end:]),
        flags == NodeFlag.PLACEHOLDER,  # the only one that is known
    )
    _check(node, tlv_length)
    object.__setattr__(node, "_encoded", bytes(data))
    return node


def _decode_tlvs(node_id: int, data: bytes, begin: int, end: int) -> tuple[Tlv, ...]:
    tlvs: list[Tlv] = []
    while begin < end:
        if end - begin < TLV_HEADER_BYTES:
            raise error(Reason.BAD_DESCRIPTOR, f"node {node_id} ends within a TLV")
        tlv_type, length = _TLV_HEADER.unpack_from(data, begin)
        begin += TLV_HEADER_BYTES
        if length > end - begin:
            raise error(Reason.BAD_DESCRIPTOR, f"TLV 0x{tlv_type:04x} of node {node_id} is longer than its node")
        tlvs.append(Tlv(tlv_type, bytes(data[begin : begin + length])))
        begin += length
    return tuple(tlvs)


def _check(node: Node, tlv_bytes: int) -> None:
    """What holds for a node whichever way it goes."""
    if not NodeId.CONTEXT <= node.id < Limit.MAX_NODES:
        raise error(Reason.BAD_DESCRIPTOR, f"node ID {node.id}")
    if tlv_bytes > Limit.MAX_TLV_BYTES:
        raise error(Reason.BAD_DESCRIPTOR, f"{node.name} has {tlv_bytes} bytes of TLVs")
    children, tlvs = node.children, node.tlvs
    if children:
        if max(children) >= Limit.MAX_NODES or node.id in children:
            raise error(Reason.BAD_DESCRIPTOR, f"children {children} of {node.name}")
        if len(children) > 1 and not _ascending(children):
            raise error(Reason.NOT_CANONICAL, f"children {children} of {node.name} do not ascend")
    if tlvs:
        if len(tlvs) > 1 and not _ascending([tlv.type for tlv in tlvs]):
            raise error(Reason.NOT_CANONICAL, f"TLV types of {node.name} do not ascend")
        tlvs_of.check(node.id, tlvs)


def _ascending(numbers: Sequence[int]) -> bool:
    return all(low < high for low, high in pairwise(numbers))
