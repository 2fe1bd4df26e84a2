# SPDX-License-Identifier: Apache-2.0
"""REPEAT (docs/PROTOCOL.md, section 22): what a responder that keeps nothing has said in its commit once more.

answer   16 bytes, a cookie: u8 key, u8 kind, u16 time slot, u32 bound, u64 MAC
commit   the cookie; and, for kind ANSWER, the nodes of the proposal by ascending ID:
         u8 ID, u32 protocol, u16 length, descriptor; length 0: the responder did not store it
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from accord.wire.constants import Packet, Reason
from accord.wire.errors import error

_NODE: Final = struct.Struct(">BIH")
_KIND_AT: Final = 1
_BOUND: Final = slice(4, 8)

Proposed = tuple[int, int, bytes]
"""ID, protocol, descriptor; empty: not stored."""


def kind_of(cookie: bytes) -> int:
    """What a responder wants to have said again: ``CookieKind``, or something later."""
    return cookie[_KIND_AT]


def bound_of(cookie: bytes) -> bytes:
    """Four bytes."""
    return cookie[_BOUND]


def encode(cookie: bytes, proposal: Iterable[Proposed]) -> bytes:
    """The value of REPEAT in a commit."""
    return cookie + b"".join(
        _NODE.pack(node, protocol, len(descriptor)) + descriptor for node, protocol, descriptor in sorted(proposal)
    )


def decode(value: bytes) -> tuple[bytes, list[Proposed]]:
    """The cookie, and the proposal. Raises ``PeerError`` (BAD_TLV)."""
    cookie, at, nodes = value[: Packet.COOKIE_BYTES], int(Packet.COOKIE_BYTES), list[Proposed]()
    while at < len(value):
        if at + _NODE.size > len(value):
            raise error(Reason.BAD_TLV, "REPEAT ends within a node")
        node, protocol, length = _NODE.unpack_from(value, at)
        at += _NODE.size
        if at + length > len(value) or (nodes and node <= nodes[-1][0]):
            raise error(Reason.BAD_TLV, "REPEAT has a node that is cut off, or out of order")
        nodes.append((node, protocol, value[at : at + length]))
        at += length
    return cookie, nodes
