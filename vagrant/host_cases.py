# SPDX-License-Identifier: Apache-2.0
"""What a host of one's own shows: queues, modes by kernel, suppression, fallback, tracing."""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from accord.cli.capture import tally
from accord.cli.demo import Case
from accord.lab.hosts import HTTP_PORT, PORT
from vagrant import demo_cases
from vagrant.machines import (
    CLIENT_HOST,
    HOSTS,
    PAGE,
    PATIENCE,
    PYTHON,
    SERVER,
    SERVER_HOST,
    WORK,
    Absent,
    Failed,
    Machine,
    captured,
    expose,
    start_both,
    start_daemons,
)

Columns = dict[str, Any]
Findings = dict[str, dict[str, Any]]


def page(policy: dict[str, Any]) -> dict[str, Any]:
    """One connection with such a policy; what ``accord.cli.measure`` says of it. Raises ``Failed``."""
    (found,) = pages(policy, 1)
    return found


def pages(policy: dict[str, Any], times: int, pause: float = 0.2) -> list[dict[str, Any]]:
    """So many connections, one after the other, from one process. Raises ``Failed``."""
    return demo_cases.connections(Case("once", PORT, policy), SERVER, 2, times, pause)


# ---- queues ----


def native_xdp(findings: Findings) -> Columns:
    """Both daemons natively attached, AF_XDP rings bound, and a stack negotiated over them."""
    SERVER_HOST.stop("vm-expose")
    try:
        states = start_daemons("--attach", "native")
    except Failed as refused:
        # Of the driver's saying. A program that the verifier refuses is another matter.
        if "not supported" in str(refused):
            raise Absent(str(refused)) from refused
        raise
    rungs = sorted({f"{state['back_end']}, attach {state['attach_mode']}" for state in states})
    if rungs != ["af_xdp, attach native"]:
        raise Failed(f"asked for, and came to {' and '.join(rungs)}")
    expose()
    return {"stack": tls_over_tcp(page({"secure": "required", "prefer": ["tls/tcp"], "fallback": "never"}))}


def queues(findings: Findings) -> Columns:
    """Two receive queues on each host's card: a ring for each, and negotiations whichever one a packet comes by."""
    # While a program is natively attached virtio_net counts the queues that it sends XDP's frames by among them, and a
    # number that was set then goes with the program.
    SERVER_HOST.stop("vm-expose")
    try:
        for host in HOSTS:
            host.stop("vm-daemon")
            host.run("ethtool -L eth1 combined 2")
    except Failed as refused:
        raise Absent(str(refused)) from refused
    try:
        states = start_daemons("--attach", "native")
        rings = [(state["back_end"], state["attach_mode"], state["queues"]) for state in states]
        if rings != [("af_xdp", "native", 2)] * 2:
            raise Failed(f"back end, attach mode and rings: {rings}")
        expose()
        # The card chooses the queue by the ports: eight connections do not all take one.
        for run in pages({"secure": "required", "prefer": ["tls/tcp"], "fallback": "never"}, 8):
            tls_over_tcp(run)
        received = [_received_by_queue(host) for host in HOSTS]
    finally:
        # A queue to which a socket is bound is not taken away.
        SERVER_HOST.stop("vm-expose")
        for host in HOSTS:
            host.stop("vm-daemon")
            host.run("ethtool -L eth1 combined 1")
    if any(sum(each) == 0 for each in received):
        raise Failed(f"frames by queue: {received}")
    return {"frames_by_queue": received}


def _received_by_queue(host: Machine) -> list[int]:
    families = json.loads(host.run("accord stats --json"))["families"]
    found = next(each for each in families if each["name"] == "accord_ring_received_frames_total")
    return [int(sample["value"]) for sample in found["samples"]]


def tls_over_tcp(run: dict[str, Any]) -> list[str]:
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


LISTENER: Final = ("bpf_sk_assign_tcp_reqsk", "tcp_syncookies")
"""The findings without which no program that listens itself can be given a connection."""
_LISTENER_PORT: Final = 8081
_LISTENER_TIMES: Final = 3


def _refuses_to_expose() -> None:
    """What the doctor says cannot be is not begun either, and nothing is loaded for it. Raises ``Failed``."""
    try:
        SERVER_HOST.run(f"timeout 20 accord expose --listen {_LISTENER_PORT} --to-listener")
    except Failed as refusal:
        if "NO_KERNEL_SUPPORT" not in str(refusal):
            raise
    else:
        raise Failed("a port was exposed to its listener on a kernel that cannot give it connections")


def unmodified_server(findings: Findings) -> Columns:
    """Python's own HTTP server on the server gets connections of which no SYN was sent, by its own accept()."""
    for needed in LISTENER:
        if not findings[needed]["ok"]:
            _refuses_to_expose()
            raise Absent(f"{needed}: {findings[needed]['reason']}")
    SERVER_HOST.start("vm-listener", f"/usr/bin/python3 -m http.server {_LISTENER_PORT} --bind ::")
    try:
        SERVER_HOST.until(f"ss -Hltn sport = :{_LISTENER_PORT} | grep -q .", "vm-listener")
        SERVER_HOST.start("vm-given", f"/usr/local/bin/accord expose --listen {_LISTENER_PORT} --to-listener")
        SERVER_HOST.until_said("exposed", "vm-given")
        policy = {"secure": "no", "prefer": ["tcp"], "only": True, "tcp": "no-syn", "fallback": "never"}
        case = Case("to-listener", _LISTENER_PORT, policy)
        with tempfile.TemporaryDirectory() as directory:
            capture = Path(directory) / "to-listener.pcap"
            with captured(capture, SERVER):
                runs = demo_cases.connections(case, SERVER, 2, _LISTENER_TIMES)
                time.sleep(0.2 * PATIENCE)
            seen = tally(capture)
        # The commit's connection is looked after for a moment: only then is it counted.
        counted = f"accord stats --prometheus | grep -q 'accord_given_total.*born.* {_LISTENER_TIMES}$'"
        SERVER_HOST.until(counted, "vm-given", 10)
    finally:
        SERVER_HOST.stop("vm-given", "vm-listener")
    if any(run["sha256"] != hashlib.sha256(PAGE).hexdigest() for run in runs):
        raise Failed("the page arrived with other bytes")
    if seen.syn_packets or not seen.packets:
        raise Failed(f"{seen.syn_packets} SYNs in {_LISTENER_TIMES} connections without any, {seen.packets} packets")
    if runs[-1]["stack"] != ["http", "tcp"]:
        raise Failed(f"stack {'/'.join(runs[-1]['stack'])}")
    return {"stack": runs[-1]["stack"], "syn_packets": seen.syn_packets / _LISTENER_TIMES}


OPEN: Final = 8091
_FETCH: Final = (
    "import hashlib, sys, urllib.request; "
    "print(hashlib.sha256(urllib.request.urlopen(sys.argv[1], timeout=60).read()).hexdigest())"
)


def unmodified_client(findings: Findings) -> Columns:
    """Python's own HTTP client under ``accord run``: to a peer that is known its kernel's SYN is held, and none passes
    the router; to a port without Accord the SYN that was held passes it after all, once."""
    needed = "TC capture"
    if not findings[needed]["ok"]:
        raise Absent(f"{needed}: {findings[needed]['reason']}")
    start_both()
    files = f"--certificate {WORK}/server.pem --private-key {WORK}/server.key"
    service = f"/usr/local/bin/accord expose --listen {OPEN} --to 127.0.0.1:{HTTP_PORT} --secure no {files}"
    SERVER_HOST.start("vm-open", service)
    SERVER_HOST.start("vm-stock", f"/usr/bin/busybox httpd -f -p {OPEN + 1} -h {WORK}/site")
    try:
        SERVER_HOST.until_said("exposed", "vm-open")
        columns: Columns = {}
        for name, port, syns, ended in (("known", OPEN, 0, "OK"), ("legacy", OPEN + 1, 1, None)):
            before = CLIENT_HOST.status()["unmodified"]
            fetch = f"{PYTHON} -c {shlex.quote(_FETCH)} http://{SERVER}:{port}/index.html"
            with tempfile.TemporaryDirectory() as directory:
                capture = Path(directory) / "unmodified.pcap"
                with captured(capture, SERVER):
                    found = CLIENT_HOST.run(f"accord run --peer {SERVER}:{port} -- {fetch}").strip()
                    time.sleep(0.5 * PATIENCE)
                seen = tally(capture)
            after = CLIENT_HOST.status()["unmodified"]
            if found != hashlib.sha256(PAGE).hexdigest():
                raise Failed(f"{name}: the page arrived with other bytes")
            counted = {
                what: {key: value - before[what].get(key, 0) for key, value in after[what].items()}
                for what in ("syns", "ended")
            }
            if counted["syns"]["held"] != 1 or seen.syn_packets != syns or not seen.packets:
                told = f"{seen.syn_packets} SYNs in {seen.packets} packets on the router"
                raise Failed(f"{name}: {told} instead of {syns}, and {counted}")
            if ended is not None and not counted["ended"].get(ended):
                raise Failed(f"{name}: not negotiated: {counted['ended']}")
            columns[name] = {key: value for key, value in counted["ended"].items() if value}
        left = CLIENT_HOST.run("find /sys/fs/cgroup -name 'accord-run-*'").strip()
        if left:
            raise Failed(f"cgroups that were left: {left}")
        return {"unmodified": columns}
    finally:
        SERVER_HOST.stop("vm-open", "vm-stock")


_SYNS: Final = ("SYN_SUPPRESSED", "SYN_FIRST", "SYN_LATE")
"""What the program says of a plain SYN with the option: dropped; came before its proposal; came long after it."""


def suppression(findings: Findings) -> Columns:
    """The plain SYN that leaves beside a proposal is dropped by the peer's program: no second connection there.

    Which of the two comes first is the processors' affair: a proposal that has to be made leaves after its SYN, which
    then passes. Every one of them is seen by the program, and what came in the right order is dropped.
    """
    start_both("--attach", "native")
    policy = {"secure": "required", "prefer": ["tls/tcp"], "tcp": "no-syn", "fallback": "parallel"}
    tls_over_tcp(page(policy))
    before = {name: SERVER_HOST.counter(name) for name in _SYNS}
    found = pages(policy, 6, pause=1)  # in which the next proposal is made
    syns = {name: SERVER_HOST.counter(name) - before[name] for name in _SYNS}
    for run in found:
        tls_over_tcp(run)
    if not findings["SYN option"]["ok"]:
        raise Absent(f"SYN option: {findings['SYN option']['reason']}; every connection was negotiated all the same")
    if sum(syns.values()) != len(found) or not syns["SYN_SUPPRESSED"]:
        raise Failed(f"of the SYNs of {len(found)} negotiated connections: {syns}")
    return {"syns": syns}


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
    output, said = f"{WORK}/trace.json", f"{WORK}/trace.err"
    tracer = "/usr/local/bin/accord trace verdicts --iface eth1 --json"
    SERVER_HOST.start("vm-trace", f"sh -c 'exec {tracer} > {output} 2> {said}'")
    try:
        # Compiled first: meanwhile there is no processor for a negotiation.
        SERVER_HOST.until(f"grep -q ready {output} || ! systemctl is-active -q vm-trace", "vm-trace", 120)
        if not SERVER_HOST.run(f"cat {output}"):
            raise Failed(f"the tracer ended: {SERVER_HOST.run(f'cat {said}')[-500:]}")
        page({"secure": "required", "prefer": ["tls/tcp"], "tcp": "no-syn", "fallback": "never"})
        SERVER_HOST.until(f"grep -q STEERED {output}", "vm-trace", 10)
        return {"seen": int(SERVER_HOST.run(f"grep -c STEERED {output}"))}
    finally:
        SERVER_HOST.stop("vm-trace")


CASES: Final[dict[str, Callable[[Findings], Columns]]] = {
    "native-xdp": native_xdp,
    "queues": queues,
    **{name: mode(name) for name in MODES},
    "mode-unmodified-server": unmodified_server,
    "mode-unmodified-client": unmodified_client,
    "suppression": suppression,
    "fallback": fallback,
    "tracing": tracing,
}
NEEDS_DAEMONS: Final = (*MODES, "mode-unmodified-server")
