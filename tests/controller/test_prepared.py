# SPDX-License-Identifier: Apache-2.0
"""A proposal made ahead does not take the time that it lay ready for a round trip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.controller import prepared
from accord.controller.prepared import HeldClock, padding


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


@given(st.integers(0, 26_000))
def test_a_padded_proposal_lets_the_whole_answer_come_even_if_a_packet_in_four_is_lost(answer: int) -> None:
    packets = padding(answer)
    assert 3 * 1228 * max(packets, 1) >= answer * (4 / 3 if packets else 1)
    assert packets == 0 or 3 * 1228 * (packets - 1) < 1.5 * answer
    assert packets != 1, "one packet it has in any case, and a short one stays short"


def test_no_proposal_is_padded_beyond_the_initial_window() -> None:
    assert padding(1 << 30) == 10
