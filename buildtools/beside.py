# SPDX-License-Identifier: Apache-2.0
"""Checks that run beside the tests.

Tests mostly wait: for a round trip, a timer, a process. What they leave of the processors is enough for everything
else, at the lowest priority there is, so that the tests' own timing is what it is alone.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Mapping, Optional, Sequence

from buildtools.console import INTERRUPT_SECONDS, LOGS, ROOT, live, relative, say

_LAST_LINE_BYTES = 4096


def _nothing() -> None:
    """Nobody has to be told."""


@dataclass(frozen=True)
class Job:
    """One check: a command, and who is to be told when it has passed."""

    name: str
    command: Sequence[str]
    passed: Callable[[], None] = _nothing

    @property
    def log(self) -> Path:
        """Everything that it says."""
        return LOGS / f"{self.name}.log"


@dataclass
class Beside:
    """``at_once`` of the jobs run at any time, in their order; ``turn`` has to be called now and then."""

    jobs: Sequence[Job]
    at_once: int = field(default_factory=lambda: os.cpu_count() or 1)
    tell: Callable[[str], None] = say
    failed: "list[Job]" = field(default_factory=list)

    def __post_init__(self) -> None:
        self._waiting = list(self.jobs)
        self._running: "dict[str, tuple[Job, subprocess.Popen[bytes], float]]" = {}

    @property
    def over(self) -> bool:
        """Every job has ended."""
        return not self._waiting and not self._running

    def turn(self) -> None:
        """Say what has ended, begin what there is room for."""
        for name, (job, process, started) in list(self._running.items()):
            if process.poll() is None:
                continue
            del self._running[name]
            if process.returncode == 0:
                self.tell(f"  {name}: done in {time.monotonic() - started:.1f} s")
                job.passed()
            else:
                self.failed.append(job)
                self.tell(f"  {name}: FAILED; what it said comes at the end")
        while self._waiting and len(self._running) < self.at_once:
            job = self._waiting.pop(0)
            self._running[job.name] = (job, _begin(job), time.monotonic())

    def finish(self) -> None:
        """Wait for the rest, and show what those have said that failed."""
        while not self.over:
            self.turn()
            time.sleep(0.1)
        for job in self.failed:
            self.tell(f"{job.name} failed; this is also in {relative(job.log)}:")
            # Its first line is the command, with every file's name.
            sys.stdout.write(job.log.read_text(encoding="utf-8", errors="replace").partition("\n")[2])
            sys.stdout.flush()

    def stop(self) -> None:
        """Interrupt what runs, and wait until it has cleaned up."""
        self._waiting.clear()
        left = [process for _, process, _ in self._running.values()]
        self._running.clear()
        for process in left:
            process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + INTERRUPT_SECONDS
        for process in left:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _begin(job: Job) -> "subprocess.Popen[bytes]":
    LOGS.mkdir(parents=True, exist_ok=True)
    # Root's from another time can be removed by who owns the tree, but not written to.
    job.log.unlink(missing_ok=True)
    with job.log.open("wb") as output:
        output.write(f"$ {' '.join(job.command)}\n".encode())
        output.flush()
        command = ["nice", "-n", "19", *job.command]
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


class Shown:
    """A command's output, shown as it comes; what others say meanwhile gets lines of its own, and the command's last
    line can be shown again behind them."""

    def __init__(self) -> None:
        self._tail = b""

    def run(
        self, command: Sequence[str], environment: Optional[Mapping[str, str]], meanwhile: Callable[[], None]
    ) -> int:
        """As ``console.live``; ``meanwhile`` is called now and then."""
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb", buffering=0) as out, os.fdopen(writer, "wb", buffering=0) as into:

            def turn() -> None:
                self._show(out.fileno())
                meanwhile()

            try:
                return live(command, environment, into, meanwhile=turn)
            finally:
                self._show(out.fileno())

    def tell(self, text: str) -> None:
        """A progress line of somebody else's."""
        if self._tail and not self._tail.endswith(b"\n"):
            print(flush=True)
            self._tail = b"\n"
        say(text)

    @property
    def last_line(self) -> str:
        """Of what the command has said, without what is empty."""
        lines = [line for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def _show(self, fd: int) -> None:
        while select.select([fd], [], [], 0)[0]:
            data = os.read(fd, 65536)
            if not data:
                return
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
            self._tail = (self._tail + data)[-_LAST_LINE_BYTES:]
