# SPDX-License-Identifier: Apache-2.0
"""What a host of one's own shows: systemd, upgrade, reboot, queues, modes by kernel, suppression, tracing."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from accord.cli.demo import Case
from accord.lab.hosts import PORT
from vagrant import demo_cases
from vagrant.machines import (
    CLIENT_HOST,
    HOSTS,
    PATIENCE,
    SERVER,
    SERVER_HOST,
    WORK,
    Absent,
    Failed,
    Link,
    Machine,
    expose,
    start_both,
    start_daemon,
    start_daemons,
    start_server,
)

ROOT: Final = Path(__file__).resolve().parent.parent
Columns = dict[str, Any]
Findings = dict[str, dict[str, Any]]

SERVICE: Final = f"""[daemon]
interface = "eth1"

[tls]
certificate = "{WORK}/server.pem"
key = "{WORK}/server.key"

[[expose]]
listen = {PORT}
to = "127.0.0.1:8080"
early_limit = 4096
secure = "preferred"
"""


def page(policy: dict[str, Any], link: Link | None = None) -> dict[str, Any]:
    """One connection with such a policy; what ``accord.cli.measure`` says of it. Raises ``Failed``."""
    case = Case("once", PORT, policy)
    (found,) = demo_cases.connections(case, (link or Link(2)).server, (link or Link(2)).rtt, 1)
    return found


# ---- queues ----


def native_xdp(findings: Findings) -> Columns:
    """Both daemons natively attached, AF_XDP rings bound, and a stack negotiated over them."""
    SERVER_HOST.stop("vm-expose")
    try:
        states = start_daemons("--attach", "native")
    except Failed as refused:
        raise Absent(str(refused)) from refused
    rungs = sorted({f"{state['back_end']}, attach {state['attach_mode']}" for state in states})
    if rungs != ["af_xdp, attach native"]:
        raise Absent(f"asked for, and came to {' and '.join(rungs)}")
    expose()
    return {"stack": _tls_over_tcp(page({"secure": "required", "prefer": ["tls/tcp"], "fallback": "never"}))}


def queues(findings: Findings) -> Columns:
    """Two receive queues on each host's card: a ring for each, and negotiations whichever one a packet comes by."""
    try:
        for host in HOSTS:
            host.run("ethtool -L eth1 combined 2")
    except Failed as refused:
        raise Absent(str(refused)) from refused
    try:
        SERVER_HOST.stop("vm-expose")
        states = start_daemons("--attach", "native")
        rings = [(state["back_end"], state["attach_mode"], state["queues"]) for state in states]
        if rings != [("af_xdp", "native", 2)] * 2:
            raise Failed(f"back end, attach mode and rings: {rings}")
        expose()
        # The card chooses the queue by the ports: eight connections do not all take one.
        for _ in range(8):
            _tls_over_tcp(page({"secure": "required", "prefer": ["tls/tcp"], "fallback": "never"}))
        received = [_received_by_queue(host) for host in HOSTS]
    finally:
        for host in HOSTS:
            host.run("ethtool -L eth1 combined 1")
    if any(sum(each) == 0 for each in received):
        raise Failed(f"frames by queue: {received}")
    return {"frames_by_queue": received}


def _received_by_queue(host: Machine) -> list[int]:
    families = json.loads(host.run("accord stats --json"))["families"]
    found = next(each for each in families if each["name"] == "accord_ring_received_frames_total")
    return [int(sample["value"]) for sample in found["samples"]]


def _tls_over_tcp(run: dict[str, Any]) -> list[str]:
    stack: list[str] = run["stack"]
    if stack != ["http", "tls", "tcp"]:
        raise Failed(f"stack {'/'.join(stack)}")
    return stack


# ---- modes: DESIGN.md's table of data paths, as far as the kernel has them ----

MODES: Final[dict[str, tuple[dict[str, Any], list[str], str | None]]] = {
    "mode-parallel-syn": (
        {"secure": "required", "prefer": ["tls/tcp"], "tcp": "parallel-syn", "fallback": "never"},
        ["http", "tls", "tcp"],
        None,
    ),
    "mode-no-syn": (
        {"secure": "required", "prefer": ["tls/tcp"], "tcp": "no-syn", "fallback": "never"},
        ["http", "tls", "tcp"],
        "TCP_REPAIR",
    ),
    "mode-in-band": ({"secure": "required", "prefer": ["quic"], "fallback": "never"}, ["http", "quic"], None),
    "mode-direct": (
        {"secure": "required", "prefer": ["tls/tcp"], "context": "direct", "tcp": "no-syn", "fallback": "never"},
        ["http", "tls", "tcp"],
        "TCP_REPAIR",
    ),
}
"""The policy, the stack that has to come, and the finding without which it is absent."""
UNBUILT: Final = {
    "mode-unmodified-server": "bpf_sk_assign_tcp_reqsk",
    "mode-mptcp": "MPTCP",
}
"""Mechanisms that the doctor looks for and no stack of this version uses: the row says what it found."""


def mode(name: str) -> Callable[[Findings], Columns]:
    """The case of a mode."""

    def run(findings: Findings) -> Columns:
        policy, stack, needed = MODES[name]
        if needed is not None and not findings[needed]["ok"]:
            raise Absent(f"{needed}: {findings[needed]['reason']}")
        found = page(policy)
        if found["stack"] != stack:
            raise Failed(f"stack {'/'.join(found['stack'])} instead of {'/'.join(stack)}")
        return {"stack": found["stack"]}

    return run


def unbuilt(name: str) -> Callable[[Findings], Columns]:
    """The row of a mechanism that nothing uses yet."""

    def run(findings: Findings) -> Columns:
        finding = findings[UNBUILT[name]]
        has = "the kernel has it" if finding["ok"] else "the kernel has it not"
        raise Absent(f"no stack of this version uses it; {has}: {finding['reason']}")

    return run


def suppression(findings: Findings) -> Columns:
    """The plain SYN that leaves beside a proposal is dropped by the peer's program: no second connection there."""
    start_both("--attach", "native")
    before = SERVER_HOST.counter("SYN_SUPPRESSED")
    policy = {"secure": "required", "prefer": ["tls/tcp"], "tcp": "no-syn", "fallback": "parallel"}
    found = [page(policy) for _ in range(3)]
    dropped = SERVER_HOST.counter("SYN_SUPPRESSED") - before
    for run in found:
        _tls_over_tcp(run)
    if not findings["SYN option"]["ok"]:
        raise Absent(f"SYN option: {findings['SYN option']['reason']}; every connection was negotiated all the same")
    if dropped < len(found):
        raise Failed(f"{dropped:g} SYNs suppressed in {len(found)} negotiated connections")
    return {"suppressed": dropped}


def fallback(findings: Findings) -> Columns:
    """The daemon of the server dies in the middle of things: the next connection is a plain one, at once."""
    start_both()
    SERVER_HOST.run("systemctl kill -s KILL vm-daemon; sleep 1")
    SERVER_HOST.stop("vm-expose", "vm-daemon")
    case = demo_cases.BY_NAME["no-accord-peer"]
    (run,) = demo_cases.connections(case, SERVER, 100, 1)
    if run["stack"] != ["tls", "tcp"]:
        raise Failed(f"stack {'/'.join(run['stack'])}")
    return {"stack": run["stack"]}


# ---- tracing ----


def tracing(findings: Findings) -> Columns:
    """``accord trace verdicts`` beside a negotiation: bcc compiles there, and sees the packet handed to the daemon."""
    for needed in ("bcc", "kernel headers"):
        if not findings[needed]["ok"]:
            raise Absent(f"{needed}: {findings[needed]['reason']}")
    start_both("--attach", "native")
    output = f"{WORK}/trace.json"
    command = (
        f"sh -c '/usr/local/bin/accord trace verdicts --iface eth1 --json --seconds 120 > {output} 2>{WORK}/trace.err'"
    )
    SERVER_HOST.start("vm-trace", command)
    try:
        deadline = time.monotonic() + 120 * PATIENCE
        while time.monotonic() < deadline:
            page({"secure": "required", "prefer": ["tls/tcp"], "tcp": "no-syn", "fallback": "never"})
            with contextlib.suppress(Failed):
                SERVER_HOST.run(f"grep -q STEERED {output}")
                return {"seen": int(SERVER_HOST.run(f"grep -c STEERED {output}"))}
            SERVER_HOST.run("systemctl is-active -q vm-trace")
        raise Failed(f"no packet was seen: {SERVER_HOST.run(f'cat {WORK}/trace.err')[-500:]}")
    finally:
        SERVER_HOST.stop("vm-trace")


# ---- the service ----


def service(findings: Findings) -> Columns:
    """The unit that is packaged: start, reload, hang, crash, live upgrade, stop."""
    SERVER_HOST.stop("vm-expose", "vm-daemon", "vm-carry")
    start_daemon(CLIENT_HOST)
    unit = (ROOT / "packaging/accord.service").read_bytes()
    SERVER_HOST.run("cat > /etc/systemd/system/accord.service; systemctl daemon-reload", stdin=unit)
    # Certificates where a service without access to /home and to others' /tmp can read them.
    SERVER_HOST.run(f"mkdir -p /etc/accord; cp {WORK}/server.pem {WORK}/server.key /etc/accord/")
    text = SERVICE.replace(WORK, "/etc/accord")
    SERVER_HOST.run("cat > /etc/accord/accord.toml", stdin=text.encode())
    # The tree that it runs from is in a home directory, which the unit hides.
    home = "[Service]\nProtectHome=read-only\n"
    drop_in = "/etc/systemd/system/accord.service.d"
    command = f"mkdir -p {drop_in}; cat > {drop_in}/tree.conf; systemctl daemon-reload"
    SERVER_HOST.run(command, stdin=home.encode())
    steps = []
    try:
        SERVER_HOST.run("systemctl start accord", timeout=180)
        steps.append(_serves("start"))
        SERVER_HOST.run("systemctl reload accord")
        steps.append(_serves("reload"))
        for what, signal in (("hang", "STOP"), ("crash", "KILL")):
            before = SERVER_HOST.status()["pid"]
            SERVER_HOST.run(f"kill -{signal} {before}")
            _wait(lambda before=before: SERVER_HOST.status()["pid"] != before, f"another daemon after {what}")  # type: ignore[misc]
            steps.append(_serves(what))
        before = SERVER_HOST.status()["pid"]
        SERVER_HOST.run("systemctl kill --signal=USR2 --kill-whom=main accord")
        _wait(lambda: SERVER_HOST.status()["pid"] != before, "another daemon after the upgrade")
        steps.append(_serves("upgrade"))
        SERVER_HOST.run("systemctl stop accord", timeout=60)
        if SERVER_HOST.run("ip -d link show dev eth1 | grep -c prog/xdp || true").strip() != "0":
            raise Failed("the XDP program stayed after the stop")
        steps.append("stop")
    except Failed as failure:
        raise Failed(f"after {', '.join(steps) or 'nothing'}: {failure}; {SERVER_HOST.log('accord', 15)}") from failure
    return {"steps": steps}


def reboot(findings: Findings) -> Columns:
    """The service comes back with its host, and serves, without a hand's help but the routes of this test."""
    SERVER_HOST.run("systemctl enable accord")
    before = SERVER_HOST.run("cat /proc/sys/kernel/random/boot_id")
    network = (ROOT / "vagrant/network.sh").read_bytes()
    with contextlib.suppress(Failed):
        SERVER_HOST.run("systemctl reboot", timeout=20)
    try:
        _wait(lambda: SERVER_HOST.run("cat /proc/sys/kernel/random/boot_id", timeout=20) != before, "a reboot", 300)
        SERVER_HOST.run("sh -s server", stdin=network)
        SERVER_HOST.run(f"mkdir -p {WORK}/site")
        start_server()
        _wait(lambda: bool(SERVER_HOST.status()["pid"]), "the daemon")
        # The certificate in /etc is of the authority from before: the client is given that one's again.
        SERVER_HOST.run(f"cp {WORK}/server.pem {WORK}/server.key /etc/accord/ && systemctl reload-or-restart accord")
        _wait(lambda: bool(SERVER_HOST.status()["pid"]), "the daemon")
        return {"steps": [_serves("reboot")]}
    finally:
        SERVER_HOST.run("systemctl disable --now accord; rm -rf /etc/systemd/system/accord.service* /etc/accord; "
                        "systemctl daemon-reload", timeout=60)  # fmt: skip


def _serves(step: str) -> str:
    """A connection is negotiated with the service, as it is now; ``step`` again."""
    last = Failed("never tried")
    deadline = time.monotonic() + 30 * PATIENCE
    while time.monotonic() < deadline:
        try:
            _tls_over_tcp(page({"secure": "required", "prefer": ["tls/tcp"], "tcp": "no-syn", "fallback": "never"}))
            return step
        except Failed as failure:
            last = failure
            time.sleep(0.5)
    raise Failed(f"{step}: {last}")


def _wait(until: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds * PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(Failed, json.JSONDecodeError):
            if until():
                return
        time.sleep(0.5)
    raise Failed(f"waited {seconds * PATIENCE:g} s for {what}")


CASES: Final[dict[str, Callable[[Findings], Columns]]] = {
    "native-xdp": native_xdp,
    "queues": queues,
    **{name: mode(name) for name in MODES},
    **{name: unbuilt(name) for name in UNBUILT},
    "suppression": suppression,
    "fallback": fallback,
    "tracing": tracing,
    "service": service,
    "reboot": reboot,
}
NEEDS_DAEMONS: Final = tuple(MODES)
