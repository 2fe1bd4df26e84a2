# SPDX-License-Identifier: Apache-2.0
"""The race with the plain connection between real hosts, as captures, sockets and users see it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from accord.lab.hosts import PORT, SERVER_NAME, TLS_PORT, Hosts
from accord.wire.constants import Packet, TcpOption
from tests.e2e.conftest import PAGE, two_hosts

pytestmark = pytest.mark.root

GET = f"GET /index.html HTTP/1.0\r\nHost: {SERVER_NAME}\r\n\r\n".encode()
MODES = pytest.mark.parametrize("mode", ["no-syn", "parallel-syn"])
EX_IDS = {"no-syn": TcpOption.EXID, "parallel-syn": TcpOption.EXID_ADOPT}
OPTION = bytes([TcpOption.KIND, TcpOption.BYTES, 0xAC])
ACCORD = (sys.executable, "-m", "accord.cli.main")


@dataclass(frozen=True)
class Frame:
    """Of a capture, in its order."""

    source: str
    tcp: bool
    flags: int
    """Of TCP."""
    port: int
    """Where TCP goes to."""
    options: bytes
    data: bytes
    """Of UDP."""

    @property
    def proposal(self) -> bool:
        return self.data[4:8] == Packet.MAGIC.to_bytes(4, "big") and self.data[1] == 0

    @property
    def syn(self) -> bool:
        return self.tcp and self.flags & 0x12 == 0x02

    @property
    def reset(self) -> bool:
        return self.tcp and bool(self.flags & 0x04)


def frames(capture: Path) -> list[Frame]:
    """By tshark; ICMP's quotations are left out."""
    names = ("ip.src", "tcp.flags", "tcp.dstport", "tcp.options", "udp.payload")
    command = ["tshark", "-r", str(capture), "-Y", "(tcp or udp) and not icmp", "-T", "fields"]
    for name in names:
        command += ["-e", name]
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = []
    for row in rows:
        source, flags, port, options, payload = (row + "\t" * len(names)).split("\t")[: len(names)]
        number = int(flags, 16) if flags else 0
        found.append(Frame(source, bool(flags), number, int(port or 0), bytes.fromhex(options), bytes.fromhex(payload)))
    return found


def remote(hosts: Hosts, port: int = PORT) -> str:
    return f"{hosts.lab.server.address4}:{port}"


@dataclass
class Run:
    """One ``accord connect``."""

    report: dict[str, Any]
    said: str
    page: bytes
    wire: list[Frame]


def connected(hosts: Hosts, *arguments: str, port: int = PORT, capture: Path | None = None) -> Run:
    """It has to come about; what was captured at the client, a moment after its end."""
    command = ("-v", "--json", "--server-name", SERVER_NAME, *arguments, remote(hosts, port))
    if capture is None:
        done = hosts.connect(*command, stdin=GET)
    else:
        with hosts.lab.capture(capture, where="client"):
            done = hosts.connect(*command, stdin=GET)
            time.sleep(0.3)
    said = done.stderr.decode()
    assert done.returncode == 0, said + hosts.logs()
    report = next(json.loads(line) for line in said.splitlines() if line.startswith("{"))
    return Run(report, said, done.stdout.partition(b"\r\n\r\n")[2] or done.stdout, frames(capture) if capture else [])


def flush(hosts: Hosts) -> None:
    """The client's memory of peers."""
    command = [*ACCORD, "peers", "flush", "--control", str(hosts.control(hosts.lab.client))]
    hosts.lab.client.run(command, check=True, capture_output=True)


def sockets(hosts: Hosts) -> list[str]:
    """TCP sockets of both hosts towards each other, but for those in TIME-WAIT."""
    command = ["ss", "-tanH", "state", "connected", "exclude", "time-wait"]
    lines: list[str] = []
    for host in (hosts.lab.client, hosts.lab.server):
        lines += host.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [line for line in lines if hosts.lab.server.address4 in line]


def settle(hosts: Hosts) -> None:
    """Until no socket and no negotiation is left at the client. Raises ``AssertionError`` with what is, after 10 s."""
    deadline = time.monotonic() + 10
    while True:
        negotiations = hosts.status(hosts.lab.client)["negotiations"]
        left = sockets(hosts)
        if not left and not negotiations:
            return
        assert time.monotonic() < deadline, f"{negotiations} negotiations, {left}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with two_hosts(tmp_path_factory.mktemp("hosts"), "race") as both:
        yield both


@MODES
def test_the_syn_bears_its_proposal_s_transaction_and_is_first_only_where_the_proposal_must_be_made(
    hosts: Hosts, tmp_path: Path, mode: str
) -> None:
    flush(hosts)
    for made_ahead in (False, True):
        run = connected(hosts, "--tcp", mode, capture=tmp_path / "c.pcap")
        assert run.page == PAGE
        first = next(i for i, frame in enumerate(run.wire) if frame.proposal)
        syn = next(i for i, frame in enumerate(run.wire) if frame.syn)
        assert (first < syn) == (made_ahead or mode == "no-syn")
        assert run.report["negotiated"], "at the first contact, too"
        option = bytes([TcpOption.KIND, TcpOption.BYTES, *EX_IDS[mode].to_bytes(2, "big")])
        assert option + run.wire[first].data[8:20] in run.wire[syn].options
        assert sum(frame.syn for frame in run.wire) == 1


@MODES
@pytest.mark.parametrize("secure", ["required", "no"])
def test_a_peer_without_accord_gets_one_syn_and_no_reset(hosts: Hosts, tmp_path: Path, mode: str, secure: str) -> None:
    flush(hosts)
    if secure == "no":  # a bare service beside the TLS one
        server = hosts.lab.server
        bare = ["busybox", "httpd", "-f", "-p", f"{server.address4}:8081", "-h", str(hosts.site)]
        hosts.start(server, bare)
        time.sleep(0.2)
    port = TLS_PORT if secure == "required" else 8081
    run = connected(hosts, "--tcp", mode, "--secure", secure, port=port, capture=tmp_path / "c.pcap")
    assert run.page == PAGE
    assert run.report["stack"] == (["tls", "tcp"] if secure == "required" else ["tcp"])
    assert run.report["reason"] in ("LEGACY_PEER", "LEGACY_FIRST")
    assert run.report["fault"] == "none"
    assert "not negotiated: " in run.said
    assert "(nobody's fault)" in run.said
    assert sum(frame.syn for frame in run.wire) == 1
    assert not any(frame.reset for frame in run.wire)
    settle(hosts)


def test_a_negotiated_stack_that_wins_leaves_no_half_open_connection_and_no_reset(hosts: Hosts, tmp_path: Path) -> None:
    run = connected(hosts, "--prefer", "quic", "--only", "--fallback", "parallel", capture=tmp_path / "c.pcap")
    assert run.page == PAGE
    assert run.report["negotiated"]
    assert not any(frame.reset for frame in run.wire)
    settle(hosts)


def test_a_fallback_is_counted_by_its_reason(hosts: Hosts) -> None:
    def counted() -> dict[str, float]:
        command = [*ACCORD, "stats", "--json", "--control", str(hosts.control(hosts.lab.client))]
        families = json.loads(hosts.lab.client.run(command, check=True, capture_output=True).stdout)["families"]
        family = next(each for each in families if each["name"] == "accord_negotiations_total")
        return {
            each["labels"]["reason"]: each["value"]
            for each in family["samples"]
            if each["labels"]["outcome"] == "fell_back" and each["labels"]["role"] == "initiator"
        }

    flush(hosts)
    before = counted()
    reason = connected(hosts, port=TLS_PORT).report["reason"]
    assert counted()[reason] == before.get(reason, 0) + 1


def test_a_refusal_of_the_peer_is_its_fault_and_not_waited_for(hosts: Hosts, tmp_path: Path) -> None:
    """The daemon over there exposes nothing on this port, but hears the proposal: IP protocol 253 has no ports."""
    run = connected(hosts, "--context", "direct", "--tcp", "no-syn", port=TLS_PORT, capture=tmp_path / "c.pcap")
    assert run.page == PAGE
    assert run.report["reason"] in ("NO_SERVICE", "LEGACY_FIRST")
    assert not any(frame.reset for frame in run.wire if frame.source == hosts.lab.server.address4)
    settle(hosts)


def test_where_udp_is_dropped_the_plain_connection_serves_and_the_peer_is_soon_known(tmp_path: Path) -> None:
    with two_hosts(tmp_path, "race-udp", path="udp-dropped") as hosts:
        reasons = []
        for number, mode in enumerate(("no-syn", "parallel-syn", "parallel-syn")):
            run = connected(hosts, "--tcp", mode, capture=tmp_path / f"{number}.pcap")
            assert run.page == PAGE
            assert run.report["stack"] == ["tls", "tcp"]
            reasons.append(run.report["reason"])
            settle(hosts)  # and by then the proposal was repeated in vain
        # A hello of its own names no protocols to a stranger; that of the proposal does, and one to an acquaintance.
        assert reasons == ["LEGACY_FIRST", "FORCED_FALLBACK", "FORCED_FALLBACK"]
        assert "the peer speaks Accord, as its TLS says" in run.said
        for host in (hosts.lab.client, hosts.lab.server):
            assert hosts.status(host)["counters"]["negotiation"]["FORCED_FALLBACK"] == 2
        assert not any(frame.data for frame in run.wire), "nothing is proposed any more"
        assert not any(OPTION in frame.options for frame in run.wire)


def test_a_syn_whose_option_a_firewall_drops_costs_its_repetition_and_that_is_remembered(tmp_path: Path) -> None:
    with two_hosts(tmp_path, "race-drop", path="option-dropped") as hosts:
        options = []
        for number in range(3):
            run = connected(hosts, "--tcp", "parallel-syn", "--prefer", "tls/tcp", capture=tmp_path / f"{number}.pcap")
            assert run.page == PAGE
            assert run.report["negotiated"], run.said
            options.append([OPTION in frame.options for frame in run.wire if frame.syn])
        assert options == [[True, False], [True, False], [False]], "believed after two in a row"


def test_a_path_that_takes_the_option_off_costs_nothing_from_the_first_contact_on_and_is_named(tmp_path: Path) -> None:
    with two_hosts(tmp_path, "race-strip", path="option-stripped") as hosts:
        reasons = []
        for number in range(3):
            run = connected(hosts, "--tcp", "parallel-syn", "--prefer", "tls/tcp", capture=tmp_path / f"{number}.pcap")
            assert run.page == PAGE
            assert run.report["negotiated"], run.said
            assert sum(frame.syn for frame in run.wire) == 1
            reasons.append(run.report["reason"])
        assert set(reasons) <= {"OK", "OPTION_STRIPPED"}, reasons
        assert "OPTION_STRIPPED" in reasons, "unless a packet was repeated each time"
        assert run.report["reason"] == "OK" or "negotiated, but the path takes the option off the SYN" in run.said
        assert hosts.status(hosts.lab.client)["counters"]["negotiation"].get("OPTION_STRIPPED")


def test_a_peer_that_dies_is_named_as_any_host_would_name_it(tmp_path: Path) -> None:
    with two_hosts(tmp_path, "race-dies") as hosts:
        assert connected(hosts, "--tcp", "parallel-syn").page == PAGE
        hosts.lab.server.run(["kill", "-KILL", str(hosts.status(hosts.lab.server)["pid"])], check=True)
        time.sleep(0.5)
        for mode in ("no-syn", "parallel-syn"):
            dead = hosts.connect("--tcp", mode, remote(hosts), stdin=GET, timeout=30)
            assert b"Connection refused [UNREACHABLE" in dead.stderr
        settle(hosts)


def test_a_connect_that_is_interrupted_leaves_nothing(hosts: Hosts) -> None:
    settle(hosts)
    client = hosts.lab.client
    command = [*ACCORD, "connect", "--control", str(hosts.control(client)), "--ca", str(hosts.ca)]
    command += ["--tcp", "parallel-syn"]
    hosts.lab.change(rtt=2.0)
    try:
        process = client.popen([*command, remote(hosts)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not hosts.status(client)["negotiations"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.wait(10)
    finally:
        hosts.lab.change(rtt=0.03)
    settle(hosts)


def test_a_connection_without_a_syn_that_carries_data_is_remembered_and_auto_goes_by_it(
    hosts: Hosts, tmp_path: Path
) -> None:
    def known() -> Any:
        command = [*ACCORD, "peers", "--json", "--control", str(hosts.control(client))]
        rows = json.loads(client.run(command, check=True, capture_output=True).stdout)["peers"]
        return [row["no_syn"] for row in rows if row["port"] == PORT]

    client = hosts.lab.client
    flush(hosts)
    connected(hosts, "--tcp", "no-syn", "--prefer", "tls/tcp")
    assert known() == [True]
    run = connected(hosts, "--tcp", "auto", "--prefer", "tls/tcp", capture=tmp_path / "c.pcap")
    assert run.report["negotiated"]
    assert run.report["stack"][-1] == "tcp"
    assert "tcp no-syn" in run.said
    flush(hosts)
    assert "tcp parallel-syn" in connected(hosts, "--tcp", "auto").said
