# SPDX-License-Identifier: Apache-2.0
"""Invariant: whatever a local program says to the daemon's control socket, and whatever descriptors it passes, each
message is answered or refused as the user's mistake, nothing else is raised, and every descriptor is closed.

The input is messages: a byte for the descriptors beside it, two bytes of length, text.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from accord.controller.control import Channel, failure_message, raise_failure
from accord.controller.peers.memory import Peers
from accord.controller.settings.policy import Policy
from accord.daemon import operations
from accord.daemon.operations import Operations
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error
from fuzz.bytes_in import BytesIn

MOST_MESSAGES = 8
_TURNS = 6


class Controller:
    """Refuses everything, after it has looked at what it was asked for."""

    def __init__(self) -> None:
        self.peers = Peers(now=lambda: 1000.0)
        self.proposals = SimpleNamespace(clear=lambda: None)
        self.endpoint = SimpleNamespace(engine=SimpleNamespace(forget_paths=lambda: None))
        self.associations = SimpleNamespace(get=self._association)
        self.clients = SimpleNamespace(run=self._run)

    def _association(self, name: str) -> Any:
        raise error(Reason.BAD_CONFIG, f"no association {name!r}")

    def _run(self, cgroup: int, peers: Any) -> int:
        raise error(Reason.BAD_CONFIG, "no cgroup")

    async def connect(self, host: str, port: int, *, overrides: dict[str, Any], family: Any, **rest: Any) -> Any:
        """As far as words go."""
        assert isinstance(host, str)
        assert 0 < port < 65536
        Policy().for_destination(host, port).override(overrides)
        raise error(Reason.UNREACHABLE, host)

    async def rendezvous(self, sock: Any, *rest: Any, **more: Any) -> Any:
        """No further."""
        sock.close()
        raise error(Reason.UNREACHABLE, "a meeting")

    def expose(self, config: Any, accepted: Any) -> Any:
        """No port is to be had."""
        raise error(Reason.CANNOT_INSTALL, f"port {config.listen}")


LOOP = asyncio.new_event_loop()

_TOLD = patch.multiple(operations, collect=lambda *_: [], status=lambda _: {})
"""Nothing of a message reaches what is told by these: counters and the like, of which this controller has none."""


def one(data: bytes) -> None:
    """See above."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel, far = Channel(ours), Channel(theirs)
    handlers = Operations(Controller())  # type: ignore[arg-type]
    source = BytesIn(data)
    before = _descriptors()
    try:
        with _TOLD:
            for _ in range(MOST_MESSAGES):
                if not source.left:
                    break
                LOOP.run_until_complete(_say(source, channel, far, handlers))
                LOOP.run_until_complete(_turns())
        assert _descriptors() == before, "a descriptor was left open"
    finally:
        channel.close()
        far.close()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def _say(source: BytesIn, channel: Channel, far: Channel, handlers: Operations) -> None:
    kinds, text = source.number(), source.piece(source.number(2))
    if not text:
        return
    with contextlib.ExitStack() as open_here:
        fds = []
        for bit in range(kinds % 16):
            if kinds >> 4 & 1 << bit % 4:
                fds.append(open_here.enter_context(Path("/dev/null").open("rb")).fileno())
            else:
                fds.append(open_here.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).fileno())
        socket.send_fds(far.sock, [text], fds)
    try:
        async with asyncio.timeout(10):
            received = await channel.receive()
            assert received is not None
            await handlers.handle(*_handled(received, channel))
    except AccordError as refusal:
        await channel.send(failure_message(refusal))
    try:
        answer = await far.receive()
        assert answer is not None
        for fd in answer[1]:
            os.close(fd)
        raise_failure(answer[0])
    except AccordError as refusal:
        assert refusal.reason is not Reason.PLUGIN_FAILED, refusal


def _handled(received: tuple[dict[str, Any], list[int]], channel: Channel) -> tuple[dict[str, Any], Channel, list[int]]:
    message, fds = received
    return message, channel, fds


async def _turns() -> None:
    """What is closed when a task has ended is closed."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)
