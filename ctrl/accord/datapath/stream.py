# SPDX-License-Identifier: Apache-2.0
"""A connected kernel TCP socket as a byte stream for asyncio.

``SocketCarrier`` is a ``Carrier`` of ``protocols.services`` in structure. It buffers nothing of its own:
what was not read is still in the kernel, so the socket can be handed over between any two calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

_READ_BYTES: Final = 65536
_DRAIN_BYTES: Final = 1 << 20
"""Bound of what ``close`` throws away so that the kernel ends with a FIN and not with a reset."""
_FAIR_SHARE: Final = 16
"""Calls in a row that the kernel may answer at once before the other tasks of the loop get their turn."""
_LINGER_ABORT = struct.pack("ii", 1, 0)


class SocketCarrier:
    """Owns ``connection``, a connected stream socket, and makes it non-blocking.

    One task may read while another writes; two readers at once, or two writers, are a mistake and raise
    ``RuntimeError``. Errors of the connection are the ``ConnectionError`` (or ``OSError``) that the kernel
    gives; using a closed carrier raises ``AccordError`` (CLOSED).
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket: socket.socket | None = connection
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._at_once = 0

    @property
    def kernel_socket(self) -> socket.socket | None:
        """The socket, whose bytes are exactly this stream's; None once closed or detached."""
        return self._socket

    async def read(self, limit: int = _READ_BYTES) -> bytes:
        """Up to ``limit`` bytes, at least one; empty once the peer has finished."""
        if limit < 1:
            raise ValueError("limit is less than 1")
        await self._share()
        while True:
            try:
                return self._open().recv(limit)
            except (BlockingIOError, InterruptedError):
                await self._readable()

    async def peek(self) -> int | None:
        """The next byte, which stays to be read; None once the peer has finished."""
        while True:
            try:
                ahead = self._open().recv(1, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                await self._readable()
            else:
                return ahead[0] if ahead else None

    async def write(self, data: bytes) -> None:
        """Send all of ``data``; returns when the kernel has taken it, and waits while its buffer is full."""
        rest = memoryview(data)
        await self._share()
        while rest:
            try:
                rest = rest[self._open().send(rest) :]
            except (BlockingIOError, InterruptedError):
                await self._writable()

    async def finish(self) -> None:
        """Send FIN after what was written; reading goes on. May be called more than once."""
        # ENOTCONN: the peer has reset the connection; the next read says so.
        with contextlib.suppress(OSError):
            self._open().shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        """Orderly end of both directions; the kernel goes on delivering what was written.

        What has already arrived unread is thrown away first: a close with unread data makes Linux send a
        reset (RFC 2525, section 2.17), which may destroy at the peer what was just sent to it.
        """
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            for _ in range(_DRAIN_BYTES // _READ_BYTES):
                if not self._socket.recv(_READ_BYTES):
                    break
        self._end().close()

    def abort(self) -> None:
        """Send a reset, now, and forget what is in flight."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ABORT)
        self._end().close()

    def detach(self) -> socket.socket:
        """The socket, non-blocking, now the caller's; this carrier is closed without a segment."""
        self._open()
        return self._end()

    # ---- Waiting for the kernel. Not through loop.sock_*: those leave a waiter behind when the socket is closed.

    async def _readable(self) -> None:
        if self._reader is not None:
            raise RuntimeError("two tasks read one stream")
        connection, loop = self._open(), self._running()
        self._reader = waiter = loop.create_future()
        loop.add_reader(connection.fileno(), _wake, waiter)
        try:
            await waiter
        finally:
            self._reader = None
            self._forget(loop.remove_reader)

    async def _writable(self) -> None:
        if self._writer is not None:
            raise RuntimeError("two tasks write one stream")
        connection, loop = self._open(), self._running()
        self._writer = waiter = loop.create_future()
        loop.add_writer(connection.fileno(), _wake, waiter)
        try:
            await waiter
        finally:
            self._writer = None
            self._forget(loop.remove_writer)

    def _forget(self, remove: Callable[[socket.socket], bool]) -> None:
        """Nothing to do once ``_end`` did it: the descriptor may be another socket's by now."""
        if self._socket is not None:
            remove(self._socket)

    def _running(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        self._at_once = 0
        return self._loop

    async def _share(self) -> None:
        """Before the system call, so that a task that is cancelled here loses no data."""
        self._at_once += 1
        if self._at_once >= _FAIR_SHARE:
            self._at_once = 0
            await asyncio.sleep(0)

    def _open(self) -> socket.socket:
        if self._socket is None:
            raise _closed()
        return self._socket

    def _end(self) -> socket.socket:
        """Take the socket out, and wake whoever waits for it with CLOSED."""
        connection, self._socket = self._open(), None
        loop = self._loop
        if loop is not None and not loop.is_closed():  # only what is there: to be told that it is not costs 60 us
            if self._reader is not None:
                loop.remove_reader(connection)
            if self._writer is not None:
                loop.remove_writer(connection)
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done():
                waiter.set_exception(_closed())
        return connection


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _closed() -> AccordError:
    return error(Reason.CLOSED, "the stream was closed on this side", "do not use it after close or abort")
