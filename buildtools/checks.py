# SPDX-License-Identifier: Apache-2.0
"""What `./build.py test` runs.

pytest, and beside it all other checks; pytest's summary is the last thing on the screen in any case. A check that fails
does not keep the others from running: one run shows everything that is wrong.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Optional, Sequence

from buildtools.beside import Beside, Job, Shown
from buildtools.console import BUILD, ROOT, BuildFailure, as_root, live, say
from buildtools.environment import PYTHON, VENV
from buildtools.stamps import Stamp, digest, files

C_SOURCES = ("dataplane_c/*/*.[ch]", "ebpf/*.[ch]", "include/accord/*.h")
TIDIED = r"dataplane_c/(src|lab|bench)/(?!test_)[^.]*\.c$"
PYTHON_SOURCES = ("build.py", "setup.py", "buildtools", "ctrl", "sim", "fuzz", "tests", "bench", "vagrant")


C_FLAGS = "-std=c11 -D_GNU_SOURCE -Iinclude -Idataplane_c/src -Idataplane_c/tests"
# As setup.py compiles them; the headers of this machine's own architecture are not on clang's path then.
BPF_FLAGS = f"-target bpf -O2 -mcpu=v3 -Iinclude -Iebpf -isystem /usr/include/{os.uname().machine}-linux-gnu"

# Most tests wait: for a round trip, a timer, a process. Whole files to a process each, so that a lab which a file's
# tests share is made once, and in the order of their names: the long ones do not come last.
PROCESSES = max(3, min(4, os.cpu_count() or 1))
SIDE_BY_SIDE = ("-n", str(PROCESSES), "--dist", "loadfile", "--no-loadscope-reorder")

# A check that takes long, and whose verdict is the same as long as its input is: name -> what it depends on.
CACHED = dict.fromkeys(("clang-tidy", "clang-tidy-bpf"), (*C_SOURCES, ".clang-tidy"))


def run(quick: bool, expression: Optional[str], rest: Sequence[str], fuzz_seconds: int) -> int:
    """All checks, or only pytest where its tests were chosen. Returns the exit code."""
    if expression is not None or rest:
        say("pytest")
        code = live(pytest(*(("-k", expression) if expression is not None else ()), *rest))
        if code:
            say("FAILED: pytest")
        return 1 if code else 0
    if os.geteuid() != 0 and live(as_root(["true"])):
        raise BuildFailure("these tests need root: become root (su -), then run it again")
    shown = Shown()
    beside = Beside(jobs(quick, fuzz_seconds), tell=shown.tell)
    say(f"pytest, and beside it {', '.join(job.name for job in beside.jobs)}")
    colour = ["--color=yes"] if sys.stdout.isatty() else []
    try:
        failed = ["pytest"] if shown.run(pytest(*SIDE_BY_SIDE, *colour), None, beside.turn) else []
        late = not beside.over or bool(beside.failed)
        beside.finish()
    except KeyboardInterrupt:
        beside.stop()
        raise
    if late:
        print(shown.last_line, flush=True)
    failed = [*(job.name for job in beside.failed), *failed]
    if failed:
        say(f"FAILED: {', '.join(failed)}")
        return 1
    return 0


def jobs(quick: bool, fuzz_seconds: int) -> "list[Job]":
    """All that runs beside pytest, but what passed with the same input before; the longest first."""
    wanted = []
    if not quick and fuzz_seconds > 0:
        # One target at a time: the other processor is for the other checks. One seed: whether a commit passes depends
        # on what it changed; what nobody has met yet is for campaigns (docs/FUZZING.md).
        slices = ["--each", str(fuzz_seconds), "--at-once", "1", "--no-coverage", "--seed", "1"]
        wanted.append(Job("fuzz", [sys.executable, str(ROOT / "build.py"), "fuzz", *slices]))
    for name, command in static_checks(quick):
        stamp = Stamp(BUILD / "stamp" / name, digest(files(*CACHED.get(name, ())), *command))
        if name in CACHED and stamp.fresh():
            say(f"{name}: nothing changed since it passed")
        else:
            wanted.append(Job(name, command, stamp.set if name in CACHED else _nothing))
    return wanted


def _nothing() -> None:
    """Nothing is kept of it."""


def static_checks(quick: bool) -> list[tuple[str, list[str]]]:
    """Name and command of everything but fuzzing and pytest."""
    c_files = [str(path.relative_to(ROOT)) for path in files(*C_SOURCES)]
    python = [path for path in PYTHON_SOURCES if (ROOT / path).exists()]
    ruff = str(VENV / "bin/ruff")
    checks = [
        ("mypy", [str(PYTHON), "-m", "mypy", *(path for path in python if path != "setup.py")]),
        ("c-core", ["make", f"-j{os.cpu_count() or 1}", "-C", "dataplane_c", "test"]),
        ("c-lab", ["make", "-C", "dataplane_c/lab", "test"]),
        ("ruff", [ruff, "check", *python]),
        ("ruff-format", [ruff, "format", "--check", *python]),
        ("clang-format", ["clang-format", "--dry-run", "--Werror", *c_files]),
    ]
    if not quick:
        checks.append(("clang-tidy", tidy([path for path in c_files if re.match(TIDIED, path)], C_FLAGS)))
        checks.append(("clang-tidy-bpf", tidy([path for path in c_files if path.endswith(".bpf.c")], BPF_FLAGS)))
    return checks


def tidy(c_files: Sequence[str], flags: str) -> list[str]:
    """clang-tidy on all processors; it has no way to do that itself, and one file knows nothing of the others."""
    each = f'clang-tidy --quiet "$@" -- {flags}'
    pipeline = f"""printf '%s\\n' "$@" | xargs -n 2 -P {os.cpu_count() or 1} sh -c '{each}' tidy"""
    return ["sh", "-c", pipeline, "tidy", *c_files]


def pytest(*arguments: str) -> list[str]:
    """pytest as root, so that nothing skips for want of it."""
    # Root's caches would be in the way of the next run without root.
    environment = {"PYTHONDONTWRITEBYTECODE": "1"} if os.geteuid() != 0 else {}
    return as_root([str(PYTHON), "-m", "pytest", *arguments], environment)
