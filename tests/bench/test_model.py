# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the negotiation model runs, so that it does not rot; its long chains are what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


@pytest.mark.root
def test_a_short_run_prints_a_row_for_each_case_and_a_flight_for_each_loss() -> None:
    options = ("--runs", "1", "--cases", "basic", "--rtt", "20", "--flight-runs", "1", "--losses", "0")
    done = run(sys.executable, "bench/model.py", *options, "--flight-bytes", "3000", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (row,) = result["rows"]
    assert (row["case"], row["minimum"], row["n"]) == ("basic", 1, 1)
    assert row["round_trips"] >= 1
    (flight,) = result["flights"]
    assert 2997 <= flight["bytes"] <= 3003
    for kind in ("accord", "accord_first", "quic"):
        assert flight[kind]["failed"] == 0
        assert flight[kind]["median_ms"] >= 20


def test_a_case_or_a_loss_that_there_is_not_is_refused_with_what_there_is() -> None:
    unknown = run(sys.executable, "bench/model.py", "--cases", "nobody")
    assert unknown.returncode == 2
    assert "there is: " in unknown.stderr
    assert "basic" in unknown.stderr
    assert run(sys.executable, "bench/model.py", "--losses", "1,much").returncode == 2


@pytest.mark.parametrize("size", [4000, 20 * 1024, 60_000])
def test_a_long_chain_has_the_size_that_was_asked_for_and_openssl_verifies_it(tmp_path: Path, size: int) -> None:
    script = "import sys; sys.path.insert(0, 'bench'); import _chain, pathlib; "
    script += f"print(_chain.make(pathlib.Path({str(tmp_path)!r}) / 'c', ['a.test'], {size}).size)"
    made = run(sys.executable, "-c", script)
    assert made.returncode == 0, made.stderr
    chain = tmp_path / "c" / "chain.pem"
    verified = run(
        "openssl", "verify", "-CAfile", str(tmp_path / "c" / "root.pem"), "-untrusted", str(chain), str(chain)
    )
    assert verified.returncode == 0, verified.stderr
    bodies = chain.read_text().split("-----BEGIN CERTIFICATE-----")[1:]
    assert len(bodies) == 3
    der = [
        subprocess.run(
            ["openssl", "x509", "-outform", "DER"],
            input=("-----BEGIN CERTIFICATE-----" + body).encode(),
            capture_output=True,
            check=True,
        ).stdout
        for body in bodies
    ]
    assert sum(map(len, der)) == int(made.stdout)
    assert abs(int(made.stdout) - size) <= 3
