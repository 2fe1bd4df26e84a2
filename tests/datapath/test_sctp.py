# SPDX-License-Identifier: Apache-2.0
"""A byte stream over an SCTP association: what the socket is told, over a socket that plays the kernel's."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.datapath.sctp import PPID_DATA, PPID_END, SctpCarrier, sctp_socket
from accord.wire.constants import Reason
from accord.wire.errors import AccordError

Told = list[tuple[int, int, bytes]]


def rcvinfo(ppid: bytes) -> Told:
    """``struct sctp_rcvinfo`` of linux/sctp.h: three u16 and padding, then PPID, TSNs, context, association."""
    return [(132, 3, struct.pack("=HHHxx4sIIIi", 0, 7, 0, ppid, 1, 1, 0, 3))]


class Association:
    """A one-to-one socket: messages with their PPIDs come out, and what is sent is kept."""

    def __init__(self, *messages: tuple[bytes, bytes]) -> None:
        self.messages = deque(messages)
        self.sent: list[tuple[bytes, Told]] = []
        self.options: list[tuple[int, int, int]] = []
        self.shut = False

    def setblocking(self, _: bool) -> None: ...

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options.append((level, option, value))

    def recvmsg(self, limit: int, control: int) -> tuple[bytes, Told, int, None]:
        assert control >= socket.CMSG_SPACE(28)
        if not self.messages:
            return b"", [], 0, None
        data, ppid = self.messages.popleft()
        if len(data) > limit:  # the rest of a message keeps its PPID
            self.messages.appendleft((data[limit:], ppid))
        return data[:limit], rcvinfo(ppid), 0, None

    def sendmsg(self, data: list[Any], told: Told) -> int:
        self.sent.append((b"".join(bytes(each) for each in data), told))
        return len(self.sent[-1][0])

    def recv(self, _: int) -> bytes:
        return b""

    def shutdown(self, _: int) -> None:
        self.shut = True

    def close(self) -> None: ...


def carrier(association: Association) -> SctpCarrier:
    return SctpCarrier(association)  # type: ignore[arg-type]


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.integers(1, 60))
def test_messages_of_any_size_read_in_any_pieces_are_the_stream_that_was_written(data: list[bytes], limit: int) -> None:
    async def read() -> bytes:
        stream = carrier(Association(*((each, PPID_DATA) for each in data), (b"\0", PPID_END)))
        got = b""
        while piece := await stream.read(limit):
            got += piece
        assert await stream.read(limit) == b""
        return got

    assert asyncio.run(read()) == b"".join(data)


def test_an_association_that_ends_before_its_stream_is_a_broken_one() -> None:
    async def read() -> None:
        stream = carrier(Association((b"half", PPID_DATA)))
        assert await stream.read() == b"half"
        await stream.read()

    with pytest.raises(AccordError, match="before its stream") as broken:
        asyncio.run(read())
    assert broken.value.reason is Reason.STREAM_BROKEN


def test_what_is_written_goes_in_messages_of_64_kib_and_its_end_is_said_once() -> None:
    association = Association()

    async def write() -> None:
        stream = carrier(association)
        await stream.write(b"a" * 65537)
        await stream.finish()
        await stream.finish()
        with pytest.raises(AccordError, match="after finish"):
            await stream.write(b"more")
        assert not association.shut, "after SHUTDOWN the peer could not send any more (RFC 9260, section 9.2)"
        await stream.close()

    asyncio.run(write())
    ppids = [told[0][2][4:8] for _, told in association.sent]
    assert [len(data) for data, _ in association.sent] == [65536, 1, 1]
    assert ppids == [PPID_DATA, PPID_DATA, PPID_END]
    assert {told[0][:2] for _, told in association.sent} == {(132, 2)}
    assert association.shut
    assert (132, 32, 1) in association.options, "else no PPID comes with what is read"


def test_a_kernel_without_sctp_says_so_and_one_with_it_gives_a_bound_port() -> None:
    refused: AccordError | None = None
    try:
        with sctp_socket("127.0.0.1") as made:
            port = made.getsockname()[1]
    except AccordError as failure:
        refused, port = failure, 0
    assert port > 0 or refused is not None
    if refused is not None:
        assert refused.reason is Reason.NO_KERNEL_SUPPORT
        assert isinstance(refused.__cause__, OSError)
        assert refused.__cause__.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)
