# SPDX-License-Identifier: Apache-2.0
"""A slice of the fail-open benchmark: daemons killed and hung, and that nobody else lost anything.

Upgrades are tested one by one (``test_upgrade.py``); under load, where one attempt in thousands has failed, they are
the benchmark's: ``./build.py bench failopen --upgrades N --rate R``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench" / "failopen.py"

pytestmark = pytest.mark.root


def test_a_slice_of_the_benchmark_prints_one_object_and_others_lost_nothing() -> None:
    command = [sys.executable, str(BENCH), "--kills", "3", "--hangs", "1", "--upgrades", "0", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["kills"], result["hangs"]) == (3, 1)
    assert result["host_sent"] > 0
    assert result["host_lost"] == 0
    assert result["tcp_stalls"] <= 0
    assert result["tcp_bytes"] > 0
    assert result["hung_failopen_ms_max"] > result["port_blackhole_ms_max"] > 0
    assert result["restart_ms_p99"] >= result["restart_ms_p50"] > 0
