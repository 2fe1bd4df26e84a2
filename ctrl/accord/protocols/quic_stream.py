# SPDX-License-Identifier: Apache-2.0
"""A QUIC connection in-band after commit, and its stream 0 as a byte stream for asyncio.

The initiator opens stream 0 with a MAX_STREAM_DATA frame in the commit, so that the responder may speak first
(RFC 9000 section 3.2: that frame creates the stream).

Back pressure. Sending: ``write`` waits while too much is buffered that has not left yet. Receiving: aioquic raises the
flow control limits by itself, whether anybody reads or not; so while the reader is behind, datagrams are kept aside and
then dropped, as by a full socket buffer, and the peer's congestion control slows down. Our acknowledgements rest too
for as long: a side that writes and never reads its own input will stall, which a stream with credit would not.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamDataReceived, StreamReset
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.stream import QuicStream

from accord.protocols.quic_connection import Address, forget, take_events
from accord.protocols.services import DatagramService, Services
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

STREAM: Final = 0

_READ_HIGH: Final = 1 << 20
_KEPT_DATAGRAMS: Final = 256
_WRITE_HIGH: Final = 256 << 10
_PIECE: Final = 64 << 10
_TICK_SECONDS: Final = 50e-6
"""The least that a timer is set for: by a rounding error of the clock pacing is due again and again in no time."""
_CLOSE_SECONDS: Final = 5.0
# Below the 30 s after which address translators may forget a UDP flow, and so often that a peer that lives is heard
# before the idle time-out even when a probe and its repetition are lost.
_KEEP_ALIVE_SECONDS: Final = 20.0
_PROBES_PER_IDLE: Final = 3


def open_stream(connection: QuicConnection) -> None:
    """Initiator, once the handshake is complete: create stream 0, and let the next packet tell the peer."""
    connection.send_stream_data(STREAM, b"")
    stream = _stream(connection)
    if stream is not None:
        stream.max_stream_data_local *= 2


def _stream(connection: QuicConnection) -> QuicStream | None:
    # aioquic's public interface never says what of a stream is still to be sent.
    return connection._streams.get(STREAM)


class QuicCarrier:
    """Stream 0 of a connection that is complete; moves the connection's datagrams from now on."""

    def __init__(
        self, connection: QuicConnection, services: Services, datagrams: DatagramService, peer: Address
    ) -> None:
        self._quic = connection
        self._services = services
        self._datagrams = datagrams
        self._peer = peer
        self._arrived = bytearray()
        self._kept: deque[bytes] = deque()
        self._ended = False
        self._failure: AccordError | None = None
        self._given = 0
        self._finished = False
        self._closed = False
        self._forgotten = False
        """The connection is, and not to be used."""
        self._changed = asyncio.Event()
        self._cancel_timer: Callable[[], None] | None = None
        self._cancel_ping: Callable[[], None] | None = None

    def start(self, events: list[QuicEvent]) -> None:
        """Take the context's datagrams over. ``events``: what the handshake's datagrams brought already."""
        self._handle(events)
        self._datagrams.receive(self._receive, self.abort)
        self._cancel_ping = self._services.call_later(self._probe_seconds, self._keep_alive)
        self._pump()

    @property
    def _probe_seconds(self) -> float:
        return min(_KEEP_ALIVE_SECONDS, self._quic.configuration.idle_timeout / _PROBES_PER_IDLE)

    @property
    def kernel_socket(self) -> socket.socket | None:
        """None: the kernel does not know of streams."""
        return None

    async def read(self, limit: int = 65536) -> bytes:
        """Up to ``limit`` bytes, at least one; empty after the peer's FIN.

        Raises ``PeerError`` (``STREAM_BROKEN``) when the connection ends before that.
        """
        if limit < 1:
            raise ValueError("limit is less than 1")
        while not self._arrived and not self._ended:
            if self._failure is not None:
                raise self._failure
            await self._wait()
        piece = bytes(self._arrived[:limit])
        del self._arrived[:limit]
        if self._kept and len(self._arrived) < _READ_HIGH:
            self._resume()
        return piece

    async def write(self, data: bytes) -> None:
        """Send all of ``data``; waits while more than 256 KiB have not left yet."""
        if self._finished:
            raise error(Reason.CLOSED, "QUIC: write after finish or close")
        rest = memoryview(data)
        while rest:
            if self._failure is not None:
                raise self._failure
            if _stream(self._quic) is None or self._unsent() >= _WRITE_HIGH:
                await self._wait()
                continue
            self._give(bytes(rest[:_PIECE]))
            rest = rest[_PIECE:]

    async def finish(self) -> None:
        """Send FIN behind what was written."""
        if self._finished:
            return
        self._finished = True
        while self._failure is None and _stream(self._quic) is None:
            await self._wait()
        if self._failure is None:
            self._give(b"", end=True)

    async def close(self) -> None:
        """FIN, then CONNECTION_CLOSE once the peer has acknowledged it all, or does not for 5 s."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.finish()
                while self._failure is None and not self._delivered():
                    # Nobody reads any more: what was kept aside may hold the acknowledgement.
                    self._arrived.clear()
                    self._resume()
                    if self._failure is None and not self._delivered():
                        await self._wait()
        self._end(QuicErrorCode.NO_ERROR)

    def abort(self) -> None:
        """CONNECTION_CLOSE at once."""
        self._finished = self._closed = True
        self._end(QuicErrorCode.INTERNAL_ERROR)

    # ---- The connection ---------------------------------------------------------------------------------------------

    def _receive(self, datagram: bytes) -> None:
        if len(self._arrived) >= _READ_HIGH and not self._closed:
            if len(self._kept) < _KEPT_DATAGRAMS:
                self._kept.append(datagram)
            return
        self._input(datagram)
        self._pump()

    def _resume(self) -> None:
        while self._kept and len(self._arrived) < _READ_HIGH:
            self._input(self._kept.popleft())
        self._pump()

    def _input(self, datagram: bytes) -> None:
        try:
            self._quic.receive_datagram(datagram, self._peer, self._services.now())
        except Exception as failure:  # aioquic stumbled over a peer's packet: this connection's end, nobody else's
            self._failure = error(Reason.STREAM_BROKEN, f"QUIC: {type(failure).__name__}: {failure}")
        self._handle(take_events(self._quic))

    def _pump(self, now: float | None = None) -> None:
        """Send what there is to send, set the timer anew, wake whoever waits for room. ``now``: of a timer, when it was
        due, which a clock of whole microseconds may never show."""
        if now is None:
            now = self._services.now()
        self._transmit(now)
        self._handle(take_events(self._quic))
        self._cancel(timer=True)
        due = self._quic.get_timer()
        if due is not None and self._failure is None:
            self._cancel_timer = self._services.call_later(max(_TICK_SECONDS, due - now), self._time)
        self._changed.set()

    def _transmit(self, now: float) -> None:
        for datagram, _ in self._quic.datagrams_to_send(now):
            # What the kernel does not take is as good as lost on the way.
            with contextlib.suppress(OSError):
                self._datagrams.send(datagram)

    def _cancel(self, timer: bool = False, ping: bool = False) -> None:
        if timer and self._cancel_timer is not None:
            self._cancel_timer()
            self._cancel_timer = None
        if ping and self._cancel_ping is not None:
            self._cancel_ping()
            self._cancel_ping = None

    def _keep_alive(self) -> None:
        if self._failure is None:
            self._cancel_ping = self._services.call_later(self._probe_seconds, self._keep_alive)
            self._quic.send_ping(0)
            self._pump()

    def _time(self) -> None:
        self._cancel_timer = None
        now = self._services.now()
        due = self._quic.get_timer()
        # A loop's clock may wake a little early.
        if due is not None:
            now = max(now, due)
        self._quic.handle_timer(now)
        self._pump(now)

    def _handle(self, events: list[QuicEvent]) -> None:
        for event in events:
            if isinstance(event, StreamDataReceived) and event.stream_id == STREAM:
                self._arrived += event.data
                self._ended = self._ended or event.end_stream
            elif isinstance(event, StreamReset) and event.stream_id == STREAM:
                self._failure = error(Reason.STREAM_BROKEN, f"QUIC: stream reset by the peer ({event.error_code:#x})")
            elif isinstance(event, ConnectionTerminated):
                text = event.reason_phrase or "connection closed by the peer"
                self._failure = error(Reason.STREAM_BROKEN, f"QUIC: {text} (error {event.error_code:#x})")
        self._changed.set()

    def _end(self, code: QuicErrorCode) -> None:
        """Only the first one says good-bye."""
        if self._forgotten:
            return
        self._forgotten = True
        self._quic.close(error_code=int(code))
        self._transmit(self._services.now())
        self._datagrams.receive(None)
        self._cancel(timer=True, ping=True)
        self._kept.clear()
        if self._failure is None:
            self._failure = error(Reason.CLOSED, "QUIC: the connection was closed by this side")
        forget(self._quic)
        self._changed.set()

    # ---- Stream 0 ---------------------------------------------------------------------------------------------------

    def _give(self, data: bytes, end: bool = False) -> None:
        self._quic.send_stream_data(STREAM, data, end_stream=end)
        self._given += len(data)
        self._pump()

    def _unsent(self) -> int:
        stream = _stream(self._quic)
        return self._given - stream.sender.highest_offset if stream is not None else 0

    def _delivered(self) -> bool:
        """Everything and the FIN acknowledged; aioquic forgets a stream when both directions are."""
        stream = _stream(self._quic)
        return stream is None or stream.sender.is_finished

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
