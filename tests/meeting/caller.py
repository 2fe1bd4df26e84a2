# SPDX-License-Identifier: Apache-2.0
"""A program that meets its peer through this host's daemon, says its name and prints what it hears and the report.

caller.py '{"server": [address, port] or null, "peer": [address, port], "bind": [address, port], "say": "...", ...}'
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from typing import Any

import accord
from accord.lab.introducer import introduce


async def main(wish: dict[str, Any]) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(tuple(wish["bind"]))
    peer = tuple(wish.get("peer") or ())
    mapped = None
    if wish.get("server"):
        mapped, peer = introduce(sock, tuple(wish["server"]), wish["name"])
    begin = time.monotonic()
    try:
        conn = await accord.rendezvous(
            sock,
            [peer],
            wish["name"],
            policy=wish.get("policy", {}),
            server_name=wish["expects"],
            ca_file=wish["ca"],
            certificate=wish["certificate"],
            private_key=wish["key"],
            seconds=wish.get("seconds", 15),
            ladder=True,
        )
    except accord.AccordError as failure:
        print(json.dumps({"failed": failure.reason.name, "detail": failure.detail, "ladder": failure.trace}))
        return
    ready = time.monotonic() - begin
    await conn.write(wish["say"].encode())
    heard = await conn.read()
    names = None
    if conn.report["stack"] == ["http", "tcp"] and (kernels := conn.carrier.kernel_socket) is not None:
        names = [kernels.getsockname()[:2], kernels.getpeername()[:2]]
    # What the peer has to hear is on its way; the stack is not closed under it.
    await conn.finish()
    while await conn.read():
        pass
    print(json.dumps({**conn.report, "heard": heard.decode(), "seconds": ready, "mapped": mapped, "names": names}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
