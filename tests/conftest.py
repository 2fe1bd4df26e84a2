# SPDX-License-Identifier: Apache-2.0
"""What all tests share: who may run which, how hypothesis behaves, and where bytecode is kept."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

# Machines differ and are shared: an example that took long is no failure.
hypothesis.settings.register_profile("accord", deadline=None, print_blob=True)
hypothesis.settings.load_profile("accord")


_CACHE = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep bytecode for as long as the tests run, outside the tree, also where the environment says to keep none.

    Tests start a thousand processes, and compiling is most of what a daemon's start takes. Workers of xdist inherit it.
    """
    if hasattr(config, "workerinput"):
        return
    cache = config.stash[_CACHE] = Path(tempfile.mkdtemp(prefix="accord-pycache-"))
    cache.chmod(0o755)  # read by processes of other users
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(cache)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing."""
    cache = config.stash.get(_CACHE, None)
    if cache is not None:
        shutil.rmtree(cache, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the mend as the reason, what needs root when we are not."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: ./build.py test, or sudo .venv/bin/python -m pytest")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)
