# SPDX-License-Identifier: Apache-2.0
"""Negotiations of all kinds with one daemon, one after another for as long as it takes: what became of each.

_soak.py SPEC    SPEC is a JSON object: host, ports (open, secure), ca, name, negotiations, seconds (0: no end),
                 at_once, seed, kinds (weights by name)

One thread with the engine, two UDP sockets and the kernel's TCP; ``_lean.py`` has the messages. The kinds:

    tcp      a whole negotiation of TCP alone, an echo over the connection, its close by both
    tls      the same of TLS over TCP, the certificate verified
    aborted  a proposal that comes to nothing: TCP alone, where the server requires security
    given up the proposal leaves, then nobody wants it any more, and says so
    silent   the first packet of a proposal of three, and then nothing for ever: it ends with its lifetime

Prints a JSON object now and then, and a last one with "over": true.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import json
import random
import secrets
import select
import socket
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from _lean import TCP, TLS, Kind, Proposal, given_up

from accord.controller.negotiating import route
from accord.datapath import clock
from accord.datapath.engine import Engine, Event, EventKind
from accord.datapath.path import Path as NetworkPath
from accord.protocols.services import Security
from accord.wire.constants import NodeId, Protocol, Reason, Step
from accord.wire.errors import AccordError
from accord.wire.message import Message
from accord.wire.node import Node, decode_descriptor

TEXT: Final = b"ping"
PATIENCE_SECONDS: Final = 20.0
REPORT_SECONDS: Final = 0.25
_GIVEN_UP_SECONDS: Final = 0.0005
_SILENT_A_SECOND: Final = 3.0
"""Each takes one of the places for unproven peers for as long as a negotiation may live."""
_LINGER_US: Final = 2_000_000
_DYING_SECONDS: Final = 2.0
"""As ``controller.exchange`` repeats an abort."""
_MOST_DYING: Final = 256
_TRANSACTION_BYTES: Final = 12
_READ_BYTES: Final = 65536


class Stage(enum.Enum):
    """Of one negotiation."""

    PROPOSED = enum.auto()
    ASKED = enum.auto()
    """Committed, and the text is on its way."""
    ENDED = enum.auto()
    """It came back, and this side has said its end."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One negotiation."""

    kind: str
    way: Way
    handle: int
    proposal: Proposal
    until: float
    stage: Stage = Stage.PROPOSED
    answer: list[Node] = field(default_factory=list)
    connection: socket.socket | None = None
    back: bytes = b""
    committed: bool = False
    """The peer has our last message, or the engine has given it up."""
    ended: bool = False
    """The peer has said its end, too."""
    challenged: bool = False
    """The peer has asked for a cookie."""

    @property
    def standing(self) -> str:
        """For whom it fails."""
        asked = " after a challenge" if self.challenged else ""
        return f"{self.stage.name.lower()}{asked}, {len(self.answer)} nodes of the answer"


class Way:
    """To one port of the daemon's."""

    def __init__(self, host: str, port: int, security: Security) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.connect((host, port))
        local = self.socket.getsockname()
        self.path = replace(NetworkPath.udp(local, (host, port)), mtu=route(host, port)[1])
        self.tcp = Kind(TCP, security, local, (host, port))
        self.tls = Kind(TLS, security, local, (host, port))


class Soak:
    """What is attempted, and what became of it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        security = Security(server_name=spec["name"], ca_file=Path(spec["ca"]))
        self._ways = {name: Way(spec["host"], port, security) for name, port in spec["ports"].items()}
        self._by_port = {way.path.local_port: way for way in self._ways.values()}
        self._engine = Engine(transactions=8192, unproven=64, buffers=1024, seed=secrets.randbits(32))
        self._engine.support([Protocol.UDP, Protocol.TCP, Protocol.TLS13, Protocol.HTTP])
        self._poll = select.epoll()
        for way in self._ways.values():
            self._poll.register(way.socket, select.EPOLLIN)
        self._by_socket = {way.socket.fileno(): way for way in self._ways.values()}
        self._open: dict[int, Attempt] = {}
        """By the engine's handle."""
        self._by_fd: dict[int, Attempt] = {}
        self._giving_up: dict[int, tuple[float, Attempt]] = {}
        """Nobody waits for these any more, but that the peer learns it; until when, in this order. So long they keep
        their ports, as ``protocols.tcp_installed`` does."""
        self._give_up: deque[tuple[float, Attempt]] = deque()
        self._last_silent = 0.0
        self.begun = 0
        self.outcomes: Counter[str] = Counter()

    def run(self) -> None:
        """All of them."""
        chance = random.Random(self._spec["seed"])
        names, weights = zip(*sorted(self._spec["kinds"].items()), strict=True)
        begin = reported = time.monotonic()
        end = begin + self._spec["seconds"] if self._spec["seconds"] else float("inf")
        now = begin
        while self._open or (self.begun < self._spec["negotiations"] and now < end):
            left = self._spec["negotiations"] - self.begun if now < end and len(self._giving_up) < _MOST_DYING else 0
            for _ in range(min(left, self._spec["at_once"] - len(self._open))):
                self.begun += 1
                self._begin(chance.choices(names, weights)[0], now)
            self._flush()
            for fd, _ in self._poll.poll(self._patience(now)):
                if (way := self._by_socket.get(fd)) is not None:
                    self._receive(way)
                elif (attempt := self._by_fd.get(fd)) is not None:
                    self._guarded(attempt, self._readable)
            now = time.monotonic()
            while self._give_up and self._give_up[0][0] <= now:
                self._give_up_now(self._give_up.popleft()[1], now)
            self._forget(now)
            if now - reported >= REPORT_SECONDS:
                reported = now
                print(json.dumps(self.report(False)), flush=True)

    def _patience(self, now: float) -> float:
        deadline = self._engine.deadline()
        wait = REPORT_SECONDS if deadline is None else max(0.0, (deadline - clock.now_us()) / 1e6)
        return min(wait, REPORT_SECONDS, max(0.0, self._give_up[0][0] - now) if self._give_up else REPORT_SECONDS)

    # ---- the beginning ----

    def _begin(self, kind: str, now: float) -> None:
        if kind == "silent":
            if now < self._last_silent + 1 / _SILENT_A_SECOND:
                kind = "tcp"  # another kind instead, so that nobody waits for a place
            else:
                self._last_silent = now
                self._be_silent()
                self._count(kind, "ok")
                return
        way = self._ways["secure" if kind in ("tls", "aborted") else "open"]
        try:
            proposal = (way.tls if kind == "tls" else way.tcp).propose()
        except AccordError as refusal:
            self._count(kind, f"{type(refusal).__name__}: {refusal}"[:200])
            return
        at, transaction = clock.now_us(), secrets.token_bytes(_TRANSACTION_BYTES)
        handle = self._engine.open(at, transaction, way.path)
        attempt = self._open[handle] = Attempt(kind, way, handle, proposal, now + PATIENCE_SECONDS)
        self._engine.send(at, handle, Step.PROPOSAL, Message(Step.PROPOSAL, tuple(proposal.nodes)).encode())
        if kind == "given up":
            self._give_up.append((now + _GIVEN_UP_SECONDS, attempt))

    def _be_silent(self) -> None:
        at, way, transaction = clock.now_us(), self._ways["open"], secrets.token_bytes(_TRANSACTION_BYTES)
        nodes = (Node(NodeId.CONTEXT, Protocol.UDP, (1,)), Node(1, Protocol.TCP, (), payload=bytes(3000)))
        self._flush()
        handle = self._engine.open(at, transaction, way.path)
        self._engine.send(at, handle, Step.PROPOSAL, Message(Step.PROPOSAL, nodes).encode())
        self._say(at, first_of=transaction)
        self._engine.close(at, handle)

    def _give_up_now(self, attempt: Attempt, now: float) -> None:
        if attempt.handle in self._open:
            self._engine.send(clock.now_us(), attempt.handle, Step.COMMIT, given_up())
            self._giving_up[attempt.handle] = now + _DYING_SECONDS, attempt
            self._end(attempt, "ok")

    def _forget(self, now: float) -> None:
        while self._giving_up and (first := next(iter(self._giving_up.items())))[1][0] <= now:
            self._close(first[0])
        while self._open and (oldest := next(iter(self._open.values()))).until <= now:
            self._end(oldest, f"nothing more in {PATIENCE_SECONDS:g} s: {oldest.standing}")

    # ---- packets ----

    def _flush(self) -> None:
        while self._say(clock.now_us()):
            pass
        self._take()

    def _say(self, at: int, first_of: bytes | None = None) -> bool:
        """Whatever is due, of whichever negotiation; whether anything was. Of ``first_of`` the first packet alone."""
        datagrams, said = self._engine.output(at), False
        for path, datagram in datagrams:
            if first_of is not None and first_of in datagram:
                if said:
                    continue
                said = True
            with contextlib.suppress(OSError):  # a datagram may always be lost
                self._by_port[path.local_port].socket.send(datagram)
        return bool(datagrams)

    def _receive(self, way: Way) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                datagram = way.socket.recv(2048)
                self._engine.input(clock.now_us(), way.path, datagram)
                self._take()

    def _take(self) -> None:
        for event in self._engine.events():
            if (attempt := self._open.get(event.handle)) is not None:
                self._guarded(attempt, self._hear, event)
            elif event.handle in self._giving_up and (
                event.kind is EventKind.FAILED or (event.kind is EventKind.ARRIVED and event.step == Step.COMMIT)
            ):
                self._close(event.handle)

    def _hear(self, attempt: Attempt, event: Event) -> None:
        if event.kind is EventKind.NODE and event.step == Step.ANSWER and attempt.stage is Stage.PROPOSED:
            attempt.answer.append(decode_descriptor(event.node, event.protocol, event.data))
        elif event.kind is EventKind.MESSAGE and event.step == Step.ANSWER and attempt.stage is Stage.PROPOSED:
            if attempt.kind != "given up":
                self._answered(attempt)
        elif event.kind is EventKind.ARRIVED and event.step == Step.COMMIT:
            attempt.committed = True
            self._perhaps_over(attempt)
        elif event.kind is EventKind.CHALLENGED:
            attempt.challenged = True
        elif event.kind is EventKind.FAILED:
            if attempt.connection is None:
                self._end(attempt, f"{event.reason.name}: {attempt.standing}")
            else:  # the commit was never acknowledged: whether the stack is up the echo shows
                attempt.committed = True
                self._perhaps_over(attempt)

    def _answered(self, attempt: Attempt) -> None:
        kind = attempt.way.tls if attempt.kind == "tls" else attempt.way.tcp
        try:
            commit = kind.commit(attempt.proposal, attempt.answer)
        except AccordError as refused:
            if attempt.kind == "aborted" and refused.reason is Reason.INSECURE:
                self._end(attempt, "ok")
                return
            raise
        if attempt.kind == "aborted":
            self._end(attempt, "came up")
            return
        at = clock.now_us()
        self._engine.send(at, attempt.handle, Step.COMMIT, commit)
        self._say(at)
        connection = attempt.connection = attempt.proposal.tcp.stream().detach()
        attempt.stage = Stage.ASKED
        if (tls := attempt.proposal.tls) is None:
            connection.send(TEXT)
        else:
            tls.write(TEXT)
            connection.send(tls.output())
        self._by_fd[connection.fileno()] = attempt
        self._poll.register(connection, select.EPOLLIN)

    # ---- the connection ----

    def _readable(self, attempt: Attempt) -> None:
        connection, tls = attempt.connection, attempt.proposal.tls
        assert connection is not None, "it is readable"
        data: bytes | None = connection.recv(_READ_BYTES)
        if not data:
            self._unregister(attempt)
            if attempt.stage is not Stage.ENDED:
                self._end(attempt, f"the peer ended after {attempt.back!r}")
                return
            attempt.ended = True
            self._perhaps_over(attempt)
            return
        if tls is not None:
            tls.feed(data)
            data = tls.read(_READ_BYTES)
        attempt.back += data or b""
        if attempt.stage is Stage.ASKED and len(attempt.back) >= len(TEXT):
            attempt.stage = Stage.ENDED
            if tls is not None:
                tls.close_notify()
                connection.send(tls.output())
            connection.shutdown(socket.SHUT_WR)

    # ---- the end ----

    def _guarded(self, attempt: Attempt, what: Any, *arguments: object) -> None:
        try:
            what(attempt, *arguments)
        except (AccordError, OSError) as failure:
            self._end(attempt, f"{type(failure).__name__}: {failure}")

    def _perhaps_over(self, attempt: Attempt) -> None:
        if attempt.committed and attempt.ended:
            self._end(attempt, "ok" if attempt.back == TEXT else f"{TEXT!r} came back as {attempt.back!r}")

    def _end(self, attempt: Attempt, came: str) -> None:
        if self._open.pop(attempt.handle, None) is None:
            return
        self._unregister(attempt)
        if attempt.connection is not None:
            attempt.connection.close()
        if attempt.handle not in self._giving_up:
            attempt.proposal.tcp.release()
            self._close(attempt.handle)
        self._count(attempt.kind, came)

    def _close(self, handle: int) -> None:
        if (given_up := self._giving_up.pop(handle, None)) is not None:
            given_up[1].proposal.tcp.release()
        self._engine.close(clock.now_us(), handle, _LINGER_US)

    def _unregister(self, attempt: Attempt) -> None:
        connection = attempt.connection
        if connection is not None and self._by_fd.pop(connection.fileno(), None) is not None:
            self._poll.unregister(connection)

    def _count(self, kind: str, came: str) -> None:
        self.outcomes[f"{kind}: {came[:200]}"] += 1

    def report(self, over: bool) -> dict[str, Any]:
        """For JSON."""
        return {
            "over": over,
            "done": self.outcomes.total(),
            "outcomes": dict(self.outcomes),
            "processor_seconds": time.process_time(),
        }


def main() -> None:
    """Run, and say how far it is."""
    soak = Soak(json.loads(sys.argv[1]))
    gc.freeze()
    soak.run()
    print(json.dumps(soak.report(True)), flush=True)


if __name__ == "__main__":
    main()
