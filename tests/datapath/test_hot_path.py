# SPDX-License-Identifier: Apache-2.0
"""What stays in C: packets that tell Python nothing raise no event, and a crossing moves a batch.

A port on loopback sockets, and packets that scapy made; every call across the boundary is counted.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accord.datapath import engine as engine_module
from accord.datapath import port as port_module
from accord.datapath.engine import Engine, EventKind
from accord.datapath.port import Port
from accord.scapy_layer import Accord, packets
from accord.wire.constants import Limit, Reason

UPPER, UNKNOWN = 6, 0x7E00_0001
TRANSACTION = struct.pack("!III", 1000, 2000, 3000)
SHORT = [(0, 17, b"\x01\x00\x00\x00\x01"), (1, UPPER, bytes(4) + b"hello")]


class Crossings:
    """``_core.lib`` with every call counted by name."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib
        self.counted: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._lib, name)
        if not callable(value):
            return value

        def call(*arguments: Any) -> Any:
            self.counted[name] += 1
            return value(*arguments)

        return call

    def take(self) -> Counter[str]:
        """The calls since it was last asked."""
        counted, self.counted = self.counted, Counter()
        return counted


class Responder:
    """A port on the loopback interface with an engine, and a peer's socket."""

    def __init__(self) -> None:
        self.engine = Engine(transactions=256, unproven=256, events=4096)
        self.engine.support([UPPER])
        self.port = Port.open()
        self.ours, self.theirs = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for sock in (self.ours, self.theirs):
            sock.bind(("127.0.0.1", 0))
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.port.add_socket(self.ours)
        self.now = 1_000_000

    def send(self, datagrams: list[bytes]) -> None:
        """From the peer."""
        for datagram in datagrams:
            self.theirs.sendto(datagram, self.ours.getsockname())

    def poll(self) -> int:
        """One crossing."""
        return self.port.poll(self.engine, self.now)

    def answers(self) -> list[Any]:
        """What the peer got, as scapy reads it."""
        got = []
        while True:
            try:
                got.append(Accord(self.theirs.recv(9000)))
            except BlockingIOError:
                return got

    def open(self) -> None:
        """One whole proposal in, its events taken."""
        self.send([bytes(packet) for packet in packets(TRANSACTION, 0, SHORT)])
        self.poll()
        assert [event.kind for event in self.engine.events()][-1] is EventKind.MESSAGE


@pytest.fixture
def responder() -> Iterator[Responder]:
    """Nothing has come yet."""
    made = Responder()
    yield made
    made.port.close()
    for sock in (made.ours, made.theirs):
        sock.close()


@pytest.fixture
def crossings(monkeypatch: pytest.MonkeyPatch) -> Crossings:
    """From now on calls are counted."""
    counting = Crossings(engine_module.lib)
    monkeypatch.setattr(engine_module, "lib", counting)
    monkeypatch.setattr(port_module, "lib", counting)
    return counting


def duplicates() -> list[bytes]:
    """The proposal once more."""
    return [bytes(packet) for packet in packets(TRANSACTION, 0, SHORT)]


def beyond_the_window() -> list[bytes]:
    """TSNs that no message can reach, on both sides of those that it can."""
    first = int.from_bytes(TRANSACTION[:4])
    return [
        bytes(packets(TRANSACTION, 0, SHORT, tsn=(first + offset) % 2**32)[0])
        for offset in (Limit.MAX_PACKETS, 5000, 2**31, 2**32 - 1)
    ]


def unknown_transactions() -> list[bytes]:
    """Commits and answers of negotiations that this host has no part in."""
    return [bytes(packets(bytes(11) + bytes([n]), step, SHORT)[0]) for n in range(8) for step in (1, 2)]


def damaged() -> list[bytes]:
    """A packet of the live transaction, with a bit of its checksum turned."""
    good = bytearray(packets(TRANSACTION, 2, SHORT)[0].build())
    good[30] ^= 1
    return [bytes(good)]


CASES: dict[str, tuple[Callable[[], list[bytes]], Reason]] = {
    "duplicates": (duplicates, Reason.DUPLICATE),
    "packets beyond the window": (beyond_the_window, Reason.BAD_TSN),
    "packets of unknown transactions": (unknown_transactions, Reason.UNKNOWN_TRANSACTION),
    "damaged packets": (damaged, Reason.BAD_CHECKSUM),
}


@pytest.mark.parametrize("case", CASES)
def test_packets_without_news_raise_no_event(responder: Responder, case: str) -> None:
    responder.open()
    made, reason = CASES[case]
    sent = made()
    responder.send(sent * 5)
    while responder.poll():
        pass
    assert responder.engine.events() == []
    assert responder.engine.counters()[reason] == 5 * len(sent)


def test_duplicates_are_acknowledged_without_python(responder: Responder) -> None:
    responder.open()
    responder.answers()
    responder.send(duplicates())
    responder.poll()
    (acknowledgement,) = responder.answers()
    assert (acknowledgement.ack_tsn, acknowledgement.ack_count) == (1000, 1)
    assert acknowledgement.chunks == []


def test_bare_acknowledgements_raise_one_event_when_the_message_has_arrived_and_none_before_or_after(
    responder: Responder,
) -> None:
    responder.send(duplicates())
    responder.poll()
    handle = responder.engine.events()[0].handle
    long = [(0, 17, b"\x01\x00\x00\x00\x01"), (1, UPPER, bytes(4) + bytes(3000))]
    responder.engine.prove(handle)
    responder.engine.send(responder.now, handle, 1, long)
    responder.poll()
    answer = responder.answers()
    assert len(answer) == 3
    kinds = []
    for count in (1, 2, 2, 3, 3):
        acknowledgement = Accord(
            step=0, flags="I+A", transaction=TRANSACTION, tsn=1001, ack_tsn=answer[0].tsn, ack_count=count
        )
        responder.send([bytes(acknowledgement)])
        responder.poll()
        kinds.append([event.kind for event in responder.engine.events()])
    assert kinds == [[], [], [], [EventKind.ARRIVED], []]


def test_a_node_without_support_is_told_once_and_its_chunks_never(responder: Responder) -> None:
    sent = [bytes(p) for p in packets(TRANSACTION, 0, [*SHORT, (2, UNKNOWN, bytes(4) + bytes(9000))])]
    assert len(sent) > 7
    responder.send(sent)
    responder.poll()
    told = responder.engine.events()
    skipped = [event for event in told if event.kind is EventKind.SKIPPED]
    assert [(event.node, event.protocol, event.data) for event in skipped] == [(2, UNKNOWN, b"")]
    assert [event.node for event in told if event.kind is EventKind.NODE] == [0, 1]
    assert responder.engine.counters()[Reason.UNSUPPORTED] == len(sent), "each chunk was counted, none stored"


def test_one_crossing_receives_and_acknowledges_a_batch(responder: Responder, crossings: Crossings) -> None:
    sent = [bytes(packets(bytes(11) + bytes([n]), 0, SHORT)[0]) for n in range(60)]
    responder.send(sent)
    assert responder.poll() == 60
    assert crossings.take() == {"accord_port_poll": 1}
    events = responder.engine.events()
    assert len(events) == 60 * 4, "OPENED, two nodes, MESSAGE"
    # 64 events to a call, and one that finds there are no more.
    assert crossings.take() == {"accord_engine_events": -(-len(events) // 64) + 1}
    responder.now += 30_000  # the acknowledgements, which waited for answers to ride on
    assert responder.poll() == 60
    assert crossings.take() == {"accord_port_poll": 1}
    assert len(responder.answers()) == 60


def test_a_flood_of_packets_without_news_costs_python_the_same_calls_as_silence(
    responder: Responder, crossings: Crossings
) -> None:
    responder.open()

    def round_trip() -> Counter[str]:
        crossings.take()
        responder.poll()
        assert responder.engine.events() == []
        assert responder.port.datagrams() == []
        assert responder.port.errors() == []
        return crossings.take()

    silence = round_trip()
    responder.send((duplicates() + beyond_the_window() + unknown_transactions() + damaged()) * 2)
    assert round_trip() == silence
