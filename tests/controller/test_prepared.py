# SPDX-License-Identifier: Apache-2.0
"""A proposal made ahead does not take the time that it lay ready for a round trip, and waits for its request alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.controller import prepared
from accord.controller.prepared import ORDER_SECONDS, HeldClock
from accord.protocols.sealed.replay import ReplayFilter
from tests.controller.pairs import QUIC, pair, run


@given(st.floats(0, 1e6), st.floats(0, 1e4), st.lists(st.floats(0, 100), max_size=5))
def test_a_held_clock_stands_still_until_it_goes_and_then_runs_at_the_hosts_pace(
    begin: float, held: float, steps: list[float]
) -> None:
    host = [begin]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared.clock, "now", lambda: host[0])
        clock = HeldClock()
        host[0] += held
        assert clock.now() == begin
        clock.go()
        assert clock.now() == pytest.approx(begin)
        for step in steps:
            before = clock.now()
            host[0] += step
            assert clock.now() - before == pytest.approx(step, abs=1e-6)
        clock.go()
        assert clock.now() <= host[0], "going twice changes nothing"


def test_a_request_that_is_sealed_goes_into_a_proposal_that_was_made_before_it_was_known(tmp_path: Path) -> None:
    wishes: dict[str, Any] = {**QUIC, "inner": "required", "early": "idempotent"}

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"you said " + await reader.readuntil(b"!"))
        writer.close()

    async def scenario() -> None:
        service = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with service, pair(tmp_path, service.sockets[0].getsockname()[:2]) as both:
            both.exposed.early_limit = 100
            wall, begun = both.server.recursion.wall, [60.0]  # long enough ago to know what was served since
            both.server.recursion.replay = ReplayFilter(lambda: wall() - begun[0], window=5)
            begun[0] = 0.0
            taken = []
            for number in range(4):
                said = b"request %d!" % number
                association = await both.client.connect(
                    "127.0.0.1", both.relay.port, overrides=wishes, security=both.security, early=said
                )
                answer = b""
                while piece := await association.carrier.read():
                    answer += piece
                assert answer == b"you said " + said
                await association.carrier.close()
                taken.append((association.report.early, both.client.proposals.hits))
                await asyncio.sleep(4 * ORDER_SECONDS)
            # The first asks for the peer's key, and seals to it one message later; those made ahead are sealed to it.
            assert [early for early, _ in taken] == [True] * 4
            assert [hits for _, hits in taken] == [0, 0, 1, 2]
            assert both.client.proposals.misses == 2

    run(scenario())
