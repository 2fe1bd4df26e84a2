# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of ``./build.py bench fallback``: what is added, how many round trips, and what counts as met."""

from __future__ import annotations

import statistics
from typing import Any

import _verdict
import fallback
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.lab.paths import PATHS

TIMES = st.lists(st.floats(0.1, 1e4), min_size=1, max_size=40)


def series(times: list[float], **more: Any) -> _verdict.Series:
    result = {"ok": True, "stack": ["tls", "tcp"], "negotiated": False, "reason": "LEGACY_PEER"}
    return _verdict.Series([{**result, "ready_ms": time, "wall_ms": time + 1, **more} for time in times])


def measured(path: str, peer: str, ours: list[float], theirs: list[float], **more: Any) -> _verdict.Measured:
    found = _verdict.Measured(_verdict.Case(path, peer), series(theirs), series(ours, **more))
    found.rtt_ms = 20.0
    return found


NEGOTIATED = {"negotiated": True, "stack": ["http", "tls", "tcp"], "reason": "OK"}
PLAIN = [40.0 + number / 100 for number in range(100)]


@given(TIMES, TIMES, st.sampled_from([0.5, 0.99]))
def test_added_is_the_difference_of_the_quantiles_and_lies_in_its_own_range(
    ours: list[float], theirs: list[float], fraction: float
) -> None:
    low, high = _verdict.added_range(ours, theirs, fraction)
    assert low <= high
    assert _verdict.added(ours, ours, fraction) == 0
    if fraction == 0.5:
        # An independent median: between the two middle ones of an even number ours takes the lower.
        assert _verdict.quantile(ours, fraction) == statistics.median_low(ours)


@pytest.mark.parametrize(
    ("late", "open_", "why"),
    [
        ([3.0] * 40, False, "a fifth of them is late: no"),
        ([0.2] * 40, False, "none is: yes"),
        ([3.0] * 2, True, "two of two hundred: by chance one more or one less"),
    ],
)
def test_a_row_is_open_as_long_as_chance_could_put_it_on_the_other_side(
    late: list[float], open_: bool, why: str
) -> None:
    theirs = [40.0] * 200
    ours = [40.0] * (200 - len(late)) + [40 + each for each in late]
    assert _verdict.undecided(series(ours), series(theirs)) is open_, why
    assert not _verdict.undecided(series([]), series(theirs))


@pytest.mark.parametrize(
    ("number", "judged", "late", "enough"),
    [
        (199, True, 0, False),
        (200, True, 0, True),
        (200, False, 2, True),
        (200, True, 2, False),
        (300, True, 0, False),
        (400, True, 2, False),
        (800, True, 2, True),
        (200, True, 40, True),
    ],
)
def test_runs_are_made_until_the_row_is_decided_and_no_more_than_four_times_as_many(
    number: int, judged: bool, late: int, enough: bool
) -> None:
    ours = series([40.0] * (200 - late) + [43.0] * late)
    assert fallback.enough(number, 200, judged, ours, series([40.0] * 200)) is enough


def test_a_constant_addition_is_found_to_the_microsecond() -> None:
    row = _verdict.row(measured("router", "legacy", [time + 0.75 for time in PLAIN], PLAIN))
    assert (row["added_ms_p50"], row["added_ms_p99"], row["added_wall_ms_p50"]) == (0.75, 0.75, 0.75)
    assert row["met"]


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (measured("router", "legacy", [time + 1.5 for time in PLAIN], PLAIN), "1.5 ms added"),
        (measured("router", "accord", PLAIN, PLAIN), "0 of 100 negotiated"),
        (measured("router", "accord", [20.5] * 99 + [40.0], PLAIN), "0 of 100 negotiated"),
        (measured("router", "accord", PLAIN, PLAIN, **NEGOTIATED), "2.0"),
        (measured("router", "accord", [20.5] * 100, PLAIN, **{**NEGOTIATED, "stack": ["http", "quic"]}), "quic"),
        (measured("router", "legacy", [], PLAIN), "no connection came up"),
        (measured("udp-600", "accord", [time + 5 for time in PLAIN], PLAIN), "5.0 ms added"),
    ],
)
def test_what_is_not_met_says_why(case: _verdict.Measured, why: str) -> None:
    row = _verdict.row(case)
    assert not row["met"]
    assert why in row["why"]


def test_one_failed_connection_where_no_plain_one_fails_is_a_miss() -> None:
    case = measured("router", "accord", [20.5] * 99, PLAIN, **NEGOTIATED)
    case.accord.results.append({"ok": False, "reason": "TIMEOUT", "failure": "no answer in time"})
    row = _verdict.row(case)
    assert (row["n"], row["ok"], row["met"]) == (100, 99, False)
    assert row["failures"] == {"no answer in time": 1}
    assert row["reasons"] == {"OK": 99, "TIMEOUT": 1}


def test_one_round_trip_is_met_and_found_by_the_slope_whatever_the_offset() -> None:
    case = measured("strict", "accord", [20.0 + 7] * 50, PLAIN, **NEGOTIATED)
    case.far, case.far_rtt_ms = series([60.0 + 7] * 5, **NEGOTIATED), 60.0
    row = _verdict.row(case)
    assert (row["round_trips"], row["round_trips_by"]) == (1.0, "slope")
    assert row["met"]


def test_where_chance_scatters_plain_tcp_the_range_decides() -> None:
    lost = [*PLAIN[:98], 1040.0, 1041.0]
    later = [*PLAIN[:98], 1045.0, 1046.0]
    assert _verdict.row(measured("loss", "legacy", later, lost))["met"]
    assert not _verdict.row(measured("router", "legacy", later, lost))["met"]
    assert not _verdict.row(measured("loss", "legacy", [time + 300 for time in lost], lost))["met"]


def test_a_dropped_syn_may_cost_one_retransmission_at_first_and_no_more() -> None:
    for first, met in ((1050.0, True), (2500.0, False)):
        case = measured("option-dropped", "legacy", PLAIN, PLAIN)
        case.first, case.first_plain = series([first]), series([40.0])
        assert [row["met"] for row in _verdict.rows(case)] == [True, met]


def test_a_first_contact_with_a_legacy_peer_may_cost_no_more_than_any_other() -> None:
    for more, met in ((0.9, True), (1.2, False)):
        case = measured("router", "legacy", PLAIN, PLAIN)
        case.first, case.first_plain = series([time + more for time in PLAIN]), series(PLAIN)
        known, first = _verdict.rows(case)
        assert (known["contact"], known["met"]) == ("any", True)
        assert (first["contact"], first["n"], first["added_ms_p99"], first["met"]) == ("first", 100, more, met)
    assert len(_verdict.rows(measured("router", "accord", PLAIN, PLAIN, **NEGOTIATED))) == 1


def test_the_matrix_has_every_path_and_peer_once_and_a_row_more_for_proposals_in_ip() -> None:
    found = _verdict.cases([], ["accord", "legacy"])
    assert len(found) == len(set(found)) == 2 * len(PATHS) + 1
    assert found[-1] == _verdict.Case("direct-dropped", "accord", "direct")
    assert not found[-1].negotiable
    assert {case.path for case in found if case.peer == "accord" and not case.negotiable} == {
        "udp-dropped",
        "udp-600",
        "direct-dropped",
    }
