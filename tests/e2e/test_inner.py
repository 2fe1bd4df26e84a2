# SPDX-License-Identifier: Apache-2.0
"""Sealed negotiations between two daemons on real packets; tshark and the capture's bytes are the judges."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from accord.lab.hosts import PORT, SERVER_NAME, Hosts
from accord.lab.lab import Lab
from accord.protocols.sealed.configuration import Aead, Kem
from accord.protocols.sealed.host_keys import make
from accord.scapy_layer import Accord, is_accord
from accord.wire.constants import Protocol
from tests.e2e.conftest import PAGE, RTT

pytestmark = pytest.mark.root

GET = b"GET /index.html HTTP/1.0\r\nHost: hidden.example\r\n\r\n"
WINDOW = 2  # seconds: on a busy machine a request may be on its way for one
SEALED = ("--inner", "required", "--server-name", SERVER_NAME)
CLEAR = (SERVER_NAME.encode(), b"index.html", b"hidden.example", b"http/1.1", b"negotiated stack")


def keys(command: str, directory: Path, *more: str) -> str:
    line = [sys.executable, "-m", "accord.cli.main", "keys", command, "--directory", str(directory), *more]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


@dataclass
class Sealing:
    """Two hosts, the server's key directory, and what a policy pins."""

    hosts: Hosts
    directory: Path
    pin: str
    daemon: subprocess.Popen[bytes]

    def connect(self, capture: Path, *arguments: str, stdin: bytes = GET) -> tuple[bytes, dict[str, object], str]:
        """The page, the report and what -v said; everything on the link is in ``capture``."""
        with self.hosts.lab.capture(capture, where="link"):
            remote = f"{self.hosts.lab.server.address4}:{PORT}"
            done = self.hosts.connect("-v", "--json", *SEALED, *arguments, remote, stdin=stdin)
            time.sleep(0.2)
        said = done.stderr.decode()
        assert done.returncode == 0, said + self.hosts.logs()
        report = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
        return done.stdout.partition(b"\r\n\r\n")[2], report, said


@pytest.fixture(scope="module")
def sealing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealing]:
    directory = tmp_path_factory.mktemp("sealing")
    stored = directory / "keys"
    keys("make", stored)
    config = directory / "server.toml"
    config.write_text(f'[policy.default]\ntcp = "no-syn"\n[keys]\ndirectory = "{stored}"\nearly_window_s = {WINDOW}\n')
    with (
        Lab(f"inner-{os.getpid()}", rtt=RTT) as lab,
        contextlib.closing(Hosts(lab, directory, site={"index.html": PAGE})) as hosts,
    ):
        hosts.serve_plain()
        hosts.daemon(lab.client)
        daemon = hosts.daemon(lab.server, "--config", str(config), "-v")
        hosts.expose()
        yield Sealing(hosts, stored, json.loads(keys("show", stored, "--json"))["pin"], daemon)


def negotiation_packets(capture: Path) -> list[Accord]:
    """Those with our cookie in the payload of UDP as tshark has it, taken apart by the scapy layer."""
    command = ["tshark", "-r", str(capture), "-Y", f"udp.port=={PORT}", "-T", "fields", "-e", "udp.payload"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return [Accord(packet) for packet in map(bytes.fromhex, found) if is_accord(packet)]


def steps(capture: Path) -> set[int]:
    return {packet.step for packet in negotiation_packets(capture)}


def shows_nothing(capture: Path, stack: Sequence[int]) -> None:
    """Neither the service's name nor the request, the answer or what the application is; lengths come in steps."""
    seen = capture.read_bytes()
    assert [word for word in CLEAR if word in seen] == []
    packets = [packet for packet in negotiation_packets(capture) if packet.step > 0]
    shown = {chunk.protocol for packet in packets for chunk in packet.chunks}
    assert shown == {Protocol.UDP, *stack, Protocol.INNER}


@pytest.mark.parametrize(("stack", "outer"), [("tls/tcp", (Protocol.TCP, Protocol.TLS13)), ("quic", (Protocol.QUIC,))])
def test_with_a_pinned_key_three_steps_make_a_stack_that_shows_nothing(
    sealing: Sealing, tmp_path: Path, stack: str, outer: Sequence[int]
) -> None:
    page, report, said = sealing.connect(tmp_path / "c.pcap", "--key", sealing.pin, "--prefer", stack)
    assert page == PAGE
    assert report["stack"] == ["http", "inner", *stack.split("/")]
    assert "pinned by the policy" in said
    assert steps(tmp_path / "c.pcap") == {0, 1, 2}
    shows_nothing(tmp_path / "c.pcap", outer)


def test_a_sealed_request_is_answered_in_the_first_round_trip(sealing: Sealing, tmp_path: Path) -> None:
    time.sleep(2 * WINDOW)  # a daemon that has just started serves none
    request = tmp_path / "request"
    request.write_bytes(GET)
    page, report, _ = sealing.connect(tmp_path / "c.pcap", "--key", sealing.pin, "--early", str(request), stdin=b"")
    assert page == PAGE
    assert report["early"] is True
    assert steps(tmp_path / "c.pcap") == {0, 1, 2}
    shows_nothing(tmp_path / "c.pcap", (Protocol.TCP, Protocol.TLS13))


def test_an_unknown_key_is_asked_for_learnt_and_known_the_next_time(sealing: Sealing, tmp_path: Path) -> None:
    request = tmp_path / "request"
    request.write_bytes(GET)
    asking, knowing = tmp_path / "asking.pcap", tmp_path / "knowing.pcap"
    page, report, said = sealing.connect(asking, "--early", str(request), stdin=b"")
    assert page == PAGE
    assert "sealing to the key that the answer brought" in said
    assert steps(asking) == {0, 1, 2, 3, 4}
    shows_nothing(asking, (Protocol.TCP, Protocol.TLS13))
    page, report, said = sealing.connect(knowing)
    assert page == PAGE
    assert "learnt from the peer" in said
    assert steps(knowing) == {0, 1, 2}
    assert report["stack"] == ["http", "inner", "tls", "tcp"]


def test_a_key_that_is_not_the_peers_costs_one_round_trip(sealing: Sealing, tmp_path: Path) -> None:
    wrong = make(Kem.X25519, Aead.CHACHA20_POLY1305, time.time()).configuration.encode()
    page, _, said = sealing.connect(tmp_path / "c.pcap", "--key", base64.b64encode(wrong).decode())
    assert page == PAGE
    assert "is not the peer's key (WRONG_KEY)" in said
    assert steps(tmp_path / "c.pcap") == {0, 1, 2, 3, 4}


def test_where_the_policy_hides_no_plain_connection_shows_what(sealing: Sealing, tmp_path: Path) -> None:
    remote = f"{sealing.hosts.lab.server.address4}:{PORT + 1}"  # nobody negotiates there
    with sealing.hosts.lab.capture(tmp_path / "c.pcap", where="link"):
        done = sealing.hosts.connect("-v", *SEALED, remote)
        time.sleep(0.2)
    assert done.returncode != 0
    assert b"no plain connection: it would show" in done.stderr
    assert SERVER_NAME.encode() not in (tmp_path / "c.pcap").read_bytes()


def test_the_connection_of_a_syn_is_adopted_by_a_sealed_negotiation(sealing: Sealing, tmp_path: Path) -> None:
    page, report, _ = sealing.connect(tmp_path / "c.pcap", "--key", sealing.pin, "--tcp", "parallel-syn")
    assert page == PAGE
    assert report["stack"] == ["http", "inner", "tls", "tcp"]
    shows_nothing(tmp_path / "c.pcap", (Protocol.TCP, Protocol.TLS13))


def test_a_sealed_association_gets_another_stack_that_shows_as_little(sealing: Sealing, tmp_path: Path) -> None:
    hosts, capture = sealing.hosts, tmp_path / "c.pcap"
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    remote = f"{hosts.lab.server.address4}:{PORT}"
    arguments = (remote, SERVER_NAME, str(hosts.ca), str(hosts.control(hosts.lab.client)), sealing.pin)
    with hosts.lab.capture(capture, where="link"):
        done = hosts.lab.client.run([sys.executable, str(program), *arguments], capture_output=True, timeout=60)
        time.sleep(0.2)
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    assert done.stdout.split() == [b"http/inner/tls/tcp", b"http/inner/quic", b"HTTP/1.1"]
    shows_nothing(capture, (Protocol.TCP, Protocol.TLS13, Protocol.QUIC))


PROGRAM = """
import asyncio, sys
from accord.api import connect

async def main(remote, name, ca, control, pin):
    policy = {"inner": "required", "key": pin, "prefer": ["tls/tcp"]}
    async with connect(remote, policy, server_name=name, ca_file=ca, control=control) as association:
        print("/".join(association.report["stack"]))
        await association.renegotiate(policy={"prefer": ["quic"]})
        print("/".join(association.report["stack"]))
        await association.write(b"GET /index.html HTTP/1.0\\r\\n\\r\\n")
        print((await association.read())[:8].decode())

asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 30))
"""


def test_after_a_rotation_the_old_key_opens_and_the_new_one_is_learnt(sealing: Sealing, tmp_path: Path) -> None:
    """Last in the file: the pinned key is not the published one any more."""
    made = keys("make", sealing.directory, "--days", "100")
    sealing.daemon.send_signal(signal.SIGHUP)
    new = made.partition("hybrid ")[2].partition(",")[0]
    for _ in range(50):
        if any(new in name for name in sealing.hosts.status(sealing.hosts.lab.server)["sealing_keys"]):
            break
        time.sleep(0.1)
    page, _, said = sealing.connect(tmp_path / "old.pcap", "--key", sealing.pin)
    assert (page, steps(tmp_path / "old.pcap")) == (PAGE, {0, 1, 2})
    page, _, said = sealing.connect(tmp_path / "new.pcap")
    assert (page, steps(tmp_path / "new.pcap")) == (PAGE, {0, 1, 2})
    assert f"sealing to hybrid {new}, learnt from the peer" in said
