# SPDX-License-Identifier: Apache-2.0
"""Any number of strangers leaves a process as it was. ``./build.py bench strangers`` asks the same of 20,000."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench/strangers.py"
# The allocators' own: a waiting pyOpenSSL server, for one, would be 67 KiB.
ALLOWED_KIB = 1024


def test_strangers_leave_neither_memory_nor_descriptors_nor_negotiations() -> None:
    command = [sys.executable, str(BENCH), "--strangers", "1200", "--warm-up", "500", "--json"]
    environment = {"PYTHONPATH": ":".join([str(BENCH.parent), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["answered"] == measured["strangers"] == 1700
    assert measured["slots"] > 0
    assert measured["transactions"] == measured["in_flight"] == 0
    assert measured["rss_growth_kib"] < ALLOWED_KIB
    assert measured["descriptors_growth"] <= 0
    assert measured["answer_bytes"] <= measured["proposal_bytes"]
