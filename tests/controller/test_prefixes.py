# SPDX-License-Identifier: Apache-2.0
"""One network has so much of this host at a time, and what it has is taken from nobody else."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.controller.association import Association
from accord.controller.prefixes import BURST_SECONDS, MOST, Prefixes, prefix_of
from accord.controller.status import status
from accord.wire.constants import Reason
from accord.wire.errors import AccordError
from tests.controller.pairs import pair, run

ATTACKER, NEIGHBOUR, HONEST = "198.51.100.7", "198.51.100.200", "203.0.113.9"


class Clock:
    """Moved by hand."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_ipv4_addresses_share_what_their_24_bits_share(
    one: ipaddress.IPv4Address, other: ipaddress.IPv4Address
) -> None:
    assert (prefix_of(str(one)) == prefix_of(str(other))) == (int(one) >> 8 == int(other) >> 8)


@given(st.integers(0, 2**128 - 1), st.integers(0, 2**73))
def test_ipv6_addresses_share_what_their_56_bits_share(number: int, change: int) -> None:
    one, other = ipaddress.IPv6Address(number), ipaddress.IPv6Address(number ^ change)
    if one.ipv4_mapped is None and other.ipv4_mapped is None:
        assert (prefix_of(str(one)) == prefix_of(f"{other}%eth0")) == (int(one) >> 72 == int(other) >> 72)


def test_a_mapped_address_is_the_one_that_it_maps() -> None:
    assert prefix_of(f"::ffff:{ATTACKER}") == prefix_of(ATTACKER)


def test_a_network_has_so_many_stacks_a_second_and_others_are_not_in_its_way() -> None:
    clock = Clock()
    prefixes = Prefixes(clock, associations=0, commits=100)
    come_up: Counter[str] = Counter()
    for _ in range(10 * 1000):  # a second thousand attempts, from two addresses of one network, for ten seconds
        clock.now += 0.001
        for address in (ATTACKER, NEIGHBOUR):
            if prefixes.refusal(address) is None:
                prefixes.committed(address)
                come_up["both"] += 1
    assert come_up["both"] == pytest.approx(100 * (10 + BURST_SECONDS), abs=2)
    refusal = prefixes.refusal(ATTACKER)
    assert refusal is not None
    assert refusal.reason is Reason.OVER_BUDGET
    assert prefixes.refusal(HONEST) is None


def test_who_was_over_its_share_is_not_banned() -> None:
    clock = Clock()
    prefixes = Prefixes(clock, associations=0, commits=10)
    for _ in range(1000):
        prefixes.committed(ATTACKER)
    assert prefixes.refusal(ATTACKER) is not None
    clock.now += 0.2
    assert prefixes.refusal(ATTACKER) is None


def test_associations_of_a_network_are_bounded_until_one_ends() -> None:
    prefixes = Prefixes(Clock(), associations=3, commits=0)
    ends = [prefixes.committed(address) for address in (ATTACKER, ATTACKER, NEIGHBOUR)]
    assert prefixes.refusal(NEIGHBOUR) is not None
    assert prefixes.refusal(HONEST) is None
    ends.pop()()
    assert prefixes.refusal(ATTACKER) is None
    assert prefixes.refused == 1


def test_what_is_only_asked_for_is_charged_to_nobody() -> None:
    """Whoever proposes under a forged address does not use up the share of the network that he pretends to be in."""
    prefixes = Prefixes(Clock(), associations=1, commits=1)
    for _ in range(100_000):
        assert prefixes.refusal(HONEST) is None
    assert len(prefixes) == 0


def test_as_many_networks_as_there_are_take_bounded_memory_and_those_with_associations_stay() -> None:
    clock = Clock()
    prefixes = Prefixes(clock, associations=1, commits=10)
    prefixes.committed(ATTACKER)
    for number in range(3 * MOST):
        clock.now += 0.001
        prefixes.committed(str(ipaddress.IPv4Address(0x0B000000 + (number << 8))))()
    assert len(prefixes) == MOST
    assert prefixes.refusal(ATTACKER) is not None, "what it has open is not forgotten"


def test_without_limits_nobody_is_refused() -> None:
    prefixes = Prefixes(Clock(), associations=0, commits=0)
    for _ in range(10_000):
        prefixes.committed(ATTACKER)
    assert prefixes.refusal(ATTACKER) is None


def test_a_host_refuses_what_is_over_its_share_before_any_handshake_and_takes_it_again_later(tmp_path: Path) -> None:
    async def work() -> None:
        async with pair(tmp_path) as both:
            both.server.prefixes = Prefixes(Clock(), associations=1, commits=0)
            delivered = asyncio.Event()

            async def hold(association: Association, fetch: object) -> None:
                """As a service does: for as long as it lasts."""
                both.accepted.put_nowait(association)
                await delivered.wait()

            both.exposed.deliver = hold
            first = await both.connect()
            await both.accept()
            calls = dict(both.server.guard.calls)
            with pytest.raises(AccordError) as refused:
                await both.connect()
            assert refused.value.reason is Reason.OVER_BUDGET
            assert both.server.guard.calls == calls, "no plug-in was asked for anything"
            assert status(both.server)["networks_over_budget"] == 1
            delivered.set()
            await asyncio.sleep(0)
            second = await both.connect()
            for association in (first, second):
                association.carrier.abort()

    run(work())
