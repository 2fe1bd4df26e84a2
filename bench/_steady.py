# SPDX-License-Identifier: Apache-2.0
"""Attempts at a steady rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

LATE_SECONDS = 1.0
"""What a slow machine has missed for longer than this it need not make up for."""


async def steady(
    attempt: Callable[[], Coroutine[None, None, None]], rate: float, at_once: int, over: asyncio.Event
) -> None:
    """Begin an attempt each time that one is due, ``rate`` a second, while fewer than ``at_once`` are under way; after
    ``over`` wait for the last of them. What an attempt raises is raised at the end."""
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(at_once)
    tasks: set[asyncio.Task[None]] = set()

    def ended(task: asyncio.Task[None]) -> None:
        tasks.discard(task)
        gate.release()
        failed.extend([failure] if (failure := task.exception()) is not None else [])

    failed: list[BaseException] = []
    due = loop.time()
    while not over.is_set():
        await gate.acquire()
        task = asyncio.create_task(attempt())
        tasks.add(task)
        task.add_done_callback(ended)
        due = max(due + 1 / rate, loop.time() - LATE_SECONDS)
        await asyncio.sleep(max(0.0, due - loop.time()))
    if tasks:
        await asyncio.wait(tasks)
    if failed:
        raise failed[0]
