# SPDX-License-Identifier: Apache-2.0
"""Keeps the memory of peers in a file: read when the daemon starts, written now and then and when it ends.

Never in the way of a packet: between two writings are minutes, the text is made a few peers at a time, and the disk is
waited for by a thread. What cannot be read is as if it were not there; what cannot be written is told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from accord.controller.peers.memory import Peers
from accord.controller.peers.state_file import MAX_BYTES, StateFile, state_file
from accord.controller.peers.text import encode, parse
from accord.wire.errors import AccordError

log = logging.getLogger("accord.peers")

WRITE_SECONDS: Final = 300.0
"""What a daemon that is killed may forget; and no disk minds being written to as seldom as that."""
_AT_ONCE: Final = 32
"""Peers between two turns of the event loop: less than a millisecond."""


class PeersKeeper:
    """``path`` None: nothing is kept. Lives on the running event loop from ``start`` to ``close``."""

    def __init__(self, peers: Peers, path: Path | None) -> None:
        self._peers = peers
        self._file: StateFile | None = None if path is None else state_file(path)
        self._written = 0
        """``Peers.changes`` of what the file holds."""
        self._complained = False
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Take over what the file holds."""
        if self._file is None:
            return
        try:
            descriptor = self._file.open()
        except AccordError as refusal:
            log.warning("the memory of peers begins empty: %s", refusal)
            return
        if descriptor is not None:
            with contextlib.closing(os.fdopen(descriptor, "rb")) as file:
                if self.take(file.fileno(), str(self._file.path)):
                    self._written = self._peers.changes

    def take(self, descriptor: int, name: str) -> bool:
        """Take over what an open file holds, which the caller closes; False when that is none of ours."""
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
                raise ValueError(f"no file of at most {MAX_BYTES} bytes")
            text = os.pread(descriptor, status.st_size, 0)
            found = parse(text, self._peers.clock(), time.time())
        except (OSError, ValueError) as wrong:
            log.warning("the memory of peers begins empty: %s: %s", name, wrong)
            return False
        for key, entry in found:
            self._peers.restore(key, entry)
        return True

    def start(self) -> None:
        """Write from time to time."""
        if self._file is not None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def write(self) -> None:
        """Write what has changed since the last time."""
        async with self._writing:
            file = self._file
            if file is None or self._peers.changes == self._written:
                return
            changes = self._peers.changes
            lines: list[str] = []
            for line in self._lines():
                lines.append(line)
                if len(lines) % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            try:
                await asyncio.to_thread(_fill, file.begin(), "".join(lines).encode())
                if self._file is file:  # else released meanwhile
                    file.finish()
            except (AccordError, OSError) as refusal:
                self._complain(refusal)
            else:
                self._written, self._complained = changes, False

    def text(self) -> bytes:
        """All of it, at once, for another daemon."""
        return "".join(self._lines()).encode()

    def release(self) -> None:
        """The file is another daemon's from now on."""
        self._stop()
        self._file = None

    def close(self) -> None:
        """Write a last time; the loop need not turn any more."""
        self._stop()
        self._peers.sweep()
        if self._file is None or self._peers.changes == self._written:
            return
        try:
            _fill(self._file.begin(), self.text())
            self._file.finish()
        except (AccordError, OSError) as refusal:
            self._complain(refusal)
        self._file = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.write()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _lines(self) -> Iterator[str]:
        """An entry that changes meanwhile is written as it is by then, and again the next time; what is over is left
        out by the reader."""
        return encode(self._peers.entries(), self._peers.clock(), time.time())

    def _complain(self, refusal: Exception) -> None:
        if not self._complained:
            log.warning("the memory of peers is not kept: %s", refusal)
        self._complained = True


def _fill(descriptor: int, text: bytes) -> None:
    """Write, wait for the disk, close."""
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
