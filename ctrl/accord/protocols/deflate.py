# SPDX-License-Identifier: Apache-2.0
"""A stream in blocks of deflate (RFC 1951), each of which says how long it is, packed and unpacked.

    block       u16 packed length, u16 unpacked length, then so many packed bytes

The blocks of one direction are one deflate stream, with a sync flush at the end of each, so a block refers back into
the window that those before it have filled (as RFC 7692 does it for messages). What a block unpacks to is known before
a byte of it is, and is bounded twice: by ``Bounds.block``, and by ``Bounds.factor`` times its packed length. A sender
whose text packs better than that lets the block be longer, with empty stored blocks at its end, which mean nothing.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from accord.wire.constants import Reason
from accord.wire.errors import error

HEAD: Final = struct.Struct("!HH")
_MEMORY: Final = 8  # zlib's default
_EMPTY_STORED: Final = bytes((0, 0, 0, 0xFF, 0xFF))  # RFC 1951, section 3.2.4: BTYPE 00, LEN 0, NLEN its complement

DICTIONARIES: Final[dict[int, bytes]] = {
    1: b"Accept-Ranges: bytes\r\nAge: Cache-Control: no-cache, no-store, max-age=Connection: close\r\nConnection: "
    b"keep-alive\r\nContent-Encoding: Content-Type: application/json; charset=utf-8\r\nContent-Type: text/plain\r\n"
    b"ETag: Expires: If-None-Match: Last-Modified: Location: Server: Set-Cookie: Transfer-Encoding: chunked\r\nVary: "
    b"Accept-Encoding\r\nUser-Agent: Accept: */*\r\nAccept-Encoding: Accept-Language: Authorization: Cookie: Host: "
    b"Date: Mon, Tue, Wed, Thu, Fri, Sat, Sun, Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec GMT\r\nContent-Length: "
    b"Content-Type: text/html; charset=utf-8\r\nPUT DELETE HEAD POST / HTTP/1.1\r\nGET / HTTP/1.1\r\n"
    b"HTTP/1.1 404 Not Found\r\nHTTP/1.1 304 Not Modified\r\nHTTP/1.1 200 OK\r\n",
}
"""Text that both ends put into their windows first, by its ID; 0 is none. The most usual is last, where it is near."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one side takes in."""

    window: int
    """Binary logarithm of the window that it keeps, 9..15."""
    block: int
    """Unpacked bytes of a block, 1..65535."""
    factor: int
    """Unpacked bytes for each packed one."""


class Packer:
    """One direction, sending."""

    def __init__(self, bounds: Bounds, level: int, window: int, dictionary: int = 0) -> None:
        """``bounds`` are the peer's; ``window`` is the own, no larger than its."""
        self.bounds = bounds
        known = {"zdict": DICTIONARIES[dictionary]} if dictionary else {}
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, -window, _MEMORY, zlib.Z_DEFAULT_STRATEGY, **known)

    def pack(self, piece: bytes) -> bytes:
        """One block; ``piece`` is 1 to ``bounds.block`` bytes."""
        packed = self._deflate.compress(piece) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        short = -(-len(piece) // self.bounds.factor) - len(packed)
        if short > 0:
            packed += _EMPTY_STORED * -(-short // len(_EMPTY_STORED))
        return HEAD.pack(len(packed), len(piece)) + packed


class Unpacker:
    """One direction, receiving. Raises ``PeerError``: DECOMPRESSION_BOMB, STREAM_BROKEN; it is of no use after that."""

    def __init__(self, bounds: Bounds, window: int, dictionary: int = 0) -> None:
        """``bounds`` are the own; ``window`` is what the sender may use."""
        self.bounds = bounds
        known = {"zdict": DICTIONARIES[dictionary]} if dictionary else {}
        self._inflate = zlib.decompressobj(-window, **known)

    def check(self, head: bytes) -> tuple[int, int]:
        """The packed and the unpacked length that a block's first four bytes announce."""
        packed, unpacked = HEAD.unpack(head)
        if not packed or not unpacked:
            raise error(Reason.STREAM_BROKEN, "compression: a block with nothing in it")
        if unpacked > self.bounds.block or unpacked > packed * self.bounds.factor:
            raise error(
                Reason.DECOMPRESSION_BOMB,
                f"a block of {packed} bytes that unpacks to {unpacked}; agreed were {self.bounds.block}, and a factor "
                f"of {self.bounds.factor}",
            )
        return packed, unpacked

    def unpack(self, data: bytes, unpacked: int) -> bytes:
        """The contents of a block, exactly so many bytes as it announced."""
        try:
            # One byte more than is right shows that there is more, and costs no more memory.
            piece = self._inflate.decompress(data, unpacked + 1)
        except zlib.error as wrong:
            raise error(Reason.STREAM_BROKEN, f"compression: {wrong}") from wrong
        if len(piece) > unpacked or self._inflate.unconsumed_tail:
            raise error(Reason.DECOMPRESSION_BOMB, f"a block unpacks to more than the {unpacked} bytes that it says")
        if len(piece) < unpacked:
            raise error(Reason.STREAM_BROKEN, f"compression: a block of {len(piece)} bytes says that it has {unpacked}")
        if self._inflate.eof:
            raise error(Reason.STREAM_BROKEN, "compression: the deflate stream ends before the stream does")
        return piece
