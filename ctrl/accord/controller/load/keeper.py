# SPDX-License-Identifier: Apache-2.0
"""Keeps the cookie keys of a daemon: in a file of its own, or read from one that several hosts share.

A key is written before it is used, so that a daemon that is killed takes cookies after its restart that it made before.
What cannot be read or written costs strangers under load another challenge after a restart, and is told once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from accord.controller import files
from accord.controller.load.ring import MAX_TEXT, KeptKey, KeyRing, parse, slot_of
from accord.controller.peers.state_file import StateFile
from accord.datapath.cookies import CookieKey
from accord.wire.errors import AccordError

log = logging.getLogger("accord.load")

_TURN_SECONDS: Final = 1.0
_SHARED_SECONDS: Final = 5.0
"""Between two looks at a shared file: well below the life of a cookie."""

Use = Callable[[Sequence[CookieKey], int], None]


class CookieKeeper:
    """``use`` is given the keys, the present one first, and the time slot, whenever either changes.

    ``own``: the file of this daemon's ring; None: it is not kept. ``shared``: a ring that somebody else makes.
    """

    def __init__(self, ring: KeyRing, use: Use, own: StateFile | None, shared: Path | None = None) -> None:
        self._ring = ring
        self._use = use
        self._own = own
        self._shared = shared
        self._looked = 0.0
        self._slot = -1
        self._complained = False
        self._task: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Begin with what the file holds."""
        if self._shared is None and self._own is not None:
            try:
                descriptor = self._own.open()
                if descriptor is not None:
                    with contextlib.closing(os.fdopen(descriptor, "rb")) as file:
                        self._ring.restore(parse(file.read(MAX_TEXT + 1).decode()))
            except (AccordError, OSError, ValueError) as wrong:
                log.warning("cookie keys begin anew: %s: %s", self._own.path, wrong)
        self.turn()

    def take(self, text: str) -> None:
        """Begin with another daemon's, as ``text`` of it says."""
        try:
            kept = parse(text)
        except ValueError as wrong:
            log.warning("cookie keys begin anew: what the old daemon had: %s", wrong)
            self.load()
        else:
            self._ring.restore(kept)
            self.turn()

    def text(self) -> str:
        """The ring, for another daemon."""
        return self._ring.text()

    def start(self) -> None:
        """Turn the ring from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def share(self, shared: Path | None) -> None:
        """The configuration names this file now."""
        self._shared, self._looked = shared, 0.0
        self.turn()

    def turn(self) -> None:
        """What the time asks for."""
        now = time.time()
        changed = self._look(now) if self._shared is not None else self._ring.turn(now)
        if changed and self._shared is None:
            self._write()
        slot = slot_of(now)
        if changed or slot != self._slot:
            self._slot = slot
            self._use(self._ring.keys, slot)

    def release(self) -> None:
        """The file is another daemon's from now on."""
        self._own = None

    def close(self) -> None:
        """Stop. What is to be kept is written already."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_TURN_SECONDS)
            self.turn()

    def _look(self, now: float) -> bool:
        """At the shared file, now and then: whether it holds other keys. What is wrong with it leaves the old ones."""
        assert self._shared is not None, "asked only of a daemon that shares"
        if 0 <= now - self._looked < _SHARED_SECONDS:
            return False
        self._looked = now
        try:
            kept = [KeptKey(each.key, None) for each in parse(files.readable(self._shared).read_text())]
            if not kept:
                raise ValueError("no key")
        except (AccordError, OSError, ValueError) as wrong:
            self._complain(f"{self._shared}: {wrong}; the keys stay as they are")
            return False
        self._complained = False
        if [each.key for each in kept] == self._ring.keys:
            return False
        self._ring.restore(kept)
        return True

    def _write(self) -> None:
        if self._own is None:
            return
        try:
            with os.fdopen(self._own.begin(), "w") as file:
                file.write(self._ring.text())
                file.flush()
                os.fsync(file.fileno())
            self._own.finish()
        except (AccordError, OSError) as refusal:
            self._complain(f"not kept: {refusal}")
        else:
            self._complained = False

    def _complain(self, what: str) -> None:
        if not self._complained:
            log.warning("cookie keys: %s", what)
        self._complained = True
