# SPDX-License-Identifier: Apache-2.0
"""A bound to the memory of the process that runs plug-ins: who asks for too much meets MemoryError, not the host's OOM
killer, which would take the daemon (setrlimit(2), RLIMIT_DATA: private writable memory, since Linux 4.7). And a
reserve: what many negotiations at once need is taken in one piece when first there are many, and kept."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

log = logging.getLogger("accord.daemon")

_MIB: Final = 1 << 20
_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_NEVER: Final = (1 << 31) - 1
_MANY: Final = 32
"""Negotiations that somebody has something to do with, at once: quiet hosts never have as many."""
_MOST: Final = 512
"""For which there is a reserve, however many the engine has places for: as many as it has by default."""
_HEAP_BYTES: Final = 64 << 10
_OBJECT_BYTES: Final = 40 << 10
"""Of one that waits for its commit, with TLS: 51 and 28 KiB were seen of libc's heap and of Python's, and what is not
whole pieces as they come and go."""
_BLOCK: Final = 32 << 10
"""Below what malloc would take from the kernel each by itself."""
_SMALL: Final = 440
"""Bytes of an object that Python's own allocator has: up to 512 with its head."""
_PIN_EVERY: Final = 512
"""One object in each quarter of its arenas' mebibyte: an arena is given back when nothing is left in it."""


def taken() -> int:
    """Bytes that count, as the kernel has it now (proc(5), VmData)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmData:"))


@contextlib.contextmanager
def limited(mib: int) -> Iterator[None]:
    """This process may take so much more than it has, for as long as this lasts; 0: as much as the host allows.

    The engine and the rings have theirs by then: what grows later is associations, and plug-ins.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if mib:
        _, hard = before
        soft = taken() + mib * _MIB
        try:
            resource.setrlimit(resource.RLIMIT_DATA, (soft if hard < 0 else min(soft, hard), hard))
        except (ValueError, OSError) as refusal:
            log.warning("no limit to the memory of plug-ins: %s", refusal)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, before)


def limit() -> int:
    """In force, bytes; 0: none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return max(0, soft)


class Reserve:
    """Memory of one daemon for the negotiations that its engine admits from peers who have not committed."""

    def __init__(self, places: int) -> None:
        """For so many, if they are not more than anybody has."""
        self._places = min(places, _MOST)
        self._pins: list[bytes] = []

    @property
    def taken(self) -> bool:
        """It is there."""
        return bool(self._pins)

    def look(self, in_flight: int) -> None:
        """There are so many now: once they are many, the reserve is taken."""
        if in_flight < _MANY or self.taken:
            return
        with contextlib.suppress(AttributeError):  # another libc, which goes its own way
            ctypes.CDLL(None).mallopt(_M_TRIM_THRESHOLD, _NEVER)
        self._pins = [b""]
        with contextlib.suppress(MemoryError):
            heap = [b"\1" * _BLOCK for _ in range(self._places * _HEAP_BYTES // _BLOCK)]
            small = [bytes(_SMALL) for _ in range(self._places * _OBJECT_BYTES // _SMALL)]
            self._pins = small[::_PIN_EVERY]
            del heap, small
