# SPDX-License-Identifier: Apache-2.0
"""What it costs to move events from C to Python, in batches of 64."""

from __future__ import annotations

import struct
import time

from _native import quiet

from accord.datapath._core import ffi, lib
from accord.datapath.engine import Engine
from accord.datapath.path import Path
from tests.datapath.sides import CONTEXT, UPPER, packet

BATCH = 64
# OPENED, two nodes, MESSAGE.
_EVENTS_OF_A_PROPOSAL = 4
_PAYLOAD = bytes(200)
_PATH = Path.udp(("192.0.2.2", 443), ("192.0.2.1", 50000))


class Source:
    """An engine with 64 events waiting, whenever they are asked for."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.engine.support([CONTEXT, UPPER])
        self.path = _PATH.to_c()
        self.packets = [packet(struct.pack("!III", 1, 2, number), _PAYLOAD) for number in range(self.proposals)]
        self.batch = ffi.new("struct accord_event[]", BATCH)

    proposals = BATCH // _EVENTS_OF_A_PROPOSAL

    def fill(self) -> None:
        """Sixteen proposals in."""
        for each in self.packets:
            if lib.accord_engine_input(self.engine.pointer, 1, self.path, each, len(each)) < 0:
                raise RuntimeError("the engine refused a proposal")

    def forget(self, handles: set[int]) -> None:
        """And out again."""
        for handle in handles:
            self.engine.close(1, handle)

    def crossing(self) -> float:
        """Nanoseconds for each event of the one call that moves them all."""
        self.fill()
        pointer, batch, call, clock = self.engine.pointer, self.batch, lib.accord_engine_events, time.perf_counter_ns
        begun = clock()
        count = call(pointer, batch, BATCH)
        spent = clock() - begun
        if count != BATCH:
            raise RuntimeError(f"{count} events, not {BATCH}")
        self.forget({event.handle for event in batch})
        return spent / BATCH

    def objects(self) -> float:
        """Nanoseconds for each event, until it is the object that the control plane works with."""
        self.fill()
        begun = time.perf_counter_ns()
        events = self.engine.events()
        spent = time.perf_counter_ns() - begun
        if len(events) != BATCH:
            raise RuntimeError(f"{len(events)} events, not {BATCH}")
        self.forget({event.handle for event in events})
        return spent / BATCH


def measure(repeats: int, batches: int = 200) -> list[dict[str, float]]:
    """One dictionary a repeat: of so many batches the one in the middle."""
    source = Source()
    rounds = []
    for _ in range(repeats):
        with quiet():
            taken = [(source.crossing(), source.objects()) for _ in range(batches)]
        crossing, objects = (sorted(column)[batches // 2] for column in zip(*taken, strict=True))
        rounds.append({"crossing": crossing, "objects": objects})
    return rounds
