# SPDX-License-Identifier: Apache-2.0
"""Names to addresses, without a name server that is silent ever holding this process up.

``loop.getaddrinfo`` asks in a thread of a pool that the interpreter waits for when it ends, and a resolver takes its
time: five seconds and more for each server that does not answer (resolv.conf(5)). A question of our own thread is
forgotten when nobody waits for its answer any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

Addresses = list[tuple[Any, ...]]


async def resolve(host: str, port: int, family: int) -> Addresses:
    """Socket addresses, in the resolver's order. Raises ``socket.gaierror``, ``UnicodeError`` for what is no name."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Addresses] = loop.create_future()

    def settle(found: Addresses | None, failure: Exception | None) -> None:
        if answer.done():
            return
        if failure is not None:
            answer.set_exception(failure)
        else:
            answer.set_result(found or [])

    def ask() -> None:
        found: Addresses | None = None
        failure: Exception | None = None
        try:
            found = [entry[4] for entry in socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)]
        except Exception as refusal:  # whoever asked is told, whatever it is
            failure = refusal
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, found, failure)

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    return await answer
