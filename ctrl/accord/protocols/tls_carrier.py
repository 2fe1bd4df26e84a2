# SPDX-License-Identifier: Apache-2.0
"""A TLS connection's plaintext as a byte stream for asyncio, over the stream below it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

from accord.protocols.services import Carrier, TlsEnd
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

_READ_BYTES: Final = 65536
# Four full records: large enough to make the crossing into OpenSSL cheap, small enough to bound what is encrypted
# and not yet taken by the stream below.
_WRITE_BYTES: Final = 65536


class TlsCarrier:
    """Carrier of a completed TLS handshake. Owns ``below``.

    The stream below ending without close_notify is an attack or an accident (RFC 8446 section 6.1): ``read``
    raises ``PeerError`` (``STREAM_BROKEN``) after the last whole record, it never looks like the end.
    """

    def __init__(self, connection: TlsEnd, below: Carrier) -> None:
        self._tls = connection
        self._below = below
        self._sending = asyncio.Lock()
        self._answering: asyncio.Task[None] | None = None
        # What OpenSSL has written of its own accord (session tickets, KeyUpdate) and nobody has sent.
        self._unsent = connection.output()
        self._finished = False
        self._closed = False
        self._broken = False

    @property
    def both_speak_accord(self) -> bool:
        """As ``TlsConnection.both_speak_accord``."""
        return bool(getattr(self._tls, "both_speak_accord", False))

    @property
    def kernel_socket(self) -> socket.socket | None:
        """None: the kernel's bytes are ciphertext."""
        return None

    async def read(self, limit: int = _READ_BYTES) -> bytes:
        """Up to ``limit`` bytes, at least one; empty after the peer's close_notify."""
        if limit < 1:
            raise ValueError("limit is less than 1")
        while True:
            plaintext = self._tls.read(limit)
            self._answer()
            if plaintext is not None:
                return plaintext
            ciphertext = await self._below.read(_READ_BYTES)
            if not ciphertext:
                raise error(Reason.STREAM_BROKEN, "TLS: cut off without close_notify (RFC 8446 section 6.1)")
            self._tls.feed(ciphertext)

    async def write(self, data: bytes) -> None:
        """Encrypt and send all of ``data``; waits while the stream below has no room."""
        if self._finished:
            raise error(Reason.CLOSED, "TLS: write after finish or close")
        rest = memoryview(data)
        async with self._sending:
            while rest:
                self._tls.write(bytes(rest[:_WRITE_BYTES]))
                rest = rest[_WRITE_BYTES:]
                await self._send()

    def push(self) -> None:
        """Send what OpenSSL has written by now as far as the kernel takes it at once; the rest leaves with whatever
        is read or written next."""
        below = self._below.kernel_socket
        if below is not None and self._unsent and not self._sending.locked():
            with contextlib.suppress(OSError):  # a stream that broke is for the next read or write to report
                self._unsent = self._unsent[below.send(self._unsent) :]

    async def finish(self) -> None:
        """Send close_notify, and whatever tells the end below it."""
        if self._finished:
            return
        self._finished = True
        async with self._sending:
            self._tls.close_notify()
            await self._send()
        await self._below.finish()

    async def close(self) -> None:
        """Orderly end; a peer that is gone already is no error."""
        if self._closed:
            return
        self._closed = True
        try:
            with contextlib.suppress(AccordError, OSError):
                await self.finish()
        finally:
            self._stop_answering()
            await self._below.close()

    def abort(self) -> None:
        """End at once."""
        self._finished = self._closed = True
        self._stop_answering()
        self._below.abort()

    def _answer(self) -> None:
        """Send what reading made OpenSSL say, without making the reader wait for a peer that does not read."""
        self._unsent += self._tls.output()
        idle = self._answering is None or self._answering.done()
        if self._unsent and idle and not self._sending.locked() and not self._finished:
            self._answering = asyncio.get_running_loop().create_task(self._send_answer())

    async def _send_answer(self) -> None:
        # A stream that broke is for the next read or write to report.
        with contextlib.suppress(AccordError, OSError):
            async with self._sending:
                await self._send()

    def _stop_answering(self) -> None:
        if self._answering is not None:
            self._answering.cancel()

    async def _send(self) -> None:
        """Under the lock: bytes leave in the order in which they were encrypted."""
        if self._broken:
            raise error(Reason.STREAM_BROKEN, "TLS: an earlier write was given up half way")
        while True:
            ciphertext = self._unsent + self._tls.output()
            self._unsent = b""
            if not ciphertext:
                return
            # Given up half way, a record is on the wire in part, and nothing after it can be read.
            self._broken = True
            await self._below.write(ciphertext)
            self._broken = False
