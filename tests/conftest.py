# SPDX-License-Identifier: Apache-2.0
"""What all tests share: who may run which, how hypothesis behaves, and where bytecode is kept."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import hypothesis
import pytest

from accord.lab.scratch import scratch

# Machines differ and are shared: an example that took long is no failure.
hypothesis.settings.register_profile("accord", deadline=None, print_blob=True)
hypothesis.settings.load_profile("accord")


_CACHE = pytest.StashKey[contextlib.ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep bytecode for as long as the tests run, outside the tree, also where the environment says to keep none.

    Tests start a thousand processes, and compiling is most of what a daemon's start takes. Workers of xdist inherit it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # by a shell's "&"; programs started here would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return
    made = config.stash[_CACHE] = contextlib.ExitStack()
    cache = made.enter_context(scratch("pycache"))
    cache.chmod(0o755)  # read by processes of other users
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(cache)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing."""
    config.stash.get(_CACHE, contextlib.ExitStack()).close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the mend as the reason, what needs root when we are not."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: ./build.py test, or sudo .venv/bin/python -m pytest")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)
