# SPDX-License-Identifier: Apache-2.0
"""Labs with names of their own, sockets inside them, and the forwarder with and without sanitizers."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from accord.lab import Lab, Namespace, state
from accord.lab.topology import ROLES, handle_name

SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python does not name it
SO_TIMESTAMPNS = 35
ROOT = Path(__file__).parents[2]


def _make(*targets: str) -> None:
    command = ["make", "-s", "-C", str(ROOT / "dataplane_c/lab"), *targets]
    subprocess.run(command, check=True, timeout=120)


@pytest.fixture(scope="session", autouse=True)
def built_link() -> None:
    """The forwarder where the package looks for it."""
    _make()


@pytest.fixture(scope="session")
def sanitized_link() -> Path:
    """The forwarder under ASan and UBSan: it ends with another code than 0 when they find something."""
    _make("sanitized")
    return ROOT / "build/lab/accord-link-sanitized"


@pytest.fixture
def name() -> Iterator[str]:
    """A lab name that nobody else uses; nothing of that lab is left when the test ends, or it fails."""
    name = f"t{os.getpid()}-{secrets.token_hex(3)}"
    yield name
    left = state.there_is(name) or state.control_path(name).exists()
    with state.locked(name):
        state.dismantle(name)
    assert not left, "the lab was not taken down"


@pytest.fixture
def make_lab(name: str) -> Iterator[Callable[..., Lab]]:
    """Make the one lab of this test, closed at its end; with our own link, which counts what netem does not."""
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Lab(name, **{"kind": "forwarder", **settings}))


@pytest.fixture
def udp() -> Iterator[Callable[..., socket.socket]]:
    """A UDP socket inside a host, bound to its address."""
    with contextlib.ExitStack() as stack:

        def make(host: Namespace, family: int = 4) -> socket.socket:
            kind = socket.AF_INET if family == 4 else socket.AF_INET6
            made = stack.enter_context(host.call(socket.socket, kind, socket.SOCK_DGRAM))
            made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
            made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            made.bind((host.address4 if family == 4 else host.address6, 0))
            made.settimeout(5)
            return made

        yield make


@pytest.fixture
def handles(name: str) -> list[str]:
    """The names of this test's namespaces."""
    return [handle_name(name, role) for role in ROLES]


@pytest.fixture
def drain() -> Callable[..., list[bytes]]:
    """Everything that a socket receives until it has been quiet for a while."""

    def read(receiver: socket.socket, quiet: float = 0.3) -> list[bytes]:
        receiver.settimeout(quiet)
        found: list[Any] = []
        with contextlib.suppress(TimeoutError):
            while True:
                found.append(receiver.recv(65536))
        return found

    return read
