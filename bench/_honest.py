# SPDX-License-Identifier: Apache-2.0
"""Honest initiators beside a flood, as lean as ``_load.py``'s: what became of each negotiation, and how long it took.

_honest.py SPEC    SPEC as ``_load.py``'s

Prints "ready" when the first negotiation has come up. After each line "begin" on its standard input negotiations begin
at the rate; after "end" no more, and when the last is over it prints one JSON object: ``outcomes``, and ``ready_ms`` of
those that came up.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from _load import Load
from _steady import steady

from accord.controller.controller import Controller
from accord.controller.settings.config import DaemonConfig


class Honest(Load):
    """Takes the time of each attempt, its echo included."""

    ready_ms: list[float]

    async def attempt(self) -> None:
        """One connection and an echo."""
        before, began = self.outcomes["ok"], time.perf_counter()
        await super().attempt()
        if self.outcomes["ok"] > before:
            self.ready_ms.append((time.perf_counter() - began) * 1000)


async def main() -> None:
    """Run until there is no more input."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    spec = json.loads(sys.argv[1])
    controller = Controller(DaemonConfig(back_end="udp"))
    load = Honest(controller, spec)
    load.ready_ms = []
    while not load.outcomes["ok"]:
        await load.attempt()
    print("ready", flush=True)
    while await lines.readline():
        load.outcomes.clear()
        load.ready_ms.clear()
        over = asyncio.Event()
        running = asyncio.create_task(steady(load.attempt, spec["rate"], spec["at_once"], over))
        await lines.readline()
        over.set()
        await running
        print(json.dumps({"outcomes": dict(load.outcomes), "ready_ms": load.ready_ms}), flush=True)
    controller.close()


if __name__ == "__main__":
    asyncio.run(main())
