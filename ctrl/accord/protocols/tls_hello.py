# SPDX-License-Identifier: Apache-2.0
"""What a ClientHello asks for (RFC 8446 section 4.1.2), as far as a responder without memory must know it beforehand.

It reads, it does not judge: OpenSSL does that. What it cannot read is for OpenSSL to refuse, in its own words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SUPPORTED_GROUPS: Final = 10
_PRE_SHARED_KEY: Final = 41
_EARLY_DATA: Final = 42
_KEY_SHARE: Final = 51

X25519: Final = 29
SECP256R1: Final = 23
X25519MLKEM768: Final = 0x11EC
"""draft-ietf-tls-ecdhe-mlkem."""
CLASSICAL: Final = frozenset({*range(21, 34), 41, *range(256, 261)})
"""Curves and finite fields (RFC 8446 section 4.2.7, RFC 8734, RFC 8998): no post-quantum key exchange."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Of one ClientHello."""

    groups: tuple[int, ...]
    """Named groups that the client supports, best first."""
    shares: tuple[int, ...]
    """Those of which it sends a share."""
    resumes: bool
    """It has a pre-shared key, or sends early data."""
    keys: tuple[bytes, ...] = field(default=(), repr=False, compare=False)
    """What it sends as each share."""


def read_hello(data: bytes) -> Hello | None:
    """Of records (u8 type, u16 version, u16 length) that hold one ClientHello and nothing else; None: they do not.

    u8 1, u24 length; u16 version; 32 random; u8-prefixed session ID; u16-prefixed cipher suites;
    u8-prefixed compression methods; u16-prefixed extensions: u16 type, u16-prefixed data
    """
    try:
        whole = _Cursor(_records(data))
        if whole.number(1) != _CLIENT_HELLO:
            return None
        body = _Cursor(whole.vector(3))
        whole.finish()
        body.take(2 + 32)
        body.vector(1)
        body.vector(2)
        body.vector(1)
        rest = _Cursor(body.vector(2))
        body.finish()
        extensions: dict[int, bytes] = {}
        while rest.left:
            kind = rest.number(2)
            if kind in extensions:
                return None
            extensions[kind] = rest.vector(2)
        groups = _numbers(_Cursor(extensions.get(_SUPPORTED_GROUPS, b"\0\0")))
        entries = _shares(_Cursor(extensions.get(_KEY_SHARE, b"\0\0")))
    except _TooShort:
        return None
    return Hello(
        groups,
        tuple(group for group, _ in entries),
        not extensions.keys().isdisjoint({_PRE_SHARED_KEY, _EARLY_DATA}),
        tuple(key for _, key in entries),
    )


class _TooShort(Exception):
    """The bytes end before what they promise, or go on behind it."""


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise _TooShort
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        return self.take(self.number(size))

    def finish(self) -> None:
        if self.left:
            raise _TooShort


def _records(data: bytes) -> bytes:
    cursor, pieces = _Cursor(data), []
    while cursor.left:
        if cursor.number(1) != _HANDSHAKE:
            raise _TooShort
        cursor.take(2)
        pieces.append(cursor.vector(2))
    return b"".join(pieces)


def _numbers(cursor: _Cursor) -> tuple[int, ...]:
    data = cursor.vector(2)
    cursor.finish()
    if len(data) % 2:
        raise _TooShort
    return tuple(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))


def _shares(cursor: _Cursor) -> list[tuple[int, bytes]]:
    entries, found = _Cursor(cursor.vector(2)), []
    cursor.finish()
    while entries.left:
        found.append((entries.number(2), entries.vector(2)))
    return found
