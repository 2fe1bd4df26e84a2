# SPDX-License-Identifier: Apache-2.0
"""No decision depends on a clock that somebody can set (threat model, row 27)."""

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest

from accord.controller.recursion import Wall
from accord.datapath import clock

PACKAGE = Path(__file__).parents[1] / "ctrl/accord"
ELSEWHERE = ("lab/", "cli/", "protocols/authority.py")
"""What measures, shows, or makes certificates, for which the time of day is what is asked for."""
WALL = {
    "controller/recursion.py": "read once, and counted on by CLOCK_BOOTTIME from there",
    "controller/counts.py": "when the daemon started, for who looks at it",
    "controller/peers/keeper.py": "what is written down outlives a boot, and no belief gets longer by it",
    "controller/load/keeper.py": "keys that several hosts share, and that outlive a boot",
    "datapath/attached.py": "when a program was loaded, for who reads whose it is",
}
"""Where the time of day is meant, and why."""
_SET = {"time", "time_ns", "localtime", "gmtime", "CLOCK_REALTIME", "now", "utcnow", "today"}


def reads(path: Path) -> set[str]:
    """Clocks that can be set, by the names under which Python has them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module, name = node.value.id, node.attr
            if (module == "time" and name in _SET) or (module in ("datetime", "date") and name in _SET):
                found.add(f"{module}.{name}")
    return found


def test_no_module_reads_a_clock_that_can_be_set() -> None:
    reading = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        if not name.startswith(ELSEWHERE) and (found := reads(path)):
            reading[name] = found
    assert set(reading) <= set(WALL), reading


def test_a_clock_that_is_read_is_found() -> None:
    for name in ("counts.py", "recursion.py"):
        assert reads(PACKAGE / "controller" / name) == {"time.time"}


def test_ours_is_the_one_that_nobody_can_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= clock.now() <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert int(before * 1e6) <= clock.now_us()


def test_the_time_of_day_goes_on_evenly_though_somebody_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Wall()
    began = wall()
    monkeypatch.setattr("time.time", lambda: began + 86400)
    assert 0 <= wall() - began < 60
