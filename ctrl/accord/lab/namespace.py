# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: make, enter, run in, end what runs in, remove.

Only the network is switched (setns(2) with CLONE_NEWNET), never the mounts: unlike ``ip netns exec``, which
mounts a fresh /sys and so hides the BPF file system. A namespace has a handle in /run/netns, where ``ip netns``
finds it too. Linux keeps the network namespace per thread, and a new process gets that of the thread that
made it: so whatever has to happen inside happens in a thread of its own, and nothing else of this process
notices.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import netns

from accord.wire.constants import Reason
from accord.wire.errors import HostError, UserError

T = TypeVar("T")

HANDLES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000  # sched.h
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")


def in_thread(function: Callable[[], T]) -> T:
    """What ``function`` returns or raises, from a thread made for it: its namespace changes end with it."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(function())
        except BaseException as raised:
            failure.append(raised)

    thread = threading.Thread(target=body, name="accord-lab-namespace")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def create(name: str) -> None:
    """Make the namespace and its handle. Raises ``HostError`` (no privilege) or ``FileExistsError``."""

    def body() -> None:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        netns.attach(name, "thread-self")

    try:
        in_thread(body)
    except PermissionError as refused:
        raise HostError(
            Reason.NO_PRIVILEGE, f"making a network namespace: {refused.strerror}", "run it as root, with sudo"
        ) from refused


def remove(name: str) -> None:
    """Take the handle away; the namespace goes with its last process and socket. Missing is no error."""
    handle = HANDLES / name
    with contextlib.suppress(OSError):
        _libc.umount2(os.fsencode(handle), 2)  # MNT_DETACH
        handle.unlink()


def exists(name: str) -> bool:
    """Whether there is a handle of that name."""
    return (HANDLES / name).exists()


def identity(name: str) -> tuple[int, int] | None:
    """Device and inode that tell a namespace from all others; None if there is none of that name."""
    try:
        found = os.stat(HANDLES / name)
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def processes(identities: Collection[tuple[int, int]]) -> list[int]:
    """Process IDs of everything that runs in these namespaces, but for this process itself."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            there = os.stat(f"/proc/{entry}/ns/net")
            if (there.st_dev, there.st_ino) in identities:
                found.append(int(entry))
    return found


def end_processes(names: Sequence[str], patience: float = 2.0) -> None:
    """Ask all that run in these namespaces to end (SIGTERM); kill what still runs after ``patience`` seconds."""
    identities = {known for name in names if (known := identity(name)) is not None}
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not _signal_all(identities, number, patience):
            return


def _signal_all(identities: Collection[tuple[int, int]], number: signal.Signals, patience: float) -> bool:
    """Signal each and wait for their end. Whether any is left."""
    handles: list[int] = []
    poll = select.poll()
    for pid in processes(identities):
        # A process ID may be reused at any moment; a pidfd taken first and checked afterwards cannot be.
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            handles.append(handle)
            there = os.stat(f"/proc/{pid}/ns/net")
            if (there.st_dev, there.st_ino) in identities:
                signal.pidfd_send_signal(handle, number)
                poll.register(handle, select.POLLIN)
                continue
    waiting = len(handles)
    deadline = time.monotonic() + patience
    while waiting and (left := deadline - time.monotonic()) > 0:
        for handle, _ in poll.poll(left * 1000):
            poll.unregister(handle)
            waiting -= 1
    for handle in handles:
        os.close(handle)
    return bool(processes(identities))


@dataclass(frozen=True, slots=True)
class Namespace:
    """One host of a lab, or the link between the two."""

    name: str
    """As ``ip netns`` knows it."""
    interface: str
    """Of a host: its one interface. Of the link: ``any``."""
    address4: str = ""
    """Without prefix length; empty in the link, which has none."""
    address6: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the processes in it find in their environment beside that of this process."""

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Put the calling *thread* into the namespace, and back at the end.

        Sockets belong to the namespace that they were made in, for ever. In an event loop do not keep it
        over an ``await``: every task of the thread is inside.
        """
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._switch()
            try:
                yield
            finally:
                _check(_libc.setns(before, _CLONE_NEWNET), "setns")
        finally:
            os.close(before)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """What ``function(*arguments)`` returns or raises, called inside, in a thread of its own."""

        def body() -> T:
            self._switch()
            return function(*arguments)

        return in_thread(body)

    def popen(self, argv: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.Popen[Any]:
        """``subprocess.Popen`` inside, with ``environment`` added. The process ends with the lab."""
        options["env"] = {**(os.environ if options.get("env") is None else options["env"]), **self.environment}
        with self.enter():
            return subprocess.Popen(argv, **options)

    def run(self, argv: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.CompletedProcess[Any]:
        """``subprocess.run`` inside, with ``environment`` added."""
        options["env"] = {**(os.environ if options.get("env") is None else options["env"]), **self.environment}
        with self.enter():
            return subprocess.run(argv, check=options.pop("check", False), **options)

    def _switch(self) -> None:
        try:
            handle = os.open(HANDLES / self.name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UserError(
                Reason.BAD_CONFIG, f"there is no namespace {self.name}", "make the lab with: accord lab up"
            ) from None
        try:
            _check(_libc.setns(handle, _CLONE_NEWNET), "setns")
        finally:
            os.close(handle)
