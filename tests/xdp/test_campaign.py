# SPDX-License-Identifier: Apache-2.0
"""The campaign of random packets (``./build.py fuzz xdp``): a slice of it, and that it finds what is to be found."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from accord.datapath.port import OBJECT_PATH
from tests.xdp.mutants import MUTANTS, ROOT, edited

pytestmark = pytest.mark.root

SLICE = 50_000

# Faults on which a random packet has to stumble within a slice; the table has the rarer ones.
FOUND = (
    "a third VLAN tag is walked",
    "segments left are not looked at",
    "a UDP length beyond IP's payload",
    "others are dropped",
    "a byte is written",
    "the second of two is taken",
    "the sources are not compared",
)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program, built."""
    directory = tmp_path_factory.mktemp("campaign")
    command = ["make", "-C", str(ROOT / "dataplane_c/campaign"), f"BUILD={directory}", "CFLAGS=-O1"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return str(directory / "xdp-campaign")


def run(campaign: str, *options: str, program: Path = OBJECT_PATH) -> subprocess.CompletedProcess[str]:
    """One campaign to its end."""
    return subprocess.run([campaign, "--object", program, *options], capture_output=True, text=True, timeout=120)


def test_a_slice_of_random_packets_of_both_families_leaves_those_of_others_untouched(campaign: str) -> None:
    done = run(campaign, "--packets", str(SLICE), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"]
    for family in ("ipv4", "ipv6"):
        found = result[family]
        assert found["packets"] == SLICE == sum(found["reasons"].values())
        assert found["ours"] == found["reasons"]["STEERED"]
        # Random packets are worth something if they get everywhere.
        assert SLICE / 10 < found["ours"] < SLICE / 2
        assert set(found["reasons"]) == {
            *("STEERED", "NOT_IP", "NOT_OURS_PROTOCOL", "NOT_OURS_PORT", "NOT_OURS_MAGIC", "FRAGMENT"),
            *("MALFORMED_FRAME", "TOO_MANY_EXTENSIONS", "NOT_LOCAL", "LONG_PACKET"),
            *("SYN_SUPPRESSED", "SYN_FIRST", "SYN_ADOPT", "SYN_ELSEWHERE", "BAD_TCP_OPTION"),
        }
        assert found["superfluous"] == found["reasons"]["SYN_SUPPRESSED"] > SLICE / 200


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.name in FOUND], ids=lambda each: each.name)
def test_a_fault_is_found_and_its_packet_fails_again_when_it_is_run_alone(campaign: str, mutant: object) -> None:
    with edited(f"ebpf/{mutant.file}", mutant.old, mutant.new) as built:  # type: ignore[attr-defined]
        done = run(campaign, "--packets", str(SLICE), program=built)
        assert done.returncode == 1
        assert "verdict" in done.stderr
        again = done.stderr.split("again: ")[1].splitlines()[0].split()
        assert run(campaign, *again, program=built).returncode == 1
    assert run(campaign, *again).returncode == 0


def test_another_seed_makes_other_packets_and_the_same_one_the_same(campaign: str) -> None:
    def reasons(seed: int) -> object:
        result = json.loads(run(campaign, "--packets", "5000", "--seed", str(seed), "--json").stdout)
        return [result[family]["reasons"] for family in ("ipv4", "ipv6")]

    assert reasons(7) == reasons(7) != reasons(8)


def test_an_interrupted_campaign_says_what_it_has_done(campaign: str) -> None:
    command = [campaign, "--object", str(OBJECT_PATH), "--packets", "1000000000"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    assert "packets" in running.stderr.readline()  # the first batch is done
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "IPv4: " in said
    assert "IPv6" not in said


@pytest.mark.parametrize("options", [("--packets", "-1"), ("--packets", "many"), ("--nonsense",), ("word",)])
def test_a_wrong_command_line_gets_the_usage(campaign: str, options: tuple[str, ...]) -> None:
    done = run(campaign, *options)
    assert done.returncode == 2
    assert "usage: xdp-campaign" in done.stderr


def test_an_object_that_is_not_there_is_named(campaign: str, tmp_path: Path) -> None:
    done = run(campaign, program=tmp_path / "missing.o")
    assert done.returncode == 1
    assert "missing.o" in done.stderr
