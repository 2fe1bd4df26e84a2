# SPDX-License-Identifier: Apache-2.0
"""Framing: messages keep their boundaries over a stream, and what is no message is refused."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Coroutine
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.negotiation.interface import Answer, Role
from accord.protocols.framed_carrier import FramedCarrier
from accord.protocols.framing import FramingPlugin, FramingSession
from accord.protocols.wishes import Wishes
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.protocols.support import MemoryCarrier, below, memory_pair, payload, refusal, services, view

messages = st.lists(st.binary(max_size=300) | st.integers(300, 5000).map(lambda count: bytes(count)), max_size=12)


def session(role: Role, limit: int = 1 << 20) -> FramingSession:
    return FramingPlugin().open(role, replace(services(role), wishes=Wishes(message_limit=limit)))


def run(work: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


@given(messages, st.integers(1, 100), st.integers(1, 9000))
@settings(max_examples=40, deadline=None)
def test_messages_arrive_with_their_boundaries_however_the_stream_is_cut(sent, split, room) -> None:  # type: ignore[no-untyped-def]
    async def talk() -> None:
        one, other = memory_pair(room, split)
        near, far = FramedCarrier(one, 1 << 20, 1024), FramedCarrier(other, 1024, 1 << 20)

        async def send() -> None:
            for message in sent:
                await near.send(message)
            await near.finish()

        sending = asyncio.create_task(send())
        got = []
        while (message := await far.receive()) is not None:
            got.append(message)
        await sending
        assert got == sent

    run(talk())


@given(st.binary(max_size=4000), st.integers(1, 700), st.integers(1024, 2000))
@settings(max_examples=30, deadline=None)
def test_who_knows_of_no_messages_reads_and_writes_a_stream(data, limit, peers) -> None:  # type: ignore[no-untyped-def]
    async def talk() -> None:
        one, other = memory_pair()
        near, far = FramedCarrier(one, peers, 1024), FramedCarrier(other, 1024, peers)
        await near.write(data)
        await near.finish()
        got = b""
        while piece := await far.read(limit):
            assert len(piece) <= limit
            got += piece
        assert got == data

    run(talk())


def test_the_bytes_below_are_lengths_and_contents_and_nothing_else() -> None:
    async def talk() -> None:
        one, other = memory_pair()
        for message in (b"first", b"", b"second"):
            await FramedCarrier(one, 1024, 1024).send(message)
        assert bytes(other.arrived) == b"\0\0\0\x05first" + b"\0\0\0\0" + b"\0\0\0\x06second"

    run(talk())


async def drain(carrier: FramedCarrier) -> None:
    while await carrier.receive() is not None:
        pass


async def reading(data: bytes, limit: int = 1024) -> AccordError:
    """How a reader fails with what a hostile peer sent."""
    one, other = memory_pair(1 << 20)
    await one.write(data)
    await one.finish()
    carrier = FramedCarrier(other, 1024, limit)
    with pytest.raises(AccordError) as caught:
        await drain(carrier)
    return caught.value


@pytest.mark.parametrize(
    "data",
    [b"\0", b"\0\0\0", b"\0\0\0\x05fir", b"\0\0\0\x01a\0\0\0\x02b", struct.pack(">I", 1025) + bytes(1025), b"\xff" * 8],
)
def test_a_stream_that_ends_within_a_message_or_holds_too_long_a_one_is_broken(data: bytes) -> None:
    async def talk() -> None:
        assert (await reading(data)).reason is Reason.STREAM_BROKEN

    run(talk())


@given(st.binary(max_size=64))
@settings(max_examples=100, deadline=None)
def test_whatever_a_peer_sends_is_messages_or_a_named_end(data) -> None:  # type: ignore[no-untyped-def]
    async def talk() -> None:
        one, other = memory_pair(1 << 20)
        await one.write(data)
        await one.finish()
        carrier, got = FramedCarrier(other, 1024, 1024), b""
        ended = Reason.OK
        try:
            while (message := await carrier.receive()) is not None:
                got += struct.pack(">I", len(message)) + message
        except AccordError as failure:
            ended = failure.reason
        assert data.startswith(got)
        assert ended is (Reason.OK if got == data else Reason.STREAM_BROKEN)

    run(talk())


def test_a_lying_length_takes_no_memory_before_its_bytes_are_there() -> None:
    async def talk() -> None:
        one, other = memory_pair()
        carrier = FramedCarrier(other, 1024, 1 << 24)
        await one.write(struct.pack(">I", 1 << 24) + b"few")
        waiting = asyncio.create_task(carrier.receive())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert len(carrier._arrived) == 3
        waiting.cancel()

    run(talk())


def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    async def talk() -> None:
        one, other = memory_pair()
        carrier = FramedCarrier(other, 1024, 1024)
        await one.write(b"\0\0\0\x04wh")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(carrier.receive(), 0.01)
        await one.write(b"ole")
        assert await carrier.receive() == b"whol"

    run(talk())


def test_a_message_that_the_peer_does_not_take_is_the_callers_mistake_and_breaks_nothing() -> None:
    async def talk() -> None:
        one, other = memory_pair()
        carrier = FramedCarrier(one, 1024, 1024)
        with pytest.raises(AccordError) as caught:
            await carrier.send(bytes(1025))
        assert caught.value.reason is Reason.BAD_CONFIG
        await carrier.send(b"short")
        assert await FramedCarrier(other, 1024, 1024).receive() == b"short"

    run(talk())


def test_a_message_that_was_given_up_half_way_is_the_end_of_sending() -> None:
    async def talk() -> None:
        one, _ = memory_pair(room=16)
        carrier = FramedCarrier(one, 1024, 1024)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(carrier.send(bytes(100)), 0.01)
        with pytest.raises(AccordError) as caught:
            await carrier.send(b"next")
        assert caught.value.reason is Reason.STREAM_BROKEN

    run(talk())


def test_each_side_is_told_the_others_bound() -> None:
    client, server = session(Role.INITIATOR, 4096), session(Role.RESPONDER, 8192)
    proposal = payload(client.propose(view(Role.INITIATOR, 0)))
    assert proposal == bytes.fromhex("00001000")
    answer = payload(server.respond(view(Role.RESPONDER, 0), proposal))
    assert answer == bytes.fromhex("00002000")
    assert client.advance(view(Role.INITIATOR, 1), answer) == Answer(b"")
    assert server.advance(view(Role.RESPONDER, 2), b"") == Answer(b"")
    assert client.inside == {"longest_sent": 8192, "longest_received": 4096}
    assert server.inside == {"longest_sent": 4096, "longest_received": 8192}


@pytest.mark.parametrize("bad", [b"", b"\0\0\x10", b"\0\0\x10\0\0", b"\0\0\x03\xff", bytes(4)])
def test_a_bound_of_the_wrong_form_or_too_small_is_refused(bad: bytes) -> None:
    server = session(Role.RESPONDER)
    assert refusal(server.respond(view(Role.RESPONDER, 0), bad)).reason is Reason.HANDSHAKE_FAILED
    client = session(Role.INITIATOR)
    client.propose(view(Role.INITIATOR, 0))
    assert refusal(client.advance(view(Role.INITIATOR, 1), bad)).reason is Reason.HANDSHAKE_FAILED


def test_there_is_nothing_in_the_commit_and_something_below() -> None:
    server = session(Role.RESPONDER)
    assert refusal(server.respond(view(Role.RESPONDER, 0, under=below()), b"\0\0\x10\0"))
    payload(server.respond(view(Role.RESPONDER, 0), b"\0\0\x10\0"))
    assert refusal(server.advance(view(Role.RESPONDER, 2), b"?")).reason is Reason.HANDSHAKE_FAILED


def test_it_hands_over_no_kernel_socket() -> None:
    async def talk() -> None:
        one, _ = memory_pair()
        assert isinstance(one, MemoryCarrier)
        assert FramedCarrier(one, 1024, 1024).kernel_socket is None

    run(talk())
