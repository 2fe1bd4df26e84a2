# SPDX-License-Identifier: Apache-2.0
"""An engine says how full it is, in the units of its limits."""

from __future__ import annotations

from accord.datapath.engine import Engine
from accord.datapath.path import Path
from tests.datapath.sides import message, packet, transaction_id

PATH = Path(family=4, context=17, local="192.0.2.1", local_port=443, remote="192.0.2.2", remote_port=5000)


def test_a_proposal_takes_a_slot_and_buffers_and_gives_both_back() -> None:
    engine = Engine(transactions=8, unproven=2, buffers=64, events=512)
    engine.support([17, 6])
    empty = engine.usage()
    assert (empty.transactions, empty.unproven, empty.buffers, empty.events) == (0, 0, 0, 0)
    assert (empty.transactions_limit, empty.unproven_limit, empty.buffers_limit) == (8, 2, 64)
    assert empty.events_limit == 512
    assert empty.bytes == engine.bytes
    handle = engine.open(0, transaction_id(), PATH)
    engine.send(0, handle, 0, message(bytes(3000)))  # three packets of at most 1200 bytes
    full = engine.usage()
    assert (full.transactions, full.unproven, full.buffers) == (1, 0, 3)
    engine.close(0, handle)
    assert engine.usage() == empty


def test_a_peers_first_packet_takes_one_of_the_slots_for_unproven_addresses() -> None:
    from accord.datapath._core import lib

    engine = Engine(transactions=8, unproven=2, buffers=64)
    engine.support([17, 6])
    data = packet(transaction_id(), b"payload")
    assert lib.accord_engine_input(engine.pointer, 0, PATH.to_c(), data, len(data)) == 0
    usage = engine.usage()
    assert (usage.transactions, usage.unproven) == (1, 1)
    assert usage.events > 0
    (opened, *_) = engine.events()
    assert engine.usage().events == 0
    engine.prove(opened.handle)
    assert engine.usage().unproven == 0
