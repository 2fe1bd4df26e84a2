# SPDX-License-Identifier: Apache-2.0
"""A proposal made ahead does not take the time that it lay ready for a round trip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.controller import prepared
from accord.controller.prepared import HeldClock


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
