# SPDX-License-Identifier: Apache-2.0
"""``accord expose --to-listener``: a stock program listens on the port, and its own accept() returns what was
negotiated without a SYN. Judges: the program itself, the capture of the link, hosts without Accord."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.utils import rdpcap

import accord
from accord.lab.hosts import PORT, Hosts
from accord.lab.lab import Lab
from accord.wire.errors import AccordError
from tests.e2e import listening_program, udp_programs
from tests.e2e.conftest import PAGE, RTT
from tests.e2e.listening_program import produced

pytestmark = pytest.mark.root

GET = b"GET /index.html HTTP/1.0\r\n\r\n"
HTTP = 8081
WITHOUT_SYN = ("--prefer", "tcp", "--only", "--secure", "no", "--tcp", "no-syn", "--fallback", "never")
POLICY = {"prefer": ["tcp"], "only": True, "secure": "no", "tcp": "no-syn", "fallback": "never"}
MEGABYTES = 8 << 20
_ACCORD = (sys.executable, "-m", "accord.cli.main")


def expose(hosts: Hosts, port: int, *more: str) -> subprocess.Popen[bytes]:
    """``accord expose --to-listener`` on the server."""
    command = [*_ACCORD, "expose", "--listen", str(port), "--to-listener", *more]
    return hosts.start(hosts.lab.server, [*command, "--control", str(hosts.control(hosts.lab.server))], ready="exposed")


def program(hosts: Hosts) -> subprocess.Popen[bytes]:
    """The one that tells what it sees, for both families."""
    command = [sys.executable, listening_program.__file__, "::", str(PORT)]
    return hosts.start(hosts.lab.server, command, ready="ready")


@contextlib.contextmanager
def two_hosts(directory: Path, name: str, *, loss: float = 0.0) -> Iterator[Hosts]:
    """Two daemons; the server has the program on ``PORT`` and a stock HTTP server on ``HTTP``, both exposed."""
    with (
        Lab(f"{name}-{os.getpid()}", rtt=RTT, loss=loss, seed=3) as lab,
        contextlib.closing(Hosts(lab, directory, site={"index.html": PAGE})) as hosts,
    ):
        program(hosts)
        http = [sys.executable, "-u", "-m", "http.server", str(HTTP), "--bind", "::"]
        hosts.start(lab.server, http, ready="Serving HTTP", cwd=hosts.site)
        hosts.daemon(lab.server, "-v")
        hosts.daemon(lab.client)
        for port in (PORT, HTTP):
            expose(hosts, port)
        yield hosts


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """For the tests that break nothing."""
    with two_hosts(tmp_path_factory.mktemp("hosts"), "born") as both:
        yield both


def address(hosts: Hosts, family: int, port: int = PORT) -> str:
    """As ``accord connect`` wants it."""
    return f"{hosts.lab.server.address4}:{port}" if family == 4 else f"[{hosts.lab.server.address6}]:{port}"


def fates(hosts: Hosts, port: int = PORT) -> dict[str, int]:
    """What ``accord status`` says became of a port's connections."""
    (listener,) = [each for each in hosts.status(hosts.lab.server)["listeners"] if each["port"] == port]
    assert listener["to"] == "listener"
    return dict(listener["given"])


def talk(hosts: Hosts, family: int = 4) -> contextlib.AbstractAsyncContextManager[accord.Association]:
    """A connection of this process's, by the client's daemon."""
    return accord.connect(address(hosts, family), POLICY, control=hosts.control(hosts.lab.client))


async def line(association: accord.Association) -> bytes:
    """One, without its end."""
    found = b""
    while not found.endswith(b"\n"):
        part = await association.read()
        assert part, "ended within a line"
        found += part
    return found[:-1]


@pytest.mark.parametrize("family", [4, 6])
def test_a_stock_http_server_serves_a_connection_of_which_no_syn_was_sent(
    hosts: Hosts, tmp_path: Path, family: int
) -> None:
    capture = tmp_path / "c.pcap"
    with hosts.lab.capture(capture, where="link"):
        done = hosts.connect("-v", *WITHOUT_SYN, address(hosts, family, HTTP), stdin=GET)
        time.sleep(0.2)
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    assert done.stdout.endswith(PAGE)
    assert done.stderr.decode().startswith("http/tcp to ")
    segments = [packet[TCP] for packet in rdpcap(str(capture)) if TCP in packet]
    assert not [each for each in segments if set(str(each.flags)) & {"S", "R"}]
    assert segments[0].dport == HTTP
    assert bytes(segments[0].payload).startswith(b"GET /index.html")


@pytest.mark.parametrize("family", [4, 6])
def test_the_program_sees_the_clients_address_the_agreed_options_and_the_links_round_trip(
    hosts: Hosts, family: int
) -> None:
    async def run() -> dict[str, Any]:
        async with talk(hosts, family) as association:
            for _ in range(3):
                await association.write(b"tell\n")
                told = json.loads(await line(association))
            inside = association.report["inside"]["tcp"]
            assert inside["way"] == "no-syn"
            assert (told["peers_scale"], told["own_scale"]) == (
                inside["window_scale"],
                inside["peers_window_scale"],
            )
            assert told["send_mss"] == inside["send_mss"]
            return dict(told)

    told = asyncio.run(run())
    client = hosts.lab.client
    own = client.address4 if family == 4 else client.address6
    assert str(told["peer"][0]).removeprefix("::ffff:") == own
    assert told["own"][1] == PORT
    assert int(told["options"]) & 0b111 == 0b111  # TCPI_OPT_TIMESTAMPS, _SACK, _WSCALE
    # The trap: timed at its birth it would be none, and BBR would believe that for ten seconds.
    for name in ("round_trip_us", "least_round_trip_us"):
        assert RTT * 0.95e6 <= int(told[name]) < 20 * RTT * 1e6


def test_bulk_goes_both_ways_unharmed(hosts: Hosts) -> None:
    data = random.Random(1).randbytes(MEGABYTES)

    async def run() -> tuple[bytes, bytes]:
        async with talk(hosts) as association:
            await association.write(f"digest {len(data)}\n".encode() + data)
            digest = await line(association)
            await association.write(f"produce {MEGABYTES}\n".encode())
            got = bytearray()
            while len(got) < MEGABYTES:
                got += await association.read()
            return digest, bytes(got)

    digest, got = asyncio.run(run())
    assert digest.decode() == hashlib.sha256(data).hexdigest()
    assert got == produced(MEGABYTES)


def test_fifty_at_once_are_fifty_connections(hosts: Hosts) -> None:
    before = fates(hosts).get("born", 0)

    async def one() -> tuple[str, int]:
        async with talk(hosts) as association:
            await association.write(b"tell\n")
            host, port = json.loads(await line(association))["peer"]
            return str(host), int(port)

    async def run() -> list[tuple[str, int]]:
        return await asyncio.gather(*(one() for _ in range(50)))

    assert len(set(asyncio.run(run()))) == 50
    deadline = time.monotonic() + 5
    while fates(hosts).get("born", 0) < before + 50 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert fates(hosts)["born"] == before + 50
    stats = subprocess.run(
        [*_ACCORD, "stats", "--json", "--control", str(hosts.control(hosts.lab.server))],
        check=True,
        capture_output=True,
        text=True,
    )
    (family,) = [each for each in json.loads(stats.stdout)["families"] if each["name"] == "accord_given_total"]
    found = {tuple(each["labels"].values()): each["value"] for each in family["samples"]}
    assert found[str(PORT), "born"] == before + 50


@pytest.mark.parametrize("family", [4, 6])
def test_a_client_that_waits_for_the_program_to_speak_first_hears_it(hosts: Hosts, tmp_path: Path, family: int) -> None:
    port = 8080 + family
    command = [sys.executable, listening_program.__file__, "::", str(port), "220"]
    hosts.start(hosts.lab.server, command, ready="ready")
    exposed = expose(hosts, port)
    capture = tmp_path / "c.pcap"

    async def run() -> bytes:
        to, policy = address(hosts, family, port), POLICY
        async with asyncio.timeout(5), accord.connect(to, policy, control=hosts.control(hosts.lab.client)) as waits:
            return await line(waits)

    with hosts.lab.capture(capture, where="link"):
        assert asyncio.run(run()) == b"220"
        time.sleep(0.2)
    segments = [packet[TCP] for packet in rdpcap(str(capture)) if TCP in packet]
    assert not [each for each in segments if set(str(each.flags)) & {"S", "R"}]
    asked, answered = segments[:2]
    assert (asked.sport, answered.dport) == (port, port)
    assert (str(asked.flags), str(answered.flags)) == ("A", "A")
    assert answered.ack == (asked.seq + 1) & 0xFFFFFFFF
    exposed.terminate()


def plain(hosts: Hosts, port: int = HTTP) -> str:
    """What curl says, to whom Accord is nothing: the connections and the status."""
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10"]
    done = hosts.lab.client.run([*command, f"http://{address(hosts, 4, port)}/index.html"], capture_output=True)
    return str(done.stdout.decode())


def test_hosts_without_accord_and_proposals_of_a_parallel_syn_reach_the_program_as_ever(hosts: Hosts) -> None:
    assert plain(hosts) == "200"
    wanted = ("--prefer", "tcp", "--only", "--secure", "no", "--tcp", "parallel-syn")
    done = hosts.connect("-v", *wanted, address(hosts, 4, HTTP), stdin=GET)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.endswith(PAGE)
    assert ", plain" in done.stderr.decode().splitlines()[0]
    done = hosts.connect(*wanted, "--fallback", "never", address(hosts, 4, HTTP), stdin=GET)
    assert done.returncode != 0
    assert "not this daemon's to adopt" in done.stderr.decode() or "NOT_ADOPTABLE" in done.stderr.decode()


def test_who_wants_security_is_refused_rather_than_given_none(hosts: Hosts) -> None:
    done = hosts.connect("--fallback", "never", "--prefer", "tls/tcp", address(hosts, 4), stdin=b"tell\n")
    assert done.returncode != 0
    assert done.stdout == b""
    assert fates(hosts).get("never_came", 0) == 0


ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as connection:
    connection.sendall(b"tell\\n")
    print(connection.makefile().readline())
"""


@pytest.mark.parametrize("family", [4, 6])
def test_unmodified_programs_at_both_ends_have_one_connection_without_a_syn(
    hosts: Hosts, tmp_path: Path, family: int
) -> None:
    """The client's kernel has seen a SYN-ACK, and echoes it: the listener's kernel times the round trip by that."""
    server, client = hosts.lab.server, hosts.lab.client
    host = server.address4 if family == 4 else server.address6
    command = [*_ACCORD, "run", "--control", str(hosts.control(client)), "--peer", address(hosts, family)]
    command += ["--", sys.executable, "-c", ASK]
    capture = tmp_path / "c.pcap"
    with hosts.lab.capture(capture, where="link"):
        done = client.run([*command, host, str(PORT)], capture_output=True, text=True, timeout=30)
        time.sleep(0.2)
    assert done.returncode == 0, done.stderr + hosts.logs()
    told = json.loads(done.stdout)
    assert told["peer"][0].removeprefix("::ffff:") == (client.address4 if family == 4 else client.address6)
    assert RTT * 0.9e6 <= told["least_round_trip_us"] < 20 * RTT * 1e6
    segments = [packet[TCP] for packet in rdpcap(str(capture)) if TCP in packet]
    assert segments
    assert not [each for each in segments if set(str(each.flags)) & {"S", "R"}]


def test_a_link_that_loses_packets_delays_and_breaks_nothing(tmp_path: Path) -> None:
    with two_hosts(tmp_path, "bornloss", loss=0.1) as hosts:

        async def one() -> None:
            async with asyncio.timeout(30), talk(hosts) as association:
                await association.write(b"produce 40000\n")
                got = bytearray()
                while len(got) < 40000:
                    got += await association.read()
                assert bytes(got) == produced(40000)

        async def run() -> None:
            for _ in range(10):
                await one()

        asyncio.run(run())


def test_a_program_that_is_not_there_is_named_before_anybody_builds_on_it(tmp_path: Path) -> None:
    with (
        Lab(f"borngone-{os.getpid()}", rtt=RTT) as lab,
        contextlib.closing(Hosts(lab, tmp_path, site={})) as hosts,
    ):
        hosts.daemon(lab.server, "-v")
        hosts.daemon(lab.client)
        command = [*_ACCORD, "expose", "--listen", str(PORT), "--to-listener"]
        command += ["--control", str(hosts.control(lab.server))]
        done = lab.server.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode != 0
        assert f"nobody listens on TCP port {PORT}" in done.stderr
        assert "start the program" in done.stderr
        first = program(hosts)
        expose(hosts, PORT)
        first.kill()
        first.wait()
        done = hosts.connect(*WITHOUT_SYN, address(hosts, 4), stdin=b"tell\n")
        assert done.returncode != 0
        assert "BACKEND_FAILED" in done.stderr.decode()
        program(hosts)
        done = hosts.connect(*WITHOUT_SYN, address(hosts, 4), stdin=b"tell\n")
        assert json.loads(done.stdout)["own"][1] == PORT


RUNGS = {
    "sockets, one process": ({"back_end": "udp", "attach": "none"}, ["--privileged"], []),
    "AF_PACKET, on another program's UDP port": ({"back_end": "af_packet", "attach": "none"}, [], ["--share-udp"]),
    "native XDP": ({"back_end": "af_xdp", "attach": "native"}, [], []),
}


@pytest.mark.parametrize("rung", RUNGS)
def test_it_is_the_same_on_every_rung(tmp_path: Path, rung: str) -> None:
    options, more, exposed = RUNGS[rung]
    with (
        Lab(f"bornrung-{os.getpid()}", rtt=RTT) as lab,
        contextlib.closing(Hosts(lab, tmp_path, site={}, **options)) as hosts,
    ):
        program(hosts)
        if exposed:
            stun = [sys.executable, udp_programs.__file__, "stun", "serve", "0.0.0.0", str(PORT)]
            hosts.start(lab.server, stun, ready="ready")
        hosts.daemon(lab.server, "-v", *more)
        hosts.daemon(lab.client)
        expose(hosts, PORT, *exposed)
        for family in (4, 6):
            done = hosts.connect(*WITHOUT_SYN, address(hosts, family), stdin=b"tell\n")
            assert done.returncode == 0, done.stderr.decode() + hosts.logs()
            assert json.loads(done.stdout)["own"][1] == PORT


def test_a_configuration_may_say_it_before_the_program_runs(tmp_path: Path) -> None:
    with (
        Lab(f"bornconf-{os.getpid()}", rtt=RTT) as lab,
        contextlib.closing(Hosts(lab, tmp_path, site={})) as hosts,
    ):
        hosts.daemon(lab.client)
        text = hosts._config.read_text()
        hosts._config.write_text(f"{text}[[expose]]\nlisten = {PORT}\nto_listener = true\n")
        hosts.daemon(lab.server)
        assert f"nobody listens on TCP port {PORT}" in hosts.logs()
        program(hosts)
        done = hosts.connect(*WITHOUT_SYN, address(hosts, 4), stdin=b"tell\n")
        assert json.loads(done.stdout)["own"][1] == PORT


def test_a_daemon_without_an_interface_of_its_own_says_what_it_takes(tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    with (
        Lab(f"bornnone-{os.getpid()}", rtt=RTT) as lab,
        contextlib.closing(Hosts(lab, tmp_path, site={})) as hosts,
    ):
        program(hosts)
        hosts.start(
            lab.server, [*_ACCORD, "daemon", "--back-end", "udp", "--control", str(control)], ready="daemon ready"
        )
        command = [*_ACCORD, "expose", "--listen", str(PORT), "--to-listener", "--control", str(control)]
        done = lab.server.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode != 0
        assert "NO_INTERFACE" in done.stderr
        assert "accord daemon --iface" in done.stderr


def test_a_daemon_that_takes_over_goes_on_with_it(tmp_path: Path) -> None:
    with two_hosts(tmp_path, "bornnext") as hosts:

        async def run() -> None:
            async with talk(hosts) as association:
                await association.write(b"tell\n")
                await line(association)
                before = hosts.status(hosts.lab.server)["pid"]
                hosts.daemon(hosts.lab.server, "--takeover", "-v")
                deadline = time.monotonic() + 20
                while hosts.status(hosts.lab.server)["pid"] == before and time.monotonic() < deadline:
                    await asyncio.sleep(0.1)
                assert hosts.status(hosts.lab.server)["pid"] != before
                for _ in range(3):
                    async with talk(hosts, 6) as other:
                        await other.write(b"tell\n")
                        assert json.loads(await line(other))["own"][1] == PORT
                await association.write(b"tell\n")
                assert b'"peer"' in await line(association)

        asyncio.run(run())
        assert fates(hosts)["born"] == 3
        assert plain(hosts) == "200"


def test_a_daemon_that_is_killed_leaves_the_program_its_connections_and_its_port(tmp_path: Path) -> None:
    with two_hosts(tmp_path, "bornkill") as hosts:

        async def run() -> None:
            async with talk(hosts) as association:
                await association.write(b"tell\n")
                await line(association)
                status = hosts.status(hosts.lab.server)
                for pid in (status["privileges"]["broker_pid"], status["pid"]):
                    os.kill(pid, signal.SIGKILL)
                await association.write(b"tell\n")
                assert b'"peer"' in await line(association)

        asyncio.run(run())
        assert plain(hosts) == "200"
        done = hosts.connect(*WITHOUT_SYN, address(hosts, 4), stdin=b"tell\n")
        assert done.returncode != 0


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is missing: apt-get install nginx-light")
def test_nginx_serves_it_with_so_reuseport_and_several_workers(hosts: Hosts, tmp_path: Path) -> None:
    port = 8082
    configuration = tmp_path / "nginx.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
    configuration.write_text(
        f"user root; worker_processes 2; daemon off; pid {tmp_path}/pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off; {paths} root {hosts.site};\n"
        f"server {{ listen {port} reuseport; listen [::]:{port} reuseport; }} }}\n"
    )
    hosts.start(hosts.lab.server, ["nginx", "-e", "stderr", "-c", str(configuration)])
    _until_open(hosts, port)
    expose(hosts, port)
    for family in (4, 6):
        for _ in range(6):  # whichever worker it is
            done = hosts.connect(*WITHOUT_SYN, address(hosts, family, port), stdin=GET)
            assert b"Server: nginx" in done.stdout, done.stderr.decode() + hosts.logs()
            assert done.stdout.endswith(PAGE)
    assert fates(hosts, port) == {"born": 12}


def _until_open(hosts: Hosts, port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        with hosts.lab.client.enter(), contextlib.suppress(OSError):
            socket.create_connection((hosts.lab.server.address4, port), 1).close()
            return
        assert time.monotonic() < deadline, hosts.logs()
        time.sleep(0.05)


CONTRADICTIONS = (
    ["--to", "127.0.0.1:80"],
    ["--secure", "required"],
    ["--early-limit", "100"],
    ["--no-plain"],
)


@pytest.mark.parametrize(
    "wrong", [{"forward_to": ("127.0.0.1", 80)}, {"secure": "required"}, {"early_limit": 1}, {"messages": True}]
)
def test_a_program_is_told_of_contradictions_before_the_daemon_is_asked(wrong: dict[str, Any]) -> None:
    with pytest.raises(AccordError, match="does not go together"):
        accord.listen(8080, to_listener=True, **wrong)
    accord.listen(8080, to_listener=True, secure="no", share_udp=True)


@pytest.mark.parametrize("more", CONTRADICTIONS)
def test_options_that_contradict_it_are_usage_errors(more: list[str]) -> None:
    command = [*_ACCORD, "expose", "--listen", "8080", "--to-listener", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "--to" in done.stderr
