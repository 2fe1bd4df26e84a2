# SPDX-License-Identifier: Apache-2.0
"""An asyncio event loop that never sleeps: when nothing is left to do, it is at once when the next timer is due.

Callbacks run in the context (``contextvars``) in which they were asked for, so everything that a host's code asks for
runs as that host. What a crashed host had asked for is called off with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import heapq
from collections.abc import Callable, Coroutine
from typing import Any, Final

INCARNATION: Final[contextvars.ContextVar[Any]] = contextvars.ContextVar("incarnation", default=None)
"""The life of a host in which code runs: an object, compared by identity. None: the simulator's own."""

CALLED: Final[contextvars.ContextVar[Any]] = contextvars.ContextVar("called", default=None)
"""The call of ``connect`` that an application's task makes: a ``record.Called``."""


MOST_AT_ONCE: Final = 10_000
"""Events at one moment: turns of the loop and packets sent. Two dozen calls at once take a few hundred."""
MOST_TURNS: Final = 500_000
"""Of a whole run, which takes a few thousand."""
_NAMED: Final = 20
"""Turns at whose beginning what is to be done is noted, before a run is given up."""


class Standstill(BaseException):
    """The run would never end: what happens asks for more, again and again, and virtual time does not go on, or hardly.

    No code under test deals with it, hence no ``Exception``. What never returns to the loop and sends nothing, as
    ``while True: pass``, goes unnoticed.
    """


class _NoSleep:
    """In the place of the selector: time passes, nothing else happens."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        """Let ``timeout`` seconds pass."""
        if timeout is None:
            raise Standstill("nothing is left to happen, and somebody still waits")
        self._loop.pass_time(timeout)
        return []


class _Handle(asyncio.Handle):
    """A callback that waits while the life that it belongs to stands still."""

    __slots__ = ()

    def _run(self) -> None:
        if not self._loop.holds(self):  # type: ignore[attr-defined]
            super()._run()


class _Timer(asyncio.TimerHandle):
    """As ``_Handle``."""

    __slots__ = ()

    def _run(self) -> None:
        if not self._loop.holds(self):  # type: ignore[attr-defined]
            super()._run()


class VirtualLoop(asyncio.BaseEventLoop):
    """Readers and writers are callbacks by simulated descriptor: ``ready_to_read`` and ``ready_to_write`` call them."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _NoSleep(self)
        self._microseconds = 0
        self._due = 0.0
        self._readers: dict[int, asyncio.Handle] = {}
        self._writers: dict[int, asyncio.Handle] = {}
        self._tasks: list[tuple[asyncio.Task[Any], Coroutine[Any, Any, Any], contextvars.Context]] = []
        self._still: dict[Any, list[asyncio.Handle]] = {}
        """Lives that stand still, and what they would have done meanwhile."""
        self.failures: list[str] = []
        """What would have been logged: exceptions that nobody caught."""
        self.steps = 0
        self._at_once = 0
        self._standstill: Standstill | None = None
        self._latest: set[str] = set()
        self._clock_resolution = 1e-6
        self.set_exception_handler(self._failed)
        self.set_task_factory(self._make_task)  # type: ignore[arg-type]

    # ---- time ----

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._microseconds / 1_000_000

    @property
    def now_us(self) -> int:
        """The same, in microseconds."""
        return self._microseconds

    def pass_time(self, seconds: float) -> None:
        """Up to the next microsecond, so that whoever waits for it finds it there. Raises ``Standstill``."""
        if seconds > 0:
            self._microseconds += max(1, -int(-seconds * 1_000_000 // 1))
            self._at_once = 0
        self.steps += 1
        if self._at_once > MOST_AT_ONCE - _NAMED or self.steps > MOST_TURNS - _NAMED:
            self._latest.update(self._next())
        if self.steps > MOST_TURNS:
            self._give_up(f"{MOST_TURNS} turns of the loop in {self.time():.6f} s")
        self.happens()

    def happens(self) -> None:
        """Something does, at this moment. Raises ``Standstill`` when that is too much to come to an end."""
        self._at_once += 1
        if self._at_once > MOST_AT_ONCE:
            self._give_up(f"{MOST_AT_ONCE} events, and it is still {self.time():.6f} s")
        if self._standstill is not None:  # in a callback of the loop it was raised in vain
            raise self._standstill

    def _give_up(self, why: str) -> None:
        names = ", ".join(sorted(self._latest | self._next()))
        self._standstill = self._standstill or Standstill(f"{why}: {names}")
        raise self._standstill

    def _next(self) -> set[str]:
        """What is to happen, without what differs from run to run."""
        handles: list[asyncio.Handle] = [*self._ready, *self._scheduled[:1]]  # type: ignore[attr-defined]
        return {_name_of(handle) for handle in handles if not handle.cancelled()}

    def later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """``call_later`` of the network's and the kernels': it happens whichever daemon is dead by then."""
        return self.call_later(seconds, callback, *args, context=contextvars.Context())

    def _call_soon(self, callback: Any, args: Any, context: Any) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """As any loop's, but that it is held back while its life stands still."""
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def _process_events(self, event_list: list[Any]) -> None:
        """None ever comes."""

    def _write_to_self(self) -> None:
        """There is only one thread."""

    # ---- descriptors ----

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        """``fd``: a simulated socket, or its number."""
        self._watch(self._readers, fd, callback, args)
        connection = _DESCRIPTORS.get(_number(fd))
        if connection is not None and connection.readable:
            self.ready_to_read(_number(fd))

    def remove_reader(self, fd: Any) -> bool:
        """Whether there was one."""
        return self._forget(self._readers, fd)

    def add_writer(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        """As ``add_reader``."""
        self._watch(self._writers, fd, callback, args)
        connection = _DESCRIPTORS.get(_number(fd))
        if connection is not None and connection.writable:
            self.ready_to_write(_number(fd))

    def remove_writer(self, fd: Any) -> bool:
        """Whether there was one."""
        return self._forget(self._writers, fd)

    def ready_to_read(self, number: int) -> None:
        """Call the reader back soon, and again as long as there is something to be read."""
        self.call_soon(self._call, self._readers, number, "readable")

    def ready_to_write(self, number: int) -> None:
        """As ``ready_to_read``."""
        self.call_soon(self._call, self._writers, number, "writable")

    def _call(self, watched: dict[int, asyncio.Handle], number: int, what: str) -> None:
        handle, connection = watched.get(number), _DESCRIPTORS.get(number)
        if handle is None or connection is None or not getattr(connection, what):
            return
        still = self._still.get(handle._context.get(INCARNATION)) if self._still else None  # type: ignore[attr-defined]
        if still is not None:
            still.append(_Handle(self._call, (watched, number, what), self, contextvars.Context()))
            return
        handle._run()
        if watched.get(number) is handle and getattr(connection, what):
            self.call_soon(self._call, watched, number, what)  # level-triggered, as select(2) is

    def _watch(
        self, watched: dict[int, asyncio.Handle], fd: Any, callback: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        number = _number(fd)
        if number not in _DESCRIPTORS:
            raise OSError(errno.EBADF, "no such simulated socket")
        watched[number] = asyncio.Handle(callback, args, self, contextvars.copy_context())

    @staticmethod
    def _forget(watched: dict[int, asyncio.Handle], fd: Any) -> bool:
        handle = watched.pop(_number(fd), None)
        if handle is not None:
            handle.cancel()
        return handle is not None

    # ---- lives ----

    def _make_task(self, loop: Any, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> asyncio.Task[Any]:
        context = kwargs.setdefault("context", contextvars.copy_context())
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **kwargs)
        if len(self._tasks) > 64:
            self._tasks = [kept for kept in self._tasks if not kept[0].done()]
        self._tasks.append((task, coro, context))
        return task

    def stand_still(self, life: object) -> None:
        """SIGSTOP: whatever this life has asked for waits, and so does what it is told, until ``go_on``."""
        self._still.setdefault(life, [])

    def go_on(self, life: object) -> None:
        """SIGCONT: all of it is due now, in its order."""
        self._ready.extend(self._still.pop(life, ()))  # type: ignore[attr-defined]

    def holds(self, handle: asyncio.Handle) -> bool:
        """Whether this has to wait; then it does."""
        still = self._still.get(handle._context.get(INCARNATION)) if self._still else None  # type: ignore[attr-defined]
        if still is not None:
            still.append(handle)
        return still is not None

    def end(self, life: object) -> None:
        """Nothing that this life of a host has asked for happens any more."""
        self._still.pop(life, None)
        waiting = [*self._ready, *self._scheduled, *self._readers.values(), *self._writers.values()]  # type: ignore[attr-defined]
        for handle in waiting:
            if handle._context.get(INCARNATION) is life:
                handle.cancel()

    def dispose(self) -> None:
        """At the very end: let go of coroutines that will never be resumed, without a word. Each ends as the host that
        it runs for, while that is still simulated; what it begins at its end is let go of too."""
        asyncio._set_running_loop(self)
        try:
            self.set_exception_handler(lambda *_: None)
            while self._tasks:
                tasks, self._tasks = self._tasks, []
                for task, coro, context in tasks:
                    if not task.done():
                        task._log_destroy_pending = False  # type: ignore[attr-defined]
                        with contextlib.suppress(BaseException):
                            context.run(coro.close)
        finally:
            asyncio._set_running_loop(None)
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
        self._readers.clear()
        self._writers.clear()
        self.close()

    def _failed(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        failure = context.get("exception")
        if isinstance(failure, Standstill):
            return
        self.failures.append(f"{context.get('message')}: {type(failure).__name__}: {failure}")


def _name_of(handle: asyncio.Handle) -> str:
    """Of its callback, or of the coroutine that a task's step goes on with."""
    callback = handle._callback  # type: ignore[attr-defined]
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        callback = owner.get_coro()
    return str(getattr(callback, "__qualname__", type(callback).__name__))


_DESCRIPTORS: dict[int, Any] = {}
"""Simulated sockets by number: whatever has ``readable`` and ``writable``."""


def register(number: int, connection: Any) -> None:
    """``number`` is a descriptor from now on."""
    _DESCRIPTORS[number] = connection


def unregister(number: int) -> None:
    """It is none any more."""
    _DESCRIPTORS.pop(number, None)


def _number(fd: Any) -> int:
    return fd if isinstance(fd, int) else int(fd.fileno())
