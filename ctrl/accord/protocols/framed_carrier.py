# SPDX-License-Identifier: Apache-2.0
"""Messages on a byte stream: each is a u32 length and so many bytes (as RFC 4571 has them, with a longer length).

A message may be empty. The stream may end between two messages, never within one.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from accord.protocols.services import Carrier
from accord.protocols.stream_layer import LayerCarrier
from accord.wire.constants import Reason
from accord.wire.errors import error

LENGTH_BYTES: Final = 4
_READ_BYTES: Final = 65536
_PIECE_BYTES: Final = 65536
"""What a writer who knows of no messages has in one."""


class FramedCarrier(LayerCarrier):
    """Carrier of messages, and of their contents one behind the other for who reads a stream. Owns ``below``.

    ``send_limit`` and ``receive_limit``: the longest message in bytes that the peer takes, and that this side does. One
    task may read while another writes. Raises ``PeerError`` (STREAM_BROKEN) for a message that is longer than was
    agreed, or cut off.
    """

    def __init__(self, below: Carrier, send_limit: int, receive_limit: int) -> None:
        self._below = below
        self._send_limit = send_limit
        self._receive_limit = receive_limit
        self._arrived = bytearray()
        self._left = 0
        """Of the message that ``read`` is within, bytes that nobody has got yet."""
        self._sending = asyncio.Lock()
        self._broken = False

    @property
    def kernel_socket(self) -> socket.socket | None:
        """None: the kernel's bytes are lengths too."""
        return None

    @property
    def send_limit(self) -> int:
        """Bytes of the longest message that the peer takes."""
        return self._send_limit

    # ---- messages ----

    async def send(self, message: bytes) -> None:
        """Send one message. Raises ``UserError`` (BAD_CONFIG) when the peer takes none of that length."""
        if len(message) > self._send_limit:
            raise error(
                Reason.BAD_CONFIG,
                f"a message of {len(message)} bytes, and the peer takes {self._send_limit}",
                "send less in one message, or raise message_limit in the peer's policy",
            )
        async with self._sending:
            if self._broken:
                raise error(Reason.STREAM_BROKEN, "framing: an earlier message was given up half way")
            self._broken = True
            await self._below.write(len(message).to_bytes(LENGTH_BYTES, "big") + message)
            self._broken = False

    async def receive(self) -> bytes | None:
        """The next message whole, or what ``read`` has left of one; None once the peer has finished."""
        if not self._left and not await self._begin():
            return None
        await self._gather(self._left)
        message = bytes(self._arrived[: self._left])
        del self._arrived[: self._left]
        self._left = 0
        return message

    # ---- the stream of their contents ----

    async def read(self, limit: int = _READ_BYTES) -> bytes:
        """Up to ``limit`` bytes out of one message, at least one; empty once the peer has finished."""
        if limit < 1:
            raise ValueError("limit is less than 1")
        while not self._left:
            if not await self._begin():
                return b""
        await self._gather(1)
        piece = bytes(self._arrived[: min(limit, self._left)])
        del self._arrived[: len(piece)]
        self._left -= len(piece)
        return piece

    async def write(self, data: bytes) -> None:
        """Send all of ``data``, in one message if it is short."""
        view, step = memoryview(data), min(self._send_limit, _PIECE_BYTES)
        for at in range(0, len(view), step):
            await self.send(bytes(view[at : at + step]))

    # ---- reading. What has arrived stays here when a reader is cancelled.

    async def _begin(self) -> bool:
        """Read a length. False: the peer has finished."""
        while len(self._arrived) < LENGTH_BYTES:
            if not await self._more():
                if self._arrived:
                    raise _cut_off()
                return False
        length = int.from_bytes(self._arrived[:LENGTH_BYTES], "big")
        if length > self._receive_limit:
            raise error(
                Reason.STREAM_BROKEN, f"framing: a message of {length} bytes, {self._receive_limit} were agreed"
            )
        del self._arrived[:LENGTH_BYTES]
        self._left = length
        return True

    async def _gather(self, count: int) -> None:
        while len(self._arrived) < count:
            if not await self._more():
                raise _cut_off()

    async def _more(self) -> bool:
        # No further than the message goes, but for what comes in one piece with it: memory stays within the limit.
        piece = await self._below.read(_READ_BYTES)
        self._arrived += piece
        return bool(piece)


def _cut_off() -> Exception:
    return error(Reason.STREAM_BROKEN, "framing: the stream ended within a message")
