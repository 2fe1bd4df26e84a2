# SPDX-License-Identifier: Apache-2.0
"""The ring of cookie keys: made, replaced and forgotten by the clock, kept as text (docs/PROTOCOL.md, section 21.4).

Sans-IO: times are arguments, Unix time in seconds, because keys outlive the host's uptime and may be other hosts' too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from accord.datapath.cookies import KEY_BYTES, MAX_KEYS, CookieKey
from accord.wire.constants import Limit

MAX_TEXT: Final = 4096
COOKIE_SECONDS: Final = (Limit.COOKIE_SLOTS + 1) * Limit.COOKIE_SLOT_S
"""How long a cookie is good, at most."""

_HEAD: Final = "# Keys of cookies, the present one first: number, key, Unix time of its making. Keep them secret.\n"


def slot_of(now: float) -> int:
    """The time slot of a moment."""
    return int(now // Limit.COOKIE_SLOT_S) & 0xFFFF


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A key, and when it was made; None: nobody says, and it is not forgotten by the clock."""

    key: CookieKey
    made: float | None


class KeyRing:
    """``period``: seconds that a key is the present one. ``lifetime``: after so many it is forgotten."""

    def __init__(self, period: float, lifetime: float, random: Callable[[int], bytes]) -> None:
        self.period = period
        self.lifetime = lifetime
        self._random = random
        self._kept: list[KeptKey] = []

    @property
    def keys(self) -> list[CookieKey]:
        """The present one first."""
        return [kept.key for kept in self._kept]

    def turn(self, now: float) -> bool:
        """Forget what is too old, make a new key if one is due; whether anything has changed."""
        before = list(self._kept)
        # What was made in the future is by another clock: it is neither young nor old.
        self._kept = [kept for kept in before if kept.made is None or 0 <= now - kept.made < self.lifetime]
        present = self._kept[0].made if self._kept else None
        if present is None or now - present >= self.period:
            self._kept.insert(0, KeptKey(CookieKey(self._next_id(), self._random(KEY_BYTES)), now))
        del self._kept[MAX_KEYS:]
        return self._kept != before

    def restore(self, kept: Sequence[KeptKey]) -> None:
        """Have these, the present one first."""
        self._kept = list(kept)

    def text(self) -> str:
        """To be kept, and read by ``parse``."""
        return format_keys(self._kept)

    def _next_id(self) -> int:
        """Any that is free would do; one that was not used lately tells an old cookie from a forged one."""
        return (self._kept[0].key.id + 1) & 0xFF if self._kept else self._random(1)[0]


def format_keys(kept: Sequence[KeptKey]) -> str:
    """A key to a line. Its time is rounded down: one made half a second ago must not seem to be of the future."""
    return _HEAD + "".join(f"{each.key.id} {each.key.key.hex()}{_written(each.made)}\n" for each in kept)


def _written(made: float | None) -> str:
    return "" if made is None else f" {math.floor(made)}"


def parse(text: str) -> list[KeptKey]:
    """What ``format_keys`` made, or somebody wrote by hand: a number, 32 hexadecimal digits, and perhaps a time, to a
    line; ``#`` begins a comment. Raises ``ValueError`` that names the line.
    """
    found: list[KeptKey] = []
    if len(text) > MAX_TEXT:
        raise ValueError(f"more than {MAX_TEXT} characters")
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            name, digits, *rest = words
            key = CookieKey(int(name), bytes.fromhex(digits))
            made = float(rest[0]) if rest else None
            if len(rest) > 1 or not 0 <= key.id <= 0xFF or len(key.key) != KEY_BYTES or not name.isdecimal():
                raise ValueError(line)
            if made is not None and not math.isfinite(made):
                raise ValueError(line)
        except ValueError:
            raise ValueError(
                f"line {number}: wanted: a number up to 255, 32 hexadecimal digits, perhaps a time"
            ) from None
        if any(other.key.id == key.id for other in found):
            raise ValueError(f"line {number}: key {key.id} for a second time")
        found.append(KeptKey(key, made))
    if len(found) > MAX_KEYS:
        raise ValueError(f"{len(found)} keys, at most {MAX_KEYS}")
    return found
