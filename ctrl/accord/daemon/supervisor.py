# SPDX-License-Identifier: Apache-2.0
"""``accord daemon --supervise``: a small parent that starts the daemon again, at once, however it ended.

Most of a start is Python reading modules. The supervisor has read them when it forks the daemon, so a new one serves
a few ten milliseconds after the old one died. While a daemon runs, the XDP program for the next one is loaded and
waits, since the kernel's verifier is most of the rest. The supervisor itself hears nothing from any network.

| the daemon                                    | the supervisor                                               |
|-----------------------------------------------|--------------------------------------------------------------|
| cannot start, the first time                  | ends with the same exit code: a mistake stays visible        |
| ends with 0, or after SIGTERM or SIGINT to us | ends                                                         |
| was killed, failed, ended in a storm          | starts a new one; with a pause if it had lived for a moment  |
| was taken over from by another               | ends with it, however it ends                                |
| gives no sign of life for ``watchdog`` seconds| kills it, starts a new one                                   |

SIGHUP goes on to the daemon; SIGUSR2 starts what is installed now, which takes over from both of us.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from accord.daemon.life import BEAT_SECONDS, READY, STOPPING, SUCCEEDED
from accord.daemon.notify import notify
from accord.daemon.successor import start_successor
from accord.datapath.port import Spare

log = logging.getLogger("accord.supervisor")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)
_SHORT_LIFE = 0.5
"""Seconds: a daemon that dies sooner after it was ready would die again, so the next one waits."""
_FIRST_PAUSE, _MAX_PAUSE = 0.1, 5.0
_STOP_SECONDS = 10.0
"""For a daemon to end that was told to."""
_LOST = 70
"""EX_SOFTWARE of sysexits.h: what a daemon that was killed counts as."""


class Supervisor:
    """``run`` is the daemon: called in the child with the socket for its signs of life and what was loaded for it,
    returns its exit code."""

    def __init__(
        self,
        run: Callable[[socket.socket, Spare | None], int],
        watchdog: float,
        load: Callable[[], Spare | None] = lambda: None,
    ) -> None:
        """``load`` makes what every daemon needs one of and a child finds after the fork."""
        self._run = run
        self._load = load
        self._spare: Spare | None = None
        self._watchdog = watchdog
        self._wake, self._woken = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._asked = False
        self._pause = 0.0
        self._was_ready = False
        self._succeeded = False
        self._successor: subprocess.Popen[bytes] | None = None

    def supervise(self) -> int:
        """Until there is nothing more to supervise; the exit code."""
        gc.collect()
        gc.freeze()  # so that no child copies a page only to count references in it
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        while True:
            code = self._one_life()
            if code is not None:
                self._notify("STOPPING=1")
                return code
            if self._pause:
                log.warning("a new one starts in %g s", self._pause)
                if self._wait_for_the_end(self._pause):
                    return 0

    def _wait_for_the_end(self, seconds: float) -> bool:
        """Pause, unless somebody asks us to end."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._woken], [], [], left)[0] and self._signals() & {signal.SIGTERM, signal.SIGINT}:
                return True
        return False

    def _notify(self, line: str) -> None:
        """The service manager listens to a successor, once there is one."""
        if not self._succeeded:
            notify(line)

    def _signals(self) -> set[int]:
        with contextlib.suppress(BlockingIOError):
            return set(self._woken.recv(4096))
        return set()

    def _one_life(self) -> int | None:
        """Fork a daemon and watch it to its end: the exit code to end with, None to start another."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._child(theirs)
        theirs.close()
        ours.setblocking(False)
        self._unload()
        ready_at: float | None = None
        last_sign = time.monotonic()
        ending: float | None = None
        with ours:
            while True:
                select.select([self._woken, ours], [], [], BEAT_SECONDS)
                now = time.monotonic()
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    words = ours.recv(4096)
                    if SUCCEEDED in words:
                        self._succeeded = True
                    if words:
                        last_sign = now
                        self._notify("WATCHDOG=1")
                    if READY in words and ready_at is None:
                        ready_at, self._was_ready = now, True
                        notify(f"MAINPID={os.getpid()}", "READY=1", f"STATUS=daemon {pid} serves")
                        self._spare = self._load()
                    if STOPPING in words and ending is None:
                        ending = now
                    if not words:
                        select.select([self._woken], [], [], BEAT_SECONDS)  # it ends: SIGCHLD comes next
                for number in self._signals() - {signal.SIGCHLD}:
                    if number == signal.SIGUSR2:
                        self._successor = start_successor()
                        continue
                    if number != signal.SIGHUP:
                        self._asked, ending = True, now
                    os.kill(pid, number)
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    return self._ended(pid, os.waitstatus_to_exitcode(status), ready_at)
                if ending is not None and now > ending + _STOP_SECONDS:
                    log.error("the daemon (pid %d) does not stop: killed", pid)
                    os.kill(pid, signal.SIGKILL)
                elif self._watchdog and ready_at is not None and now > last_sign + self._watchdog:
                    log.error("the daemon (pid %d) gave no sign of life for %g s: killed", pid, self._watchdog)
                    os.kill(pid, signal.SIGKILL)
                    last_sign = now

    def _unload(self) -> None:
        """The child has it."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def _ended(self, pid: int, code: int, ready_at: float | None) -> int | None:
        if code == 0 or self._asked or self._succeeded or (not self._was_ready and code > 0):
            return max(code, 0)
        what = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
        if ready_at is not None and time.monotonic() > ready_at + _SHORT_LIFE:
            self._pause = 0.0
        else:
            self._pause = min(_MAX_PAUSE, 2 * self._pause or _FIRST_PAUSE)
        log.error("the daemon (pid %d) %s", pid, what)
        notify(f"STATUS=daemon {pid} {what}; starting another")
        return None

    def _child(self, life: socket.socket) -> NoReturn:
        """Never returns into the supervisor's own frames: whatever happens, the process ends here."""
        code = _LOST
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._wake.close()
            self._woken.close()
            code = self._run(life, self._spare)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
