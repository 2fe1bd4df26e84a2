# SPDX-License-Identifier: Apache-2.0
"""Two daemons change the stack of an association while data flows both ways, and every byte arrives once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from accord.lab.hosts import HTTP_PORT, PORT, SERVER_NAME, Hosts
from accord.lab.lab import Lab
from accord.lab.namespace import Namespace

pytestmark = pytest.mark.root

BULK = Path(__file__).with_name("bulk.py")
LASTING = {"fallback": "never", "renegotiate": True}
DAEMONS: dict[str, subprocess.Popen[bytes]] = {}
"""By the name of the host."""
TLS = {"prefer": ["tls/tcp"], "only": True}
QUIC = {"prefer": ["quic"], "only": True}
TCP = {"prefer": ["tcp"], "only": True, "secure": "no"}


@contextlib.contextmanager
def two_hosts(directory: Path) -> Iterator[Hosts]:
    with (
        Lab(f"reneg-{os.getpid()}", rtt=0.02) as lab,
        contextlib.closing(Hosts(lab, directory)) as hosts,
    ):
        hosts.start(lab.server, [sys.executable, str(BULK), "serve", str(HTTP_PORT)], ready="serving")
        for host in (lab.client, lab.server):
            DAEMONS[host.name] = hosts.daemon(host, "-v")
        hosts.expose()
        yield hosts


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with two_hosts(tmp_path_factory.mktemp("hosts")) as both:
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
        (TLS, {**TLS, "tcp": "parallel-syn"}, ["http/tls/tcp", "http/tls/tcp"]),
    ],
    ids=["tls to quic", "quic to tls", "new keys", "upgrade", "a connection with a SYN"],
)
def test_bulk_data_both_ways_goes_over_whole(
    hosts: Hosts, first: dict[str, Any], then: dict[str, Any], stacks: list[str]
) -> None:
    assert changed(hosts, first, [then])["stacks"] == stacks


def test_a_secure_association_never_becomes_an_insecure_one(hosts: Hosts) -> None:
    result = changed(hosts, {**TLS, "secure": "no"}, [TCP])
    assert result["stacks"][0] == "http/tls/tcp"
    assert result["stacks"][1] in ("POLICY", "INSECURE")


def test_20_changes_in_a_row_under_5_percent_loss(hosts: Hosts) -> None:
    hosts.lab.change(loss=0.05)
    try:
        result = changed(hosts, {**TLS, "secure": "required"}, [QUIC, TLS] * 10, 5_000, timeout=100)
    finally:
        hosts.lab.change(loss=0.0)
    assert result["stacks"] == ["http/tls/tcp", *["http/quic", "http/tls/tcp"] * 10]
    assert hosts.lab.counters().up.lost > 0


def test_the_service_and_the_program_keep_their_connections(hosts: Hosts) -> None:
    command = specification(hosts, TLS, [QUIC], 200_000)
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


def accord(hosts: Hosts, host: Namespace, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of a host."""
    command = [sys.executable, "-m", "accord.cli.main", *arguments, "--control", str(hosts.control(host))]
    return host.run(command, capture_output=True, text=True, timeout=30)


@contextlib.contextmanager
def connected(hosts: Hosts, *policy: str) -> Iterator[subprocess.Popen[bytes]]:
    """``accord connect``, with the bulk service at the other end, until the block's end."""
    command = [sys.executable, "-m", "accord.cli.main", "connect", "--control", str(hosts.control(hosts.lab.client))]
    command += ["--ca", str(hosts.ca), "--fallback", "never", *policy, f"{hosts.lab.server.address4}:{PORT}"]
    with hosts.lab.client.popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def associations(hosts: Hosts, host: Namespace) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = hosts.status(host)["associations"]
    return rows


def wait_for(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def only(hosts: Hosts, host: Namespace) -> dict[str, Any]:
    """The one association that is up."""
    wait_for(lambda: len(associations(hosts, host)) == 1)
    return associations(hosts, host)[0]


def test_operators_of_both_hosts_see_associations_by_one_name_and_change_them(hosts: Hosts) -> None:
    client, server = hosts.lab.client, hosts.lab.server
    with connected(hosts, "--prefer", "tls/tcp", "--renegotiate"):
        row = only(hosts, client)
        assert (row["role"], row["stack"], row["generation"]) == ("initiator", ["http", "tls", "tcp"], 1)
        name = row["association"]
        assert only(hosts, server)["association"] == name

        done = accord(hosts, client, "renegotiate", name, "--prefer", "quic")
        assert done.returncode == 0, done.stderr + hosts.logs()
        assert done.stdout == f"{name}: http/quic to {server.address4} port {PORT}, generation 2\n"

        done = accord(hosts, server, "renegotiate", name, "--json")
        assert done.returncode == 0, done.stderr + hosts.logs()
        assert json.loads(done.stdout)["generation"] == 3
        assert name in accord(hosts, server, "status").stdout

        refused = accord(hosts, server, "renegotiate", name, "--secure", "no")
        assert refused.returncode == 64
        assert "begun by the peer" in refused.stderr
        changed = "accord_renegotiations_total"
        samples = {
            tuple(sample["labels"].values()): sample["value"]
            for family in json.loads(accord(hosts, server, "stats", "--json").stdout)["families"]
            if family["name"] == changed
            for sample in family["samples"]
        }
        assert samples["responder", "changed", "OK"] >= 2
    unknown = accord(hosts, client, "renegotiate", "00000000")
    assert unknown.returncode == 64
    assert "accord status lists" in unknown.stderr


def test_a_policy_that_is_read_again_moves_associations_at_either_end(hosts: Hosts) -> None:
    def say(host: Namespace, policy: str) -> None:
        hosts._config.write_text(f'[policy.default]\ntcp = "no-syn"\n{policy}')
        DAEMONS[host.name].send_signal(signal.SIGHUP)

    client, server = hosts.lab.client, hosts.lab.server
    try:
        with connected(hosts, "--renegotiate"):
            assert only(hosts, client)["stack"] == ["http", "tls", "tcp"]
            say(client, 'prefer = ["quic", "tls/tcp"]\n')
            wait_for(lambda: only(hosts, client)["stack"] == ["http", "quic"])
            say(server, 'prefer = ["tls/tcp"]\nonly = true\n')
            wait_for(lambda: only(hosts, client)["stack"] == ["http", "tls", "tcp"])
            wait_for(lambda: only(hosts, server)["generation"] == 3)
    finally:
        for host in (client, server):
            say(host, "")
            time.sleep(0.2)


def test_a_kernel_socket_that_a_program_holds_is_not_listed_and_cannot_change(hosts: Hosts) -> None:
    with connected(hosts, "--secure", "no", "--prefer", "tcp", "--only"):
        row = only(hosts, hosts.lab.server)
        assert associations(hosts, hosts.lab.client) == []
        done = accord(hosts, hosts.lab.server, "renegotiate", row["association"])
        assert done.returncode in (69, 76), "nobody there, or nobody who knows of it"


def test_a_peer_that_is_killed_in_the_middle_of_changes_is_a_broken_stream_and_no_end(hosts: Hosts) -> None:
    command = specification(hosts, {**TLS, "secure": "required"}, [TLS] * 200, 1)
    with hosts.lab.client.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            wait_for(lambda: any(row["generation"] > 4 for row in associations(hosts, hosts.lab.client)))
            server = hosts.lab.server
            for pid in (hosts.status(server)["pid"], DAEMONS[server.name].pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _, said = process.communicate(timeout=90)
        finally:
            process.kill()
    assert process.returncode == 1
    assert any(word in said for word in (b"ConnectionResetError", b"BrokenPipeError", b"STREAM_BROKEN")), said.decode()
