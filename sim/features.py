# SPDX-License-Identifier: Apache-2.0
"""What a run has had in it: not what the scenario asked for, but what came about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from accord.negotiation.interface import Role
from accord.wire.constants import Reason, Step
from sim.record import Side
from sim.scenario import Trouble

if TYPE_CHECKING:
    from sim.world import World

FEATURES: Final = (
    "three steps",
    "longer exchange",
    "deferred",
    "initiator choice",
    "another share",
    "QUIC",
    "re-negotiation",
    "re-negotiation refused",
    "peer to peer",
    "IPv6",
    "address translation",
    "policy change",
    "load",
    "plain connection",
    "forced fallback",
    "OpenSSL",
)
_CROWD: Final = 8


def features(world: World) -> list[str]:
    """Those of ``FEATURES`` that it had, in their order."""
    found = set(_found(world))
    return [feature for feature in FEATURES if feature in found]


def _found(world: World) -> Iterator[str]:
    scenario, records = world.scenario, world.records
    up = [side for side in records.sides.values() if side.committed is not None]
    if any(Step.COMMIT in side.sent and not _longer(side) for side in up):
        yield "three steps"
    longer = [side for side in up if _longer(side)]
    if longer:
        yield "longer exchange"
        asked = {key for call in scenario.calls for key, _ in call.wishes}
        yield from ("deferred",) if "defer" in asked else ()
        yield from ("initiator choice",) if "choose" in asked else ()
        yield from ("another share",) if scenario.retries else ()
    if up:
        yield from ("IPv6",) if scenario.family == 6 else ()
        yield from ("OpenSSL",) if scenario.real_tls else ()
        yield from ("load",) if len(scenario.calls) >= _CROWD else ()
    for called in records.calls:
        stack = called.association.split("/")
        yield from ("QUIC",) if "quic" in stack else ()
        yield from ("re-negotiation",) if called.changed else ()
        yield from ("plain connection",) if called.association and not called.negotiated else ()
        yield from ("forced fallback",) if called.reason == Reason.FORCED_FALLBACK.name else ()
        translated = scenario.calls[called.number].source == scenario.translated
        yield from ("address translation",) if called.association and translated else ()
    if any(side.renews and side.aborted is not None for side in records.sides.values()):
        yield "re-negotiation refused"
    if any(met.stack for met in records.met):
        yield "peer to peer"
    if any(fault.trouble is Trouble.POLICY for fault in scenario.faults):
        yield "policy change"


def _longer(side: Side) -> bool:
    return side.role is Role.INITIATOR and any(step > Step.COMMIT for step in side.sent)
