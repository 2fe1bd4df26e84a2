# SPDX-License-Identifier: Apache-2.0
"""``accord trace`` in a lab, with the headers that bcc compiles against.

Where the running kernel has no headers package, another's of Debian are lent in a mount namespace of the tracer's own:
what its programs need of them (types, helpers, pt_regs) is the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from accord.datapath.probe import bcc, kernel_headers

ACCORD = (sys.executable, "-m", "accord.cli.main")
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
_PATIENCE_SECONDS = 30.0
_LEND = """
set -e
mount -t tmpfs none /lib/modules
mkdir "$1"
ln -s "$2" "$1/build"
ln -s "$3" "$1/source"
shift 3
exec "$@"
"""


def lend() -> list[str]:
    """A command that runs another one where headers are; skips the test where there are none to be had."""
    if not bcc().ok:
        pytest.skip(f"{bcc().reason}: {bcc().mend}")
    if kernel_headers().ok:
        return []
    for built in sorted(Path("/usr/src").glob(f"linux-headers-*-{_ARCHITECTURE}"), reverse=True):
        common = built.with_name(built.name.removesuffix(_ARCHITECTURE) + "common")
        if common.exists():
            release = f"/lib/modules/{os.uname().release}"
            return ["unshare", "--mount", "sh", "-c", _LEND, "sh", release, str(built), str(common)]
    pytest.skip(f"no kernel headers: apt-get install linux-headers-{_ARCHITECTURE}")


class Place(Protocol):
    """A network namespace that starts processes."""

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """``subprocess.Popen`` inside."""


class Tracer:
    """A running ``accord trace ... --json`` that has said that it is ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        if not first:
            _, said = self.process.communicate(timeout=20)
            raise AssertionError(f"the tracer did not start: {said}")
        assert json.loads(first)["event"] == "ready"

    def next(self) -> dict[str, Any]:
        """The next line, as soon as it is there."""
        assert self.process.stdout is not None
        line: dict[str, Any] = json.loads(self.process.stdout.readline())
        return line

    def until(self, **wanted: object) -> None:
        """Wait for a line that says so; ``stop`` has it, too, and what came before it."""
        patience = threading.Timer(_PATIENCE_SECONDS, self.process.kill)
        patience.start()
        try:
            assert self.process.stdout is not None
            for text in self.process.stdout:
                self.lines.append(json.loads(text))
                if wanted.items() <= self.lines[-1].items():
                    return
        finally:
            patience.cancel()
        raise AssertionError(f"no line says {wanted}: {self.lines}")

    def stop(self, number: int = signal.SIGINT) -> list[dict[str, Any]]:
        """Interrupt it; everything that it printed. It has to end well and without complaint."""
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> list[dict[str, Any]]:
        """The same once it ends by itself."""
        said, complaints = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, complaints
        assert "Traceback" not in complaints
        self.lines += [json.loads(line) for line in said.splitlines()]
        return self.lines


@contextlib.contextmanager
def tracing(host: Place, *arguments: str) -> Iterator[Tracer]:
    """Trace in a host of a lab while the context is open, or until ``stop``."""
    command: Sequence[str] = [*lend(), *ACCORD, "trace", *arguments, "--json"]
    process = host.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        tracer = Tracer(process)
        tracer.wait_ready()
        yield tracer
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
