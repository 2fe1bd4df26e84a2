# SPDX-License-Identifier: Apache-2.0
"""Durations, probabilities and rates as people write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.lab import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("50ms", 0.05),
        ("0.2s", 0.2),
        (".5s", 0.5),
        ("250us", 250e-6),
        ("250 µs", 250e-6),
        ("1m", 60),
        ("0", 0),
        ("7NS", 7e-9),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "50", "ms", "-1ms", "1 hour", "1e3s", "1..2s", "nan", "inf", "50ms50ms", "\u0665ms"]
)
def test_a_duration_without_unit_sign_or_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a number and a unit"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "value"), [("1%", 0.01), ("0.01", 0.01), ("100%", 1), ("1", 1), ("0", 0), ("0.5 %", 0.005)]
)
def test_a_probability_is_in_percent_or_a_fraction(text: str, value: float) -> None:
    assert units.parse_probability(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["101%", "1.5", "-1%", "%", "", "1ms", "nan"])
def test_a_probability_beyond_certainty_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="probability"):
        units.parse_probability(text)


@pytest.mark.parametrize(
    ("text", "bits"),
    [("100mbit", 10**8), ("2.5gbit", 25 * 10**8), ("64kbit/s", 64000), ("9600bit", 9600), ("1Mbps", 10**6)],
)
def test_a_rate_is_in_bits(text: str, bits: int) -> None:
    assert units.parse_rate(text) == bits


@pytest.mark.parametrize("text", ["100", "mbit", "-1mbit", "1 MB/s", ""])
def test_a_rate_without_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="rate"):
        units.parse_rate(text)


@given(st.text(max_size=20))
def test_no_text_does_worse_than_a_value_error(text: str) -> None:
    for parse in (units.parse_duration, units.parse_probability, units.parse_rate, units.parse_count):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0


@given(st.floats(1e-9, 100))
def test_a_duration_that_was_written_reads_as_the_same(seconds: float) -> None:
    assert units.parse_duration(units.format_duration(seconds)) == pytest.approx(seconds, rel=6e-3)


@given(st.integers(1, 10**11))
def test_a_rate_that_was_written_reads_as_the_same(bits: int) -> None:
    assert units.parse_rate(units.format_rate(bits)) == pytest.approx(bits, rel=1e-3, abs=1)
