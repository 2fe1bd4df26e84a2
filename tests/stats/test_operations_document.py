# SPDX-License-Identifier: Apache-2.0
"""docs/OPERATIONS.md lists the counters that there are."""

from __future__ import annotations

import re

from accord.controller.metrics import FAMILIES, Kind
from tests.stats.document import DOCUMENT, PART, render


def test_the_document_lists_every_family_as_the_code_has_it() -> None:
    text = DOCUMENT.read_text()
    assert PART.search(text), "the table has lost its marks"
    assert text == render(text), "stale: PYTHONPATH=ctrl:. python -m tests.stats.document"
    assert all(text.count(f"| `{family.name}` |") == 1 for family in FAMILIES)


def test_names_follow_the_conventions_of_prometheus() -> None:
    """https://prometheus.io/docs/practices/naming/"""
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert re.fullmatch(r"accord_[a-z_]+", family.name)
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER), family.name
        assert family.help.endswith(".")
        assert len(family.help) <= 120
        assert all(re.fullmatch(r"[a-z_]+", label) for label in family.labels)


def test_each_help_text_is_there_once() -> None:
    assert len({family.help for family in FAMILIES}) == len(FAMILIES)
