# SPDX-License-Identifier: Apache-2.0
"""`./build.py vm` without machines: the topology's three descriptions agree, verdicts, and who is meant by a PID."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from accord.cli.capture import Tally
from accord.cli.demo import CASES, Case
from buildtools import clean, vm, vm_hall
from buildtools.bare import STACKS
from buildtools.console import BuildFailure
from vagrant import suite

ROOT = Path(__file__).resolve().parent.parent
CASE = {case.name: case for case in CASES}


def runs(case: Case, **changes: Any) -> list[dict[str, Any]]:
    """Two connections that are as they should be, but for ``changes`` in the second."""
    good = {"stack": STACKS[case.name], "sha256": hashlib.sha256(suite.PAGE).hexdigest()}
    return [good, {**good, **changes}]


def test_every_case_of_the_demo_has_a_stack_that_it_has_to_come_to() -> None:
    assert {case.name for case in CASES} == set(STACKS)


@pytest.mark.parametrize(
    ("name", "syns", "changes", "wrong"),
    [
        ("accord-tls-tcp", 0, {}, ""),
        ("accord-tls-tcp", 1, {}, "1 SYNs in 2 connections instead of 0"),
        ("accord-tls-tcp", 0, {"sha256": "0"}, "other bytes"),
        ("accord-tls-tcp", 0, {"stack": ["http", "tcp"]}, "stack http/tcp, http/tls/tcp instead of http/tls/tcp"),
        ("accord-quic", 0, {"stack": ["http", "tls", "tcp"]}, "instead of http/quic"),
        ("accord-parallel-syn", 2, {}, ""),
        ("accord-parallel-syn", 3, {}, "3 SYNs"),
        ("today-tls-tcp", 2, {}, ""),
        ("today-tls-tcp", 0, {}, "0 SYNs"),
        ("no-accord-peer", 2, {}, ""),
        ("no-accord-peer", 3, {}, "3 SYNs"),
    ],
)
def test_a_case_passes_with_its_stack_its_bytes_and_its_number_of_syns_only(
    name: str, syns: int, changes: dict[str, Any], wrong: str
) -> None:
    found = suite.judge(CASE[name], runs(CASE[name], **changes), Tally(syn_packets=syns))
    assert [wrong in each for each in found] == ([True] if wrong else []), found


def test_on_a_lossy_link_a_syn_may_be_sent_again_but_none_comes_where_none_belongs() -> None:
    today, negotiated = CASE["today-tls-tcp"], CASE["accord-tls-tcp"]
    assert suite.judge(today, runs(today), Tally(syn_packets=3), lossy=True) == []
    assert suite.judge(today, runs(today), Tally(syn_packets=1), lossy=True) != []
    assert suite.judge(negotiated, runs(negotiated), Tally(syn_packets=1), lossy=True) != []


def test_the_machines_have_the_addresses_that_the_suite_and_the_routes_speak_of() -> None:
    vagrantfile = (ROOT / "vagrant/Vagrantfile").read_text()
    network = (ROOT / "vagrant/network.sh").read_text()
    block = vagrantfile[vagrantfile.index("HOSTS = {") :].partition("\n}\n")[0]
    addresses = dict(re.findall(r'\["([\d.]+)", "(\w+)"\]', block))
    assert addresses[suite.CLIENT] == "client"
    assert addresses[suite.SERVER] == "server"
    assert f"{suite.SERVER6}/64 dev eth1" in network
    gateways = set(re.findall(r"via ([\d.]+)", network))
    assert len(gateways) == 2
    assert {addresses[gateway] for gateway in gateways} == {"client", "server"}
    assert set(re.findall(r'^  "(\w+)" => ', block, re.MULTILINE)) == set(vm.HOSTS)


def test_a_host_that_the_network_script_does_not_know_is_refused_before_anything_is_changed() -> None:
    done = subprocess.run(["sh", ROOT / "vagrant/network.sh", "other"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there is no host 'other'" in done.stderr


def test_a_process_id_that_was_given_to_another_process_is_not_the_hall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vm_hall, "STATE", tmp_path)
    assert vm_hall.running() is None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = vm_hall.started(process.pid)
        assert started is not None
        (tmp_path / "pid").write_text(f"{process.pid} {started}")
        assert vm_hall.running() == process.pid
        (tmp_path / "pid").write_text(f"{process.pid} {int(started) + 1}")
        assert vm_hall.running() is None
        (tmp_path / "pid").write_text(f"{process.pid} {started}")
        process.communicate(b"\n")
    assert vm_hall.running() is None


def test_clean_refuses_to_take_the_disks_of_running_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean, "running", os.getpid)
    monkeypatch.setattr(clean, "targets", lambda: pytest.fail("it went on"))
    with pytest.raises(BuildFailure, match="vm down"):
        clean.run()
