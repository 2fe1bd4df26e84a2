# SPDX-License-Identifier: Apache-2.0
"""aioquic's own handshake, between two processes.

_quic.py serve SPEC   a server; SPEC is {"host", "port", "certificate", "key"}; prints "ready"; ends with its input
_quic.py ask          a connection for each line of its standard input, {"host", "port", "server_name", "ca_file",
                      "timeout"}, answered by one: {"ok", "ready_ms"}, from the call until application data may be sent
"""

from __future__ import annotations

import asyncio
import gc
import json
import ssl
import sys
import time
from typing import Any

import aioquic.quic.connection
from aioquic.asyncio import connect, serve
from aioquic.quic.configuration import QuicConfiguration

_ALPN = ["bench"]
# Its server writes its flight into a buffer of this many bytes at once, and ends with an exception at a longer one.
setattr(aioquic.quic.connection, "CRYPTO_BUFFER_SIZE", 1 << 17)  # noqa: B010  (a constant, to mypy)


_closing: set[asyncio.Task[bool | None]] = set()


async def _lines() -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _serve(spec: dict[str, Any]) -> None:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=_ALPN)
    configuration.load_cert_chain(spec["certificate"], spec["key"])
    server = await serve(spec["host"], spec["port"], configuration=configuration)
    print("ready", flush=True)
    await (await _lines()).read()
    server.close()


async def _one(order: dict[str, Any]) -> dict[str, Any]:
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=_ALPN,
        server_name=order["server_name"],
        cafile=order["ca_file"],
        verify_mode=ssl.CERT_REQUIRED,
    )
    begin = time.perf_counter()
    connecting = connect(order["host"], order["port"], configuration=configuration)
    try:
        async with asyncio.timeout(order["timeout"]):
            await connecting.__aenter__()
            taken = time.perf_counter() - begin
    except (TimeoutError, ConnectionError, OSError) as failure:
        return {"ok": False, "failure": f"{type(failure).__name__}: {failure}"}
    # It drains for three probe time-outs (RFC 9000, section 10.2): not in the way of the next one.
    closing = asyncio.create_task(connecting.__aexit__(None, None, None))
    _closing.add(closing)
    closing.add_done_callback(_closing.discard)
    return {"ok": True, "ready_ms": taken * 1000}


async def _ask() -> None:
    reader = await _lines()
    gc.collect()
    gc.freeze()
    while line := await reader.readline():
        print(json.dumps(await _one(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[2])) if sys.argv[1] == "serve" else _ask())
