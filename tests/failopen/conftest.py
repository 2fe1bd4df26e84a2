# SPDX-License-Identifier: Apache-2.0
"""Two hosts on a bare wire with a daemon each, and the echo service that the server exposes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from accord.lab.deployment import Deployment
from accord.lab.pair import pair


@contextlib.contextmanager
def deployed(
    directory: Path, *options: str, more: str = "", queues: int = 1, prepare: tuple[str, ...] = ()
) -> Iterator[Deployment]:
    """Both daemons up; ``options`` and ``more`` (lines of [daemon]) are the server's.
    ``prepare`` is run on each host before."""
    with (
        pair(queues) as (client, server),
        contextlib.closing(Deployment(client, server, directory)) as both,
    ):
        if prepare:
            for host in (client, server):
                host.run(*prepare)
        both.daemon(client)
        both.daemon(server, *options, more=more)
        yield both


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One pair for the tests of a module that leave it as they found it."""
    with deployed(tmp_path_factory.mktemp("pair"), queues=4) as deployment:
        yield deployment
