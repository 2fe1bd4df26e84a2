# SPDX-License-Identifier: Apache-2.0
"""Whether the machine stood still: seen by those that nothing of a bench can keep waiting."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from _stalls import Stalls
from hypothesis import given
from hypothesis import strategies as st

MOMENTS = st.integers(0, 1000).map(float)

HOLD = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(60))
begin = time.monotonic()
print(begin, flush=True)
while time.monotonic() < begin + 0.03:
    pass
"""
"""Takes a processor away from everybody for 30 ms, the probers included."""


def _hold() -> subprocess.Popen[str]:
    cpu = max(os.sched_getaffinity(0))
    return subprocess.Popen([sys.executable, "-c", HOLD, str(cpu)], stdout=subprocess.PIPE, text=True)


@pytest.mark.root
def test_a_processor_that_is_taken_away_for_30_ms_is_seen_to_have_stood_still_then_and_not_before() -> None:
    with Stalls() as stalls:
        held, _ = _hold().communicate(timeout=30)
        begin = float(held)
        assert stalls.longest(begin, begin + 0.03) >= 0.025
        assert stalls.longest(begin - 1000, begin - 999) == 0
        probers = list(stalls._probers)
    assert all(prober.poll() is not None for prober in probers)


@pytest.mark.root
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="whoever asks needs another processor than what is held")
def test_a_stall_that_is_not_over_when_it_is_asked_about_is_waited_for() -> None:
    with Stalls() as stalls, _hold() as held:
        assert held.stdout is not None
        begin = float(held.stdout.readline())
        assert stalls.longest(begin, begin + 0.002) >= 0.025


@pytest.mark.root
def test_what_a_prober_that_is_gone_would_have_seen_is_not_said_to_be_nothing() -> None:
    with Stalls() as stalls:
        stalls._probers[0].kill()
        now = time.monotonic()
        with pytest.raises(RuntimeError, match="nobody watches"):
            stalls.longest(now - 0.001, now)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 40)), max_size=8), st.tuples(MOMENTS, st.integers(0, 100)))
def test_the_longest_stall_is_that_of_all_that_overlap_the_stretch(
    pauses: list[tuple[int, int]], stretch: tuple[float, int]
) -> None:
    stalls = Stalls()
    spans: list[tuple[float, float]] = []
    now = 0.0
    for pause, length in pauses:
        spans.append((now + pause, now + pause + length))
        now += pause + length
    stalls._ends, stalls._lengths = [[end for _, end in spans]], [[end - begin for begin, end in spans]]
    begin, end = stretch[0], stretch[0] + stretch[1]
    overlapping = [last - first for first, last in spans if first <= end and last >= begin]
    assert stalls.longest(begin, end) == max(overlapping, default=0.0)
