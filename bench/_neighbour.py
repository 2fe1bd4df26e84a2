# SPDX-License-Identifier: Apache-2.0
"""Connections all the time, as ``_contact.py`` makes them, until the standard input ends; some of them may fail."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys

from _contact import one

_PAUSE_SECONDS = 0.15


async def main() -> None:
    """One after the other, with a pause: the processors are others' to use."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    over = asyncio.create_task(reader.read())
    print("ready", flush=True)
    for order in itertools.cycle(json.loads(sys.argv[1])):
        await one(order)
        await asyncio.wait({over}, timeout=_PAUSE_SECONDS)
        if over.done():
            return


if __name__ == "__main__":
    asyncio.run(main())
