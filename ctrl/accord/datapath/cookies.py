# SPDX-License-Identifier: Apache-2.0
"""The keys of cookies, as the C core and the XDP program want them (docs/PROTOCOL.md, section 21.4)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from accord.datapath._core import ffi, lib

KEY_BYTES = 16
MAX_KEYS: int = lib.ACCORD_COOKIE_KEYS
"""Of a ring."""


class CookieKey(NamedTuple):
    """A key and its number on the wire, 0..255."""

    id: int
    key: bytes


def ring_of(keys: Sequence[CookieKey], slot: int) -> Any:
    """``struct accord_cookie_ring *``: cookies are made with the first key, and taken with all; none makes no cookies.

    ``slot``: the present time slot. Raises ``ValueError`` for keys of another length, too many, or two of one number.
    """
    if len(keys) > MAX_KEYS or len({key.id for key in keys}) < len(keys):
        raise ValueError(f"at most {MAX_KEYS} keys, of different numbers, not {[key.id for key in keys]}")
    ring = ffi.new("struct accord_cookie_ring *", {"slot": slot & 0xFFFF})
    for place, key in zip(ring.keys, keys, strict=False):
        if len(key.key) != KEY_BYTES or not 0 <= key.id <= 0xFF:
            raise ValueError(f"key {key.id} of {len(key.key)} bytes")
        place.words = struct.unpack("<2Q", key.key)
        place.id, place.used = key.id, 1
    return ring
