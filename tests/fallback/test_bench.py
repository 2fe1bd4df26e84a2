# SPDX-License-Identifier: Apache-2.0
"""Slices of ``./build.py bench fallback``: some paths, both peers, the crowd and the guesses.

What takes how long is the benchmark's to say; that every connection comes up, over what, and that nothing is doubled,
lost or left behind, is said here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from accord.lab import state

BENCH = Path(__file__).resolve().parents[2] / "bench" / "fallback.py"

pytestmark = pytest.mark.root


def bench(*arguments: str, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    command = [sys.executable, str(BENCH), "--json", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode in codes, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def matrix() -> dict[tuple[str, str, str], dict[str, Any]]:
    found = bench("--runs", "4", "--paths", "nat-two,strict")
    return {(row["path"], row["peer"], row["contact"]): row for row in found["rows"]}


@pytest.mark.parametrize("path", ["nat-two", "strict"])
@pytest.mark.parametrize("peer", ["accord", "legacy"])
def test_every_connection_comes_up_with_or_without_accord_on_the_path(
    matrix: dict[tuple[str, str, str], dict[str, Any]], path: str, peer: str
) -> None:
    row = matrix[path, peer, "any"]
    negotiable = peer == "accord"
    # Four, or where chance could have decided about a peer without Accord, up to four times as many.
    assert row["ok"] == row["n"] == row["plain_ok"] in ((4,) if negotiable else (4, 8, 12, 16))
    assert row["first_ok"] == row["first_n"]
    assert row["doubled"] == 0
    assert "failures" not in row
    assert row["stack"] == (["http", "tls", "tcp"] if negotiable else ["tls", "tcp"])
    assert row["negotiated"] == (4 if negotiable else 0)
    if not negotiable:
        assert "OK" not in row["reasons"], "a fallback has a reason"
    assert row["round_trips"] is not None
    assert row["added_ms_p50"] is not None
    assert row["why"]


@pytest.mark.parametrize("path", ["nat-two", "strict"])
def test_first_contacts_with_a_legacy_peer_are_a_row(
    matrix: dict[tuple[str, str, str], dict[str, Any]], path: str
) -> None:
    row = matrix[path, "legacy", "first"]
    assert row["ok"] == row["n"] == row["plain_ok"] == matrix[path, "legacy", "any"]["first_n"] > 0
    assert (row["stack"], row["negotiated"]) == (["tls", "tcp"], 0)
    assert "KNOWN_LEGACY" not in row["reasons"], "nothing was known of the peer"
    assert (path, "accord", "first") not in matrix


def test_a_crowd_over_a_bad_path_leaves_nothing_doubled_lost_stuck_or_behind() -> None:
    found = bench("--mixed", "200", "--seed", "7")["mixed"]
    assert found["met"], found
    assert found["ok"] + found["given_up"] == 200
    assert found["given_up"] > 0
    assert found["answered"] >= found["ok"]
    assert len([name for name in found["outcomes"] if name.endswith(": ok")]) == 12, "every kind took part"


def test_a_flood_of_guessed_ids_disturbs_nobody() -> None:
    found = bench("--guesses", "10000", "--seed", "7")["guesses"]
    assert found["met"], found
    assert found["guesses"] == 10000
    assert found["ok"] == found["negotiated"] == found["connections"] > 0
    assert found["steering"].get("SYN_SUPPRESSED", 0) <= found["connections"]
    assert found["steering"]["SYN_ADOPT"] >= 5000, "the guesses were looked at"


def test_ctrl_c_ends_the_benchmark_and_takes_its_lab_down() -> None:
    command = [sys.executable, str(BENCH), "--runs", "10000", "--paths", "router", "--json"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        name = f"fallback-{process.pid}"
        deadline = time.monotonic() + 30
        while ((found := state.read(name)) is None or not found.kind) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert found is not None, "its lab came up"
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    result = json.loads(output)
    assert (process.returncode, result["interrupted"], result["rows"]) == (130, True, [])
    assert not state.there_is(name)


def test_a_path_that_there_is_not_is_named_with_those_that_there_are() -> None:
    done = subprocess.run([sys.executable, str(BENCH), "--paths", "garden"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "garden" in done.stderr
    assert "option-stripped" in done.stderr
