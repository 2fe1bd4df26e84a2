# SPDX-License-Identifier: Apache-2.0
"""A SYN's numbers are asked for once, and again when nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from accord.datapath import tcp_numbers
from accord.datapath.tcp_numbers import TcpNumbers, numbers_towards
from accord.datapath.zone import SocketAddress
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

HERE, THERE = ("192.0.2.1", 0), ("192.0.2.2", 443)
FRESH, LONG = 10.5, 601.0
"""Seconds after which an answer is renewed, and after which it is of no use."""


class Kernel:
    """Answers with another MSS each time, unless there is no route."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked = 0
        self.route = True

    def monotonic(self) -> float:
        return self.now

    def ask(self, local: SocketAddress, remote: SocketAddress) -> TcpNumbers:
        self.asked += 1
        if not self.route:
            raise error(Reason.CANNOT_INSTALL, "no route")
        return TcpNumbers(1000 + self.asked, 64240, 7, sack=True, timestamps=True)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    made = Kernel()
    monkeypatch.setattr(tcp_numbers, "_ask", made.ask)
    monkeypatch.setattr(tcp_numbers, "time", made)
    monkeypatch.setattr(tcp_numbers, "_IDLE_SECONDS", 0.0)
    tcp_numbers.forget()
    yield made
    tcp_numbers.forget()


def mss(remote: SocketAddress = THERE) -> int:
    return numbers_towards(HERE, remote).mss


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0.001)


def test_whoever_asks_late_waits_for_no_answer_and_the_next_one_has_it(kernel: Kernel) -> None:
    async def work() -> None:
        assert mss() == 1001
        kernel.now += FRESH
        assert [mss(), mss()] == [1001, 1001]
        assert kernel.asked == 1, "not on the way of whoever asks"
        await turns()
        assert kernel.asked == 2, "once for both"
        assert mss() == 1002
        await turns()
        assert kernel.asked == 2, "that one is fresh"

    asyncio.run(work())


def test_an_answer_that_is_too_old_is_given_to_nobody(kernel: Kernel) -> None:
    async def work() -> None:
        assert mss() == 1001
        kernel.now += LONG
        assert mss() == 1002

    asyncio.run(work())


def test_without_an_event_loop_there_is_no_idle_time(kernel: Kernel) -> None:
    assert mss() == 1001
    kernel.now += FRESH
    assert mss() == 1002


def test_a_route_that_is_gone_is_told_to_whoever_asks_next(kernel: Kernel) -> None:
    async def work() -> None:
        assert mss() == 1001
        kernel.now += FRESH
        kernel.route = False
        assert mss() == 1001
        await turns()
        with pytest.raises(AccordError) as refused:
            mss()
        assert refused.value.reason is Reason.CANNOT_INSTALL

    asyncio.run(work())


def test_what_was_forgotten_meanwhile_is_not_renewed(kernel: Kernel) -> None:
    async def work() -> None:
        assert mss() == 1001
        kernel.now += FRESH
        mss()
        tcp_numbers.forget()
        await turns()
        assert kernel.asked == 1
        assert mss() == 1002

    asyncio.run(work())


def test_peers_are_told_apart_and_ports_are_not(kernel: Kernel) -> None:
    assert mss() == mss((THERE[0], 80)) == 1001
    assert mss(("192.0.2.3", 443)) == 1002
