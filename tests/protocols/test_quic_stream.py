# SPDX-License-Identifier: Apache-2.0
"""QUIC as a stream in-band: on a link that loses, repeats and reorders, with a clock that is only moved by hand."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Coroutine

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.negotiation.interface import Role
from accord.protocols.quic import QuicPlugin
from accord.protocols.services import Carrier
from accord.protocols.wishes import Wishes
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.protocols.conftest import Pki
from tests.protocols.support import Clock, DatagramEnd, payload, services, view

DELAY = 0.02


def always() -> list[float]:
    return [DELAY]


def _idle(seconds: tuple[int, int] | None, side: int) -> Wishes:
    return Wishes() if seconds is None else Wishes(quic_idle_s=seconds[side])


class Connected:
    """A negotiated connection: two carriers, the clock, the two ends of the link."""

    def __init__(self, pki: Pki, fate: Callable[[], list[float]] = always, idle: tuple[int, int] | None = None) -> None:
        self.clock = Clock()
        self.fate = always
        here, there = DatagramEnd(self.clock, lambda: self.fate()), DatagramEnd(self.clock, lambda: self.fate())
        here.peer, there.peer = there, here
        self.ends = here, there
        client = QuicPlugin().open(
            Role.INITIATOR,
            services(Role.INITIATOR, pki.trusting(), clock=self.clock, datagrams=here, wishes=_idle(idle, 0)),
        )
        server = QuicPlugin().open(
            Role.RESPONDER,
            services(Role.RESPONDER, pki.being(pki.good), clock=self.clock, datagrams=there, wishes=_idle(idle, 1)),
        )
        proposal = payload(client.propose(view(Role.INITIATOR, 0, under=())))
        flight = payload(server.respond(view(Role.RESPONDER, 0, under=()), proposal))
        commit = payload(client.advance(view(Role.INITIATOR, 1, under=()), flight))
        client.commit(view(Role.INITIATOR, 2, under=()))
        self.client = client.carrier(None)
        self.fate = fate

        def rest() -> Carrier:
            payload(server.advance(view(Role.RESPONDER, 2, under=()), commit))
            server.commit(view(Role.RESPONDER, 2, under=()))
            return server.carrier(None)

        self.commit_arrives = rest

    async def until(self, *work: Coroutine[object, object, object], seconds: float = 120.0) -> list[object]:
        """Run coroutines while time passes in steps of 5 ms; they must end within so many simulated seconds."""
        tasks = [asyncio.ensure_future(each) for each in work]
        for _ in range(int(seconds / 0.005)):
            for _ in range(6):
                await asyncio.sleep(0)
            if all(task.done() for task in tasks):
                return [task.result() for task in tasks]
            self.clock.run(0.005)
        for task in tasks:
            task.cancel()
        raise AssertionError(f"not done after {seconds} simulated seconds")


async def read_all(carrier: Carrier, limit: int = 65536) -> bytes:
    got = bytearray()
    while piece := await carrier.read(limit):
        assert len(piece) <= limit
        got += piece
    return bytes(got)


async def send_all(carrier: Carrier, *pieces: bytes) -> None:
    for piece in pieces:
        await carrier.write(piece)
    await carrier.finish()


def test_both_directions_carry_their_bytes_and_close_in_order(pki: Pki) -> None:
    async def talk() -> None:
        link = Connected(pki)
        client, server = link.client, link.commit_arrives()
        up, down = hashlib.shake_128(b"up").digest(400_000), hashlib.shake_128(b"down").digest(300_000)
        results = await link.until(read_all(client), read_all(server), send_all(client, up), send_all(server, down))
        assert results[0] == down
        assert results[1] == up
        await link.until(client.close(), server.close())
        assert await client.read() == b""
        with pytest.raises(AccordError) as caught:
            await client.write(b"more")
        assert caught.value.reason is Reason.CLOSED
        link.clock.run(300)
        assert link.clock.timers == []

    asyncio.run(talk())


def test_the_responder_may_speak_first(pki: Pki) -> None:
    async def talk() -> None:
        link = Connected(pki)
        server = link.commit_arrives()
        results = await link.until(link.client.read(), server.write(b"220 ready\r\n"))
        assert results[0] == b"220 ready\r\n"

    asyncio.run(talk())


def test_data_that_comes_in_band_before_the_commit_is_kept(pki: Pki) -> None:
    async def talk() -> None:
        link = Connected(pki)
        await link.until(link.client.write(b"early bird"))
        link.clock.run(0.3)
        assert link.ends[1].waiting
        server = link.commit_arrives()
        results = await link.until(server.read())
        assert results == [b"early bird"]

    asyncio.run(talk())


@settings(max_examples=12)
@given(
    seed=st.integers(0, 1 << 32),
    writes=st.lists(st.integers(1, 30_000), min_size=1, max_size=5),
    limit=st.integers(1, 9000),
    loss=st.floats(0, 0.25),
)
def test_any_loss_repetition_and_order_gives_the_same_bytes(
    pki: Pki, seed: int, writes: list[int], limit: int, loss: float
) -> None:
    chance = random.Random(seed)

    def fate() -> list[float]:
        copies = 0 if chance.random() < loss else 1 + (chance.random() < 0.1)
        return [DELAY * chance.uniform(0.5, 2.5) for _ in range(copies)]

    async def talk() -> None:
        link = Connected(pki, fate)
        pieces = [bytes([number]) * size for number, size in enumerate(writes, 1)]
        client, server = link.client, link.commit_arrives()
        results = await link.until(
            read_all(server, limit), send_all(client, *pieces), read_all(client), send_all(server, *pieces[::-1])
        )
        assert results[0] == b"".join(pieces)
        assert results[2] == b"".join(pieces[::-1])
        await link.until(client.close(), server.close())

    asyncio.run(talk())


def test_a_writer_waits_while_the_peer_does_not_read_and_nothing_is_lost(pki: Pki) -> None:
    async def talk() -> None:
        link = Connected(pki)
        client, server = link.client, link.commit_arrives()
        data = hashlib.shake_128(b"bulk").digest(4 << 20)
        writing = asyncio.ensure_future(send_all(client, *(data[at : at + 65536] for at in range(0, len(data), 65536))))
        for _ in range(400):
            await asyncio.sleep(0)
            link.clock.run(0.005)
        sent = link.ends[0].sent
        assert not writing.done()
        assert sent * 1200 < 3 << 20
        results = await link.until(read_all(server), seconds=600)
        assert results[0] == data
        await writing

    asyncio.run(talk())


def test_closing_without_reading_still_delivers_what_was_written(pki: Pki) -> None:
    async def talk() -> None:
        link = Connected(pki)
        client, server = link.client, link.commit_arrives()

        async def write_and_close() -> None:
            await client.write(b"x" * 100_000)
            await client.close()

        results = await link.until(read_all(server), write_and_close(), server.write(b"y" * 100_000))
        assert results[0] == b"x" * 100_000

    asyncio.run(talk())


def test_an_aborted_connection_is_an_error_at_the_peer_and_not_its_end(pki: Pki) -> None:
    async def talk() -> None:
        link = Connected(pki)
        client, server = link.client, link.commit_arrives()
        await link.until(client.write(b"half of it"))
        await asyncio.sleep(0)
        assert await _first(link, server) == b"half of it"
        client.abort()
        client.abort()
        with pytest.raises(AccordError) as caught:
            await link.until(server.read())
        assert caught.value.reason is Reason.STREAM_BROKEN
        with pytest.raises(AccordError):
            await client.read()
        await link.until(server.close())

    asyncio.run(talk())


async def _first(link: Connected, carrier: Carrier) -> object:
    return (await link.until(carrier.read()))[0]


def test_a_peer_that_vanishes_is_noticed_by_the_idle_timeout(pki: Pki) -> None:
    async def talk() -> None:
        link = Connected(pki)
        client, server = link.client, link.commit_arrives()
        await link.until(client.write(b"hello"))
        assert await _first(link, server) == b"hello"
        link.fate = list
        with pytest.raises(AccordError) as caught:
            await link.until(server.read(), seconds=200)
        assert caught.value.reason is Reason.STREAM_BROKEN
        assert "dle timeout" in caught.value.detail

    asyncio.run(talk())


def test_a_quiet_connection_is_kept_alive_for_hours(pki: Pki) -> None:
    async def talk() -> None:
        link = Connected(pki)
        client, server = link.client, link.commit_arrives()
        link.clock.run(3 * 3600)
        results = await link.until(server.read(), client.write(b"still there"))
        assert results[0] == b"still there"

    asyncio.run(talk())


def test_foreign_and_mutated_datagrams_on_the_path_do_not_disturb_the_stream(pki: Pki) -> None:
    chance = random.Random(7)

    async def talk() -> None:
        link = Connected(pki)
        client, server = link.client, link.commit_arrives()
        real = link.ends[1].deliver

        def noisy(data: bytes) -> None:
            mutated = bytearray(data)
            mutated[chance.randrange(len(mutated))] ^= 1 << chance.randrange(8)
            real(bytes(mutated))
            real(chance.randbytes(chance.randrange(1, 1300)))
            real(data)
            real(data)
            real(data[: chance.randrange(1, len(data) + 1)])

        link.ends[1].deliver = noisy  # type: ignore[method-assign]
        results = await link.until(read_all(server), send_all(client, b"z" * 200_000))
        assert results[0] == b"z" * 200_000

    asyncio.run(talk())


@pytest.mark.parametrize(("ours", "theirs"), [(30, 30), (9, 30), (30, 12)])
def test_a_killed_peer_is_noticed_after_the_idle_time_that_the_policies_say_and_a_quiet_one_never(
    pki: Pki, ours: int, theirs: int
) -> None:
    async def talk() -> None:
        link = Connected(pki, idle=(ours, theirs))
        server = link.commit_arrives()
        await link.until(link.client.write(b"alive"), server.read())
        link.clock.run(20 * max(ours, theirs))  # nobody says a word, but for probes
        await link.until(link.client.write(b"still"), server.read())
        link.fate = lambda: []  # killed: nothing arrives any more
        killed = link.clock.now
        with pytest.raises(AccordError) as caught:
            await link.until(link.client.read(), seconds=5 * max(ours, theirs))
        assert caught.value.reason is Reason.STREAM_BROKEN
        silent = link.clock.now - killed
        assert min(ours, theirs) - 1 <= silent <= min(ours, theirs) * 4 / 3 + 1

    asyncio.run(talk())
