# SPDX-License-Identifier: Apache-2.0
"""Another gateway is another network; none is none."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from accord.controller.peers import network
from accord.controller.peers.network import Gateways, NetworkWatch, gateways
from accord.lab import namespace

HOME: Gateways = frozenset({("eth0", "0101A8C0")})
AWAY: Gateways = frozenset({("eth0", "0101A8C1")})


def changes(*seen: Gateways) -> int:
    """How often a watch that sees these in turn calls."""
    calls: list[None] = []
    views = iter(seen)
    watch = NetworkWatch(lambda: calls.append(None), lambda: next(views))
    for _ in seen:
        watch.check()
    return len(calls)


@pytest.mark.parametrize(
    ("seen", "count"),
    [
        ((HOME, HOME), 0),
        ((HOME, AWAY), 1),
        ((HOME, AWAY, HOME), 2),
        ((HOME, HOME | AWAY), 1),
        ((frozenset(), HOME), 0),
        ((HOME, frozenset(), HOME), 0),
        ((HOME, frozenset(), frozenset(), AWAY), 1),
        ((frozenset(), frozenset()), 0),
    ],
)
def test_only_another_gateway_is_a_change(seen: tuple[Gateways, ...], count: int) -> None:
    assert changes(*seen) == count


def test_it_looks_again_and_again_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "LOOK_SECONDS", 0.001)
    looked: list[None] = []

    def look() -> Gateways:
        looked.append(None)
        return HOME

    async def work() -> None:
        watch = NetworkWatch(lambda: None, look)
        watch.start()
        while len(looked) < 5:
            await asyncio.sleep(0.001)
        watch.close()
        count = len(looked)
        await asyncio.sleep(0.02)
        assert len(looked) == count

    asyncio.run(work())


@pytest.mark.parametrize("text", [b"", b"\xff" * 200, b"Iface\n" + b"a " * 50_000, b"Iface\n" + b"eth0\t0\n" * 40_000])
def test_a_table_that_is_none_has_no_gateways(tmp_path: Path, text: bytes) -> None:
    assert gateways(tmp_path) == frozenset()
    for name in ("route", "ipv6_route"):
        (tmp_path / name).write_bytes(text)
    assert gateways(tmp_path) == frozenset()


@pytest.fixture
def place() -> Iterator[str]:
    name = f"accord-routes-{os.getpid()}"
    namespace.create(name)
    yield name
    namespace.remove(name)


@pytest.mark.root
def test_the_kernels_default_routes_are_read_and_no_others(place: str) -> None:
    """The kernel's own tables, made by iproute2."""

    def run(command: str) -> Gateways:
        for each in filter(None, command.split(";")):
            subprocess.run(["ip", "-n", place, *each.split()], check=True, capture_output=True)
        return namespace.Namespace(place, "").call(gateways)

    base = (
        "link set lo up;link add d0 type veth peer name d1;link set d0 up;link set d1 up;addr add 192.0.2.2/24 dev d0"
    )
    assert run(base + ";addr add 2001:db8::2/64 dev d0 nodad;route add 198.51.100.0/24 via 192.0.2.9") == frozenset()
    assert run("route add default via 192.0.2.1") == {("d0", "010200C0")}
    both = run("route add default via 2001:db8::1")
    assert both == {("d0", "010200C0"), ("d0", "20010db8000000000000000000000001")}
    assert run("route replace default via 192.0.2.7") == both - {("d0", "010200C0")} | {("d0", "070200C0")}
