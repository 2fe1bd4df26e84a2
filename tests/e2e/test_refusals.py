# SPDX-License-Identifier: Apache-2.0
"""What goes wrong gets a name, at the side that has to know, and leaves the daemons standing."""

from __future__ import annotations

import datetime
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from accord.lab.hosts import PORT, SERVER_NAME, Hosts
from accord.protocols.authority import issue, make_ca
from tests.e2e.conftest import PAGE, RTT
from tests.e2e.test_negotiated_stacks import GET, address, body

pytestmark = pytest.mark.root

PEER, USER = 76, 64
"""Exit codes (sysexits.h): EX_PROTOCOL and EX_USAGE."""
NEVER = ("--fallback", "never")


def still_works(hosts: Hosts) -> None:
    """The daemons answer as before."""
    done = hosts.connect(*NEVER, address(hosts, 4), stdin=GET)
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    assert body(done.stdout) == PAGE


def expose(hosts: Hosts, port: int, certificate: Path, key: Path, *more: str) -> subprocess.Popen[bytes]:
    """One more exposed port, with a certificate of its own."""
    command = [sys.executable, "-m", "accord.cli.main", "expose", "--listen", str(port), "--to", "127.0.0.1:8080"]
    command += ["--certificate", str(certificate), "--private-key", str(key), *more]
    return hosts.start(hosts.lab.server, [*command, "--control", str(hosts.control(hosts.lab.server))], ready="exposed")


@pytest.mark.parametrize("stack", ["tls/tcp", "quic"])
def test_an_expired_certificate_is_named_at_the_client(hosts: Hosts, stack: str) -> None:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    files = issue(hosts.directory, [SERVER_NAME, hosts.lab.server.address4], not_after=past, stem="expired")
    server = expose(hosts, 4430, files.certificate, files.private_key)
    try:
        done = hosts.connect("--prefer", stack, "--only", f"{hosts.lab.server.address4}:4430", stdin=GET)
    finally:
        server.terminate()
        server.wait()
    assert done.returncode == PEER
    assert b"CERTIFICATE_EXPIRED" in done.stderr
    assert b"Traceback" not in done.stderr
    assert PAGE not in done.stdout


def test_a_certificate_for_another_name_is_named_at_the_client(hosts: Hosts) -> None:
    done = hosts.connect("--server-name", "other.accord.test", *NEVER, address(hosts, 4), stdin=GET)
    assert done.returncode == PEER
    assert b"CERTIFICATE_NAME" in done.stderr


def test_an_authority_that_is_not_trusted_is_named_at_the_client(hosts: Hosts, tmp_path: Path) -> None:
    stranger = make_ca(tmp_path)
    done = hosts.connect("--ca", str(stranger.certificate), *NEVER, address(hosts, 4), stdin=GET)
    assert done.returncode == PEER
    assert b"BAD_CERTIFICATE" in done.stderr


def test_a_bad_certificate_is_no_reason_to_try_again_with_less(hosts: Hosts, tmp_path: Path) -> None:
    stranger = make_ca(tmp_path)
    done = hosts.connect("--ca", str(stranger.certificate), "--secure", "preferred", address(hosts, 4), stdin=GET)
    assert done.returncode == PEER
    assert PAGE not in done.stdout


def test_peers_without_a_stack_in_common_both_say_so(hosts: Hosts) -> None:
    files = issue(hosts.directory, [SERVER_NAME, hosts.lab.server.address4], stem="strict")
    server = expose(hosts, 4431, files.certificate, files.private_key, "--secure", "required")
    before = hosts.status(hosts.lab.server)["counters"]["negotiation"].get("INSECURE", 0)
    try:
        policy = ("--secure", "no", "--prefer", "tcp", "--only")
        done = hosts.connect(*policy, *NEVER, f"{hosts.lab.server.address4}:4431", stdin=GET)
    finally:
        server.terminate()
        server.wait()
    assert done.returncode != 0
    assert b"INSECURE" in done.stderr
    assert b"peer" in done.stderr
    assert hosts.status(hosts.lab.server)["counters"]["negotiation"]["INSECURE"] == before + 1


def test_a_port_that_nobody_negotiates_on_is_refused_long_before_the_lifetime_ends(hosts: Hosts) -> None:
    done = hosts.connect(*NEVER, f"{hosts.lab.server.address4}:4499", stdin=GET, timeout=5)
    assert done.returncode != 0
    assert b"UNREACHABLE" in done.stderr


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("[daemon]\ninterface = 'acc0'\n[policy.default]\nsecure = 'sometimes'\n", 4, "secure"),
        ("[daemon]\ninterfaces = 'acc0'\n", 2, "interfaces"),
        ("[daemon]\ninterface = 'acc0\n", 2, "interface"),
        ("[[expose]]\nlisten = 70000\nto = '127.0.0.1:80'\n", 2, "listen"),
    ],
)
def test_a_broken_configuration_is_refused_with_its_line_and_nothing_is_attached(
    hosts: Hosts, tmp_path: Path, text: str, line: int, word: str
) -> None:
    config = tmp_path / "accord.toml"
    config.write_text(text)
    command = [sys.executable, "-m", "accord.cli.main", "daemon", "--iface", "acc0", "--config", str(config)]
    command += ["--control", str(tmp_path / "control.sock")]
    done = hosts.lab.link.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == USER
    assert "BAD_CONFIG" in done.stderr
    assert f"{line}" in done.stderr
    assert str(config) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "control.sock").exists()


def test_an_interface_that_does_not_exist_is_named(hosts: Hosts, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "accord.cli.main", "daemon", "--iface", "nosuch0"]
    done = hosts.lab.client.run(
        [*command, "--control", str(tmp_path / "c.sock")], capture_output=True, text=True, timeout=20
    )
    assert done.returncode == USER
    assert "NO_INTERFACE" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_daemon_is_named_with_the_command_that_starts_one(hosts: Hosts, tmp_path: Path) -> None:
    done = hosts.connect("--control", str(tmp_path / "nobody.sock"), address(hosts, 4), stdin=GET)
    assert done.returncode == USER
    assert b"NO_DAEMON" in done.stderr
    assert b"accord daemon --iface" in done.stderr


def test_another_user_is_refused_at_the_control_socket(hosts: Hosts) -> None:
    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(os.fspath(hosts.control(hosts.lab.client)))
            client.send(b'{"op":"status"}')
            return client.recv(65536)

    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.write(writing, ask())
        except OSError as refusal:
            os.write(writing, type(refusal).__name__.encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"PermissionError"


def test_random_mutated_and_truncated_packets_hurt_nobody(hosts: Hosts, tmp_path: Path) -> None:
    """Random bytes, and a real proposal with each part cut off or changed, from an ordinary socket."""
    from scapy.packet import Raw

    from accord.scapy_layer import Accord  # an independent implementation makes the well-formed one

    random_bytes = random.Random(11)
    header = bytes(Accord(transaction=bytes(12), tsn=0, flags="I") / Raw(b""))
    packets = [random_bytes.randbytes(random_bytes.randrange(0, 1400)) for _ in range(150)]
    for _ in range(150):
        packet = bytearray(header + random_bytes.randbytes(random_bytes.randrange(0, 200)))
        packet[random_bytes.randrange(len(packet))] ^= 1 << random_bytes.randrange(8)
        packets.append(bytes(packet[: random_bytes.randrange(1, len(packet) + 1)]))

    def send() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.3)
            for packet in packets:
                sock.sendto(packet, (hosts.lab.server.address4, PORT))
            answers = 0
            try:
                while sock.recvfrom(2048):
                    answers += 1
            except TimeoutError:
                return answers

    assert hosts.lab.client.call(send) == 0, "malformed input from an unproven source gets silence"
    still_works(hosts)
    counters = hosts.status(hosts.lab.server)["counters"]["engine"]
    assert counters.get("BAD_CHECKSUM", 0) + counters.get("BAD_MAGIC", 0) + counters.get("SHORT_PACKET", 0) > 0


def test_a_key_that_does_not_belong_to_its_certificate_is_refused_by_expose(hosts: Hosts) -> None:
    other = issue(hosts.directory, ["other"], stem="stranger")
    command = [sys.executable, "-m", "accord.cli.main", "expose", "--listen", "4440", "--to", "127.0.0.1:8080"]
    command += ["--certificate", str(hosts.certificate), "--private-key", str(other.private_key)]
    done = hosts.lab.server.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == USER
    assert "is not the key of" in done.stderr


def test_without_security_a_peer_that_wants_it_is_still_met(hosts: Hosts) -> None:
    """Bare TCP is connected first; it must not win over the answer of a peer that would refuse it."""
    files = issue(hosts.directory, [SERVER_NAME, hosts.lab.server.address4], stem="wants")
    server = expose(hosts, 4441, files.certificate, files.private_key, "--secure", "required")
    # The answer is waited for as long again as bare TCP took: far more here than busy processors take to make it.
    hosts.lab.change(rtt=0.5)
    try:
        done = hosts.connect("-v", "--secure", "no", f"{hosts.lab.server.address4}:4441", stdin=GET)
    finally:
        hosts.lab.change(rtt=RTT)
        server.terminate()
        server.wait()
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    assert body(done.stdout) == PAGE
    assert b"http/tls/tcp" in done.stderr


def test_the_ladder_of_a_failure_is_shown(hosts: Hosts, tmp_path: Path) -> None:
    stranger = make_ca(tmp_path)
    done = hosts.connect("-v", "--ca", str(stranger.certificate), *NEVER, address(hosts, 4), stdin=GET)
    assert done.returncode == PEER
    assert b"step 0 proposal" in done.stderr


@pytest.mark.parametrize("fallback", ["parallel", "delayed", "never"])
def test_a_service_that_is_not_there_is_named_at_both_sides(hosts: Hosts, fallback: str) -> None:
    command = [sys.executable, "-m", "accord.cli.main", "expose", "--listen", "4450", "--to", "127.0.0.1:9"]
    command += ["--certificate", str(hosts.certificate), "--private-key", str(hosts.key)]
    command += ["--control", str(hosts.control(hosts.lab.server))]
    server = hosts.start(hosts.lab.server, command, ready="exposed")
    try:
        done = hosts.connect("--fallback", fallback, f"{hosts.lab.server.address4}:4450", stdin=GET)
    finally:
        server.terminate()
        server.wait()
    assert done.returncode == PEER
    assert b"BACKEND_FAILED" in done.stderr
    assert hosts.logs().count("127.0.0.1:9: Connection refused") >= 2, "the daemon's log, and what expose said"
