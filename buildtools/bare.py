# SPDX-License-Identifier: Apache-2.0
"""`./build.py bare`: what the README promises of a bare Debian 12 and a fresh clone, kept to the letter.

Each account (root without sudo; a user with it) gets a root file system of its own, made by mmdebstrap from the
host's apt sources: Debian's minimal set, no python3, no git, no compiler. The last commit is cloned into it and the
commands run there, in a mount and a PID namespace of their own: with the last process every mount is gone.
"""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any, Dict, Iterable, Sequence

from buildtools import minimal
from buildtools.console import LOGS, BuildFailure, become_root, say
from buildtools.host import require

# Of what the demo promises: case -> stack that has to come out.
STACKS = {
    "today-tls-tcp": ["http", "tls", "tcp"],
    "accord-tls-tcp": ["http", "tls", "tcp"],
    "accord-parallel-syn": ["http", "tls", "tcp"],
    "accord-quic": ["http", "quic"],
    "accord-tcp-early": ["http", "tcp"],
    "no-accord-peer": ["tls", "tcp"],
}
# A slice through every floor: the compiled core, XDP, kernel sockets, the lab, whole negotiations, the layers.
SLICE = "test_layers or test_core_types or xdp or tcp_repair or test_lab or test_negotiated_stacks or test_doctor"
SECOND_START_SECONDS = 3.0

ACCOUNTS = {
    "root": minimal.Account("root", (), "/root"),
    # adduser is what a person would have used; useradd of passwd is in the minimal set.
    "user": minimal.Account("accord-user", ("sudo",), "/home/accord-user"),
}


def run(names: Sequence[str], tests: str, whole: bool, directory: Path, keep: bool) -> int:
    """All accounts in turn. Returns the exit code; raises BuildFailure where a command broke its promise."""
    become_root(minimal.passed_on())
    require(minimal.NEEDED)
    changed = minimal.output("git", "status", "--porcelain", "--untracked-files=no")
    if changed:
        say(f"note: the clone is of the last commit, without your {len(changed.splitlines())} changed files")
    for name in names:
        with minimal.room(directory, keep) as place:
            _account(ACCOUNTS[name], place, [] if whole else ["-k", tests])
    say(f"a bare Debian 12 keeps the promises, as {' and as '.join(names)}")
    return 0


def _account(account: minimal.Account, place: Path, selection: Sequence[str]) -> None:
    """The commands of the README as one account, in a root made for it."""
    say(f"as {account.name}: making a minimal Debian 12 in {place}")
    minimal.make_root(account, place)
    for tool in ("python3", "git", "gcc", *(["sudo"] if account.name == "root" else [])):
        if _found(place, tool):
            raise BuildFailure(f"the minimal root has {tool}: it would prove nothing (whose packages are these?)")
    demo = ("demo", "--rtt", "20", "--repeats", "3", "--json")
    test = ("test", *selection)
    # Each command is the first one once: it has to do everything by itself.
    order = [("build",), demo, test] if account.name == "root" else [test, demo]
    for command in order:
        say(f"as {account.name}: ./build.py {shlex.join(command)} (to build/log/bare-{account.name}-{command[0]}.log)")
        minimal.inside(account, place, f"bare-{account.name}-{command[0]}", ["./build.py", *command])
        if command is demo:
            check_demo(_log(account, "demo"))
        if command is test:
            say(f"  {_last_line(_log(account, 'test'))}")
    _second_start(account, place)
    _check_clean(account, place)


def _second_start(account: minimal.Account, place: Path) -> None:
    """With nothing changed everything before the work itself is over soon: `build` has no other work."""
    say(f"as {account.name}: ./build.py build, a second time")
    begin = time.monotonic()
    minimal.inside(account, place, f"bare-{account.name}-again", ["./build.py", "build"])
    took = time.monotonic() - begin
    if took > SECOND_START_SECONDS:
        raise BuildFailure(f"the second start took {took:.1f} s before any work, more than {SECOND_START_SECONDS} s")


def check_demo(log: Path) -> None:
    """The stacks that the demo's JSON, its last line, has to show. Numbers are the tests' business."""
    result: Dict[str, Any] = json.loads(_last_line(log))
    stacks = {case["name"]: case["stack"] for case in result["cases"]}
    if stacks != STACKS:
        raise BuildFailure(f"the demo came to other stacks than it should: {stacks}")
    rows = ", ".join(f"{case['name']} {case['ready_rtts']}/{case['first_response_rtts']}" for case in result["cases"])
    say(f"  {result['backend']}, attach {result['attach_mode']}; ready/first response in round trips: {rows}")


def _check_clean(account: minimal.Account, place: Path) -> None:
    """After `clean` the clone is as it came: nothing is left of what was made, be it root's or the user's."""
    say(f"as {account.name}: ./build.py clean")
    minimal.inside(account, place, f"bare-{account.name}-clean", ["./build.py", "clean"])
    tree = place / account.clone.lstrip("/")
    command = ["git", "-c", f"safe.directory={tree}", "-C", str(tree), "status", "--porcelain", "--ignored"]
    left = minimal.output(*command)
    if left:
        raise BuildFailure(f"./build.py clean left behind, or a command changed:\n{left}")


# ---- Small things -------------------------------------------------------------------------------------------


def _found(place: Path, tool: str) -> bool:
    return any((place / directory / tool).exists() for directory in ("usr/bin", "usr/sbin", "usr/local/bin"))


def _log(account: minimal.Account, command: str) -> Path:
    return LOGS / f"bare-{account.name}-{command}.log"


def _last_line(log: Path) -> str:
    lines: Iterable[str] = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.strip()][-1]
