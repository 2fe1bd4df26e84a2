# SPDX-License-Identifier: Apache-2.0
"""The context DIRECT: the negotiation travels in IP protocol 253, and the stack comes up as over UDP."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from accord.cli.capture import tally
from accord.lab.hosts import PORT, Hosts
from tests.e2e.conftest import PAGE, two_hosts

pytestmark = pytest.mark.root

GET = b"GET /index.html HTTP/1.0\r\n\r\n"
DIRECT = ("-v", "--context", "direct", "--fallback", "never")


def address(hosts: Hosts, family: int) -> str:
    """The server, as ``accord connect`` wants it."""
    return f"{hosts.lab.server.address4}:{PORT}" if family == 4 else f"[{hosts.lab.server.address6}]:{PORT}"


def negotiations(capture: Path) -> list[str]:
    """IP protocol numbers of the packets with the magic cookie, by tshark; then those whose checksum is wrong."""
    command = ["tshark", "-r", str(capture), "-o", "ip.check_checksum:TRUE", "-Y", 'frame contains "ACRD"']
    command += ["-T", "fields", "-e", "ip.proto", "-e", "ipv6.nxt", "-e", "ip.checksum.status"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split("\t") for line in lines]
    assert all(row[2] in ("", "1") for row in rows), "checksums of IPv4 headers are good"
    return [row[0] or row[1] for row in rows]


@pytest.mark.parametrize("family", [4, 6])
def test_tls_on_tcp_is_negotiated_over_ip_alone_and_no_udp_is_on_the_wire(
    hosts: Hosts, tmp_path: Path, family: int
) -> None:
    capture = tmp_path / "c.pcap"
    for _ in range(2):  # the second proposal was made ahead
        with hosts.lab.capture(capture, where="link"):
            done = hosts.connect(*DIRECT, address(hosts, family), stdin=GET)
            time.sleep(0.2)
        assert done.returncode == 0, done.stderr.decode() + hosts.logs()
        assert done.stdout.endswith(PAGE)
        assert done.stderr.decode().startswith("http/tls/tcp to ")
        assert ", negotiated, " in done.stderr.decode().splitlines()[0]
        assert set(negotiations(capture)) == {"253"}
        wire = tally(capture)
        assert wire.negotiation_packets >= 3
        assert (wire.syn_packets, wire.reset_packets) == (0, 0)


def test_quic_needs_datagrams_of_its_own_and_is_left_out(hosts: Hosts) -> None:
    done = hosts.connect(*DIRECT, "--prefer", "quic", "--prefer", "tls/tcp", address(hosts, 4), stdin=GET)
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    assert done.stderr.decode().startswith("http/tls/tcp to ")
    done = hosts.connect(*DIRECT, "--prefer", "quic", "--only", address(hosts, 4), stdin=GET)
    assert done.returncode != 0


def test_a_port_that_is_not_exposed_is_refused_by_its_number_in_the_proposal(hosts: Hosts) -> None:
    done = hosts.connect(*DIRECT, f"{hosts.lab.server.address4}:{PORT + 1}", stdin=GET)
    assert done.returncode != 0
    assert "NO_SERVICE" in done.stderr.decode()


@pytest.mark.parametrize(("back_end", "attach"), [("af_xdp", "generic"), ("af_packet", "none")])
def test_each_back_end_of_frames_negotiates_over_ip_alone(tmp_path: Path, back_end: str, attach: str) -> None:
    with two_hosts(tmp_path, "direct", back_end=back_end, attach=attach) as hosts:
        done = hosts.connect(*DIRECT, address(hosts, 4), stdin=GET)
        assert done.returncode == 0, done.stderr.decode() + hosts.logs()
        assert done.stdout.endswith(PAGE)
        assert hosts.status(hosts.lab.server)["back_end"] == back_end


def test_on_udp_sockets_the_context_is_refused_with_its_reason_and_the_plain_connection_serves(tmp_path: Path) -> None:
    with two_hosts(tmp_path, "direct", back_end="udp", attach="none") as hosts:
        done = hosts.connect(*DIRECT, address(hosts, 4), stdin=GET)
        assert done.returncode != 0
        assert "UDP sockets carry no IP protocol 253" in done.stderr.decode()
        done = hosts.connect("-v", "--context", "direct", address(hosts, 4), stdin=GET)
        assert done.returncode == 0, done.stderr.decode() + hosts.logs()
        assert done.stdout.endswith(PAGE)
        assert "plain connection" in done.stderr.decode()
