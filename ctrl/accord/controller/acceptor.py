# SPDX-License-Identifier: Apache-2.0
"""Accepts connections, and can stop at any moment without losing one.

A task that waits in ``loop.sock_accept`` and is cancelled drops a connection that was accepted just then. Here a
connection is accepted and handed on in one piece; what has not been accepted stays in the listener's queue, for whoever
has the listener next.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

log = logging.getLogger("accord.acceptor")

_BATCH = 64
"""Of one turn of the event loop."""
_QUEUES = 8
"""Batches: a few times the listener's queue."""
_PAUSE_SECONDS = 0.1
"""Out of descriptors or memory: others may end meanwhile."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """From now on, until ``close``, ``take`` is given each connection, which is its own then. The listener, which does
    not block, stays the caller's."""

    def __init__(self, listener: socket.socket, take: Callable[[socket.socket], None]) -> None:
        self._listener = listener
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        self._read()

    def close(self) -> None:
        """Accept no more; twice does no harm, although the listener may be closed in between."""
        if self._closed:
            return
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener.fileno())

    def empty(self) -> None:
        """Take what waits in the queue now, and what comes meanwhile, in bounds."""
        for _ in range(_QUEUES):
            if self._pause is not None or not self._accept():
                return

    def _read(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> bool:
        """False: nothing is left, or nothing can be taken."""
        for _ in range(_BATCH):
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return False
            except OSError as refusal:
                if refusal.errno in _EXHAUSTED:
                    log.warning("accepting connections: %s", refusal.strerror)
                    self._loop.remove_reader(self._listener.fileno())
                    self._pause = self._loop.call_later(_PAUSE_SECONDS, self._read)
                    return False
                continue  # the client has gone again (accept(2): ECONNABORTED, and errors of its network)
            client.setblocking(False)
            self._take(client)
        return True
