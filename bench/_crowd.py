# SPDX-License-Identifier: Apache-2.0
"""Many connections of all kinds at once, from where this process runs: what became of each.

_crowd.py SPEC    SPEC is a JSON object: count, seed, at_once, rate (a second; 0: as fast as they end), cancelled (the
                  part that is given up on the way), kinds (orders as of _contact.py, by name), seconds (patience)

Prints a line of progress now and then, a JSON object, and at last one with "over": true. Which connection is of which
kind, what it asks for and when it is given up depend on the seed alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from typing import Any

from _ledger import ask

from accord.api import connect
from accord.wire.errors import AccordError

_REPORT_SECONDS = 0.5
_MOST_BYTES = 30_000
_MOST_REQUESTS = 3
_GIVEN_UP_WITHIN = 0.12
"""Seconds; a connection takes about half of it."""


class Crowd:
    """What is to be done, and what was."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.outcomes: Counter[str] = Counter()
        self.answered = 0
        """Requests whose right answer came back."""
        self.ready: list[float] = []
        self.failures: Counter[str] = Counter()

    async def run(self) -> None:
        """All of them, so many at once."""
        gate = asyncio.Semaphore(self.spec["at_once"])
        tasks: set[asyncio.Task[None]] = set()
        chance = random.Random(self.spec["seed"])
        kinds = sorted(self.spec["kinds"].items())
        loop = asyncio.get_running_loop()
        due = loop.time()
        for _ in range(self.spec["count"]):
            await gate.acquire()
            name, order = chance.choice(kinds)
            task = asyncio.create_task(self._one(name, order, random.Random(chance.getrandbits(64)), gate))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            if rate := self.spec["rate"]:
                due = max(due + 1 / rate, loop.time() - 1)
                await asyncio.sleep(max(0.0, due - loop.time()))
        if tasks:
            await asyncio.wait(tasks)

    async def _one(self, name: str, order: dict[str, Any], chance: random.Random, gate: asyncio.Semaphore) -> None:
        outcome = "stuck"
        try:
            async with asyncio.timeout(self.spec["seconds"]):
                outcome = await self._outcome(order, chance)
        except TimeoutError:
            self.failures[f"{name}: stuck"] += 1
        except AccordError as refused:
            outcome = "refused"
            self.failures[f"{name}: {refused}"[:200]] += 1
        except (OSError, ValueError) as broken:
            outcome = "lost"
            self.failures[f"{name}: {type(broken).__name__}: {broken}"[:200]] += 1
        finally:
            self.outcomes[outcome] += 1
            self.outcomes[f"{name}: {outcome}"] += 1
            gate.release()

    async def _outcome(self, order: dict[str, Any], chance: random.Random) -> str:
        given_up = chance.uniform(0, _GIVEN_UP_WITHIN) if chance.random() < self.spec["cancelled"] else None
        asking = asyncio.create_task(self._asking(order, chance))
        try:
            await asyncio.wait({asking}, timeout=given_up)
            if asking.done():
                return asking.result()
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError, AccordError, OSError, ValueError):
                await asking
            return "given up"
        finally:
            asking.cancel()

    async def _asking(self, order: dict[str, Any], chance: random.Random) -> str:
        begin = time.perf_counter()
        host = f"[{order['host']}]" if ":" in order["host"] else order["host"]
        async with connect(
            f"{host}:{order['port']}",
            order["policy"],
            server_name=order["server_name"],
            ca_file=order["ca_file"],
            control=order["control"],
        ) as association:
            self.ready.append(time.perf_counter() - begin)
            report = association.report
            for _ in range(chance.randint(1, _MOST_REQUESTS)):
                size = chance.randint(0, _MOST_BYTES)
                await ask(association.write, association.read, size, chance.randbytes)
                self.answered += 1
        way = "negotiated" if report["negotiated"] else "plain"
        self.outcomes[f"{way} {'/'.join(report['stack'])} {report['reason']}"] += 1
        return "ok"

    def report(self, over: bool) -> dict[str, Any]:
        """For JSON."""
        slowest = max(self.ready, default=0.0)
        found = {"over": over, "outcomes": dict(self.outcomes), "answered": self.answered, "slowest_s": slowest}
        return {**found, "failures": dict(self.failures.most_common(20))}


async def main() -> None:
    """Run, and say how far it is."""
    crowd = Crowd(json.loads(sys.argv[1]))
    running = asyncio.create_task(crowd.run())
    while not running.done():
        await asyncio.wait({running}, timeout=_REPORT_SECONDS)
        print(json.dumps(crowd.report(False)), flush=True)
    running.result()
    print(json.dumps(crowd.report(True)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
