# SPDX-License-Identifier: Apache-2.0
"""Two daemons change the stack of an association while data flows both ways, and every byte arrives once."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accord.lab.hosts import HTTP_PORT, PORT, SERVER_NAME, Hosts
from accord.lab.lab import Lab

pytestmark = pytest.mark.root

BULK = Path(__file__).with_name("bulk.py")
LASTING = {"fallback": "never", "renegotiate": True}
TLS = {"prefer": ["tls/tcp"], "only": True}
QUIC = {"prefer": ["quic"], "only": True}
TCP = {"prefer": ["tcp"], "only": True, "secure": "no"}


@contextlib.contextmanager
def two_hosts(directory: Path, name: str, **link: Any) -> Iterator[Hosts]:
    with (
        Lab(f"{name}-{os.getpid()}", rtt=0.02, **link) as lab,
        contextlib.closing(Hosts(lab, directory)) as hosts,
    ):
        hosts.start(lab.server, [sys.executable, str(BULK), "serve", str(HTTP_PORT)], ready="serving")
        hosts.daemon(lab.client, "-v")
        hosts.daemon(lab.server, "-v")
        hosts.expose()
        yield hosts


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with two_hosts(tmp_path_factory.mktemp("hosts"), "reneg") as both:
        yield both


def specification(hosts: Hosts, policy: dict[str, Any], changes: list[dict[str, Any]], count: int) -> list[str]:
    spec = {
        "remote": f"{hosts.lab.server.address4}:{PORT}",
        "policy": {**LASTING, **policy},
        "server_name": SERVER_NAME,
        "ca_file": str(hosts.ca),
        "control": str(hosts.control(hosts.lab.client)),
        "changes": changes,
        "bytes": count,
    }
    return [sys.executable, str(BULK), "change", json.dumps(spec)]


def changed(
    hosts: Hosts, policy: dict[str, Any], changes: list[dict[str, Any]], count: int = 100_000, timeout: float = 60
) -> dict[str, Any]:
    """The stacks, first to last; that all bytes arrived is checked here."""
    command = specification(hosts, policy, changes, count)
    done = hosts.lab.client.run(command, capture_output=True, timeout=timeout)
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["there"], hosts.logs()
    assert result["back"], hosts.logs()
    assert min(result["bytes"]) >= count
    return result


@pytest.mark.parametrize(
    ("first", "then", "stacks"),
    [
        (TLS, QUIC, ["http/tls/tcp", "http/quic"]),
        (QUIC, TLS, ["http/quic", "http/tls/tcp"]),
        (TLS, TLS, ["http/tls/tcp", "http/tls/tcp"]),
        (TCP, {**TLS, "secure": "required"}, ["http/tcp", "http/tls/tcp"]),
    ],
    ids=["tls to quic", "quic to tls", "new keys", "upgrade"],
)
def test_bulk_data_both_ways_goes_over_whole(
    hosts: Hosts, first: dict[str, Any], then: dict[str, Any], stacks: list[str]
) -> None:
    assert changed(hosts, first, [then])["stacks"] == stacks


def test_a_secure_association_never_becomes_an_insecure_one(hosts: Hosts) -> None:
    result = changed(hosts, {**TLS, "secure": "no"}, [TCP])
    assert result["stacks"][0] == "http/tls/tcp"
    assert result["stacks"][1] in ("POLICY", "INSECURE")


def test_20_changes_in_a_row_under_5_percent_loss(tmp_path: Path) -> None:
    with two_hosts(tmp_path, "renloss", loss=0.05, seed=3) as hosts:
        changes = [QUIC, TLS] * 10
        result = changed(hosts, {**TLS, "secure": "required"}, changes, 20_000, timeout=100)
    assert result["stacks"] == ["http/tls/tcp", *["http/quic", "http/tls/tcp"] * 10]


def test_the_service_and_the_program_keep_their_connections(hosts: Hosts) -> None:
    command = specification(hosts, TLS, [QUIC], 500_000)
    with hosts.lab.client.popen(command, stdout=subprocess.PIPE) as process:
        try:
            seen: dict[str, set[str]] = {"server": set(), "client": set()}
            while process.poll() is None:
                for host, name, port in ((hosts.lab.server, "server", HTTP_PORT), (hosts.lab.client, "client", None)):
                    listed = host.run(["ss", "-Htn", "state", "established"], capture_output=True, text=True).stdout
                    ends = [line.split()[2:4] for line in listed.splitlines()]
                    seen[name] |= (
                        {end[0] for end in ends if end[1] == f"127.0.0.1:{port}"}
                        if port
                        else {
                            end[0]
                            for end in ends
                            if end[0].startswith("127.0.0.1:") and end[1].startswith("127.0.0.1:")
                        }
                    )
            assert process.stdout is not None
            result = json.loads(process.stdout.read())
        finally:
            process.kill()
    assert result["stacks"] == ["http/tls/tcp", "http/quic"]
    assert len(seen["server"]) == 1
    assert len(seen["client"]) == 2, "both ends of the one connection between program and daemon"
