# SPDX-License-Identifier: Apache-2.0
"""A file that outlasts the daemon: read whole, replaced whole, by a process that may write where it lies.

The process with the privileges opens, and renames; the other one reads and writes what it is handed. So neither does
the first ever see the contents, nor does the second name a path.
"""

from __future__ import annotations

import contextlib
import enum
import os
from pathlib import Path
from typing import Final

from accord.datapath import privilege
from accord.datapath.privilege import Ask
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

MAX_BYTES: Final = 16 << 20
_NEW: Final = ".new"


class Kept(enum.IntEnum):
    """Which file is meant, to the broker."""

    PEERS = 0
    COOKIES = 1


class StateFile:
    """Raises ``HostError`` (``NO_PRIVILEGE``) where the host does not let us."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._new = path.with_name(path.name + _NEW)
        self._begun = -1
        """Held open, so that no other file can have its inode."""

    def open(self) -> int | None:
        """A descriptor of what there is, to be read; None when there is none."""
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as refusal:
            raise self._failure(self.path, refusal) from refusal

    def begin(self) -> int:
        """A descriptor to write all of the new contents to; nobody else may read them."""
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._new.unlink(missing_ok=True)  # of a daemon that was killed
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._let_go()
            self._begun = os.open(self._new, flags, 0o600)
            return os.dup(self._begun)
        except OSError as refusal:
            raise self._failure(self._new, refusal) from refusal

    def finish(self) -> None:
        """What was written since ``begin`` takes the old contents' place: at any time there is one or the other."""
        try:
            status = self._new.stat(follow_symlinks=False)
            if self._begun < 0 or not os.path.samestat(status, os.fstat(self._begun)):
                raise error(Reason.NO_PRIVILEGE, f"{self._new} is another process's", "one daemon to each [peers] file")
            if status.st_size > MAX_BYTES:
                with contextlib.suppress(OSError):
                    self._new.unlink()
                raise error(Reason.NO_PRIVILEGE, f"{self.path}: more than {MAX_BYTES} bytes", "lower [peers] limit")
            self._new.replace(self.path)
        except OSError as refusal:
            raise self._failure(self.path, refusal) from refusal
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._begun >= 0:
            os.close(self._begun)
        self._begun = -1

    @staticmethod
    def _failure(path: Path, refusal: OSError) -> AccordError:
        return error(Reason.NO_PRIVILEGE, f"{path}: {refusal.strerror}", "[peers] file names a place for it")


class BrokersFile(StateFile):
    """The same, asked of the broker, who knows by the configuration which file it is."""

    def __init__(self, path: Path, kept: Kept) -> None:
        super().__init__(path)
        self._kept = kept

    def open(self) -> int | None:
        """As ``StateFile.open``."""
        _, fds = privilege.ask(Ask.STATE, self._kept)
        return fds[0] if fds else None

    def begin(self) -> int:
        """As ``StateFile.begin``."""
        return privilege.ask(Ask.NEW_STATE, self._kept)[1][0]

    def finish(self) -> None:
        """As ``StateFile.finish``."""
        privilege.ask(Ask.STATE_WRITTEN, self._kept)


def state_file(path: Path, kept: Kept = Kept.PEERS) -> StateFile:
    """By whichever process can."""
    return BrokersFile(path, kept) if privilege.asks() else StateFile(path)
