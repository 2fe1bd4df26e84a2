# SPDX-License-Identifier: Apache-2.0
"""What a commit says once more for a responder that keeps nothing (docs/PROTOCOL.md, section 22)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from accord.negotiation.transcript import Entry
from accord.wire import repeat, tlv
from accord.wire.constants import CookieKind, Packet, Reason, TlvType
from accord.wire.errors import error
from accord.wire.node import Node, encode_descriptor

MAX_BYTES: Final = 960
"""Of REPEAT's value: TRANSCRIPT, 36 bytes with its header, stands beside it in the 1024 bytes of TLVs of one node."""


def repetition(context: Node, proposal: Iterable[Entry]) -> tuple[tlv.Tlv, ...]:
    """REPEAT of the commit; nothing where the answer's context has none. Raises ``PeerError`` (BAD_TLV)."""
    cookie = context.tlv(TlvType.REPEAT)
    if cookie is None:
        return ()
    if len(cookie) != Packet.COOKIE_BYTES or context.continues:
        raise error(Reason.BAD_TLV, "REPEAT of an answer is a cookie, and a commit follows")
    if repeat.kind_of(cookie) != CookieKind.ANSWER:
        return (tlv.repeat(cookie),)
    said = [(node, protocol, b"" if kept is None else encode_descriptor(kept)) for node, protocol, kept in proposal]
    value = repeat.encode(cookie, said)
    if len(value) > MAX_BYTES:
        raise error(Reason.BAD_TLV, f"REPEAT asks for a proposal of {len(value)} bytes, which no commit has room for")
    return (tlv.repeat(value),)
