# SPDX-License-Identifier: Apache-2.0
"""A failing scenario made smaller, as long as it fails in the same way: fewer faults, calls and hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from sim.scenario import Fault, HostSpec, Scenario, Trouble
from sim.world import Verdict

_ROUNDS: Final = 400
_PLAIN: Final = HostSpec()


def shrink(scenario: Scenario, judge: Callable[[Scenario], Verdict]) -> Scenario:
    """The smallest that was found. Greedy: each step that keeps a kind of failure is taken."""
    kinds = set(judge(scenario).failures)
    if not kinds:
        return scenario
    rounds = 0
    while True:
        for smaller in _smaller(scenario):
            rounds += 1
            if rounds > _ROUNDS:
                return scenario
            if kinds & set(judge(smaller).failures):
                scenario = smaller
                break
        else:
            return scenario


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    for at in range(len(scenario.faults)):
        yield replace(scenario, faults=_without(scenario.faults, at))
    for at in range(len(scenario.calls)):
        if len(scenario.calls) > 1 or scenario.meetings:
            yield replace(scenario, calls=_without(scenario.calls, at))
    for at in range(len(scenario.meetings)):
        yield replace(scenario, meetings=_without(scenario.meetings, at))
    if (fewer := _without_last_host(scenario)) is not None:
        yield fewer
    for at, fault in enumerate(scenario.faults):
        for easier in _easier(fault):
            yield replace(scenario, faults=(*scenario.faults[:at], easier, *scenario.faults[at + 1 :]))
    for at, call in enumerate(scenario.calls):
        if call.wishes:
            for wish in range(len(call.wishes)):
                easier_call = replace(call, wishes=_without(call.wishes, wish))
                yield replace(scenario, calls=(*scenario.calls[:at], easier_call, *scenario.calls[at + 1 :]))
        if call.request > 1:
            yield replace(scenario, calls=(*scenario.calls[:at], replace(call, request=1), *scenario.calls[at + 1 :]))
    for at, host in enumerate(scenario.hosts):
        if host != _PLAIN:
            yield replace(scenario, hosts=(*scenario.hosts[:at], _PLAIN, *scenario.hosts[at + 1 :]))
    if scenario.flight > 600:
        yield replace(scenario, flight=600)


def _without(items: tuple[object, ...], at: int) -> tuple:  # type: ignore[type-arg]
    return (*items[:at], *items[at + 1 :])


def _without_last_host(scenario: Scenario) -> Scenario | None:
    last = len(scenario.hosts) - 1
    used = any(last in (call.source, call.target) for call in scenario.calls)
    used = used or any(last in (meet.one, meet.other) for meet in scenario.meetings)
    if last < 2 or used or any(last in (fault.a, fault.b) for fault in scenario.faults):
        return None
    delays = tuple(row[:last] for row in scenario.delays[:last])
    return replace(scenario, hosts=scenario.hosts[:last], delays=delays)


def _easier(fault: Fault) -> Iterator[Fault]:
    if fault.trouble is Trouble.MASK:
        mask = int(fault.amount)
        for bit in range(64):
            if mask >> bit & 1:
                yield replace(fault, amount=mask & ~(1 << bit))
    elif fault.end - fault.begin > 100_000:
        yield replace(fault, end=fault.begin + (fault.end - fault.begin) // 2)
