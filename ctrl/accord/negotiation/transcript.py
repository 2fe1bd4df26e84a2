# SPDX-License-Identifier: Apache-2.0
"""The transcript: a hash chain over every message, and the MACs that bind both sides to it.

    T(-1) = 32 zero bytes
    T(k)  = SHA-256("accord transcript 1" || T(k-1) || u8 step || u16 node count || nodes by ascending ID)
    node  = u8 ID || u32 protocol || u8 stored || if stored: u32 length || descriptor, MAC values as zeros

A node is not stored when the receiver does not support its protocol: it saw ID and protocol, and kept
nothing else. The responder knows which those were; the initiator learns it from the answer (PRUNED with
UNSUPPORTED) and can compute T(0) only then. Padding is no node.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable
from operator import itemgetter
from typing import Final

from accord.negotiation.interface import Role
from accord.wire.constants import TlvType
from accord.wire.node import Node, encode_descriptor
from accord.wire.tlv import HASH_BYTES, Tlv

BEGIN: Final = bytes(HASH_BYTES)
"""T(-1)."""

NO_MAC: Final = bytes(HASH_BYTES)
"""What stands in a MAC TLV while the transcript that the MAC is over is being hashed."""

_LABEL: Final = b"accord transcript 1"
_MESSAGE: Final = struct.Struct(">BH")
_SKIPPED: Final = struct.Struct(">BIB")
_STORED: Final = struct.Struct(">BIBI")
_MAC_LABEL: Final = {Role.RESPONDER: b"accord responder", Role.INITIATOR: b"accord initiator"}


Entry = tuple[int, int, Node | None]
"""One node as the transcript sees it: ID, protocol, and the node; None: the receiver did not store it."""


def entries(nodes: Iterable[Node]) -> list[Entry]:
    """Entries of nodes that were all stored."""
    return [(node.id, node.protocol, node) for node in nodes]


def extend(previous: bytes, step: int, message: Iterable[Entry]) -> bytes:
    """T(step) from T(step - 1) and the nodes of the step's message, in any order."""
    ordered = sorted(message, key=itemgetter(0))
    pieces = [_LABEL, previous, _MESSAGE.pack(step, len(ordered))]
    for number, protocol, node in ordered:
        if node is None:
            pieces.append(_SKIPPED.pack(number, protocol, False))
        else:
            descriptor = encode_descriptor(with_mac(node, NO_MAC) if node.tlvs else node)
            pieces += (_STORED.pack(number, protocol, True, len(descriptor)), descriptor)
    return hashlib.sha256(b"".join(pieces)).digest()


def with_mac(node: Node, value: bytes) -> Node:
    """The node with this value in its MAC TLV; the node itself when it has none."""
    if not node.tlvs or node.tlv(TlvType.MAC) in (None, value):
        return node
    tlvs = tuple([Tlv(tlv.type, value) if tlv.type == TlvType.MAC else tlv for tlv in node.tlvs])
    return Node(node.id, node.protocol, node.children, tlvs, node.payload, node.placeholder)


def compute_mac(exporter: bytes, sender: Role, transcript: bytes) -> bytes:
    """HMAC-SHA256 of the sender's label and the transcript, keyed by the security session's exporter."""
    return hmac.digest(exporter, _MAC_LABEL[sender] + transcript, "sha256")


def equal(one: bytes, other: bytes) -> bool:
    """Whether two hashes or MACs are the same, in a time that does not tell where they differ."""
    return hmac.compare_digest(one, other)
