# SPDX-License-Identifier: Apache-2.0
"""Unmodified programs under ``accord run``: curl and Python over the lab's link, judged by what is on the wire."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.utils import rdpcap

from accord.datapath.cgroup import own_cgroup
from accord.lab.hosts import HTTP_PORT, Hosts
from accord.lab.lab import Lab
from tests.e2e.conftest import BIG, PAGE, RTT

pytestmark = pytest.mark.root

OPEN, LEGACY = 8081, 8082
"""Exposed with ``secure = no``; a stock server's, about which the daemon knows nothing."""
ACCORD = (sys.executable, "-m", "accord.cli.main")
SYN, ACK = 0x02, 0x10


@dataclass
class Wire:
    """What a capture at the server's end of the link holds of TCP to and from one port."""

    segments: list[Any]

    @property
    def syns(self) -> list[Any]:
        """SYNs and SYN-ACKs."""
        return [each for each in self.segments if int(each[TCP].flags) & SYN]

    @property
    def data(self) -> bytes:
        return b"".join(bytes(each[TCP].payload) for each in self.segments if each[TCP].payload)


class Site(Hosts):
    """A pair of hosts with the two services, and programs run on the client."""

    def allow(self, users: str) -> None:
        """Who may use the control sockets, beside root."""
        (self.directory / "lab.toml").write_text(f'[policy.default]\ntcp = "no-syn"\n[control]\nusers = {users}\n')

    def url(self, port: int = OPEN, family: int = 4, name: str = "index.html") -> str:
        server = self.lab.server
        return f"http://{server.address4 if family == 4 else f'[{server.address6}]'}:{port}/{name}"

    def peer(self, port: int = OPEN, family: int = 4) -> str:
        return self.url(port, family, "").removeprefix("http://").removesuffix("/")

    def under(self, *options: str) -> list[str]:
        """``accord run`` up to its program."""
        return [*ACCORD, "run", "--control", str(self.control(self.lab.client)), *options, "--"]

    def curl(self, *options: str, port: int = OPEN, family: int = 4, plain: bool = False) -> tuple[bytes, float]:
        """The page, and how long ``connect`` took, in seconds; ``plain``: not under ``accord run``."""
        command = ["curl", "-sS", "-m", "10", "-w", "%{stderr}%{time_connect}", self.url(port, family)]
        argv = command if plain else [*self.under(*options), *command]
        done = self.lab.client.run(argv, capture_output=True, timeout=30)
        assert done.returncode == 0, done.stderr.decode() + self.logs()
        return done.stdout, float(done.stderr)

    @contextlib.contextmanager
    def wire(self, port: int = OPEN) -> Iterator[Wire]:
        """What passes meanwhile."""
        seen = Wire([])
        path = self.directory / f"wire-{time.monotonic_ns()}.pcap"
        with self.lab.capture(path, where="server"):
            yield seen
        packets = [each for each in rdpcap(str(path)) if TCP in each]
        seen.segments = [each for each in packets if port in (each[TCP].sport, each[TCP].dport)]

    def seen(self) -> dict[str, int]:
        """What the TC program counted, those at 0 left out."""
        counts: dict[str, int] = self.status(self.lab.client)["unmodified"]["syns"]
        return {fate: count for fate, count in counts.items() if count}

    def ended(self) -> dict[str, int]:
        found: dict[str, int] = self.status(self.lab.client)["unmodified"]["ended"]
        return found

    def expose_open(self) -> None:
        command = [*ACCORD, "expose", "--listen", str(OPEN), "--to", f"127.0.0.1:{HTTP_PORT}", "--secure", "no"]
        command += ["--certificate", str(self.certificate), "--private-key", str(self.key)]
        self.start(self.lab.server, [*command, "--control", str(self.control(self.lab.server))], ready="exposed")


@contextlib.contextmanager
def a_site(
    directory: Path, name: str, *, server: bool = True, rtt: float = RTT, loss: float = 0.0, users: str = "[]"
) -> Iterator[Site]:
    with (
        Lab(f"{name}-{os.getpid()}", rtt=rtt, loss=loss, seed=3 if loss else 0) as lab,
        contextlib.closing(Site(lab, directory, site={"index.html": PAGE, "big.bin": BIG})) as site,
    ):
        site.serve_plain()
        site.allow(users)
        site.start(lab.server, ["busybox", "httpd", "-f", "-p", str(LEGACY), "-h", str(site.site)])
        site.daemon(lab.client, "-v")
        if server:
            site.daemon(lab.server, "-v")
            site.expose_open()
        yield site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with a_site(tmp_path_factory.mktemp("unmodified"), "run") as found:
        yield found


def rises(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}


def left_cgroups(run: subprocess.Popen[Any]) -> list[Path]:
    """Of this ``accord run``: another test's may be there at the same time."""
    return list(own_cgroup().glob(f"accord-run-{run.pid}-*"))


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ---- what a program gets


@pytest.mark.parametrize("family", [4, 6])
def test_the_first_connection_is_a_plain_one_and_the_next_has_no_syn_on_the_wire(site: Site, family: int) -> None:
    ip = IP if family == 4 else IPv6
    with site.wire() as first:
        assert site.curl(family=family)[0] == PAGE
    opening = [int(each[TCP].flags) & (SYN | ACK) for each in first.syns]
    assert opening == [SYN, SYN | ACK], "nobody was held back on suspicion"
    time.sleep(0.5)  # the peer is asked beside it
    before = site.seen()
    with site.wire() as second:
        assert site.curl(family=family)[0] == PAGE
    assert second.syns == []
    assert PAGE in second.data
    assert all(ip in each for each in second.segments)
    assert rises(before, site.seen()) == {"held": 1, "answered": 1}


def test_a_peer_that_is_named_is_negotiated_with_at_once(tmp_path: Path) -> None:
    with a_site(tmp_path, "runpeer") as fresh, fresh.wire() as wire:
        body, took = fresh.curl("--peer", fresh.peer())
        assert body == PAGE
        assert RTT * 0.9 < took < 0.6, "it waited for a negotiation, and for no longer than one may take"
        assert fresh.ended() == {"OK": 1}
    assert wire.syns == []


def test_fifty_at_once_and_a_long_body_go_from_kernel_to_kernel(site: Site) -> None:
    program = """
import concurrent.futures, sys, urllib.request
def get(_): return urllib.request.urlopen(sys.argv[1], timeout=10).read()
with concurrent.futures.ThreadPoolExecutor(50) as pool:
    bodies = list(pool.map(get, range(50)))
sys.exit(0 if len(set(bodies)) == 1 and len(bodies[0]) == int(sys.argv[2]) else 3)
"""
    before = site.ended()
    with site.wire() as wire:
        argv = [
            *site.under("--peer", site.peer()),
            sys.executable,
            "-c",
            program,
            site.url(name="big.bin"),
            str(len(BIG)),
        ]
        done = site.lab.client.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr + site.logs()
    negotiated = rises(before, site.ended()).get("OK", 0)
    assert len({each[TCP].sport for each in wire.syns if not int(each[TCP].flags) & ACK}) == 50 - negotiated
    assert negotiated >= 40, site.ended()
    assert sum(len(each[TCP].payload) for each in wire.segments) > 50 * len(BIG)


def test_the_kernels_estimate_of_the_round_trip_is_true(site: Site) -> None:
    program = """
import json, socket, struct, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
print(json.dumps([struct.unpack_from("I", info, 68)[0] / 1e6, s.getpeername()[1], info[5] & 0x07]))
"""
    argv = [*site.under("--peer", site.peer()), sys.executable, "-c", program, site.lab.server.address4, str(OPEN)]
    before = site.seen()
    done = site.lab.client.run(argv, capture_output=True, text=True, timeout=30)
    round_trip, port, options = json.loads(done.stdout)
    assert rises(before, site.seen()) == {"held": 1, "answered": 1}
    assert port == OPEN
    assert RTT * 0.95 < round_trip < RTT + 0.025, "not the fraction of a millisecond that handing it in takes"
    assert options == 0x07, "timestamps, SACK and window scaling, as both kernels have them"


def test_a_program_outside_of_the_cgroup_is_left_alone(site: Site) -> None:
    before = site.seen()
    idle = site.lab.client.popen([*site.under("--peer", site.peer()), "sleep", "30"])
    try:
        until(lambda: site.status(site.lab.client)["unmodified"]["programs"])
        with site.wire() as wire:
            assert site.curl(plain=True)[0] == PAGE
        assert len(wire.syns) == 2
        assert rises(before, site.seen()) == {}
    finally:
        idle.send_signal(signal.SIGTERM)
        assert idle.wait(10) == 128 + signal.SIGTERM


# ---- peers without Accord


def test_a_held_syn_leaves_unchanged_where_the_peer_has_no_accord_and_the_next_is_not_held(tmp_path: Path) -> None:
    with a_site(tmp_path, "runlegacy", server=False) as fresh:
        with fresh.wire(LEGACY) as plain:
            fresh.curl(port=LEGACY, plain=True)
        with fresh.wire(LEGACY) as held:
            body, took = fresh.curl("--peer", fresh.peer(LEGACY), port=LEGACY)
        assert body == PAGE
        assert took < 0.9, "before its kernel would have repeated it"
        syns = [each for each in held.syns if not int(each[TCP].flags) & ACK]
        assert len(syns) == 1
        (one, other) = (syns[0][TCP], plain.syns[0][TCP])
        assert [name for name, _ in one.options] == [name for name, _ in other.options]
        assert dict(one.options)["MSS"] == dict(other.options)["MSS"]
        assert dict(one.options)["WScale"] == dict(other.options)["WScale"]
        assert one.window == other.window
        rebuilt = syns[0].copy()
        del rebuilt[TCP].chksum
        assert type(rebuilt)(bytes(rebuilt))[TCP].chksum == one.chksum, "the one that a NIC would have made"
        # the data acknowledges that SYN's number: it is the connection's own
        assert all(each[TCP].seq - one.seq & 0xFFFFFFFF < 2**16 for each in held.segments if each[TCP].dport == LEGACY)
        before = fresh.seen()
        with fresh.wire(LEGACY) as again:
            body, took = fresh.curl(port=LEGACY)
        assert body == PAGE
        assert took < 0.5, "nothing was held: what is, and has no answer, waits for 0.6 s"
        assert rises(before, fresh.seen()) == {"left_alone": 1}
        assert len(again.syns) == 2


def test_a_peer_of_which_nothing_is_known_is_asked_beside_the_connection_and_costs_it_nothing(tmp_path: Path) -> None:
    with a_site(tmp_path, "rununknown", server=False) as fresh:
        with fresh.wire(LEGACY) as wire:
            body, took = fresh.curl(port=LEGACY)
        assert body == PAGE
        assert took < 0.5, "nothing was held: what is, and has no answer, waits for 0.6 s"
        assert len(wire.syns) == 2
        assert fresh.seen() == {"asked": 1}
        deadline = time.monotonic() + 10
        while fresh.curl(port=LEGACY)[1] and "left_alone" not in fresh.seen() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert "held" not in fresh.seen()


def test_a_silent_peer_that_is_named_costs_less_than_the_kernels_own_repetition(tmp_path: Path) -> None:
    with a_site(tmp_path, "runsilent", server=False) as fresh:
        mute = f"""
import socket, time
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.bind(("", {LEGACY}))
print("bound", flush=True)
time.sleep(60)
"""
        fresh.start(fresh.lab.server, [sys.executable, "-c", mute], ready="bound")
        with fresh.wire(LEGACY) as wire:
            body, took = fresh.curl("--peer", fresh.peer(LEGACY), port=LEGACY)
        assert body == PAGE
        assert 0.5 < took < 0.9
        assert len(wire.syns) == 2
        assert fresh.ended() == {"TIMEOUT": 1}
        took = fresh.curl(port=LEGACY)[1]
        assert took < 0.5, "nothing was held: what is, and has no answer, waits for 0.6 s"
        assert fresh.seen() == {"held": 1, "asked": 1}, "one silence proves nothing: it is asked again"


def test_a_peer_that_answers_too_late_is_reached_by_the_syn_that_was_held(tmp_path: Path) -> None:
    with a_site(tmp_path, "runlate", rtt=0.8) as fresh:
        with fresh.wire() as wire:
            assert fresh.curl("--peer", fresh.peer())[0] == PAGE
        assert fresh.ended() == {"TIMEOUT": 1}
        assert fresh.seen()["held"] == 1
        assert "answered" not in fresh.seen(), "no SYN-ACK was handed in once the SYN had left"
        assert len({each[TCP].sport for each in wire.segments if each[TCP].dport == OPEN}) == 1


# ---- the policy


def test_where_the_policy_file_demands_security_syns_are_left_alone_and_counted(tmp_path: Path) -> None:
    with a_site(tmp_path, "runpolicy") as fresh:
        process = fresh.start(fresh.lab.client, ["true"])
        process.wait()
        config = tmp_path / "lab.toml"
        config.write_text('[policy.default]\ntcp = "no-syn"\nsecure = "required"\n')
        fresh.lab.client.run(["kill", "-HUP", str(fresh.status(fresh.lab.client)["pid"])], check=True)
        time.sleep(0.5)
        with fresh.wire() as wire:
            assert fresh.curl("--peer", fresh.peer())[0] == PAGE
            assert fresh.curl()[0] == PAGE
        assert len(wire.syns) == 4
        assert fresh.ended() == {"POLICY": 1}
        assert fresh.seen() == {"held": 1, "left_alone": 1}


# ---- a daemon that is not well


def waiting_program(site: Site) -> subprocess.Popen[bytes]:
    """Under ``accord run``: for each line on its standard input one connection, and its page; the exit code counts
    those that failed."""
    script = f"failed=0; while read line; do curl -sS -m 10 {site.url()} || failed=$((failed + 1)); done; exit $failed"
    argv = [*site.under("--peer", site.peer()), "sh", "-c", script]
    process = site.lab.client.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    until(lambda: site.status(site.lab.client)["unmodified"]["programs"])
    return process


def page_for(program: subprocess.Popen[bytes]) -> bytes:
    """For one more line."""
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(b"\n")
    program.stdin.flush()
    return program.stdout.read(len(PAGE))


def end_of(program: subprocess.Popen[bytes]) -> tuple[bytes, int]:
    """What else it has said, and its exit code."""
    out, _ = program.communicate(timeout=60)
    return out, program.returncode


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_daemon_that_is_killed_or_hangs_leaves_programs_their_plain_connections(
    tmp_path: Path, number: signal.Signals
) -> None:
    with a_site(tmp_path, "runkill") as fresh:
        client = fresh.lab.client
        program = waiting_program(fresh)
        daemon = fresh.status(client)
        pids = [daemon["pid"], daemon["privileges"]["broker_pid"]]
        for pid in pids if number == signal.SIGKILL else pids[:1]:
            os.kill(pid, number)
        time.sleep(0.6)
        filters = client.run(
            ["tc", "filter", "show", "dev", client.interface, "egress"], capture_output=True, text=True
        )
        assert "accord_capture" in filters.stdout, "clsact filters outlive their owner"
        with fresh.wire() as wire:
            assert page_for(program) == PAGE
        assert len(wire.syns) == 2
        if number == signal.SIGSTOP:
            os.kill(pids[0], signal.SIGCONT)
            assert fresh.seen() == {"stale": 1}
            assert end_of(program) == (b"", 0)
            return
        fresh.daemon(client)
        until(lambda: fresh.status(client)["unmodified"]["programs"] == 1)
        with fresh.wire() as wire:
            assert page_for(program) == PAGE
        assert wire.syns == [], "a new daemon puts its own in that one's place, and has the programs that run"
        assert end_of(program) == (b"", 0)
        os.kill(fresh.status(client)["pid"], signal.SIGTERM)
        time.sleep(1)
        filters = client.run(
            ["tc", "filter", "show", "dev", client.interface, "egress"], capture_output=True, text=True
        )
        assert filters.stdout == "", "and takes it away when it is stopped"


@pytest.mark.parametrize("busy", [False, True])
def test_a_daemon_that_takes_over_has_the_programs_that_run_also_while_the_old_one_goes_on(
    tmp_path: Path, busy: bool
) -> None:
    with a_site(tmp_path, f"runupgrade{busy:d}") as fresh, contextlib.ExitStack() as stack:
        client = fresh.lab.client
        program = waiting_program(fresh)
        old = fresh.status(client)["pid"]
        if busy:
            argv = [*ACCORD, "connect", "--control", str(fresh.control(client)), "--ca", str(fresh.ca)]
            stream = client.popen([*argv, fresh.peer()], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.callback(stream.communicate, timeout=20)
            until(lambda: fresh.status(client)["associations"])
        fresh.daemon(client, "--takeover")
        until(lambda: fresh.status(client)["unmodified"]["programs"] == 1)
        with fresh.wire() as wire:
            assert page_for(program) == PAGE
        assert wire.syns == []
        if busy:
            assert Path(f"/proc/{old}").exists(), "it has a stream in its hands"
        assert end_of(program) == (b"", 0)


def test_while_a_daemon_takes_over_each_connection_of_a_program_comes_about(tmp_path: Path) -> None:
    with a_site(tmp_path, "runchange", rtt=0.1) as fresh:
        client = fresh.lab.client
        program = waiting_program(fresh)
        old = fresh.status(client)["pid"]
        assert program.stdin is not None
        program.stdin.write(b"\n" * 40)
        program.stdin.flush()
        for _ in range(3):
            fresh.daemon(client, "--takeover")
            until(lambda: fresh.status(client)["unmodified"]["programs"] == 1)
        program.stdin.write(b"\n" * 3)  # the last one has its share, however long the others took
        program.stdin.flush()
        assert end_of(program) == (PAGE * 43, 0)
        assert fresh.ended()["OK"] >= 1
        until(lambda: not Path(f"/proc/{old}").exists())


def test_on_a_path_that_loses_packets_every_connection_comes_about_and_most_are_negotiated(tmp_path: Path) -> None:
    program = """
import sys, urllib.request
bodies = {urllib.request.urlopen(sys.argv[1], timeout=20).read() for _ in range(20)}
sys.stdout.buffer.write(b"".join(bodies))
"""
    with a_site(tmp_path, "runloss", loss=0.05) as fresh:
        argv = [*fresh.under("--peer", fresh.peer()), sys.executable, "-c", program, fresh.url()]
        done = fresh.lab.client.run(argv, capture_output=True, timeout=120)
        assert done.stdout == PAGE, done.stderr
        assert fresh.ended()["OK"] >= 10, fresh.ended()


# ---- the command


def test_who_is_not_root_needs_a_cgroup_of_their_own_and_then_nothing_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with a_site(tmp_path, "runuser", users='["nobody"]') as fresh:
        own = own_cgroup() / f"accord-test-user-{os.getpid()}"
        become = "exec setpriv --reuid 65534 --regid 65534 --clear-groups"
        command = " ".join([*fresh.under("--peer", fresh.peer()), "curl", "-sS", "-m", "10", fresh.url()])
        done = fresh.lab.client.run(["sh", "-c", f"{become} {command}"], capture_output=True, text=True, timeout=30)
        assert "Delegate=yes" in done.stderr
        assert fresh.ended() == {}
        own.mkdir()
        try:
            for each in (own, own / "cgroup.procs", own / "cgroup.subtree_control"):
                os.chown(each, 65534, 65534)  # what Delegate=yes comes to
            enter = f"echo $$ > {own}/cgroup.procs"
            done = fresh.lab.client.run(["sh", "-c", f"{enter}; {become} {command}"], capture_output=True, timeout=30)
            assert done.stdout == PAGE, done.stderr
            assert fresh.ended() == {"OK": 1}
            assert not list(own.glob("accord-run-*"))
        finally:
            own.rmdir()


def test_the_exit_code_is_the_programs_and_the_cgroup_goes(site: Site) -> None:
    def code(*argv: str) -> int:
        run = site.lab.client.popen([*site.under(), *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        exit_code = run.wait(20)
        assert left_cgroups(run) == []
        return exit_code

    assert code("sh", "-c", "exit 7") == 7
    assert code("sh", "-c", "kill -TERM $$") == 128 + signal.SIGTERM
    assert code("/nonexistent/program") == 127
    assert code("sh", "-c", "sleep 2 & exit 0") == 0, "what it leaves behind is nobody's to wait for"
    assert site.status(site.lab.client)["unmodified"]["programs"] == 0


def test_when_accord_run_is_killed_its_programs_syns_are_no_longer_taken(site: Site, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    run = site.lab.client.popen([*site.under(), "sh", "-c", f"echo $$ > {begun}; exec sleep 60"])
    until(lambda: begun.exists() and begun.read_text())
    assert site.status(site.lab.client)["unmodified"]["programs"] == 1
    run.kill()
    run.wait()
    until(lambda: site.status(site.lab.client)["unmodified"]["programs"] == 0)
    (left,) = left_cgroups(run)
    site.curl()
    assert left.exists(), "it has a program in it still"
    os.kill(int(begun.read_text()), signal.SIGKILL)
    until(lambda: "populated 0" in (left / "cgroup.events").read_text())
    site.curl()
    assert not left.exists(), "the next one clears away what that one left"


def test_without_a_daemon_it_says_so_and_starts_nothing(tmp_path: Path) -> None:
    argv = [*ACCORD, "run", "--control", str(tmp_path / "none.sock"), "--", "touch", str(tmp_path / "made")]
    run = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    _, said = run.communicate(timeout=20)
    assert run.returncode != 0
    assert "NO_DAEMON" in said
    assert not (tmp_path / "made").exists()
    assert left_cgroups(run) == []


def test_a_daemon_without_an_interface_says_what_is_missing(tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    daemon = subprocess.Popen([*ACCORD, "daemon", "--control", str(control)], stdout=subprocess.PIPE)
    try:
        assert daemon.stdout is not None
        for line in daemon.stdout:
            if b"daemon ready" in line:
                break
        argv = [*ACCORD, "run", "--control", str(control), "--", "true"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "--iface" in done.stderr
    finally:
        daemon.terminate()
        daemon.wait(10)


def test_a_syn_with_data_goes_as_it_is_and_is_counted(site: Site) -> None:
    client = site.lab.client
    client.run(["sysctl", "-qw", "net.ipv4.tcp_fastopen=0x5"], check=True)  # data without a cookie
    program = """
import socket, sys
s = socket.socket()
s.sendto(b"GET /index.html HTTP/1.0\\r\\n\\r\\n", 0x20000000, (sys.argv[1], int(sys.argv[2])))
data = b""
while piece := s.recv(65536): data += piece
sys.stdout.buffer.write(data)
"""
    before = site.seen()
    try:
        with site.wire() as wire:
            argv = [
                *site.under("--peer", site.peer()),
                sys.executable,
                "-c",
                program,
                site.lab.server.address4,
                str(OPEN),
            ]
            done = client.run(argv, capture_output=True, timeout=20)
    finally:
        client.run(["sysctl", "-qw", "net.ipv4.tcp_fastopen=1"], check=True)
    assert PAGE in done.stdout, done.stderr
    assert len(bytes(wire.syns[0][TCP].payload)) > 20
    assert rises(before, site.seen()) == {"with_data": 1}


def test_a_stock_client_and_a_stock_server_that_listens_itself_meet_without_a_syn(site: Site) -> None:
    port = 8083
    server = site.lab.server
    site.start(server, [sys.executable, "-m", "http.server", str(port), "--bind", "::", "--directory", str(site.site)])
    command = [*ACCORD, "expose", "--listen", str(port), "--to-listener", "--control", str(site.control(server))]
    site.start(server, command, ready="exposed")
    before = site.seen()
    with site.wire(port) as wire:
        assert site.curl("--peer", site.peer(port), port=port)[0] == PAGE
    assert rises(before, site.seen()) == {"held": 1, "answered": 1}
    assert wire.syns == []
    assert PAGE in wire.data
