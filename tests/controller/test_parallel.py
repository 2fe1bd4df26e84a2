# SPDX-License-Identifier: Apache-2.0
"""The connection of the parallel SYN: one taker, whoever it is."""

from __future__ import annotations

import asyncio
import socket

import pytest

from accord.controller.adoption.parallel import ParallelSyn
from accord.wire.constants import Reason, TcpOption
from accord.wire.errors import AccordError, error
from accord.wire.tcp_option import decode

TRANSACTION = bytes(range(12))
REFUSED = error(Reason.UNREACHABLE, "nobody is there")


def connected() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection on loopback: ours, the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    theirs.settimeout(5)
    return ours, theirs


def test_the_option_says_adopt_and_names_the_negotiation() -> None:
    assert decode(ParallelSyn(TRANSACTION).option) == (TcpOption.EXID_ADOPT, TRANSACTION)


@pytest.mark.parametrize("settle", ["opened", "failed", "close"])
def test_whoever_waits_is_called_once_and_whoever_comes_later_at_once(settle: str) -> None:
    syn = ParallelSyn(TRANSACTION)
    calls: list[str] = []
    syn.when_connected(lambda: calls.append("waited"))
    ours, theirs = connected()
    match settle:
        case "opened":
            syn.opened(ours, marked=True)
            syn.opened(connected()[0], marked=False)
            assert (syn.connected, syn.marked, syn.failure) == (True, True, None)
        case "failed":
            syn.failed(REFUSED)
            assert (syn.connected, syn.failure) == (False, REFUSED)
        case "close":
            syn.close()
    syn.when_connected(lambda: calls.append("late"))
    assert calls == ["waited", "late"]
    syn.close()
    syn.opened(ours, marked=True)
    assert not syn.connected
    assert theirs.recv(1) == b"", "what nobody wants any more ends with a FIN"
    theirs.close()


def test_the_first_taker_has_the_connection_with_its_first_bytes_sent_and_nobody_else_gets_it() -> None:
    async def main() -> None:
        syn = ParallelSyn(TRANSACTION)
        ours, theirs = connected()
        syn.opened(ours, marked=False)
        carrier = syn.take(b"preface")
        await carrier.write(b" and more")
        assert theirs.recv(16, socket.MSG_WAITALL) == b"preface and more"
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not syn.connected
        with pytest.raises(AccordError) as second:
            syn.take()
        assert second.value.reason is Reason.LEGACY_FIRST
        syn.close()
        await carrier.write(b"still mine")
        await carrier.close()
        theirs.close()

    asyncio.run(main())


def test_a_connection_that_is_broken_already_is_no_connection() -> None:
    syn = ParallelSyn(TRANSACTION)
    ours, theirs = connected()
    syn.opened(ours, marked=False)
    ours.shutdown(socket.SHUT_WR)
    with pytest.raises(AccordError) as broken:
        syn.take(b"preface")
    assert broken.value.reason is Reason.STREAM_BROKEN
    theirs.close()


def test_taking_a_connection_that_failed_raises_why_and_one_that_is_not_there_is_a_mistake() -> None:
    syn = ParallelSyn(TRANSACTION)
    with pytest.raises(RuntimeError, match="before its SYN-ACK"):
        syn.take()
    syn.failed(REFUSED)
    with pytest.raises(AccordError, match="nobody is there"):
        syn.take()
