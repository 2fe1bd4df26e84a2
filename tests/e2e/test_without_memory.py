# SPDX-License-Identifier: Apache-2.0
"""Two real daemons, the server's so loaded that it keeps nothing of a stranger: level 1 from the start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import rdpcap

from accord.lab.hosts import PORT, SERVER_NAME, Hosts
from accord.lab.lab import Lab
from tests.e2e.conftest import BIG, PAGE
from tests.e2e.test_parallel_syn import GET, GET_BIG, PARALLEL, captured, in_one_round_trip

pytestmark = pytest.mark.root

TLS = ("--prefer", "tls/tcp", "--only")


@dataclass(frozen=True)
class Packet:
    """Of a captured negotiation: IP bytes, and what its header says."""

    of_client: bool
    step: int
    chunks: bool
    bytes: int


def packets(path: Path) -> list[Packet]:
    """By scapy, in the order of the capture."""
    found = []
    for frame in rdpcap(str(path)):
        if UDP not in frame or PORT not in (frame[UDP].sport, frame[UDP].dport):
            continue
        payload = bytes(frame[UDP].payload)[: frame[UDP].len - 8]  # a short frame is padded
        network = frame[UDP].underlayer
        length = network.plen + 40 if isinstance(network, IPv6) else network.len
        header_only = len(payload) == 32
        found.append(Packet(frame[UDP].dport == PORT, payload[1], not header_only, length))
    return found


class Loaded:
    """Both hosts, and the server's daemon."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.config = hosts.directory / "loaded.toml"
        self.config.write_text("[limits]\nleast_level = 1\nstrangers_percent = 100\n")
        hosts.serve_plain()
        hosts.daemon(hosts.lab.client)
        self.start()

    def start(self) -> None:
        """The server's daemon, with its service exposed."""
        self.daemon = self.hosts.daemon(self.hosts.lab.server, "--config", str(self.config), "-v")
        self.hosts.expose()

    @property
    def strangers(self) -> dict[str, Any]:
        """What the server's daemon says of them."""
        said: dict[str, Any] = self.hosts.status(self.hosts.lab.server)["strangers"]
        return said

    def connect(self, capture: Path, *arguments: str, stdin: bytes = GET, family: int = 4) -> bytes:
        """TLS over the connection of one SYN: the page."""
        page, said, wire = captured(self.hosts, capture, *arguments, stdin=stdin, family=family)
        assert said.startswith("http/tls/tcp to "), said
        in_one_round_trip(wire)
        return page


@contextlib.contextmanager
def loaded_hosts(directory: Path, name: str, rtt: float) -> Iterator[Loaded]:
    """In a lab with such a round trip."""
    with (
        Lab(f"{name}-{os.getpid()}", rtt=rtt) as lab,
        contextlib.closing(Hosts(lab, directory, site={"index.html": PAGE, "big.bin": BIG})) as hosts,
    ):
        yield Loaded(hosts)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """One pair for the module; whoever breaks something makes its own."""
    with loaded_hosts(tmp_path_factory.mktemp("loaded"), "unkept", 0.03) as both:
        yield both


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("wishes", "packets_of"), [((), (3, 2, 1)), (TLS, (2, 2, 1))])
def test_a_stranger_has_its_stack_in_one_round_trip_and_no_byte_more_than_it_sent(
    loaded: Loaded, tmp_path: Path, family: int, wishes: tuple[str, ...], packets_of: tuple[int, ...]
) -> None:
    """By the default policy, with a share of ML-KEM-768 and QUIC's Initial beside it; and with TLS alone."""
    if wishes:  # learns how long the answer is, which is more than such a proposal
        loaded.connect(tmp_path / "first.pcap", *wishes, *PARALLEL, family=family)
    before = loaded.strangers
    with loaded.hosts.lab.capture(tmp_path / "link.pcap", where="link"):  # the rings of the hosts are behind a tcpdump
        assert loaded.connect(tmp_path / "c.pcap", *wishes, *PARALLEL, family=family) == PAGE
    after = loaded.strangers
    assert (after["answers"] - before["answers"], after["commits"] - before["commits"]) == (1, 1)
    wire = [packet for packet in packets(tmp_path / "link.pcap") if packet.chunks]
    steps = [step for step, count in enumerate(packets_of) for _ in range(count)]
    assert [(packet.of_client, packet.step) for packet in wire] == [(step % 2 == 0, step) for step in steps]
    sums = [sum(packet.bytes for packet in wire if packet.step == step) for step in (0, 1)]
    assert sums[1] <= sums[0]
    assert max(packet.bytes for packet in wire) <= 1280


def test_much_more_than_a_packet_flows_over_a_stack_that_was_answered_without_memory(
    loaded: Loaded, tmp_path: Path
) -> None:
    loaded.connect(tmp_path / "first.pcap", *TLS, *PARALLEL)
    before = loaded.strangers["commits"]
    assert loaded.connect(tmp_path / "c.pcap", *TLS, *PARALLEL, stdin=GET_BIG) == BIG
    assert loaded.strangers["commits"] == before + 1


def test_a_daemon_killed_between_answer_and_commit_costs_that_connection_and_no_other(tmp_path: Path) -> None:
    with loaded_hosts(tmp_path, "unkept-kill", 0.4) as loaded:
        loaded.connect(tmp_path / "first.pcap", *TLS, *PARALLEL)
        hosts, before = loaded.hosts, loaded.strangers["answers"]
        command = [str(word) for word in connecting(hosts)]
        doomed = hosts.lab.client.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 20
        while loaded.strangers["answers"] == before:
            assert time.monotonic() < deadline, hosts.logs()
        loaded.daemon.send_signal(signal.SIGKILL)
        loaded.daemon.wait(10)
        _, said = doomed.communicate(GET, timeout=40)
        assert b"Traceback" not in said
        assert doomed.returncode != 0
        loaded.start()
        assert loaded.connect(tmp_path / "again.pcap", *TLS, *PARALLEL) == PAGE


def connecting(hosts: Hosts) -> list[object]:
    """``accord connect``, to be started in the background."""
    command: list[object] = [sys.executable, "-m", "accord.cli.main", "connect", "-v", "--ca", hosts.ca]
    command += ["--control", hosts.control(hosts.lab.client), "--server-name", SERVER_NAME, *TLS, *PARALLEL]
    return [*command, f"{hosts.lab.server.address4}:{PORT}"]
