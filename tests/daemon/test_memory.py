# SPDX-License-Identifier: Apache-2.0
"""The reserve for many negotiations at once: what was taken once is neither given back nor taken again."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from pathlib import Path
from accord.daemon.memory import Reserve

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def many(count):
    sizes = [*range(16, 480, 16), 5000, 8000, 30000]
    return [[b"x" * size for size in sizes] for _ in range(count)]

reserve = Reserve(128)
reserve.look(31)
print(reserve.taken, end=" ")
before = resident()
reserve.look(32)
taken = resident()
print(reserve.taken, taken - before, end=" ")
reserve.look(1000)
again = resident()
for count in (100, 30, 90, 120):
    kept = many(count)
    del kept
print(again - taken, resident() - again)
"""


def test_what_many_negotiations_need_is_taken_once_and_their_coming_and_going_takes_no_more() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    few, many, taken, again, after = done.stdout.split()
    assert (few, many) == ("False", "True"), "a quiet host takes none"
    assert int(taken) > 128 * 80_000
    assert int(again) < 1 << 16, "taken twice"
    assert abs(int(after)) < int(taken) // 16, "neither given back nor exceeded"
