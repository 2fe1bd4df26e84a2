# SPDX-License-Identifier: Apache-2.0
"""Pools of processes that leave Ctrl-C to the one that started them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


def mapped(pool: Executor, work: Callable[[Item], Found], items: Iterable[Item], at_once: int = 4) -> Iterator[Found]:
    """``pool.map``, which starts its processes. They inherit that SIGINT is blocked: it would end them, as long as they
    import, with a trace of what they were importing. What comes meanwhile comes when all are started."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.map(work, items, chunksize=at_once)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
