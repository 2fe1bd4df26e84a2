# SPDX-License-Identifier: Apache-2.0
"""Two hosts behind a masquerading NAT each: an introducer tells each where the other is, proposals open the way."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from accord.cli.capture import tally
from accord.lab.hosts import Hosts
from tests.meeting.callers import INTRODUCER, NAMES, PORT, begin, both, finished, met, two_peers

pytestmark = pytest.mark.root

RTT = 0.04


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with two_peers(tmp_path_factory.mktemp("nats"), rtt=RTT, path="nat-both") as found:
        yield found


def test_the_hosts_meet_through_both_nats_and_talk_over_quic(hosts: Hosts, tmp_path: Path) -> None:
    capture = tmp_path / "link.pcap"
    with hosts.lab.capture(capture, where="link"):
        one, other = both(hosts, "tea")
    assert met(one, other) == ["http", "quic"]
    assert one["mapped"] != [hosts.lab.client.address4, PORT], "a NAT is between"
    assert other["mapped"] != [hosts.lab.server.address4, PORT]
    assert tally(capture).negotiation_packets >= 4


def test_a_host_that_begins_later_is_met_although_the_first_packets_die_at_its_nat(hosts: Hosts) -> None:
    """Each knows the other's address already. Who is early knocks at a closed door, and again when the other comes."""
    before = dropped(hosts)
    with contextlib.ExitStack() as ends:
        early = begin(hosts, "client", "late", peer=["10.83.4.1", PORT + 1], bind=["0.0.0.0", PORT + 1])
        ends.callback(early.kill)
        deadline = time.monotonic() + 10
        while dropped(hosts) == before:
            assert time.monotonic() < deadline, "nothing died at the NAT"
            time.sleep(0.02)
        late = begin(hosts, "server", "late", peer=["10.83.1.1", PORT + 1], bind=["0.0.0.0", PORT + 1])
        ends.callback(late.kill)
        results = [finished(caller, hosts) for caller in (early, late)]
    assert met(results[0], results[1]) == ["http", "quic"]


def dropped(hosts: Hosts) -> int:
    """Packets that the server's NAT did not let in."""
    command = ["iptables", "-L", "INPUT", "-n", "-v", "-x"]
    said = hosts.lab.role("router2").run(command, check=True, capture_output=True, text=True).stdout
    return int(said.splitlines()[-1].split()[0])


def test_tcp_without_a_syn_is_refused_behind_a_nat_and_quic_taken(hosts: Hosts) -> None:
    policy = {"prefer": ["tls/tcp", "quic"]}
    one, other = both(hosts, "order", policy=policy, port=PORT + 2)
    assert met(one, other) == ["http", "quic"]
    follower = one if one["role"] == "responder" else other
    assert "ADDRESS_TRANSLATED" in json.dumps(follower["ladder"])


def test_the_command_is_a_pipe_between_both(hosts: Hosts) -> None:
    commands = []
    for role, other in (("client", "server"), ("server", "client")):
        files = ("--certificate", f"{hosts.directory / role}.pem", "--private-key", f"{hosts.directory / role}.key")
        where = ("--introducer", f"{hosts.lab.role('rendezvous').address4}:{INTRODUCER}", "--server-name", NAMES[other])
        host = hosts.lab.role(role)
        argv = [
            sys.executable,
            "-m",
            "accord.cli.main",
            "meet",
            "pipe",
            *where,
            *files,
            "--ca",
            str(hosts.ca),
            "--json",
        ]
        commands.append(host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    said = []
    for role, process in zip(("client", "server"), commands, strict=True):
        assert process.stdin is not None
        process.stdin.write(f"from {role}".encode())
        process.stdin.close()
        process.stdin = None
    for process in commands:
        out, errors = process.communicate(timeout=40)
        assert process.returncode == 0, errors.decode() + hosts.logs()
        said.append(out.decode())
        assert json.loads(errors.decode().splitlines()[-1])["stack"] == ["http", "quic"]
    assert said == ["from server", "from client"]
