# SPDX-License-Identifier: Apache-2.0
"""One end of a negotiation without a negotiation: a port and an engine on a host, pumped by the test."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from scapy.utils import checksum

from accord.datapath import clock
from accord.datapath.engine import Engine, Event, EventKind
from accord.datapath.path import Path
from accord.datapath.port import Port, Rung
from tests.datapath.heart import hold
from tests.datapath.netns import Host

CONTEXT = 17
UPPER = 6
PORT = 443
PATIENCE = 10.0  # seconds, before a test that waits for packets gives up

_ids = itertools.count(1)


def transaction_id() -> bytes:
    """One that no other test uses."""
    return struct.pack("!III", 0x11111111, 0x22222222, next(_ids))


def message(payload: bytes) -> list[tuple[int, int, bytes]]:
    """Two nodes, the upper one with this payload; descriptors written down by hand."""
    return [(0, CONTEXT, b"\x01\x00\x00\x00\x01"), (1, UPPER, b"\x00\x00\x00\x00" + payload)]


def packet(transaction: bytes, payload: bytes = b"") -> bytes:
    """A proposal in one packet, written down by hand: header, two chunks, the checksum by scapy."""
    chunks = b"".join(
        struct.pack("!BBHI", node, 3, len(data), protocol) + data for node, protocol, data in message(payload)
    )

    def header(total: int) -> bytes:
        return struct.pack("!BBH4s12s4sIHH", 4, 0, 0x0001 | 0x0004, b"ACRD", transaction, transaction[:4], 0, 0, total)

    return header(checksum(header(0) + chunks)) + chunks


@dataclass
class Side:
    """Opened on the rung alone when only ``first`` is given. To its XDP program it lives until ``port.quiet``."""

    host: Host
    first: Rung
    last: Rung | None = None
    any_port: bool = False
    frames: int = 0
    busy_poll_us: int = 0
    events: list[Event] = field(default_factory=list)
    errors: list[Path] = field(default_factory=list)
    held: int = 0
    """The ID of the XDP program to which this side lives."""

    def __post_init__(self) -> None:
        self.engine = Engine()
        self.engine.support([CONTEXT, UPPER])
        last = self.first if self.last is None else self.last
        self.port = self.host.run(
            lambda: Port.open(
                self.host.interface,
                self.first,
                last,
                self.any_port,
                frames=self.frames,
                busy_poll_us=self.busy_poll_us,
            )
        )
        self.hold()

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.port.close()

    def bind(self, family: int, port: int = PORT, address: str | None = None) -> int:
        """Register a new socket; returns its index. The socket lives as long as this side."""
        sock = self.host.udp(family, port, address)
        self.sockets = [*getattr(self, "sockets", []), sock]
        return self.port.add_socket(sock)

    def pump(self) -> int:
        """One poll and its events; true when anything moved."""
        moved = self.port.poll(self.engine, clock.now_us())
        events = self.engine.events()
        self.events += events
        self.errors += self.port.errors()
        return moved + len(events)

    def hold(self) -> None:
        """An XDP program takes the last heartbeat for good."""
        self.held = self.port.report.program_id
        if self.held:
            hold(self.held)

    def beat(self) -> None:
        """A heartbeat from inside the namespace, which an XDP program takes for good until the next."""
        self.host.run(self.port.heartbeat)
        self.hold()

    def keep_alive(self) -> None:
        """A heartbeat where none is held: without a program it looks for addresses, with a new one it lives."""
        if not self.held or self.held != self.port.report.program_id:
            self.beat()

    def propose(self, path: Path, payload: bytes = b"hello") -> int:
        """Begin a transaction; returns its handle."""
        handle = self.engine.open(clock.now_us(), transaction_id(), path)
        self.engine.send(clock.now_us(), handle, 0, message(payload))
        return handle

    def answer(self, event: Event, payload: bytes = b"and to you") -> None:
        """Answer the transaction of an event."""
        self.engine.prove(event.handle)
        self.engine.send(clock.now_us(), event.handle, 1, message(payload))

    def of(self, kind: EventKind) -> list[Event]:
        """The events of one kind so far."""
        return [event for event in self.events if event.kind is kind]

    def payloads(self) -> list[bytes]:
        """The payloads of the upper nodes that came so far."""
        return [event.data[4:] for event in self.of(EventKind.NODE) if event.node == 1]


def until(condition: Callable[[], object], sides: Sequence[Side]) -> None:
    """Pump the sides, alive, until the condition holds."""
    give_up = time.monotonic() + PATIENCE
    next_beat = 0.0
    while not condition():
        now = time.monotonic()
        assert now < give_up, [(side.port.counters(), side.engine.counters(), side.events) for side in sides]
        if now >= next_beat:
            for side in sides:
                side.keep_alive()
            next_beat = now + 0.1
        if not sum(side.pump() for side in sides):
            time.sleep(0.001)
