# SPDX-License-Identifier: Apache-2.0
"""A slice of the fail-open benchmark: daemons killed, hung and upgraded, and that nobody else lost anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench" / "failopen.py"

pytestmark = pytest.mark.root


def test_a_slice_of_the_benchmark_prints_one_object_and_others_lost_nothing() -> None:
    command = [sys.executable, str(BENCH), "--kills", "3", "--hangs", "1", "--upgrades", "1", "--rate", "20", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["kills"], result["hangs"]) == (3, 1)
    assert result["host_sent"] > 0
    assert result["host_lost"] == 0
    assert result["tcp_stalls"] <= 0
    assert result["tcp_bytes"] > 0
    assert result["hung_failopen_ms_max"] > result["port_blackhole_ms_max"] > 0
    assert (result["upgrades"], result["upgrade_failed"]) == (1, 0)
    assert result["upgrade_negotiations"] > 0
    assert (result["upgrade_host_lost"], result["upgrade_host_sent"] > 0) == (0, True)
    assert result["restart_ms_p99"] >= result["restart_ms_p50"] > 0
