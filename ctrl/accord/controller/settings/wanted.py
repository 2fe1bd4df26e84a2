# SPDX-License-Identifier: Apache-2.0
"""Which stacks a policy makes an initiator propose."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from accord.controller.settings import preferences, ranking, stacks
from accord.controller.settings.stacks import StackIds
from accord.controller.settings.values import Inner, Secure
from accord.negotiation.choice import CandidateStack

if TYPE_CHECKING:
    from accord.controller.settings.policy import EffectivePolicy

_REMEMBERED: Final = 64


def stacks_wanted(
    policy: EffectivePolicy, available: Collection[str], secure: Collection[int]
) -> list[tuple[str, ...]]:
    """As ``EffectivePolicy.stacks_wanted``."""
    # Asked before each connection, and mostly of the same policies.
    key = (policy, tuple(policy.protocols.items()), frozenset(available), frozenset(secure))
    known = _wanted.get(key)
    if known is None:
        known = _find(policy, available, secure)
        if len(_wanted) >= _REMEMBERED:
            _wanted.clear()
        _wanted[key] = known
    return list(known)


def nested_wanted(
    policy: EffectivePolicy, available: Collection[str], secure: Collection[int]
) -> list[tuple[str, ...]]:
    """As ``EffectivePolicy.nested_wanted``."""
    whole = stacks_wanted(replace(policy, inner=Inner.NO, secure=Secure.REQUIRED), available, secure)
    numbers = [tuple(policy.protocols[name] for name in stack) for stack in whole]
    rows = dict.fromkeys(stacks.split_at_security(stack, secure)[1] for stack in numbers)
    return [_named(policy, row) for row in rows]


def _find(policy: EffectivePolicy, available: Collection[str], secure: Collection[int]) -> list[tuple[str, ...]]:
    ids = {policy.protocols[name] for name in available if name in policy.protocols}
    wanted = [stacks.without_application(stack) for stack in policy.prefer]
    if not policy.only:
        wanted += stacks.USUAL
    if policy.preferences:
        wanted = preferences.with_layers(wanted, policy.preferences, compress_encrypted=policy.compress_encrypted)
    candidates = [
        CandidateStack((), stack, any(number in secure for number in stack))
        for stack in dict.fromkeys(stacks.usable(wanted, ids))
    ]
    allowed = [stack for stack in candidates if ranking.objection(policy, stack, stacks.APPLICATIONS) is None]
    # Stable: what the rules leave equal stays as it is listed.
    allowed.sort(key=lambda each: ranking.worth(policy, each))
    usable = [stack.protocols for stack in allowed]
    if policy.hides:
        usable = list(dict.fromkeys(stacks.split_at_security(stack, secure)[0] for stack in usable))
    return [_named(policy, stack) for stack in usable]


def _named(policy: EffectivePolicy, stack: StackIds) -> tuple[str, ...]:
    names = {number: name for name, number in policy.protocols.items()}
    return tuple(names[number] for number in stack)


_wanted: dict[
    tuple[EffectivePolicy, tuple[tuple[str, int], ...], frozenset[str], frozenset[int]], list[tuple[str, ...]]
] = {}
"""By all that the outcome depends on."""
