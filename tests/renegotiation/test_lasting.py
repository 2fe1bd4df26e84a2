# SPDX-License-Identifier: Apache-2.0
"""Data goes over from stack to stack: nothing of it twice, nothing lost, no end taken for another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.controller.bridge import bridge
from accord.controller.renegotiation import lasting
from accord.controller.renegotiation.identity import HELLO_BYTES, Identity
from accord.controller.renegotiation.lasting import LastingCarrier
from accord.controller.renegotiation.table import State
from accord.negotiation.interface import Role
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error
from tests.renegotiation.pipes import End, association, identity, joined

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """To the end; nothing here may hang."""

    async def bounded() -> T:
        async with asyncio.timeout(4):
            return await work

    return asyncio.run(bounded())


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came")


async def send(carrier: LastingCarrier, data: bytes, pause: int = 0) -> None:
    for at in range(0, len(data), 5):
        await carrier.write(data[at : at + 5])
        await turns(pause)
    await carrier.finish()


async def receive(carrier: LastingCarrier, pause: int = 0) -> bytes:
    gathered = b""
    while data := await carrier.read(4):
        gathered += data
        await turns(pause)
    return gathered


def negotiated(one: LastingCarrier, other: LastingCarrier, number: int, late: int = 0) -> tuple[End, End]:
    """A stack is negotiated and committed: at the initiator first, at the responder ``late`` turns later; or before."""
    assert one.begin()
    assert other.begin()
    ours, theirs = joined(2)
    one.came_up(ours, identity(number))
    asyncio.get_running_loop().create_task(_later(other, theirs, number, late))
    return ours, theirs


async def _later(other: LastingCarrier, carrier: End, number: int, late: int) -> None:
    await turns(late)
    other.came_up(carrier, identity(number))


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=120),
    st.binary(max_size=120),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), max_size=5),
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
)
def test_whatever_is_sent_arrives_once_and_in_order_however_often_the_stack_changes(
    there: bytes, back: bytes, changes: list[tuple[int, int]], pauses: tuple[int, int, int, int]
) -> None:
    async def play() -> tuple[bytes, bytes]:
        one, other = association()
        work = asyncio.gather(
            send(one, there, pauses[0]),
            send(other, back, pauses[1]),
            receive(one, pauses[2]),
            receive(other, pauses[3]),
        )
        for number, (before, late) in enumerate(changes, 2):
            await turns(before)
            negotiated(one, other, number, late)
            await one.steady()
            await other.steady()
            assert (one.generation, other.generation) == (number, number)
            assert one.identity == other.identity == identity(number)
        _, _, came_back, came_there = await work
        await asyncio.gather(one.close(), other.close())
        return came_there, came_back

    assert run(play()) == (there, back)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 110), st.booleans(), st.integers(0, 60), st.integers(0, 40))
def test_a_next_stack_that_breaks_at_any_byte_loses_no_data_unnoticed(
    at: int, initiators: bool, before: int, late: int
) -> None:
    """Whoever reads to an end without an error has read everything; and before the initiator's hello, all goes on."""
    there, back = bytes(range(100)), bytes(range(100, 200))

    async def play() -> tuple[object, object, bool]:
        one, other = association()
        one.on_called_off = lambda following: other.called_off()
        work = [
            asyncio.create_task(task)
            for task in (receive(other), receive(one), send(one, there, 1), send(other, back, 1))
        ]
        await turns(before)
        ours, theirs = negotiated(one, other, 2, late)
        (ours if initiators else theirs).outgoing.breaks_after = at
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_EXCEPTION)
        if any(task.exception() for task in done):
            one.abort()
            other.abort()
        came_there, came_back, *_ = await asyncio.gather(*work, return_exceptions=True)
        return came_there, came_back, not initiators and at < 32

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lasting, "_DOUBT_SECONDS", 0.3)
        came_there, came_back, early = run(play())
    for came, sent in ((came_there, there), (came_back, back)):
        if isinstance(came, bytes):
            assert came == sent
        else:
            assert isinstance(came, AccordError)
            assert not early, "the initiator has not said hello"


def test_an_idle_association_changes_and_then_carries_data() -> None:
    async def play() -> tuple[bytes, bytes]:
        one, other = association()
        readers = [asyncio.create_task(one.read()), asyncio.create_task(other.read())]
        negotiated(one, other, 2)
        await asyncio.gather(one.steady(), other.steady())
        await one.write(b"to")
        await other.write(b"fro")
        return (await readers[0], await readers[1])

    assert run(play()) == (b"fr", b"to")


@pytest.mark.parametrize("finished", ["initiator", "responder", "both"])
def test_a_direction_that_had_ended_before_the_change_stays_ended(finished: str) -> None:
    async def play() -> None:
        one, other = association()
        if finished != "responder":
            await send(one, b"a")
            assert await receive(other) == b"a"
        if finished != "initiator":
            await send(other, b"b")
            assert await receive(one) == b"b"
        negotiated(one, other, 2)
        left = [receive(end) for end, who in ((one, "initiator"), (other, "responder")) if finished == who]
        rest = [asyncio.create_task(work) for work in left]
        await until(lambda: one.generation == other.generation == 2)
        if finished == "initiator":
            await send(other, b"later")
        elif finished == "responder":
            await send(one, b"later")
        assert [await work for work in rest] == [b"later"] * len(rest)
        await asyncio.gather(one.close(), other.close())

    run(play())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 80), st.integers(0, 80), st.integers(0, 30))
def test_both_applications_may_close_at_any_moment_of_a_change(first: int, second: int, late: int) -> None:
    async def play() -> list[bytes]:
        one, other = association()

        async def application(end: LastingCarrier, when: int, says: bytes) -> bytes:
            reader = asyncio.create_task(receive(end))
            await turns(when)
            await send(end, says)
            came = await reader
            await end.close()
            return came

        ends = [
            asyncio.create_task(application(one, first, b"one's")),
            asyncio.create_task(application(other, second, b"other's")),
        ]
        await turns(20)
        begun = one.begin()
        if begun and other.begin():
            ours, theirs = joined(2)
            one.came_up(ours, identity(2))
            await _later(other, theirs, 2, late)
        elif begun:
            one.failed(error(Reason.NO_ASSOCIATION))
        return await asyncio.gather(*ends)

    assert run(play()) == [b"other's", b"one's"]


def test_a_stranger_on_the_next_stack_is_not_moved_to() -> None:
    async def play() -> None:
        one, other = association()
        assert one.begin()
        ours, strangers = joined()
        one.came_up(ours, identity(2))
        await strangers.write(bytes(32))
        await one.steady()
        assert one.failure is not None
        assert one.failure.reason is Reason.BAD_MAC
        assert strangers.incoming.carried == 0, "nothing was said to it"
        await one.write(b"x")
        assert await other.read() == b"x"

    run(play())


def test_a_count_that_is_not_what_came_breaks_the_stream_on_both_sides() -> None:
    async def play() -> None:
        one, other = association()
        await one.write(b"abc")
        assert await other.read() == b"abc"
        one.sent += 1
        negotiated(one, other, 2)
        with pytest.raises(AccordError, match="3 bytes have come") as caught:
            await receive(other)
        assert caught.value.reason is Reason.STREAM_BROKEN

    run(play())


def test_silence_on_the_next_stack_is_called_off_and_the_old_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "HELLO_SECONDS", 0.01)

    async def play() -> None:
        one, other = association()
        told: list[object] = []
        one.on_called_off = told.append
        assert one.begin()
        ours, _ = joined()
        one.came_up(ours, identity(2))
        await one.steady()
        assert (one.state, one.generation) == (State.STEADY, 1)
        assert one.failure is not None
        assert one.failure.reason is Reason.TIMEOUT
        assert told == [identity(2)]
        assert ours.closed
        await one.write(b"x")
        assert await other.read() == b"x"

    run(play())


def test_in_doubt_an_end_is_an_error_unless_the_initiator_calls_the_change_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "_DOUBT_SECONDS", 0.02)

    async def play(called_off: bool) -> bytes:
        one, other = association()
        assert other.begin()
        strangers, theirs = joined()
        other.came_up(theirs, identity(2))
        await turns(5)
        strangers.abort()
        await until(lambda: other.state is State.DOUBTFUL)
        await one.write(b"abc")
        await one.finish()
        reader = asyncio.create_task(receive(other))
        await turns(5)
        if called_off:
            other.called_off()
        return await reader

    assert run(play(True)) == b"abc"
    with pytest.raises(AccordError, match="data may be missing"):
        run(play(False))


def test_a_second_change_is_refused_until_the_first_is_over() -> None:
    async def play() -> None:
        one, other = association()
        assert one.begin()
        assert not one.begin()
        one.failed(error(Reason.NO_COMMON_STACK))
        assert one.begin()
        assert other.begin()
        assert not other.begin()

    run(play())


def test_a_responder_takes_a_new_proposal_while_it_awaits_the_hello_of_the_one_before() -> None:
    async def play() -> None:
        one, other = association()
        assert other.begin()
        _, theirs = joined()
        other.came_up(theirs, identity(2))
        await turns(3)
        assert other.begin(), "whoever proposes has not moved"
        assert theirs.closed
        assert one.begin()
        ours, theirs = joined()
        one.came_up(ours, identity(3))
        other.came_up(theirs, identity(3))
        readers = [asyncio.create_task(one.read()), asyncio.create_task(other.read())]
        await asyncio.gather(one.steady(), other.steady())
        assert other.identity == identity(3)
        for reader in readers:
            reader.cancel()

    run(play())


def test_a_peer_that_dies_in_the_middle_leaves_an_error_and_no_end() -> None:
    async def play() -> None:
        one, other = association()
        assert other.begin()
        crashed, theirs = joined()
        other.came_up(theirs, identity(2))
        while crashed.incoming.carried < HELLO_BYTES:
            await crashed.read()
        await crashed.write(identity(1).hello(one.role, identity(2)))
        await until(lambda: other.state is State.MOVED)
        reader = asyncio.create_task(receive(other))
        crashed.abort()
        one.abort()
        with pytest.raises(AccordError):
            await reader

    run(play())


def test_a_bridge_sees_nothing_of_a_change() -> None:
    async def play() -> tuple[bytes, bytes]:
        one, other = association()
        program, near = joined()
        service, far = joined()
        bridges = [asyncio.create_task(bridge(near, one)), asyncio.create_task(bridge(far, other))]

        async def talk(end: End, says: bytes) -> bytes:
            reader = asyncio.create_task(_all(end))
            await end.write(says)
            await end.finish()
            return await reader

        ways = asyncio.gather(talk(program, bytes(range(90))), talk(service, bytes(range(90, 250))))
        await turns(30)
        negotiated(one, other, 2, 10)
        came = await ways
        assert [await each for each in bridges] == [None, None]
        return came[0], came[1]

    assert run(play()) == (bytes(range(90, 250)), bytes(range(90)))


async def _all(end: End) -> bytes:
    gathered = b""
    while data := await end.read():
        gathered += data
    return gathered


@pytest.mark.parametrize("responder_first", [True, False])
def test_an_association_that_is_closed_while_its_next_stack_is_negotiated_ends_as_it_should(
    responder_first: bool,
) -> None:
    """The responder has committed, and cannot know whether the end of the old stack is the end of the data."""

    async def play() -> tuple[bytes, float, int]:
        one, other = association()
        assert one.begin()
        assert other.begin()
        ours, theirs = joined(2)
        if responder_first:
            other.came_up(theirs, identity(2))
        await one.write(b"all")
        reading = asyncio.create_task(receive(other))
        closing = asyncio.create_task(one.close())
        await turns(50)
        assert not closing.done()
        began = asyncio.get_running_loop().time()
        one.came_up(ours, identity(2))
        if not responder_first:
            other.came_up(theirs, identity(2))
        came = await reading
        took = asyncio.get_running_loop().time() - began
        other.abort()  # nobody reads what it says any more
        await closing
        return came, took, one.generation

    came, took, generation = run(play())
    assert came == b"all"
    assert took < lasting._DOUBT_SECONDS / 4
    assert generation == 2 or not responder_first


def test_an_association_that_is_closed_while_a_negotiation_fails_is_closed_then() -> None:
    async def play() -> bytes:
        one, other = association()
        assert one.begin()
        await one.write(b"all")
        reading = asyncio.create_task(receive(other))
        closing = asyncio.create_task(one.close())
        await turns(50)
        assert not one.begin()
        came = await reading  # the end of the data does not wait for the negotiation
        assert not closing.done()
        one.failed(error(Reason.TIMEOUT))
        await other.close()
        await closing
        assert one.state is State.BROKEN
        return came

    assert run(play()) == b"all"


# ---- The first stack is nobody's at the other end ----


async def _made(carrier: End, number: int = 2) -> tuple[End, Identity]:
    await turns(3)
    return carrier, identity(number)


def test_another_stack_in_the_first_one_s_place_is_seen_by_nobody_who_reads_or_writes() -> None:
    async def play() -> None:
        one, _ = association()
        renamed: list[Identity] = []
        one.on_replaced = lambda: renamed.append(one.identity)
        reading = asyncio.create_task(receive(one))
        await turns(5)
        ours, theirs = joined(2)
        assert one.begin_anew(lambda: _made(ours))
        assert not one.begin(), "nobody changes what is not there yet"
        writing = asyncio.create_task(send(one, b"a request"))
        other = LastingCarrier(theirs, Role.RESPONDER, lambda: identity(2))
        assert await receive(other) == b"a request"
        await send(other, b"and its answer")
        assert await reading == b"and its answer"
        await writing
        assert (renamed, one.generation, one.sent, one.received) == ([identity(2)], 1, 9, 14)
        assert one.state is State.STEADY

    run(play())


@pytest.mark.parametrize("used", ["written", "read", "finished", "closed", "aborted", "once before"])
def test_a_stack_that_has_been_used_has_no_other_in_its_place(used: str) -> None:
    async def play() -> None:
        one, other = association()
        match used:
            case "written":
                await one.write(b"x")
            case "read":
                await other.write(b"x")
                await one.read()
            case "finished":
                await one.finish()
            case "closed":
                await one.close()
            case "aborted":
                one.abort()
            case "once before":
                assert one.begin_anew(lambda: _made(joined()[0]))
                await until(lambda: one.identity == identity(2))
        assert not one.begin_anew(lambda: _made(joined()[0], 3))

    run(play())


def test_when_no_other_stack_is_to_be_had_whoever_reads_or_writes_is_told_why() -> None:
    async def none() -> tuple[End, Identity]:
        await turns(3)
        raise error(Reason.UNREACHABLE)

    async def play() -> None:
        one, _ = association()
        reading = asyncio.create_task(one.read())
        await turns(5)
        assert one.begin_anew(none)
        with pytest.raises(AccordError, match="cannot be reached"):
            await one.write(b"x")
        with pytest.raises(AccordError, match="cannot be reached"):
            await reading
        assert one.sent == 0

    run(play())


def test_an_abort_while_another_stack_is_made_leaves_nothing_of_it() -> None:
    async def play(wait: int) -> None:
        one, _ = association()
        reading = asyncio.create_task(one.read())
        await turns(5)
        ours, _ = joined()
        assert one.begin_anew(lambda: _made(ours))
        await turns(wait)
        one.abort()
        with pytest.raises(AccordError):
            await reading
        await turns(5)
        assert ours.closed or wait < 4, "what was there is closed"

    for wait in range(8):
        run(play(wait))
