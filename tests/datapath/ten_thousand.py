# SPDX-License-Identifier: Apache-2.0
"""10,000 negotiations open at once between two engines, in a process of its own, with its resident memory.

Prints one JSON object: bytes that each engine announced, resident bytes before them, with both made, and at the
peak of each of three rounds, and what came of the negotiations. A program beside test_memory.py.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path as FilePath
from typing import Any

from accord.datapath._core import ffi, lib
from accord.datapath.engine import Engine, EventKind
from accord.datapath.path import Path

COUNT = 10_000
ROUNDS = 3
UPPER = 6
# As TLS 1.3 with a hybrid key share has them: ClientHello 1,530 bytes, server's flight 1,722.
PROPOSAL = [(0, 17, b"\x01\x00\x00\x00\x01"), (1, UPPER, bytes(4) + bytes(1_600))]
ANSWER = [(0, 17, b"\x01\x00\x00\x00\x01"), (1, UPPER, bytes(4) + bytes(1_800))]
COMMIT = [(0, 17, b"\x01\x00\x00\x00\x01"), (1, UPPER, bytes(4) + bytes(100))]
BATCH = 256


def resident() -> int:
    """Bytes of this process in memory."""
    return int(FilePath("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class End:
    """One engine, and the way to the other."""

    def __init__(self, path: Path) -> None:
        self.engine = Engine(transactions=COUNT, unproven=COUNT, buffers=65_536)
        self.engine.support([17, UPPER])
        self.path: Any = path.to_c()
        self._out = ffi.new("struct accord_packet_out[]", BATCH)

    def send_to(self, other: End, now: int) -> None:
        """Everything that this engine has to send arrives at once."""
        while count := lib.accord_engine_output(self.engine.pointer, now, self._out, BATCH):
            for packet in self._out[0:count]:
                other.receive(packet, now)

    def receive(self, packet: Any, now: int) -> None:
        result = lib.accord_engine_input(self.engine.pointer, now, self.path, packet.data, packet.length)
        assert result == 0, result


def messages(end: End, step: int) -> list[int]:
    """Handles of the transactions whose message of this step is there."""
    return [event.handle for event in end.engine.events() if event.kind is EventKind.MESSAGE and event.step == step]


def one_round(initiator: End, responder: End, serial: int) -> tuple[int, dict[str, int]]:
    """Proposals, answers that are not delivered yet (the peak), commits. Resident bytes at the peak, and counts."""
    now = 1_000_000 * (1 + 100 * serial)
    handles, proposed, answered, committed = [], [], [], []
    for number in range(COUNT):
        identity = struct.pack("!III", 7 + serial, 9, number)
        handle = initiator.engine.open(now, identity, Path.udp(("192.0.2.1", 5000), ("192.0.2.2", 443)))
        initiator.engine.send(now, handle, 0, PROPOSAL)
        handles.append(handle)
        if number % 500 == 499:
            initiator.send_to(responder, now)
            proposed += messages(responder, 0)
    for handle in proposed:
        responder.engine.send(now, handle, 1, ANSWER)
    peak = resident()
    open_now = (initiator.engine.transactions, responder.engine.transactions)
    now += 30_000
    while len(answered) < COUNT:
        count = lib.accord_engine_output(responder.engine.pointer, now, responder._out, BATCH)
        assert count, "an answer is held back"
        for packet in responder._out[0:count]:
            initiator.receive(packet, now)
        answered += messages(initiator, 1)
    for handle in answered:
        initiator.engine.send(now, handle, 2, COMMIT)
        if len(committed) < COUNT:
            initiator.send_to(responder, now)
            committed += messages(responder, 2)
    peak = max(peak, resident())
    for end, opened in ((initiator, handles), (responder, proposed)):
        for handle in opened:
            end.engine.close(now, handle)
    return peak, {
        "initiators": open_now[0],
        "responders": open_now[1],
        "answered": len(answered),
        "committed": len(committed),
        "left": initiator.engine.transactions + responder.engine.transactions,
    }


def main() -> None:
    """See the module."""
    before = resident()
    initiator = End(Path.udp(("192.0.2.1", 5000), ("192.0.2.2", 443)))
    responder = End(Path.udp(("192.0.2.2", 443), ("192.0.2.1", 5000)))
    made = resident()
    rounds = [one_round(initiator, responder, serial) for serial in range(ROUNDS)]
    result = {
        "engine_bytes": [initiator.engine.bytes, responder.engine.bytes],
        "before": before,
        "made": made,
        "peaks": [peak for peak, _ in rounds],
        "rounds": [counts for _, counts in rounds],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
