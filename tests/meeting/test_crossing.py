# SPDX-License-Identifier: Apache-2.0
"""Two daemons whose proposals cross on a real link: TCP from both SYNs, TLS on it, and what becomes of loss."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.utils import rdpcap

from accord.cli.capture import tally
from accord.lab.hosts import Hosts
from accord.wire import tcp_header
from accord.wire.constants import Protocol
from tests.meeting.callers import PORT, begin, both, finished, met, two_peers

pytestmark = pytest.mark.root

PLAIN = {"secure": "no", "prefer": ["tcp"], "only": True}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with two_peers(tmp_path_factory.mktemp("crossing"), rtt=0.04) as found:
        yield found


def syns(capture: Path) -> dict[str, int]:
    """By source address, the sequence number of the SYN in each side's proposal."""
    found = {}
    for packet in rdpcap(str(capture)):
        data = bytes(packet[UDP].payload) if UDP in packet else b""
        if data[4:8] != b"ACRD" or data[1] != 0:
            continue
        at = 32
        while at + 8 <= len(data):
            length, protocol = int.from_bytes(data[at + 2 : at + 4]), int.from_bytes(data[at + 4 : at + 8])
            chunk = data[at + 8 : at + 8 + length]
            if protocol == Protocol.TCP and length:
                header = chunk[4 + chunk[0] + int.from_bytes(chunk[2:4]) :]
                found[packet[IP].src] = tcp_header.decode(header, tcp_header.DEFAULT_MSS_IPV4).sender.isn
            at += 8 + length
    return found


def test_one_kernel_connection_is_made_of_both_syns_and_carries_data_both_ways(hosts: Hosts, tmp_path: Path) -> None:
    capture = tmp_path / "link.pcap"
    with hosts.lab.capture(capture, where="link"):
        one, other = both(hosts, "plain", direct=True, policy=PLAIN)
    assert met(one, other) == ["http", "tcp"]
    client, server = [hosts.lab.client.address4, PORT], [hosts.lab.server.address4, PORT]
    assert (one["names"], other["names"]) == ([client, server], [server, client])
    wire = tally(capture)
    assert (wire.syn_packets, wire.reset_packets) == (0, 0)
    announced = syns(capture)
    first = {p[IP].src: p[TCP].seq for p in reversed(rdpcap(str(capture))) if TCP in p and bytes(p[TCP].payload)}
    assert first.keys() == announced.keys() == {client[0], server[0]}
    assert {host: (isn + 1) & 0xFFFFFFFF for host, isn in announced.items()} == first


def test_tls_is_on_it_where_both_like_that_best(hosts: Hosts) -> None:
    policy = {"prefer": ["tls/tcp", "quic"]}
    assert met(*both(hosts, "secure", direct=True, port=PORT + 1, policy=policy)) == ["http", "tls", "tcp"]


def test_hosts_that_like_opposite_things_best_have_one_stack_all_the_same(hosts: Hosts) -> None:
    likes: dict[str, dict[str, Any]] = {
        "client": {"prefer": ["tls/tcp", "quic"]},
        "server": {"prefer": ["quic", "tls/tcp"]},
    }
    callers = []
    for role, other in (("client", hosts.lab.server), ("server", hosts.lab.client)):
        port = PORT + 2
        more = {"peer": [other.address4, port], "bind": ["0.0.0.0", port], "policy": likes[role]}
        callers.append(begin(hosts, role, "opposite", **more))
    one, other_one = (finished(caller, hosts) for caller in callers)
    assert met(one, other_one) == ["http", "quic"]


def test_crossings_under_loss_come_to_one_stack(hosts: Hosts) -> None:
    hosts.lab.change(loss=0.15)
    try:
        for number in range(2):
            port = PORT + 10 + number
            assert met(*both(hosts, f"loss {number}", direct=True, port=port)) in (
                ["http", "quic"],
                ["http", "tls", "tcp"],
            )
    finally:
        hosts.lab.change(loss=0.0)


def test_a_program_that_goes_away_takes_its_meeting_with_it(hosts: Hosts) -> None:
    port = PORT + 20
    alone = begin(hosts, "client", "alone", peer=[hosts.lab.server.address4, port], bind=["0.0.0.0", port])
    deadline = time.monotonic() + 10
    while hosts.status(hosts.lab.client)["negotiations"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    alone.kill()
    alone.wait()
    code = f"import socket; socket.socket(2, 2).bind(('0.0.0.0', {port}))"
    while hosts.lab.client.run(["python3", "-c", code], capture_output=True).returncode:
        assert time.monotonic() < deadline + 10, "the daemon keeps the socket"
        time.sleep(0.2)
