# SPDX-License-Identifier: Apache-2.0
"""Daemons that are killed, hung or failing: the traffic of others does not notice, ours goes to the kernel."""

from __future__ import annotations

import asyncio
import os
import signal
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
