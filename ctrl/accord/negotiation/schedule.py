# SPDX-License-Identifier: Apache-2.0
"""Who may be asked now: sessions whose bytes need the results of others (HotNets 2009, section 2.3, information
dependencies). Pure.

A session is asked as soon as all that it needs is there, lower ones first, in the message that is being built if it is
there in time, and waits for nothing else. Each side does that with what it knows, so the exchange takes as many steps
as the longest chain of dependencies has, and no more.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable
from operator import attrgetter
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class _Entry(NamedTuple, Generic[T]):
    rank: int
    id: int
    item: T
    after: frozenset[int]


class Agenda(Generic[T]):
    """What is to be asked in one message, in order, each with what it waits for."""

    def __init__(self, items: Iterable[tuple[int, T, frozenset[int]]], results: Collection[int] = ()) -> None:
        """``items``: node ID, what it is about, IDs that it needs the results of. ``results``: those there already."""
        self._entries = [_Entry(rank, *item) for rank, item in enumerate(items)]
        self._ranks = {entry.id: entry.rank for entry in self._entries}
        self.results = set(results)

    def take(self) -> T | None:
        """The first that has all it needs; None: there is none left, or all of them wait."""
        for index, entry in enumerate(self._entries):
            if not entry.after or entry.after <= self.results:
                del self._entries[index]
                return entry.item
        return None

    def put_back(self, node_id: int, item: T, after: frozenset[int] = frozenset()) -> None:
        """To be asked again, in its old place, once ``after`` is there."""
        bisect.insort(self._entries, _Entry(self._ranks[node_id], node_id, item, after), key=attrgetter("rank"))

    def conclude(self, node_id: int) -> None:
        """The result of this node is there."""
        self.results.add(node_id)

    def clear(self) -> None:
        """Nobody is to be asked any more."""
        self._entries.clear()

    @property
    def left(self) -> dict[int, frozenset[int]]:
        """Those that wait, and what each still lacks."""
        return {entry.id: entry.after - self.results for entry in self._entries}
