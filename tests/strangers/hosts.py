# SPDX-License-Identifier: Apache-2.0
"""Two controllers on loopback, without privileges: a server that keeps nothing of strangers, a client that is one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from accord.controller.association import Association
from accord.controller.controller import Controller
from accord.controller.exposed import Exposed
from accord.controller.settings.config import DaemonConfig, ExposeConfig, LimitsConfig
from accord.controller.settings.policy import Secure
from accord.datapath.cookies import CookieKey, ring_of
from accord.datapath.engine import Level
from accord.negotiation.interface import Role
from accord.protocols import tls_context
from accord.protocols.authority import issue, make_ca
from accord.protocols.services import Security

NAME = "server.accord.test"
WISHES: Mapping[str, Any] = {"fallback": "never", "tcp": "parallel-syn", "prefer": ["tls/tcp"], "only": True}
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; nothing here may hang."""

    async def bounded() -> T:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())


def without_post_quantum(patch: pytest.MonkeyPatch) -> None:
    """The initiator's OpenSSL offers P-256 and nothing else: its ClientHello is a short one."""
    make = tls_context._make

    def restricted(role: Role, security: Security) -> SSL.Context:
        made = make(role, security)
        if role is Role.INITIATOR:
            made.set_tmp_ecdh(ec.SECP256R1())
        return made

    patch.setattr(tls_context, "_make", restricted)


@dataclass
class Hosts:
    """Both. ``accepted``: what the server's exposed port delivered."""

    client: Controller
    server: Controller
    exposed: Exposed
    security: Security
    early: bytes = b""
    """A first request of the client's, that may travel in the proposal."""
    accepted: asyncio.Queue[Association] = field(default_factory=lambda: asyncio.Queue(64))

    async def connect(self, **wishes: object) -> Association:
        """A stack of TLS on a TCP connection that its own SYN opened."""
        return await self.client.connect(
            "127.0.0.1", self.exposed.port, overrides={**WISHES, **wishes}, security=self.security, early=self.early
        )

    async def accept(self) -> Association:
        """The next one that the server delivers."""
        async with asyncio.timeout(5):
            return await self.accepted.get()

    @property
    def counters(self) -> dict[str, int]:
        """The server engine's, by the reason's name."""
        return {reason.name: count for reason, count in self.server.endpoint.engine.counters().items()}


@contextlib.asynccontextmanager
async def hosts(
    directory: Path, *, floor: Level = Level.ANSWER, secure: Secure | None = None, **limits: int
) -> AsyncIterator[Hosts]:
    """The server never keeps anything of strangers while its level is ANSWER."""
    ca, files = make_ca(directory), issue(directory, [NAME])
    client = Controller(DaemonConfig(back_end="udp"))
    given = LimitsConfig(**{"strangers_percent": 100, "least_level": int(floor), **limits})
    server = Controller(DaemonConfig(back_end="udp", limits=given))
    server.endpoint.engine.cookies(ring_of([CookieKey(1, bytes(range(16)))], 0))
    accepted: asyncio.Queue[Association] = asyncio.Queue(64)
    identity = {"certificate": files.certificate, "private_key": files.private_key}
    exposed = server.expose(ExposeConfig(free_port(), None, secure=secure, early_limit=1000, **identity), accepted)
    security = Security(server_name=NAME, ca_file=ca.certificate)
    both = Hosts(client, server, exposed, security, accepted=accepted)
    try:
        yield both
    finally:
        client.close()
        server.close()


def free_port() -> int:
    """A port that nobody has at the moment, neither of UDP nor of TCP."""
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, socket.socket() as other:
            probe.bind(("127.0.0.1", 0))
            with contextlib.suppress(OSError):
                other.bind(probe.getsockname())
                return int(probe.getsockname()[1])
    raise AssertionError("no port is free")
