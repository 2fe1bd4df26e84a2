# SPDX-License-Identifier: Apache-2.0
"""Invariant: whatever is done to what comes to a host that keeps nothing of strangers but slots, it commits once at
most, where there is security over the answer that the initiator has had, and to what both like best; nothing is raised,
and in the end no slot is taken and nothing else is left.

The input is a byte for the conversation, and edits of packets (``fuzz.packets``).
"""

from __future__ import annotations

import asyncio
from typing import Final

from accord.datapath.path import Path
from accord.negotiation.interface import Role
from fuzz.bytes_in import BytesIn
from fuzz.packets import Edit, edited, read_edits
from sim.host import Host
from sim.mitm.conversations import CONVERSATIONS
from sim.scenario import Scenario
from sim.world import World

CONVERSED: Final = [each for each in CONVERSATIONS if each.scenario(1).unkept]
_LATE_SECONDS: Final = 0.03
_LONG_SECONDS: Final = 40.0
"""Longer than slots live, and than transactions linger."""


class Attacked(World):
    """Somebody changes what comes to host 1."""

    def __init__(self, scenario: Scenario, edits: list[Edit]) -> None:
        super().__init__(scenario, keep_ladder=False)
        self._edits = edits
        self._seen: list[bytes] = []

    def datagram(self, source: Host, path: Path, data: bytes) -> None:
        """A host sends."""
        if source.index == 1:
            self.carry(source, path, data)
            return
        number = len(self._seen)
        self._seen.append(data)
        for late, changed in edited(data, number, self._edits, self._seen):
            self.loop.later(_LATE_SECONDS * late, self.carry, source, path, changed)

    async def _course(self) -> None:
        for host in self.hosts:
            host.start()
        self.begin_calls()
        await asyncio.sleep(_LONG_SECONDS)
        responder = self.hosts[1].life
        assert responder is not None
        assert responder.controller is not None
        endpoint = responder.controller.endpoint
        usage = endpoint.engine.usage()
        assert usage.slots == 0, f"{usage.slots} slots are still taken"
        assert (usage.transactions, usage.buffers, usage.events, endpoint.in_flight) == (0, 0, 0, 0), usage
        for host in self.hosts:
            host.power_off()


def one(data: bytes) -> None:
    """See above."""
    source = BytesIn(data)
    conversation = source.one_of(CONVERSED)
    world = Attacked(conversation.scenario(1), read_edits(source))
    world.run_quietly()
    assert not world.loop.failures, world.loop.failures
    assert not world.complaints, world.complaints
    sides = list(world.records.sides.values())
    committed = [side for side in sides if side.role is Role.RESPONDER and side.committed is not None]
    assert len({side.transaction for side in committed}) == len(committed), "a negotiation commits once"
    for side in committed:
        if side.secure and side.committed is not None:
            ones = [each for each in sides if each.role is Role.INITIATOR and each.transaction == side.transaction]
            assert any(each.transcript == side.transcript for each in ones), "an answer that nobody has committed to"
            assert side.committed.name == conversation.stack, side.committed.name
