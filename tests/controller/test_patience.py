# SPDX-License-Identifier: Apache-2.0
"""How long an accepted connection may say nothing, and how long its handshake may take: one is not the other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from accord.controller import exposed
from accord.controller.adoption.adopting import WAIT_SECONDS, Places
from accord.controller.association import Association
from accord.controller.controller import Controller
from accord.controller.handover import Handover
from accord.controller.settings.config import DaemonConfig, ExposeConfig
from accord.controller.settings.policy import Secure
from accord.protocols.authority import issue, make_ca
from accord.wire.constants import Limit
from tests.controller.pairs import NAME, free_port, run

SHORT, LONG = 0.05, 30.0


class Serving(NamedTuple):
    """A daemon's data path, what it accepts, and the end of a peer."""

    controller: Controller
    accepted: asyncio.Queue[Association]
    client: socket.socket


def port_of_both() -> int:
    """Free for UDP and for TCP at the moment."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind(("0.0.0.0", port := free_port()))
            return port


@contextlib.asynccontextmanager
async def serving(directory: Path, secure: Secure) -> AsyncIterator[Serving]:
    """A port for plain connections too, and a connection to it that has said nothing yet."""
    make_ca(directory)
    files = issue(directory, [NAME])
    controller, port = Controller(DaemonConfig(back_end="udp")), port_of_both()
    accepted: asyncio.Queue[Association] = asyncio.Queue(4)
    config = ExposeConfig(
        port, None, certificate=files.certificate, private_key=files.private_key, secure=secure, plain=True
    )
    controller.expose(config, accepted)
    try:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setblocking(False)
            yield Serving(controller, accepted, client)
    finally:
        controller.close()


def test_an_initiator_whose_negotiation_ended_with_its_life_still_has_its_plain_connection() -> None:
    lifetime = Limit.MAX_LIFETIME_MS / 1000
    assert lifetime + WAIT_SECONDS <= exposed._SILENT_SECONDS, "nor is one reset that a commit has claimed"


def test_a_silence_longer_than_a_handshake_may_take_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with serving(tmp_path, Secure.NO) as (_, accepted, client):
            await asyncio.sleep(4 * SHORT)
            await asyncio.get_running_loop().sock_sendall(client, b"at last")
            association = await accepted.get()
            assert association.report.stack == ["tcp"]
            assert await association.carrier.read() == b"at last"
            association.carrier.abort()

    monkeypatch.setattr(exposed, "_PLAIN_HANDSHAKE_SECONDS", SHORT)
    monkeypatch.setattr(exposed, "_SILENT_SECONDS", LONG)
    run(main())


@pytest.mark.parametrize(
    ("silent", "handshake", "said"), [(SHORT, LONG, b""), (LONG, SHORT, b"\x16\x03\x01")], ids=["silence", "handshake"]
)
def test_neither_is_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: float, handshake: float, said: bytes
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serving(tmp_path, Secure.REQUIRED) as (_, _, client):
            await loop.sock_sendall(client, said)
            with pytest.raises(ConnectionResetError):
                await loop.sock_recv(client, 1)

    monkeypatch.setattr(exposed, "_PLAIN_HANDSHAKE_SECONDS", handshake)
    monkeypatch.setattr(exposed, "_SILENT_SECONDS", silent)
    run(main())


def test_a_connection_that_waits_to_be_accepted_when_the_port_goes_is_accepted_first(tmp_path: Path) -> None:
    """Its negotiation, which may have committed by now, is here; to a new daemon it would be a stranger's."""

    async def main() -> None:
        async with serving(tmp_path, Secure.NO) as (controller, accepted, client):
            (port,) = controller.exposed.values()
            assert port.adopter is not None
            place = Places(port.adopter, bytes(12), "127.0.0.1", lambda reason: None).expect()
            place.claim(behind_preface=True)
            hand = Handover(controller)
            hand.freeze()
            hand.commit()
            await asyncio.get_running_loop().sock_sendall(client, b"here")
            association = await accepted.get()
            assert await association.carrier.read() == b"here"
            association.carrier.abort()

    run(main())
