# SPDX-License-Identifier: Apache-2.0
"""What `./build.py test` and `./build.py fuzz` run.

The cheap and certain checks come first, pytest last, so that its summary is the last thing on the screen.
A check that fails does not keep the others from running: one run shows everything that is wrong.
"""

from __future__ import annotations

import os
import re
from typing import Optional, Sequence

from buildtools.console import BUILD, ROOT, BuildFailure, as_root, live, say, step
from buildtools.environment import PYTHON, VENV
from buildtools.stamps import Stamp, digest, files

C_SOURCES = ("dataplane_c/*/*.[ch]", "ebpf/*.[ch]", "include/accord/*.h")
TIDIED = r"dataplane_c/(src|lab|bench)/(?!test_)[^.]*\.c$"
PYTHON_SOURCES = ("build.py", "setup.py", "buildtools", "ctrl", "sim", "tests", "bench", "vagrant")


C_FLAGS = "-std=c11 -D_GNU_SOURCE -Iinclude -Idataplane_c/src -Idataplane_c/tests"
# As setup.py compiles them; the headers of this machine's own architecture are not on clang's path then.
BPF_FLAGS = f"-target bpf -O2 -mcpu=v3 -Iinclude -Iebpf -isystem /usr/include/{os.uname().machine}-linux-gnu"

XDP = "xdp"
"""The fuzz target that is no libFuzzer program: dataplane_c/campaign."""

# Most tests wait: for a round trip, a timer, a process. Whole files to a process each, so that a lab which a file's
# tests share is made once, and in the order of their names: the long ones do not come last.
PROCESSES = max(3, min(4, os.cpu_count() or 1))
SIDE_BY_SIDE = ("-n", str(PROCESSES), "--dist", "loadfile", "--no-loadscope-reorder")

# A check that takes long, and whose verdict is the same as long as its input is: name -> what it depends on.
CACHED = dict.fromkeys(("clang-tidy", "clang-tidy-bpf"), (*C_SOURCES, ".clang-tidy"))


def run(quick: bool, expression: str | None, rest: Sequence[str], fuzz_seconds: int) -> int:
    """All checks, or only pytest where its tests were chosen. Returns the exit code."""
    failed = []
    whole = expression is None and not rest
    if whole:
        failed += [name for name, command in static_checks(quick) if not attempt(name, command)]
        if not quick and fuzz(fuzz_targets(), fuzz_seconds) != 0:
            failed.append("fuzz")
    selection = SIDE_BY_SIDE if whole else ("-k", expression) if expression is not None else ()
    say("pytest")
    if live(pytest(*selection, *rest)) != 0:
        failed.append("pytest")
    if failed:
        say(f"FAILED: {', '.join(failed)}")
        return 1
    return 0


def attempt(name: str, command: Sequence[str]) -> bool:
    """One check; its whole output is shown when it fails."""
    stamp = Stamp(BUILD / "stamp" / name, digest(files(*CACHED.get(name, ())), *command))
    if name in CACHED and stamp.fresh():
        say(f"{name}: nothing changed since it passed")
        return True
    say(name)
    try:
        step(name, command)
    except BuildFailure as error:
        say(f"  {error}")
        return False
    if name in CACHED:
        stamp.set()
    return True


def static_checks(quick: bool) -> list[tuple[str, list[str]]]:
    """Name and command of everything but fuzzing and pytest."""
    c_files = [str(path.relative_to(ROOT)) for path in files(*C_SOURCES)]
    python = [path for path in PYTHON_SOURCES if (ROOT / path).exists()]
    ruff = str(VENV / "bin/ruff")
    checks = [
        ("c-core", ["make", f"-j{os.cpu_count() or 1}", "-C", "dataplane_c", "test"]),
        ("c-lab", ["make", "-C", "dataplane_c/lab", "test"]),
        ("ruff", [ruff, "check", *python]),
        ("ruff-format", [ruff, "format", "--check", *python]),
        ("mypy", [str(PYTHON), "-m", "mypy", *(path for path in python if path != "setup.py")]),
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


def fuzz_targets() -> list[str]:
    """One for each dataplane_c/fuzz/fuzz_NAME.c, and the XDP program's."""
    return [*(path.stem[len("fuzz_") :] for path in files("dataplane_c/fuzz/fuzz_*.c")), XDP]


def fuzz(targets: Sequence[str], seconds: int, packets: Optional[int] = None, seed: Optional[int] = None) -> int:
    """Each target for so long. ``packets`` and ``seed`` are the XDP program's. Returns 0 when none found anything."""
    worst = 0
    for target in targets:
        length = f"for {seconds} s" if packets is None else f"with {packets} packets of each family"
        say(f"fuzzing {target} {length}")
        try:
            if target == XDP:
                campaign(seconds, packets, seed)
            else:
                command = ["make", "-C", "dataplane_c", "fuzz", f"TARGET={target}", f"SECONDS={seconds}"]
                step(f"fuzz-{target}", command)
        except BuildFailure as error:
            say(f"  {error}")
            worst = 1
    return worst


def campaign(seconds: int, packets: Optional[int], seed: Optional[int]) -> None:
    """The XDP program over random packets, as root, its progress on the terminal. Raises BuildFailure."""
    step("fuzz-xdp", ["make", "-C", "dataplane_c/campaign"])
    command = ["build/campaign/xdp-campaign", "--object", "ctrl/accord/datapath/accord_xdp.bpf.o"]
    # Half of the time for each of the two families.
    command += ["--seconds", str(max(1, seconds // 2))] if packets is None else ["--packets", str(packets)]
    command += [] if seed is None else ["--seed", str(seed)]
    code = live(as_root(command))
    if code != 0:
        raise BuildFailure(f"the XDP campaign failed (exit code {code}); the packet is above")
