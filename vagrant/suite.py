# SPDX-License-Identifier: Apache-2.0
"""The demo's cases between two machines, through a router with netem. Started by `./build.py vm test`.

Nothing here is in the machines: it is done over ssh with what is installed there, as an operator would. A row per
case: *pass* when the stack that was promised carried the right bytes, with the packets that it should; *fail* with
what was else; *absent* when the kernel has not what the case needs, in its own words.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.box import ASCII
from rich.console import Console
from rich.table import Table

from accord.cli.capture import Tally, tally
from accord.cli.demo import CASES, Case
from accord.lab.hosts import HTTP_PORT, PORT, SERVER_NAME, TLS_PORT
from buildtools.bare import STACKS

CLIENT, SERVER = "10.84.1.2", "10.84.2.2"
SERVER6 = "fd84:2::2"
TREE = "/home/vagrant/accord"
PYTHON = f"{TREE}/.venv/bin/python"
WORK = "/tmp/accord-vm"
PAGE = b"Hello from another machine.\n"
REQUEST = f"GET /index.html HTTP/1.0\r\nHost: {SERVER_NAME}\r\n\r\n"
COUNTED = 2
# Between guests whose processors are translated: the floor of their own round trip is a millisecond or two.
FLOOR_MS = 15.0


class Failed(Exception):
    """A command on a machine failed; what it said."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One guest, by its name in the ssh configuration."""

    name: str

    def run(self, command: str, *, stdin: bytes = b"", timeout: float = 120, root: bool = True) -> str:
        """A shell command, as root unless told otherwise; its standard output. Raises ``Failed``."""
        ssh = os.environ["ACCORD_VM_SSH"].split("\n")
        remote = f"sudo sh -ec {shlex.quote(command)}" if root else command
        try:
            done = subprocess.run([*ssh, self.name, remote], input=stdin, capture_output=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name}: no end within {timeout} s: {command[:200]}") from None
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise Failed(f"{self.name}: {command[:200]}: exit code {done.returncode}: {said[-1000:]}")
        return done.stdout.decode(errors="replace")

    def start(self, unit: str, command: str) -> None:
        """A process that stays, as a unit of systemd's; an older one of that name is ended first."""
        self.stop(unit)
        self.run(f"systemd-run --quiet --collect --unit={unit} --working-directory={WORK}/site {command}")

    def stop(self, *units: str) -> None:
        """End them; one that does not run is no error."""
        names = " ".join(units)
        self.run(f"systemctl stop {names} 2>/dev/null || true; systemctl reset-failed {names} 2>/dev/null || true")

    def until(self, command: str, unit: str, seconds: float = 60) -> None:
        """Repeat until it succeeds. Raises ``Failed`` with the unit's log."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(Failed):
                self.run(command)
                return
            if time.monotonic() > deadline:
                raise Failed(f"{self.name}: {unit} is not ready:\n{self.run(f'journalctl -u {unit} --no-pager -n 30')}")
            time.sleep(0.5)

    def log(self, unit: str) -> str:
        """What a unit said, for the results."""
        return self.run(f"journalctl -u {unit} --no-pager -o cat")


@dataclass(frozen=True, slots=True)
class Link:
    """What is asked of the way between the hosts. ``rtt`` in milliseconds, ``more`` in the words of tc-netem(8)."""

    rtt: float
    more: str
    family: int

    @property
    def server(self) -> str:
        """The server's address in this family."""
        return SERVER if self.family == 4 else SERVER6

    @property
    def netem(self) -> str:
        """The arguments of netem, the same on both ways."""
        return f"delay {self.rtt / 2:g}ms {self.more}".strip()


ROUTER, SERVER_HOST, CLIENT_HOST = Machine("router"), Machine("server"), Machine("client")


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


def measure_rtt(server: str) -> float:
    """Median round trip of a small UDP echo between the hosts, milliseconds."""
    echo = f"{TREE}/ctrl/accord/lab/echo.py"
    # The echo ends with its standard input, so something has to keep that open.
    SERVER_HOST.start("vm-echo", f"sh -c 'sleep 60 | {PYTHON} {echo} serve {server} > {WORK}/echo-port'")
    SERVER_HOST.until(f"test -s {WORK}/echo-port", "vm-echo")
    port = int(SERVER_HOST.run(f"cat {WORK}/echo-port"))
    samples = json.loads(CLIENT_HOST.run(f"{PYTHON} {echo} ask {server} {port} 15 2"))
    SERVER_HOST.stop("vm-echo")
    if not samples:
        raise Failed("no datagram came back from the server")
    return float(statistics.median(samples)) * 1000


def shape(netem: str) -> None:
    """The router's two ways, both by ``tc netem``. Raises ``Failed`` where the kernel has it not."""
    ROUTER.run(f"for i in eth1 eth2; do tc qdisc replace dev $i root netem limit 10000 {netem}; done")


def unshape() -> None:
    """The queueing discipline that the router had."""
    ROUTER.run("for i in eth1 eth2; do tc qdisc del dev $i root 2>/dev/null || true; done")


def start_daemon(host: Machine, *options: str) -> dict[str, Any]:
    """``accord daemon`` on a host; its status once it is ready. Raises ``Failed`` with what it said."""
    host.start("vm-daemon", shlex.join(["/usr/local/bin/accord", "daemon", "--iface", "eth1", *options]))
    host.until("accord status --json >/dev/null || ! systemctl is-active -q vm-daemon", "vm-daemon")
    try:
        state: dict[str, Any] = json.loads(host.run("accord status --json"))
    except Failed:
        raise Failed(f"{host.name}: the daemon ended: {host.log('vm-daemon').strip()[-500:]}") from None
    return state


def start_daemons() -> dict[str, Any]:
    """Both daemons, natively attached where virtio's network card can; the row that says whether it could."""
    hosts = (SERVER_HOST, CLIENT_HOST)
    try:
        states = [start_daemon(host, "--attach", "native") for host in hosts]
        rungs = sorted({f"{state['back_end']}, attach {state['attach_mode']}" for state in states})
        if rungs == ["af_xdp, attach native"]:
            return {"case": "native-xdp", "result": "pass", "reason": ""}
        reason = f"asked for, and came to {' and '.join(rungs)}"
    except Failed as refused:
        reason = str(refused)
    for host in hosts:
        start_daemon(host)
    return {"case": "native-xdp", "result": "absent", "reason": reason}


def start_server() -> None:
    """Certificates, a plain service behind ``accord expose``, a stock TLS server. The client gets the authority."""
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
    SERVER_HOST.until("journalctl -u vm-expose -o cat --no-pager | grep -q exposed", "vm-expose")


def connections(case: Case, server: str, rtt: float, repeats: int) -> list[dict[str, Any]]:
    """What each connection took, as the demo's own client tells it."""
    spec = {
        "kind": "today" if case.policy is None else "accord",
        "host": server,
        "port": case.port,
        "policy": case.policy,
        "server_name": SERVER_NAME,
        "ca_file": f"{WORK}/ca.pem",
        "control": None,
        "request": REQUEST,
        "repeats": repeats,
        "pause": 2 * rtt / 1000 + 0.2,
        "ladder": False,
    }
    command = f"cd {TREE} && {PYTHON} -m accord.cli.measure {shlex.quote(json.dumps(spec))}"
    runs: list[dict[str, Any]] = json.loads(CLIENT_HOST.run(command, timeout=60 + repeats * (20 * rtt / 1000 + 10)))
    return runs


@contextlib.contextmanager
def captured(target: Path, server: str) -> Iterator[None]:
    """What passes the router's side of the client, to a file here."""
    remote = f"{WORK}/capture.pcap"
    ROUTER.start("vm-capture", f"/usr/bin/tcpdump -Z root -U -i eth1 -w {remote} host {server}")
    ROUTER.until(f"test -s {remote}", "vm-capture")
    try:
        yield
    finally:
        ROUTER.stop("vm-capture")
        ssh = os.environ["ACCORD_VM_SSH"].split("\n")
        with target.open("wb") as file:
            subprocess.run([*ssh, "router", f"sudo cat {remote}; sudo rm {remote}"], stdout=file, check=False)


def judge(case: Case, runs: list[dict[str, Any]], seen: Tally, lossy: bool = False) -> list[str]:
    """What is wrong with a case; nothing is a pass. Round trips are reported, not judged: see the README.

    On a lossy link a SYN may have to be sent again, but none comes where none belongs.
    """
    wrong = []
    if any(run["sha256"] != hashlib.sha256(PAGE).hexdigest() for run in runs):
        wrong.append("the page arrived with other bytes")
    stacks = sorted({"/".join(run["stack"]) for run in runs})
    if stacks != ["/".join(STACKS[case.name])]:
        wrong.append(f"stack {', '.join(stacks)} instead of {'/'.join(STACKS[case.name])}")
    parallel = case.policy is not None and case.policy.get("tcp") == "parallel-syn"
    wanted = COUNTED if case.policy is None or not case.daemon_at_server or parallel else 0
    if seen.syn_packets != wanted and not (lossy and seen.syn_packets > wanted > 0):
        wrong.append(f"{seen.syn_packets} SYNs in {COUNTED} connections instead of {wanted}")
    return wrong


def row(case: Case, link: Link, rtt: float, repeats: int, results: Path) -> dict[str, Any]:
    """Run one case and judge it."""
    try:
        runs = connections(case, link.server, rtt, repeats)
        capture = results / f"{case.name}.pcap"
        with captured(capture, link.server):
            counted = connections(case, link.server, rtt, COUNTED)
            time.sleep(2 * rtt / 1000 + 0.2)
        seen = tally(capture)
    except (Failed, json.JSONDecodeError, ValueError) as failure:
        return {"case": case.name, "result": "fail", "reason": str(failure)}
    wrong = judge(case, [*runs, *counted], seen, bool(link.more))
    return {
        "case": case.name,
        "result": "fail" if wrong else "pass",
        "reason": "; ".join(wrong),
        "stack": runs[-1]["stack"],
        "ready_rtts": round(statistics.median(run["ready"] for run in runs) * 1000 / rtt, 3),
        "first_response_rtts": round(statistics.median(run["first_response"] for run in runs) * 1000 / rtt, 3),
        "syn_packets": seen.syn_packets / COUNTED,
        "negotiation_packets": seen.negotiation_packets / COUNTED,
        "packets": seen.packets / COUNTED,
        "bytes": seen.bytes / COUNTED,
    }


def suite(cases: Sequence[Case], link: Link, repeats: int, results: Path, console: Console) -> dict[str, Any]:
    """Every row. Whatever was set up in the machines for it is ended again."""
    kernels = check_identity()
    outcome: dict[str, Any] = {"kernel": kernels["client"], "family": link.family, "netem": link.netem, "rows": []}
    for host in (CLIENT_HOST, SERVER_HOST):
        (results / f"doctor-{host.name}.json").write_text(host.run("accord doctor --iface eth1 --json"))
    unshape()  # what a run that was killed may have left
    bare = measure_rtt(link.server)
    console.print(f"between the hosts: {bare:.1f} ms without netem")
    if bare > FLOOR_MS:
        raise Failed(f"a round trip without netem takes {bare:.1f} ms: is the machine busy?")
    try:
        shape(link.netem)
    except Failed as refused:
        return {**outcome, "rows": [{"case": case.name, "result": "absent", "reason": str(refused)} for case in cases]}
    try:
        measured = measure_rtt(link.server)
        console.print(f"between the hosts: {measured:.1f} ms with netem, {link.rtt:g} ms asked for")
        if not link.rtt - (FLOOR_MS if link.more else 0) <= measured <= link.rtt + FLOOR_MS:
            raise Failed(f"netem was to make a round trip of {link.rtt:g} ms, and it takes {measured:.1f} ms")
        start_server()
        outcome["rtt_ms"] = round(measured, 3)
        outcome["rows"].append(start_daemons())
        expose()
        for case in sorted(cases, key=lambda case: not case.daemon_at_server):
            console.print(f"case {case.name}")
            if not case.daemon_at_server:
                for unit in ("vm-expose", "vm-daemon"):
                    (results / f"server-{unit}.log").write_text(SERVER_HOST.log(unit))
                    SERVER_HOST.stop(unit)
            outcome["rows"].append(row(case, link, measured, repeats, results))
        (results / "client-vm-daemon.log").write_text(CLIENT_HOST.log("vm-daemon"))
    finally:
        with contextlib.suppress(Failed):
            unshape()
            for host in (SERVER_HOST, CLIENT_HOST):
                host.stop("vm-expose", "vm-daemon", "vm-tls", "vm-http", "vm-echo")
    return outcome


def show(outcome: dict[str, Any], console: Console) -> None:
    """The table."""
    way = f"IPv{outcome['family']}, netem {outcome['netem']}: {outcome.get('rtt_ms', 0):.1f} ms"
    title = f"Linux {outcome['kernel']}, {way}"
    table = Table(title=title, caption="times in round trips, medians; packets per connection", box=ASCII)
    for column in ("case", "result", "stack"):
        table.add_column(column, no_wrap=True)
    for column in ("ready", "first\nresponse", "SYNs", "negotiation\npackets", "all\npackets"):
        table.add_column(column, justify="right")
    for found in outcome["rows"]:
        keys = ("ready_rtts", "first_response_rtts", "syn_packets", "negotiation_packets", "packets")
        figures = [f"{found[key]:.3g}" if key in found else "" for key in keys]
        table.add_row(found["case"], found["result"], "/".join(found.get("stack", [])), *figures)
    console.print(table)
    for found in outcome["rows"]:
        if found["reason"]:
            console.print(f"{found['case']}: {found['result']}: {found['reason']}", markup=False, highlight=False)


@click.command()
@click.option("--kernel", required=True, help="As asked for; what runs is compared with it.")
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), required=True, help="For logs, captures.")
@click.option("--rtt", type=click.FloatRange(2, 2000), default=100, show_default=True, help="Round trip, milliseconds.")
@click.option("--netem", "more", default="", metavar="WORDS", help="More for both ways, such as 'loss 2% reorder 5%'.")
@click.option("--family", type=click.Choice(["4", "6"]), default="4", show_default=True, help="IPv4 or IPv6.")
@click.option("--case", "names", multiple=True, type=click.Choice([case.name for case in CASES]), help="Only these.")
@click.option("--repeats", type=click.IntRange(1, 100), default=5, show_default=True, help="Connections a case.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def main(
    kernel: str,
    results: Path,
    rtt: float,
    more: str,
    family: str,
    names: tuple[str, ...],
    repeats: int,
    as_json: bool,
) -> None:
    """Run the demo's cases between the two hosts and print a row for each."""
    console = Console(stderr=as_json, width=110)
    try:
        cases = [case for case in CASES if not names or case.name in names]
        outcome = suite(cases, Link(rtt, more, int(family)), repeats, results, console)
    except Failed as failure:
        raise click.ClickException(str(failure)) from failure
    if not outcome["kernel"].startswith(f"{kernel}."):
        raise click.ClickException(f"the machines run {outcome['kernel']}, not {kernel}")
    outcome["failed"] = sum(found["result"] == "fail" for found in outcome["rows"])
    show(outcome, console)
    (results / "result.json").write_text(json.dumps(outcome, indent=2) + "\n")
    if as_json:
        click.echo(json.dumps(outcome))
    raise SystemExit(1 if outcome["failed"] else 0)


if __name__ == "__main__":
    main()
