# SPDX-License-Identifier: Apache-2.0
"""Files that another process opened: their contents, under a path that only this process has.

A program that wants a certificate shown, or roots trusted, opens the files itself and passes the descriptors over the
control socket. So the kernel has checked its right to read them, and no path that a program names is ever opened with
the daemon's rights. The contents are copied at once, into memory (memfd_create(2)): the file's owner may truncate it
at any time. Equal contents are one path, by which contexts and prepared proposals are found again.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary, finalize

from accord.protocols.fixed_path import FixedPath
from accord.wire.constants import Reason
from accord.wire.errors import error

_MAX_BYTES: Final = 4 << 20
"""The roots of a whole operating system are a quarter of a megabyte."""
_KEPT: Final = 64
"""So many of the last ones stay although nobody uses them now: who asked will ask again."""


class HeldPath(FixedPath):
    """A path to contents in memory; ``str()`` is what its owner calls the file. Gone with its last user."""

    shown: str

    def __str__(self) -> str:
        return self.shown

    def __fspath__(self) -> str:
        return super().__str__()


_numbers = itertools.count()
_by_contents: WeakValueDictionary[bytes, HeldPath] = WeakValueDictionary()
_kept: OrderedDict[bytes, HeldPath] = OrderedDict()


def hold(descriptor: int, shown: str) -> HeldPath:
    """The contents of an open regular file, which the caller closes. Raises ``UserError`` (``BAD_CONFIG``)."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise error(Reason.BAD_CONFIG, f"{shown}: no file of at most {_MAX_BYTES} bytes", "name a PEM file")
        contents = os.pread(descriptor, status.st_size, 0)
    except OSError as refusal:
        raise error(Reason.BAD_CONFIG, f"{shown}: {refusal.strerror}", "name a readable PEM file") from refusal
    key = hashlib.sha256(shown.encode("utf-8", "surrogateescape") + b"\0" + contents).digest()
    held = _by_contents.get(key) or _make(contents, shown)
    _by_contents[key] = _kept[key] = held
    _kept.move_to_end(key)
    if len(_kept) > _KEPT:
        _kept.popitem(last=False)
    return held


def _make(contents: bytes, shown: str) -> HeldPath:
    descriptor = os.memfd_create("accord")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(contents)
        held = HeldPath(f"/proc/self/fd/{descriptor}")
        held.shown = shown
        held.stamped = os.fspath(held), next(_numbers), 0, len(contents)
    except BaseException:
        os.close(descriptor)
        raise
    finalize(held, os.close, descriptor)
    return held


@contextlib.contextmanager
def opened(paths: Iterable[str | os.PathLike[str] | None]) -> Iterator[list[int]]:
    """The files that a program passes on, those that are not None; closed with the block.

    Raises ``UserError`` (``BAD_CONFIG``) for one that the calling process cannot read.
    """
    descriptors: list[int] = []
    try:
        for path in paths:
            if path is not None:
                descriptors.append(_open(Path(path)))
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as refusal:
        raise error(Reason.BAD_CONFIG, f"{path}: {refusal.strerror}", "name a readable PEM file") from refusal
