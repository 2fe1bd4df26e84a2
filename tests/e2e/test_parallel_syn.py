# SPDX-License-Identifier: Apache-2.0
"""The one SYN that leaves beside the proposal, and the connection that comes of it, on the paths that TCP passes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from accord.lab.hosts import PORT, SERVER_NAME, Hosts
from accord.wire.constants import TcpOption
from accord.wire.tcp_option import decode
from tests.e2e.conftest import BIG, PAGE, two_hosts

pytestmark = pytest.mark.root

GET = f"GET /index.html HTTP/1.0\r\nHost: {SERVER_NAME}\r\n\r\n".encode()
GET_BIG = GET.replace(b"index.html", b"big.bin")
PARALLEL = ("--tcp", "parallel-syn", "--fallback", "delayed")
TLS = ("--prefer", "tls/tcp")
BARE = ("--prefer", "tcp", "--only", "--secure", "no")


@dataclass(frozen=True)
class Segment:
    """Of a captured TCP connection, in the order of the capture."""

    of_client: bool
    flags: int
    payload: bytes

    @property
    def is_syn(self) -> bool:
        return bool(self.flags & 0x02)


def segments(path: Path) -> list[Segment]:
    """By tshark, of the connections to the exposed port."""
    command = ["tshark", "-r", str(path), "-Y", f"tcp.port=={PORT}", "-o", "tcp.desegment_tcp_streams:false"]
    command += ["-d", f"tcp.port=={PORT},data", "-T", "fields"]
    for name in ("tcp.dstport", "tcp.flags", "tcp.payload"):
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [(line + "\t\t").split("\t")[:3] for line in done.stdout.splitlines()]
    return [Segment(port == str(PORT), int(flags, 16), bytes.fromhex(payload)) for port, flags, payload in rows]


def captured(
    hosts: Hosts, path: Path, *arguments: str, stdin: bytes = GET, family: int = 4
) -> tuple[bytes, str, list[Segment]]:
    """``accord connect`` under a capture at the client: the answer's body, what -v said, what TCP sent."""
    server = hosts.lab.server
    remote = f"{server.address4}:{PORT}" if family == 4 else f"[{server.address6}]:{PORT}"
    with hosts.lab.capture(path, where="client"):
        done = hosts.connect("-v", "--server-name", SERVER_NAME, *arguments, remote, stdin=stdin)
        time.sleep(0.2)
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    return done.stdout.partition(b"\r\n\r\n")[2], done.stderr.decode(), segments(path)


def adopted(hosts: Hosts) -> dict[str, float]:
    """What the server's daemon has counted of its places."""
    command = [sys.executable, "-m", "accord.cli.main", "stats", "--json"]
    command += ["--control", str(hosts.control(hosts.lab.server))]
    done = hosts.lab.server.run(command, capture_output=True, text=True, check=True)
    family = next(each for each in json.loads(done.stdout)["families"] if each["name"] == "accord_adoptions_total")
    samples = [(each["labels"], each["value"]) for each in family["samples"]]
    return {labels["result"]: value for labels, value in samples if labels["role"] == "responder"}


def sent(wire: list[Segment], *, of_client: bool) -> bytes:
    return b"".join(segment.payload for segment in wire if segment.of_client == of_client)


def in_one_round_trip(wire: list[Segment]) -> None:
    """TLS's handshake is nowhere in the stream: when the SYN-ACK came it was over, or came with it."""
    stream = sent(wire, of_client=True)
    stream = stream[16:] if decode(stream[:16]) is not None else stream
    for data in (stream, sent(wire, of_client=False)):
        while data:  # type u8, version u16, length u16
            assert data[0] == 0x17, "a record that is not application data"
            data = data[5 + int.from_bytes(data[3:5], "big") :]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Two hosts and a plain router between them."""
    with two_hosts(tmp_path_factory.mktemp("hosts"), "syn", path="router") as both:
        yield both


def adopts_in_one_round_trip(hosts: Hosts, capture: Path, family: int, found: str = "by_syn") -> None:
    """TLS over the connection of the one SYN, ``found`` as it was."""
    before = adopted(hosts)
    page, said, wire = captured(hosts, capture, *TLS, *PARALLEL, family=family)
    assert page == PAGE
    assert said.startswith("http/tls/tcp to ")
    assert ", negotiated, " in said.splitlines()[0]
    assert sum(segment.is_syn and segment.of_client for segment in wire) == 1
    assert not any(segment.flags & 0x04 for segment in wire), "a reset"
    in_one_round_trip(wire)
    after = adopted(hosts)
    assert after == {**before, found: before[found] + 1}
    preface = decode(sent(wire, of_client=True)[:16])
    assert (preface is not None) == (found == "by_preface"), "a marked SYN-ACK spares it"


@pytest.mark.parametrize("family", [4, 6])
def test_tls_over_tcp_is_ready_in_one_round_trip_with_exactly_one_syn(
    hosts: Hosts, tmp_path: Path, family: int
) -> None:
    adopts_in_one_round_trip(hosts, tmp_path / "c.pcap", family)


@pytest.mark.parametrize("path", ["nat", "strict", "synproxy"])
def test_the_same_behind_a_translator_a_strict_firewall_and_a_proxy_that_sends_a_syn_of_its_own(
    tmp_path: Path, path: str
) -> None:
    with two_hosts(tmp_path, f"syn-{path}", path=path) as hosts:
        adopts_in_one_round_trip(hosts, tmp_path / "c.pcap", 4, "by_preface" if path == "synproxy" else "by_syn")


def test_a_long_answer_and_a_bare_one_arrive_byte_for_byte(hosts: Hosts, tmp_path: Path) -> None:
    for stack in (TLS, BARE):
        page, said, wire = captured(hosts, tmp_path / f"{stack[1][:3]}.pcap", *stack, *PARALLEL, stdin=GET_BIG)
        assert page == BIG
        assert ", negotiated, " in said.splitlines()[0]
        if stack is BARE:
            stream = sent(wire, of_client=True)
            found = decode(stream[:16])
            assert found is not None, "without TLS the preface is always there"
            assert found[0] is TcpOption.EXID_ADOPT
            assert stream[16:] == GET_BIG


def test_an_early_request_is_answered_once_and_what_is_left_follows_over_the_adopted_connection(
    hosts: Hosts, tmp_path: Path
) -> None:
    request = tmp_path / "request"
    request.write_bytes(GET_BIG)
    page, said, wire = captured(hosts, tmp_path / "c.pcap", *BARE, *PARALLEL, "--early", str(request), stdin=b"")
    assert page == BIG
    assert ", negotiated, " in said.splitlines()[0]
    # A service that was too slow for the answer has not taken the request, and is asked over the stream.
    asked = GET_BIG in sent(wire, of_client=True)
    assert (b"200 OK" in sent(wire, of_client=False)) == asked


def test_an_initiator_that_gets_no_answer_goes_on_with_the_same_connection_and_is_served_while_its_negotiation_lives(
    hosts: Hosts, tmp_path: Path
) -> None:
    router = hosts.lab.role("router")
    rule = ["FORWARD", "-p", "udp", "--sport", str(PORT), "-j", "DROP"]
    router.run(["iptables", "-I", *rule], check=True)
    try:
        before = adopted(hosts)
        page, said, wire = captured(hosts, tmp_path / "c.pcap", *TLS, "--tcp", "parallel-syn", "--fallback", "parallel")
    finally:
        router.run(["iptables", "-D", *rule], check=True)
    assert page == PAGE
    assert "plain connection" in said.splitlines()[0]
    assert sum(segment.is_syn and segment.of_client for segment in wire) == 1
    assert not any(segment.flags & 0x04 for segment in wire), "a reset"
    assert sent(wire, of_client=True)[0] == 0x16, "plain TLS, from the first byte"
    assert adopted(hosts)["fell_back"] == before["fell_back"] + 1


def test_a_port_that_leaves_plain_hosts_to_another_program_refuses_to_adopt(tmp_path: Path) -> None:
    with two_hosts(tmp_path, "syn-noplain", plain=False) as hosts:
        done = hosts.connect("-v", "--server-name", SERVER_NAME, *BARE, "--tcp", "parallel-syn", "--fallback", "never",
            f"{hosts.lab.server.address4}:{PORT}", stdin=GET)  # fmt: skip
        assert done.returncode != 0
        assert b"NOT_ADOPTABLE" in done.stderr or b"is not this daemon's to adopt" in done.stderr, done.stderr
