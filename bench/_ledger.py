# SPDX-License-Identifier: Apache-2.0
"""A service that counts how often it saw each request, and its client's side.

A request is an ID of 16 bytes, a length (4 bytes, big-endian) and so many bytes; the answer is the ID and the SHA-256
of the bytes. A connection carries any number of them, one after the other.

_ledger.py SPEC     serves where SPEC says, a JSON list of {"address", "port"} with "certificate" and "key" for TLS;
                    prints "ready"; for each line of its standard input prints what it has counted; ends with the input
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import ssl
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

ID_BYTES = 16
ANSWER_BYTES = ID_BYTES + 32
_HEADER = struct.Struct(f"!{ID_BYTES}sI")
_MOST = 1 << 20


def request(size: int, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> tuple[bytes, bytes]:
    """A request with so many random bytes, and the answer that is right.

    Its first byte is a letter: a port that serves bare TCP and TLS takes a first byte of 22 for a TLS record.
    """
    identity = b"Q" + random_bytes(ID_BYTES - 1)
    payload = random_bytes(size)
    return _HEADER.pack(identity, size) + payload, identity + hashlib.sha256(payload).digest()


async def ask(
    write: Callable[[bytes], Awaitable[None]],
    read: Callable[[], Awaitable[bytes]],
    size: int,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> None:
    """One request and its answer. Raises ``ValueError`` when the answer is wrong or ends too soon."""
    sent, expected = request(size, random_bytes)
    await write(sent)
    answer = b""
    while len(answer) < ANSWER_BYTES and (piece := await read()):
        answer += piece
    if answer != expected:
        raise ValueError(f"{len(answer)} bytes came back, and not the right answer")


class Ledger:
    """What was seen."""

    def __init__(self) -> None:
        self.seen: Counter[bytes] = Counter()
        self.broken = 0
        """Connections that ended within a request."""
        self.foreign = 0
        """Requests longer than any of ours, so no requests of ours."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.suppress(OSError, ssl.SSLError):
            try:
                while True:
                    identity, size = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                    if size > _MOST:
                        self.foreign += 1
                        break
                    payload = await reader.readexactly(size)
                    self.seen[identity] += 1
                    writer.write(identity + hashlib.sha256(payload).digest())
                    await writer.drain()
            except asyncio.IncompleteReadError as end:
                self.broken += bool(end.partial)
            writer.close()
            await writer.wait_closed()

    def report(self) -> dict[str, Any]:
        """For JSON."""
        doubled = {identity.hex(): count for identity, count in self.seen.items() if count > 1}
        return {
            "requests": self.seen.total(),
            "different": len(self.seen),
            "doubled": doubled,
            "broken": self.broken,
            "foreign": self.foreign,
        }


async def _main(spec: list[dict[str, Any]]) -> None:
    ledger = Ledger()
    servers = []
    for each in spec:
        context = None
        if "certificate" in each:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(each["certificate"], each["key"])
        # A peer that says nothing during its handshake is given up after a while; the others are not kept waiting.
        extra: dict[str, Any] = {} if context is None else {"ssl": context, "ssl_handshake_timeout": 30}
        servers.append(await asyncio.start_server(ledger.serve, each["address"], each["port"], backlog=1024, **extra))
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(json.dumps(ledger.report()), flush=True)
    for server in servers:
        server.close()


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
