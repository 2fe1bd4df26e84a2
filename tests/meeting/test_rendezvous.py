# SPDX-License-Identifier: Apache-2.0
"""Two real controllers that propose to each other at once, over loopback and without privileges: QUIC."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from accord.controller.association import Association
from accord.controller.controller import Controller
from accord.controller.settings.config import DaemonConfig
from accord.protocols.authority import issue, make_ca
from accord.protocols.quic import QuicPlugin
from accord.protocols.services import Security
from accord.protocols.simultaneous import Simultaneous
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.controller.pairs import run

NAMES = ("ada.accord.test", "bob.accord.test")
QUIC = {"prefer": ["quic"], "only": True}


def udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


@dataclass
class Peer:
    """One host, its certificate, and the name that the other's is for."""

    controller: Controller
    security: Security
    sock: socket.socket

    @property
    def address(self) -> tuple[str, int]:
        name: tuple[str, int] = self.sock.getsockname()
        return name

    async def meet(self, *where: tuple[str, int], name: str = "tea", seconds: float = 8.0) -> Association:
        return await self.controller.rendezvous(
            self.sock, where, name=name, security=self.security, overrides=QUIC, seconds=seconds
        )


@contextlib.asynccontextmanager
async def peers(directory: Path) -> AsyncIterator[tuple[Peer, Peer]]:
    ca = make_ca(directory)
    found = []
    for own, other in (NAMES, NAMES[::-1]):
        files = issue(directory, [own], stem=own)
        security = Security(
            server_name=other, ca_file=ca.certificate, certificate=files.certificate, private_key=files.private_key
        )
        found.append(Peer(Controller(DaemonConfig(back_end="udp")), security, udp()))
    try:
        yield found[0], found[1]
    finally:
        for peer in found:
            peer.controller.close()


async def talk(one: Association, other: Association) -> None:
    """Bytes go both ways, and the stream ends orderly."""
    await one.carrier.write(b"from one")
    assert await other.carrier.read() == b"from one"
    await other.carrier.write(b"from the other")
    assert await one.carrier.read() == b"from the other"


def test_two_that_call_each_other_have_one_quic_connection(tmp_path: Path) -> None:
    async def work() -> None:
        async with peers(tmp_path) as (ada, bob):
            one, other = await asyncio.gather(ada.meet(bob.address), bob.meet(ada.address))
            assert one.report.stack == other.report.stack == ["http", "quic"]
            assert {one.report.role, other.report.role} == {"initiator", "responder"}
            await talk(one, other)

    run(work())


def test_who_calls_later_is_met_all_the_same(tmp_path: Path) -> None:
    async def work() -> None:
        async with peers(tmp_path) as (ada, bob):
            first = asyncio.create_task(ada.meet(bob.address))
            await asyncio.sleep(0.3)
            one, other = await asyncio.gather(first, bob.meet(ada.address))
            await talk(one, other)

    run(work())


def test_addresses_where_nobody_is_do_no_harm(tmp_path: Path) -> None:
    async def work() -> None:
        async with peers(tmp_path) as (ada, bob):
            nobody = [("127.0.0.1", port) for port in (1, 2, 3)]
            one, other = await asyncio.gather(ada.meet(*nobody, bob.address), bob.meet(*nobody, ada.address))
            await talk(one, other)

    run(work())


def test_a_peer_that_comes_from_an_address_that_was_not_named_is_met(tmp_path: Path) -> None:
    """As behind a NAT that maps anew for each destination: only one side knows where the other is."""

    async def work() -> None:
        async with peers(tmp_path) as (ada, bob):
            one, other = await asyncio.gather(ada.meet(("127.0.0.1", 1)), bob.meet(ada.address))
            await talk(one, other)

    run(work())


def test_nothing_is_left_behind_when_the_stack_is_closed(tmp_path: Path) -> None:
    async def work() -> None:
        async with peers(tmp_path) as (ada, bob):
            one, other = await asyncio.gather(ada.meet(bob.address), bob.meet(ada.address))
            await asyncio.gather(one.carrier.close(), other.carrier.close())
            async with asyncio.timeout(8):
                while ada.controller.meetings or bob.controller.meetings:
                    await asyncio.sleep(0.05)
            assert ada.sock.fileno() == bob.sock.fileno() == -1

    run(work())


def test_who_meets_nobody_is_told(tmp_path: Path) -> None:
    async def work() -> None:
        async with peers(tmp_path) as (ada, bob):
            with pytest.raises(AccordError) as failure:
                await ada.meet(bob.address, seconds=0.5)
            assert failure.value.reason is Reason.TIMEOUT
            assert "nothing came from it" in failure.value.detail

    run(work())


def test_hosts_of_two_meetings_refuse_each_other(tmp_path: Path) -> None:
    async def work() -> None:
        async with peers(tmp_path) as (ada, bob):
            results = await asyncio.gather(
                ada.meet(bob.address, name="tea"), bob.meet(ada.address, name="coffee"), return_exceptions=True
            )
            assert {getattr(result, "reason", None) for result in results} == {Reason.NO_SERVICE}

    run(work())


def test_a_certificate_for_another_name_ends_the_meeting_at_both(tmp_path: Path) -> None:
    async def work() -> None:
        async with peers(tmp_path) as (ada, bob):
            for peer in (ada, bob):
                peer.security = Security(
                    server_name="eve.accord.test",
                    ca_file=peer.security.ca_file,
                    certificate=peer.security.certificate,
                    private_key=peer.security.private_key,
                )
            results = await asyncio.gather(
                ada.meet(bob.address, seconds=3), bob.meet(ada.address, seconds=3), return_exceptions=True
            )
            assert Reason.CERTIFICATE_NAME in {getattr(result, "reason", None) for result in results}
            assert all(isinstance(result, AccordError) for result in results)

    run(work())


def test_a_protocol_that_stands_no_two_initiators_is_not_offered(tmp_path: Path) -> None:
    class Lonely(QuicPlugin):
        simultaneous = Simultaneous.NEVER

    async def work() -> None:
        async with peers(tmp_path) as (ada, bob):
            ada.controller.plugins["quic"] = Lonely()
            with pytest.raises(AccordError, match="no stack is left") as failure:
                await ada.meet(bob.address)
            assert failure.value.reason is Reason.POLICY

    run(work())


@pytest.mark.parametrize(
    ("where", "name", "words"),
    [
        ([("localhost", 5)], "tea", "no IP address"),
        ([("127.0.0.1", 0)], "tea", "port 0"),
        ([("::1", 5)], "tea", "IPv4"),
        ([("127.0.0.1", 5)], "", "no name"),
        ([("127.0.0.1", port) for port in range(1, 20)], "tea", "no more than 16"),
    ],
)
def test_what_cannot_be_tried_is_refused_at_once(
    tmp_path: Path, where: list[tuple[str, int]], name: str, words: str
) -> None:
    async def work() -> None:
        async with peers(tmp_path) as (ada, _):
            with pytest.raises(AccordError, match=words) as failure:
                await ada.meet(*where, name=name)
            assert failure.value.reason is Reason.BAD_CONFIG
            assert ada.sock.fileno() == -1

    run(work())
