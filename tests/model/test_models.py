# SPDX-License-Identifier: Apache-2.0
"""The Promela models of docs/model, in their small size, by spin: the design holds, each mistake in it is caught."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from buildtools import model
from tests.model import tables

# The first test waits for searches that all processors share with other tests.
pytestmark = pytest.mark.timeout(400)

MODELS = model.models()


Search = tuple[str, str, bool]
"""Model, macro (empty: none), liveness."""


class Verdicts:
    """Every search that the chosen tests ask for, begun with the first of them, on all processors."""

    def __init__(self, wanted: Iterable[Search]) -> None:
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1)
        self._found = {search: self._pool.submit(self._search, *search) for search in wanted}

    @staticmethod
    def _search(name: str, macro: str, liveness: bool) -> model.Verdict:
        return model.verify(name, [macro] if macro else [], liveness, effort=0)

    def __getitem__(self, search: Search) -> model.Verdict:
        return self._found[search].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest) -> Iterator[Verdicts]:
    marks = [mark.args[0] for item in request.session.items for mark in item.iter_markers("searches")]
    found = Verdicts(marks)
    yield found
    found.close()


def searches(kind: str) -> list[object]:
    """One for each sentence; the sentence is the test's ID."""
    found: list[object] = []
    for name in MODELS:
        for variant in model.variants(name, kind):
            search = (name, variant.macro, variant.liveness)
            mark = pytest.mark.searches(search)
            found.append(pytest.param(search, id=f"{name}: {variant.sentence}", marks=mark))
    return found


def whole(liveness: bool) -> list[object]:
    """Each model as it should be."""
    found = [(name, "", liveness) for name in MODELS]
    return [pytest.param(search, id=search[0], marks=pytest.mark.searches(search)) for search in found]


@pytest.mark.parametrize("search", whole(liveness=False))
def test_nothing_that_must_not_happen_does(search: Search, verdicts: Verdicts) -> None:
    assert not verdicts[search].error, verdicts[search].trail
    assert verdicts[search].states > 1000


@pytest.mark.parametrize("search", whole(liveness=True))
def test_under_fairness_every_negotiation_ends(search: Search, verdicts: Verdicts) -> None:
    assert not verdicts[search].error, verdicts[search].trail
    assert verdicts[search].states > 1000


@pytest.mark.parametrize("search", searches("MISTAKE"))
def test_a_mistake_in_the_design_is_caught(search: Search, verdicts: Verdicts) -> None:
    wanted = "acceptance cycle" if search[2] else "assertion violated"
    assert verdicts[search].error.startswith(wanted), f"found: {verdicts[search].error or 'nothing'}"
    assert verdicts[search].trail


@pytest.mark.parametrize("search", searches("WITNESS"))
def test_what_the_model_is_about_does_happen_in_it(search: Search, verdicts: Verdicts) -> None:
    assert verdicts[search].error.startswith("assertion violated")


@pytest.mark.parametrize("name", MODELS)
def test_every_mistake_and_witness_of_the_text_has_its_sentence(name: str) -> None:
    text = (model.FOLDER / f"{name}.pml").read_text().split("*/", 2)[2]
    for include in re.findall(r'#include "(.+)"', text):
        text += (model.FOLDER / include).read_text()
    told = {variant.macro for variant in model.variants(name, "")}
    used = {word for word in text.replace("(", " ").replace(")", " ").split() if word.startswith(("MISTAKE_", "WITN"))}
    assert used == told


@pytest.mark.parametrize("name", tables.FILES)
def test_the_tables_that_the_models_read_are_those_of_the_code(name: str) -> None:
    assert (tables.FOLDER / name).read_text() == tables.render(name), "python -m tests.model.tables writes them anew"


def test_every_table_is_read_by_a_model() -> None:
    texts = [path.read_text() for path in Path(model.FOLDER).glob("*.pml")]
    assert all(any(f'#include "{name}"' in text for text in texts) for name in tables.FILES)
