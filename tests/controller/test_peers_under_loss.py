# SPDX-License-Identifier: Apache-2.0
"""Random loss, simulated: how often it passes for a black hole, and for how long.

``PYTHONPATH=ctrl:. python -m tests.controller.test_peers_under_loss`` prints the figures that docs/OPERATIONS.md gives.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from accord.controller.peers.memory import DAY, HOUR, Learnt, Peers

LOSS = 0.05
"""Each way, each packet by itself."""
PEER = ("192.0.2.1", 443)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def lost(dice: random.Random, loss: float, packets: int = 2) -> bool:
    """Of a packet and its answer, or of so many packets that all have to arrive, at least one is."""
    return any(dice.random() < loss for _ in range(packets))


def option(peers: Peers, dice: random.Random, loss: float) -> bool:
    """One connection; whether its SYN might bear the option. Lost twice in a row is no evidence of anything."""
    if not peers.knows(*PEER).option:
        return False
    if not lost(dice, loss):
        peers.learn(*PEER, Learnt.OPTION_PASSED)
    elif not lost(dice, loss):
        peers.learn(*PEER, Learnt.OPTION_SYN_LOST)
    return True


def proposal(peers: Peers, dice: random.Random, loss: float) -> bool:
    """One connection; whether a proposal might be sent: of two packets, sent three times, the answer of two as well."""
    if not peers.knows(*PEER).propose:
        return False
    if not all(lost(dice, loss, 4) for _ in range(3)):
        peers.learn(*PEER, Learnt.ANSWERED)
    elif not lost(dice, loss):
        peers.learn(*PEER, Learnt.SILENT)
    return True


def shares(connect: object, seed: int, runs: int, between: float, loss: float, duration: float) -> Iterator[float]:
    """Of many fresh memories: the share of the time in which each believes in a black hole that is none."""
    assert callable(connect)
    for run in range(runs):
        dice, clock = random.Random(f"{seed} {run}"), Clock()
        peers = Peers(clock)
        disbelieved = 0.0
        while clock.now < duration:
            step = dice.expovariate(1 / between)
            disbelieved += 0.0 if connect(peers, dice, loss) else step
            clock.now += step
        yield disbelieved / duration


def mean(values: Iterator[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


@pytest.mark.parametrize(("between", "runs"), [(1.0, 2), (10.0, 20), (60.0, 100)])
def test_random_loss_convinces_of_a_dropped_option_for_little_of_the_time(between: float, runs: int) -> None:
    assert mean(shares(option, 1, runs, between, LOSS, DAY / 2)) < 0.1


@pytest.mark.parametrize(("between", "runs"), [(1.0, 1), (60.0, 30)])
def test_random_loss_hardly_ever_convinces_of_a_silent_peer(between: float, runs: int) -> None:
    assert mean(shares(proposal, 2, runs, between, LOSS, DAY / 2)) < 0.02


@pytest.mark.parametrize("connect", [option, proposal])
def test_a_black_hole_is_known_after_two_connections_and_costs_a_few_a_day_to_keep_known(connect: object) -> None:
    assert callable(connect)
    dice, clock = random.Random(3), Clock()
    peers = Peers(clock)
    tried = []
    what = Learnt.OPTION_SYN_LOST if connect is option else Learnt.SILENT
    while clock.now < 3 * DAY:
        known = peers.knows(*PEER)
        if known.option if connect is option else known.propose:
            tried.append(clock.now)
            peers.learn(*PEER, what)
        clock.now += dice.expovariate(1 / 10)
    assert len([when for when in tried if when < HOUR]) == 2
    assert len([when for when in tried if when < DAY]) <= 7
    assert len(tried) <= 9


if __name__ == "__main__":
    for name, connect in (("option", option), ("proposal", proposal)):
        for between in (1.0, 10.0, 60.0):
            found = sorted(shares(connect, 1, int(20 * between), between, LOSS, DAY))
            print(
                f"{name}: a connection every {between:g} s, {LOSS:.0%} loss each way, {len(found)} days: believed "
                f"broken {sum(found) / len(found):.2%} of the time, {found[-1]:.2%} at the worst",
                flush=True,
            )
