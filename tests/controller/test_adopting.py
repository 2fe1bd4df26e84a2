# SPDX-License-Identifier: Apache-2.0
"""Accepted connections on loopback and the places that negotiations keep for them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.controller.adoption import adopting
from accord.controller.adoption.adopting import LIMIT, Candidate, Fate
from accord.controller.adoption.table import Result
from accord.wire.constants import Reason, TcpOption
from accord.wire.errors import AccordError
from accord.wire.tcp_option import decode
from tests.controller.ports import HELLO, HERE, ID, OTHER, PREFACE, PROPOSED, RECORD, Port, plain, ports, reset


@ports
async def test_a_connection_that_is_there_when_the_commit_comes_is_the_stream_at_once(port: Port) -> None:
    candidate, theirs = port.connection()
    place = port.expect()
    place.claim(behind_preface=False)
    assert await candidate.fate is Fate.TAKEN
    carrier = place.carrier()
    assert carrier.kernel_socket is candidate.connection, "the kernel's own, which may be handed over"
    theirs.send(RECORD)
    assert await carrier.read() == RECORD
    assert place.found == f"from {HERE}, found by its SYN"
    assert port.results == {Result.BY_SYN: 1}


@ports
async def test_a_stream_whose_connection_comes_after_the_commit_waits_for_it_in_both_directions(port: Port) -> None:
    place = port.expect()
    place.claim(behind_preface=False)
    carrier = place.carrier()
    assert carrier.kernel_socket is None
    reading, writing = asyncio.create_task(carrier.read()), asyncio.create_task(carrier.write(b"first"))
    await asyncio.sleep(0.01)
    assert not reading.done()
    assert not writing.done()
    reading.cancel()  # a reader that is cancelled takes nothing away from the writer, nor from the next reader
    candidate, theirs = port.connection()
    await writing
    assert theirs.recv(10) == b"first"
    theirs.send(RECORD)
    assert await carrier.read() == RECORD
    assert carrier.kernel_socket is candidate.connection
    await carrier.finish()
    assert theirs.recv(10) == b""
    await carrier.close()


@pytest.mark.parametrize("transaction", [None, ID], ids=["without an option", "found by its SYN"])
@pytest.mark.parametrize("order", ["preface first", "commit first", "in pieces"])
def test_the_preface_is_taken_off_and_the_stream_begins_behind_it(order: str, transaction: bytes | None) -> None:
    async def test(port: Port) -> None:
        place = port.expect()
        candidate, theirs = port.connection(transaction)
        if order == "commit first":
            place.claim(behind_preface=True)
            theirs.send(PREFACE + b"GET /")
        elif order == "preface first":
            theirs.send(PREFACE + b"GET /")
            await asyncio.sleep(0.01)
            place.claim(behind_preface=True)
        else:
            place.claim(behind_preface=True)
            for at in range(16):
                theirs.send(PREFACE[at : at + 1])
                await asyncio.sleep(0.001)
                assert candidate.fate.done() == (at == 15) or at == 15
            theirs.send(b"GET /")
        await place.there()
        assert await candidate.fate is Fate.TAKEN
        assert candidate.connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
        carrier = place.carrier()
        await asyncio.sleep(0.01)
        assert await carrier.read() == b"GET /"

    ports(test)()


@ports
async def test_a_connection_that_begins_with_a_client_hello_is_plain_at_once_and_the_commit_after_it_is_refused(
    port: Port,
) -> None:
    candidate, theirs = port.connection()
    place = port.expect()
    theirs.send(HELLO)
    await plain(candidate, HELLO)
    assert port.stopped == [Reason.LEGACY_FIRST], "the negotiation is told, so that nothing of it is done any more"
    with pytest.raises(AccordError) as refused:
        place.claim(behind_preface=False)
    assert refused.value.reason is Reason.LEGACY_FIRST
    place.release()
    assert port.results == {Result.FELL_BACK: 1}


@pytest.mark.parametrize("first", [b"GET / HTTP/1.0\r\n\r\n", b"\xfe", b"\xfe\x10\xac\xc0" + ID, PREFACE[:15]])
def test_any_other_beginning_is_plain_at_once_and_not_a_byte_is_lost(first: bytes) -> None:
    async def test(port: Port) -> None:
        place = port.expect()
        for transaction in (None, ID):
            candidate, theirs = port.connection(transaction)
            theirs.send(first)
            theirs.shutdown(socket.SHUT_WR)  # what might be a preface is one only if it goes on
            await plain(candidate, first)
        place.release()

    ports(test)()


@pytest.mark.parametrize("end", ["record", "finish"])
def test_what_only_an_adopted_connection_begins_with_waits_for_the_commit_or_the_end(end: str) -> None:
    async def test(port: Port) -> None:
        for committed in (True, False):
            candidate, theirs = port.connection()
            place = port.expect()
            if end == "record":
                theirs.send(RECORD)
            else:
                theirs.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.02)
            assert not candidate.fate.done()
            if committed:
                place.claim(behind_preface=False)
                assert await candidate.fate is Fate.TAKEN
                assert await place.carrier().read() == (RECORD if end == "record" else b"")
            elif end == "record":
                place.release()
                assert await candidate.fate is Fate.DROPPED, "no service is given the records of a stack"
                assert await reset(theirs)
            else:
                place.release()
                await plain(candidate, b"")

    ports(test)()


@pytest.mark.parametrize("transaction", [None, ID], ids=["without an option", "found by its SYN"])
@pytest.mark.parametrize("order", ["hello first", "commit first", "in pieces"])
def test_the_proposal_s_own_client_hello_is_taken_off_and_the_stream_begins_behind_it(
    order: str, transaction: bytes | None
) -> None:
    async def test(port: Port) -> None:
        place = port.expect()
        place.greeted_by(PROPOSED)
        candidate, theirs = port.connection(transaction)
        if order == "commit first":
            place.claim(behind_preface=True)
        for start, end in pairwise([0, *((1, 43, 44, 200) if order == "in pieces" else ()), len(PROPOSED)]):
            theirs.send(PROPOSED[start:end])
            await asyncio.sleep(0.01)
        theirs.send(RECORD)
        await asyncio.sleep(0.01)
        assert port.stopped == []
        if order != "commit first":
            assert not candidate.fate.done()
            place.claim(behind_preface=True)
        assert await candidate.fate is Fate.TAKEN
        assert await place.carrier().read() == RECORD
        assert place.found == f"from {HERE}, found by its ClientHello"
        assert candidate.connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1

    ports(test)()


@pytest.mark.parametrize("transaction", [None, ID], ids=["without an option", "found by its SYN"])
def test_a_connection_with_the_proposal_s_client_hello_is_plain_and_whole_when_the_negotiation_ends(
    transaction: bytes | None,
) -> None:
    async def test(port: Port) -> None:
        place = port.expect()
        place.greeted_by(PROPOSED)
        candidate, theirs = port.connection(transaction)
        theirs.send(PROPOSED)
        await asyncio.sleep(0.01)
        assert not candidate.fate.done()
        place.release()
        assert await candidate.fate is Fate.PLAIN
        assert candidate.connection.recv(1000) == PROPOSED

    ports(test)()


@pytest.mark.parametrize("transaction", [None, ID], ids=["without an option", "found by its SYN"])
def test_a_client_hello_that_was_served_before_its_proposal_came_is_never_adopted(transaction: bytes | None) -> None:
    async def test(port: Port) -> None:
        candidate, theirs = port.connection(transaction)
        theirs.send(PROPOSED)
        assert await candidate.fate is Fate.PLAIN
        places = port.places()
        place = places.expect()
        with pytest.raises(AccordError) as refused:
            place.greeted_by(PROPOSED)
        assert refused.value.reason is Reason.LEGACY_FIRST
        place.release()
        with pytest.raises(AccordError) as refused:  # nor by another stack of the same proposal
            places.expect()
        assert refused.value.reason is Reason.LEGACY_FIRST

    ports(test)()


@pytest.mark.parametrize("at", [3, 20, 43, 44, 100, len(PROPOSED) - 1])
def test_a_client_hello_that_differs_in_one_bit_is_another_one(at: int) -> None:
    async def test(port: Port) -> None:
        place = port.expect()
        place.greeted_by(PROPOSED)
        candidate, theirs = port.connection(None)
        other = bytearray(PROPOSED)
        other[at] ^= 1
        theirs.send(other)
        assert await candidate.fate is Fate.PLAIN
        place.release()

    ports(test)()


@pytest.mark.parametrize("negotiated", [True, False], ids=["negotiated about", "not"])
@pytest.mark.parametrize("kind", [0x14, 0x15, 0x17])
def test_what_begins_with_a_record_and_whose_syn_named_a_negotiation_reaches_no_service(
    kind: int, negotiated: bool
) -> None:
    async def test(port: Port) -> None:
        place = port.expect() if negotiated else None
        candidate, theirs = port.connection()
        theirs.send(bytes([kind]) + RECORD[1:])
        await asyncio.sleep(0.01)
        if place is not None:
            place.release()
        assert await candidate.fate is Fate.DROPPED
        assert await reset(theirs)
        anybody, theirs = port.connection(None)  # a service without TLS may expect anything
        theirs.send(bytes([kind]) + RECORD[1:])
        assert await anybody.fate is Fate.PLAIN

    ports(test)()


@ports
async def test_a_stranger_who_is_faster_than_the_proposal_does_not_keep_the_peer_s_own_out(port: Port) -> None:
    thief, evil = port.connection(address="203.0.113.9")
    candidate, theirs = port.connection()
    place = port.expect()
    place.claim(behind_preface=False)
    assert await candidate.fate is Fate.TAKEN
    evil.send(HELLO)
    await plain(thief, HELLO)
    theirs.send(RECORD)
    assert await place.carrier().read() == RECORD


@pytest.mark.parametrize("word", [HELLO, b"GET /", b"", None], ids=["hello", "bare", "end", "reset"])
def test_a_stranger_who_speaks_first_and_leaves_does_not_make_the_peer_s_own_forgotten(word: bytes | None) -> None:
    async def test(port: Port) -> None:
        thief, evil = port.connection(address="203.0.113.9")
        candidate, _ = port.connection()
        if word is None:
            thief.discard()
        else:
            evil.send(word)
            evil.shutdown(socket.SHUT_WR)
            await plain(thief, word)
        place = port.expect()
        place.claim(behind_preface=False)
        assert await candidate.fate is Fate.TAKEN

    ports(test)()


@ports
async def test_plain_words_of_a_stranger_do_not_end_the_negotiation(port: Port) -> None:
    place = port.expect()
    thief, evil = port.connection(address="203.0.113.9")
    evil.send(b"GET /")
    await plain(thief, b"GET /")
    assert port.stopped == []
    candidate, _ = port.connection()
    place.claim(behind_preface=False)
    assert await candidate.fate is Fate.TAKEN


@settings(max_examples=60, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=40),
        st.integers(0, 16).flatmap(lambda kept: st.binary(max_size=20).map(lambda rest: PREFACE[:kept] + rest)),
        st.binary(max_size=20).map(lambda rest: b"\x17\x03\x03" + rest),
    ),
    cuts=st.lists(st.integers(0, 40), max_size=3),
)
def test_the_first_bytes_decide_alone_however_they_are_cut_and_none_is_lost(data: bytes, cuts: list[int]) -> None:
    async def test(port: Port) -> None:
        place = port.expect()
        candidate, theirs = port.connection()
        with contextlib.suppress(OSError):  # reset meanwhile, where that is what has to come
            for start, end in pairwise([0, *sorted(cuts), len(data)]):
                theirs.send(data[start:end])
                await asyncio.sleep(0)
            theirs.shutdown(socket.SHUT_WR)
        whole = decode(data[:16])
        if whole is not None and whole[0] is TcpOption.EXID_ADOPT and whole[1] != ID:
            assert await candidate.fate is Fate.DROPPED, "another negotiation's preface"
            place.release()
            return
        prefaced = data.startswith(PREFACE)
        length = int.from_bytes(data[3:5], "big")
        record = not data or (data[:2] in (b"\x14\x03", b"\x15\x03", b"\x17\x03") and 0 < length <= 16640)
        record = record and len(data) not in range(1, 5)
        if not prefaced and not record:
            await plain(candidate, data)
            place.release()
            return
        await asyncio.sleep(0.002)
        assert not candidate.fate.done()
        place.claim(behind_preface=prefaced)
        await place.there()
        carrier, rest = place.carrier(), b""
        while piece := await carrier.read():
            rest += piece
        assert rest == (data[16:] if prefaced else data)

    ports(test)()


@ports
async def test_an_unknown_id_is_plain_as_soon_as_it_speaks_and_leaves_nothing(port: Port) -> None:
    for first in (HELLO, b"GET /"):
        candidate, theirs = port.connection()
        theirs.send(first)
        await plain(candidate, first)
        assert len(port.adopter._registry) == 0


@ports
async def test_a_preface_that_nobody_waits_for_is_reset_and_never_reaches_a_service(port: Port) -> None:
    known = port.expect(OTHER)
    for transaction in (None, ID, OTHER):
        candidate, theirs = port.connection(transaction)
        theirs.send(PREFACE)
        assert await candidate.fate is Fate.DROPPED
        assert await reset(theirs)
    known.release()


@ports
async def test_a_connection_is_found_when_the_proposal_is_answered_only_after_it_was_accepted(port: Port) -> None:
    candidate, theirs = port.connection()
    await asyncio.sleep(0.01)
    assert not candidate.fate.done(), "as a plain one it has time to speak"
    place = port.expect()
    place.claim(behind_preface=False)
    assert await candidate.fate is Fate.TAKEN
    await place.carrier().write(b"220 ready")
    assert theirs.recv(10) == b"220 ready", "a server may speak first"


@ports
async def test_the_second_connection_with_an_id_is_a_plain_one(port: Port) -> None:
    place = port.expect()
    first, _ = port.connection()
    second, theirs = port.connection()
    place.claim(behind_preface=False)
    assert await first.fate is Fate.TAKEN
    assert not second.fate.done()
    theirs.send(HELLO)
    await plain(second, HELLO)


@ports
async def test_somebody_who_saw_the_id_cannot_take_the_peer_s_place_from_elsewhere(port: Port) -> None:
    place = port.expect()
    thief, evil = port.connection(address="203.0.113.9")
    candidate, theirs = port.connection()
    place.claim(behind_preface=False)
    assert await candidate.fate is Fate.TAKEN
    evil.send(HELLO)
    await plain(thief, HELLO)
    theirs.send(RECORD)
    assert await place.carrier().read() == RECORD


@ports
async def test_a_connection_from_another_address_is_taken_when_no_other_comes(port: Port) -> None:
    place = port.expect()
    candidate, _ = port.connection(address="203.0.113.9")
    place.claim(behind_preface=False)
    assert await candidate.fate is Fate.TAKEN
    assert "203.0.113.9" in place.found


@ports
async def test_a_connection_that_never_comes_fails_the_stream_in_bounded_time(port: Port) -> None:
    adopting.WAIT_SECONDS, before = 0.02, adopting.WAIT_SECONDS
    try:
        place = port.expect()
        place.claim(behind_preface=True)
    finally:
        adopting.WAIT_SECONDS = before
    carrier = place.carrier()
    for use in (carrier.read(), carrier.write(b"x"), place.there(), carrier.finish()):
        with pytest.raises(AccordError) as never:
            await use
        assert never.value.reason is Reason.TIMEOUT
    await carrier.close()
    carrier.abort()
    assert port.results == {Result.NEVER_CAME: 1}


@ports
async def test_a_stream_that_is_aborted_before_its_connection_is_there_gives_the_place_up(port: Port) -> None:
    for end in ("abort", "close"):
        place = port.expect()
        place.claim(behind_preface=False)
        carrier = place.carrier()
        if end == "abort":
            carrier.abort()
        else:
            await carrier.close()
        assert len(port.adopter._registry) == 0
        candidate, theirs = port.connection()
        theirs.send(HELLO)
        await plain(candidate, HELLO)


@ports
async def test_a_release_after_the_claim_closes_the_connection_unless_somebody_has_its_stream(port: Port) -> None:
    candidate, theirs = port.connection()
    place = port.expect()
    place.claim(behind_preface=False)
    assert await candidate.fate is Fate.TAKEN
    place.release()
    assert await reset(theirs)
    candidate, theirs = port.connection()
    place = port.expect()
    place.claim(behind_preface=False)
    carrier = place.carrier()
    place.release()
    await carrier.write(b"still here")
    assert theirs.recv(20) == b"still here"


@ports
async def test_a_peer_that_resets_its_silent_connection_frees_the_place(port: Port) -> None:
    place = port.expect()
    candidate, theirs = port.connection()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    assert await candidate.fate is Fate.DROPPED
    second, _ = port.connection()
    place.claim(behind_preface=False)
    assert await second.fate is Fate.TAKEN


@ports
async def test_only_a_connection_that_somebody_waits_for_may_pass_those_that_say_nothing(port: Port) -> None:
    assert not port.adopter.expects(None)
    assert not port.adopter.expects(ID)
    for behind in (False, True):
        place = port.expect()
        assert port.adopter.expects(ID)
        place.claim(behind_preface=behind)
        assert port.adopter.expects(ID)
        place.release()
        assert not port.adopter.expects(ID)
    candidate, theirs = port.connection()
    assert not port.adopter.expects(ID), "it was let in as anybody"
    theirs.send(HELLO)
    await plain(candidate, HELLO)


@ports
async def test_with_the_port_everything_that_waits_ends(port: Port) -> None:
    waiting, claimed = port.expect(), port.expect(OTHER)
    claimed.claim(behind_preface=False)
    candidate, theirs = port.connection()
    port.adopter.close()
    with pytest.raises(AccordError):
        await claimed.there()
    candidate.discard()
    assert await reset(theirs)
    waiting.release()


@ports
async def test_ten_thousand_connections_with_guessed_ids_leave_every_place_free(port: Port) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    place = port.expect()
    kept = []
    for number in range(10_000):
        candidate = Candidate(port.adopter, ours, "203.0.113.9")
        port.adopter.found(candidate, number.to_bytes(12, "little"), adopting.Event.SYN)
        kept.append(candidate)
    assert len(port.adopter._registry) == 2 * LIMIT
    candidate, _ = port.connection()
    place.claim(behind_preface=False)
    assert await candidate.fate is Fate.TAKEN
    for guess in kept:
        if guess.transaction is not None:
            port.adopter.said(guess, adopting.Event.GONE)
    ours.close()
    theirs.close()
