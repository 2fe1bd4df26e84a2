# SPDX-License-Identifier: Apache-2.0
"""Numbers and pieces out of a fuzzer's input, in its order; when it is used up they are zero and empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class BytesIn:
    """One input. The order of reading is fixed, so that a mutation changes one thing."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that are not used yet."""
        return len(self._data) - self._at

    def number(self, size: int = 1) -> int:
        """Unsigned, big-endian, of so many bytes."""
        return int.from_bytes(self.piece(size).ljust(size, b"\0"), "big")

    def piece(self, size: int) -> bytes:
        """So many bytes, or what is left."""
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def counted(self) -> bytes:
        """A piece behind its length, u8."""
        return self.piece(self.number())

    def rest(self) -> bytes:
        """All that is left."""
        return self.piece(self.left)

    def one_of(self, choices: Sequence[T]) -> T:
        """By a byte."""
        return choices[self.number() % len(choices)]
