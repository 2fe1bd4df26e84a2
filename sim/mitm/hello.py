# SPDX-License-Identifier: Apache-2.0
"""What can be changed of the hellos of TLS 1.3 by somebody without keys (RFC 8446, section 4.1)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_HANDSHAKE, _CLIENT, _SERVER = 22, 1, 2
_RANDOM_END: Final = 5 + 4 + 2 + 32
_VERSIONS, _ALPN, _SERVER_NAME = 43, 16, 0
SUITES: Final = (0x1301, 0x1302, 0x1303, 0x1304, 0xC02F, 0x009C, 0x0005)
"""Of TLS 1.3; then of 1.2, the last one broken."""


@dataclass(slots=True)
class Hello:
    """A hello taken apart; ``behind``: further records."""

    head: bytes
    """Up to the random."""
    session: bytes
    suites: list[int]
    compression: bytes
    extensions: list[tuple[int, bytes]]
    behind: bytes

    @property
    def from_client(self) -> bool:
        """Else from a server."""
        return self.head[5] == _CLIENT

    @classmethod
    def read(cls, data: bytes) -> Hello | None:
        """None: the payload does not begin with one."""
        if len(data) < _RANDOM_END + 4 or data[0] != _HANDSHAKE or data[5] not in (_CLIENT, _SERVER):
            return None
        end = 5 + int.from_bytes(data[3:5], "big")
        at = _RANDOM_END
        session, at = data[at : at + 1 + data[at]], at + 1 + data[at]
        if data[5] == _CLIENT:
            length = int.from_bytes(data[at : at + 2], "big")
            suites = [number for (number,) in struct.iter_unpack(">H", data[at + 2 : at + 2 + length])]
            at += 2 + length
            compression, at = data[at : at + 1 + data[at]], at + 1 + data[at]
        else:
            suites, compression, at = [int.from_bytes(data[at : at + 2], "big")], data[at + 2 : at + 3], at + 3
        extensions, at = [], at + 2
        while at + 4 <= end:
            number, length = struct.unpack_from(">HH", data, at)
            extensions.append((number, data[at + 4 : at + 4 + length]))
            at += 4 + length
        return cls(data[:_RANDOM_END], session, suites, compression, extensions, data[end:])

    def write(self) -> bytes:
        """With true lengths."""
        suites = b"".join(struct.pack(">H", number) for number in self.suites)
        if self.from_client:
            suites = struct.pack(">H", len(suites)) + suites
        area = b"".join(struct.pack(">HH", number, len(value)) + value for number, value in self.extensions)
        body = self.head[9:] + self.session + suites + self.compression + struct.pack(">H", len(area)) + area
        message = self.head[5:6] + len(body).to_bytes(3, "big") + body
        return self.head[:3] + struct.pack(">H", len(message)) + message + self.behind


def _edit(change: Callable[[Hello, int], None]) -> Callable[[bytes, int], bytes]:
    def edited(payload: bytes, argument: int) -> bytes:
        found = Hello.read(payload)
        if found is None:
            return payload
        change(found, argument)
        return found.write()

    return edited


def _one_suite(hello: Hello, number: int) -> None:
    hello.suites = [number]


def _without_extension(hello: Hello, place: int) -> None:
    del hello.extensions[place : place + 1]


def _empty_extension(hello: Hello, place: int) -> None:
    hello.extensions[place : place + 1] = [(number, b"") for number, _ in hello.extensions[place : place + 1]]


def _replace(hello: Hello, number: int, value: bytes) -> None:
    hello.extensions = [(other, value if other == number else data) for other, data in hello.extensions]


def _version(hello: Hello, version: int) -> None:
    value = struct.pack(">H", version)
    _replace(hello, _VERSIONS, bytes((len(value),)) + value if hello.from_client else value)


def _name(hello: Hello, which: int) -> None:
    name = (b"h2", b"http/1.0", b"x", b"http/1.1")[which % 4]
    _replace(hello, _ALPN, struct.pack(">HB", len(name) + 1, len(name)) + name)


def _server_name(hello: Hello, _: int) -> None:
    name = b"evil.example"
    _replace(hello, _SERVER_NAME, struct.pack(">HBH", len(name) + 3, 0, len(name)) + name)


def _legacy_version(hello: Hello, version: int) -> None:
    hello.head = hello.head[:9] + struct.pack(">H", version) + hello.head[11:]


EDITS: Final[tuple[Callable[[bytes, int], bytes], ...]] = tuple(
    _edit(change)
    for change in (
        _one_suite,
        _without_extension,
        _empty_extension,
        _version,
        _name,
        _server_name,
        _legacy_version,
    )
)
ONE_SUITE, WITHOUT, EMPTY, VERSION, NAME, SERVER_NAME, LEGACY_VERSION = range(len(EDITS))
