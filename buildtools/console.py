# SPDX-License-Identifier: Apache-2.0
"""Running commands: what is happening on one line, everything that they say in a log, root where needed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Mapping, NoReturn, Sequence

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LOGS = BUILD / "log"

# How long an interrupted command gets to clean up (the lab removes namespaces) before it is terminated.
INTERRUPT_SECONDS = 15


class BuildFailure(Exception):
    """What went wrong and the command that mends it; printed without a traceback, exit code 1."""


class StepFailure(BuildFailure):
    """A command ended with an error that its own output, already shown, explains."""


def say(text: str) -> None:
    """One progress line."""
    print(f"[accord] {text}", flush=True)


def relative(path: Path) -> str:
    """For messages: as seen from the project's root."""
    return os.path.relpath(path, ROOT)


def as_root(command: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
    """``command`` such that it runs as root: as it is when we are root, else through sudo.

    sudo drops the environment, so what the command needs of it is handed over by env(1).
    Raises BuildFailure where there is neither.
    """
    if os.geteuid() == 0:
        return list(command)
    sudo = shutil.which("sudo")
    if sudo is None:
        raise BuildFailure(
            f"this needs root, and there is no sudo: become root (su -), then run it again: {' '.join(sys.argv)}"
        )
    variables = [f"{name}={value}" for name, value in (environment or {}).items()]
    return [sudo, *(["env", *variables] if variables else []), *command]


def finish(process: subprocess.Popen[bytes]) -> int:
    """Wait for a command; after Ctrl-C (which it got too, being in our process group) let it clean up."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:
            process.wait(INTERRUPT_SECONDS)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            process.terminate()
            process.wait()
        raise


def live(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run with the terminal as it is; returns the exit code."""
    return finish(_start(command, environment))


def step(name: str, command: Sequence[str], environment: Mapping[str, str] | None = None, mend: str = "") -> None:
    """Run with the output in ``build/log/NAME.log``; on failure print all of it and raise StepFailure."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name}.log"
    started = time.monotonic()
    with log.open("wb") as output:
        output.write(f"$ {' '.join(command)}\n".encode())
        output.flush()
        code = finish(_start(command, environment, output))
    if code != 0:
        sys.stdout.write(log.read_text(encoding="utf-8", errors="replace"))
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise StepFailure(f"{name} failed ({cause}); the output above is in {relative(log)}" + (mend and f"\n{mend}"))
    say(f"  {name}: done in {time.monotonic() - started:.1f} s")


def replace(command: Sequence[str], environment: Mapping[str, str] | None = None) -> NoReturn:
    """Become the command: signals, terminal and exit code are then entirely its own."""
    sys.stdout.flush()
    merged = {**os.environ, **(environment or {})}
    try:
        os.execvpe(command[0], list(command), merged)
    except OSError as error:
        raise BuildFailure(f"cannot run {command[0]}: {error.strerror}") from error


def _start(
    command: Sequence[str], environment: Mapping[str, str] | None, output: object = None
) -> subprocess.Popen[bytes]:
    merged = {**os.environ, **(environment or {})}
    errors = None if output is None else subprocess.STDOUT
    try:
        return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
            list(command), cwd=ROOT, env=merged, stdin=None, stdout=output, stderr=errors
        )
    except OSError as error:
        raise BuildFailure(f"cannot run {command[0]}: {error.strerror}") from error
