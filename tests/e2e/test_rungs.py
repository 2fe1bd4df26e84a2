# SPDX-License-Identifier: Apache-2.0
"""The same requests over each rung of the ladder, between two daemons; tshark checks every checksum that we made."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from accord.lab.hosts import PORT, Hosts
from tests.e2e.conftest import BIG, PAGE, two_hosts

pytestmark = pytest.mark.root

GET = b"GET /index.html HTTP/1.0\r\n\r\n"
GET_BIG = b"GET /big.bin HTTP/1.0\r\n\r\n"
RUNGS = [("af_xdp", "native"), ("af_xdp", "generic"), ("af_packet", "none"), ("udp", "none")]


@pytest.fixture(scope="module", params=RUNGS, ids=lambda rung: "-".join(rung))
def rung(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Both daemons on this rung, and on no other."""
    back_end, attach = request.param
    with two_hosts(tmp_path_factory.mktemp("rung"), "rung", back_end=back_end, attach=attach) as hosts:
        for host in (hosts.lab.client, hosts.lab.server):
            status = hosts.status(host)
            assert (status["back_end"], status["attach_mode"]) == (back_end, attach)
        yield hosts


def wrong_checksums(capture: Path) -> int:
    """Negotiation packets whose IPv4 or UDP checksum tshark finds wrong; fails when there are none to check."""
    command = ["tshark", "-r", str(capture), "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]
    command += ["-Y", 'udp and frame contains "ACRD"', "-T", "fields", "-e", "udp.checksum.status"]
    command += ["-e", "ip.checksum.status"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) >= 4
    return sum(line.split("\t") not in (["1", "1"], ["1", ""]) for line in lines)


@pytest.mark.parametrize(("stack", "family"), [("tls/tcp", 4), ("quic", 6)])
def test_a_request_is_answered_over_every_rung(rung: Hosts, tmp_path: Path, stack: str, family: int) -> None:
    server = rung.lab.server
    remote = f"{server.address4}:{PORT}" if family == 4 else f"[{server.address6}]:{PORT}"
    with rung.lab.capture(tmp_path / "c.pcap", where="link"):
        done = rung.connect("-v", "--prefer", stack, "--fallback", "never", remote, stdin=GET)
        time.sleep(0.2)
    assert done.returncode == 0, done.stderr.decode() + rung.logs()
    assert done.stdout.endswith(PAGE)
    assert done.stderr.decode().startswith(f"http/{stack} to ")
    assert wrong_checksums(tmp_path / "c.pcap") == 0


def test_a_long_answer_arrives_over_every_rung(rung: Hosts) -> None:
    remote = f"{rung.lab.server.address4}:{PORT}"
    done = rung.connect("--prefer", "tls/tcp", "--fallback", "never", remote, stdin=GET_BIG)
    assert done.returncode == 0, done.stderr.decode() + rung.logs()
    assert done.stdout.endswith(BIG)
