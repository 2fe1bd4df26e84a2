# SPDX-License-Identifier: Apache-2.0
"""The XDP program, loaded once; each test sets its maps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from accord.datapath.xdp_test import Program
from tests.xdp.craft import ALIVE_MS


@pytest.fixture(scope="session")
def loaded() -> Iterator[Program]:
    """One copy of the program for all tests."""
    with Program() as program:
        yield program


@pytest.fixture
def program(loaded: Program) -> Program:
    """The program as in a host that is well: port 443 steered, a socket on the queue, a daemon that lives."""
    loaded.configure()
    loaded.steer(443)
    loaded.join()
    loaded.heartbeat(ALIVE_MS)
    return loaded
