# SPDX-License-Identifier: Apache-2.0
"""Which stacks a policy allows, and their order (docs/POLICY.md)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from accord.controller.settings import preferences, stacks
from accord.controller.settings.stacks import StackIds
from accord.controller.settings.values import Secure
from accord.negotiation.choice import CandidateStack
from accord.wire.constants import Protocol, Reason

if TYPE_CHECKING:
    from accord.controller.settings.policy import EffectivePolicy

_WEIGHTLESS: Final = (0, 0)
_SUBGRAPH, _INNER, _COMPRESSION = int(Protocol.SUBGRAPH), int(Protocol.INNER), int(Protocol.COMPRESSION)
_EXPLAINED: Final = 4
"""Stacks that an error explains; the others are counted."""


def order(policy: EffectivePolicy, candidates: Sequence[CandidateStack]) -> list[CandidateStack]:
    """As ``EffectivePolicy.order``, where the rules stand."""
    return sorted(
        (stack for stack in candidates if objection(policy, stack) is None), key=lambda each: _rank(policy, each)
    )


def refusal(policy: EffectivePolicy, candidates: Sequence[CandidateStack]) -> Reason:
    """As ``EffectivePolicy.refusal``."""
    objections = {found[0] for stack in candidates if (found := objection(policy, stack)) is not None}
    if Reason.INSECURE in objections:
        return Reason.INSECURE
    if objections == {Reason.REQUIRED_MISSING}:
        return Reason.REQUIRED_MISSING
    return Reason.POLICY if candidates else Reason.NO_COMMON_STACK


def explain(policy: EffectivePolicy, candidates: Sequence[CandidateStack]) -> str:
    """As ``EffectivePolicy.explain``."""
    found = {stack.name: why[1] for stack in candidates if (why := objection(policy, stack)) is not None}
    shown = [f"{name}: {why}" for name, why in list(found.items())[:_EXPLAINED]]
    return "; ".join(shown + [f"and {len(found) - _EXPLAINED} more"] * (len(found) > _EXPLAINED))


def objection(
    policy: EffectivePolicy, stack: CandidateStack, present: Collection[int] = ()
) -> tuple[Reason, str] | None:
    """Why a stack is not allowed. ``present``: protocols that are not missing although they are not in it."""
    if _SUBGRAPH in stack.protocols:  # whatever is missing may be in it, and is asked for again then
        present = (*present, *policy.protocols.values())
    if _INNER in stack.protocols:
        present = (*present, *stacks.APPLICATIONS, *stacks.LAYERS)
    if policy.preferences and (why := preferences.objection(policy.preferences, stack, present)) is not None:
        return why
    crime = _COMPRESSION in stack.protocols and not policy.compress_encrypted
    if crime and preferences.compresses_encrypted(stack.protocols, secure=stack.secure):
        return Reason.POLICY, "it compresses what it encrypts, and this host's policy has not compress_encrypted"
    if policy.hides and _INNER not in (*stack.protocols, *present):
        return Reason.POLICY, "this host's policy hides what is above security (inner)"
    if (policy.secure is Secure.REQUIRED or policy.hides) and not stack.secure:
        return Reason.INSECURE, "this host's policy requires security"
    if policy.only and _place(policy, stack) == len(policy.prefer):
        return Reason.POLICY, "this host's policy has only what its prefer lists"
    return None


def worth(policy: EffectivePolicy, stack: CandidateStack) -> tuple[bool, int, int]:
    """The rules that both sides share, lower is better."""
    weight = preferences.weigh(policy.preferences, stack) if policy.preferences or stack.words else _WEIGHTLESS
    return policy.secure is not Secure.NO and not stack.secure, *weight


def _rank(
    policy: EffectivePolicy, stack: CandidateStack
) -> tuple[tuple[bool, int, int], int, int, int, StackIds, tuple[int, ...]]:
    return (
        worth(policy, stack),
        _place(policy, stack),
        -stack.preference,
        len(stack.ids),
        stack.protocols,
        stack.ids,
    )


def _place(policy: EffectivePolicy, stack: CandidateStack) -> int:
    below = stacks.without_application(stack.protocols)
    if _SUBGRAPH in below:
        may_be = (place for place, each in enumerate(policy.prefer) if stacks.may_become(below, each))
        return next(may_be, len(policy.prefer))
    bare = preferences.without_layers(below, policy.preferences) if policy.preferences else below
    return next(
        (place for place, each in enumerate(policy.prefer) if each in (below, stack.protocols, bare)),
        len(policy.prefer),
    )
