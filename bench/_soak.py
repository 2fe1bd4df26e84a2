# SPDX-License-Identifier: Apache-2.0
"""Negotiations of all kinds with one daemon, one after another for as long as it takes: what became of each.

_soak.py SPEC    SPEC is a JSON object: host, ports (open, secure), ca, name, negotiations, seconds (0: no end),
                 at_once, seed, kinds (weights by name)

A controller of its own on UDP sockets, as ``_load.py``. The kinds:

    tcp      a whole negotiation of TCP alone, an echo over the connection, its close
    tls      the same of TLS over TCP, the certificate verified
    aborted  a proposal that comes to nothing: TCP alone, where the server requires security
    given up the proposal leaves, then nobody wants it any more, and says so
    silent   the first packet of a proposal of three, and then nothing for ever: it ends with its lifetime

Prints a JSON object now and then, and a last one with "over": true.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from _echo import echoed

from accord.controller.controller import Controller
from accord.controller.settings.config import DaemonConfig
from accord.datapath import clock
from accord.datapath.engine import Engine
from accord.datapath.path import Path as NetworkPath
from accord.protocols.services import Security
from accord.wire.constants import NodeId, Protocol, Step
from accord.wire.errors import AccordError
from accord.wire.message import Message
from accord.wire.node import Node

_NEVER = {"fallback": "never", "only": True, "tcp": "no-syn"}
TCP = {**_NEVER, "secure": "no", "prefer": ["tcp"]}
TLS = {**_NEVER, "secure": "required", "prefer": ["tls/tcp"]}
TEXT = b"ping"
PATIENCE_SECONDS = 20.0
REPORT_SECONDS = 0.25
_GIVEN_UP_SECONDS = 0.0005
_SILENT_A_SECOND = 3.0
"""Each takes one of the places for unproven peers for as long as a negotiation may live."""


class Soak:
    """What is attempted, and what became of it."""

    def __init__(self, controller: Controller, spec: dict[str, Any]) -> None:
        self._controller = controller
        self._spec = spec
        self._security = Security(server_name=spec["name"], ca_file=Path(spec["ca"]))
        self._engine = Engine(transactions=4, unproven=2, buffers=64)
        self._engine.support([Protocol.UDP, Protocol.TCP])
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.connect((spec["host"], spec["ports"]["open"]))
        self._last_silent = 0.0
        self.begun = 0
        self.outcomes: Counter[str] = Counter()

    async def run(self) -> None:
        """All of them."""
        chance = random.Random(self._spec["seed"])
        names, weights = zip(*sorted(self._spec["kinds"].items()), strict=True)
        end = time.monotonic() + self._spec["seconds"] if self._spec["seconds"] else None

        async def one_after_another() -> None:
            while self.begun < self._spec["negotiations"] and (end is None or time.monotonic() < end):
                self.begun += 1
                await self._attempt(chance.choices(names, weights)[0])

        await asyncio.gather(*(one_after_another() for _ in range(self._spec["at_once"])))

    async def _attempt(self, kind: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                came = await getattr(self, "_" + kind.replace(" ", "_"))()
        except (AccordError, OSError) as failure:  # TimeoutError is an OSError
            came = f"{type(failure).__name__}: {failure}"[:200]
        self.outcomes[f"{kind}: {came}"] += 1

    async def _tcp(self) -> str:
        return await self._echo("open", TCP)

    async def _tls(self) -> str:
        return await self._echo("secure", TLS)

    async def _aborted(self) -> str:
        try:
            await self._echo("secure", TCP)
        except AccordError as refused:
            if refused.reason.name == "INSECURE":
                return "ok"
            raise
        return "came up"

    async def _given_up(self) -> str:
        asking = asyncio.create_task(self._echo("open", TCP))
        await asyncio.sleep(_GIVEN_UP_SECONDS)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError, AccordError, OSError):
            await asking
        return "ok"

    async def _silent(self) -> str:
        wait = self._last_silent + 1 / _SILENT_A_SECOND - time.monotonic()
        if wait > 0:  # another kind instead, so that nobody waits for a place
            return await self._tcp()
        self._last_silent = time.monotonic()
        now = clock.now_us()
        address, port = self._socket.getsockname()[:2]
        path = NetworkPath.udp((address, port), (self._spec["host"], self._spec["ports"]["open"]))
        nodes = (Node(NodeId.CONTEXT, Protocol.UDP, (1,)), Node(1, Protocol.TCP, (), payload=bytes(3000)))
        handle = self._engine.open(now, secrets.token_bytes(12), path)
        self._engine.send(now, handle, Step.PROPOSAL, list(Message(Step.PROPOSAL, nodes).encode()), 0)
        (_, packet), *_ = self._engine.output(now)
        self._engine.close(now, handle)
        with contextlib.suppress(OSError):
            while True:
                self._socket.recv(2048)
        self._socket.send(packet)
        return "ok"

    async def _echo(self, port: str, wishes: dict[str, Any]) -> str:
        association = await self._controller.connect(
            self._spec["host"], self._spec["ports"][port], overrides=wishes, security=self._security, ladder=False
        )
        return await echoed(association, TEXT)

    def report(self, over: bool) -> dict[str, Any]:
        """For JSON."""
        return {"over": over, "done": self.outcomes.total(), "outcomes": dict(self.outcomes)}


async def main() -> None:
    """Run, and say how far it is."""
    spec = json.loads(sys.argv[1])
    controller = Controller(DaemonConfig(back_end="udp"))
    soak = Soak(controller, spec)
    running = asyncio.create_task(soak.run())
    while not running.done():
        await asyncio.wait({running}, timeout=REPORT_SECONDS)
        print(json.dumps(soak.report(False)), flush=True)
    running.result()
    print(json.dumps(soak.report(True)), flush=True)
    controller.close()


if __name__ == "__main__":
    asyncio.run(main())
