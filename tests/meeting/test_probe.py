# SPDX-License-Identifier: Apache-2.0
"""The engine sends again at once when something else shows that the path is open."""

from __future__ import annotations

from accord.datapath.engine import Engine
from accord.datapath.path import Path
from accord.wire.constants import NodeId, Protocol

HOUR = 3_600_000_000
PATH = Path(4, Protocol.UDP, "192.0.2.1", 4000, "192.0.2.2", 5000)


def test_a_probe_sends_the_unacknowledged_packet_again_before_its_timer() -> None:
    engine = Engine(transactions=4, unproven=4, buffers=64)
    handle = engine.open(HOUR, b"t" * 12, PATH)
    engine.send(HOUR, handle, 0, [(NodeId.CONTEXT, Protocol.UDP, bytes(4))])
    first = engine.output(HOUR)
    assert len(first) == 1
    assert engine.output(HOUR + 1000) == []
    engine.probe(HOUR + 2000, handle)
    assert engine.output(HOUR + 2000) == first
    assert engine.output(HOUR + 2000) == []


def test_a_probe_does_not_lengthen_the_wait_for_the_next_one() -> None:
    engine = Engine(transactions=4, unproven=4, buffers=64)
    handle = engine.open(HOUR, b"t" * 12, PATH)
    engine.send(HOUR, handle, 0, [(NodeId.CONTEXT, Protocol.UDP, bytes(4))])
    engine.output(HOUR)
    first_wait = (engine.deadline() or 0) - HOUR
    engine.probe(HOUR + 2000, handle)
    engine.output(HOUR + 2000)
    assert (engine.deadline() or 0) - (HOUR + 2000) <= first_wait


def test_a_probe_of_what_has_said_nothing_sends_nothing() -> None:
    engine = Engine(transactions=4, unproven=4, buffers=64)
    handle = engine.open(HOUR, b"t" * 12, PATH)
    engine.probe(HOUR, handle)
    assert engine.output(HOUR) == []
