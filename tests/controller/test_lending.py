# SPDX-License-Identifier: Apache-2.0
"""Accepted connections while another daemon takes over: which of them go with the port."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace

import pytest

from accord.controller import handover
from accord.controller.adoption import adopting
from accord.controller.adoption.adopting import Candidate, Fate
from accord.controller.handover import Handover
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.controller.pairs import run
from tests.controller.ports import HELLO, HERE, ID, OTHER, PREFACE, RECORD, Port, plain, ports


def handed_over(port: Port) -> Handover:
    """The half of an upgrade that waits."""
    exposed = SimpleNamespace(adopter=port.adopter)
    return Handover(
        SimpleNamespace(
            endpoint=SimpleNamespace(sockets=None), exposed={443: exposed, 444: SimpleNamespace(adopter=None)}
        )
    )  # type: ignore[arg-type]


@ports
async def test_an_upgrade_waits_until_no_negotiation_looks_for_its_connection(port: Port) -> None:
    await handed_over(port).settle()
    place = port.expect()
    settling = asyncio.create_task(handed_over(port).settle())
    await asyncio.sleep(0.02)
    assert not settling.done()
    late = port.expect(OTHER)
    candidate, _ = port.connection()
    await asyncio.sleep(0.02)
    assert not settling.done(), "nor does it shut out those who come meanwhile"
    second, _ = port.connection(OTHER)
    await settling
    for each, its in ((place, candidate), (late, second)):
        each.claim(behind_preface=False)
        assert await its.fate is Fate.TAKEN


@ports
async def test_on_a_busy_host_an_upgrade_lets_no_new_ones_in_and_tells_whose_connection_cannot_come(
    port: Port,
) -> None:
    handover._SETTLE_SECONDS, before = 0.02, handover._SETTLE_SECONDS
    try:
        place = port.expect()
        await handed_over(port).settle()
    finally:
        handover._SETTLE_SECONDS = before
    with pytest.raises(AccordError) as refused:
        port.expect(OTHER)
    assert refused.value.reason is Reason.SHUTDOWN
    port.adopter.abandon()
    assert port.stopped == [Reason.SHUTDOWN]
    place.release()
    port.adopter.refuse(False)
    port.expect(OTHER).release()


@ports
async def test_silent_connections_go_with_the_port_to_where_their_proposal_will_come(port: Port) -> None:
    for goes in (True, False):
        candidate, theirs = port.connection()
        place = port.expect(OTHER)
        stays, _ = port.connection(OTHER)
        lent = port.adopter.lend()
        assert lent == [candidate], "what is negotiated about stays"
        theirs.send(HELLO)
        await asyncio.sleep(0.01)
        assert not candidate.fate.done(), "between the two nobody looks at it"
        if goes:
            port.adopter.keep(lent)
            assert await candidate.fate is Fate.TAKEN
            assert candidate.connection.fileno() == -1
        else:
            port.adopter.take_back(lent)
            await plain(candidate, HELLO)
        place.claim(behind_preface=False)
        assert await stays.fate is Fate.TAKEN


def moved(lent: list[Candidate], port: Port) -> Port:
    """The daemon that takes over, with what the old one's port lends: descriptors of the same connections."""
    after = Port()
    after.adopter.answered = lambda transaction: HERE
    given = [(each.connection.dup(), each.address, each.named_transaction) for each in lent]
    port.adopter.keep(lent)
    for connection, address, transaction in given:
        after._open.callback(connection.close)
        after.adopter.candidate(connection, address, transaction)
    return after


async def committed_behind_the_preface(port: Port, theirs: socket.socket) -> None:
    """The commit of an answer that nothing was kept of finds its connection."""
    async with asyncio.timeout(5):
        while not port.adopter._foreseen:
            await asyncio.sleep(0.001)
    place = port.expect()
    place.claim(behind_preface=True)
    await place.there()
    theirs.send(RECORD)
    assert await place.carrier().read() == RECORD


@pytest.mark.parametrize("named", [None, ID])
@pytest.mark.parametrize("heard", [0, 5, len(PREFACE)])
@pytest.mark.parametrize("spare", [False, True])
def test_a_connection_whose_commit_comes_to_the_next_daemon_goes_there_whatever_it_said_before(
    named: bytes | None, heard: int, spare: bool
) -> None:
    """With or without the option on its SYN, with a part of its preface or all of it, with a stranger in its place."""

    async def main() -> None:
        before = Port()
        before.adopter.answered = lambda transaction: HERE
        if spare:
            before.connection(ID, "192.0.2.99")
        _, theirs = before.connection(named)
        theirs.send(PREFACE[:heard])
        if heard:
            await asyncio.sleep(0.01)
        after = moved(before.adopter.lend(), before)
        theirs.send(PREFACE[heard:])
        await committed_behind_the_preface(after, theirs)
        for port in (before, after):
            assert not port.adopter._foreseen
            for candidate in list(port.adopter.silent):
                candidate.discard()
            assert not port.adopter.silent
            port.close()

    run(main())


@ports
async def test_a_connection_that_has_spoken_ahead_of_its_commit_stays_when_there_is_no_next_daemon(port: Port) -> None:
    port.adopter.answered = lambda transaction: HERE
    candidate, theirs = port.connection(None)
    theirs.send(PREFACE)
    async with asyncio.timeout(5):
        while not port.adopter._foreseen:
            await asyncio.sleep(0.001)
    lent = port.adopter.lend()
    assert lent == [candidate]
    port.adopter.take_back(lent)
    await asyncio.sleep(0.01)
    await committed_behind_the_preface(port, theirs)


@ports
async def test_a_connection_that_named_nobody_stays_while_a_stack_that_is_committed_waits_for_one(port: Port) -> None:
    place, (candidate, theirs) = port.expect(), port.connection(None)
    named, _ = port.connection(OTHER)
    assert port.adopter.lend() == [named, candidate], "whoever has not committed is told to go on without"
    port.adopter.take_back([named, candidate])
    place.claim(behind_preface=True)
    assert port.adopter.lend() == [named]
    port.adopter.take_back([named])
    theirs.send(PREFACE)
    assert await candidate.fate is Fate.TAKEN
    named.discard()


@ports
async def test_of_many_silent_connections_the_latest_go(port: Port) -> None:
    """A commit comes within a round trip of its connection."""
    came = [port.connection(None)[0] for _ in range(adopting.LENT + 10)]
    assert port.adopter.lend() == came[:9:-1]
    for candidate in came:
        candidate.discard()
