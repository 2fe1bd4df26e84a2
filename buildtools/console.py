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
from typing import IO, Callable, Mapping, NoReturn, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LOGS = BUILD / "log"

# How long an interrupted command gets to clean up (the lab removes namespaces) before it is killed.
INTERRUPT_SECONDS = 15
# How often that deadline is looked at.
WAIT_SECONDS = 0.5


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


def become_root(environment: Mapping[str, str]) -> None:
    """Start ``build.py`` anew through sudo, with the same arguments, where we are not root. Raises BuildFailure."""
    if os.geteuid() != 0:
        # Made while we are still the owner of the tree: else no later step without root could write there.
        LOGS.mkdir(parents=True, exist_ok=True)
        replace(as_root([sys.executable, str(ROOT / "build.py"), *sys.argv[1:]], environment))


def live(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
    *,
    meanwhile: Optional[Callable[[], None]] = None,
) -> int:
    """Run a command to its end, on the terminal unless ``output`` is given; returns the exit code. ``meanwhile`` is
    called every half second as long as it runs.

    Ctrl-C reaches the command too, being in our process group. It gets time to clean up, and only then is the
    KeyboardInterrupt raised here. The handler notes rather than raises, so no moment is left, between fork and
    wait, in which an interrupt would leave the command alone.
    """
    deadlines: list[float] = []

    def note(*_: object) -> None:
        deadlines.append(time.monotonic() + INTERRUPT_SECONDS)

    previous = signal.signal(signal.SIGINT, note)
    try:
        process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
        )
        while True:
            try:
                code = process.wait(WAIT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if deadlines and time.monotonic() > deadlines[0]:
                    process.kill()
            if meanwhile is not None:
                meanwhile()
    except OSError as error:
        raise BuildFailure(f"cannot run {command[0]}: {error.strerror}") from error
    finally:
        signal.signal(signal.SIGINT, previous)
    if deadlines:
        raise KeyboardInterrupt
    return code


def step(name: str, command: Sequence[str], environment: Mapping[str, str] | None = None, mend: str = "") -> None:
    """Run with the output in ``build/log/NAME.log``; on failure print all of it and raise StepFailure."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name}.log"
    started = time.monotonic()
    # Root's from another time can be removed by who owns the tree, but not written to.
    log.unlink(missing_ok=True)
    with log.open("wb") as output:
        output.write(f"$ {' '.join(command)}\n".encode())
        output.flush()
        code = live(command, environment, output)
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
