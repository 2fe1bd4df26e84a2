# SPDX-License-Identifier: Apache-2.0
"""Local programs that connect and say nothing, or never read, hold up nobody (threat model, row 32)."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from accord.controller import control
from accord.daemon.admission import FOR_OPERATORS, MOST, OF_A_USER

PATIENCE_SECONDS = 30
NOBODY = 65534


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The control socket of a daemon of its own, on sockets alone, which nobody may use beside too."""
    directory = tmp_path_factory.mktemp("control")
    for each in (directory, *directory.parents):
        if each == Path(tempfile.gettempdir()):
            break
        each.chmod(each.stat().st_mode | 0o711)
    where, log = directory / "c.sock", directory / "log"
    config = directory / "accord.toml"
    config.write_text(f'[daemon]\nback_end = "udp"\ncontrol = "{where}"\n[control]\nusers = ["{NOBODY}"]\n')
    command = [sys.executable, "-m", "accord.cli.main", "daemon", "--config", str(config)]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as daemon:
        end = time.monotonic() + PATIENCE_SECONDS
        while b"ready" not in log.read_bytes():
            assert daemon.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield where
        daemon.terminate()


def connected(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(os.fspath(path))  # which waits for the listener's queue; with a time-out it would not
    sock.settimeout(10)
    return sock


def answers(path: Path) -> bool:
    """Whether somebody who asks is told, while the others do what they do."""
    answer, _ = asyncio.run(control.ask(path, {"op": "status"}))
    return bool(answer["ok"])


def test_silent_and_slow_programs_hold_up_nobody(path: Path) -> None:
    silent = [connected(path) for _ in range(100)]
    slow = []
    for _ in range(20):
        sock = connected(path)
        sock.setblocking(False)
        try:
            while True:  # asks, and never reads what it is told
                sock.send(b'{"op":"stats"}')
        except BlockingIOError:
            pass
        slow.append(sock)
    assert answers(path)
    for sock in (*silent, *slow):
        sock.close()
    assert answers(path)


@pytest.mark.root
def test_a_user_that_takes_all_it_can_get_leaves_places_for_others(path: Path) -> None:
    """In a process of that user's, as the kernel says who is calling."""
    script = (
        "import json, os, socket, sys\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "held, told = [], ''\n"
        f"for _ in range({OF_A_USER + 20}):\n"
        "    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "    sock.connect(sys.argv[1]); held.append(sock)\n"
        "held[-1].settimeout(10)\n"
        "print(json.loads(held[-1].recv(65536))['reason'], flush=True)\n"
        "sys.stdin.readline()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script, os.fspath(path)], **pipes) as greedy:  # type: ignore[call-overload]
        assert greedy.stdout.readline().strip() == b"OVER_BUDGET"
        assert answers(path)
        greedy.stdin.close()
    assert OF_A_USER < MOST - FOR_OPERATORS


def test_the_socket_is_the_operator_s_alone_unless_users_are_named(tmp_path: Path) -> None:
    from accord.controller.settings.config import DaemonConfig
    from accord.daemon.daemon import Daemon

    for users, mode in ((frozenset[int](), 0o600), (frozenset({NOBODY}), 0o666)):
        where = tmp_path / f"{mode:o}.sock"
        daemon = Daemon(DaemonConfig(control=where, users=users), None)
        daemon.open()
        assert stat.S_IMODE(where.stat().st_mode) == mode
        daemon.leave()


def test_what_is_said_too_long_or_no_object_is_answered_and_the_connection_goes_on(path: Path) -> None:
    with connected(path) as sock:
        for bad in (b"[]", b"{", b"7", b"\xff\xfe", b'{"op":"dance"}'):
            sock.send(bad)
            assert json.loads(sock.recv(65536))["reason"] == "BAD_CONFIG"
        sock.send(b'{"op":"status"}')
        assert json.loads(sock.recv(1 << 17))["ok"]
