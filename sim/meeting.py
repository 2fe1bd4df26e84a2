# SPDX-License-Identifier: Apache-2.0
"""Two hosts that call each other: what their applications do, and what has to hold of it.

Either both have the same stack, one of them as its initiator, and hear each other; or both have a reason. What excuses
a difference excuses it as in any negotiation (``judge``): a commit that was never acknowledged, an end that was away.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from accord.wire.constants import Party, Reason
from accord.wire.errors import AccordError
from sim.scenario import Meet

if TYPE_CHECKING:
    from sim.host import Life
    from sim.world import World

FIRST_PORT: Final = 4000
SECONDS: Final = 20.0
_READ_SECONDS: Final = 45.0
_SAYS_BYTES: Final = 32
_ROOMY: Final = 64


@dataclass(slots=True, eq=False)
class Met:
    """One side of a meeting, and what came of it."""

    number: int
    host: int
    done: bool = False
    stack: str = ""
    inside: str = ""
    """What was agreed inside its nodes."""
    role: str = ""
    reason: str = ""
    heard: bool = False
    """What the other says."""
    broken: str = ""
    life: Life | None = None

    @property
    def crashed(self) -> bool:
        """The application went with its host."""
        return self.life is not None and self.life.dead

    @property
    def name(self) -> str:
        """For people."""
        outcome = f"{self.stack} as {self.role}" if self.stack else self.reason or "nothing"
        return f"meeting {self.number} at host {self.host}: {outcome}{', crashed' if self.crashed else ''}"


def plan(world: World, meet: Meet, number: int) -> None:
    """Both applications begin at their time."""
    for at, host, other in ((meet.at, meet.one, meet.other), (meet.at + meet.lag, meet.other, meet.one)):
        met = Met(number, host)
        world.records.met.append(met)
        world.loop.call_at(at / 1_000_000, _begin, world, met, other, dict(meet.wishes))


def _begin(world: World, met: Met, other: int, wishes: dict[str, object]) -> None:
    life = world.hosts[met.host].life
    if life is None:
        met.done = True
        return
    met.life = life
    life.run(life.spawn, _talk(world, life, met, other, wishes))


async def _talk(world: World, life: Life, met: Met, other: int, wishes: dict[str, object]) -> None:
    world.network.note(f"meeting {met.number}: host {met.host} calls {other} {wishes}")
    try:
        try:
            where = (world.hosts[other].address, FIRST_PORT + met.number)
            association = await life.meet(where, FIRST_PORT + met.number, str(met.number), dict(wishes), SECONDS)
        except AccordError as failure:
            met.reason = failure.reason.name
            world.network.note(f"{met.name}")
            world.network.remark(f"    {failure}")
            return
        met.stack, met.role = "/".join(association.report.stack), association.report.role
        met.inside = json.dumps(association.report.inside, sort_keys=True)
        world.network.note(f"{met.name}")
        says, hears = (bytes((number, met.number)) * (_SAYS_BYTES // 2) for number in (met.host, other))
        carrier = association.carrier
        try:
            async with asyncio.timeout(_READ_SECONDS):
                await carrier.write(says)
                answer = b""
                while len(answer) < len(hears) and (more := await carrier.read()):
                    answer += more
                met.heard = answer == hears
                await carrier.finish()
                while await carrier.read():
                    pass
                await carrier.close()
        except (AccordError, OSError) as failure:
            met.broken = str(failure) or type(failure).__name__
        finally:
            with contextlib.suppress(OSError):
                carrier.abort()
    finally:
        met.done = True


def unfinished(world: World) -> bool:
    """Somebody still waits."""
    return not all(met.done or met.crashed for met in world.records.met)


def failures(world: World) -> list[str]:
    """What does not hold, in words."""
    found = []
    by_number: dict[int, list[Met]] = {}
    for met in world.records.met:
        by_number.setdefault(met.number, []).append(met)
        if not (met.done or met.crashed):
            found.append(f"{met.name} never ended")
    calm = not world.scenario.faults
    for one, other in by_number.values():
        both = f"{one.name}; {other.name}"
        if one.stack and other.stack:
            # A side may have met the other's life before a crash, and its life after it.
            if (one.stack != other.stack or one.role == other.role) and not world.restarted:
                found.append(both)
            elif calm and not (one.heard and other.heard):
                found.append(f"{both}: {one.broken or other.broken or 'not a word'}")
        elif calm and (one.stack or other.stack or not _explained(world, one, other)):
            found.append(both)
    return found


def _explained(world: World, *both: Met) -> bool:
    """Without a fault, and with room, two fail to meet only by what their policies and plug-ins say. Whoever may not
    propose at all is not heard of by the other."""
    if any(spec.transactions < _ROOMY for spec in world.scenario.hosts):
        return all(met.reason for met in both)
    said = {reason.name for reason in Reason if reason.party is Party.USER} | {Reason.NO_COMMON_STACK.name}
    return {met.reason for met in both} <= said | {Reason.TIMEOUT.name} and any(met.reason in said for met in both)


def in_meeting(machine: object) -> bool:
    """The negotiation is one of a meeting, so no call of ``connect`` is given its stack."""
    return getattr(machine, "meets", False)
