# SPDX-License-Identifier: Apache-2.0
"""Signs of life: what a service manager and a supervisor are told, and when a daemon gives itself up."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from accord.daemon.life import ALIVE, READY, STOPPING, Life
from accord.daemon.notify import notify, watchdog_seconds

UNIT = Path(__file__).resolve().parents[2] / "packaging" / "accord.service"


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and its address as it stands in NOTIFY_SOCKET."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@accord-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.bind(address.replace("@", "\0"))
        yield sock, address


def test_a_service_manager_gets_one_datagram_of_lines(manager: tuple[socket.socket, str]) -> None:
    sock, address = manager
    assert notify("READY=1", "STATUS=serves", environment={"NOTIFY_SOCKET": address})
    assert sock.recv(4096) == b"READY=1\nSTATUS=serves"


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all"])
def test_without_a_service_manager_nobody_is_told_and_nothing_fails(address: str) -> None:
    assert not notify("READY=1", environment={"NOTIFY_SOCKET": address})


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "2500000"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": str(os.getpid())}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdog_is_the_one_that_this_process_was_given(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_seconds(environment) == seconds


def test_a_supervisor_hears_ready_then_signs_of_life_then_stopping() -> None:
    ours, theirs = socket.socketpair()

    async def live() -> None:
        life = Life(theirs, lambda why: None)
        life.ready()
        life.stopping()
        life.close()

    asyncio.run(live())
    with ours:
        assert ours.recv(64) == READY + ALIVE + STOPPING


def test_the_end_of_the_supervisor_ends_the_daemon() -> None:
    async def live() -> str:
        ours, theirs = socket.socketpair()
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        life = Life(theirs, told.set_result)
        ours.close()
        try:
            return await asyncio.wait_for(told, 5)
        finally:
            life.close()

    assert "supervisor is gone" in asyncio.run(live())


@pytest.mark.parametrize(("failures", "ended"), [(99, 0), (100, 1), (150, 1)])
def test_callbacks_that_do_nothing_but_fail_end_the_daemon(failures: int, ended: int) -> None:
    reasons: list[str] = []

    async def storm() -> None:
        life = Life(None, reasons.append)
        loop = asyncio.get_running_loop()
        for _ in range(failures):
            loop.call_soon(lambda: 1 / 0)
        for _ in range(3):
            await asyncio.sleep(0)
        life.close()

    asyncio.run(storm())
    assert len(reasons) == ended


def test_a_task_that_fails_is_one_negotiation_and_never_a_storm() -> None:
    reasons: list[str] = []

    async def fail() -> None:
        raise ZeroDivisionError

    async def storm() -> None:
        life = Life(None, reasons.append)
        for _ in range(300):
            task = asyncio.create_task(fail())
            await asyncio.sleep(0)
            del task
        await asyncio.sleep(0.01)
        life.close()

    asyncio.run(storm())
    assert reasons == []


def test_the_unit_file_starts_a_command_line_that_exists_and_allows_the_families_that_are_opened() -> None:
    from click.testing import CliRunner

    from accord.cli.daemon import daemon

    unit = UNIT.read_text()
    command = re.search(r"^ExecStart=\S+/accord daemon (.*)$", unit, re.MULTILINE)
    assert command is not None
    result = CliRunner().invoke(daemon, ["--help"])
    for word in command[1].split():
        if word.startswith("--"):
            assert word in result.output
    families = re.search(r"^RestrictAddressFamilies=(.*)$", unit, re.MULTILINE)
    assert families is not None
    assert {"AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET", "AF_XDP"} == set(families[1].split())
