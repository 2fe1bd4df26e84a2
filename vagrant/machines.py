# SPDX-License-Identifier: Apache-2.0
"""The suite's hands: commands on the guests over ssh, units of systemd there, captures, and the router's netem."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accord.lab.hosts import HTTP_PORT, PORT, SERVER_NAME, TLS_PORT

CLIENT, SERVER = "10.84.1.2", "10.84.2.2"
CLIENT6, SERVER6 = "fd84:1::2", "fd84:2::2"
TREE = "/home/vagrant/accord"
PYTHON = f"{TREE}/.venv/bin/python"
WORK = "/tmp/accord-vm"
PAGE = b"Hello from another machine.\n"
LAB_CONFIGURATION = '[policy.default]\ntcp = "no-syn"\n'
"""As ``accord.lab.hosts`` writes it: else a first contact has a SYN, and what is remembered of it decides of others."""
# Between guests whose processors are translated: the floor of their own round trip is a millisecond or two.
FLOOR_MS = 15.0
PATIENCE = float(os.environ.get("ACCORD_VM_SLOW", "1"))
"""Times are for machines that have a processor each; a host that is shared says how many times longer to wait."""
_CAPTURE_LATE_SECONDS = 1.2 * PATIENCE


class Failed(Exception):
    """A command on a machine failed; what it said."""


class Absent(Exception):
    """The kernel, or the machine, has not what a case needs; its own words."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One guest, by its name in the ssh configuration."""

    name: str

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = 120, root: bool = True) -> str:
        """A shell command, as root unless told otherwise; its standard output. Raises ``Failed``."""
        remote = f"sudo sh -ec {shlex.quote(command)}" if root else command
        try:
            done = subprocess.run(
                [*ssh(), self.name, remote], input=stdin, capture_output=True, timeout=timeout * PATIENCE
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name}: no end within {timeout * PATIENCE:g} s: {command[:200]}") from None
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise Failed(f"{self.name}: {command[:200]}: exit code {done.returncode}: {said[-1000:]}")
        return done.stdout.decode(errors="replace")

    def fetch(self, path: str, target: Path) -> None:
        """A file from there, and it is removed there."""
        with target.open("wb") as file:
            subprocess.run([*ssh(), self.name, f"sudo cat {path}; sudo rm {path}"], stdout=file, check=False)

    def start(self, unit: str, command: str, *properties: str, timeout: float = 120) -> None:
        """A process that stays, as a unit of systemd's; an older one of that name is ended first."""
        self.stop(unit)
        options = " ".join(f"--property={each}" for each in (f"WorkingDirectory={WORK}/site", *properties))
        self.run(f"systemd-run --quiet --collect --unit={unit} {options} {command}", timeout=timeout)

    def stop(self, *units: str) -> None:
        """End them; one that does not run is no error."""
        names = " ".join(units)
        self.run(f"systemctl stop {names} 2>/dev/null || true; systemctl reset-failed {names} 2>/dev/null || true")

    def until(self, command: str, unit: str, seconds: float = 60) -> None:
        """Repeat until it succeeds. Raises ``Failed`` with the unit's log."""
        deadline = time.monotonic() + seconds * PATIENCE
        while True:
            with contextlib.suppress(Failed):
                self.run(command)
                return
            if time.monotonic() > deadline:
                raise Failed(f"{self.name}: {unit} is not ready:\n{self.log(unit, 30)}")
            time.sleep(0.5)

    def until_said(self, word: str, unit: str) -> None:
        """Until the unit has said it since it was started: the journal has those of its name before it as well.
        Raises ``Failed`` with the unit's log."""
        this_one = f'_SYSTEMD_INVOCATION_ID="$(systemctl show --property=InvocationID --value {unit})"'
        self.until(f"journalctl {this_one} -o cat --no-pager | grep -q {word}", unit)

    def log(self, unit: str, lines: int = 1000) -> str:
        """What a unit said, for the results."""
        return self.run(f"journalctl -u {unit} --no-pager -o cat -n {lines}")

    def status(self) -> dict[str, Any]:
        """``accord status``."""
        found: dict[str, Any] = json.loads(self.run("accord status --json"))
        return found

    def counter(self, reason: str) -> float:
        """A reason's count over all floors of the daemon, from ``accord stats``."""
        families = json.loads(self.run("accord stats --json"))["families"]
        return sum(
            float(sample["value"])
            for family in families
            for sample in family["samples"]
            if reason in (str(value) for value in sample["labels"].values())
        )


def ssh() -> list[str]:
    """The command that reaches a machine, but for its name."""
    return os.environ["ACCORD_VM_SSH"].split("\n")


ROUTER, SERVER_HOST, CLIENT_HOST = Machine("router"), Machine("server"), Machine("client")
HOSTS = (CLIENT_HOST, SERVER_HOST)


@dataclass(frozen=True, slots=True)
class Link:
    """What is asked of the way between the hosts. ``rtt`` in milliseconds, ``more`` in the words of tc-netem(8).

    ``more`` begins with what belongs to the delay itself, as its jitter.
    """

    rtt: float
    more: str = ""
    family: int = 4

    @property
    def server(self) -> str:
        """The server's address in this family."""
        return SERVER if self.family == 4 else SERVER6

    @property
    def netem(self) -> str:
        """The arguments of netem, the same on both ways."""
        return f"delay {self.rtt / 2:g}ms {self.more}".strip()


def check_identity() -> dict[str, str]:
    """Each name is the machine that it says, and the hosts see each other through the router. Returns the kernels."""
    kernels = {}
    for machine in (ROUTER, SERVER_HOST, CLIENT_HOST):
        hostname, kernels[machine.name] = machine.run("hostname; uname -r").split()
        if hostname != machine.name:
            raise Failed(f"ssh to {machine.name} was answered by {hostname}")
        machine.run(f"mkdir -p {WORK}/site")
    for host, peer, way in ((CLIENT_HOST, SERVER, "10.84.1.1"), (SERVER_HOST, CLIENT, "10.84.2.1")):
        route = host.run(f"ip route get {peer}")
        if f"via {way} dev eth1" not in route:
            raise Failed(f"{host.name} does not reach {peer} through the router: {route.strip()}")
    return kernels


def measure_rtt(server: str, count: int = 15) -> float:
    """Median round trip of a small UDP echo between the hosts, milliseconds."""
    echo = f"{TREE}/ctrl/accord/lab/echo.py"
    # The echo ends with its standard input, so something has to keep that open.
    SERVER_HOST.start("vm-echo", f"sh -c 'sleep 120 | {PYTHON} {echo} serve {server} > {WORK}/echo-port'")
    SERVER_HOST.until(f"test -s {WORK}/echo-port", "vm-echo")
    port = int(SERVER_HOST.run(f"cat {WORK}/echo-port"))
    samples = json.loads(CLIENT_HOST.run(f"{PYTHON} {echo} ask {server} {port} {count} 2"))
    SERVER_HOST.stop("vm-echo")
    SERVER_HOST.run(f"rm -f {WORK}/echo-port")
    if not samples:
        raise Failed("no datagram came back from the server")
    return float(statistics.median(samples)) * 1000


def shape(netem: str) -> None:
    """The router's two ways, both by ``tc netem``. Raises ``Absent`` where the kernel has it not."""
    try:
        ROUTER.run(f"for i in eth1 eth2; do tc qdisc replace dev $i root netem limit 10000 {netem}; done")
    except Failed as refused:
        raise Absent(str(refused)) from refused


def unshape() -> None:
    """The queueing discipline that the router had."""
    ROUTER.run("for i in eth1 eth2; do tc qdisc del dev $i root 2>/dev/null || true; done")


def configure(host: Machine, text: str) -> str:
    """A configuration for the daemon of a host; the option that names it."""
    host.run(f"cat > {WORK}/accord.toml", stdin=text.encode())
    return f"--config={WORK}/accord.toml"


def start_daemon(host: Machine, *options: str) -> dict[str, Any]:
    """``accord daemon`` on a host; its status once it is ready. Raises ``Failed`` with what it said.

    Without a configuration of the case's own it has that of the lab's hosts.
    """
    if not any(option.startswith("--config=") for option in options):
        options = (*options, configure(host, LAB_CONFIGURATION))
    command = shlex.join(["/usr/local/bin/accord", "daemon", "--iface", "eth1", *options])
    try:
        # It tells systemd when it is ready; to ask it again and again would take the processor that it starts on.
        properties = ("Type=notify", "NotifyAccess=all", f"TimeoutStartSec={120 * PATIENCE:g}")
        host.start("vm-daemon", command, *properties, timeout=130)
        return host.status()
    except Failed as failure:
        said = host.log("vm-daemon").strip()[-500:]
        raise Failed(f"{host.name}: the daemon ended: {said or failure}") from None


def start_server() -> None:
    """Certificates, a plain service for ``accord expose``, a stock TLS server. The client gets the authority."""
    program = (
        "import pathlib, accord.protocols.authority as a; d = pathlib.Path('.'); a.make_ca(d); "
        f"a.issue(d, ['{SERVER_NAME}', '{SERVER}', '{SERVER6}'])"
    )
    SERVER_HOST.run(f"cd {WORK}; {PYTHON} -c {shlex.quote(program)}; cat > site/index.html", stdin=PAGE)
    authority = SERVER_HOST.run(f"cat {WORK}/ca.pem").encode()
    CLIENT_HOST.run(f"cat > {WORK}/ca.pem", stdin=authority)
    SERVER_HOST.start("vm-http", f"/usr/bin/busybox httpd -f -p 127.0.0.1:{HTTP_PORT} -h {WORK}/site")
    files = f"-cert {WORK}/server.pem -cert_chain {WORK}/server.pem -key {WORK}/server.key"
    SERVER_HOST.start("vm-tls", f"/usr/bin/openssl s_server -accept {TLS_PORT} -tls1_3 -WWW {files}")
    SERVER_HOST.until(f"ss -Hltn sport = :{TLS_PORT} | grep -q .", "vm-tls")


def expose() -> None:
    """``accord expose`` on the server, early requests allowed."""
    files = f"--certificate {WORK}/server.pem --private-key {WORK}/server.key"
    options = f"{files} --early-limit 4096 --secure preferred"
    command = f"/usr/local/bin/accord expose --listen {PORT} --to 127.0.0.1:{HTTP_PORT} {options}"
    SERVER_HOST.start("vm-expose", command)
    SERVER_HOST.until_said("exposed", "vm-expose")


def start_daemons(*options: str) -> list[dict[str, Any]]:
    """Both daemons anew, at the same time; their status, the client's first."""
    with ThreadPoolExecutor(len(HOSTS)) as threads:
        return list(threads.map(lambda host: start_daemon(host, *options), HOSTS))


def start_both(*options: str) -> None:
    """Both daemons anew, and the exposed service."""
    SERVER_HOST.stop("vm-expose")
    start_daemons(*options)
    expose()


def end_all() -> None:
    """Whatever was set up in the machines."""
    with contextlib.suppress(Failed):
        unshape()
        for host in HOSTS:
            host.stop("vm-expose", "vm-given", "vm-listener", "vm-carry", "vm-daemon", "vm-tls", "vm-http", "vm-echo")


@contextlib.contextmanager
def captured(target: Path, server: str, snap: int = 262144, most: int = 1000000) -> Iterator[None]:
    """What passes the router's side of the client, to a file here: ``most`` packets, ``snap`` bytes of each."""
    remote = f"{WORK}/capture.pcap"
    ROUTER.start("vm-capture", f"/usr/bin/tcpdump -Z root -U -s {snap} -c {most} -i eth1 -w {remote} host {server}")
    ROUTER.until(f"test -s {remote}", "vm-capture")
    try:
        yield
        # The kernel hands packets to tcpdump a second late (packet_mmap, TPACKET_V3), and those that wait when it is
        # ended are lost; in its immediate mode there is no room for a burst of segments that were received as one.
        time.sleep(_CAPTURE_LATE_SECONDS)
    finally:
        ROUTER.stop("vm-capture")
        ROUTER.fetch(remote, target)
