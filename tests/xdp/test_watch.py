# SPDX-License-Identifier: Apache-2.0
"""The verdicts of a program that is watched: each as it was given, to one watcher, for as long as it asks."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.cli.trace.rings import Rings
from accord.datapath import watch
from accord.datapath.watch import Watcher, decode
from accord.datapath.xdp_test import Program, Verdict
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, OurError
from tests.xdp.mutants import VERDICTS, run
from tests.xdp.packets import TABLE

OURS = next(row for row in TABLE if row.reason is Reason.STEERED)
OTHERS = next(row for row in TABLE if row.reason is Reason.NOT_OURS_PORT)
RECORD = struct.Struct("=QIIIHH")


class Heard:
    """A watcher with rings, and what came out of them."""

    def __init__(self, program: Program) -> None:
        self.data: list[bytes] = []
        self.lost = 0
        self.watcher = Watcher(program.id)
        self.rings = Rings(self.data.append, self._lose)
        for cpu, fd in self.rings.fds():
            self.watcher.join(cpu, fd)

    def _lose(self, count: int) -> None:
        self.lost += count

    def take(self) -> list[watch.Record]:
        self.rings.poll(0)
        data, self.data[:] = list(self.data), []
        return [decode(each) for each in data]


@pytest.fixture
def heard(program: Program, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """With a lease that no schedule makes run out."""
    monkeypatch.setattr(watch, "LEASE_SECONDS", 3600.0)
    pytest.importorskip("bcc.libbcc", reason="Debian's python3-bpfcc is not installed")
    with contextlib.ExitStack() as stack:
        both = Heard(program)
        stack.callback(both.watcher.close)
        stack.callback(both.rings.close)
        yield both


@pytest.mark.root
def test_a_watched_program_tells_each_verdict_with_its_reason_and_the_start_of_the_frame(
    program: Program, heard: Heard
) -> None:
    heard.watcher.begin(Reason)
    for row in TABLE:
        run(program, row, heard.take)
        (record,) = heard.take()
        assert record.reason is row.reason, row.name
        assert record.verdict is VERDICTS.get(row.reason, Verdict.PASS)
        assert record.frame_bytes == len(row.frame)
        assert record.head == row.frame[:128]
        assert record.queue == 0
    assert heard.lost == 0


@pytest.mark.root
def test_nothing_is_told_before_anybody_asks_and_nothing_after(program: Program, heard: Heard) -> None:
    program.run(OURS.frame)
    assert heard.take() == []
    heard.watcher.begin(Reason)
    program.run(OURS.frame)
    assert len(heard.take()) == 1
    heard.watcher.close()
    program.run(OURS.frame)
    assert heard.take() == []


@pytest.mark.root
def test_only_the_reasons_that_were_asked_for_are_told(program: Program, heard: Heard) -> None:
    heard.watcher.begin([Reason.STEERED])
    for row in (OTHERS, OURS, OTHERS):
        program.run(row.frame)
    assert [record.reason for record in heard.take()] == [Reason.STEERED]


@pytest.mark.root
def test_a_lease_that_is_not_renewed_runs_out_and_costs_no_more(
    program: Program, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as late:
        late.setattr(watch, "LEASE_SECONDS", -0.001)
        heard.watcher.begin(Reason)
    assert heard.watcher.until_ns > 0
    program.run(OURS.frame)
    assert heard.take() == []
    assert heard.watcher.until_ns == 0, "the program looks at the clock no more"
    heard.watcher.renew()
    program.run(OURS.frame)
    assert len(heard.take()) == 1


@pytest.fixture
def one_processor() -> Iterator[None]:
    """What the program could not tell it counts by processor, and the next record there says so."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.root
@pytest.mark.usefixtures("one_processor")
def test_verdicts_are_the_same_and_counted_when_the_rings_are_full_or_gone(program: Program, heard: Heard) -> None:
    heard.watcher.begin(Reason)
    result = program.run(OURS.frame, repeat=100_000)
    assert result.verdict is Verdict.REDIRECT
    assert result.reason is Reason.STEERED
    told = len(heard.take())
    program.run(OURS.frame)  # the next record that fits says how many did not
    told += len(heard.take())
    assert heard.lost > 0
    assert told + heard.lost == 100_001
    heard.rings.close()
    assert program.run(OURS.frame).verdict is Verdict.REDIRECT


@pytest.mark.root
def test_a_second_watcher_is_refused_with_the_first_ones_process_and_takes_over_when_it_is_gone(
    program: Program, heard: Heard
) -> None:
    heard.watcher.begin(Reason)
    pid = os.fork()
    if pid == 0:
        try:
            Watcher(program.id).close()
        except AccordError as refusal:
            os._exit(3 if str(os.getppid()) in str(refusal) else 4)
        os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    heard.watcher.close()
    pid = os.fork()
    if pid == 0:
        Watcher(program.id).close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.root
def test_a_program_that_is_not_there_cannot_be_watched() -> None:
    with pytest.raises(AccordError):
        Watcher(0x7FFFFFFF)


@given(
    st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.sampled_from(Reason), st.sampled_from(Verdict),
    st.binary(max_size=200), st.binary(max_size=7),
)  # fmt: skip
def test_a_record_is_read_as_it_was_written_and_padding_is_no_part_of_it(
    at_ns: int, queue: int, reason: Reason, verdict: Verdict, frame: bytes, padding: bytes
) -> None:
    data = RECORD.pack(at_ns, 7, queue, len(frame), reason, verdict) + frame[:128]
    record = decode(data + padding)
    assert record == watch.Record(at_ns, 7, queue, len(frame), reason, verdict, frame[:128])


@given(st.binary(max_size=200), st.data())
def test_a_record_that_is_cut_off_is_refused(frame: bytes, draw: st.DataObject) -> None:
    whole = RECORD.pack(1, 7, 0, len(frame), Reason.STEERED, Verdict.PASS) + frame[:128]
    data = whole[: draw.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(OurError) as caught:
        decode(data)
    assert caught.value.reason is Reason.MAP_MISMATCH


@pytest.mark.parametrize(("reason", "verdict"), [(255, 2), (1, 77)])
def test_a_record_with_unknown_numbers_is_refused(reason: int, verdict: int) -> None:
    with pytest.raises(OurError):
        decode(RECORD.pack(1, 2, 0, 0, reason, verdict))
