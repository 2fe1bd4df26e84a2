# SPDX-License-Identifier: Apache-2.0
"""Two controllers over loopback change the stack of an association: proposals, wishes, policies, failures."""

from __future__ import annotations

import asyncio
from pathlib import Path

from accord.controller.association import Association
from accord.controller.renegotiation.lasting import LastingCarrier
from accord.controller.renegotiation.member import Member
from tests.controller.pairs import QUIC, Pair, pair, run

LASTING = {**QUIC, "renegotiate": True}


async def both(hosts: Pair, wishes: dict[str, object]) -> tuple[Association, Association]:
    """One association, at both ends."""
    initiator = await hosts.client.connect("127.0.0.1", hosts.relay.port, overrides=wishes, security=hosts.security)
    return initiator, await hosts.accept()


def member(hosts: Pair, association: Association, *, server: bool = False) -> Member:
    """As the controller knows it."""
    return (hosts.server if server else hosts.client).associations.get(association.report.association)


async def talk(one: Association, other: Association) -> None:
    """A word each way."""
    for sender, receiver in ((one, other), (other, one)):
        await sender.carrier.write(b"word")
        assert await receiver.carrier.read() == b"word"


async def readers(*associations: Association) -> list[asyncio.Task[bytes]]:
    """Somebody reads at each end, as a bridge does."""
    return [asyncio.create_task(association.carrier.read()) for association in associations]


def test_both_hosts_call_an_association_the_same_and_it_gets_new_keys_on_request(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one, other = await both(hosts, QUIC)
            assert one.report.association == other.report.association
            assert isinstance(one.carrier, LastingCarrier)
            assert isinstance(other.carrier, LastingCarrier)
            before = one.carrier.identity
            reading = await readers(one, other)
            await member(hosts, one).renegotiate()
            assert one.carrier.generation == 2
            assert one.carrier.identity == other.carrier.identity != before
            await one.carrier.write(b"to")
            await other.carrier.write(b"fro")
            assert [await task for task in reading] == [b"fro", b"to"]
            await talk(one, other)

    run(play())


def test_a_responder_wishes_and_the_initiator_proposes(tmp_path: Path) -> None:
    async def play() -> None:
        async with pair(tmp_path) as hosts:
            one, other = await both(hosts, LASTING)
            await readers(one, other)
            await member(hosts, other, server=True).renegotiate()
            assert member(hosts, one).carrier.generation == member(hosts, other, server=True).carrier.generation == 2
            await member(hosts, other, server=True).renegotiate()
            assert member(hosts, one).carrier.generation == 3

    run(play())
