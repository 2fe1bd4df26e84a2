# SPDX-License-Identifier: Apache-2.0
"""Application protocol names: the ProtocolNameList of RFC 7301, and who decides what is in it.

A list is ``u16`` length in bytes, then each name as ``u8`` length and 1 to 255 bytes. Names are octets, not
text (RFC 7301 section 3.1; peers grease them), so they are ``str`` through latin-1, which loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from accord.negotiation.interface import Session
from accord.wire.constants import Reason
from accord.wire.errors import error

HTTP_1_1 = "http/1.1"
"""RFC 7301 section 6. Accord uses it for HTTP/1.1 bytes on a stream, over QUIC too (see ``quic``)."""
ACCORD = "accord"
"""Where QUIC demands a name (RFC 9001 section 8.1) and no application node decides."""
SPEAKS: Final = "accord+"
"""Before a name: the same protocol, for who speaks Accord as well (docs/PROTOCOL.md, section 10.3)."""
_NAME_BYTES: Final = 255


def offered_by_accord(names: Sequence[str]) -> tuple[str, ...]:
    """What a client's hello offers that may be said over a plain connection. Nothing more where it offers nothing, and
    where only a peer with Accord can be meant: a server may refuse a hello of whose names it knows none."""
    if not names or ACCORD in names:
        return tuple(names)
    return (*names, *(SPEAKS + name for name in names if len(SPEAKS + name) <= _NAME_BYTES))


def taken_by_accord(names: Sequence[str]) -> tuple[str, ...]:
    """What a server with Accord accepts over a plain connection, best first."""
    return tuple(each for name in names for each in (SPEAKS + name, name))


def without_accord(name: str) -> tuple[str, bool]:
    """The protocol that a selected name means, and whether both ends have said so that they speak Accord."""
    return name.removeprefix(SPEAKS), name.startswith(SPEAKS)


def encode_names(names: Sequence[str]) -> bytes:
    """``names`` as a ProtocolNameList. Raises ``ValueError`` for an empty list or a name of another length."""
    encoded = [name.encode("latin-1") for name in names]
    if not encoded or not all(1 <= len(name) <= 255 for name in encoded):
        raise ValueError(f"ALPN names are 1 to 255 bytes, and there is at least one: {names!r}")
    body = b"".join(bytes([len(name)]) + name for name in encoded)
    if len(body) > 0xFFFF:
        raise ValueError(f"{len(encoded)} ALPN names take {len(body)} bytes, more than 65535")
    return len(body).to_bytes(2, "big") + body


def decode_names(data: bytes) -> tuple[tuple[str, ...], bytes]:
    """The ProtocolNameList that ``data`` begins with, and what follows it.

    Raises ``PeerError`` (``HANDSHAKE_FAILED``) when it is cut short, is empty, or holds a name that is empty
    or repeated.
    """
    end = 2 + int.from_bytes(data[:2], "big")
    if len(data) < 2 or len(data) < end:
        raise error(Reason.HANDSHAKE_FAILED, f"a ProtocolNameList of {end} bytes in {len(data)}")
    names: list[str] = []
    at = 2
    while at < end:
        size = data[at]
        if size == 0 or at + 1 + size > end:
            raise error(Reason.HANDSHAKE_FAILED, f"an ALPN name of {size} bytes at {at} of a list of {end} bytes")
        names.append(data[at + 1 : at + 1 + size].decode("latin-1"))
        at += 1 + size
    if not names or len(set(names)) != len(names):
        raise error(Reason.HANDSHAKE_FAILED, "a ProtocolNameList that is empty or names a protocol twice")
    return tuple(names), data[end:]


def wanted(above: Sequence[Session], otherwise: Sequence[str]) -> tuple[str, ...]:
    """What a security session offers or accepts: the names of the sessions above that have any, else ``otherwise``."""
    names: dict[str, None] = {}
    for session in above:
        names.update(dict.fromkeys(getattr(session, "alpn", ())))
    return tuple(names) or tuple(otherwise)
