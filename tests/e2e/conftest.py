# SPDX-License-Identifier: Apache-2.0
"""Two real hosts for the tests of this folder: a lab, a daemon on each side, a service behind ``accord expose``."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from accord.lab.hosts import Hosts
from accord.lab.lab import Lab

RTT = 0.03
PAGE = b"A page that came over a negotiated stack.\n"
BIG = random.Random(7).randbytes(400_000)


@contextlib.contextmanager
def two_hosts(
    directory: Path, name: str, *, loss: float = 0.0, path: str = "", plain: bool = True, **options: str
) -> Iterator[Hosts]:
    """A lab with both daemons up and the service exposed; everything ends with the block."""
    with (
        Lab(f"{name}-{os.getpid()}", rtt=RTT, loss=loss, seed=1 if loss else 0, path=path) as lab,
        contextlib.closing(Hosts(lab, directory, site={"index.html": PAGE, "big.bin": BIG}, **options)) as hosts,
    ):
        hosts.serve_plain()
        hosts.serve_tls()
        hosts.daemon(lab.client)
        hosts.daemon(lab.server, "--key-log", str(directory / "keys.log"), "-v")
        hosts.expose(*(() if plain else ("--no-plain",)))
        yield hosts


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """One pair of hosts for the tests of a module; a test that breaks something makes its own."""
    with two_hosts(tmp_path_factory.mktemp("hosts"), "e2e") as both:
        yield both
