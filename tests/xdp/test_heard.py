# SPDX-License-Identifier: Apache-2.0
"""The table of what was heard: what gets into it, under guesses, and from two processors at once."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from accord.datapath._core import ffi, lib
from accord.datapath.xdp_test import Program, Run, Verdict
from accord.wire.constants import Reason
from tests.xdp.craft import ALIVE_MS, ETHER, ID, PORT, SAME_SLOT, ip4, ip6
from tests.xdp.packets_syn import ADOPT, HEARD_4, HEARD_6, LINUX, SYN_4, SYN_6, option, proposal, segment, syn4

pytestmark = pytest.mark.root

GUESSES = 200_000
"""Of proposals, and as many of SYNs."""
CONNECTIONS = 10_000
PROPOSAL, SYN, SPENT = lib.ACCORD_HEARD_PROPOSAL, lib.ACCORD_HEARD_SYN, lib.ACCORD_HEARD_SPENT
HOUR_NS = 3_600 * 10**9


@pytest.fixture
def fresh() -> Iterator[Program]:
    """A program with an empty table, and a daemon that lives for ever."""
    with Program() as program:
        program.steer(PORT)
        program.join()
        program.heartbeat(-3_600_000)
        yield program


class Bare:
    """Runs frames without counting each: as fast as the kernel takes them. One to a thread."""

    def __init__(self, program: Program) -> None:
        self._program = program._pointer
        self._output = ffi.new("uint8_t[]", 256)
        self._length, self._verdict, self._duration = (ffi.new("uint32_t *") for _ in range(3))

    def run(self, frame: bytes, repeat: int = 1) -> int:
        """The verdict of the last one."""
        self._length[0] = 256
        result = lib.accord_program_test_run(
            self._program, frame, len(frame), repeat, self._output, self._length, self._verdict, self._duration
        )
        assert result == 0
        return int(self._verdict[0])


def flags(program: Program, transaction: bytes = ID) -> int:
    """What is noted of a transaction; 0 when the slot is empty or another's."""
    entry = program.heard(transaction)
    return int(entry.state & lib.ACCORD_HEARD_FLAGS) if bytes(entry.transaction) == transaction else 0


def runs(program: Program, *frames: object) -> list[Run]:
    return [program.run(bytes(frame)) for frame in frames]  # type: ignore[call-overload]


def test_the_table_says_what_came_of_a_transaction_and_in_which_order(fresh: Program) -> None:
    seen = []
    for frame in (HEARD_4, SYN_4, SYN_4, HEARD_4):
        fresh.run(bytes(frame))
        seen.append(flags(fresh))
    assert seen == [PROPOSAL, PROPOSAL | SPENT, PROPOSAL | SPENT, PROPOSAL | SPENT]
    fresh.forget(ID)
    seen = []
    for frame in (SYN_4, HEARD_4, SYN_4, HEARD_4):
        fresh.run(bytes(frame))
        seen.append(flags(fresh))
    assert seen == [SYN, SYN | PROPOSAL, SYN | PROPOSAL, SYN | PROPOSAL]


def test_a_slot_holds_the_addresses_the_port_and_the_isn_of_what_came_first(fresh: Program) -> None:
    fresh.run(bytes(syn4(isn=0xDEADBEEF)))
    entry = fresh.heard(ID)
    assert bytes(ffi.buffer(entry.source)) == bytes((192, 0, 2, 1)) + bytes(12)
    assert bytes(ffi.buffer(entry.destination)) == bytes((192, 0, 2, 2)) + bytes(12)
    assert (entry.family, entry.port.to_bytes(2, "little")) == (4, PORT.to_bytes(2, "big"))
    assert entry.isn.to_bytes(4, "little") == bytes.fromhex("deadbeef")
    fresh.forget(ID)
    fresh.run(bytes(HEARD_6))
    entry = fresh.heard(ID)
    assert bytes(ffi.buffer(entry.source)) == bytes(ETHER / ip6())[22:38]
    assert (entry.family, entry.isn) == (6, 0)


def test_a_repeated_proposal_leaves_the_slot_byte_for_byte_as_it_was(fresh: Program) -> None:
    fresh.run(bytes(HEARD_4))
    before = bytes(ffi.buffer(fresh.heard(ID)))
    runs(fresh, HEARD_4, HEARD_6, proposal(port=PORT, length=300))
    assert bytes(ffi.buffer(fresh.heard(ID))) == before


@pytest.mark.parametrize(
    "around", ["no socket on the queue", "nothing is to be suppressed", "a silent daemon", "no port"]
)
def test_a_proposal_that_the_daemon_does_not_get_or_want_is_not_noted(fresh: Program, around: str) -> None:
    if around == "no socket on the queue":
        fresh.join(False)
    elif around == "nothing is to be suppressed":
        fresh.configure(suppress=False)
    elif around == "a silent daemon":
        fresh.heartbeat(600)
    else:
        fresh.steer(PORT, False)
    fresh.run(bytes(HEARD_4))
    assert flags(fresh) == 0
    fresh.configure()
    fresh.join()
    fresh.heartbeat(ALIVE_MS)
    fresh.steer(PORT)
    assert fresh.run(bytes(SYN_4)).reason is Reason.SYN_FIRST


@pytest.mark.parametrize("after_first", [1, 2, 255, -1])
def test_of_a_proposal_s_packets_the_first_one_tells_that_it_was_heard(fresh: Program, after_first: int) -> None:
    """A path that drops long datagrams may let the last one of a proposal through: that is no promise of an answer."""
    fresh.run(bytes(proposal(after_first=after_first)))
    assert flags(fresh) == 0
    assert fresh.run(bytes(SYN_4)).reason is Reason.SYN_FIRST
    fresh.run(bytes(HEARD_4))
    assert flags(fresh) == lib.ACCORD_HEARD_SYN | lib.ACCORD_HEARD_PROPOSAL


def test_a_port_that_is_steered_without_a_service_suppresses_nothing(fresh: Program) -> None:
    fresh.steer(PORT, service=False)
    heard, syn = runs(fresh, HEARD_4, SYN_4)
    assert (heard.reason, syn.reason) == (Reason.STEERED, Reason.NOT_OURS_PORT)
    fresh.configure(any_port=True)
    assert fresh.run(bytes(SYN_4)).reason is Reason.NOT_OURS_PORT


def test_guessed_ids_suppress_nothing_and_spend_nothing(fresh: Program) -> None:
    """Proposals and SYNs with random IDs, from the victim's own address, among a victim's connections."""
    chance, bare = random.Random(4), Bare(fresh)
    heard, syn = bytes(HEARD_4), bytes(SYN_4)
    at_heard, at_syn = heard.index(ID), syn.index(ID)
    suppressed = 0
    for number in range(GUESSES):
        guess = chance.randbytes(12)
        bare.run(heard[:at_heard] + guess + guess[:4] + heard[at_heard + 16 :])
        guess = chance.randbytes(12)
        assert bare.run(syn[:at_syn] + guess + syn[at_syn + 12 :]) == Verdict.PASS
        if number % 100 == 0:  # the victim: one that has proposed, and one that has not
            ours = chance.randbytes(12)
            bare.run(heard[:at_heard] + ours + ours[:4] + heard[at_heard + 16 :])  # ID, TSN
            suppressed += bare.run(syn[:at_syn] + ours + syn[at_syn + 12 :]) == Verdict.DROP
            ours = chance.randbytes(12)
            assert bare.run(syn[:at_syn] + ours + syn[at_syn + 12 :]) == Verdict.PASS
    assert suppressed == GUESSES // 100
    assert fresh.counters()[Reason.SYN_SUPPRESSED] == suppressed


def test_who_knows_the_id_of_a_connection_costs_it_one_syn_and_no_repetition(fresh: Program) -> None:
    """On the path he sees the ID before anybody, and says what he likes in the victim's name and in others'. The kernel
    repeats a SYN without the option, and that passes. With it one is suppressed, and no second one."""
    chance, bare = random.Random(14), Bare(fresh)
    heard, syn, repetition = bytes(HEARD_4), bytes(SYN_4), bytes(ETHER / ip4(proto=6) / segment(LINUX))
    at_heard, at_syn = heard.index(ID), syn.index(ID)
    elsewhere = bytes(proposal(ip4(src="192.0.2.99")))
    suppressed = 0

    def propose(frame: bytes, transaction: bytes) -> None:
        bare.run(frame[:at_heard] + transaction + transaction[:4] + frame[at_heard + 16 :])

    for _ in range(CONNECTIONS):
        ours = chance.randbytes(12)
        said = syn[:at_syn] + ours + syn[at_syn + 12 :]
        for frame in chance.choices((heard, elsewhere), k=chance.randrange(4)):
            propose(frame, ours)
        dropped = bare.run(said) == Verdict.DROP
        for frame in chance.choices((heard, elsewhere), k=chance.randrange(4)):
            propose(frame, ours)
        for _ in range(chance.randrange(3)):
            again = bare.run(said) == Verdict.DROP
            assert not (dropped and again), "once for each ID"
            dropped |= again
        assert bare.run(repetition) == Verdict.PASS
        suppressed += dropped
    assert CONNECTIONS // 4 < suppressed < CONNECTIONS, "he succeeds, and not always"
    assert fresh.counters()[Reason.SYN_SUPPRESSED] == suppressed


@contextmanager
def hammering(program: Program, frames: list[bytes]) -> Iterator[None]:
    """Each frame again and again, on a processor of its own, until the end of the block."""
    processors, stop, failures = sorted(os.sched_getaffinity(0)), threading.Event(), []

    def body(index: int) -> None:
        try:
            os.sched_setaffinity(0, {processors[index % len(processors)]})
            bare = Bare(program)
            while not stop.is_set():
                bare.run(frames[index], repeat=100_000)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=body, args=(index,)) for index in range(len(frames))]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not failures


def spent(program: Program) -> bool:
    """Wait until the proposal in the slot has suppressed its SYN; false when it never does."""
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        if program.heard(ID).state & SPENT:
            return True
    return False


def propose_again(program: Program) -> None:
    """The transaction's slot as its proposal left it, but heard an hour from now: however long this process has to wait
    for a processor, no SYN comes too late."""
    entry = program.heard(ID)
    entry.state = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) + HOUR_NS) // 16 * 16 | PROPOSAL
    program._hear(ID, entry)


def test_of_one_id_s_syns_on_two_processors_at_once_exactly_one_is_suppressed(fresh: Program) -> None:
    fresh.run(bytes(HEARD_4))
    propose_again(fresh)
    with hammering(fresh, [bytes(SYN_4)] * 2):
        assert spent(fresh)
        for _ in range(2_000):
            propose_again(fresh)
            assert spent(fresh)
    counters = fresh.counters()
    assert counters[Reason.SYN_SUPPRESSED] == 2_001
    assert counters[Reason.SYN_REPEATED] > 2_001


def test_a_slot_that_two_transactions_fight_for_stays_whole_and_suppresses_no_syn_from_elsewhere(
    fresh: Program,
) -> None:
    """SYNs of one ID come from an address that only the other ID, with the same slot, was proposed from: a slot that
    was half the one's and half the other's would drop them."""
    fresh.heartbeat(-3_600_000)
    theirs = bytes(ETHER / ip4(src="192.0.2.99", proto=6) / segment(LINUX + option(transaction=ID)))
    other, bare = bytes(proposal(ip4(src="192.0.2.99"), transaction=SAME_SLOT)), Bare(fresh)
    with hammering(fresh, [bytes(HEARD_4), theirs]):
        for _ in range(50_000):
            bare.run(other)
    counters = fresh.counters()
    assert counters[Reason.SYN_SUPPRESSED] == 0
    assert counters[Reason.SYN_FIRST] > 0
    entry = fresh.heard(ID)
    assert not entry.state & lib.ACCORD_HEARD_BUSY
    assert (bytes(entry.transaction), bytes(ffi.buffer(entry.source))[3]) in ((ID, 1), (ID, 99), (SAME_SLOT, 99))


def test_a_slot_that_is_being_written_holds_nothing_and_the_syn_passes(fresh: Program) -> None:
    fresh.run(bytes(HEARD_4))
    entry = fresh.heard(ID)
    entry.state |= lib.ACCORD_HEARD_BUSY
    fresh._hear(ID, entry)
    assert [run.reason for run in runs(fresh, SYN_4, SYN_6, syn4(LINUX + option(ADOPT)), HEARD_4)] == [
        Reason.SYN_FIRST,
        Reason.SYN_FIRST,
        Reason.SYN_ADOPT,
        Reason.STEERED,
    ]
    assert bytes(ffi.buffer(fresh.heard(ID))) == bytes(ffi.buffer(entry))
