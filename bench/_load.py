# SPDX-License-Identifier: Apache-2.0
"""Negotiations at a steady rate from one process, as lean as they come: what became of each.

_load.py SPEC    SPEC is a JSON object: host, port, rate (a second), at_once, seconds (patience)

A controller of its own on UDP sockets, without a daemon, a control socket or programs beside it; the stack is TCP
alone, so neither side makes or checks a certificate. Each attempt is a whole negotiation (proposal, answer, commit,
both kernels' TCP installed without a SYN), an echo over the connection, and its close; there is no plain connection to
fall back to. Prints a JSON object now and then, and a last one with "over": true after its standard input has ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any

from _echo import echoed
from _steady import steady

from accord.controller.controller import Controller
from accord.controller.settings.config import DaemonConfig
from accord.protocols.services import Security
from accord.wire.errors import AccordError

WISHES = {"secure": "no", "prefer": ["tcp"], "only": True, "tcp": "no-syn", "fallback": "never"}
TEXT = b"ping"
REPORT_SECONDS = 0.2


class Load:
    """What is attempted, and what became of it."""

    def __init__(self, controller: Controller, spec: dict[str, Any]) -> None:
        self._controller = controller
        self._spec = spec
        self._security = Security(server_name=spec["host"])
        self.outcomes: Counter[str] = Counter()

    async def attempt(self) -> None:
        """One connection and an echo."""
        try:
            async with asyncio.timeout(self._spec["seconds"]):
                self.outcomes[await self._echo()] += 1
        except (AccordError, OSError) as failure:  # TimeoutError is an OSError
            self.outcomes[f"{type(failure).__name__}: {failure}"[:200]] += 1

    async def _echo(self) -> str:
        association = await self._controller.connect(
            self._spec["host"], self._spec["port"], overrides=WISHES, security=self._security, ladder=False
        )
        return await echoed(association, TEXT)


async def main() -> None:
    """Run, and say how far it is."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    spec = json.loads(sys.argv[1])
    controller = Controller(DaemonConfig(back_end="udp"))
    load = Load(controller, spec)

    def stop() -> None:
        loop.remove_reader(sys.stdin)
        over.set()

    loop.add_reader(sys.stdin, stop)
    running = asyncio.create_task(steady(load.attempt, spec["rate"], spec["at_once"], over))
    while not running.done():
        await asyncio.wait({running}, timeout=REPORT_SECONDS)
        print(json.dumps({"over": running.done(), "outcomes": dict(load.outcomes)}), flush=True)
    running.result()
    controller.close()


if __name__ == "__main__":
    asyncio.run(main())
