# SPDX-License-Identifier: Apache-2.0
"""A daemon's memory of peers outlasts the daemon, and is shown to its users and flushed by its operator."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from accord.controller.peers.memory import Learnt, Peers
from accord.controller.peers.text import encode
from accord.wire.constants import Protocol

pytestmark = pytest.mark.root

ACCORD = (sys.executable, "-m", "accord.cli.main")
NOBODY = 65534
CONFIGURATION = """
[daemon]
back_end = "udp"
[control]
users = ["{nobody}"]
[peers]
file = "state/peers.jsonl"
"""


@dataclass
class Host:
    """One daemon, unprivileged worker and all, on no interface."""

    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def file(self) -> Path:
        return self.directory / "state" / "peers.jsonl"

    def start(self, *options: str) -> None:
        config = self.directory / "accord.toml"
        config.write_text(CONFIGURATION.format(nobody=NOBODY))
        command = [*ACCORD, "daemon", "--config", str(config), "--control", str(self.directory / "control.sock")]
        log = (self.directory / "log").open("ab")
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=log)
        log.close()
        assert self.process.stdout is not None
        lines = iter(self.process.stdout.readline, b"")
        assert any(b"accord daemon ready" in line for line in lines), (self.directory / "log").read_text()

    def stop(self, how: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.communicate(timeout=20)

    def peers(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "ACCORD_CONTROL": str(self.directory / "control.sock"), "COLUMNS": "150"}
        return subprocess.run(
            [*ACCORD, "peers", *arguments], env=environment, capture_output=True, text=True, timeout=30
        )

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.peers(*arguments, "--json").stdout)["peers"]
        return found


def asked(control: Path, message: dict[str, Any]) -> dict[str, Any]:
    """The answer to one message."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as sock:
        sock.connect(str(control))
        sock.send(json.dumps(message).encode())
        answer: dict[str, Any] = json.loads(sock.recv(65536))
    return answer


@pytest.fixture
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory() as directory:  # whose way others may go, as pytest's own may not be
        os.chmod(directory, 0o755)
        yield from seeded(Path(directory))


def seeded(directory: Path) -> Iterator[Host]:
    """A host whose file remembers four peers; its daemon is ended with it."""
    one = Host(directory)
    one.file.parent.mkdir()
    clock = [100.0]
    peers = Peers(lambda: clock[0])
    peers.learn("192.0.2.1", 443, Learnt.ANSWERED, protocols=(Protocol.TLS13, Protocol.TCP), source="192.0.2.9")
    peers.learn("2001:db8::1", 443, Learnt.NO_SYN_WORKED)
    for clock[0] in (200.0, 300.0):
        peers.learn("192.0.2.2", 80, Learnt.SILENT)
        peers.learn("192.0.2.2", 81, Learnt.OPTION_SYN_LOST)
    one.file.write_text("".join(encode(peers.entries(), clock[0], time.time())))
    one.file.chmod(0o600)
    yield one
    if one.process is not None and one.process.poll() is None:
        one.stop()


def test_what_is_remembered_is_shown_flushed_and_kept_by_a_worker_without_privileges(host: Host) -> None:
    host.start()
    shown = {(row["address"], row["port"]): row for row in host.rows()}
    assert shown["192.0.2.1", 443]["accord"] is True
    assert shown["192.0.2.1", 443]["protocols"] == ["tls", "tcp"]
    assert shown["192.0.2.2", 80]["propose"] is False
    assert shown["192.0.2.2", 81]["option"] is False
    assert shown["2001:db8::1", 443]["no_syn"] is True
    assert [row["port"] for row in host.rows("show", "192.0.2.2")] == [81, 80], "the last used first"
    assert [row["address"] for row in host.rows("show", "[2001:DB8::1]:443")] == ["2001:db8::1"]
    text = host.peers().stdout
    assert "silent: no proposal is sent" in text
    assert "tls, tcp" in text
    # A flush is written before it is answered: not even kill -9 brings back what was to be forgotten.
    assert host.peers("flush", "192.0.2.2:80").stdout == "1 forgotten\n"
    host.stop(signal.SIGKILL)
    assert host.file.stat().st_mode & 0o777 == 0o600
    host.start()
    assert len(host.rows()) == 3
    assert host.peers("flush").stdout == "3 forgotten\n"
    assert host.peers().stdout == "nothing is remembered\n"
    host.stop()
    assert json.loads(host.file.read_text())["peers"] == 0
    assert sorted(each.name for each in host.file.parent.iterdir()) == ["cookies.keys", host.file.name]


def test_a_user_may_look_and_only_the_operator_may_flush(host: Host) -> None:
    host.start()
    with ProcessPoolExecutor(1, initializer=os.setuid, initargs=(NOBODY,)) as nobody:
        for message, allowed in (({"op": "peers"}, True), ({"op": "flush_peers"}, False)):
            answer = nobody.submit(asked, host.directory / "control.sock", message).result(timeout=30)
            assert answer["ok"] is allowed
            assert allowed or answer["reason"] == "NOT_PERMITTED"
    assert len(host.rows()) == 4


def test_a_file_that_somebody_has_spoilt_costs_the_memory_and_not_the_start(host: Host) -> None:
    host.file.write_bytes(host.file.read_bytes()[:-20])
    host.start()
    assert host.rows() == []
    log = (host.directory / "log").read_text()
    assert [str(host.file) in line for line in log.splitlines() if "memory of peers" in line] == [True]


def test_a_daemon_that_takes_over_remembers_what_the_old_one_did(host: Host) -> None:
    host.start()
    old = host.process
    assert old is not None
    host.file.unlink()  # so that it is not by the file
    host.start("--takeover", "--drain-limit", "0")
    old.communicate(timeout=30)
    assert len(host.rows()) == 4
    host.stop()
    assert json.loads(host.file.read_text().splitlines()[0])["peers"] == 4


@pytest.mark.parametrize("remote", ["192.0.2.1:0", "192.0.2.1:443x", "[2001:db8::1]443", "[2001:db8::1]:"])
def test_a_port_that_is_none_is_said_to_be_none(host: Host, remote: str) -> None:
    for command in ("show", "flush"):
        done = host.peers(command, remote)
        assert done.returncode == 64
        assert "port" in done.stderr
        assert "Traceback" not in done.stderr


MALFORMED: tuple[dict[str, Any], ...] = (
    {"op": "peers", "addresses": "192.0.2.1"},
    {"op": "peers", "addresses": ["example.net"]},
    {"op": "peers", "addresses": [1]},
    {"op": "peers", "addresses": ["192.0.2.1"] * 1000},
    {"op": "flush_peers", "port": "443"},
    {"op": "flush_peers", "port": 0},
    {"op": "flush_peers", "addresses": {}},
)


def test_a_malformed_request_is_the_callers_fault_and_flushes_nothing(host: Host) -> None:
    host.start()
    for message in MALFORMED:
        assert asked(host.directory / "control.sock", message)["reason"] == "BAD_CONFIG", message
    assert len(host.rows()) == 4
