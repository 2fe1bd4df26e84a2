# SPDX-License-Identifier: Apache-2.0
"""Daemons that are killed, hung or failing: the traffic of others does not notice, ours goes to the kernel."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from accord.lab.deployment import Deployment
from tests.failopen.conftest import deployed

pytestmark = pytest.mark.root


def another(both: Deployment, pid: int) -> None:
    """Wait for a daemon that is not this one, and negotiate with it."""
    deadline = time.monotonic() + 20
    while (status := both.status(both.server)) is None or status["pid"] == pid:
        assert time.monotonic() < deadline, both.log(both.server)
        time.sleep(0.002)
    assert "tls" in asyncio.run(both.negotiate())


def test_a_daemon_that_gives_no_sign_of_life_is_killed_and_replaced(tmp_path: Path) -> None:
    with deployed(tmp_path, "--supervise", "--watchdog", "1") as both:
        pid = both.wait_for(both.server)["pid"]
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(ProcessLookupError):  # noqa: PT012
            for _ in range(2000):
                os.kill(pid, 0)
                time.sleep(0.01)
        another(both, pid)
        assert "gave no sign of life for 1 s" in both.log(both.server)


STORM = """
import asyncio, mmap
from accord.cli.main import main
from accord.daemon.life import Life

ready, stormed = Life.ready, mmap.mmap(-1, 1)

def ready_to_fail(life):
    ready(life)
    if not stormed[0]:
        stormed[0] = 1
        for _ in range(100):
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)

Life.ready = ready_to_fail
main()
"""
"""The first daemon's event loop has nothing but failing callbacks; those that a supervisor starts after it are well."""


def storming(both: Deployment, log: Path, *options: str) -> subprocess.Popen[bytes]:
    """A daemon for the server in the place of its own."""
    usual = both.server.processes[-1]
    usual.terminate()
    assert usual.wait(20) == 0
    command = [sys.executable, "-c", STORM, "daemon", "--config", str(both.configuration(both.server)), *options]
    with log.open("wb") as file:
        process: subprocess.Popen[bytes] = both.server.popen(command, stdout=file, stderr=file)
    return process


@pytest.mark.parametrize("privileges", [(), ("--privileged",)], ids=["two processes", "one"])
def test_a_daemon_in_a_storm_of_failures_ends_itself_with_its_reason_and_leaves_nothing(
    tmp_path: Path, privileges: tuple[str, ...]
) -> None:
    with deployed(tmp_path) as both:
        log = tmp_path / "storm.log"
        process = storming(both, log, *privileges)
        assert process.wait(20) == 70
        said = log.read_text()
        assert said.count("ZeroDivisionError: division by zero") == 100
        assert "accord daemon stopped" in said
        (last,) = [line for line in said.splitlines() if line.startswith("accord: ") and "DAEMON_FAILED" in line]
        assert "100 failures of the event loop in 10 s" in last
        assert last.endswith("[DAEMON_FAILED, ours]")
        assert not both.control(both.server).exists()
        assert "xdp" not in both.server.run("ip", "link", "show", "acc0")


def test_a_daemon_that_ended_in_a_storm_is_replaced_by_its_supervisor(tmp_path: Path) -> None:
    with deployed(tmp_path) as both:
        log = tmp_path / "storm.log"
        storming(both, log, "--supervise")
        deadline = time.monotonic() + 20
        while "DAEMON_FAILED" not in log.read_text() or both.status(both.server) is None:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        assert "tls" in asyncio.run(both.negotiate())
        assert "failed with exit code 70" in log.read_text()


def test_the_supervisor_ends_its_daemon_when_it_is_told_to_and_leaves_nothing(tmp_path: Path) -> None:
    with deployed(tmp_path) as both:
        # The client's host gets a second one, supervised, which is ended in both ways.
        server = both.server.processes[-1]
        server.terminate()
        assert server.wait(20) == 0
        for number in (signal.SIGTERM, signal.SIGINT):
            supervisor = both.daemon(both.server, "--supervise")
            pid = both.wait_for(both.server)["pid"]
            assert pid != supervisor.pid
            supervisor.send_signal(number)
            assert supervisor.wait(20) == 0
            assert not Path(f"/proc/{pid}").exists()
            assert not both.control(both.server).exists()


def test_a_daemon_outlives_no_supervisor(tmp_path: Path) -> None:
    with deployed(tmp_path, "--supervise") as both:
        pid = both.wait_for(both.server)["pid"]
        supervisor = both.server.processes[-1]
        supervisor.kill()
        supervisor.wait()
        deadline = time.monotonic() + 20
        while both.control(both.server).exists():
            assert time.monotonic() < deadline, both.log(both.server)
            time.sleep(0.01)
        assert "the supervisor is gone" in both.log(both.server)
        both.daemon(both.server, "--supervise")
        another(both, pid)


def test_a_daemon_that_cannot_start_is_not_started_for_ever(tmp_path: Path) -> None:
    with deployed(tmp_path) as both:
        second = both.launch(both.server, "--supervise")
        assert second.wait(20) == 64
        assert "already answers" in both.log(both.server)
