# SPDX-License-Identifier: Apache-2.0
"""Everything random of one answer, drawn from its 32-byte seed: BLAKE2b (RFC 7693) keyed by the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

SEED_BYTES: Final = 32
_BLOCK: Final = 64
_PURPOSE: Final = 16


def derive(seed: bytes, purpose: bytes, *inputs: bytes, length: int = 32) -> bytes:
    """At most 64 bytes that nobody without the seed can tell from random ones; others for other inputs.

    ``purpose``: at most 16 bytes. Each input is hashed behind its length, so none can pass for two.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes")
    state = hashlib.blake2b(key=seed, person=purpose.ljust(_PURPOSE, b"\0"), digest_size=length)
    for each in inputs:
        state.update(len(each).to_bytes(8, "big") + each)
    return state.digest()


def stream(seed: bytes, purpose: bytes) -> Callable[[int], bytes]:
    """As ``os.urandom``, but the same bytes each time it is made: what comes next depends on how much was asked for."""
    left, count = b"", 0

    def take(length: int) -> bytes:
        nonlocal left, count
        while len(left) < length:
            left += derive(seed, purpose, count.to_bytes(8, "big"), length=_BLOCK)
            count += 1
        taken, left = left[:length], left[length:]
        return taken

    return take
