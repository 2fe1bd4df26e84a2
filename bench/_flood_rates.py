# SPDX-License-Identifier: Apache-2.0
"""What an answer costs: the program that daemons attach, beside XDP_DROP and XDP_TX, under one flood and in turn."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

from _flooding import GENERATOR_CPU, KEY, KEY_ID, Flooding, Plan
from _threaded import poll_on

from accord.controller.load.ring import slot_of
from accord.datapath.cookies import CookieKey
from accord.datapath.xdp_test import Program
from accord.lab.pair import pair

SLICE_MS = 40
_HOUR_MS = 3_600_000


def rates(plan: Plan, seconds: float, queues: int, *, apart: bool = False) -> dict[str, Any]:
    """Packets a second: of a host that does nothing else, at the flood's full rate, for ``seconds`` in all.

    The processor that makes the flood receives and answers it too; ``apart``: another one does, as when it comes from
    elsewhere.

    ``_of_offered``: of the packets that were made. Where a program takes all, it is the maker that limits its rate.
    ``xdp_tx_rate`` is of a program that sends each packet back as it came, addresses exchanged: what no answer can
    exceed. Ratios are medians over the rounds, each within its own round; ``_spread``: the quartiles.
    """
    with pair(queues) as (client, server), Program() as program:
        program.configure(challenge=True, address=server.mac)
        program.cookies([CookieKey(KEY_ID, KEY)], slot_of(time.time()))
        program.steer(plan.port)
        program.heartbeat(-_HOUR_MS)  # nobody is there to give another
        namespace = f"/proc/{os.getpid()}/fd/{server.fd}"
        slices = ("slices", namespace, server.interface, str(program.id), str(SLICE_MS))
        with contextlib.closing(Flooding(plan, 0, seconds, client, server, slices)) as running:
            if apart:
                poll_on(server, _other_than(GENERATOR_CPU))
            rounds = running.result()["slices"]
    return summary(rounds)


def _other_than(cpu: int) -> int:
    return min(os.sched_getaffinity(0) - {cpu}, default=cpu)


def summary(rounds: Sequence[Sequence[tuple[float, float]]]) -> dict[str, Any]:
    """Of rounds of three programs, which drop, send back and answer: what each took a second, and was offered."""
    whole = [each for each in rounds if min(taken for taken, _ in each) > 0]
    found: dict[str, Any] = {"rounds": len(whole)}
    if not whole:
        return found
    for name, of in (("xdp_drop", 0), ("xdp_tx", 1), ("cookie", 2)):
        found[f"{name}_rate"] = round(statistics.median(each[of][0] for each in whole))
        found[f"{name}_of_offered"] = round(statistics.median(each[of][0] / each[of][1] for each in whole), 3)
    for name, of, to in (("ratio", 2, 0), ("xdp_tx_ratio", 1, 0), ("ratio_to_xdp_tx", 2, 1)):
        ratios = sorted(each[of][0] / each[to][0] for each in whole)
        found[name] = round(statistics.median(ratios), 3)
        found[f"{name}_spread"] = [round(ratios[len(ratios) // 4], 3), round(ratios[len(ratios) * 3 // 4], 3)]
    return found
