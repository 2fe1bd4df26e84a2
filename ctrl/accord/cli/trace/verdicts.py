# SPDX-License-Identifier: Apache-2.0
"""``accord trace verdicts``: what the XDP program does with each packet and why, and what then goes wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click
from scapy.layers.inet6 import IPv6  # noqa: F401  (so that it is known as a payload)
from scapy.layers.l2 import Ether

from accord.cli.trace.in_order import InOrder
from accord.cli.trace.rings import Rings
from accord.cli.trace.session import compile_text, epoch, options, run, say, wall
from accord.datapath.watch import Record, Watcher, attached, decode
from accord.datapath.xdp_test import Verdict
from accord.wire.constants import Packet, Reason
from accord.wire.errors import AccordError, error

_FAILURE = struct.Struct("=QIiII")
"""``struct failure`` of verdicts.bcc.c."""
_HEADER = struct.Struct("!BBHI12s")
"""The start of ``struct accord_header``: version, step, flags, magic, transaction ID."""


@click.command()
@click.option("--iface", "interfaces", metavar="IF", multiple=True, help="Only this interface; may be repeated.")
@click.option(
    "--reason", "names", metavar="REASON", multiple=True, help="Only packets with this reason; may be repeated."
)
@options
def verdicts(interfaces: tuple[str, ...], names: tuple[str, ...], seconds: float | None, as_json: bool) -> None:
    """Each packet that the XDP program sees: its verdict, the reason for it, what it was; and redirects that fail.

    Interfaces of this network namespace with Accord's program, unless --iface names some. On a busy host name the
    reasons, STEERED for one: what comes faster than it can be printed is counted and left out. Without an XDP program
    (back ends af_packet and udp) there is nothing to see here; accord stats counts on every rung.
    """
    reasons = wanted(names)
    programs = find(interfaces)
    stream = Stream(as_json)
    bpf = compile_text("verdicts")
    try:
        with contextlib.ExitStack() as stack:
            failures = stack.enter_context(Rings(stream.failure, stream.lose))
            failures.join(bpf["failures"])
            places = []
            for program, name in programs.items():
                # A ring of its own: two programs may run on one CPU.
                rings = stack.enter_context(Rings(stream.record, stream.lose))
                places.append(stack.enter_context(Place(name, reasons, rings, bpf["programs"])))
                places[-1].take(program)

            def poll(seconds: float) -> None:
                for place in places:
                    place.rings.poll(seconds / len(places))
                failures.poll(0)

            def step(patience: float) -> None:
                for place in places:
                    if place.follow():
                        stream.program(place)
                stream.lines.round(poll, patience)

            run(f"verdicts on {', '.join(programs.values())}", as_json, step, seconds)
        stream.lines.finish()
        stream.summary()
    finally:
        bpf.cleanup()


def wanted(names: Sequence[str]) -> list[Reason]:
    """Reasons by name; all without any. Raises ``click.BadParameter``."""
    unknown = [name for name in names if name.upper() not in Reason.__members__]
    if unknown:
        raise click.BadParameter(f"no reason is called {', '.join(unknown)}; docs/PROTOCOL.md lists them")
    return [Reason[name.upper()] for name in names] or list(Reason)


def find(interfaces: Sequence[str]) -> dict[int, str]:
    """Program ID to interface. Raises ``UserError``, ``HostError`` when there is nothing to watch."""
    named = interfaces or [name for _, name in socket.if_nameindex()]
    found: dict[int, str] = {}
    for name in named:
        program = attached(name)
        if not program:
            if interfaces:
                raise error(Reason.NO_DAEMON, f"{name} has no XDP program", "sudo accord daemon --iface " + name)
            continue
        try:
            Watcher(program).close()
        except AccordError as refusal:
            if interfaces or refusal.reason is not Reason.FOREIGN_PROGRAM:
                raise
            continue
        found[program] = name
    if not found:
        raise error(
            Reason.NO_DAEMON,
            "no interface of this network namespace has Accord's XDP program",
            "sudo accord daemon --iface IF --back-end af_xdp",
        )
    return found


class Place:
    """One interface, whichever program of ours is on it: a daemon that starts anew or is upgraded brings another."""

    def __init__(self, name: str, reasons: Sequence[Reason], rings: Rings, programs: Any) -> None:
        self.name = name
        self.rings = rings
        self.program = 0
        self._seen = 0
        """On the interface at the last look; ``program`` is 0 when that is not ours."""
        self._reasons = reasons
        self._programs = programs
        self._watcher: Watcher | None = None

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        if self._watcher is not None:
            self._watcher.close()

    def take(self, program: int) -> None:
        """Have it write into the rings. Raises ``AccordError``."""
        watcher = Watcher(program)
        try:
            for cpu, fd in self.rings.fds():
                watcher.join(cpu, fd)
            self._programs[self._programs.Key(program)] = self._programs.Leaf(1)
            watcher.begin(self._reasons)
        except BaseException:
            watcher.close()
            raise
        self._watcher, self.program, self._seen = watcher, program, program

    def follow(self) -> bool:
        """Renew the lease; True when there is another program than before, or none."""
        try:
            program = attached(self.name)
        except AccordError:  # the interface is gone
            program = 0
        if program == self._seen:
            if self._watcher is not None:
                self._watcher.renew()
            return False
        self._seen = program
        if self._watcher is not None:
            self.rings.poll(0)
            self._watcher.close()
            self._watcher, self.program = None, 0
        if program:
            with contextlib.suppress(AccordError):  # not ours, or already going away again
                self.take(program)
        return True


class Stream:
    """Prints what the rings hold, in the order in which it happened."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self.lines = InOrder[dict[str, object] | str](say)
        self._counts: Counter[str] = Counter()
        self._lost = 0

    def lose(self, count: int) -> None:
        """So many came too fast."""
        self._lost += count

    def record(self, data: bytes) -> None:
        """A verdict."""
        record = decode(data)
        self._counts[record.reason.name] += 1
        name = _interface(record.interface)
        if self._as_json:
            ours = transaction(record.head)
            line: dict[str, object] | str = {
                "event": "verdict",
                "at": epoch(record.at_ns),
                "interface": name,
                "queue": record.queue,
                "verdict": record.verdict.name,
                "reason": record.reason.name,
                "frame_bytes": record.frame_bytes,
                **({"step": ours[0], "transaction": ours[1].hex()} if ours else {}),
                "packet": describe(record),
                "head": record.head.hex(),
            }
        else:
            line = (
                f"{wall(record.at_ns)}  {name} queue {record.queue}  {record.verdict.name:<8} {record.reason.name:<18} "
                f"{record.frame_bytes:>5} B  {describe(record)}"
            )
        self.lines.add(record.at_ns, line)

    def failure(self, data: bytes) -> None:
        """The kernel could not do what the verdict said."""
        at_ns, interface, code, action, queue = _FAILURE.unpack_from(data)
        self._counts["failed"] += 1
        why = f"{errno.errorcode.get(-code, code)} ({os.strerror(-code)})" if code else "invalid verdict"
        verdict = Verdict(action).name if action in Verdict.__members__.values() else str(action)
        name = _interface(interface)
        self.lines.add(
            at_ns,
            {"event": "failed", "at": epoch(at_ns), "interface": name, "queue": queue, "verdict": verdict, "error": why}
            if self._as_json
            else f"{wall(at_ns)}  {name} queue {queue}  {verdict:<8} failed: {why}: the frame is lost",
        )

    def program(self, place: Place) -> None:
        """The interface has another program, or none."""
        if self._as_json:
            say({"event": "program", "interface": place.name, "program": place.program or None})
            return
        what = f"program {place.program} is traced now" if place.program else "no program of Accord's any more"
        click.echo(f"{place.name}: {what}", err=True)

    def summary(self) -> None:
        """How many of which, and how many are missing."""
        if self._as_json:
            say({"event": "summary", "counts": dict(self._counts), "lost": self._lost})
            return
        seen = ", ".join(f"{count} {name}" for name, count in self._counts.most_common()) or "nothing"
        click.echo(f"seen: {seen}" + (f"; {self._lost} came too fast and are missing" if self._lost else ""), err=True)


def transaction(head: bytes) -> tuple[int, bytes] | None:
    """Step and transaction ID of the negotiation packet in a frame's first bytes; None without the magic cookie."""
    at = head.find(Packet.MAGIC.to_bytes(4, "big"))
    if at < 4 or len(head) < at - 4 + _HEADER.size:
        return None
    _, step, _, _, identity = _HEADER.unpack_from(head, at - 4)
    return step, identity


def describe(record: Record) -> str:
    """A frame in a few words, by scapy; for a negotiation packet its step and transaction."""
    try:
        words = str(Ether(record.head).summary()).removeprefix("Ether / ").removesuffix(" / Raw")
    except Exception:  # cut off or hostile, and no reason to stop looking at the others
        words = "a frame that does not parse"
    ours = transaction(record.head) if record.reason is not Reason.NOT_OURS_MAGIC else None
    return f"{words}, step {ours[0]} of {ours[1].hex()}" if ours else words


def _interface(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)
