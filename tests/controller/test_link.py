# SPDX-License-Identifier: Apache-2.0
"""The keeper of the data path on an interface whose queues come and go with our program, as virtio_net's do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from accord.controller import link
from accord.controller.endpoint import Endpoint
from accord.controller.link import LinkKeeper
from accord.datapath.link import Netdev
from accord.datapath.port import Rung

PROCESSORS = 2


class Card:
    """An interface with virtio_net's queues (virtnet_xdp_set), and what an endpoint does to it."""

    def __init__(self) -> None:
        self.index, self.mtu, self.own = 7, 1500, 2
        self.native = False
        self.opened: list[tuple[str | None, bool]] = []
        self.port = SimpleNamespace(attached=True, report=SimpleNamespace(rung=Rung.UDP, queues=0, refusals={}))

    def look(self, name: str) -> Netdev:
        queues = self.own + (PROCESSORS if self.native else 0)
        return Netdev(name, self.index, self.mtu, queues, b"\2\0\0\0\0\1")

    def attach(self) -> None:
        self.native = False
        self.port.report.queues = self.look("eth1").queues
        self.native, self.port.attached, self.port.report.rung = True, True, Rung.XDP_NATIVE

    def reopen(self, interface: str | None, *, sockets_only: bool = False, without_xdp: bool = False) -> None:
        self.opened.append((interface, without_xdp))
        if without_xdp or sockets_only:
            self.native, self.port.attached, self.port.report.rung = False, True, Rung.PACKET
        else:
            self.attach()


def keep(card: Card, monkeypatch: pytest.MonkeyPatch, happens: Callable[[LinkKeeper], None]) -> None:
    monkeypatch.setattr(link, "look", card.look)
    monkeypatch.setattr(link, "name_of", lambda index: "eth1" if index == card.index else None)

    async def kept() -> None:
        keeper = LinkKeeper(cast(Endpoint, card), "eth1")
        try:
            happens(keeper)
        finally:
            keeper.close()

    asyncio.run(kept())


def test_queues_that_come_with_our_own_program_are_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card()
    card.attach()

    def happens(keeper: LinkKeeper) -> None:
        for _ in range(3):
            keeper.check()
        assert card.opened == []
        card.index = 8  # deleted, and made anew: without a program, so with the queues that it had
        card.native = card.port.attached = False
        for _ in range(3):
            keeper.check()
        assert card.opened == [("eth1", False)], "attached once, not once more for the queues that came with that"
        assert (card.port.report.queues, keeper.changes) == (2, 1)
        card.mtu = 3000
        for _ in range(3):
            keeper.check()
        assert len(card.opened) == keeper.changes == 2

    keep(card, monkeypatch, happens)


def test_queues_that_are_added_by_somebody_are_a_change_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card()
    card.attach()

    def happens(keeper: LinkKeeper) -> None:
        card.own = 4
        for _ in range(3):
            keeper.check()
        assert card.opened == [("eth1", False)]
        assert card.port.report.queues == 4

    keep(card, monkeypatch, happens)


def test_whoever_detaches_our_program_by_force_is_given_way_though_its_queues_go_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = Card()
    card.attach()

    def happens(keeper: LinkKeeper) -> None:
        card.native = card.port.attached = False
        for _ in range(3):
            keeper.check()
        assert card.opened == [("eth1", True)], "below XDP, once"

    keep(card, monkeypatch, happens)
