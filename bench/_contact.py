# SPDX-License-Identifier: Apache-2.0
"""Connections from where this process runs: one for each line of its standard input, a JSON object, answered by one.

Ways: ``plain`` is TCP and TLS by the library's own code for hosts without Accord, in this process (so what it takes is
measured as the daemon measures: from the call until application data may be sent); ``accord`` asks the host's daemon;
``early`` likewise, with a request for the first message, and tells ``first_ms``, when the answer was here. Of each:
``ready_ms``, as measured in the process that made it; of most ``wall_ms``, until it was in this process's hands.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from _ledger import ask, request

from accord.api import connect
from accord.controller.ladder import Ladder
from accord.controller.race import legacy
from accord.controller.settings.policy import Secure
from accord.datapath import clock
from accord.datapath.stream import SocketCarrier
from accord.datapath.zone import socket_address
from accord.protocols.services import Security
from accord.wire.errors import AccordError

_REQUEST_BYTES = 64
_PATIENCE = 8.0
"""Seconds: three SYNs or so, each lost, of a connection over a path that loses many."""


async def plain(order: dict[str, Any]) -> dict[str, Any]:
    """As a host without Accord does it."""
    security = Security(server_name=order["server_name"], ca_file=Path(order["ca_file"]))
    begin = time.perf_counter()
    ladder = Ladder(clock.now)
    address = (order["host"], order["port"])
    opening = asyncio.create_task(legacy.open_tcp(address))
    await asyncio.sleep(0)  # the SYN leaves before the ClientHello is made
    try:
        begun = legacy.begin(security)
        bare = SocketCarrier(await opening)
    except BaseException:
        opening.cancel()
        raise
    carrier, stack = await legacy.secure_stream(bare, address, Secure.REQUIRED, security, ladder, begun)
    ready = ladder.elapsed()
    wall = time.perf_counter() - begin
    try:
        await ask(carrier.write, carrier.read, _REQUEST_BYTES)
    finally:
        await carrier.close()
    return {"ready_ms": ready * 1000, "wall_ms": wall * 1000, "stack": stack, "negotiated": False, "reason": "PLAIN"}


async def accord(order: dict[str, Any]) -> dict[str, Any]:
    """Through the daemon."""
    host = f"[{order['host']}]" if ":" in order["host"] else order["host"]
    begin = time.perf_counter()
    async with connect(
        f"{host}:{order['port']}",
        order["policy"],
        server_name=order["server_name"],
        ca_file=order["ca_file"],
        control=order["control"],
        ladder=order.get("ladder", False),
    ) as association:
        wall = time.perf_counter() - begin
        await ask(association.write, association.read, _REQUEST_BYTES)
        report = association.report
    found = {name: report[name] for name in ("ready_ms", "stack", "negotiated", "reason", "detail")}
    if order.get("ladder"):
        found["ladder"] = report["ladder"]
    return {**found, "wall_ms": wall * 1000}


async def early(order: dict[str, Any]) -> dict[str, Any]:
    """Through the daemon, the request in the first message if it may be; ``first_ms`` is when the answer was here."""
    sent, expected = request(_REQUEST_BYTES)
    begin = time.perf_counter()
    async with connect(
        f"{order['host']}:{order['port']}",
        order["policy"],
        early=sent,
        server_name=order["server_name"],
        ca_file=order["ca_file"],
        control=order["control"],
    ) as association:
        answer = b""
        while len(answer) < len(expected) and (piece := await association.read()):
            answer += piece
        first = time.perf_counter() - begin
        report = association.report
    if answer != expected:
        raise ValueError(f"{len(answer)} bytes came back, and not the right answer")
    return {**{name: report[name] for name in ("ready_ms", "stack", "early")}, "first_ms": first * 1000}


async def round_trip(order: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of a bare TCP connect: from SYN to SYN-ACK."""
    begin = time.perf_counter()
    loop = asyncio.get_running_loop()
    address = socket_address(order["host"], order["port"])
    transport, _ = await loop.create_connection(asyncio.Protocol, *address[:2])
    taken = time.perf_counter() - begin
    transport.abort()
    return {"ready_ms": taken * 1000}


WAYS = {"plain": plain, "accord": accord, "early": early, "round_trip": round_trip}


async def one(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order; what fails is told, not raised."""
    begin = time.perf_counter()
    try:
        async with asyncio.timeout(order.get("timeout", _PATIENCE)):
            result = await WAYS[order["way"]](order)
        return {"ok": True, **result}
    except TimeoutError:
        failure, reason = "no answer in time", "TIMEOUT"
    except AccordError as refused:
        failure, reason = str(refused), refused.reason.name
    except (OSError, ValueError) as broken:
        failure, reason = f"{type(broken).__name__}: {broken}", "STREAM_BROKEN"
    return {"ok": False, "reason": reason, "failure": failure, "after_ms": (time.perf_counter() - begin) * 1000}


async def main() -> None:
    """Until the standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    gc.collect()
    gc.freeze()
    while line := await reader.readline():
        order = json.loads(line)
        print(json.dumps(await one(order)), flush=True)
        # What is left to do of a connection's end must not fall into the next one's time.
        await asyncio.sleep(order.get("pause", 0.003))


if __name__ == "__main__":
    asyncio.run(main())
