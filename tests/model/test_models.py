# SPDX-License-Identifier: Apache-2.0
"""The Promela models of docs/model, in their small size, by spin: the design holds, each mistake in it is caught."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildtools import model
from tests.model import tables

MODELS = model.models()


def cases(kind: str) -> list[object]:
    """One for each sentence; the sentence is the test's ID."""
    return [
        pytest.param(name, variant, id=f"{name}: {variant.sentence}")
        for name in MODELS
        for variant in model.variants(name, kind)
    ]


@pytest.mark.parametrize("name", MODELS)
def test_nothing_that_must_not_happen_does(name: str) -> None:
    verdict = model.verify(name)
    assert not verdict.error, verdict.trail
    assert verdict.states > 1000


@pytest.mark.parametrize("name", MODELS)
def test_under_fairness_every_negotiation_ends(name: str) -> None:
    verdict = model.verify(name, liveness=True)
    assert not verdict.error, verdict.trail


@pytest.mark.parametrize(("name", "mistake"), cases("MISTAKE"))
def test_a_mistake_in_the_design_is_caught(name: str, mistake: model.Variant) -> None:
    verdict = model.verify(name, [mistake.macro], mistake.liveness, effort=0)
    wanted = "acceptance cycle" if mistake.liveness else "assertion violated"
    assert verdict.error.startswith(wanted), f"found: {verdict.error or 'nothing'}"
    assert verdict.trail


@pytest.mark.parametrize(("name", "witness"), cases("WITNESS"))
def test_what_the_model_is_about_does_happen_in_it(name: str, witness: model.Variant) -> None:
    assert model.verify(name, [witness.macro], effort=0).error.startswith("assertion violated")


@pytest.mark.parametrize("name", MODELS)
def test_every_mistake_and_witness_of_the_text_has_its_sentence(name: str) -> None:
    text = (model.FOLDER / f"{name}.pml").read_text().split("*/", 2)[2]
    told = {variant.macro for variant in model.variants(name, "")}
    used = {word for word in text.replace("(", " ").replace(")", " ").split() if word.startswith(("MISTAKE_", "WITN"))}
    assert used == told


@pytest.mark.parametrize("name", tables.FILES)
def test_the_tables_that_the_models_read_are_those_of_the_code(name: str) -> None:
    assert (tables.FOLDER / name).read_text() == tables.render(name), "python -m tests.model.tables writes them anew"


def test_every_table_is_read_by_a_model() -> None:
    texts = [path.read_text() for path in Path(model.FOLDER).glob("*.pml")]
    assert all(any(f'#include "{name}"' in text for text in texts) for name in tables.FILES)
