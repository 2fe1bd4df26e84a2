# SPDX-License-Identifier: Apache-2.0
"""The simulator finds mistakes: each of ``mutations.ALL`` within so many seeds."""

from __future__ import annotations

import itertools

import pytest

from sim.campaign import judge_scenario
from sim.scenario import draw
from tests.sim.mutations import ALL, Mutation


@pytest.mark.parametrize("mutation", ALL, ids=lambda mutation: mutation.name)
def test_a_mistake_is_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation.make(monkeypatch)
    scenarios = (scenario for seed in itertools.count() if mutation.fits(scenario := mutation.draw(seed)))
    for scenario in itertools.islice(scenarios, mutation.within):
        if judge_scenario(scenario).failures:
            return
    pytest.fail(f"not in {mutation.within} seeds")


@pytest.mark.parametrize(
    "mutation",
    {each.draw: each for each in ALL if each.draw is not draw}.values(),
    ids=lambda mutation: mutation.name,
)
def test_without_the_mistake_the_same_seeds_converge(mutation: Mutation) -> None:
    failed = {seed: found for seed in range(60) if (found := judge_scenario(mutation.draw(seed)).failures)}
    assert not failed
