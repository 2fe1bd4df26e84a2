# SPDX-License-Identifier: Apache-2.0
"""Somebody on the path has captured a whole negotiation, and sends it again and again (threat model, rows 4 and 17)."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from accord.controller.association import Association
from tests.controller.pairs import Pair, pair, run, step_of

TIMES = 100


async def replay(both: Pair, captured: list[bytes]) -> None:
    """From where it came, and from elsewhere."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
        elsewhere.bind(("127.0.0.1", 0))
        for _ in range(TIMES):
            for packet in captured:
                both.relay.back.sendto(packet, both.relay.server)
                elsewhere.sendto(packet, both.relay.server)
            await asyncio.sleep(0)
    await asyncio.sleep(0.1)


async def talks(one: Association, other: Association) -> None:
    """The stack is as it was."""
    async with asyncio.timeout(5):
        await one.carrier.write(b"ping")
        assert await other.carrier.read() == b"ping"
        await other.carrier.write(b"pong")
        assert await one.carrier.read() == b"pong"


async def replayed(directory: Path) -> None:
    async with pair(directory) as both:
        ours, theirs = await both.connect(), await both.accept()
        await talks(ours, theirs)
        captured = [packet for packet in both.relay.seen if step_of(packet) is not None]
        assert {step_of(packet) for packet in captured} >= {0, 2}
        await asyncio.sleep(0.1)
        await replay(both, captured)
        assert both.accepted.empty(), "no second stack"
        await talks(ours, theirs)
        for association in (ours, theirs):
            association.carrier.abort()


def test_a_captured_negotiation_replayed_100_times_is_no_second_commit(tmp_path: Path) -> None:
    run(replayed(tmp_path))


def test_nor_is_it_when_the_first_one_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the captured proposal begins another negotiation, whose answer has another cookie: the captured commit is
    none of that."""
    monkeypatch.setattr("accord.controller.exchange._LINGER_SECONDS", 0.0)
    monkeypatch.setattr("accord.controller.exchange._ANSWER_SECONDS", 0.0)
    run(replayed(tmp_path))
