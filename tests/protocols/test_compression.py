# SPDX-License-Identifier: Apache-2.0
"""Compression: data comes out as it went in, zlib is the judge of the bytes, and bombs are refused."""

from __future__ import annotations

import asyncio
import random
import struct
import zlib
from collections.abc import Coroutine
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accord.negotiation.interface import Answer, Role
from accord.protocols.compressed_carrier import CompressedCarrier
from accord.protocols.compression import BLOCK_BYTES, FACTOR, CompressionPlugin, CompressionSession
from accord.protocols.deflate import DICTIONARIES, Bounds, Packer, Unpacker
from accord.protocols.wishes import CompressionWishes, Wishes
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.protocols.support import below, memory_pair, payload, refusal, services, view

BOUNDS = Bounds(15, 1024, 64)
PROPOSAL = bytes.fromhex("0f 8000 0100 01")
TEXT = b"GET /index.html HTTP/1.1\r\nHost: server.accord.test\r\nAccept: */*\r\n\r\n"


def session(role: Role, window: int = 15, level: int = 6) -> CompressionSession:
    wishes = Wishes(compression=CompressionWishes(level, window))
    return CompressionPlugin().open(role, replace(services(role), wishes=wishes))


def run(work: Coroutine[object, object, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


compressible = st.builds(lambda piece, times: piece * times, st.binary(min_size=1, max_size=20), st.integers(1, 400))
contents = st.lists(st.binary(max_size=600) | compressible, max_size=8)


@given(contents, st.integers(1, 9), st.integers(9, 15), st.sampled_from([0, 1]), st.integers(1, 500))
@settings(max_examples=60, deadline=None)
def test_data_comes_out_as_it_went_in_however_the_stream_is_cut(sent, level, window, dictionary, split) -> None:  # type: ignore[no-untyped-def]
    async def talk() -> None:
        one, other = memory_pair(4096, split)
        near = CompressedCarrier(one, Packer(BOUNDS, level, window, dictionary), Unpacker(BOUNDS, window))
        far = CompressedCarrier(other, Packer(BOUNDS, level, window), Unpacker(BOUNDS, window, dictionary))

        async def send() -> None:
            for piece in sent:
                await near.write(piece)
            await near.finish()

        sending = asyncio.create_task(send())
        got = b""
        while piece := await far.read(777):
            got += piece
        await sending
        assert got == b"".join(sent)

    run(talk())


@given(contents, st.sampled_from([0, 1]))
@settings(max_examples=40, deadline=None)
def test_the_blocks_are_one_deflate_stream_as_zlib_reads_it(sent, dictionary) -> None:  # type: ignore[no-untyped-def]
    packer = Packer(BOUNDS, 6, 15, dictionary)
    whole, zlib_s = b"".join(sent), zlib.decompressobj(-15, zdict=DICTIONARIES[1] if dictionary else b"")
    blocks = b"".join(packer.pack(whole[at : at + 1024]) for at in range(0, len(whole), 1024))
    got, at = b"", 0
    while at < len(blocks):
        packed, unpacked = struct.unpack_from(">HH", blocks, at)
        piece = zlib_s.decompress(blocks[at + 4 : at + 4 + packed])
        assert len(piece) == unpacked <= packed * BOUNDS.factor
        got, at = got + piece, at + 4 + packed
    assert got == whole


def test_text_gets_shorter_and_more_so_with_what_came_before_it() -> None:
    packer = Packer(BOUNDS, 6, 15)
    lengths = [len(packer.pack(TEXT)) for _ in range(3)]
    assert lengths[1] <= lengths[0] // 3
    assert len(packer.pack(TEXT * 9)) < len(TEXT)
    assert len(Packer(BOUNDS, 6, 15, 1).pack(TEXT)) < lengths[0]


def test_what_packs_too_well_is_sent_longer_than_it_need_be_and_still_arrives() -> None:
    packer, unpacker = Packer(Bounds(15, 1024, 16), 9, 15), Unpacker(Bounds(15, 1024, 16), 15)
    for _ in range(3):
        block = packer.pack(bytes(1024))
        packed, unpacked = unpacker.check(block[:4])
        assert packed >= 1024 // 16
        assert unpacker.unpack(block[4:], unpacked) == bytes(1024)


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)


def block(packed: bytes, unpacked: int) -> bytes:
    return struct.pack(">HH", len(packed), unpacked) + packed


async def drain(carrier: CompressedCarrier) -> None:
    while await carrier.read():
        pass


async def reading(data: bytes) -> AccordError:
    one, other = memory_pair(1 << 20)
    await one.write(data)
    await one.finish()
    carrier = CompressedCarrier(other, Packer(BOUNDS, 6, 15), Unpacker(BOUNDS, 15))
    with pytest.raises(AccordError) as caught:
        await drain(carrier)
    with pytest.raises(AccordError) as again:
        await carrier.read()
    assert again.value is caught.value, "nothing is read after that"
    return caught.value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (block(deflated(bytes(60_000)), 1024), Reason.DECOMPRESSION_BOMB),  # more than it says
        (block(deflated(bytes(60_000)), 60_000), Reason.DECOMPRESSION_BOMB),  # more than a block may have
        (block(deflated(bytes(1024))[:9], 1024), Reason.DECOMPRESSION_BOMB),  # grows by more than the factor
        (block(deflated(bytes(1024)) + bytes(1), 1025), Reason.DECOMPRESSION_BOMB),
        (block(deflated(b"ab" * 9), 19), Reason.STREAM_BROKEN),  # less than it says
        (block(deflated(b"abc"), 2), Reason.DECOMPRESSION_BOMB),
        (block(b"", 1), Reason.STREAM_BROKEN),
        (block(deflated(b"abc"), 0), Reason.STREAM_BROKEN),
        (block(zlib.compress(b"abc"), 3), Reason.STREAM_BROKEN),  # zlib's own header
        (block(b"\xff" * 20, 20), Reason.STREAM_BROKEN),
        (block(b"\x03\x00" + bytes(8), 1), Reason.STREAM_BROKEN),  # deflate's last block: empty
        (block(zlib.compressobj(9, zlib.DEFLATED, -15).flush() + bytes(4), 1), Reason.STREAM_BROKEN),
        (block(deflated(b"whole"), 5)[:-1], Reason.STREAM_BROKEN),
        (b"\0", Reason.STREAM_BROKEN),
        (block(deflated(b"good"), 4) + b"\0\1", Reason.STREAM_BROKEN),
    ],
)
def test_a_bomb_or_what_is_no_block_is_refused_by_its_name(data: bytes, reason: Reason) -> None:
    async def talk() -> None:
        assert (await reading(data)).reason is reason

    run(talk())


@given(st.binary(max_size=200), st.integers(0, 64), st.binary(min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_a_hostile_stream_gives_no_more_than_was_agreed_and_ends_by_a_name(text, at, junk) -> None:  # type: ignore[no-untyped-def]
    async def talk() -> None:
        packer = Packer(BOUNDS, 6, 15)
        data = b"".join(packer.pack(piece) for piece in (text or b"x", TEXT))
        data = data[:at] + junk + data[at + len(junk) :]
        one, other = memory_pair(1 << 20)
        await one.write(data)
        await one.finish()
        carrier, got = CompressedCarrier(other, packer, Unpacker(BOUNDS, 15)), 0
        ended = Reason.OK
        try:
            while piece := await carrier.read():
                got += len(piece)
                assert len(piece) <= BOUNDS.block
        except AccordError as failure:
            ended = failure.reason
        assert ended in (Reason.OK, Reason.DECOMPRESSION_BOMB, Reason.STREAM_BROKEN)
        assert got <= len(data) * BOUNDS.factor

    run(talk())


def test_a_reader_that_is_cancelled_loses_nothing() -> None:
    async def talk() -> None:
        one, other = memory_pair()
        carrier = CompressedCarrier(other, Packer(BOUNDS, 6, 15), Unpacker(BOUNDS, 15))
        data = Packer(BOUNDS, 6, 15).pack(b"whole")
        await one.write(data[:7])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(carrier.read(), 0.01)
        await one.write(data[7:])
        assert await carrier.read(2) + await carrier.read() == b"whole"

    run(talk())


def test_a_write_that_was_given_up_half_way_is_the_end_of_writing() -> None:
    async def talk() -> None:
        one, _ = memory_pair(room=16)
        carrier = CompressedCarrier(one, Packer(BOUNDS, 6, 15), Unpacker(BOUNDS, 15))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(carrier.write(random.Random(1).randbytes(100)), 0.01)
        with pytest.raises(AccordError) as caught:
            await carrier.write(b"next")
        assert caught.value.reason is Reason.STREAM_BROKEN

    run(talk())


def test_both_sides_use_the_smaller_window_and_one_dictionary() -> None:
    client, server = session(Role.INITIATOR, window=10), session(Role.RESPONDER, level=9)
    proposal = payload(client.propose(view(Role.INITIATOR, 0)))
    assert proposal == b"\x0a" + PROPOSAL[1:]
    answer = payload(server.respond(view(Role.RESPONDER, 0), proposal))
    assert answer == b"\x0f" + struct.pack(">HH", BLOCK_BYTES, FACTOR) + b"\x01"
    assert client.advance(view(Role.INITIATOR, 1), answer) == Answer(b"")
    assert client.inside == {"algorithm": "deflate", "level": 6, "window": 1024, "dictionary": 1}
    assert server.inside == {"algorithm": "deflate", "level": 9, "window": 1024, "dictionary": 1}


@pytest.mark.parametrize(("offered", "chosen"), [("", 0), ("01", 1), ("02", 0), ("0105ff", 1)])
def test_a_dictionary_is_used_only_if_both_have_it(offered: str, chosen: int) -> None:
    server = session(Role.RESPONDER)
    answer = payload(server.respond(view(Role.RESPONDER, 0), PROPOSAL[:5] + bytes.fromhex(offered)))
    assert answer[5:] == bytes((chosen,))


@pytest.mark.parametrize(
    "bad", ["", "0f", "0f800001", "088000010001", "108000010001", "0f00ff010001", "0f8000000f01", "0f800001000201",
            "0f80000100ff00", "0f8000010000", "0f80000100" + "01" * 2]
)  # fmt: skip
def test_bounds_of_the_wrong_form_are_refused(bad: str) -> None:
    server = session(Role.RESPONDER)
    assert refusal(server.respond(view(Role.RESPONDER, 0), bytes.fromhex(bad))).reason is Reason.HANDSHAKE_FAILED


@pytest.mark.parametrize("bad", ["", "0f80000100", "0f8000010002", "0f800001000100", "088000010001"])
def test_an_answer_of_the_wrong_form_or_with_an_unknown_dictionary_is_refused(bad: str) -> None:
    client = session(Role.INITIATOR)
    client.propose(view(Role.INITIATOR, 0))
    assert refusal(client.advance(view(Role.INITIATOR, 1), bytes.fromhex(bad))).reason is Reason.HANDSHAKE_FAILED


@given(st.binary(max_size=40))
def test_any_payload_is_taken_or_refused(data) -> None:  # type: ignore[no-untyped-def]
    server = session(Role.RESPONDER)
    server.respond(view(Role.RESPONDER, 0), data)
    client = session(Role.INITIATOR)
    client.propose(view(Role.INITIATOR, 0))
    client.advance(view(Role.INITIATOR, 1), data)


def test_there_is_nothing_in_the_commit_and_something_below() -> None:
    server = session(Role.RESPONDER)
    assert refusal(server.respond(view(Role.RESPONDER, 0, under=below()), PROPOSAL))
    payload(server.respond(view(Role.RESPONDER, 0), PROPOSAL))
    assert refusal(server.advance(view(Role.RESPONDER, 2), b"?")).reason is Reason.HANDSHAKE_FAILED
