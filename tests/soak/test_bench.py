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
from soak import KINDS, NOTHING_BYTES, Look, curve, slope

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
    assert 0.88 <= within / 300 <= 0.99, "two standard errors of twenty batches hold 94 of 100"


def test_memory_that_goes_up_and_down_more_slowly_than_it_is_looked_at_has_the_larger_error() -> None:
    chance = random.Random(3)
    within = 0
    for _ in range(300):
        drift, points = 0.0, []
        for at in range(1000):
            drift = 0.9 * drift + chance.gauss(0, 50)
            points.append((float(at), 2.0 * at + drift))
        found = slope(points)
        within += abs(found.by - 2.0) <= 2 * found.error
    assert within / 300 >= 0.85, "and looks taken for independent hold 35 of 100"


def test_the_least_that_is_called_a_leak_is_less_than_one_object_of_the_rarest_kind() -> None:
    rarest = min(KINDS.values()) / sum(KINDS.values())
    leak = [(float(at), float(int(at * rarest) * 16)) for at in range(0, 100_000, 100)]
    assert not slope(leak).flat
    assert slope([(x, y * NOTHING_BYTES / 0.4) for x, y in leak]).flat


@pytest.mark.parametrize("count", [0, 1, 2, 24, 25, 26, 4000])
def test_the_curve_has_the_first_and_the_last_look_and_no_more_than_can_be_read(count: int) -> None:
    looks = [Look(at, at << 20, 5) for at in range(count)]
    found = curve(looks)
    assert len(found) == min(count, 25)
    assert found[:1] + found[-1:] == [(look.done, look.rss >> 10) for look in looks[:1] + looks[-1:]]
    assert found == sorted(set(found))


def test_a_leak_is_not_flat_and_noise_alone_is() -> None:
    chance = random.Random(2)
    noise = [chance.gauss(0, 4096) for _ in range(200)]
    leaking = slope([(100.0 * at, 100.0 * at * 4 + noise[at]) for at in range(200)])
    assert not leaking.flat
    assert leaking.by == pytest.approx(4, rel=0.1)
    falling = slope([(float(at), -1.0 * at) for at in range(50)])
    assert falling.flat
    assert slope([(1.0, 1.0)] * 2).error == math.inf
