# SPDX-License-Identifier: Apache-2.0
"""What happened in a negotiation and when, for people: a ladder diagram in text."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Way(enum.Enum):
    """Which way an entry points, seen from this host."""

    OUT = "out"
    IN = "in"
    HERE = "here"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: seconds since the ladder began, the way, what happened."""

    at: float
    way: Way
    said: str | Callable[[], str]

    @property
    def text(self) -> str:
        """What happened."""
        return self.said if isinstance(self.said, str) else self.said()


_ARROW = {Way.OUT: "──────▶", Way.IN: "◀──────", Way.HERE: "   │   "}


class Ladder:
    """Entries in order. Bounded: a negotiation that goes on and on does not fill the memory."""

    LIMIT = 256

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begin = clock()
        self.entries: list[Entry] = []

    def note(self, way: Way, text: str | Callable[[], str]) -> None:
        """Add a line, stamped with the time since the ladder was made. A function is asked for its text when somebody
        wants to read the ladder, which mostly nobody does."""
        if len(self.entries) < self.LIMIT:
            self.entries.append(Entry(self._clock() - self._begin, way, text))

    def elapsed(self) -> float:
        """Seconds since the ladder was made."""
        return self._clock() - self._begin

    def as_dicts(self) -> list[dict[str, object]]:
        """For JSON."""
        return [
            {"at_ms": round(entry.at * 1000, 3), "way": entry.way.value, "text": entry.text} for entry in self.entries
        ]


def render(entries: list[dict[str, object]]) -> str:
    """The ladder as text, one line an entry, from what ``Ladder.as_dicts`` gave."""
    return "\n".join(
        f"{entry['at_ms']:>9.2f} ms  {_ARROW[Way(str(entry['way']))]}  {entry['text']}" for entry in entries
    )
