# SPDX-License-Identifier: Apache-2.0
"""MPTCP as a plan, between two daemons: what is on the wire, what the kernels list, what is told when it is plain TCP.

The daemons' workers have no capabilities, and filters over their system calls: what passes here passes those.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.utils import rdpcap

from accord.datapath import probe
from accord.lab.hosts import PORT, SERVER_NAME, Hosts
from accord.lab.lab import Lab
from accord.lab.namespace import Namespace
from tests.e2e.conftest import PAGE, RTT

FINDING = probe.mptcp()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not FINDING.ok, reason=f"no MPTCP: {FINDING.reason}; {FINDING.mend}"),
]

GET = b"GET /index.html HTTP/1.0\r\n\r\n"
LONG = random.Random(8684).randbytes(10_000_000)
POLICY = '[policy.default]\ntcp = "no-syn"\nsecure = "preferred"\nprefer = ["tls/mptcp", "tls/tcp", "mptcp"]\n'
TLS = ("--prefer", "tls/mptcp", "--only", "--fallback", "never")
BARE = ("--prefer", "mptcp", "--only", "--secure", "no", "--fallback", "never")
EITHER = ("--prefer", "tls/mptcp", "--prefer", "tls/tcp", "--only", "--fallback", "never")
SECOND = "10.83.0.77"
"""Another address of the client's."""
PROGRAM = 9443
"""Where a program of the server's listens by itself."""

LIMITS = itertools.count(2000)

MP_CAPABLE, MP_JOIN = 0, 1
OPTION = 30


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """As usual, with a server that names MPTCP."""
    directory = tmp_path_factory.mktemp("mptcp")
    (directory / "server.toml").write_text(POLICY)
    with (
        Lab(f"mptcp-{os.getpid()}", rtt=RTT) as lab,
        contextlib.closing(Hosts(lab, directory, site={"index.html": PAGE, "long.bin": LONG})) as both,
    ):
        both.serve_plain()
        both.daemon(lab.client)
        both.daemon(lab.server, "-v", "--config", str(directory / "server.toml"))
        both.expose()
        yield both


def address(hosts: Hosts, family: int = 4) -> str:
    return f"{hosts.lab.server.address4}:{PORT}" if family == 4 else f"[{hosts.lab.server.address6}]:{PORT}"


def get(hosts: Hosts, *arguments: str, family: int = 4, file: str = "index.html") -> tuple[bytes, dict[str, Any], str]:
    """The page, the report, and what -v said."""
    request = f"GET /{file} HTTP/1.0\r\n\r\n".encode()
    done = hosts.connect("-v", "--json", *arguments, address(hosts, family), stdin=request)
    said = done.stderr.decode()
    assert done.returncode == 0, said + hosts.logs()
    return done.stdout.partition(b"\r\n\r\n")[2], json.loads(said.splitlines()[0]), said


def unused() -> tuple[str, str]:
    """What makes it another policy, so that no proposal of before, with its socket, is in stock for it."""
    return "--policy", f"message_limit = {next(LIMITS)}"


def subtypes(segment: TCP) -> list[int]:
    """Of the options of kind 30: the upper half of the first byte (RFC 8684, section 3)."""
    return [value[0] >> 4 for kind, value in segment.options if kind == OPTION]


def segments(capture: Path, port: int) -> list[TCP]:
    """Of the connections to a port, in order."""
    found = [frame[TCP] for frame in rdpcap(str(capture)) if TCP in frame]
    return [segment for segment in found if port in (segment.sport, segment.dport)]


def said_by(wire: list[TCP], port: int) -> bytes:
    """The listening side's stream, put together by sequence numbers."""
    mine = [segment for segment in wire if segment.sport == port]
    begin = next(segment.seq for segment in mine if segment.flags.S) + 1
    pieces = {(segment.seq - begin) % 2**32: bytes(segment.payload) for segment in mine if bytes(segment.payload)}
    stream = b""
    for offset in sorted(pieces):
        stream = stream[:offset] + pieces[offset]
    return stream


@contextlib.contextmanager
def rule(host: Namespace, *words: str) -> Iterator[None]:
    """A rule of both families' netfilter, in the mangle table."""
    for tool in ("iptables", "ip6tables"):
        host.run([tool, "-t", "mangle", "-I", *words], check=True)
    try:
        yield
    finally:
        for tool in ("iptables", "ip6tables"):
            host.run([tool, "-t", "mangle", "-D", *words], check=True)


@contextlib.contextmanager
def switched_off(host: Namespace) -> Iterator[None]:
    host.run(["sysctl", "-qw", "net.mptcp.enabled=0"], check=True)
    try:
        yield
    finally:
        host.run(["sysctl", "-qw", "net.mptcp.enabled=1"], check=True)


@contextlib.contextmanager
def standing(hosts: Hosts, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """``accord connect`` whose standard input is still open, and its report."""
    command = [sys.executable, "-m", "accord.cli.main", "connect", "-v", "--json"]
    command += ["--control", str(hosts.control(hosts.lab.client)), "--ca", str(hosts.ca), *arguments, address(hosts)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = hosts.lab.client.popen(command, **pipes)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith(b"{"), line.decode() + hosts.logs()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


def listed(host: Namespace, port: int, *begins: str) -> bool:
    """Whether ss comes to list an established connection to a peer's port for each of these beginnings."""
    deadline = time.monotonic() + 10
    while True:
        done = host.run(["ss", "-HMtn"], capture_output=True, text=True, check=True)
        lines = [line.split() for line in done.stdout.splitlines()]
        found = [f"{line[0]} {line[4]}" for line in lines if line[5].endswith(f":{port}") and line[1] == "ESTAB"]
        if all(any(each.startswith(begin) for each in found) for begin in begins):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def answered(process: subprocess.Popen[bytes]) -> bytes:
    output, _ = process.communicate(GET, timeout=30)
    return bytes(output.partition(b"\r\n\r\n")[2])


# ---- what it is ----


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("policy", "stack"), [(TLS, ["http", "tls", "mptcp"]), (BARE, ["http", "mptcp"])])
def test_mp_capable_is_on_syn_syn_ack_and_ack_between_the_planned_ports(
    hosts: Hosts, tmp_path: Path, family: int, policy: tuple[str, ...], stack: list[str]
) -> None:
    capture = tmp_path / "c.pcap"
    with hosts.lab.capture(capture, where="link"):
        page, report, said = get(hosts, *policy, family=family)
        time.sleep(0.2)
    assert page == PAGE
    assert report["stack"] == stack
    assert (report["negotiated"], report["reason"]) == (True, "OK")
    inside = report["inside"]["mptcp"]
    assert inside["multipath"] is True
    assert f"inside mptcp: port {inside['port']}, peer port {inside['peer_port']}, multipath\n" in said
    syn, syn_ack, ack, *rest = segments(capture, inside["peer_port"])
    assert (syn.sport, syn.dport) == (inside["port"], inside["peer_port"])
    assert [str(each.flags) for each in (syn, syn_ack, ack)] == ["S", "SA", "A"]
    assert [subtypes(each) for each in (syn, syn_ack, ack)] == [[MP_CAPABLE]] * 3
    assert not segments(capture, PORT), "nothing but negotiation packets, which are UDP"
    stream = said_by([syn, syn_ack, ack, *rest], inside["peer_port"])
    if "tls" in stack:
        assert PAGE not in capture.read_bytes()
        assert stream[:3] == b"\x17\x03\x03", "the handshake was in the nodes: a record of data begins it"
    else:
        assert stream.endswith(PAGE)


@pytest.mark.parametrize("policy", [TLS, BARE])
def test_ten_megabytes_arrive_byte_for_byte(hosts: Hosts, policy: tuple[str, ...]) -> None:
    page, _, _ = get(hosts, *policy, file="long.bin")
    assert hashlib.sha256(page).hexdigest() == hashlib.sha256(LONG).hexdigest()


SERVE = """
import asyncio, hashlib, json, sys, accord
async def main(port, certificate, key):
    async with accord.listen(port, certificate=certificate, private_key=key) as listener:
        print("listening", flush=True)
        async for association in listener:
            digest = hashlib.sha256()
            while piece := await association.read(1 << 18):
                digest.update(piece)
            answer = {"sha256": digest.hexdigest(), "stack": association.stack, "inside": association.report["inside"]}
            await association.write(json.dumps(answer).encode())
            await association.close()
asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
"""
SEND = """
import asyncio, json, socket, sys, accord
async def main(address, ca, name, file, policy):
    async with accord.connect(address, json.loads(policy), server_name=name, ca_file=ca) as association:
        own = association.carrier.kernel_socket
        with open(file, "rb") as opened:
            await association.sendfile(opened)
        await association.finish()
        answer = json.loads(await association.read_all())
        protocol = own.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
        print(json.dumps({"peer": answer, "report": association.report, "protocol": protocol}))
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("stack", "protocol"), [("tls/mptcp", 6), ("mptcp", 262)])
def test_programs_at_both_ends_are_told_the_same_and_finish_one_direction_by_itself(
    hosts: Hosts, tmp_path: Path, stack: str, protocol: int
) -> None:
    """``protocol``: of the client's socket. Bare it is the kernel's own; with TLS it is one end of a pair, over TCP."""
    (tmp_path / "long").write_bytes(LONG)
    files = (str(hosts.certificate), str(hosts.key))
    serving = hosts.start(hosts.lab.server, [sys.executable, "-c", SERVE, str(PROGRAM), *files], ready="listening")
    try:
        secure = "required" if "tls" in stack else "no"
        policy = {"prefer": [stack], "only": True, "secure": secure, "fallback": "never"}
        command = [sys.executable, "-c", SEND, f"{hosts.lab.server.address4}:{PROGRAM}", str(hosts.ca), SERVER_NAME]
        command += [str(tmp_path / "long"), json.dumps(policy)]
        done = hosts.lab.client.run(command, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr + hosts.logs()
    finally:
        serving.terminate()
        serving.wait(10)
    found = json.loads(done.stdout)
    here, there = found["report"]["inside"]["mptcp"], found["peer"]["inside"]["mptcp"]
    assert found["peer"]["sha256"] == hashlib.sha256(LONG).hexdigest()
    assert found["peer"]["stack"] == found["report"]["stack"] == ["http", *stack.split("/")]
    assert (here["port"], here["peer_port"]) == (there["peer_port"], there["port"])
    assert here["multipath"] is there["multipath"] is True
    assert found["protocol"] == protocol


def test_the_processes_that_opened_it_have_no_privileges_and_filtered_system_calls(hosts: Hosts) -> None:
    for host in (hosts.lab.client, hosts.lab.server):
        status = Path(f"/proc/{hosts.status(host)['pid']}/status").read_text()
        found = dict(line.split(":\t", 1) for line in status.splitlines())
        assert found["Seccomp"] == "2"
        assert int(found["CapBnd"], 16) == 0
        assert int(found["CapEff"], 16) & ~(1 << 14) == 0, "none but CAP_IPC_LOCK, for the rings"


def test_both_kernels_list_it_as_an_mptcp_connection(hosts: Hosts) -> None:
    with standing(hosts, *TLS) as (process, report):
        inside = report["inside"]["mptcp"]
        for host, port in ((hosts.lab.client, inside["peer_port"]), (hosts.lab.server, inside["port"])):
            assert listed(host, port, "mptcp ", "tcp "), "the connection, and its one path"
        assert answered(process) == PAGE


def test_an_association_that_runs_moves_to_mptcp_and_goes_on(hosts: Hosts, tmp_path: Path) -> None:
    capture = tmp_path / "c.pcap"
    with (
        hosts.lab.capture(capture, where="link"),
        standing(hosts, "--prefer", "tls/tcp", "--fallback", "never") as (process, report),
    ):
        assert report["stack"] == ["http", "tls", "tcp"]
        command = [sys.executable, "-m", "accord.cli.main", "renegotiate", report["association"], "--json"]
        command += ["--control", str(hosts.control(hosts.lab.client)), "--prefer", "tls/mptcp", "--only"]
        done = hosts.lab.client.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr + hosts.logs()
        assert json.loads(done.stdout)["stack"] == ["http", "tls", "mptcp"]
        assert answered(process) == PAGE
    assert "planned: MPTCP" in hosts.logs()
    syns = [frame[TCP] for frame in rdpcap(str(capture)) if TCP in frame and frame[TCP].flags == "S"]
    assert [subtypes(each) for each in syns] == [[MP_CAPABLE]]


# ---- further paths, and strangers ----


def test_a_further_path_joins_over_the_planned_port_and_a_stranger_there_is_turned_away(
    hosts: Hosts, tmp_path: Path
) -> None:
    client, capture = hosts.lab.client, tmp_path / "c.pcap"
    client.run(["ip", "addr", "add", f"{SECOND}/24", "dev", client.interface], check=True)
    client.run(["ip", "mptcp", "endpoint", "add", SECOND, "dev", client.interface, "subflow"], check=True)
    try:
        with hosts.lab.capture(capture, where="link"), standing(hosts, *TLS, *unused()) as (process, report):
            inside = report["inside"]["mptcp"]
            assert process.stdin is not None
            process.stdin.write(GET[:4])  # the first data makes the connection one that can be joined
            process.stdin.flush()
            port = inside["peer_port"]
            assert listed(client, port, f"mptcp {client.address4}", f"tcp {client.address4}", f"tcp {SECOND}")
            knock = (
                "import socket, sys\n"
                "made = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)\n"
                "try:\n    print(made.recv(1))\n"
                "except ConnectionResetError:\n    print(b'')\n"
            )
            command = [sys.executable, "-c", knock, hosts.lab.server.address4, str(inside["peer_port"])]
            done = client.run(command, capture_output=True, text=True, timeout=20)
            assert done.stdout == "b''\n", done.stderr
            output, _ = process.communicate(GET[4:], timeout=30)
            assert output.partition(b"\r\n\r\n")[2] == PAGE
            time.sleep(0.2)
    finally:
        client.run(["ip", "mptcp", "endpoint", "flush"], check=True)
        client.run(["ip", "addr", "del", f"{SECOND}/24", "dev", client.interface], check=True)
    joins = [each for each in segments(capture, inside["peer_port"]) if MP_JOIN in subtypes(each)]
    assert [str(each.flags) for each in joins[:3]] == ["S", "SA", "A"]
    done = hosts.lab.client.run(command, capture_output=True, text=True, timeout=20)
    assert "ConnectionRefusedError" in done.stderr, "the port ends with the association"


# ---- when it is not to be had ----


@pytest.mark.parametrize("family", [4, 6])
def test_an_option_that_is_taken_off_makes_it_plain_tcp_and_both_ends_say_so(
    hosts: Hosts, tmp_path: Path, family: int
) -> None:
    capture = tmp_path / "c.pcap"
    strip = ("PREROUTING", "-p", "tcp", "-j", "TCPOPTSTRIP", "--strip-options", str(OPTION))
    with hosts.lab.capture(capture, where="link"), rule(hosts.lab.server, *strip):
        page, report, said = get(hosts, *TLS, family=family)
        time.sleep(0.2)
    assert page == PAGE
    inside = report["inside"]["mptcp"]
    assert inside["multipath"] is False
    assert (report["negotiated"], report["reason"], report["fault"]) == (True, "OPTION_STRIPPED", "path")
    assert "no multipath\n" in said
    assert "negotiated, but the path takes the option off" in said
    syn, syn_ack, *rest = segments(capture, inside["peer_port"])
    assert subtypes(syn) == [MP_CAPABLE]
    assert not any(subtypes(each) for each in (syn_ack, *rest))


def test_an_option_that_is_taken_off_the_answer_alone_is_missed_by_who_sent_the_syn(hosts: Hosts) -> None:
    strip = ("PREROUTING", "-p", "tcp", "-j", "TCPOPTSTRIP", "--strip-options", str(OPTION))
    with rule(hosts.lab.client, *strip):
        page, report, _ = get(hosts, *BARE)
    assert page == PAGE
    assert report["inside"]["mptcp"]["multipath"] is False


@pytest.mark.parametrize("where", ["client", "server"])
def test_a_host_with_mptcp_switched_off_comes_to_the_next_stack(hosts: Hosts, where: str) -> None:
    host = hosts.lab.client if where == "client" else hosts.lab.server
    with switched_off(host):
        page, report, said = get(hosts, *EITHER, *unused())
        alone = hosts.connect("-v", *TLS, *unused(), address(hosts), stdin=GET)
    assert page == PAGE
    assert report["stack"] == ["http", "tls", "tcp"]
    assert "mptcp" not in report["inside"]
    assert "NO_KERNEL_SUPPORT" in said
    assert alone.returncode != 0
    why = alone.stderr.decode()
    if where == "client":
        assert "MPTCP sockets: switched off (sysctl -w net.mptcp.enabled=1)" in why
    else:
        assert "NO_KERNEL_SUPPORT, peer" in why
        assert "mptcp refused (respond): NO_KERNEL_SUPPORT: MPTCP sockets: switched off (sysctl -w" in hosts.logs()
    assert get(hosts, *EITHER, *unused())[1]["stack"] == ["http", "tls", "mptcp"], "once it is on it is used again"


def test_a_host_whose_policy_does_not_name_it_is_never_asked_for_it(hosts: Hosts) -> None:
    _, report, said = get(hosts, "--prefer", "tls/tcp", "--fallback", "never")
    assert report["stack"] == ["http", "tls", "tcp"]
    assert "mptcp" not in said


@contextlib.contextmanager
def refusing(host: Namespace) -> Iterator[None]:
    """Every connection but those to the exposed port is answered with a reset."""
    words = ("INPUT", "-p", "tcp", "!", "--dport", str(PORT), "-i", host.interface, "-j", "REJECT")
    host.run(["iptables", "-I", *words, "--reject-with", "tcp-reset"], check=True)
    try:
        yield
    finally:
        host.run(["iptables", "-D", *words, "--reject-with", "tcp-reset"], check=True)


def test_a_path_that_refuses_the_planned_connection_is_told_before_anybody_has_an_association(hosts: Hosts) -> None:
    with refusing(hosts.lab.server):
        done = hosts.connect("-v", *TLS, address(hosts), stdin=GET)
    assert done.returncode != 0
    assert not done.stdout
    assert "DATA_PATH_FAILED" in done.stderr.decode()
    assert "Connection refused" in done.stderr.decode()


def test_who_awaits_a_connection_that_never_comes_lets_go_of_its_port_with_the_exposed_one(hosts: Hosts) -> None:
    server = hosts.lab.server
    files = (str(hosts.certificate), str(hosts.key))
    serving = hosts.start(server, [sys.executable, "-c", SERVE, str(PROGRAM), *files], ready="listening")
    before = listening(server)
    with refusing(server):
        peer = f"{server.address4}:{PROGRAM}"
        done = hosts.connect("-v", *TLS, peer, stdin=GET)
        assert "Connection refused" in done.stderr.decode()
        awaited = listening(server) - before
        assert len(awaited) == 1, "for the connection that was refused on its way"
        serving.terminate()
        serving.wait(10)
        deadline = time.monotonic() + 10
        while awaited & listening(server) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not awaited & listening(server)
    assert f"port {PROGRAM}, {hosts.lab.client.address4}" in hosts.logs()
    assert "the port is withdrawn" in hosts.logs()


def listening(host: Namespace) -> set[str]:
    """Addresses and ports of MPTCP listeners."""
    done = host.run(["ss", "-HMtln"], capture_output=True, text=True, check=True)
    return {line.split()[4] for line in done.stdout.splitlines() if line.startswith("mptcp")}
