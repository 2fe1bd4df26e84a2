# SPDX-License-Identifier: Apache-2.0
"""What is up to date: a stamp holds the hash of all that a product was made from.

Contents, not times: a checkout, a copy or a branch switched there and back changes times and nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Iterable, Iterator

from buildtools.console import BUILD, ROOT, say


def files(*patterns: str) -> list[Path]:
    """The project's files that match, in a fixed order."""
    return sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()})


def digest(paths: Iterable[Path], *extra: str) -> str:
    """SHA-256 over names, contents and further strings, hexadecimal."""
    total = hashlib.sha256()
    for text in extra:
        total.update(f"{len(text)}:{text}".encode())
    for path in paths:
        content = path.read_bytes()
        total.update(f"{path.relative_to(ROOT)}:{len(content)}:".encode())
        total.update(content)
    return total.hexdigest()


class Stamp:
    """One product: its stamp file, the hash of what it is made from, the files that must be there."""

    def __init__(self, path: Path, value: str, products: Iterable[Path] = ()) -> None:
        self.path = path
        self.value = value
        self.products = list(products)

    def fresh(self) -> bool:
        """Made from exactly this, and all of it is still there."""
        try:
            stored = self.path.read_text(encoding="ascii").strip()
        except OSError:
            return False
        return stored == self.value and all(product.exists() for product in self.products)

    def set(self) -> None:
        """To be called once the product was made; replaced at once, so that a kill leaves the old one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".new")
        temporary.write_text(self.value + "\n", encoding="ascii")
        os.replace(temporary, self.path)


@contextmanager
def build_lock() -> Iterator[None]:
    """Two builds in one tree take turns. The kernel drops the lock with the process, whatever its end."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build in this tree")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
