# SPDX-License-Identifier: Apache-2.0
"""What the plug-ins' tests share: streams in memory, a host of callbacks, foreign programs at the other end."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from accord.negotiation.interface import Answer, Outcome, Refuse, Role, Session, View
from accord.protocols.services import ApplicationService, DatagramService, Security, Services
from accord.protocols.wishes import Wishes

HOST = "server.accord.test"


class MemoryCarrier:
    """One end of a stream in memory that holds at most ``room`` bytes each way; ``split`` bytes come out at a time."""

    def __init__(self, room: int = 65536, split: int = 1 << 20) -> None:
        self.peer: MemoryCarrier
        self.room, self.split = room, split
        self.arrived = bytearray()
        self.ended = self.aborted = self.closed = False
        self.written = 0
        self.changed = asyncio.Condition()
        self.kernel_socket: socket.socket | None = None

    async def read(self, limit: int = 65536) -> bytes:
        async with self.changed:
            await self.changed.wait_for(lambda: self.arrived or self.ended or self.aborted)
            if self.aborted:
                raise ConnectionResetError("aborted")
            piece = bytes(self.arrived[: min(limit, self.split)])
            del self.arrived[: len(piece)]
            self.changed.notify_all()
            return piece

    async def write(self, data: bytes) -> None:
        peer = self.peer
        self.written += len(data)
        while data:
            async with peer.changed:
                await peer.changed.wait_for(lambda: len(peer.arrived) < peer.room or peer.aborted)
                if peer.aborted or peer.ended:
                    raise BrokenPipeError("ended")
                take = peer.room - len(peer.arrived)
                peer.arrived += data[:take]
                data = data[take:]
                peer.changed.notify_all()

    async def finish(self) -> None:
        async with self.peer.changed:
            self.peer.ended = True
            self.peer.changed.notify_all()

    async def close(self) -> None:
        self.closed = True
        await self.finish()

    def abort(self) -> None:
        self.aborted = self.peer.aborted = True


def memory_pair(room: int = 65536, split: int = 1 << 20) -> tuple[MemoryCarrier, MemoryCarrier]:
    """The two ends of a stream in memory; call it inside a running loop."""
    one, other = MemoryCarrier(room, split), MemoryCarrier(room, split)
    one.peer, other.peer = other, one
    return one, other


@dataclass
class Neighbour:
    """A session above or below, as far as a plug-in looks at it."""

    protocol: int = 6
    secure: bool = False
    alpn: tuple[str, ...] = ()
    alpn_selected: str | None = None


def below(*sessions: object) -> Sequence[Session]:
    """Neighbours as the sequence that a view wants."""
    return tuple(sessions)  # type: ignore[arg-type]


BARE = below(Neighbour())
"""A stack with nothing but a plain transport."""


def view(
    role: Role, step: int, under: Sequence[Session] = BARE, over: Sequence[Session] = (), budget: int = 1 << 16
) -> View:
    """What a session is shown."""
    return View(role=role, step=step, node_id=2, below=under, above=over, budget=budget)


@dataclass
class Clock:
    """Time that stands still until it is moved; timers fire as it passes them."""

    now: float = 1000.0
    timers: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        timer = (self.now + delay, callback)
        self.timers.append(timer)
        return lambda: self.timers.remove(timer) if timer in self.timers else None

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer[0] <= end]:
            timer = min(due, key=lambda entry: entry[0])
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[1]()
        self.now = end


def services(
    role: Role,
    security: Security | None = None,
    *,
    clock: Clock | None = None,
    datagrams: DatagramService | None = None,
    application: ApplicationService | None = None,
    wishes: Wishes | None = None,
) -> Services:
    """A host for one negotiation; without a clock, the running loop's."""
    here, there = ("192.0.2.1", 40000), ("192.0.2.2", 443)

    def later(delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        try:
            return asyncio.get_running_loop().call_later(delay, callback).cancel
        except RuntimeError:  # no loop runs: what is due later never comes
            return lambda: None

    return Services(
        role=role,
        local=here if role is Role.INITIATOR else there,
        remote=there if role is Role.INITIATOR else here,
        now=(lambda: clock.now) if clock else time.monotonic,
        random=lambda count: b"\x5a" * count,
        call_later=clock.call_later if clock else later,
        security=security or Security(),
        datagrams=datagrams,
        wishes=wishes or Wishes(),
        application=application,
    )


def payload(outcome: Outcome) -> bytes:
    """The bytes of an answer; anything else is a failure of the test."""
    assert isinstance(outcome, Answer), outcome
    return outcome.payload


def refusal(outcome: Outcome) -> Refuse:
    """The refusal; anything else is a failure of the test."""
    assert isinstance(outcome, Refuse), outcome
    return outcome


@contextmanager
def listener() -> Iterator[tuple[socket.socket, int]]:
    """A listening TCP socket on loopback and its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        yield listening, listening.getsockname()[1]


@contextmanager
def program(argv: Sequence[str | Path], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A foreign program, ended with the test."""
    process = subprocess.Popen(
        [str(word) for word in argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,  # type: ignore[call-overload]
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def read_records(connection: socket.socket, encrypted: int, plain: int = 0) -> bytes:
    """Whole TLS records (type u8, version u16, length u16) until so many of type application_data and of any other."""
    got = b""
    while encrypted > 0 or plain > 0:
        header = read_exactly(connection, 5)
        got += header + read_exactly(connection, int.from_bytes(header[3:], "big"))
        if header[0] == 23:
            encrypted -= 1
        else:
            plain -= 1
    return got


def read_exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes of a blocking socket."""
    got = b""
    while len(got) < count:
        piece = connection.recv(count - len(got))
        assert piece, f"connection ended after {len(got)} of {count} bytes"
        got += piece
    return got


def connect_when_up(port: int) -> socket.socket:
    """A connection to a program on loopback that is just starting."""
    for _ in range(400):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except ConnectionRefusedError:
            time.sleep(0.025)
    raise AssertionError(f"nothing came up on port {port}")


def free_port() -> int:
    """A TCP port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Timers(Protocol):
    """What moves a datagram from one end to the other, later."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> object:
        """As ``Clock.call_later``."""


class DatagramEnd:
    """One end of a link of datagrams; what comes before somebody listens waits, as the host's channel does it."""

    def __init__(self, clock: Timers, fate: Callable[[], list[float]]) -> None:
        self.peer: DatagramEnd
        self.clock, self.fate = clock, fate
        self.callback: Callable[[bytes], None] | None = None
        self.waiting: list[bytes] = []
        self.sent = 0

    def send(self, data: bytes) -> None:
        self.sent += 1
        for delay in self.fate():
            self.clock.call_later(delay, lambda: self.peer.deliver(data))

    def deliver(self, data: bytes) -> None:
        if self.callback is None:
            self.waiting.append(data)
        else:
            self.callback(data)

    def receive(self, callback: Callable[[bytes], None] | None, ending: Callable[[], None] | None = None) -> None:
        self.callback = callback
        waiting, self.waiting = self.waiting, []
        for data in waiting:
            self.deliver(data)


class Request:
    """A request that is with a service."""

    def __init__(self) -> None:
        self.response: bytes | None = None
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Application:
    """An initiator's request, or a responder's service that answers when the test says so."""

    def __init__(self, early_request: bytes = b"", early_limit: int = 0) -> None:
        self.early_request, self.early_limit = early_request, early_limit
        self.fetched: list[tuple[bytes, int]] = []
        self.fetches: list[Request] = []

    def fetch(self, request: bytes, limit: int) -> Request:
        self.fetched.append((request, limit))
        self.fetches.append(Request())
        return self.fetches[-1]
