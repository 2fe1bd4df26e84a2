# SPDX-License-Identifier: Apache-2.0
"""Many negotiations from one program, some at a time: run in the client's namespace, prints one JSON object."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections import Counter
from typing import Any

import accord


async def one(spec: dict[str, Any], gate: asyncio.Semaphore, outcomes: Counter[str], stacks: Counter[str]) -> None:
    """One negotiation and one request; what came of it."""
    async with gate:
        try:
            async with asyncio.timeout(60):
                async with accord.connect(
                    spec["remote"],
                    spec["policy"],
                    server_name=spec["server_name"],
                    ca_file=spec["ca_file"],
                    control=spec["control"],
                ) as association:
                    await association.write(spec["request"].encode())
                    answer = await association.read_all()
                    stacks["/".join(association.stack)] += 1
        except (accord.AccordError, OSError, TimeoutError) as failure:
            outcomes[f"{type(failure).__name__}: {failure}"] += 1
            return
        body = answer.partition(b"\r\n\r\n")[2]
        outcomes["ok" if hashlib.sha256(body).hexdigest() == spec["sha256"] else "wrong bytes"] += 1


async def main() -> None:
    """As many as asked, at most so many at once."""
    spec = json.loads(sys.argv[1])
    gate = asyncio.Semaphore(spec["at_once"])
    outcomes: Counter[str] = Counter()
    stacks: Counter[str] = Counter()
    await asyncio.gather(*(one(spec, gate, outcomes, stacks) for _ in range(spec["count"])))
    print(json.dumps({"outcomes": outcomes, "stacks": stacks}))


asyncio.run(main())
