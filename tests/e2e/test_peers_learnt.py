# SPDX-License-Identifier: Apache-2.0
"""What two hosts really learn of each other: a silent peer is left in peace, and found again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accord.cli.status import ask
from accord.lab.capture import capture
from accord.lab.hosts import HTTP_PORT, TLS_PORT, Hosts
from accord.lab.lab import Lab
from tests.e2e.conftest import PAGE
from tests.e2e.test_negotiated_stacks import GET, body

pytestmark = pytest.mark.root

ACCORD = (sys.executable, "-m", "accord.cli.main")


NOBODY_ANSWERS = ("LEGACY_PEER", "LEGACY_FIRST")
"""ICMP says so, or the SYN-ACK came before."""
ANSWERED = {"": "answered", "LEGACY_FIRST": "late_answer", "FORCED_FALLBACK": "forced_fallback"}
"""What is learnt of a peer with Accord: by its answer in time, by a late one, or by the TLS of the plain connection."""


class Kept:
    """Two hosts; the client's daemon keeps its memory in a file, and opens TCP as it does by default."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.config = hosts.directory / "kept.toml"
        self.config.write_text('[peers]\nfile = "state/peers.jsonl"\n')
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.daemon = self.hosts.daemon(self.hosts.lab.client, "--config", str(self.config))

    def stop(self) -> None:
        assert self.daemon is not None
        self.daemon.terminate()
        assert self.daemon.wait(20) == 0

    def offer(self, port: int) -> subprocess.Popen[bytes]:
        """``accord expose`` on the server."""
        hosts = self.hosts
        command = [*ACCORD, "expose", "--listen", str(port), "--to", f"127.0.0.1:{HTTP_PORT}"]
        command += ["--certificate", str(hosts.certificate), "--private-key", str(hosts.key)]
        command += ["--control", str(hosts.control(hosts.lab.server))]
        return hosts.start(hosts.lab.server, command, ready="exposed")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    with (
        Lab(f"peers-{os.getpid()}", rtt=0.03) as lab,
        contextlib.closing(Hosts(lab, tmp_path, site={"index.html": PAGE})) as hosts,
    ):
        hosts.serve_plain()
        hosts.daemon(lab.server)
        kept = Kept(hosts)
        kept.start()
        yield kept


def peers(hosts: Hosts, *arguments: str) -> list[dict[str, Any]]:
    """What the client's daemon remembers."""
    command = [*ACCORD, "peers", *arguments, "--json", "--control", str(hosts.control(hosts.lab.client))]
    done = hosts.lab.client.run(command, check=True, capture_output=True, text=True, timeout=30)
    found: list[dict[str, Any]] = json.loads(done.stdout)["peers"]
    return found


def flush(hosts: Hosts, remote: str) -> None:
    command = [*ACCORD, "peers", "flush", remote, "--control", str(hosts.control(hosts.lab.client))]
    hosts.lab.client.run(command, check=True, capture_output=True, timeout=30)


def learnt(hosts: Hosts, what: str) -> int:
    """How often the client's daemon has learnt that, by its counters."""
    families = asyncio.run(ask(hosts.control(hosts.lab.client), {"op": "stats"}))["families"]
    (family,) = (family for family in families if family["name"] == "accord_peers_learnt_total")
    return sum(int(sample["value"]) for sample in family["samples"] if sample["labels"]["what"] == what)


def connect(hosts: Hosts, remote: str) -> str:
    """A page over whatever comes up first; why it is plain, or empty when it was negotiated."""
    done = hosts.connect("--json", remote, stdin=GET)
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    assert body(done.stdout) == PAGE
    report: dict[str, Any] = json.loads(done.stderr.decode().splitlines()[-1])
    return "" if report["negotiated"] else str(report["reason"])


def proposals(hosts: Hosts, remote: str, port: int) -> tuple[str, int]:
    """One connection, and how many UDP datagrams left to that port until long after it."""
    before = time.monotonic()
    with capture(hosts.lab.client, str(hosts.directory / f"{before}.pcap"), f"udp dst port {port}") as file:
        reason = connect(hosts, remote)
        time.sleep(0.5)
    return reason, sum(1 for _ in frames(file))


def frames(path: Path) -> Iterator[bytes]:
    """pcap, native byte order (pcap-savefile(5))."""
    data, at = path.read_bytes(), 24
    while at < len(data):
        length = int.from_bytes(data[at + 8 : at + 12], sys.byteorder)
        yield data[at + 16 : at + 16 + length]
        at += 16 + length


def wait_for_silence(hosts: Hosts, times: int) -> None:
    deadline = time.monotonic() + 20
    while learnt(hosts, "silent") < times:
        assert time.monotonic() < deadline, hosts.logs()
        time.sleep(0.1)


def test_a_peer_that_was_silent_twice_is_sent_no_proposal_until_it_is_forgotten(kept: Kept) -> None:
    hosts = kept.hosts
    remote = f"{hosts.lab.server.address4}:{TLS_PORT}"
    stock = hosts.serve_tls()
    for time_ in (1, 2):
        reason, sent = proposals(hosts, remote, TLS_PORT)
        assert reason in NOBODY_ANSWERS
        assert sent >= 1
        wait_for_silence(hosts, time_)
    assert proposals(hosts, remote, TLS_PORT) == ("KNOWN_LEGACY", 0)
    (row,) = peers(hosts, "show", remote)
    assert (row["accord"], row["propose"], row["port"]) == (False, False, TLS_PORT)
    # A new daemon remembers it, and says nothing to a peer that has Accord by now: served as one without.
    kept.stop()
    kept.start()
    stock.terminate()
    stock.wait(20)
    kept.offer(TLS_PORT)
    assert proposals(hosts, remote, TLS_PORT) == ("KNOWN_LEGACY", 0)
    # Told to forget, it asks again, and is answered: in time, or too late the first time, and is waited for afterwards.
    flush(hosts, remote)
    reason, sent = proposals(hosts, remote, TLS_PORT)
    assert sent >= 1
    assert learnt(hosts, ANSWERED[reason]) == 1
    assert connect(hosts, remote) == ""
    (row,) = peers(hosts)
    assert (row["address"], row["port"], row["accord"]) == (hosts.lab.server.address4, TLS_PORT, True)
    assert row["source"] == hosts.lab.client.address4
    assert {"tls", "tcp"} <= set(row["protocols"])
