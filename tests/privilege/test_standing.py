# SPDX-License-Identifier: Apache-2.0
"""What the processes of a running daemon may do, as the kernel has it; docs/OPERATIONS.md is held to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from accord.datapath.attached import attached
from accord.lab.deployment import Deployment, kill
from accord.lab.pair import pair
from tests.failopen.conftest import deployed
from tests.privilege.conftest import NOBODY

pytestmark = pytest.mark.root

CAP_IPC_LOCK = 1 << 14


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}


def memory_limit(pid: int) -> str:
    """RLIMIT_MEMLOCK, hard."""
    found = re.search(r"^Max locked memory\s+\S+\s+(\S+)", Path(f"/proc/{pid}/limits").read_text(), re.M)
    assert found is not None
    return found[1]


def documented(rung: str) -> str:
    """The capabilities that the table of docs/OPERATIONS.md leaves to the worker on a rung."""
    text = (Path(__file__).parents[2] / "docs/OPERATIONS.md").read_text()
    found = re.search(rf"^\| `{rung}` \| ([^|]+) \|", text, re.M)
    assert found is not None, f"no row for {rung}"
    return found[1].strip()


def test_the_worker_has_what_its_rung_is_documented_to_need_and_no_more(running: Deployment) -> None:
    state = running.wait_for(running.server)
    pid = int(state["pid"])
    rung = {"af_xdp": f"af_xdp, {state['attach_mode']}"}.get(state["back_end"], state["back_end"])
    # One capability, where the limit on pinned memory could not be raised for the UMEMs; written so in the table.
    left = 0
    if documented(rung) == "none, or `CAP_IPC_LOCK`" and memory_limit(pid) != "unlimited":
        left = CAP_IPC_LOCK
    else:
        assert documented(rung).startswith("none")
    found = status_of(pid)
    for name, wanted in (("CapPrm", left), ("CapEff", left), ("CapBnd", 0), ("CapAmb", 0), ("CapInh", 0)):
        assert int(found[name], 16) == wanted, name
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"
    assert found["Uid"].split() == found["Gid"].split() == [str(NOBODY)] * 4
    assert found["Groups"] == ""
    assert os.stat(f"/proc/{pid}/mem").st_uid == 0, "not dumpable: its memory is not its user's to read"


def test_what_the_daemon_says_of_itself_is_what_the_kernel_says(running: Deployment) -> None:
    state = running.wait_for(running.server)
    said, found = state["privileges"], status_of(int(state["pid"]))
    assert said["split"] is True
    assert said["user"] == NOBODY
    assert said["capabilities"]["CapEff"] == found["CapEff"]
    assert (said["no_new_privs"], said["seccomp"]) == (True, 2)
    assert said["broker_refused"] == 0, running.log(running.server)
    assert int(found["PPid"]) == said["broker_pid"]


def test_it_negotiates_there(running: Deployment) -> None:
    assert asyncio.run(running.negotiate()) == ["http", "tls", "tcp"]
    assert running.wait_for(running.server)["privileges"]["broker_refused"] == 0


@pytest.mark.parametrize("which", ["worker", "broker"])
def test_neither_process_outlives_the_other_and_nothing_stays_attached(tmp_path: Path, which: str) -> None:
    with deployed(tmp_path, "--back-end", "af_xdp") as both:
        state = both.wait_for(both.server)
        pids = {"worker": int(state["pid"]), "broker": int(state["privileges"]["broker_pid"])}
        with both.bystander() as suffered:
            kill(pids[which])
            deadline = time.monotonic() + 10
            while any(alive(pid) for pid in pids.values()):
                assert time.monotonic() < deadline, f"{pids}: one lives on"
                time.sleep(0.01)
            time.sleep(0.2)
        assert suffered["lost"] == 0
        assert both.server.call(attached, both.server.call(socket.if_nametoindex, "acc0")) is None


def alive(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return status_of(pid)["State"][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_hung_worker_dies_with_its_broker(tmp_path: Path) -> None:
    with deployed(tmp_path, "--back-end", "udp", "--attach", "none") as both:
        state = both.wait_for(both.server)
        os.kill(state["pid"], signal.SIGSTOP)
        kill(state["privileges"]["broker_pid"])
        deadline = time.monotonic() + 10
        while alive(state["pid"]):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_one_process_with_all_privileges_has_to_be_asked_for_and_warns(tmp_path: Path) -> None:
    with deployed(tmp_path, "--back-end", "udp", "--attach", "none", "--privileged") as both:
        state = both.wait_for(both.server)
        assert state["privileges"]["split"] is False
        assert "keeps all privileges" in both.log(both.server)
        assert asyncio.run(both.negotiate()) == ["http", "tls", "tcp"]


def test_the_capabilities_of_the_service_unit_are_enough(tmp_path: Path) -> None:
    """The broker with those of packaging/accord.service alone: the worker still has none, and is ended in order."""
    unit = (Path(__file__).parents[2] / "packaging/accord.service").read_text()
    named = " ".join(re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.M)).lower().replace("cap_", "+").split()
    with deployed(tmp_path) as both:
        both.server.processes[-1].terminate()
        assert both.server.processes[-1].wait(20) == 0
        command = ["setpriv", "--bounding-set", ",".join(["-all", *named]), sys.executable, "-m", "accord.cli.main"]
        command += ["daemon", "--config", str(both.configuration(both.server, ""))]
        process = both.server.popen(command)
        state = both.wait_for(both.server, back_end="af_xdp")
        assert asyncio.run(both.negotiate()) == ["http", "tls", "tcp"]
        found = status_of(state["pid"])
        assert int(found["CapBnd"], 16) == 0
        assert found["Uid"].split()[0] == str(NOBODY)
        process.terminate()
        assert process.wait(20) == 0
        assert not both.control(both.server).exists()


@pytest.mark.parametrize(
    ("lacks", "back_end", "left"),
    [("-sys_resource", "af_xdp", CAP_IPC_LOCK), ("-sys_resource,-ipc_lock", "af_packet", 0)],
    ids=["it may lock memory", "it may not"],
)
def test_where_the_limit_on_locked_memory_cannot_be_raised_the_rung_is_the_best_that_it_allows(
    tmp_path: Path, lacks: str, back_end: str, left: int
) -> None:
    with pair() as (client, server), contextlib.closing(Deployment(client, server, tmp_path)) as both:
        command = ["prlimit", "--memlock=65536:65536", "setpriv", "--bounding-set", lacks]
        command += [sys.executable, "-m", "accord.cli.main", "daemon", "--config", str(both.configuration(server))]
        server.popen(command)
        state = both.wait_for(server)
        assert state["back_end"] == back_end
        assert [each["reason"] for each in state["rungs_refused"]] == ([] if left else ["NO_MEMORY"])
        assert int(status_of(state["pid"])["CapEff"], 16) == left
