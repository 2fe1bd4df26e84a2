# SPDX-License-Identifier: Apache-2.0
"""The TLVs of node descriptors: parameters of Accord's own, made, checked and read.

On the wire: type u16, length u16, value; big-endian, no padding, types strictly ascending within a node.
Types with the bit ``TLV_CRITICAL`` must be known to the receiver; other unknown ones are ignored, and stay
where they are, so that the transcript covers them.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from accord.wire.constants import TLV_CRITICAL, Limit, NodeId, Packet, Reason, TlvType, Word
from accord.wire.errors import error

HASH_BYTES: Final = 32
"""SHA-256: the size of a transcript hash and of a MAC."""
RENEGOTIATES_BYTES: Final = 16 + HASH_BYTES
"""An association ID, and a MAC that proves that it is the sender's."""


@dataclass(frozen=True, slots=True)
class Tlv:
    """One parameter. ``type`` is a ``TlvType``, or a number that this version does not know."""

    type: int
    value: bytes


def cookie(value: bytes) -> Tlv:
    """COOKIE, on the context of an answer: opaque to the initiator, at least one byte."""
    return Tlv(TlvType.COOKIE, value)


def pruned(reasons: Mapping[int, int]) -> Tlv:
    """PRUNED, on the context: node ID to the reason why that node is gone. (ID u8, reason u8), IDs ascending."""
    return Tlv(TlvType.PRUNED, b"".join(bytes((node, reasons[node])) for node in sorted(reasons)))


def preference(value: int) -> Tlv:
    """PREFERENCE, on any node of a proposal but the context: 0..255, higher is preferred."""
    return Tlv(TlvType.PREFERENCE, bytes((value,)))


def word(value: int) -> Tlv:
    """WORD, on any node of a proposal but the context: a ``Word`` of the initiator's policy; NEUTRAL needs none."""
    return Tlv(TlvType.WORD, bytes((value,)))


def reason(value: int) -> Tlv:
    """REASON, on the context: this message is an abort. A reason number of 1..255."""
    return Tlv(TlvType.REASON, bytes((value,)))


def service(port: int) -> Tlv:
    """SERVICE, on the context of a proposal: the port, 1..65535, where the context itself has none."""
    return Tlv(TlvType.SERVICE, struct.pack(">H", port))


def transcript(value: bytes) -> Tlv:
    """TRANSCRIPT, on the context of a commit: the 32 bytes of T(1)."""
    return Tlv(TlvType.TRANSCRIPT, value)


def mac(value: bytes) -> Tlv:
    """MAC, on the topmost security node of an answer or a commit: 32 bytes."""
    return Tlv(TlvType.MAC, value)


def repeat(value: bytes) -> Tlv:
    """REPEAT, on the context of an answer or its commit: ``accord.wire.repeat``."""
    return Tlv(TlvType.REPEAT, value)


def placeholder(by_responder: bool, protocols: Iterable[int] = ()) -> Tlv:
    """PLACEHOLDER, on every node with the flag P: who fills it, u8, 0 the initiator, 1 the responder; then protocol
    IDs, u32 each, ascending: what the one who will get the filling knows and allows. Only a subgraph has any."""
    ids = b"".join(struct.pack(">I", protocol) for protocol in sorted(set(protocols)))
    return Tlv(TlvType.PLACEHOLDER, bytes((by_responder,)) + ids)


def elaborates(node: int) -> Tlv:
    """ELABORATES, on a node that was not there before: the subgraph placeholder, u8, that it is in place of."""
    return Tlv(TlvType.ELABORATES, bytes((node,)))


def continues(nodes: Iterable[int]) -> Tlv:
    """CONTINUES, on the context: the nodes, u8 each, ascending, on which the sender waits for more."""
    return Tlv(TlvType.CONTINUES, bytes(sorted(nodes)))


def peer(value: bytes) -> Tlv:
    """PEER, on the context: 32 bytes, of a proposal the meeting and who proposes, of an answer what was merged."""
    return Tlv(TlvType.PEER, value)


def renegotiates(value: bytes) -> Tlv:
    """RENEGOTIATES, on the context of a proposal: 16 bytes that name an association, 32 bytes that prove it."""
    return Tlv(TlvType.RENEGOTIATES, value)


def data_path(address: str) -> Tlv:
    """DATA_PATH, on the context of a proposal: the address, 4 or 16 bytes, that the stack's connection comes from."""
    return Tlv(TlvType.DATA_PATH, ipaddress.ip_address(address).packed)


# Readers. They take values that ``check`` has passed.


def read_number(value: bytes) -> int:
    """Of PREFERENCE, WORD, REASON, SERVICE: an unsigned big-endian number."""
    return int.from_bytes(value, "big")


def read_pruned(value: bytes) -> dict[int, int]:
    """Of PRUNED: node ID to reason number, in ascending order. A number may be unknown to this version."""
    return dict(zip(value[::2], value[1::2], strict=True))


def read_placeholder(value: bytes) -> tuple[bool, frozenset[int]]:
    """Of PLACEHOLDER: whether the responder fills it, and the protocol IDs."""
    return bool(value[0]), frozenset(number for (number,) in struct.iter_unpack(">I", value[1:]))


# Checks.


def _pruned_ok(value: bytes) -> bool:
    ids = value[::2]
    ascending = all(low < high for low, high in pairwise(ids))
    in_range = all(NodeId.CONTEXT < node < Limit.MAX_NODES for node in ids)
    return 0 < len(value) == 2 * len(ids) and ascending and in_range and all(value[1::2])


def _placeholder_ok(value: bytes) -> bool:
    if not value or value[0] > 1 or len(value) % 4 != 1:
        return False
    return all(low < high for low, high in pairwise(number for (number,) in struct.iter_unpack(">I", value[1:])))


def _continues_ok(value: bytes) -> bool:
    in_range = all(NodeId.CONTEXT < node < Limit.MAX_NODES for node in value)
    return len(value) > 0 and in_range and all(low < high for low, high in pairwise(value))


# A forbidden protocol is not proposed, and a neutral one has nothing to say: one valid encoding.
_WORDS: Final = (Word.AVOID, Word.PREFERRED, Word.REQUIRED)
_CONTEXT = True
_OTHERS = False
# Type: on the context or on other nodes, form of the value, and the form in words.
_FORMS: Final[dict[int, tuple[bool, Callable[[bytes], bool], str]]] = {
    TlvType.COOKIE: (_CONTEXT, lambda value: len(value) > 0, "at least one byte"),
    TlvType.PRUNED: (_CONTEXT, _pruned_ok, "pairs of node ID and reason, IDs ascending in 1..63, reasons not 0"),
    TlvType.PREFERENCE: (_OTHERS, lambda value: len(value) == 1, "one byte"),
    TlvType.WORD: (_OTHERS, lambda value: len(value) == 1 and value[0] in _WORDS, "one byte, 1, 3 or 4"),
    TlvType.OUTLINE: (_CONTEXT, lambda value: len(value) > 0, "what section 7.4 of PROTOCOL.md says"),
    TlvType.REASON: (_CONTEXT, lambda value: len(value) == 1 and value[0] != 0, "one byte, not 0"),
    TlvType.SERVICE: (_CONTEXT, lambda value: len(value) == 2 and any(value), "a port, two bytes, not 0"),
    TlvType.TRANSCRIPT: (_CONTEXT, lambda value: len(value) == HASH_BYTES, "32 bytes"),
    TlvType.MAC: (_OTHERS, lambda value: len(value) == HASH_BYTES, "32 bytes"),
    TlvType.PLACEHOLDER: (_OTHERS, _placeholder_ok, "0 or 1, then protocol IDs of four bytes, ascending"),
    TlvType.ELABORATES: (
        _OTHERS,
        lambda value: len(value) == 1 and NodeId.CONTEXT < value[0] < Limit.MAX_NODES,
        "a node ID of 1..63",
    ),
    TlvType.CONTINUES: (_CONTEXT, _continues_ok, "node IDs, ascending in 1..63, at least one"),
    TlvType.PEER: (_CONTEXT, lambda value: len(value) == HASH_BYTES, "32 bytes"),
    TlvType.RENEGOTIATES: (_CONTEXT, lambda value: len(value) == RENEGOTIATES_BYTES, "48 bytes"),
    TlvType.REPEAT: (_CONTEXT, lambda value: len(value) >= Packet.COOKIE_BYTES, "16 bytes or more"),
    TlvType.DATA_PATH: (_CONTEXT, lambda value: len(value) in (4, 16), "an IP address, 4 or 16 bytes"),
}


def check(node: int, tlvs: Iterable[Tlv]) -> None:
    """Whether each TLV may stand on this node, and its value has the right form.

    Raises ``PeerError``: UNKNOWN_CRITICAL_TLV, BAD_TLV.
    """
    for tlv in tlvs:
        form = _FORMS.get(tlv.type)
        if form is None:
            if tlv.type & TLV_CRITICAL:
                raise error(Reason.UNKNOWN_CRITICAL_TLV, f"type 0x{tlv.type:04x} on node {node}")
            continue
        on_context, well_formed, words = form
        if on_context is not (node == NodeId.CONTEXT):
            where = "the context" if on_context else "another node than the context"
            raise error(Reason.BAD_TLV, f"{TlvType(tlv.type).name} belongs on {where}, not on node {node}")
        if not well_formed(tlv.value):
            seen = tlv.value[:40].hex() or "empty"
            raise error(Reason.BAD_TLV, f"{TlvType(tlv.type).name} of node {node} is not {words}: {seen}")
