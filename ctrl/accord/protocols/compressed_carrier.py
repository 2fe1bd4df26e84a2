# SPDX-License-Identifier: Apache-2.0
"""A byte stream that travels compressed, in the blocks of ``deflate``, over the stream below it."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from accord.protocols.deflate import HEAD, Packer, Unpacker
from accord.protocols.services import Carrier
from accord.protocols.stream_layer import LayerCarrier
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

_READ_BYTES: Final = 65536
_AT_ONCE: Final = 4
"""Blocks that are packed before the other tasks get their turn and the stream below its bytes."""


class CompressedCarrier(LayerCarrier):
    """Owns ``below``. What is written leaves at once, in whole blocks. The stream may end between two of them.

    Raises ``PeerError``: DECOMPRESSION_BOMB for a block that unpacks to more than was agreed, STREAM_BROKEN for
    anything else that is no block; once it has, it reads no more.
    """

    def __init__(self, below: Carrier, packer: Packer, unpacker: Unpacker) -> None:
        self._below = below
        self._packer = packer
        self._unpacker = unpacker
        self._packed = bytearray()
        self._unpacked = memoryview(b"")
        self._failure: AccordError | None = None
        self._sending = asyncio.Lock()
        self._broken = False

    @property
    def kernel_socket(self) -> socket.socket | None:
        """None: the kernel's bytes are packed."""
        return None

    async def read(self, limit: int = _READ_BYTES) -> bytes:
        """Up to ``limit`` bytes, at least one; empty once the peer has finished."""
        if limit < 1:
            raise ValueError("limit is less than 1")
        if not self._unpacked and not await self._next():
            return b""
        piece = bytes(self._unpacked[:limit])
        self._unpacked = self._unpacked[limit:]
        return piece

    async def write(self, data: bytes) -> None:
        """Send all of ``data``; waits while the stream below has no room."""
        view, step = memoryview(data), self._packer.bounds.block
        async with self._sending:
            if self._broken and view:
                raise error(Reason.STREAM_BROKEN, "compression: an earlier write was given up half way")
            # Both ends' windows go on with every block, so one that is lost half way is the end.
            self._broken = True
            for at in range(0, len(view), step * _AT_ONCE):
                several = range(at, min(at + step * _AT_ONCE, len(view)), step)
                await self._below.write(
                    b"".join(self._packer.pack(bytes(view[each : each + step])) for each in several)
                )
            self._broken = False

    async def _next(self) -> bool:
        """Unpack a block. False: the peer has finished. What has arrived stays when a reader is cancelled."""
        if self._failure is not None:
            raise self._failure
        try:
            if not await self._gather(HEAD.size):
                if self._packed:
                    raise error(Reason.STREAM_BROKEN, "compression: the stream ended within a block")
                return False
            packed, unpacked = self._unpacker.check(bytes(self._packed[: HEAD.size]))
            end = HEAD.size + packed
            if not await self._gather(end):
                raise error(Reason.STREAM_BROKEN, "compression: the stream ended within a block")
            data = bytes(self._packed[HEAD.size : end])
            del self._packed[:end]
            self._unpacked = memoryview(self._unpacker.unpack(data, unpacked))
        except AccordError as failure:
            self._failure = failure
            raise
        return True

    async def _gather(self, count: int) -> bool:
        while len(self._packed) < count:
            piece = await self._below.read(_READ_BYTES)
            if not piece:
                return False
            self._packed += piece
        return True
