# SPDX-License-Identifier: Apache-2.0
"""One flood: what its packets are, and the program (dataplane_c/bench/flood.c) that sends them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _native
import click
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from strangers import proposal

from accord.controller.load.ring import slot_of
from accord.lab.deployment import BARE_PORT, NAME
from accord.lab.deployment import PORT as SECURE_PORT
from accord.lab.pair import PairHost
from accord.protocols.services import Security
from accord.scapy_layer import Accord, AccordChunk, AccordNode, cookie, first_tsn
from accord.wire.constants import Limit

PROGRAM = _native.BUILD / "flood"
OBJECT = _native.BUILD / "flood.bpf.o"
KEY_ID, KEY = 7, bytes(range(1, 17))
SOURCE_PORT = 9
"""Discard: below what a kernel gives to clients, so that an answer to it is one to the flood."""
GENERATOR_CPU = 1
KINDS = {
    "proposals": "well-formed first packets, random addresses",
    "valid": "real proposals, random addresses",
    "replayed": "one real proposal with its good cookie, again and again",
    "validated": "real proposals with good cookies, from four networks",
}
_ETHERNET, _UDP = 14, 8
_IP = {4: 20, 6: 40}
_HEADER, _COOKIE = 32, 16
_ZEROS = bytes(12)
_LOOKS_SECONDS = 1.2
"""A second, and the lateness of a busy process."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a flood is to be."""

    kind: str
    family: int
    size: int
    """Of packets of the kind "proposals", from their header on; the others are as long as a real one."""
    proposal: bytes = b""
    """A whole one, for the others."""

    @property
    def name(self) -> str:
        """As on the command line."""
        return self.kind if self.family == 4 else f"{self.kind}/6"

    @property
    def port(self) -> int:
        """Of the service that is asked for."""
        return BARE_PORT if self.kind == "proposals" else SECURE_PORT

    @property
    def bears_cookie(self) -> bool:
        """A good one."""
        return self.kind in ("replayed", "validated")


def real_proposal(ca: Path) -> bytes:
    """What a client sends that asks for TLS over a parallel SYN, padded to a whole packet."""
    return asyncio.run(proposal(Security(server_name=NAME, ca_file=ca)))


def repeats_id_at(plan: Plan) -> int:
    """Where in a packet a chunk repeats the transaction ID, which differs from packet to packet; 0: nowhere.

    The option ADOPT in the SYN has to name its transaction, or the stack is refused before any TLS.
    """
    if plan.kind not in ("valid", "validated"):
        return 0
    return plan.proposal.index(plan.proposal[8:20], _HEADER) + (_COOKIE if plan.bears_cookie else 0)


def frame(plan: Plan, client: PairHost, server: PairHost) -> bytes:
    """What all packets of the flood have in common; replayed: the packet."""
    replayed = plan.kind == "replayed"
    ip: Packet
    if plan.family == 6:
        ip = IPv6(src=client.address6 if replayed else "2001:db8::", dst=server.address6)
    elif replayed:
        ip = IP(src=client.address4, dst=server.address4)
    else:
        ip = IP(src="0.0.0.0", dst=server.address4, chksum=0)
    ports = UDP(sport=SOURCE_PORT, dport=plan.port, chksum=0 if plan.family == 4 else 1)
    around = Ether(dst=server.mac, src=client.mac) / ip / ports
    transaction = os.urandom(12) if replayed else _ZEROS
    if plan.kind == "proposals":
        node = bytes(AccordNode(handshake=bytes(plan.size - _HEADER - 8 - 4)))
        chunks = [AccordChunk(node=0, protocol=17, data=node)]
    else:
        chunks = Accord(plan.proposal.replace(plan.proposal[8:20], transaction)).chunks
    packet = Accord(flags="I+E+C" if plan.bears_cookie else "I+E", transaction=transaction, chunks=chunks, checksum=0)
    if replayed:
        packet.tsn, packet.checksum = first_tsn(transaction, initiator=True), None
        packet.cookie = cookie(Ether(bytes(around / packet)), KEY_ID, KEY, _slot())
    return bytes(around / packet)


def _slot() -> int:
    """The next one, which is good as well: so the cookies are for twelve seconds at least.

    Waits while the daemon, which looks at the clock once a second, may not be in the present one yet: to it these
    would be cookies of the future, and all of the flood strangers.
    """
    time.sleep(max(0.0, _LOOKS_SECONDS - time.time() % Limit.COOKIE_SLOT_S))
    return (slot_of(time.time()) + 1) & 0xFFFF


_NICENESS = -15
_GROUP = Path("/proc/self/autogroup")


def hurry() -> None:
    """Or a machine that others use, too, is measured with them. Niceness counts within a session's group: sched(7)."""
    os.setsid()
    os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    with contextlib.suppress(OSError):
        _GROUP.write_text(str(_NICENESS))


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """This process, in the session where it is: it has the service behind the daemon, whose echoes are waited for."""
    before, group = os.getpriority(os.PRIO_PROCESS, 0), ""
    with contextlib.suppress(OSError):
        group = _GROUP.read_text().rpartition("nice ")[2].strip()
    os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    if group:
        _GROUP.write_text(str(_NICENESS))
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)
        if group:
            _GROUP.write_text(group)


def first() -> None:
    """And away from the flood's processor, where the kernel's work comes first."""
    hurry()
    os.sched_setaffinity(0, {0})


class Flooding:
    """A flood, which begins at once and lasts ``seconds``. ``rate``: packets a second; 0: as many as go.

    ``slices``: more words of the program's command line, for kinds without cookies.
    """

    def __init__(
        self,
        plan: Plan,
        rate: float,
        seconds: float,
        client: PairHost,
        server: PairHost,
        slices: Sequence[str] = (),
    ) -> None:
        self._seconds = seconds
        self._over = False
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self._file.write(frame(plan, client, server))
        self._file.flush()
        kind = "proposals" if plan.kind == "valid" else plan.kind
        header_at = _ETHERNET + _IP[plan.family] + _UDP
        command = [str(PROGRAM), str(OBJECT), client.interface, kind, self._file.name, str(header_at)]
        command += [str(repeats_id_at(plan)), str(plan.family), f"{rate:.0f}", f"{seconds}", str(GENERATOR_CPU)]
        if kind == "validated":
            command += [str(KEY_ID), KEY.hex(), str(_slot())]
        command += slices
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = client.popen(command, preexec_fn=hurry, **pipes)
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "attached":
            raise click.ClickException("the flood did not begin; what it said is above")

    def result(self) -> dict[str, Any]:
        """When its time is over, what it came to. Its program stays on the wire."""
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        self._over = True
        return found

    def close(self) -> None:
        """End it, also before its time."""
        if not self._over:
            self._process.kill()
        self._process.communicate(timeout=60)
        self._file.close()
