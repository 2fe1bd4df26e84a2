# SPDX-License-Identifier: Apache-2.0
"""What only a kernel with the protocol shows: its own TLS, SCTP, MPTCP, WireGuard. A file over each, captured."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any, Final

from accord.lab.hosts import PORT, SERVER_NAME
from vagrant.carry import MARK
from vagrant.machines import (
    CLIENT_HOST,
    HOSTS,
    PYTHON,
    SERVER,
    SERVER_HOST,
    TREE,
    WORK,
    Absent,
    Failed,
    captured,
    configure,
    start_daemons,
)

# Of the time that a call of a plug-in may take: for processors that are translated, and shared.
CONFIGURATION: Final = """[limits]
plugin_ms = 10000

[policy.default]
kernel_tls = true
tcp = "no-syn"
prefer = ["tls/tcp", "tls/sctp", "tls/mptcp", "tls/wireguard"]
"""
CASES: Final = {
    "kernel-tls": ("tls/tcp", "kernel TLS"),
    "kernel-sctp": ("tls/sctp", "SCTP"),
    "kernel-mptcp": ("tls/mptcp", "MPTCP"),
    "wireguard": ("tls/wireguard", "WireGuard"),
}
"""The stack below the application, and the finding of ``accord doctor`` without which it is absent."""
# What the capture must have (a filter of tshark's), and how often at least.
ON_THE_WIRE: Final = {
    "kernel-tls": (f"tcp.port == {PORT}", 20),
    "kernel-sctp": ("sctp.chunk_type == 0", 20),
    # DSS with a mapping, that is, with data; MP_CAPABLE (0) on each segment of the handshake.
    "kernel-mptcp": ("tcp.options.mptcp.subtype == 2 && tcp.len > 0", 20),
    "wireguard": ("wg.type == 4", 20),
}
ALSO: Final = {
    "kernel-sctp": ("sctp.chunk_type == 1", "sctp.chunk_type == 10"),
    "kernel-mptcp": (
        "tcp.flags.syn == 1 && tcp.flags.ack == 0 && tcp.options.mptcp.subtype == 0",
        "tcp.flags.syn == 1 && tcp.flags.ack == 1 && tcp.options.mptcp.subtype == 0",
        "tcp.flags.syn == 0 && tcp.flags.ack == 1 && tcp.options.mptcp.subtype == 0",
    ),
    "wireguard": ("wg.type == 1 || wg.type == 2",),
}
# Whole ones: tshark names no chunk that was cut off.
_PACKETS: Final = 4000
_BYTES: Final = 65535


def prepare() -> None:
    """Both daemons with a policy that names all of it, and a program that takes what comes."""
    SERVER_HOST.stop("vm-expose", "vm-carry")
    # The same file on both hosts.
    options = {configure(host, CONFIGURATION) for host in HOSTS}
    start_daemons(*options)
    SERVER_HOST.start("vm-carry", f"{PYTHON} {TREE}/vagrant/carry.py serve {PORT}")
    SERVER_HOST.until_said("listening", "vm-carry")


def run(name: str, size: int, findings: dict[str, dict[str, Any]], results: Path) -> dict[str, Any]:
    """The columns of a case's row. Raises ``Absent`` with the doctor's reason, ``Failed``."""
    stack, needed = CASES[name]
    if not findings[needed]["ok"]:
        raise Absent(findings[needed]["reason"])
    spec = {
        "address": SERVER,
        "port": PORT,
        "policy": {"prefer": [stack], "only": True, "secure": "required", "fallback": "never"},
        "server_name": SERVER_NAME,
        "ca_file": f"{WORK}/ca.pem",
        "bytes": size,
    }
    capture = results / f"{name}.pcap"
    with captured(capture, SERVER, _BYTES, _PACKETS):
        program = f"{PYTHON} {TREE}/vagrant/carry.py send {shlex.quote(json.dumps(spec))}"
        found: dict[str, Any] = json.loads(CLIENT_HOST.run(program, timeout=120 + size / 250_000))
    if wrong := judge(name, found, size) + on_the_wire(name, capture):
        raise Failed("; ".join(wrong))
    return {
        "stack": found["stack"],
        "bytes": found["sent"],
        "seconds": found["seconds"],
        "sendfile": found["sendfile"],
        "inside": found["inside"],
    }


def judge(name: str, found: dict[str, Any], size: int) -> list[str]:
    """What is wrong with a transfer, as both ends tell it; nothing is a pass."""
    wrong = []
    wanted = ["http", *CASES[name][0].split("/")]
    if found["sent"] != size or found["peer"]["sha256"] != found["sha256"]:
        wrong.append(f"{found['sent']} of {size} bytes, with SHA-256 {found['peer']['sha256'][:16]}...")
    for whose, end in (("the client", found), ("the server", found["peer"])):
        if end["stack"] != wanted:
            wrong.append(f"{whose}'s stack is {'/'.join(end['stack'])} instead of {'/'.join(wanted)}")
        by_kernel = end["inside"].get("tls", {}).get("kernel")
        if name == "kernel-tls" and by_kernel != "yes":
            wrong.append(f"{whose}'s TLS is not the kernel's: {by_kernel}")
        multipath = end["inside"].get("mptcp", {}).get("multipath")
        if name == "kernel-mptcp" and multipath is not True:
            wrong.append(f"{whose}'s connection is not one of MPTCP: multipath is {multipath}")
    if name == "kernel-tls" and not found["sendfile"]:
        wrong.append("the client's program had no kernel socket to send the file over")
    return wrong


def on_the_wire(name: str, capture: Path) -> list[str]:
    """What is wrong with a capture: clear text, or not the packets that were to be there."""
    wrong = []
    if MARK in capture.read_bytes():
        wrong.append("the capture has clear text of the file")
    wanted, least = ON_THE_WIRE[name]
    if (seen := count(capture, wanted)) < least:
        wrong.append(f"the capture has {seen} packets with {wanted}")
    for also in ALSO.get(name, ()):
        if not count(capture, also):
            wrong.append(f"the capture has no packet with {also}")
    return wrong


def count(capture: Path, filter_: str) -> int:
    """Packets of a capture that tshark's filter shows. Raises ``Failed``."""
    command = ["tshark", "-n", "-r", str(capture), "-Y", filter_, "-T", "fields", "-e", "frame.number"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise Failed(f"tshark: {done.stderr.strip()[-300:]}")
    return len(done.stdout.split())
