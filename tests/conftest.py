# SPDX-License-Identifier: Apache-2.0
"""What all tests share: who may run which, and how hypothesis behaves."""

from __future__ import annotations

import os

import hypothesis
import pytest

# Machines differ and are shared: an example that took long is no failure.
hypothesis.settings.register_profile("accord", deadline=None, print_blob=True)
hypothesis.settings.load_profile("accord")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the mend as the reason, what needs root when we are not."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: ./build.py test, or sudo .venv/bin/python -m pytest")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)
