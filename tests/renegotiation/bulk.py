# SPDX-License-Identifier: Apache-2.0
"""A plain service and a client of it: both send pseudo-random bytes all the time, until the client has finished.

python bulk.py serve PORT           what it received, counted and hashed, is the end of what it sends
python bulk.py change JSON          one association, the changes of the specification, and whether all bytes arrived
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import accord
from accord.wire.errors import AccordError

BLOCK = 4096
TRAILER = 8 + 32
PAUSE = 0.02
"""Seconds between two blocks: about as much as aioquic carries both ways on a busy machine."""


def blocks(seed: int) -> Iterator[bytes]:
    """The bytes that one side sends, without end."""
    source = random.Random(seed)
    while True:
        yield source.randbytes(BLOCK)


async def serve(port: int) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hashed, count, done = hashlib.sha256(), 0, asyncio.Event()

        async def receive() -> None:
            nonlocal count
            while data := await reader.read(65536):
                hashed.update(data)
                count += len(data)
            done.set()

        receiving = asyncio.create_task(receive())
        for block in blocks(2):
            if done.is_set() or receiving.done():
                break
            writer.write(block)
            await writer.drain()
            await asyncio.sleep(PAUSE)
        await receiving
        writer.write(count.to_bytes(8, "big") + hashed.digest())
        writer.write_eof()
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", port)
    print("serving", flush=True)
    await server.serve_forever()


async def change(spec: dict[str, Any]) -> dict[str, Any]:
    """``policy``: of the connection; ``changes``: wishes of one change after another; ``bytes``: that go each way
    between two of them."""
    result: dict[str, Any] = {"stacks": [], "took": []}
    options = {name: spec[name] for name in ("server_name", "ca_file", "control")}
    async with accord.connect(spec["remote"], policy=spec["policy"], **options) as association:
        result["stacks"].append("/".join(association.stack))
        sent, hashed, stop = 0, hashlib.sha256(), asyncio.Event()
        received = bytearray()

        async def send() -> None:
            nonlocal sent
            for block in blocks(1):
                if stop.is_set():
                    break
                await association.write(block)
                hashed.update(block)
                sent += len(block)
                await asyncio.sleep(PAUSE)
            await association.finish()

        async def receive() -> None:
            while data := await association.read():
                received.extend(data)

        work = [asyncio.create_task(send()), asyncio.create_task(receive())]

        async def more(count: int) -> None:
            there, back = sent + count, len(received) + count
            while (sent < there or len(received) < back) and not any(task.done() for task in work):
                await asyncio.sleep(0.005)

        for wishes in spec["changes"]:
            await more(spec["bytes"])
            began = time.monotonic()
            try:
                await association.renegotiate(wishes)
            except AccordError as failure:
                result["stacks"].append(failure.reason.name)
            else:
                result["stacks"].append("/".join(association.stack))
            result["took"].append(round(time.monotonic() - began, 3))
        await more(spec["bytes"])
        stop.set()
        await asyncio.gather(*work)
    came, trailer = bytes(received[:-TRAILER]), bytes(received[-TRAILER:])
    count = -(-len(came) // BLOCK)
    result["there"] = trailer == sent.to_bytes(8, "big") + hashed.digest()
    result["back"] = came == b"".join(itertools.islice(blocks(2), count))[: len(came)]
    result["bytes"] = [sent, len(came)]
    return result


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
    else:
        print(json.dumps(asyncio.run(change(json.loads(sys.argv[2])))))
