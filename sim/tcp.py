# SPDX-License-Identifier: Apache-2.0
"""One end of a simulated kernel TCP connection (RFC 9293 without windows, congestion and urgency).

Sequence numbers are real ones, because the negotiation agrees on them: two ends that were installed with different
numbers do not understand each other. Data is repeated until it is acknowledged; a segment that nobody has a connection
for is answered with a reset.
"""

from __future__ import annotations

import asyncio
import enum
import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sim.kernel import Kernel

Address = tuple[str, int]

_MASK: Final = 0xFFFFFFFF
_WINDOW: Final = 1 << 20
_FIRST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 8.0
_REPETITIONS: Final = 7
"""About forty seconds."""
_ORPHAN_SECONDS: Final = 3.0
"""How long a closed socket's connection waits for the peer's FIN (tcp_fin_timeout)."""


class Kind(enum.Enum):
    """What a segment is, as far as anybody here asks."""

    SYN = "SYN"
    SYN_ACK = "SYN-ACK"
    DATA = "data"
    ACK = "ack"
    FIN = "FIN"
    RST = "RST"


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment. ``option``: ExID and transaction ID, of a SYN or SYN-ACK that bears ours."""

    kind: Kind
    source: Address
    destination: Address
    seq: int
    ack: int
    data: bytes = b""
    option: tuple[int, bytes] | None = None


class Phase(enum.Enum):
    """Of RFC 9293's states, those that matter here."""

    SYN_SENT = "SYN-SENT"
    SYN_RECEIVED = "SYN-RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    GONE = "CLOSED"


@dataclass(slots=True, eq=False)
class Connection:
    """One end. ``changed`` is called when somebody may read or write, or when it is gone."""

    kernel: Kernel
    local: Address
    remote: Address
    phase: Phase
    isn: int
    peer_isn: int = 0
    option: tuple[int, bytes] | None = None
    """Of the SYN: what it asks for; on the accepting side what it bore when it came."""
    marked: bool = False
    changed: Callable[[], None] = lambda: None
    incoming: bytearray = field(default_factory=bytearray)
    ended: bool = False
    """The peer's FIN, or a reset, came."""
    error: int = 0
    syns: int = 0
    repeated: int = 0
    received: int = 0
    acknowledged: int = 0
    tentative: bool = False
    """Installed, and nobody's stream yet."""
    _unacked: list[tuple[int, bytes, bool]] = field(default_factory=list)
    _early: dict[int, tuple[bytes, bool]] = field(default_factory=dict)
    _sent: int = 0
    _finished: bool = False
    _orphan: bool = False
    _timer: asyncio.TimerHandle | None = None
    _tries: int = 0

    # ---- the socket's side ----

    def send(self, data: bytes) -> None:
        """Send, and repeat until it is acknowledged. Raises ``OSError``."""
        if self.error:
            raise OSError(self.error, "simulated")
        if self.phase is not Phase.ESTABLISHED or self._finished:
            raise BrokenPipeError(errno.EPIPE, "simulated")
        self._queue(data, fin=False)

    def finish(self) -> None:
        """FIN behind what was sent."""
        if self.phase is Phase.ESTABLISHED and not self._finished:
            self._finished = True
            self._queue(b"", fin=True)

    def abandon(self, *, reset: bool) -> None:
        """The socket is closed: reset it, or let the kernel deliver what was sent, and FIN."""
        self.changed = lambda: None
        if self.phase is Phase.GONE:
            return
        if self.phase is not Phase.ESTABLISHED:
            self.forget()
        elif reset or self.incoming:
            self._emit(Kind.RST)
            self.forget()
        else:
            self._orphan = True
            self.finish()
            self._end_orphan()

    def forget(self) -> None:
        """Without a segment."""
        self.phase = Phase.GONE
        self._stop()
        self.kernel.drop(self)

    def connect(self) -> None:
        """The first SYN, and its repetitions."""
        self.syns += 1
        option = self.option if self.syns == 1 else None
        self.kernel.transmit(Segment(Kind.SYN, self.local, self.remote, self.isn, 0, option=option))
        self._again(self.connect)

    def answer(self, option: tuple[int, bytes] | None) -> None:
        """The SYN-ACK, and its repetitions; ``option``: the mark."""
        self.kernel.transmit(
            Segment(Kind.SYN_ACK, self.local, self.remote, self.isn, self.peer_isn + 1 & _MASK, option=option)
        )
        self._again(lambda: self.answer(None))

    # ---- the network's side ----

    def arrive(self, segment: Segment) -> None:
        """A segment of this connection's four-tuple."""
        if segment.kind is Kind.RST:
            self._reset()
        elif segment.kind is Kind.SYN_ACK:
            self._connected(segment)
        elif segment.kind is Kind.SYN:
            if self.phase is Phase.SYN_RECEIVED:
                self._stop()
                self.answer(None)
        elif self.phase is Phase.SYN_SENT:
            self.kernel.refuse(segment)
        elif not self._ours(segment):
            self.kernel.misunderstood += 1
        else:
            self._take(segment)

    def _ours(self, segment: Segment) -> bool:
        ahead = segment.seq - self.peer_isn - 1 & _MASK
        return ahead < _WINDOW and (segment.ack - self.isn - 1 & _MASK) <= self._sent

    def _connected(self, segment: Segment) -> None:
        if self.phase is Phase.SYN_SENT and segment.ack == self.isn + 1 & _MASK:
            self.phase = Phase.ESTABLISHED
            self.peer_isn = segment.seq
            self.marked = segment.option is not None and segment.option == self.option
            self._stop()
            self._emit(Kind.ACK)
            self.changed()
        elif self.phase is Phase.ESTABLISHED:
            self._emit(Kind.ACK)

    def _take(self, segment: Segment) -> None:
        if self.phase is Phase.SYN_RECEIVED:
            self.phase = Phase.ESTABLISHED
            self._stop()
            self.kernel.accepted(self)
        self._acknowledge(segment.ack - self.isn - 1 & _MASK)
        if segment.kind in (Kind.DATA, Kind.FIN):
            at = segment.seq - self.peer_isn - 1 & _MASK
            self._early[at] = (segment.data, segment.kind is Kind.FIN)
            self._in_order()
            if self.phase is Phase.ESTABLISHED:
                self._emit(Kind.ACK)
                if self._orphan and segment.data:  # nobody is left to read it
                    self._emit(Kind.RST)
                    self.forget()
                    return
        self._end_orphan()
        self.changed()

    def _in_order(self) -> None:
        while self.received in self._early:
            data, fin = self._early.pop(self.received)
            self.incoming += data
            self.received += len(data) + fin
            self.ended = self.ended or fin

    def _acknowledge(self, up_to: int) -> None:
        before = len(self._unacked)
        self._unacked = [item for item in self._unacked if item[0] + len(item[1]) + item[2] > up_to]
        self.acknowledged = max(self.acknowledged, up_to)
        if len(self._unacked) != before:
            self._stop()
            if self._unacked:
                self._again(self._repeat)

    def _reset(self) -> None:
        self.error = errno.ECONNREFUSED if self.phase is Phase.SYN_SENT else errno.ECONNRESET
        self.ended = True
        changed = self.changed
        self.forget()
        changed()

    # ---- sending ----

    def _queue(self, data: bytes, *, fin: bool) -> None:
        item = (self._sent, data, fin)
        self._unacked.append(item)
        self._sent += len(data) + fin
        self._transmit(item)
        if self._timer is None:
            self._again(self._repeat)

    def _repeat(self) -> None:
        self.repeated += 1
        for item in list(self._unacked):
            self._transmit(item)
        self._again(self._repeat)

    def _transmit(self, item: tuple[int, bytes, bool]) -> None:
        at, data, fin = item
        seq = self.isn + 1 + at & _MASK
        kind = Kind.FIN if fin else Kind.DATA
        self.kernel.transmit(Segment(kind, self.local, self.remote, seq, self._next(), data))

    def _emit(self, kind: Kind) -> None:
        seq = self.isn + 1 + self._sent & _MASK
        self.kernel.transmit(Segment(kind, self.local, self.remote, seq, self._next()))

    def _next(self) -> int:
        return self.peer_isn + 1 + self.received & _MASK

    def _again(self, what: Callable[[], None]) -> None:
        self._tries += 1
        if self._tries > _REPETITIONS:
            self.error, self.ended = errno.ETIMEDOUT, True
            changed = self.changed
            self.forget()
            changed()
            return
        seconds = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2 ** (self._tries - 1))
        self._timer = self.kernel.loop.later(seconds, what)

    def _stop(self) -> None:
        self._tries = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_orphan(self) -> None:
        if self._orphan and not self._unacked and self.phase is Phase.ESTABLISHED:
            if self.ended:
                self.forget()
            else:
                self.kernel.loop.later(_ORPHAN_SECONDS, self.forget)
