# SPDX-License-Identifier: Apache-2.0
"""A slice of ``./build.py bench soak``, and the line that it draws."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
from soak import slope

BENCH = Path(__file__).resolve().parents[2] / "bench" / "soak.py"


@pytest.mark.root
def test_many_negotiations_of_all_kinds_leave_a_daemon_with_the_descriptors_that_it_had() -> None:
    command = [
        sys.executable,
        str(BENCH),
        "--negotiations",
        "60",
        "--settle",
        "4",
        "--kinds",
        "tcp,tls,aborted,given up",
    ]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["negotiations"], result["failed"]) == (60, 0), result
    assert {"tcp: ok", "tls: ok", "aborted: ok", "given up: ok"} == set(result["outcomes"])
    assert result["descriptors_end"] <= result["descriptors_start"] + 1, "one for TLS's own randomness, at most"
    assert (result["in_flight_end"], result["associations_end"]) == (0, 0)
    assert result["plugin_troubles"] == []


def test_the_slope_is_that_of_the_line_and_its_error_that_of_the_noise() -> None:
    exact = slope([(x, 3.0 * x + 5) for x in range(10)])
    assert exact.by == pytest.approx(3)
    assert exact.error == pytest.approx(0, abs=1e-9)
    chance = random.Random(1)
    within = 0
    for _ in range(300):
        found = slope([(x, 2.0 * x + chance.gauss(0, 50)) for x in range(100)])
        within += abs(found.by - 2.0) <= 2 * found.error
    assert 0.9 <= within / 300 <= 0.99, "two standard errors hold 95 of 100"


def test_a_leak_is_not_flat_and_noise_alone_is() -> None:
    chance = random.Random(2)
    noise = [chance.gauss(0, 4096) for _ in range(200)]
    leaking = slope([(100.0 * at, 100.0 * at * 4 + noise[at]) for at in range(200)])
    assert not leaking.flat
    assert leaking.by == pytest.approx(4, rel=0.1)
    falling = slope([(float(at), -1.0 * at) for at in range(50)])
    assert falling.flat
    assert slope([(1.0, 1.0)] * 2).error == math.inf
