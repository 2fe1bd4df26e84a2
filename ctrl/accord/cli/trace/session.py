# SPDX-License-Identifier: Apache-2.0
"""What all tracers share: a BPF program compiled by bcc when it is asked for, the time it runs, how it ends.

The C of a tracer stands beside its Python, in ``NAME.bcc.c``. Where the running kernel keeps a field comes from its
own type information, as macros, so that it does not matter whether the headers are exactly the kernel's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from accord.cli.numbers import Finite
from accord.cli.trace.tracefs import mount_if_missing
from accord.datapath.probe import bcc as probe_bcc
from accord.datapath.probe import kernel_headers as probe_headers
from accord.wire.constants import Reason
from accord.wire.errors import error

F = TypeVar("F", bound=Callable[..., Any])

POLL_SECONDS = 0.25
"""How long a tracer may be silent before it looks at the clock."""


def options(command: F) -> F:
    """The options of every tracer."""
    command = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")(command)
    return click.option("--seconds", type=Finite(min=0.0, min_open=True), help="End by itself; without: until Ctrl-C.")(
        command
    )


def require() -> None:
    """Raise ``HostError``, with what mends it, when bcc cannot compile here."""
    if os.geteuid() != 0:
        raise error(Reason.NO_PRIVILEGE, "tracing the kernel", "sudo accord trace")
    for finding in (probe_bcc(), probe_headers()):
        if not finding.ok:
            raise error(Reason.NO_KERNEL_SUPPORT, finding.reason, finding.mend)
    mount_if_missing()


def compile_text(name: str, macros: Mapping[str, int] | None = None) -> Any:
    """A ``bcc.BPF`` of ``NAME.bcc.c``, its tracepoints attached. Raises ``HostError``: ``LOAD_FAILED`` with the
    compiler's or the verifier's first complaint, and what ``require`` raises."""
    require()
    from bcc import BPF

    text = Path(__file__).with_name(f"{name}.bcc.c").read_text(encoding="utf-8")
    # The headers of another kernel warn about what is no concern of ours.
    flags = ["-w", *(f"-D{macro}={value}" for macro, value in (macros or {}).items())]
    with tempfile.TemporaryFile() as said:
        try:
            with _stderr_to(said.fileno()):
                return BPF(text=text, cflags=flags)
        except Exception as failure:  # bcc raises bare ones
            said.seek(0)
            complaint = _first_complaint(said.read().decode(errors="replace")) or str(failure)
            raise error(Reason.LOAD_FAILED, f"{name}: {complaint}", "see what this host lacks: accord doctor") from None


def _first_complaint(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line or "failed" in line.lower()), "")


@contextlib.contextmanager
def _stderr_to(fd: int) -> Iterator[None]:
    """clang and libbpf, within this process, write to descriptor 2."""
    kept = os.dup(2)
    try:
        os.dup2(fd, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def run(what: str, as_json: bool, step: Callable[[float], None], seconds: float | None) -> None:
    """Say that from now on nothing of ``what`` is missed, then call ``step`` with how long it may wait, until the time
    is over, Ctrl-C or SIGTERM.

    All three are a good end: what a tracer has to say at its end it says after this returns, having been called once
    more for what was there already. No record is lost to the signal: it is heeded between two steps. A second Ctrl-C
    is for the impatient.
    """
    end = None if seconds is None else time.monotonic() + seconds
    over = False

    def finish(number: int, frame: object) -> None:
        nonlocal over
        over = True
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, finish) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _ready(what, as_json)
        while not over and (end is None or time.monotonic() < end):
            step(POLL_SECONDS if end is None else max(0.0, min(POLL_SECONDS, end - time.monotonic())))
        step(0.0)
    except _NobodyReads:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _NobodyReads(SystemExit):
    """The pipe that we print to was closed: no failure, and nothing to add."""


def _ready(what: str, as_json: bool) -> None:
    """People are told on standard error, programs by a first line."""
    if as_json:
        say({"event": "ready", "tracing": what})
    else:
        click.echo(f"tracing {what}; Ctrl-C ends it", err=True)


def say(line: Mapping[str, object] | str) -> None:
    """One line, at once: whoever reads a pipe reads it live. When nobody reads any more that is as good as Ctrl-C."""
    try:
        click.echo(line if isinstance(line, str) else json.dumps(line))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise _NobodyReads from None


def _boot_to_epoch_ns() -> int:
    """What to add to CLOCK_BOOTTIME for Unix time: of several looks the one that nothing came between."""
    looks = []
    for _ in range(8):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        epoch_ns = time.time_ns()
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        looks.append((after - before, epoch_ns - (before + after) // 2))
    return min(looks)[1]


_EPOCH_NS = _boot_to_epoch_ns()


def wall(boot_ns: int) -> str:
    """A time of CLOCK_BOOTTIME as people read clocks, to the microsecond."""
    now = boot_ns + _EPOCH_NS
    return f"{time.strftime('%H:%M:%S', time.localtime(now // 10**9))}.{now % 10**9 // 1000:06d}"


def epoch(boot_ns: int) -> float:
    """A time of CLOCK_BOOTTIME as seconds of Unix time."""
    return (boot_ns + _EPOCH_NS) / 1e9


def network_namespace() -> int:
    """Inode number of this process's network namespace: what the kernel calls it by."""
    return os.stat("/proc/self/ns/net").st_ino
