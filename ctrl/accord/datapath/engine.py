# SPDX-License-Identifier: Apache-2.0
"""The C engine, in Python's terms: batches of events out, whole messages in.

A thin, typed skin over ``accord_engine_*`` of ``dataplane_c/src/core.h``, where the behaviour is described.
Times are microseconds of one monotonic clock that the caller chooses.
"""

from __future__ import annotations

import enum
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from accord.datapath._core import ffi, lib
from accord.datapath.path import Path
from accord.wire.constants import Reason
from accord.wire.errors import error

_EVENT_BATCH = 64
_OUTPUT_BATCH = 64

STAGE_SYMBOL = "accord_stage_reached"
"""The function of the compiled module that an engine calls at each stage (``stage.h``): a place for a uprobe."""


class EventKind(enum.IntEnum):
    """``enum accord_event_kind``."""

    OPENED = 1
    NODE = 2
    SKIPPED = 3
    MESSAGE = 4
    ARRIVED = 5
    FAILED = 6
    STRANGER = 7
    RETURNED = 8
    CHALLENGED = 9


class Level(enum.IntEnum):
    """``enum accord_level``: what a proposal from an address that nothing is known of gets."""

    STATE = 0
    ANSWER = 1
    COOKIE = 2


@dataclass(frozen=True, slots=True)
class Load:
    """``struct accord_engine_load``."""

    level: Level
    since: int
    """Microseconds of the engine's clock."""
    strangers: int
    """That came in the last whole second."""
    raised: tuple[int, int, int]
    """How often each level came into force from below."""


_BEARING_PATHS = frozenset({EventKind.OPENED, EventKind.STRANGER, EventKind.RETURNED})
_KINDS = {int(kind): kind for kind in EventKind}
_SYN_FIRST: dict[int, bool | None] = {
    lib.ACCORD_SYN_UNKNOWN: None,
    lib.ACCORD_SYN_NOT_FIRST: False,
    lib.ACCORD_SYN_FIRST: True,
}


class Stage(enum.IntEnum):
    """``enum accord_stage``: what the function ``STAGE_SYMBOL`` is told."""

    OPENED = 1
    SENT = 2
    WHOLE = 3
    ACKNOWLEDGED = 4
    FAILED = 5
    CLOSED = 6


class Event(NamedTuple):
    """``struct accord_event``; which fields mean something depends on the kind."""

    handle: int
    kind: EventKind
    transaction: bytes
    step: int = 0
    node: int = 0
    protocol: int = 0
    order: int = 0
    reason: Reason = Reason.OK
    data: bytes = b""
    path: Path | None = None
    syn_first: bool | None = None
    """Of OPENED, STRANGER: the plain connection's SYN came before the proposal; None where nobody can tell."""


@dataclass(frozen=True, slots=True)
class TransactionInfo:
    """``struct accord_transaction_info``: bytes and packets of the negotiation, round-trip times in microseconds."""

    packets_sent: int
    packets_received: int
    retransmitted: int
    duplicates: int
    bytes_sent: int
    bytes_received: int
    srtt_us: int
    datagram_bytes: int
    proven: bool
    path: Path


@dataclass(frozen=True, slots=True)
class Usage:
    """``struct accord_engine_usage``: what is taken of an engine's fixed memory, and how much there is."""

    transactions: int
    transactions_limit: int
    unproven: int
    unproven_limit: int
    buffers: int
    buffers_limit: int
    events: int
    events_limit: int
    slots: int
    slots_limit: int
    bytes: int


def _check(result: int, detail: str) -> int:
    if result < 0:
        raise error(Reason(-result), detail)
    return result


def available_bytes() -> int:
    """What the kernel can give to somebody new without swapping (proc_meminfo(5), MemAvailable). More than that it
    promises as well, and then ends some process."""
    lines = pathlib.Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


class Engine:
    """One engine. All of its memory is taken here, none later (``bytes`` says how much).

    Raises ``OurError`` (``NO_MEMORY``) when it cannot be had, ``UserError`` (``BAD_CONFIG``) for limits that contradict
    each other, or ask for more than the host has.
    """

    def __init__(
        self,
        *,
        transactions: int = 0,
        unproven: int = 0,
        buffers: int = 0,
        events: int = 0,
        seed: int = 0,
        strangers_per_second: int = 0,
        slots: int = 0,
        unproven_per_network: int = 0,
        proven_per_network: int = 0,
        machine: int = 0,
        newreno: bool = False,
    ) -> None:
        """``machine``: 32 bits that no other host behind the same address has. ``newreno``: congestion control as in
        RFC 9002; else CUBIC (RFC 9438), which gives less away at a loss."""
        config = ffi.new("struct accord_engine_config *")
        config.transactions = transactions
        config.unproven = unproven
        config.buffers = buffers
        config.events = events
        config.seed = seed
        config.strangers_per_second = strangers_per_second
        config.slots = slots
        config.machine = machine
        config.unproven_per_network = unproven_per_network
        config.proven_per_network = proven_per_network
        config.congestion = lib.ACCORD_CONGESTION_NEWRENO if newreno else lib.ACCORD_CONGESTION_CUBIC
        self.bytes: int = lib.accord_engine_bytes(config)
        if not self.bytes:
            raise error(
                Reason.BAD_CONFIG,
                f"an engine for {transactions or 'the default'} transactions, {unproven or 'the default'} unproven, "
                f"{buffers or 'the default'} buffers",
                "in [limits]: unproven no more than transactions (1024 where not given), none of them over 1048576",
            )
        if self.bytes > (available := available_bytes()):
            raise error(
                Reason.BAD_CONFIG,
                f"[limits] ask for an engine of {self.bytes >> 20} MiB, and this host has {available >> 20} MiB left",
                "lower transactions, unproven, buffers or slots (docs/OPERATIONS.md, Memory)",
            )
        pointer = lib.accord_engine_new(config)
        if pointer == ffi.NULL:
            raise error(Reason.NO_MEMORY, f"an engine of {self.bytes} bytes", "lower [limits] in the configuration")
        self.pointer: Any = ffi.gc(pointer, lib.accord_engine_free)
        self._events: Any = ffi.new("struct accord_event[]", _EVENT_BATCH)

    def support(self, protocols: Iterable[int]) -> None:
        """The protocols whose nodes are stored; all others are acknowledged, counted and dropped."""
        numbers = list(protocols)
        _check(lib.accord_engine_support(self.pointer, numbers, len(numbers)), "too many protocols")

    def open(self, now: int, transaction: bytes, path: Path) -> int:
        """Begin a transaction as initiator; returns its handle. Raises ``OurError`` when the table is full."""
        return _check(lib.accord_engine_open(self.pointer, now, transaction, path.to_c()), "cannot begin a negotiation")

    def send(
        self, now: int, handle: int, step: int, nodes: Sequence[tuple[int, int, bytes]], packets_min: int = 0
    ) -> None:
        """Send one message: (node ID, protocol ID, encoded descriptor) in the order in which they should arrive."""
        array = ffi.new("struct accord_node_out[]", len(nodes))
        keep = [ffi.from_buffer("uint8_t[]", descriptor) for _, _, descriptor in nodes]
        for out, (node, protocol, descriptor), data in zip(array, nodes, keep, strict=True):
            out.node, out.protocol, out.length, out.data = node, protocol, len(descriptor), data
        result = lib.accord_engine_send(self.pointer, now, handle, step, array, len(nodes), packets_min)
        _check(result, f"cannot send step {step}")

    def prove(self, handle: int) -> None:
        """The peer receives at its address: lift the amplification limit."""
        _check(lib.accord_engine_prove(self.pointer, handle), "no such negotiation")

    def round_trip(self, handle: int, rtt_us: int) -> None:
        """The path's round-trip time as another protocol has measured it: counts until there is a sample."""
        _check(lib.accord_engine_round_trip(self.pointer, handle, rtt_us), "no such negotiation")

    def probe(self, now: int, handle: int) -> None:
        """The path to the peer has opened: what it has not acknowledged leaves again, before its timer says so."""
        _check(lib.accord_engine_probe(self.pointer, now, handle), "no such negotiation")

    def expect(self, handle: int, answer_bytes: int) -> None:
        """Before the proposal is sent: IP bytes that the answer is likely to take, as the peer's last one did."""
        _check(lib.accord_engine_expect(self.pointer, handle, answer_bytes), "no such negotiation")

    def forget_paths(self) -> None:
        """What the paths to peers carried lately is not known any more."""
        lib.accord_engine_forget_paths(self.pointer)

    def budget(self, handle: int) -> int:
        """Bytes of descriptors that the amplification limit allows to be sent now."""
        return _check(lib.accord_engine_budget(self.pointer, handle), "no such negotiation")

    def close(self, now: int, handle: int, linger_us: int = 0) -> None:
        """Forget a transaction, after answering its retransmissions for ``linger_us`` more."""
        lib.accord_engine_close(self.pointer, now, handle, linger_us)

    def info(self, handle: int) -> TransactionInfo | None:
        """Figures of a live transaction; None when it is gone."""
        info = ffi.new("struct accord_transaction_info *")
        if lib.accord_engine_info(self.pointer, handle, info) < 0:
            return None
        return TransactionInfo(
            packets_sent=info.packets_sent,
            packets_received=info.packets_received,
            retransmitted=info.retransmitted,
            duplicates=info.duplicates,
            bytes_sent=info.bytes_sent,
            bytes_received=info.bytes_received,
            srtt_us=info.srtt_us,
            datagram_bytes=info.datagram_bytes,
            proven=bool(info.proven),
            path=Path.from_c(info.path),
        )

    def input(self, now: int, path: Path, datagram: bytes) -> Reason:
        """One datagram, from the Accord header on, for whoever has no port: the simulator, tests. OK, or the reason of
        the first packet in it that was not taken."""
        data = ffi.from_buffer("uint8_t[]", datagram)
        return Reason(-lib.accord_engine_input(self.pointer, now, path.to_c(), data, len(datagram)))

    def output(self, now: int) -> list[tuple[Path, bytes]]:
        """The datagrams that are to leave, as ``input``; packets that share one are joined. Call again while it is not
        empty."""
        packets = ffi.new("struct accord_packet_out[]", _OUTPUT_BATCH)
        count = lib.accord_engine_output(self.pointer, now, packets, _OUTPUT_BATCH)
        datagrams: list[tuple[Path, bytes]] = []
        joins = False
        for packet in packets[0:count]:
            data = bytes(ffi.buffer(packet.data, packet.length))
            if joins:
                datagrams[-1] = (datagrams[-1][0], datagrams[-1][1] + data)
            else:
                datagrams.append((Path.from_c(packet.path), data))
            joins = bool(packet.joined)
        return datagrams

    def events(self) -> list[Event]:
        """All events that are waiting, in order; descriptors are copied out."""
        events: list[Event] = []
        while count := lib.accord_engine_events(self.pointer, self._events, _EVENT_BATCH):
            events.extend(self._event(self._events[index]) for index in range(count))
        return events

    @staticmethod
    def _event(event: Any) -> Event:
        kind = _KINDS[event.kind]
        first = kind in _BEARING_PATHS
        return Event(
            handle=event.handle,
            kind=kind,
            transaction=bytes(event.transaction),
            step=event.step,
            node=event.node,
            protocol=event.protocol,
            order=event.order,
            reason=Reason(event.reason) if event.reason else Reason.OK,
            data=bytes(ffi.buffer(event.data, event.length)) if event.length else b"",
            path=Path.from_c(event.path) if first else None,
            syn_first=_SYN_FIRST[event.path.syn] if first else None,
        )

    def deadline(self) -> int | None:
        """When, in microseconds, the engine next has something to do by itself; None: never."""
        deadline: int = lib.accord_engine_deadline(self.pointer)
        return None if deadline == 0xFFFF_FFFF_FFFF_FFFF else deadline

    def counters(self) -> dict[Reason, int]:
        """Events counted since the start, by reason, zeros left out."""
        counters = ffi.new("uint64_t[]", lib.ACCORD_REASON_LIMIT)
        lib.accord_engine_counters(self.pointer, counters)
        return {Reason(index): count for index, count in enumerate(counters) if count}

    @property
    def transactions(self) -> int:
        """How many there are now."""
        return int(lib.accord_engine_transactions(self.pointer))

    def cookies(self, ring: Any) -> None:
        """What cookies are made and checked with, a ``struct accord_cookie_ring *``. Without a key in it, as at first,
        strangers that find no place get silence."""
        lib.accord_engine_cookies(self.pointer, ring)

    def send_once(self, path: Path, packet: bytes) -> None:
        """Send one packet, header and checksum included, of which nothing is kept. Raises ``OurError`` when too many
        wait already."""
        _check(lib.accord_engine_send_once(self.pointer, path.to_c(), packet, len(packet)), "cannot answer a stranger")

    def challenge(self, path: Path, packet: bytes) -> bool:
        """Ask for a cookie after all, of whom STRANGER has handed up: its packet. False: that cannot be done now."""
        result: int = lib.accord_engine_challenge(self.pointer, path.to_c(), packet, len(packet))
        return result == 0

    def level(self, now: int, floor: Level) -> None:
        """From now on the level is never below this one."""
        lib.accord_engine_level(self.pointer, now, floor)

    def load(self, now: int) -> Load:
        """How it is loaded by strangers."""
        load = ffi.new("struct accord_engine_load *")
        lib.accord_engine_load(self.pointer, now, load)
        return Load(Level(load.level), load.since, load.strangers, tuple(load.raised))

    def usage(self) -> Usage:
        """How full it is."""
        usage = ffi.new("struct accord_engine_usage *")
        lib.accord_engine_usage(self.pointer, usage)
        return Usage(*(getattr(usage, name) for name in Usage.__slots__))
