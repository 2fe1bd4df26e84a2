# SPDX-License-Identifier: Apache-2.0
"""ICMP can be forged by anybody: it ends no negotiation that goes on (threat model, row 26)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.controller.pairs import Pair, pair, run


async def forged(both: Pair, at: str) -> None:
    """As if ICMP had said of all that one side has in flight that nobody is there, again and again."""
    endpoint = (both.client if at == "client" else both.server).endpoint
    for _ in range(200):
        for handle in list(endpoint._owners):
            if (info := endpoint.engine.info(handle)) is not None:
                endpoint._unreachable(info.path)
        await asyncio.sleep(0.001)


def test_a_responder_goes_on_whatever_icmp_says(tmp_path: Path) -> None:
    async def work() -> None:
        async with pair(tmp_path) as both:
            forging = asyncio.create_task(forged(both, "server"))
            ours, theirs = await both.connect(), await both.accept()
            await ours.carrier.write(b"ping")
            assert await theirs.carrier.read() == b"ping"
            await forging
            for association in (ours, theirs):
                association.carrier.abort()

    run(work())


def test_an_initiator_without_another_way_gives_the_peer_time_to_prove_it_wrong(tmp_path: Path) -> None:
    async def work() -> None:
        async with pair(tmp_path) as both:
            forging = asyncio.create_task(forged(both, "client"))
            ours, theirs = await both.connect(), await both.accept()
            await forging
            for association in (ours, theirs):
                association.carrier.abort()

    run(work())


def test_where_nobody_proves_it_wrong_it_is_believed_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accord.controller.exchange._DISBELIEF_SECONDS", 0.2)

    async def work() -> None:
        async with pair(tmp_path) as both:
            both.relay.pass_on = lambda sender, step: False
            asking = asyncio.create_task(both.connect())
            await asyncio.sleep(0.05)
            await forged(both, "client")
            with pytest.raises(AccordError) as refused:
                await asking
            assert refused.value.reason is Reason.UNREACHABLE

    run(work())
