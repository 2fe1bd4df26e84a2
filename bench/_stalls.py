#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""When the machine itself stood still: a virtual machine's processors are taken away now and then, for milliseconds.

A real-time process on each processor asks to be woken every millisecond. Nothing that a bench runs can keep it waiting,
being of lower priority, so what comes late was late for all. What was measured meanwhile says nothing about Accord, nor
about what it is compared with; at the 99th percentile it would be all that is seen.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from types import TracebackType
from typing import Self

PERIOD_S = 0.001
LATE_S = 0.0005
"""A stall: so much later than asked for. Less is what an interrupt takes."""
_PRIORITY = 50
_MOST_S = 24 * 3600.0
_PATIENCE_S = 30.0
"""For a prober that is asked: it answers when it runs again, and its line has to be read."""
_PAST = "past"


class Stalls:
    """The probers; a context manager. Of a stretch of time tells how much of it the machine stood still."""

    def __init__(self) -> None:
        self._ends: list[list[float]] = []
        """Of each processor: when stalls ended, ascending; and how long each was."""
        self._lengths: list[list[float]] = []
        self._probers: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        self._answers: list[queue.SimpleQueue[bool]] = []
        """Of each prober: it has told all stalls that began before it was asked; False: it has ended."""

    def __enter__(self) -> Self:
        for cpu in sorted(os.sched_getaffinity(0)):
            prober = subprocess.Popen(
                [sys.executable, __file__, str(cpu)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self._probers.append(prober)
        for prober in self._probers:
            assert prober.stdout is not None
            prober.stdout.readline()  # it has begun: what comes before nobody would see
            ends: list[float] = []
            lengths: list[float] = []
            answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
            reader = threading.Thread(target=_read, args=(prober, ends, lengths, answers), daemon=True)
            reader.start()
            self._answers.append(answers)
            self._ends.append(ends)
            self._lengths.append(lengths)
            self._readers.append(reader)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for prober in self._probers:
            with contextlib.suppress(BrokenPipeError):
                assert prober.stdin is not None
                prober.stdin.close()
        for prober, reader in zip(self._probers, self._readers, strict=True):
            with contextlib.suppress(subprocess.TimeoutExpired):
                prober.wait(2)
            prober.kill()
            prober.wait()
            reader.join(2)

    def longest(self, begin: float, end: float) -> float:
        """Seconds of the longest stall that overlaps ``begin`` .. ``end`` (``time.monotonic``); 0 for none.

        Waits until each prober is known to have run after ``end``, since a stall is told when it is over. Raises
        ``RuntimeError`` when a prober is gone: then nobody knows.
        """
        if self._probers:
            time.sleep(max(0.0, end - time.monotonic()))
            self._wait()
        found = 0.0
        for ends, lengths in zip(self._ends, self._lengths, strict=True):
            for number in range(bisect_left(ends, begin), len(lengths)):
                if ends[number] - lengths[number] > end:
                    break
                found = max(found, lengths[number])
        return found

    def _wait(self) -> None:
        """Until all stalls that began before now are known."""
        for prober in self._probers:
            with contextlib.suppress(BrokenPipeError):
                assert prober.stdin is not None
                prober.stdin.write("\n")
                prober.stdin.flush()
        for answers in self._answers:
            try:
                told = answers.get(timeout=_PATIENCE_S)
            except queue.Empty:
                told = False
            if not told:
                raise RuntimeError("nobody watches one of the processors for stalls any more")


def _read(
    prober: subprocess.Popen[str], ends: list[float], lengths: list[float], answers: queue.SimpleQueue[bool]
) -> None:
    assert prober.stdout is not None
    for line in prober.stdout:
        if line.strip() == _PAST:
            answers.put(True)
            continue
        end, length = line.split()
        ends.append(float(end))
        lengths.append(float(length))
    answers.put(False)


def _probe(cpu: int) -> None:
    """A line when it begins, and one for each stall: when it ended, and how long it was, seconds; and one when it is
    asked, by a line, behind those of all stalls that began before. Until the standard input ends."""
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    print("ready", flush=True)
    begin = due = time.monotonic()
    while due < begin + _MOST_S:
        asked = 0
        if poll.poll(0):
            if not (lines := os.read(0, 4096)):
                break
            asked = lines.count(b"\n")
        due += PERIOD_S
        time.sleep(max(0.0, due - time.monotonic()))
        woken = time.monotonic()
        if woken - due >= LATE_S:
            print(f"{woken:.6f} {woken - due:.6f}", flush=True)
            due = woken
        for _ in range(asked):  # not before: it may have stood still from before it was asked until it saw that
            print(_PAST, flush=True)


if __name__ == "__main__":
    _probe(int(sys.argv[1]))
