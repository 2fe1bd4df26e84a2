# SPDX-License-Identifier: Apache-2.0
"""What Prometheus reads is what was counted: Prometheus' own parser is the judge."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from accord.cli.prometheus import exposition
from accord.cli.stats import counters, text
from accord.controller import metrics
from accord.controller.counts import Counts
from accord.controller.metrics import FAMILIES, Histogram, Kind, Labels, Samples, snapshot

FINITE = st.floats(0, 1e12, allow_nan=False)


@st.composite
def values(draw: st.DrawFn) -> dict[metrics.Family, Samples]:
    """Samples for some of the families, with labels that nobody escaped."""
    found: dict[metrics.Family, Samples] = {}
    for family in draw(st.sets(st.sampled_from(FAMILIES), max_size=5)):
        labels = st.tuples(*[st.text(st.characters(exclude_categories=["Cs"]), max_size=8) for _ in family.labels])
        if family.kind is Kind.HISTOGRAM:
            samples: dict[Labels, float | Histogram] = {}
            for each in draw(st.sets(labels, max_size=3)):
                histogram = samples[each] = Histogram()
                for seconds in draw(st.lists(st.floats(0, 100), max_size=20)):
                    histogram.observe(seconds)
            found[family] = samples
        else:
            found[family] = draw(st.dictionaries(labels, st.integers(0, 2**63) | FINITE, max_size=4))
    return found


def parse(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@given(values())
@settings(max_examples=30)
def test_prometheus_reads_every_sample_with_its_labels_and_value(found: dict[metrics.Family, Samples]) -> None:
    read = parse(exposition(snapshot(found)))
    expected: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family, samples in found.items():
        for labels, value in samples.items():
            named = dict(zip(family.labels, labels, strict=True))
            if not isinstance(value, Histogram):
                expected[family.name, tuple(sorted(named.items()))] = value
                continue
            key = tuple(sorted(named.items()))
            expected[f"{family.name}_sum", key] = value.sum
            expected[f"{family.name}_count", key] = sum(value.counts)
            for index, bound in enumerate([*value.bounds, math.inf]):
                le = "+Inf" if bound == math.inf else str(float(bound))
                with_bound = tuple(sorted({**named, "le": le}.items()))
                expected[f"{family.name}_bucket", with_bound] = sum(value.counts[: index + 1])
    assert read == expected


def test_prometheus_reads_kind_and_help_of_every_family_also_of_one_without_samples() -> None:
    read = {family.name: family for family in text_string_to_metric_families(exposition(snapshot({})))}
    for family in FAMILIES:
        name = family.name.removesuffix("_total") if family.kind is Kind.COUNTER else family.name
        assert read[name].type == family.kind.value
        assert read[name].documentation == family.help


@given(st.lists(st.floats(0, 100), max_size=50))
def test_a_histogram_s_buckets_hold_what_does_not_exceed_their_bound(seconds: list[float]) -> None:
    histogram = Histogram()
    for each in seconds:
        histogram.observe(each)
    shown = histogram.as_dict()
    for bound, up_to in shown["buckets"]:
        assert up_to == sum(each <= bound for each in seconds)
    assert shown["count"] == len(seconds)
    assert shown["sum"] == pytest.approx(sum(seconds))


def test_labels_that_a_family_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="argument"):
        snapshot({metrics.MEMORY: {("surplus",): 1}})
    with pytest.raises(ValueError, match="FAMILIES"):
        snapshot({metrics.Family("engine", "accord_stray", Kind.GAUGE, (), "Nobody's."): {}})


def test_a_fresh_controllers_counts_are_all_zero() -> None:
    samples = Counts().samples()
    assert all(not value for family in samples if family is not metrics.START for value in samples[family].values())


def test_the_table_has_values_meanings_and_each_help_once() -> None:
    histogram = Histogram()
    for seconds in (0.003, 0.03, 0.3):
        histogram.observe(seconds)
    found = snapshot(
        {
            metrics.STEERING: {("STEERED",): 12345, ("NOT_IP",): 0},
            metrics.READY: {("initiator", "negotiated"): histogram},
        }
    )
    shown = text(found)
    assert "12,345" in shown
    assert "negotiation packet handed to the daemon" in shown
    assert "NOT_IP" not in shown, "zeros are left out"
    assert shown.count(metrics.STEERING.help[:40]) == 1
    assert "3; mean 111.0 ms; half <= 50 ms" in shown


def test_the_table_of_a_watch_has_rates_of_counters_and_none_of_gauges() -> None:
    before = snapshot({metrics.STEERING: {("STEERED",): 100}, metrics.USED: {("buffers",): 50}})
    after = snapshot({metrics.STEERING: {("STEERED",): 350, ("NOT_IP",): 4}, metrics.USED: {("buffers",): 70}})
    shown = text(after, before=counters(before), seconds=2.0)
    rows = [line.split() for line in shown.splitlines()]
    assert ["STEERED", "350", "125.0/s"] in [row[:3] for row in rows]
    assert ["NOT_IP", "4", "2.0/s"] in [row[:3] for row in rows], "what was not there before was zero"
    assert ["buffers", "70"] in rows
