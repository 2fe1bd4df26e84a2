# SPDX-License-Identifier: Apache-2.0
"""Randomness that depends on the seed and on what it is for, and on nothing that happened before."""

from __future__ import annotations

import hashlib
import random
from typing import Final

_MASK: Final = (1 << 64) - 1


def mix(*numbers: int) -> int:
    """64 bits of the numbers (splitmix64, a round for each): any of them changes all of it."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


def share(*numbers: int) -> float:
    """``mix`` as a number in [0, 1)."""
    return mix(*numbers) / (_MASK + 1)


class Entropy:
    """A host's random bytes: what ``secrets`` and ``os.urandom`` are to a real one."""

    def __init__(self, *numbers: int) -> None:
        self._random = random.Random(mix(*numbers))

    def token_bytes(self, count: int) -> bytes:
        """As ``secrets.token_bytes``."""
        return self._random.randbytes(count)

    def randbits(self, count: int) -> int:
        """As ``secrets.randbits``."""
        return self._random.getrandbits(count)


def digest(*pieces: bytes) -> bytes:
    """SHA-256 of the pieces and their lengths."""
    made = hashlib.sha256()
    for piece in pieces:
        made.update(len(piece).to_bytes(4, "big") + piece)
    return made.digest()
