# SPDX-License-Identifier: Apache-2.0
"""Requests over negotiated stacks, between two daemons, on real packets; captures and stock tools are the judges."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from accord.cli.capture import Tally, tally
from accord.lab.hosts import PORT, SERVER_NAME, TLS_PORT, Hosts
from tests.e2e.conftest import BIG, PAGE

pytestmark = pytest.mark.root

GET = b"GET /index.html HTTP/1.0\r\n\r\n"
GET_BIG = b"GET /big.bin HTTP/1.0\r\n\r\n"
WITHOUT_SYN = ("--fallback", "never")


def address(hosts: Hosts, family: int) -> str:
    """The server, as ``accord connect`` wants it."""
    return f"{hosts.lab.server.address4}:{PORT}" if family == 4 else f"[{hosts.lab.server.address6}]:{PORT}"


def body(answer: bytes) -> bytes:
    """What came after the HTTP head."""
    return answer.partition(b"\r\n\r\n")[2]


def captured(hosts: Hosts, path: Path, *arguments: str, stdin: bytes = GET) -> tuple[bytes, str, Tally]:
    """``accord connect`` under a capture of the link: the answer's body, what -v said, what was on the wire."""
    with hosts.lab.capture(path, where="link"):
        done = hosts.connect("-v", *arguments, stdin=stdin)
        time.sleep(0.2)
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    return body(done.stdout), done.stderr.decode(), tally(path)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("policy", "stack"),
    [
        (("--prefer", "tls/tcp"), "http/tls/tcp"),
        (("--prefer", "quic"), "http/quic"),
        (("--prefer", "tcp", "--only", "--secure", "no"), "http/tcp"),
    ],
)
def test_the_preferred_stack_answers_a_request_and_no_syn_is_on_the_wire(
    hosts: Hosts, tmp_path: Path, family: int, policy: tuple[str, ...], stack: str
) -> None:
    page, said, wire = captured(hosts, tmp_path / "c.pcap", *policy, *WITHOUT_SYN, address(hosts, family))
    assert page == PAGE
    assert said.startswith(f"{stack} to ")
    assert ", negotiated, " in said.splitlines()[0]
    assert wire.syn_packets == 0
    assert wire.reset_packets == 0
    assert wire.negotiation_packets >= 3


@pytest.mark.parametrize("stack", ["tls/tcp", "quic"])
def test_a_long_answer_arrives_byte_for_byte(hosts: Hosts, tmp_path: Path, stack: str) -> None:
    page, _, wire = captured(
        hosts, tmp_path / "c.pcap", "--prefer", stack, *WITHOUT_SYN, address(hosts, 4), stdin=GET_BIG
    )
    assert page == BIG
    assert wire.reset_packets == 0


def test_an_early_request_is_answered_in_the_responders_message(hosts: Hosts, tmp_path: Path) -> None:
    request = tmp_path / "request"
    request.write_bytes(GET)
    policy = ("--secure", "no", "--prefer", "tcp", "--only", "--early", str(request))
    page, said, wire = captured(hosts, tmp_path / "c.pcap", *policy, *WITHOUT_SYN, address(hosts, 4), stdin=b"")
    assert page == PAGE
    assert wire.syn_packets == 0
    # The page is in the answer, in clear, and nowhere in a TCP segment.
    command = ["tshark", "-r", str(tmp_path / "c.pcap"), "-Y", 'frame contains "came over a negotiated"']
    command += ["-T", "fields", "-e", "ip.proto", "-e", "udp.srcport"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["17", str(PORT)]
    assert "http 1" in said or "http" in said


def test_a_long_early_answer_begins_in_the_message_and_ends_over_the_stack(hosts: Hosts, tmp_path: Path) -> None:
    request = tmp_path / "request"
    request.write_bytes(GET_BIG)
    policy = ("--secure", "no", "--prefer", "tcp", "--only", "--early", str(request))
    page, _, wire = captured(hosts, tmp_path / "c.pcap", *policy, *WITHOUT_SYN, address(hosts, 4), stdin=b"")
    assert page == BIG
    assert wire.reset_packets == 0


def test_a_secure_policy_never_sends_the_early_request_in_clear(hosts: Hosts, tmp_path: Path) -> None:
    request = tmp_path / "request"
    request.write_bytes(b"GET /index.html?for-nobodys-eyes HTTP/1.0\r\n\r\n")
    page, _, _ = captured(
        hosts, tmp_path / "c.pcap", "--early", str(request), *WITHOUT_SYN, address(hosts, 4), stdin=b""
    )
    assert page == PAGE
    assert b"for-nobodys-eyes" not in (tmp_path / "c.pcap").read_bytes()


def test_tshark_sees_tls_records_of_application_data_on_a_tcp_stream_without_syn(hosts: Hosts, tmp_path: Path) -> None:
    capture = tmp_path / "c.pcap"
    captured(hosts, capture, "--prefer", "tls/tcp", *WITHOUT_SYN, address(hosts, 4))

    def fields(display_filter: str, *names: str) -> list[list[str]]:
        command = ["tshark", "-r", str(capture), "-d", f"tcp.port=={PORT},tls", "-Y", display_filter, "-T", "fields"]
        for name in names:
            command += ["-e", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [line.split("\t") for line in done.stdout.splitlines()]

    assert fields("tcp.flags.syn==1", "frame.number") == []
    assert fields("tcp.analysis.retransmission or tcp.analysis.lost_segment", "frame.number") == []
    types = {kind for row in fields("tls.record.content_type", "tls.record.content_type") for kind in row[0].split(",")}
    assert types == {"23"}, "only application data is left for the stream: the handshake was in the nodes"
    assert len(fields("tcp.len>0", "frame.number")) >= 2
    stamped = fields("tcp", "tcp.options.timestamp.tsval")
    assert stamped
    assert all(row[0] for row in stamped), "timestamps were negotiated, so every segment bears one"
    assert PAGE not in capture.read_bytes()


def test_the_kernel_lists_the_negotiated_connection_as_its_own(hosts: Hosts) -> None:
    command = [sys.executable, "-m", "accord.cli.main", "connect", "--control", str(hosts.control(hosts.lab.client))]
    command += ["--ca", str(hosts.ca), "--prefer", "tls/tcp", *WITHOUT_SYN, address(hosts, 4)]
    process = hosts.lab.client.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 10
        seen: dict[str, str] = {}
        while len(seen) < 2 and time.monotonic() < deadline:
            for host, this in ((hosts.lab.client, "client"), (hosts.lab.server, "server")):
                listed = host.run(["ss", "-Htin", "state", "established"], capture_output=True, text=True).stdout
                if f"{hosts.lab.server.address4}:{PORT}" in listed:
                    seen[this] = listed
            time.sleep(0.05)
        assert set(seen) == {"client", "server"}, hosts.logs()
        assert "wscale" in seen["client"]
        assert process.stdin is not None
        process.stdin.write(GET)
        process.stdin.close()
        assert process.stdout is not None
        assert body(process.stdout.read()) == PAGE
    finally:
        process.kill()
        process.wait()


def test_a_program_that_knows_nothing_of_accord_uses_a_negotiated_stack_through_a_unix_socket(
    hosts: Hosts, tmp_path: Path
) -> None:
    path = tmp_path / "local.sock"
    command = [sys.executable, "-m", "accord.cli.main", "connect", "--control", str(hosts.control(hosts.lab.client))]
    command += ["--ca", str(hosts.ca), "--listen", f"unix:{path}", *WITHOUT_SYN, address(hosts, 4)]
    server = hosts.lab.client.popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        curl = ["curl", "-sS", "--fail", "--unix-socket", str(path), f"http://{SERVER_NAME}/big.bin"]
        done = hosts.lab.client.run(curl, capture_output=True, timeout=20)
        assert done.returncode == 0, done.stderr.decode() + hosts.logs()
        assert done.stdout == BIG
    finally:
        server.terminate()
        server.wait()
    assert not path.exists(), "the socket goes with the command"


def test_a_host_without_accord_reaches_the_same_port_with_curl(hosts: Hosts) -> None:
    curl = ["curl", "-sS", "--fail", "--tlsv1.3", "--cacert", str(hosts.ca)]
    curl += ["--resolve", f"{SERVER_NAME}:{PORT}:{hosts.lab.server.address4}", f"https://{SERVER_NAME}/index.html"]
    done = hosts.lab.client.run(curl, capture_output=True, timeout=20)
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    assert done.stdout == PAGE


def test_openssl_verifies_the_certificate_that_the_exposed_port_shows(hosts: Hosts) -> None:
    command = ["openssl", "s_client", "-connect", f"{hosts.lab.server.address4}:{PORT}", "-CAfile", str(hosts.ca)]
    command += ["-verify_return_error", "-verify_hostname", SERVER_NAME, "-servername", SERVER_NAME, "-ign_eof"]
    done = hosts.lab.client.run(command, input=GET, capture_output=True, timeout=20)
    assert done.returncode == 0, done.stderr.decode()
    assert b"TLSv1.3" in done.stdout
    assert PAGE in done.stdout


def test_a_server_without_accord_is_reached_by_tls_over_plain_tcp(hosts: Hosts, tmp_path: Path) -> None:
    remote = f"{hosts.lab.server.address4}:{TLS_PORT}"
    page, said, wire = captured(hosts, tmp_path / "c.pcap", remote)
    assert page == PAGE
    assert said.startswith("tls/tcp to ")
    assert "plain connection (LEGACY_PEER)" in said
    assert wire.syn_packets == 1


def test_with_a_parallel_syn_a_peer_with_accord_is_still_met_through_accord(hosts: Hosts, tmp_path: Path) -> None:
    page, said, _ = captured(hosts, tmp_path / "c.pcap", "--fallback", "parallel", address(hosts, 4))
    assert page == PAGE
    assert ", negotiated, " in said.splitlines()[0]


def test_status_tells_the_rung_that_was_reached_and_counts_by_reason(hosts: Hosts) -> None:
    hosts.connect(*WITHOUT_SYN, address(hosts, 4), stdin=GET)
    state = hosts.status(hosts.lab.server)
    assert (state["back_end"], state["attach_mode"]) == ("af_xdp", "generic")  # auto, on veth
    assert state["program_id"] > 0
    assert state["counters"]["steering"]["STEERED"] >= 2
    assert state["counters"]["negotiation"]["OK"] >= 1
    assert json.dumps(state["listeners"]) == json.dumps([{"port": PORT, "to": "127.0.0.1:8080"}])


def test_nothing_is_left_after_many_connections(hosts: Hosts) -> None:
    def held(host_pid: int) -> int:
        return len(list(Path(f"/proc/{host_pid}/fd").iterdir()))

    pids = {host.name: hosts.status(host)["pid"] for host in (hosts.lab.client, hosts.lab.server)}
    for _ in range(3):
        assert hosts.connect(*WITHOUT_SYN, address(hosts, 4), stdin=GET).returncode == 0
    time.sleep(1)
    before = {name: held(pid) for name, pid in pids.items()}
    for stack in ("tls/tcp", "quic") * 6:
        done = hosts.connect("--prefer", stack, *WITHOUT_SYN, address(hosts, 4), stdin=GET)
        assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    deadline = time.monotonic() + 20
    after = before
    while time.monotonic() < deadline:
        after = {name: held(pid) for name, pid in pids.items()}
        negotiations = sum(hosts.status(host)["negotiations"] for host in (hosts.lab.client, hosts.lab.server))
        if negotiations == 0 and all(after[name] <= before[name] for name in after):
            return
        time.sleep(0.5)
    pytest.fail(f"descriptors before {before}, after {after}; negotiations {negotiations}")
