# SPDX-License-Identifier: Apache-2.0
"""Directories for one run of a command. What was killed cannot remove its own: the next one does."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "accord-scratch-"
_NEW_SECONDS = 10.0
"""One younger than this may just be made, and not locked yet."""


@contextlib.contextmanager
def scratch(what: str) -> Iterator[Path]:
    """An empty directory ``accord-scratch-WHAT-*`` under ``$TMPDIR``, removed at the end with all that is in it.

    It is locked as long as this process lives (flock(2) on the directory itself: the kernel gives it up however the
    process ends, and a process of another PID namespace sees it too). Those that nobody has locked are removed first.
    """
    sweep()
    place = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{what}-"))
    lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(lock)


def sweep() -> None:
    """Remove what dead processes of this user have left."""
    for place in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another one sweeps as well
            lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                status = os.fstat(lock)
                if status.st_uid != os.geteuid() or time.time() - status.st_ctime < _NEW_SECONDS:
                    continue
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place)
            finally:
                os.close(lock)
