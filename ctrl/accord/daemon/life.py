# SPDX-License-Identifier: Apache-2.0
"""Signs of life: whoever watches over the daemon learns that its event loop turns, and that it no longer does.

Two may watch: the service manager (``notify``) and our own ``supervisor``. Both want the same three messages, ready,
alive and stopping. A loop that stands still says nothing, and is ended from outside; one whose callbacks do nothing
but fail says so itself: it ends the daemon, and whoever watches starts a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from accord.daemon.notify import notify, watchdog_seconds

log = logging.getLogger("accord.daemon")

READY, ALIVE, STOPPING, SUCCEEDED = b"R", b".", b"S", b"H"
"""What goes to the supervisor."""

BEAT_SECONDS = 0.5
_STORM_FAILURES = 100
_STORM_SECONDS = 10.0
"""One negotiation's failure is caught where it happens and does not count. What counts are the loop's own callbacks
(receive, timers, the link): a peer cannot make those fail, and a hundred in ten seconds means that they all do."""


class Life:
    """Made on the running loop. ``supervisor`` is the socket to it, if there is one; ``end`` stops the daemon."""

    def __init__(self, supervisor: socket.socket | None, end: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._supervisor = supervisor
        self._silent = False
        self._end = end
        self._failures: deque[float] = deque(maxlen=_STORM_FAILURES)
        manager = watchdog_seconds()
        self._interval = BEAT_SECONDS if manager is None else min(BEAT_SECONDS, manager / 3)
        self._timer: asyncio.TimerHandle | None = None
        self._loop.set_exception_handler(self._failed)
        if supervisor is not None:
            supervisor.setblocking(False)
            self._loop.add_reader(supervisor.fileno(), self._supervisor_gone)

    def ready(self) -> None:
        """The daemon serves."""
        self._tell(READY, f"MAINPID={os.getpid()}", "READY=1")
        self._beat()

    def stopping(self) -> None:
        """The daemon ends, because it was told to or must."""
        self._tell(STOPPING, "STOPPING=1")

    def succeeded(self) -> None:
        """Another daemon has taken over: it speaks to the service manager now, and nobody needs to start us again."""
        self._tell(SUCCEEDED)
        self._silent = True

    def close(self) -> None:
        """No more signs."""
        if self._timer is not None:
            self._timer.cancel()
        if self._supervisor is not None:
            self._loop.remove_reader(self._supervisor.fileno())
            self._supervisor.close()
            self._supervisor = None

    def _beat(self) -> None:
        self._tell(ALIVE, "WATCHDOG=1")
        self._timer = self._loop.call_later(self._interval, self._beat)

    def _tell(self, word: bytes, *lines: str) -> None:
        if self._supervisor is None:
            if not self._silent:
                notify(*lines)
            return
        with contextlib.suppress(OSError):  # full: it has signs enough
            self._supervisor.send(word, socket.MSG_NOSIGNAL)

    def _supervisor_gone(self) -> None:
        """It never says anything: what can be read is its end, and nobody would start us again."""
        assert self._supervisor is not None
        self._loop.remove_reader(self._supervisor.fileno())
        self._end("the supervisor is gone")

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        if "handle" not in context:  # a task or a future: one negotiation or one client
            return
        now = loop.time()
        self._failures.append(now)
        if len(self._failures) == _STORM_FAILURES and now - self._failures[0] < _STORM_SECONDS:
            self._failures.clear()
            self._end(f"{_STORM_FAILURES} failures of the event loop in {_STORM_SECONDS:g} s, the last above")
