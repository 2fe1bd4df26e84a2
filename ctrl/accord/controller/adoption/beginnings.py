# SPDX-License-Identifier: Apache-2.0
"""How accepted connections begin (docs/PROTOCOL.md, section 9.1): with the preface, a proposal's ClientHello, a record.

Bytes in, answers out; nothing here reads a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from accord.wire.constants import Limit, Reason, TcpOption
from accord.wire.errors import error
from accord.wire.tcp_option import OPTION_BYTES, encode

KEY_BYTES: Final = 44
"""Of a ClientHello: record header 5, handshake header 4, version 2, random 32 (RFC 8446, sections 4.1.2 and 5.1), one
more. What is shorter is no ClientHello."""
SERVED_LIMIT: Final = 4096
"""Plain connections of the last ten seconds, whose proposals could still come; about 200 bytes each."""

_PREFIX: Final = encode(TcpOption.EXID_ADOPT, bytes(12))[:4]
_HANDSHAKE: Final = 0x16
_RECORDS: Final = frozenset({0x14, 0x15, 0x17})  # RFC 8446, section 5.1: change_cipher_spec, alert, application_data
_RECORD_HEADER: Final = 5
_RECORD_MOST: Final = (1 << 14) + 256
_SERVED_SECONDS: Final = Limit.MAX_LIFETIME_MS / 1000


def is_record(ahead: bytes) -> bool:
    """The header of a TLS record that is no handshake's, and so no beginning of a plain TLS connection."""
    if len(ahead) < _RECORD_HEADER or ahead[0] not in _RECORDS or ahead[1] != 3:
        return False
    return 0 < int.from_bytes(ahead[3:5], "big") <= _RECORD_MOST


class Hellos:
    """The ClientHellos of one port: of proposals, by which their connections are found, and of plain connections, whose
    proposals then come too late."""

    def __init__(self, now: Callable[[], float]) -> None:
        """``now``: seconds of a monotonic clock."""
        self._now = now
        self._expected: dict[bytes, tuple[bytes, bytes]] = {}  # by key: transaction, the whole
        self._keys: dict[bytes, bytes] = {}  # by transaction
        self._served: dict[bytes, float] = {}  # by key: until when; oldest first
        self.look = KEY_BYTES
        """How many bytes ahead are worth looking at."""

    def expect(self, transaction: bytes, hello: bytes) -> None:
        """A proposal's. Raises ``AccordError`` (LEGACY_FIRST) when a connection has begun with it already."""
        self.check(hello)
        key = hello[:KEY_BYTES]
        if len(key) < KEY_BYTES or key in self._expected:
            return
        self.forget(transaction)
        self._expected[key], self._keys[transaction] = (transaction, hello), key
        self.look = max(self.look, len(hello))

    def check(self, hello: bytes) -> None:
        """Of a proposal that nothing is kept of. As ``expect``."""
        self._sweep()
        if hello[:KEY_BYTES] in self._served:
            raise error(Reason.LEGACY_FIRST, "the connection is served as a plain one: its ClientHello came first")

    def forget(self, transaction: bytes) -> None:
        """No connection is waited for any more."""
        key = self._keys.pop(transaction, None)
        if key is not None:
            del self._expected[key]
        if not self._expected:
            self.look = KEY_BYTES

    def wanted(self, ahead: bytes) -> int:
        """How many bytes are needed to tell what a connection begins with; 0: these are enough."""
        if not ahead:
            return 0
        if ahead[: len(_PREFIX)] == _PREFIX[: len(ahead)]:
            return OPTION_BYTES
        if ahead[0] == _HANDSHAKE and self._expected:
            expected = self._expected.get(ahead[:KEY_BYTES])
            return KEY_BYTES if len(ahead) < KEY_BYTES else 0 if expected is None else len(expected[1])
        return _RECORD_HEADER if ahead[0] in _RECORDS and ahead[1:2] in (b"", b"\x03") else 0

    def find(self, ahead: bytes) -> tuple[bytes, int] | None:
        """The transaction whose ClientHello these bytes begin with, and how long that is."""
        transaction, hello = self._expected.get(ahead[:KEY_BYTES], (b"", b""))
        return (transaction, len(hello)) if hello and ahead[: len(hello)] == hello else None

    def served(self, ahead: bytes) -> None:
        """A connection that begins with these bytes is a plain one, for good."""
        if len(ahead) < KEY_BYTES or ahead[0] != _HANDSHAKE:
            return
        self._sweep()
        self._served.pop(ahead[:KEY_BYTES], None)
        self._served[ahead[:KEY_BYTES]] = self._now() + _SERVED_SECONDS
        if len(self._served) > SERVED_LIMIT:
            del self._served[next(iter(self._served))]

    def _sweep(self) -> None:
        now = self._now()
        while self._served and self._served[key := next(iter(self._served))] <= now:
            del self._served[key]
