# SPDX-License-Identifier: Apache-2.0
"""Daemons that are stopped, killed, hung and started again; programs that listen through one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from accord.lab.hosts import PORT, SERVER_NAME, Hosts
from accord.protocols.authority import issue
from tests.e2e.conftest import PAGE, two_hosts
from tests.e2e.test_negotiated_stacks import GET, address, body

pytestmark = pytest.mark.root

NEVER = ("--fallback", "never")
PEER = 76
"""Exit code (sysexits.h): EX_PROTOCOL."""

ECHO = """
import asyncio, sys
import accord

async def main():
    async with accord.listen(int(sys.argv[1]), certificate=sys.argv[2], private_key=sys.argv[3]) as listener:
        print("listening", flush=True)
        async for association in listener:
            while data := await association.read():
                await association.write(data.upper())
            await association.close()

asyncio.run(main())
"""


def in_flight(hosts: Hosts, count: int) -> None:
    """Waits until the client's daemon has so many negotiations."""
    deadline = time.monotonic() + 10
    while hosts.status(hosts.lab.client)["negotiations"] != count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def attached(hosts: Hosts) -> bool:
    """Whether the kernel has an XDP program on the server's interface."""
    shown = hosts.lab.server.run(["ip", "-d", "link", "show", "acc0"], capture_output=True, text=True).stdout
    return "xdp" in shown


def test_the_xdp_program_goes_with_the_daemon_however_it_ends(tmp_path: Path) -> None:
    with two_hosts(tmp_path, "life") as hosts:
        assert attached(hosts)
        pid = hosts.status(hosts.lab.server)["pid"]
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while attached(hosts) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not attached(hosts)
        # The control socket that it left behind does not keep the next one from starting.
        hosts.daemon(hosts.lab.server)
        hosts.expose()
        done = hosts.connect(*NEVER, address(hosts, 4), stdin=GET)
        assert done.returncode == 0, done.stderr.decode() + hosts.logs()
        assert body(done.stdout) == PAGE


def test_a_second_daemon_does_not_take_the_first_ones_place(hosts: Hosts) -> None:
    command = [sys.executable, "-m", "accord.cli.main", "daemon", "--iface", "acc0"]
    command += ["--control", str(hosts.control(hosts.lab.server))]
    done = hosts.lab.server.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode != 0
    assert "already answers" in done.stderr
    assert body(hosts.connect(*NEVER, address(hosts, 4), stdin=GET).stdout) == PAGE


def test_packets_reach_a_daemon_by_the_kernel_when_its_heart_stood_still(hosts: Hosts) -> None:
    """SIGSTOP: the program passes everything after 500 ms; the proposal waits in the UDP socket, and is answered."""
    pid = hosts.status(hosts.lab.server)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(0.8)
        command = [sys.executable, "-m", "accord.cli.main", "connect", *NEVER, "--ca", str(hosts.ca)]
        command += ["--control", str(hosts.control(hosts.lab.client)), address(hosts, 4)]
        process = hosts.lab.client.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        time.sleep(1.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    answer, _ = process.communicate(GET, timeout=30)
    assert body(answer) == PAGE
    assert hosts.status(hosts.lab.server)["counters"]["steering"].get("STALE_HEARTBEAT", 0) > 0


@pytest.mark.parametrize("stack", ["tls/tcp", "quic"])
def test_a_program_accepts_associations_through_the_daemon(hosts: Hosts, tmp_path: Path, stack: str) -> None:
    files = issue(hosts.directory, [SERVER_NAME], stem="echo")
    port = {"tls/tcp": 7001, "quic": 7002}[stack]
    command = [sys.executable, "-c", ECHO, str(port), str(files.certificate), str(files.private_key)]
    server = hosts.start(hosts.lab.server, command, ready="listening")
    remote = f"{hosts.lab.server.address4}:{port}"
    done = hosts.connect("--server-name", SERVER_NAME, "--prefer", stack, *NEVER, remote, stdin=b"an echo\n" * 5000)
    assert done.returncode == 0, done.stderr.decode() + hosts.logs()
    assert done.stdout == b"AN ECHO\n" * 5000
    server.terminate()
    server.wait()
    done = hosts.connect(*NEVER, remote, stdin=b"x", timeout=10)
    assert b"UNREACHABLE" in done.stderr or b"NO_SERVICE" in done.stderr


@pytest.mark.parametrize(("back_end", "attach"), [("af_xdp", "generic"), ("af_packet", "none"), ("udp", "none")])
def test_the_lower_rungs_negotiate_as_well(tmp_path: Path, back_end: str, attach: str) -> None:
    with two_hosts(tmp_path, "rung", back_end=back_end, attach=attach) as hosts:
        state = hosts.status(hosts.lab.server)
        assert (state["back_end"], state["attach_mode"]) == (back_end, attach)
        for family in (4, 6):
            for stack in ("tls/tcp", "quic"):
                done = hosts.connect("--prefer", stack, *NEVER, address(hosts, family), stdin=GET)
                assert done.returncode == 0, done.stderr.decode() + hosts.logs()
                assert body(done.stdout) == PAGE


def test_the_port_is_given_back_when_expose_ends(hosts: Hosts) -> None:
    assert {"port": PORT, "to": "127.0.0.1:8080"} in hosts.status(hosts.lab.server)["listeners"]
    command = [sys.executable, "-m", "accord.cli.main", "expose", "--listen", "7010", "--to", "127.0.0.1:8080"]
    command += ["--certificate", str(hosts.certificate), "--private-key", str(hosts.key)]
    command += ["--control", str(hosts.control(hosts.lab.server))]
    for _ in range(2):
        process = hosts.start(hosts.lab.server, command, ready="exposed")
        assert 7010 in {each["port"] for each in hosts.status(hosts.lab.server)["listeners"]}
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        deadline = time.monotonic() + 5
        while 7010 in {each["port"] for each in hosts.status(hosts.lab.server)["listeners"]}:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_daemon_that_is_stopped_tells_whoever_waits_and_whoever_is_connected(tmp_path: Path) -> None:
    with two_hosts(tmp_path, "stop") as hosts:
        command = [sys.executable, "-m", "accord.cli.main", "connect", *NEVER, "--ca", str(hosts.ca)]
        command += ["--control", str(hosts.control(hosts.lab.client))]

        def connecting(*more: str) -> subprocess.Popen[bytes]:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            return hosts.lab.client.popen([*command, *more], **pipes)

        silent = f"{hosts.lab.server.address4.rpartition('.')[0]}.77"
        # However long the rest of this takes: a neighbour that is not found is an answer, after three seconds.
        neighbour = ["ip", "neighbour", "replace", silent, "lladdr", "02:00:00:00:00:77"]
        hosts.lab.client.run([*neighbour, "dev", hosts.lab.client.interface], check=True)
        connected = [connecting("-v", "--prefer", stack, address(hosts, 4)) for stack in ("quic", "tls/tcp")]
        for process in connected:
            assert process.stderr is not None
            while b"committed to" not in process.stderr.readline():
                assert process.poll() is None
        in_flight(hosts, 0)
        waiting = connecting(f"{silent}:{PORT}")
        in_flight(hosts, 1)

        os.kill(hosts.status(hosts.lab.server)["pid"], signal.SIGTERM)
        for process in connected:  # standard input stays open: only the peer's word ends them
            assert process.wait(10) == PEER
            assert process.stderr is not None
            assert b"STREAM_BROKEN" in process.stderr.read()
        os.kill(hosts.status(hosts.lab.client)["pid"], signal.SIGTERM)
        waiting.wait(10)
        assert waiting.stderr is not None
        assert b"SHUTDOWN" in waiting.stderr.read()
