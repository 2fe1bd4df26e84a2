# SPDX-License-Identifier: Apache-2.0
"""The engine sends what the pseudocode of RFC 9002 sends, and at the same moments, whatever is lost."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scapy.utils import checksum

from accord.datapath._core import ffi, lib
from accord.datapath.engine import Engine
from accord.datapath.path import Path
from accord.wire.constants import Protocol
from tests.wire.rfc9002 import Sender

HERE = Path(4, Protocol.UDP, "127.0.0.1", 4000, "127.0.0.2", 5000)
ID = bytes(range(1, 13))
OURS, THEIRS = (int.from_bytes(ID[at : at + 4], "big") for at in (0, 4))
CONTEXT = bytes(4)
CHUNK_BYTES = 1200 - 32 - 8


def packet(step: int, flags: int, tsn: int, acked: tuple[int, int], chunks: bytes = b"") -> bytes:
    """Of the responder; ``acked``: first TSN offset and count."""
    head = struct.pack("!BBHI12s", 4, step, flags | 2, 0x41435244, ID)
    head += struct.pack("!IIH", (THEIRS + tsn) & 0xFFFFFFFF, (OURS + acked[0]) & 0xFFFFFFFF, acked[1])
    sealed: bytes = head + struct.pack("!H", checksum(head + bytes(2) + chunks)) + chunks
    return sealed


class Race:
    """The engine and the oracle beside each other, over a link with a fixed delay: every packet of a long message."""

    def __init__(self, packets: int, rtt: int) -> None:
        self.rtt = rtt
        self.now = 1_000_000
        self.engine = Engine(transactions=1, buffers=600, events=512, newreno=True)
        self.engine.support([17, 6])
        self.handle = self.engine.open(self.now, ID, HERE)
        self.oracle = Sender()
        self.first = 0
        self.engine.send(self.now, self.handle, 0, [(0, 17, CONTEXT)])
        self.sent: dict[int, list[int]] = {}
        self._transmit()
        # The proposal and its answer, so that the round trip is known and nothing else is under way.
        self.now += rtt
        answer = struct.pack("!BBHI", 0, 3, len(CONTEXT), 17) + CONTEXT
        self.input(packet(1, 4, 0, (0, 1), answer))
        self.oracle.on_ack_received([0], self.now, limited=False)
        self.first = 1
        body = CONTEXT + bytes(CHUNK_BYTES * (packets - 1) + 84)
        self.packets = packets
        self.engine.send(self.now, self.handle, 2, [(0, 17, CONTEXT), (1, 6, body)])
        self.known: set[int] = {0}
        self._transmit()

    def input(self, data: bytes) -> None:
        result = lib.accord_engine_input(self.engine.pointer, self.now, HERE.to_c(), data, len(data))
        assert result == 0
        self.engine.events()

    def info(self) -> Any:
        info = ffi.new("struct accord_transaction_info *")
        assert lib.accord_engine_info(self.engine.pointer, self.handle, info) == 0
        return info

    def _transmit(self) -> list[int]:
        """What the engine sends now: numbers of transmissions. The oracle is told."""
        out = ffi.new("struct accord_packet_out[]", 256)
        numbers = []
        for index in range(lib.accord_engine_output(self.engine.pointer, self.now, out, 256)):
            data = bytes(ffi.buffer(out[index].data, out[index].length))
            if len(data) == 32:
                continue
            offset = (int.from_bytes(data[20:24], "big") - OURS) & 0xFFFFFFFF
            numbers.append(self.oracle.next_number)
            self.sent.setdefault(offset, []).append(self.oracle.next_number)
            self.oracle.on_packet_sent(offset, self.now)
        return numbers

    def agree(self) -> None:
        info, oracle = self.info(), self.oracle
        assert (info.srtt_us, info.rttvar_us, info.rto_us) == (oracle.smoothed_rtt, oracle.rttvar, oracle.pto())
        assert info.in_flight == oracle.bytes_in_flight
        assert (info.window, min(info.threshold, 1 << 20)) == (oracle.congestion_window, min(oracle.ssthresh, 1 << 20))

    @property
    def left(self) -> int:
        """Packets that have not been sent yet."""
        return self.packets + self.first - len(self.sent)

    def waits(self) -> bool:
        """Is there something that only window or pace keep back?"""
        return self.left > 0 or bool(self.oracle.lost)

    def acknowledge(self, first: int, count: int) -> None:
        """The peer says so now."""
        numbers = [self.sent[offset][-1] for offset in range(first, first + count) if offset not in self.known]
        self.known |= set(range(first, first + count))
        limited = self.oracle.bytes_in_flight >= self.oracle.congestion_window or self.waits()
        present = [number for number in numbers if number in self.oracle.sent_packets]
        self.input(packet(1, 0, 1, (first, count)))
        if numbers and len(present) < len(numbers):
            # Acknowledged after it was declared lost: it goes, and that is all.
            gone = set(numbers) - set(present)
            self.oracle.lost = [sent for sent in self.oracle.lost if sent.number not in gone]
        if present:
            self.oracle.on_ack_received(present, self.now, limited)
        self.oracle.on_ack_ended(first + count)

    def run(self, fates: list[bool], batch: int, acks: list[bool]) -> None:
        """Until all is acknowledged. Transmission i arrives if fates[i % n]; the peer acknowledges every so many
        arrivals, and at once what is out of order, and its i-th acknowledgement arrives if acks[i % m]."""
        under_way: list[tuple[int, tuple[int, int]]] = []
        arrived: set[int] = {0}
        counts = [0, 0, 0]

        def travel(numbers: list[int]) -> None:
            for number in numbers:
                counts[0] += 1
                if not fates[(counts[0] - 1) % len(fates)]:
                    continue
                offset = next(offset for offset, all_ in self.sent.items() if number in all_)
                new = offset not in arrived
                arrived.add(offset)
                counts[1] += 1
                in_order = offset == max(arrived) and len(arrived) == max(arrived) + 1
                if new and in_order and counts[1] % batch and offset != self.packets:
                    continue
                low = high = offset
                while low - 1 in arrived:
                    low -= 1
                while high + 1 in arrived:
                    high += 1
                counts[2] += 1
                if acks[(counts[2] - 1) % len(acks)]:
                    under_way.append((self.now + self.rtt, (low, high - low + 1)))

        travel(list(range(1, self.oracle.next_number)))
        self.agree()
        while len(self.known) <= self.packets:
            deadline = lib.accord_engine_deadline(self.engine.pointer)
            expected = self.oracle.timeout_at()
            soonest = min([at for at, _ in under_way] + [deadline])
            assert soonest > self.now
            if max(soonest, expected or 0) > 10_900_000:
                return  # the transaction's lifetime is near
            if not self.waits():
                # Nothing waits for the pace: the engine wakes when the loss detection timer says so.
                assert deadline == expected
            self.now = soonest
            for at, (low, count) in sorted(under_way):
                if at <= self.now:
                    self.acknowledge(low, count)
            under_way = [each for each in under_way if each[0] > self.now]
            if (due := self.oracle.timeout_at()) is not None and due <= self.now:
                missing = self.oracle.missing
                wanted = self.oracle.on_timeout(self.now)
                numbers = self._transmit()
                assert len(numbers) >= min(wanted, len([o for o in self.sent if o not in self.known]))
                if wanted == 1:
                    assert missing is not None
                    assert {self.sent[missing.tsn][-1]} <= set(numbers)
                travel(numbers)
            else:
                travel(self._transmit())
            self.agree()


fates = st.lists(st.booleans(), min_size=1, max_size=40).filter(any)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(2, 55),
    st.sampled_from([5_000, 40_000, 100_000]),
    fates,
    st.integers(1, 4),
    st.lists(st.booleans(), min_size=1, max_size=12).filter(any),
)
@example(55, 100_000, [True], 4, [True])
@example(2, 100_000, [True], 4, [True])
def test_windows_timers_and_round_trips_are_those_of_the_pseudocode(
    packets: int, rtt: int, arrives: list[bool], batch: int, heard: list[bool]
) -> None:
    Race(packets, rtt).run(arrives, batch, heard)


@pytest.mark.parametrize("loss", [0.01, 0.1, 0.3])
def test_so_they_are_under_losses_by_chance(loss: float) -> None:
    for seed in range(20):
        chance = random.Random(seed)
        draw = [chance.random() >= loss for _ in range(997)]
        Race(55, 30_000).run(draw, 4, [chance.random() >= loss for _ in range(499)])
