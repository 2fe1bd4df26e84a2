# SPDX-License-Identifier: Apache-2.0
"""The same edits between two real daemons, in namespaces of their own (``./build.py sim --mitm --lab``, as root).

What must not be is less than the simulator looks for, and is seen from outside: another stack than without the edit, or
another page than the server has; a plain connection of which the caller does not know why; a failure without a reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import accord
from accord.lab.hosts import PORT, SERVER_NAME, Hosts
from accord.lab.lab import Lab
from accord.lab.namespace import Namespace
from accord.wire.errors import AccordError
from sim.mitm.corpus import corpus
from sim.mitm.edits import Edit, Kind, Record
from sim.mitm.interposer import Interposer

PAGE: Final = b"<html>between two hosts</html>\n"
GET: Final = f"GET /index.html HTTP/1.0\r\nHost: {SERVER_NAME}\r\n\r\n".encode()
PLAIN: Final = ("tls", "tcp")
BROKEN: Final = "broken"
_SECONDS: Final = 20
"""Until a call has come to something. Where an edit leaves both ends to their timers it takes eleven."""
_SILENCE_SECONDS: Final = 4
"""Who hears nothing for so long over a stack has a broken one, whenever that will be told: QUIC's is after a minute."""
_NOT_HERE: Final = (Kind.STREAM, Kind.OPTION)
"""He passes TCP on as it is: those are for the simulator's."""


class Talk(NamedTuple):
    """A way of calling, and what comes of it when nobody touches it."""

    name: str
    stack: tuple[str, ...]
    wishes: Mapping[str, Any]


TALKS: Final = (
    Talk("no-syn", ("http", "tls", "tcp"), {"tcp": "no-syn", "prefer": ["tls/tcp"], "fallback": "parallel"}),
    Talk("parallel-syn", ("http", "tls", "tcp"), {"tcp": "parallel-syn", "prefer": ["tls/tcp"]}),
    Talk("QUIC", ("http", "quic"), {"prefer": ["quic"], "only": True, "fallback": "never"}),
)


class Outcome(NamedTuple):
    """Of one call. ``said``: what did not hold, in words; empty: everything did."""

    stack: tuple[str, ...]
    reason: str
    said: str


@dataclass
class Between:
    """Two hosts, and him."""

    hosts: Hosts
    him: Interposer

    async def connect(self, **wishes: Any) -> tuple[tuple[str, ...], str]:
        """Stack and reason of one call, ``BROKEN`` where that carried nothing. Raises ``ValueError`` for a page that is
        not the server's, ``TimeoutError`` when it never ends."""
        lab = self.hosts.lab
        remote, control = f"{lab.server.address4}:{PORT}", self.hosts.control(lab.client)
        options: dict[str, Any] = {"ca_file": self.hosts.ca, "server_name": SERVER_NAME, "control": control}
        try:
            opening = accord.connect(remote, {**TALKS[0].wishes, **wishes}, **options)
            async with asyncio.timeout(_SECONDS) as patience, opening as association:
                patience.reschedule(None)
                said = b""
                with contextlib.suppress(AccordError, OSError):  # TimeoutError among them
                    await association.write(GET)
                    while more := await asyncio.wait_for(association.read(), _SILENCE_SECONDS):
                        said += more
                if said.partition(b"\r\n\r\n")[2] not in (PAGE, b""):
                    raise ValueError(f"the page is {said[-80:]!r}")
                report = association.report
                return tuple(report["stack"]), report["reason"] if said else BROKEN
        except AccordError as failure:
            return (), failure.reason.name

    def ask(self, host: Namespace, **message: Any) -> dict[str, Any]:
        """A daemon's answer."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(20)
            sock.connect(os.fspath(self.hosts.control(host)))
            sock.send(json.dumps(message).encode())
            answer: dict[str, Any] = json.loads(sock.recv(1 << 20))
            return answer

    def forget(self) -> None:
        """What the client has learnt of the path."""
        self.ask(self.hosts.lab.client, op="flush_peers", addresses=None, port=None)

    def record(self, talk: Talk = TALKS[0]) -> Record:
        """What he sees when he does nothing. Raises ``RuntimeError`` when that comes to something else."""
        him = self.him.edit(None)
        self.forget()
        got = asyncio.run(self.connect(**talk.wishes))
        if got != (talk.stack, "OK"):
            raise RuntimeError(f"{talk.name}: {got}, with nobody in the middle")
        return him.recorded()

    def play(self, talk: Talk, edit: Edit, other: Record) -> Outcome:
        """One call, with one edit."""
        self.forget()
        self.him.edit(edit, other)
        try:
            stack, reason = asyncio.run(self.connect(**talk.wishes))
        except (ValueError, TimeoutError) as failure:
            return Outcome((), "", str(failure) or "it never ended")
        return Outcome(stack, reason, judged(talk, stack, reason))


def judged(talk: Talk, stack: tuple[str, ...], reason: str) -> str:
    """What did not hold."""
    if stack == talk.stack:
        return "" if reason in ("OK", BROKEN, "OPTION_STRIPPED") else f"the same stack, for {reason}"
    if not stack:
        return "" if reason not in ("", "OK") else "no stack, without a reason"
    if stack != PLAIN or talk.wishes.get("fallback") == "never":
        return f"{'/'.join(stack)} for {reason}, not {'/'.join(talk.stack)}"
    return "" if reason not in ("", "OK", BROKEN) else f"a plain connection, without a reason ({reason})"


@contextlib.contextmanager
def between(directory: Path) -> Iterator[Between]:
    """The lab, with daemons, a server, and him in the link's place. Needs root."""
    with (
        Lab(f"mitm-{os.getpid()}", rtt=0.0, kind="forwarder") as lab,
        contextlib.closing(Hosts(lab, directory, site={"index.html": PAGE})) as hosts,
        contextlib.closing(Interposer(lab)) as him,
    ):
        hosts.serve_plain()
        hosts.daemon(lab.client)
        hosts.daemon(lab.server)
        hosts.expose()
        yield Between(hosts, him)


def edits_of(record: Record, seed: int) -> list[Edit]:
    """Those that can be made here, beginning with some of each kind."""
    return [edit for edit in corpus(record, seed, streams=False) if edit.kind not in _NOT_HERE]


@dataclass
class LabReport:
    """Of a campaign."""

    edits: int = 0
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    failing: list[dict[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    def add(self, talk: Talk, edit: Edit, outcome: Outcome) -> None:
        """One edit more."""
        self.edits += 1
        what = "/".join(outcome.stack) or "none"
        self.outcomes.setdefault(talk.name, Counter())[f"{what} broken" if outcome.reason == BROKEN else what] += 1
        self.reasons[outcome.reason] += 1
        if outcome.said:
            self.failing.append({"talk": talk.name, "edit": str(edit), "said": outcome.said})

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "edits": self.edits,
            "undetected_differences": len(self.failing),
            "outcomes": {name: dict(counts) for name, counts in self.outcomes.items()},
            "reasons": dict(self.reasons.most_common()),
            "seconds": round(self.seconds, 1),
            "interrupted": self.interrupted,
            "failing": self.failing[:20],
        }


def campaign(count: int, first: int, seconds: float | None, tell: Callable[[LabReport], None]) -> LabReport:
    """The edits of these numbers, the ways of calling in turn. ``tell`` is called after each; Ctrl-C ends it with a
    report, and everything that was made for it is taken down."""
    report, began = LabReport(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="accord-mitm-") as directory, between(Path(directory)) as both:
        both.forget()
        records = [(talk, both.record(talk), both.record(talk)) for talk in TALKS]
        lists = [edits_of(one, 1) for _, one, _ in records]
        with contextlib.suppress(KeyboardInterrupt):
            report.interrupted = True
            for number in range(first, first + count):
                place, which = divmod(number, len(TALKS))
                talk, _, other = records[which]
                if place < len(lists[which]):
                    edit = lists[which][place]
                    report.add(talk, edit, both.play(talk, edit, other))
                report.seconds = time.monotonic() - began
                tell(report)
                if seconds is not None and report.seconds > seconds:
                    break
            report.interrupted = False
    return report
