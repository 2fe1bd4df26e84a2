# SPDX-License-Identifier: Apache-2.0
"""A long proposal of which any one packet gets lost, between simulated hosts (PROTOCOL.md, section 7.2)."""

from __future__ import annotations

from typing import Any

import pytest

from accord.controller.settings.stacks import PROTOCOLS
from accord.negotiation.interface import Answer, Outcome, Role, View
from accord.protocols.services import Carrier, Services
from accord.wire.constants import Reason
from sim import host
from sim.scenario import SECOND, Call, Fault, HostSpec, Scenario, Trouble
from sim.world import World

LENGTHY = 0x7E0000EE
PACKETS = 7
"""Of a proposal: the favourite is in the first, the first words of ``Lengthy`` are in the others."""
WISHES = (("secure", "preferred"), ("prefer", ["tls/tcp", "lengthy/tcp"]), ("fallback", "never"), ("tcp", "no-syn"))
DELAYS = ((50, 10_000), (10_000, 50))


class Lengthy:
    """A protocol that has much to say and nothing to offer."""

    name = "lengthy"
    protocol = LENGTHY
    secure = False

    def __init__(self, words: int = 7000) -> None:
        self._words = words

    def open(self, role: Role, services: Services) -> Lengthy:
        return Lengthy(self._words)

    def propose(self, view: View) -> Outcome:
        return Answer(bytes(self._words))

    def respond(self, view: View, payload: bytes) -> Outcome:
        return Answer()

    resume = respond

    def advance(self, view: View, payload: bytes) -> Outcome:
        return Answer()

    def exporter(self) -> None:
        return None

    def prune(self, reason: Reason) -> None:
        pass

    commit = abort = prune

    def carrier(self, below: Carrier | None) -> Carrier | None:
        return below


@pytest.fixture(autouse=True)
def lengthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """All hosts have it."""
    begun = host.Life.__init__

    def begin(self: host.Life, *arguments: Any) -> None:
        begun(self, *arguments)
        self.plugins = {**self.plugins, "lengthy": Lengthy()}

    monkeypatch.setitem(PROTOCOLS, "lengthy", LENGTHY)
    monkeypatch.setattr(host.Life, "__init__", begin)


def up_after(*faults: Fault) -> tuple[float, list[str]]:
    """Milliseconds from the call to the stack, and the ladder."""
    hosts = (HostSpec(policy=1),) * 2
    scenario = Scenario(1, False, hosts, (Call(0, 0, 1, WISHES),), faults, DELAYS)
    world = World(scenario, keep_ladder=True)
    verdict = world.run()
    assert verdict.ok, verdict.failures
    (called,) = world.records.calls
    assert (called.association, called.said_back) == ("http/tls/tcp", True), world.network.ladder
    up = next(line for line in world.network.ladder if "call 0: http/tls/tcp" in line)
    return float(up.split()[0]), world.network.ladder


def test_a_lost_packet_of_what_is_not_chosen_costs_no_time_and_one_of_the_favourite_does() -> None:
    took, ladder = up_after()
    assert took == pytest.approx(20.0, abs=0.1)
    proposal = [line for line in ladder if "0 -> 1" in line and "proposal" in line]
    assert len(proposal) == PACKETS
    for number in range(PACKETS):
        mask = Fault(Trouble.MASK, 0, 1, 0, 5 * SECOND, 1 << number)
        took, ladder = up_after(mask)
        assert any("lost" in line for line in ladder)
        if number:
            assert took == pytest.approx(20.0, abs=0.1), ladder
        else:
            assert took > 25.0


def test_all_packets_of_what_is_not_chosen_may_get_lost() -> None:
    took, _ = up_after(Fault(Trouble.MASK, 0, 1, 0, 5 * SECOND, (1 << PACKETS) - 2))
    assert took == pytest.approx(20.0, abs=0.1)
