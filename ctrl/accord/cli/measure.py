# SPDX-License-Identifier: Apache-2.0
"""One kind of connection, made a number of times from where this process runs; prints one JSON object.

Run by the demo inside the lab's client: ``python -m accord.cli.measure '{"kind": "accord", ...}'``. *Ready* is
the time from the call until application data may be sent with every check passed, *first response* from the
same call until the first byte of the answer is in our hands. Seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import ssl
import sys
import time
from typing import Any

from accord.api import connect


def _result(begin: float, ready: float, first: float, answer: bytes) -> dict[str, Any]:
    body = answer.partition(b"\r\n\r\n")[2]
    return {"ready": ready - begin, "first_response": first - begin, "sha256": hashlib.sha256(body).hexdigest()}


def _connected(host: str, port: int) -> socket.socket:
    tcp = socket.create_connection((host, port))
    # As browsers and curl do: else the request waits for the acknowledgement of the client's Finished.
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tcp


def today(spec: dict[str, Any]) -> dict[str, Any]:
    """TLS 1.3 over TCP by the standard library's ssl, as an ordinary client does it."""
    context = ssl.create_default_context(cafile=spec["ca_file"])
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    begin = time.perf_counter()
    with (
        _connected(spec["host"], spec["port"]) as tcp,
        context.wrap_socket(tcp, server_hostname=spec["server_name"]) as tls,
    ):
        ready = time.perf_counter()
        tls.sendall(spec["request"].encode())
        answer = tls.recv(65536)
        first = time.perf_counter()
        while piece := tls.recv(65536):
            answer += piece
    return {**_result(begin, ready, first, answer), "stack": ["http", "tls", "tcp"]}


async def accord(spec: dict[str, Any], *, ladder: bool) -> dict[str, Any]:
    """The same through the daemon of this host."""
    request = spec["request"].encode()
    early = request if spec["policy"].get("early") == "idempotent" else b""
    host = f"[{spec['host']}]" if ":" in spec["host"] else spec["host"]
    begin = time.perf_counter()
    async with connect(
        f"{host}:{spec['port']}",
        spec["policy"],
        early=early,
        server_name=spec["server_name"],
        ca_file=spec["ca_file"],
        ladder=ladder,
        control=spec["control"],
    ) as association:
        ready = time.perf_counter()
        if not early:
            await association.write(request)
        answer = await association.read()
        first = time.perf_counter()
        answer += await association.read_all()
        return {**_result(begin, ready, first, answer), "stack": association.stack, "report": association.report}


async def repeat(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """As often as asked, in one process and one event loop, as an application would."""
    runs = []
    for number in range(spec["repeats"]):
        if spec["kind"] == "today":
            runs.append(today(spec))
        else:
            runs.append(await accord(spec, ladder=spec["ladder"] and number == spec["repeats"] - 1))
        await asyncio.sleep(spec["pause"])
    return runs


def main() -> None:
    """Entry point."""
    print(json.dumps(asyncio.run(repeat(json.loads(sys.argv[1])))))


if __name__ == "__main__":
    main()
