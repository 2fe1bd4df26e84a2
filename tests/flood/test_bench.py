# SPDX-License-Identifier: Apache-2.0
"""A slice of ``./build.py bench flood``: honest initiators come through, nothing grows, nobody is amplified at."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import _flood_rates
import _native
import _threaded
import flood
import pytest
from _flooding import Flooding, Plan
from click import ClickException
from click.testing import CliRunner

from accord.lab.pair import pair

BENCH = Path(__file__).resolve().parents[2] / "bench" / "flood.py"


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    _native.build()
    slice_ = flood.Measurement([("proposals", 6), ("replayed", 4)], [50_000.0], 0.5)
    slice_.answers = slice_.control = False
    slice_.run()
    return {row["kind"]: row for row in slice_.rows}


@pytest.mark.root
@pytest.mark.parametrize("kind", ["proposals/6", "replayed"])
def test_under_a_flood_honest_initiators_come_up_and_the_daemon_stays_as_it_is(
    rows: dict[str, dict[str, Any]], kind: str
) -> None:
    row = rows[kind]
    assert row["honest"] > 0
    assert row["honest_ok"] >= 0.95, row
    assert 0 < row["amplification"] <= 1, "what came back was counted, and is less than what was sent"
    assert (row["state_growth_fds"], row["state_growth_maps"]) == (0, 0)
    assert row["state_growth_bytes"] < 1 << 20, row
    assert row["bystander_sent"] > row["bystander_lost"]


@pytest.mark.root
def test_a_flood_without_cookies_is_answered_by_challenges_and_a_replayed_cookie_opens_one_transaction(
    rows: dict[str, dict[str, Any]],
) -> None:
    assert rows["proposals/6"]["level"] == 2
    assert rows["proposals/6"]["reasons"]["CHALLENGED"] > 1000
    assert rows["replayed"]["reasons"]["DUPLICATE"] > 1000
    assert rows["replayed"]["cookie_rate"] > 0, "it is acknowledged again and again"


@pytest.mark.root
def test_ctrl_c_ends_the_benchmark_says_what_there_is_and_leaves_no_process() -> None:
    command = [sys.executable, str(BENCH), "--seconds", "60", "--rates", "0.01", "--kinds", "proposals"]
    command += ["--no-answers", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        deadline = time.monotonic() + 60
        while not (floods := children(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert floods, "the flood began"
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=40)
    result = json.loads(output)
    assert (process.returncode, result["interrupted"], result["rows"]) == (130, True, [])
    assert not any(Path(f"/proc/{pid}").exists() for pid in floods)


def children(parent: int) -> list[int]:
    """Processes of the generator that this one has started."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            mine = (each / "stat").read_text().rpartition(")")[2].split()[1] == str(parent)
            if mine and (each / "comm").read_text() == "flood\n":
                found.append(int(each.name))
        except OSError:  # gone
            continue
    return found


@pytest.mark.root
@pytest.mark.parametrize(("family", "apart"), [(4, False), (6, False), (4, True)])
def test_under_one_flood_packets_are_dropped_and_sent_back_and_answered_in_turn(family: int, apart: bool) -> None:
    _native.build()
    found = _flood_rates.rates(Plan("proposals", family, 600), 1.5, 1 if apart else 2, apart=apart)
    assert found["rounds"] >= 1
    assert min(found["xdp_drop_rate"], found["xdp_tx_rate"], found["cookie_rate"]) > 0, found
    # What is taken in a slice may have been offered before it: a ring of 256 frames, of a few thousand.
    assert 0 < found["cookie_of_offered"] < 1.1, found


@pytest.mark.root
def test_an_interface_is_polled_by_a_thread_on_the_processor_that_was_asked_for() -> None:
    _native.build()
    with pair() as (client, server), contextlib.closing(Flooding(Plan("proposals", 4, 600), 1000, 3, client, server)):
        before = _threaded._threads(client.interface)
        _threaded.poll_on(client, 0)  # the flood's own program is on this end
        (thread,) = _threaded._threads(client.interface) - before
        assert os.sched_getaffinity(thread) == {0}
        with pytest.raises(ClickException, match="no polls by a thread"):
            _threaded.poll_on(server, 0)
    assert thread not in _threaded._threads(client.interface)


def test_rates_are_compared_within_their_round() -> None:
    """Each what was taken, and what was offered."""
    busy = ((100.0, 200.0), (80.0, 100.0), (50.0, 50.0))
    quiet = ((1000.0, 2000.0), (800.0, 1000.0), (500.0, 500.0))
    found = _flood_rates.summary([quiet, busy, quiet, busy, ((900.0, 900.0), (0.0, 9.0), (1.0, 1.0))])
    assert (found["rounds"], found["xdp_drop_rate"]) == (4, 550)
    assert (found["ratio"], found["ratio_spread"]) == (0.5, [0.5, 0.5])
    assert (found["xdp_tx_ratio"], found["ratio_to_xdp_tx"]) == (0.8, 0.625)
    assert [found[f"{each}_of_offered"] for each in ("xdp_drop", "xdp_tx", "cookie")] == [0.5, 0.8, 1.0]
    assert _flood_rates.summary([((1.0, 1.0), (0.0, 1.0), (1.0, 1.0))]) == {"rounds": 0}


@pytest.mark.parametrize(
    "wrong", [["--kinds", "nonsense"], ["--kinds", "valid/5"], ["--rates", "-1"], ["--rates", "x"]]
)
def test_a_kind_or_rate_that_there_is_not_is_refused_with_those_that_there_are(wrong: list[str]) -> None:
    done = CliRunner().invoke(flood.main, wrong)
    assert done.exit_code == 2
    assert ("validated" if wrong[0] == "--kinds" else "Mpps") in done.output
