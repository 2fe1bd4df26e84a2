# SPDX-License-Identifier: Apache-2.0
"""What is negotiated inside protocols, between two daemons with policies of their own; captures are the judges."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.utils import rdpcap

from accord.lab.hosts import PORT, Hosts
from accord.lab.lab import Lab
from accord.scapy_layer import Accord
from tests.e2e.conftest import BIG, PAGE, RTT

pytestmark = pytest.mark.root

GET = b"GET /index.html HTTP/1.0\r\n\r\n"
GET_BIG = b"GET /big.bin HTTP/1.0\r\n\r\n"
TEXT = b"<p>The same words again, and again.</p>\n" * 4000
WITHOUT_SYN = ("--fallback", "never")
SERVER = """
[policy.default]
tcp = "no-syn"
compress_encrypted = true
preferences = { quic = "avoid" }
tcp_options = { congestion = { reno = "preferred" }, window_scale = "preferred" }
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """As usual, with a policy of the server's own."""
    directory = tmp_path_factory.mktemp("inside")
    site = {"index.html": PAGE, "big.bin": BIG, "text.html": TEXT}
    (directory / "server.toml").write_text(SERVER)
    with Lab(f"inside-{os.getpid()}", rtt=RTT) as lab:
        both = Hosts(lab, directory, site=site)
        try:
            both.serve_plain()
            both.daemon(lab.client)
            both.daemon(lab.server, "--config", str(directory / "server.toml"))
            both.expose()
            yield both
        finally:
            both.close()


def address(hosts: Hosts) -> str:
    return f"{hosts.lab.server.address4}:{PORT}"


def get(hosts: Hosts, *arguments: str, stdin: bytes = GET) -> tuple[bytes, dict[str, Any], str]:
    """The page, the report, and what -v said."""
    done = hosts.connect("-v", "--json", *arguments, address(hosts), stdin=stdin)
    said = done.stderr.decode()
    assert done.returncode == 0, said + hosts.logs()
    return done.stdout.partition(b"\r\n\r\n")[2], json.loads(said.splitlines()[0]), said


def headers(path: Path, step: int) -> list[TCP]:
    """The TCP headers in the nodes of one step's messages, as scapy finds and reads them."""
    found = []
    for frame in rdpcap(str(path)):
        if Accord in frame and frame[Accord].step == step:
            for chunk in frame[Accord].chunks:
                if chunk.protocol == 6:
                    node = bytes(chunk.data)
                    payload = node[4 + node[0] + int.from_bytes(node[2:4], "big") :]
                    found.append(TCP(payload[: (payload[12] >> 4) * 4]))
    return found


def test_tcps_options_are_negotiated_in_the_node_and_the_segments_keep_to_them(hosts: Hosts, tmp_path: Path) -> None:
    capture = tmp_path / "c.pcap"
    policy = 'tcp_options = {timestamps = "avoid", mss = 1000}'
    with hosts.lab.capture(capture, where="link"):
        page, report, said = get(hosts, "--prefer", "tls/tcp", "--policy", policy, *WITHOUT_SYN)
        time.sleep(0.2)
    assert page == PAGE
    inside = report["inside"]["tcp"]
    assert (inside["way"], inside["timestamps"], inside["sack"]) == ("no-syn", False, True)
    assert "inside tcp: way no-syn, sack, no timestamps, window scale " in said
    (syn,), (syn_ack,) = headers(capture, 0), headers(capture, 1)
    offered, agreed = dict(syn.options), dict(syn_ack.options)
    assert offered["MSS"] == 1000
    assert "Timestamp" in offered, "to be avoided, not forbidden"
    assert "Timestamp" not in agreed
    assert "SAckOK" in agreed
    assert "WScale" in agreed
    data = [frame[TCP] for frame in rdpcap(str(capture)) if TCP in frame and bytes(frame[TCP].payload)]
    assert data
    assert not any("Timestamp" in dict(segment.options) for segment in data)
    assert max(len(segment.payload) for segment in data if segment.sport == PORT) <= 1000


def test_congestion_control_is_agreed_by_name_and_both_kernels_use_it(hosts: Hosts) -> None:
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
    if not {"reno", "bbr"} <= set(allowed):
        pytest.skip(f"reno and bbr are to be told apart, this kernel allows {allowed}: modprobe tcp_bbr")
    _, report, _ = get(hosts, "--prefer", "tls/tcp", "--policy", 'tcp_options.sack = "preferred"', *WITHOUT_SYN)
    assert report["inside"]["tcp"]["congestion"] == "reno", "which the server prefers"
    wish = 'tcp_options.congestion = {reno = "avoid", bbr = "preferred"}'
    _, report, _ = get(hosts, "--prefer", "tls/tcp", "--policy", wish, *WITHOUT_SYN)
    assert report["inside"]["tcp"]["congestion"] == "bbr"
    command = [sys.executable, "-m", "accord.cli.main", "connect", "--control", str(hosts.control(hosts.lab.client))]
    command += ["--ca", str(hosts.ca), "--prefer", "tls/tcp", *WITHOUT_SYN]
    command += ["--policy", 'tcp_options.congestion = {reno = "required"}', address(hosts)]
    process = hosts.lab.client.popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        deadline, seen = time.monotonic() + 10, set[str]()
        while len(seen) < 2 and time.monotonic() < deadline:
            for host in (hosts.lab.client, hosts.lab.server):
                listed = host.run(["ss", "-Htin", "state", "established"], capture_output=True, text=True).stdout
                for line, more in zip(listed.splitlines(), listed.splitlines()[1:], strict=False):
                    if f"{hosts.lab.server.address4}:{PORT}" in line and " reno " in f" {more.strip()} ":
                        seen.add(host.name)
            time.sleep(0.05)
        assert seen == {hosts.lab.client.name, hosts.lab.server.name}
    finally:
        process.kill()
        process.wait()


def test_the_connection_of_a_parallel_syn_gets_the_congestion_control_too(hosts: Hosts) -> None:
    wish = 'tcp_options.congestion = {reno = "required"}'
    page, report, said = get(hosts, "--prefer", "tls/tcp", "--tcp", "parallel-syn", "--policy", wish)
    assert page == PAGE
    assert report["negotiated"], said
    inside = report["inside"]["tcp"]
    assert (inside["way"], inside["congestion"]) == ("parallel-syn", "reno")


def test_what_the_kernels_settled_by_a_syn_is_checked_against_the_words(hosts: Hosts) -> None:
    wish = (
        "--prefer",
        "tls/tcp",
        "--only",
        "--tcp",
        "parallel-syn",
        "--policy",
        'tcp_options.timestamps = "forbidden"',
    )
    done = hosts.connect("-v", *wish, address(hosts), stdin=GET)
    assert done.returncode != 0
    assert b"timestamps" in done.stderr
    assert b'tcp = "no-syn"' in done.stderr
    done = hosts.connect("-v", *wish[:3], "--policy", 'tcp_options.timestamps = "forbidden"', address(hosts), stdin=GET)
    assert done.returncode == 0, done.stderr.decode()
    assert b"no timestamps" in done.stderr


def test_an_algorithm_that_nobody_has_fails_the_stack_only_if_it_is_required(hosts: Hosts) -> None:
    wish = 'tcp_options.congestion = {nosuch = "preferred"}'
    assert get(hosts, "--prefer", "tls/tcp", "--policy", wish, *WITHOUT_SYN)[0] == PAGE
    wish = 'tcp_options.congestion = {nosuch = "required"}'
    done = hosts.connect("--prefer", "tls/tcp", "--only", "--policy", wish, *WITHOUT_SYN, address(hosts))
    assert done.returncode != 0
    assert b"nosuch, which this host's policy requires, is not to be had here" in done.stderr


@pytest.mark.parametrize(
    "stack", ["compression/tls/tcp", "framing/tls/tcp", "framing/compression/tls/tcp", "compression/quic"]
)
def test_a_stack_with_layers_is_agreed_node_by_node_and_carries_data_intact(hosts: Hosts, stack: str) -> None:
    policy = ("--prefer", stack, "--only", "--policy", "compress_encrypted = true", *WITHOUT_SYN)
    page, report, said = get(hosts, *policy, stdin=GET_BIG)
    assert page == BIG
    assert "/".join(report["stack"]) == f"http/{stack}"
    for layer in stack.split("/")[:-1]:
        assert report["inside"][layer]
        assert f"inside {layer}: " in said


def test_compression_sends_less_over_the_link(hosts: Hosts, tmp_path: Path) -> None:
    sizes = []
    for stack in ("tls/tcp", "compression/tls/tcp"):
        capture = tmp_path / f"{len(sizes)}.pcap"
        request = b"GET /text.html HTTP/1.0\r\n\r\n"
        with hosts.lab.capture(capture, where="link"):
            policy = ("--prefer", stack, "--policy", "compress_encrypted = true")
            page, _, _ = get(hosts, *policy, *WITHOUT_SYN, stdin=request)
            time.sleep(0.2)
        assert page == TEXT
        sizes.append(sum(len(frame[TCP].payload) for frame in rdpcap(str(capture)) if TCP in frame))
    assert sizes[1] * 10 < sizes[0]


def test_compression_above_encryption_is_refused_by_a_host_whose_policy_does_not_say_so(hosts: Hosts) -> None:
    done = hosts.connect("--prefer", "compression/tls/tcp", *WITHOUT_SYN, address(hosts))
    assert done.returncode != 0
    assert b"lengths tell of secrets (CRIME)" in done.stderr


def test_the_words_of_both_sides_decide_and_what_is_left_out_is_told(hosts: Hosts) -> None:
    _, report, _ = get(hosts, "--prefer", "quic", *WITHOUT_SYN)
    assert report["stack"] == ["http", "tls", "tcp"], "the server avoids what the client lists first"
    _, report, _ = get(hosts, "--preference", "quic=required", *WITHOUT_SYN)
    assert report["stack"] == ["http", "quic"], "avoided, not forbidden"
    done = hosts.connect(
        "--preference", "quic=forbidden", "--preference", "tcp=forbidden", *WITHOUT_SYN, address(hosts)
    )
    assert done.returncode != 0
    assert b"no stack is left to propose, with the preferences tcp forbidden, quic forbidden" in done.stderr


def test_alpn_is_the_policys_in_both_nodes(hosts: Hosts) -> None:
    _, report, _ = get(hosts, "--prefer", "tls/tcp", "--policy", 'alpn = ["h2", "http/1.1"]', *WITHOUT_SYN)
    assert report["inside"]["tls"]["alpn"] == report["inside"]["http"]["alpn"] == report["alpn"] == "http/1.1"
    assert report["inside"]["tls"]["version"] == "TLSv1.3"
    done = hosts.connect("--prefer", "tls/tcp", "--only", "--policy", 'alpn = ["h2"]', *WITHOUT_SYN, address(hosts))
    assert done.returncode != 0
    assert b"HANDSHAKE_FAILED, peer" in done.stderr


PROGRAM = """
import asyncio, sys, accord

async def serve():
    files = {"certificate": sys.argv[2], "private_key": sys.argv[3]}
    async with accord.listen(9443, messages=True, plain=False, **files) as port:
        print("listening", flush=True)
        one = await port.accept()
        while (message := await one.receive()) is not None:
            await one.send(message[::-1])
        await one.close()

async def ask():
    policy = {"prefer": [sys.argv[4]], "only": True}
    async with accord.connect(sys.argv[2], messages=True, ca_file=sys.argv[3], policy=policy) as one:
        sent = [b"", b"a", b"message" * 3000, b"last"]
        got = []
        for message in sent:
            await one.send(message)
        for _ in sent:
            got.append(await one.receive())
        assert got == [message[::-1] for message in sent], got
        await one.finish()
        assert await one.receive() is None
        print("/".join(one.stack))

asyncio.run(serve() if sys.argv[1] == "serve" else ask())
"""


@pytest.mark.parametrize("stack", ["framing/tls/tcp", "framing/quic"])
def test_programs_exchange_messages_with_their_boundaries(hosts: Hosts, tmp_path: Path, stack: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    server = hosts.lab.server.popen(
        [sys.executable, str(program), "serve", str(hosts.certificate), str(hosts.key)], stdout=subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"listening\n"
        remote = f"{hosts.lab.server.address4}:9443"
        command = [sys.executable, str(program), "ask", remote, str(hosts.ca), stack]
        done = hosts.lab.client.run(command, capture_output=True, timeout=30)
        assert done.returncode == 0, done.stderr.decode() + hosts.logs()
        assert done.stdout.decode().strip() == f"http/{stack}"
    finally:
        server.kill()
        server.wait()


def test_messages_are_refused_where_nobody_frames_them() -> None:
    import accord
    from accord.wire.errors import UserError

    with pytest.raises(UserError):
        accord.connect("192.0.2.1:1", messages=True, early=b"GET")
    with pytest.raises(UserError):
        accord.listen(1, messages=True, forward_to=("127.0.0.1", 2))
    assert asyncio.iscoroutinefunction(accord.Association.send)
