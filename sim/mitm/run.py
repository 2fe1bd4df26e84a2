# SPDX-License-Identifier: Apache-2.0
"""One conversation with him in the middle, and what came of it.

Undetected difference
    A side has a stack with a security node, and it is another one than without the edit, or was agreed in other words
    inside; or both have committed over different messages; or a service hears something that the call did not say; or
    anything ended without a reason. Without a security node whoever repairs the hashes is not found out: then nothing
    is claimed but the floor, and the two sides' messages have to be the same only if he repairs none, up to the answer.
Weaker than the policy
    A stack, negotiated or plain, that one of the two policies does not allow. (Not a plain connection that ended before
    anything was said, at a service whose own policy would take it.)
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from accord.datapath.path import Path
from accord.negotiation.interface import Role
from accord.wire.constants import Reason
from sim import judge, meeting
from sim.host import Host
from sim.mitm.conversations import Conversation
from sim.mitm.edits import NAIVE, Edit, Kind, Record
from sim.mitm.middle import Leg, Middle
from sim.record import Called, Served, Side
from sim.scenario import SECOND
from sim.tcp import Segment
from sim.world import World

_SECURE: Final = ("tls", "quic")
_LONGEST_US: Final = 75 * SECOND
"""Two that call each other look for 20 s, and one of them reads for 45 more."""
_LOOK_SECONDS: Final = 0.25
_GRACE_SECONDS: Final = 0.2
"""For what was about to be told."""


@dataclass(slots=True)
class Outcome:
    """Of one edit. ``undetected``, ``weaker``, ``wrong``: what did not hold, in words."""

    result: str = ""
    """``same``, ``fallback``, ``failed``, ``broken`` (the stack as it was, and it carried nothing), ``unclaimed``."""
    reason: str = ""
    responder: str = ""
    struck: bool = True
    undetected: list[str] = field(default_factory=list)
    weaker: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Exceptions, and what never ended."""
    ladder: list[str] = field(default_factory=list)

    @property
    def said(self) -> list[str]:
        """What did not hold."""
        return [*self.undetected, *self.weaker, *self.wrong]

    @property
    def ok(self) -> bool:
        """Everything held."""
        return not self.said


class Tampered(World):
    """A world with him on every path."""

    def __init__(
        self,
        conversation: Conversation,
        seed: int,
        edit: Edit | None = None,
        other: Record | None = None,
        *,
        keep_ladder: bool = False,
    ) -> None:
        super().__init__(conversation.scenario(seed), keep_ladder=keep_ladder)
        self.middle: Final = Middle(edit, other, self._carried, self._reversed, self.loop.later)

    def datagram(self, source: Host, path: Path, data: bytes) -> None:
        """A host sends."""
        judge.sent(self, source, path, data)
        self.middle.datagram(Leg(source, path), data)

    def segment(self, source: Host, segment: Segment) -> None:
        """A host's TCP sends."""
        super().segment(source, self.middle.segment(source.index, segment))

    def _carried(self, leg: Leg, data: bytes) -> None:
        self.carry(leg.source, leg.path, data)

    def _reversed(self, leg: Leg) -> Leg:
        path: Path = leg.path
        return Leg(
            self.by_address(path.remote),
            Path(path.family, path.context, path.remote, path.remote_port, leg.source.address, path.local_port),
        )

    async def _course(self) -> None:
        for host in self.hosts:
            host.start()
        self.begin_calls()
        for number, meet in enumerate(self.scenario.meetings):
            meeting.plan(self, meet, number)
        while self.loop.now_us < self.scenario.quiet + _LONGEST_US and not self._over():
            await asyncio.sleep(_LOOK_SECONDS)
        await asyncio.sleep(_GRACE_SECONDS)
        if not self._over():
            self.complaints.append("stuck: " + "; ".join(self._left()))
        for host in self.hosts:
            host.power_off()

    def _left(self) -> list[str]:
        found = [f"call {called.number} never ended" for called in self.records.calls if not called.done]
        found += [f"{side.name} is undecided" for side in self.begun() if not _decided(side)]
        found += [f"{met.name} never ended" for met in self.records.met if not met.done]
        return found + [f"a service still hears {served.stack}" for served in self.records.served if not served.over]

    def begun(self) -> list[Side]:
        """Not those that were prepared for another call."""
        return [side for side in self.records.sides.values() if self.middle.has_seen(side.transaction)]

    def _over(self) -> bool:
        if not all(called.done for called in self.records.calls) or meeting.unfinished(self):
            return False
        if not all(_decided(side) for side in self.begun()):
            return False
        edit = self.middle.edit
        replays = edit is not None and edit.kind is Kind.REPLAY
        return (
            not replays or self.loop.now_us > self.scenario.quiet + (edit.args[0] + 2 * edit.args[1] + 500) * 1000
            if edit
            else True
        )


def _decided(side: Side) -> bool:
    return side.committed is not None or side.aborted is not None


# ---- running ----


@dataclass(frozen=True, slots=True)
class Base:
    """What comes of a conversation that nobody touches."""

    record: Record
    stack: str
    inside: str
    served: tuple[str, str]
    """The service's stack, and what was agreed inside."""


def undisturbed(conversation: Conversation, seed: int) -> Base:
    """Raises ``RuntimeError`` when it does not come to what it should."""
    world = Tampered(conversation, seed, keep_ladder=True)
    world.run_quietly()
    if conversation.meets:
        return _met_undisturbed(conversation, world)
    (called,) = world.records.calls
    if (called.association, called.negotiated, called.said_back) != (conversation.stack, conversation.negotiated, True):
        what = called.association or called.reason
        ladder = "\n".join(world.network.ladder)
        raise RuntimeError(f"{conversation.name}: {what} {called.broken}, not {conversation.stack}\n{ladder}")
    served = world.records.served[0]
    return Base(world.middle.recorded(), called.association, called.inside, (served.stack, served.inside))


def _met_undisturbed(conversation: Conversation, world: Tampered) -> Base:
    one, other = world.records.met
    if not (one.stack == other.stack == conversation.stack and one.heard and other.heard):
        ladder = "\n".join(world.network.ladder)
        raise RuntimeError(f"{conversation.name}: {one.name}, {other.name}, not {conversation.stack}\n{ladder}")
    return Base(world.middle.recorded(), one.stack, one.inside, (other.stack, other.inside))


def tampered(
    conversation: Conversation, seed: int, base: Base, edit: Edit, other: Record, *, keep_ladder: bool = False
) -> Outcome:
    """The same conversation with one edit."""
    world = Tampered(conversation, seed, edit, other, keep_ladder=keep_ladder)
    world.run_quietly()
    outcome = _judge(conversation, base, edit, world)
    outcome.struck = world.middle.struck
    outcome.ladder = world.network.ladder
    return outcome


# ---- judging ----


def _judge(conversation: Conversation, base: Base, edit: Edit, world: Tampered) -> Outcome:
    outcome = Outcome()
    sides = world.begun()
    _calls(conversation, base, world, outcome)
    _meeting(conversation, base, world, outcome)
    for served in world.records.served:
        _service(conversation, base, world, served, outcome)
    _negotiations(edit, sides, outcome)
    outcome.wrong += [*world.loop.failures, *world.complaints]
    outcome.responder = next((_why(side) for side in sides if side.role is Role.RESPONDER), "nothing was heard")
    return outcome


def _secure(stack: str) -> bool:
    return any(name in stack.split("/") for name in _SECURE)


def _calls(conversation: Conversation, base: Base, world: Tampered, outcome: Outcome) -> None:
    for called in world.records.calls:
        outcome.reason = called.reason or ("broken" if called.broken else "")
        if not called.association:
            outcome.result = "failed"
            if not called.reason:
                outcome.undetected.append(f"call {called.number} failed without a reason")
            continue
        if called.association not in conversation.floor:
            outcome.weaker.append(f"call {called.number} was given {called.association}")
        if not called.negotiated:
            outcome.result = "fallback"
            if dict(conversation.wishes).get("fallback") == "never":
                outcome.undetected.append(f"call {called.number} has a plain connection, which the policy rules out")
            if called.reason in ("", "OK"):
                outcome.undetected.append(f"call {called.number} has a plain connection, without a reason")
            elif not world.scenario.hosts[1].accord:
                outcome.result = "same" if called.said_back else "broken"
            elif _secure(called.association) and called.reason != Reason.FORCED_FALLBACK.name:
                what = f"call {called.number} has a plain connection for {called.reason}, and its TLS says more"
                outcome.undetected.append(what)
        elif (called.association, called.inside) == (base.stack, base.inside):
            outcome.result = "same" if called.said_back else "broken"
        elif _secure(called.association):
            what = f"{called.association} {called.inside}, not {base.stack} {base.inside}"
            outcome.undetected.append(f"call {called.number} was given {what}")
        else:
            outcome.result = "unclaimed"


def _meeting(conversation: Conversation, base: Base, world: Tampered, outcome: Outcome) -> None:
    agreed = {(base.stack, base.inside), base.served}
    for met in world.records.met:
        outcome.reason = outcome.reason or met.reason
        if not met.stack:
            outcome.result = "failed"
            if not met.reason:
                outcome.undetected.append(f"{met.name}, without a reason")
            continue
        if met.stack not in conversation.floor:
            outcome.weaker.append(met.name)
        if (met.stack, met.inside) not in agreed:
            outcome.undetected.append(f"{met.name}: {met.inside}, not {base.inside}")
        elif outcome.result != "failed":
            outcome.result = "broken" if not met.heard else outcome.result or "same"


def _service(conversation: Conversation, base: Base, world: Tampered, served: Served, outcome: Outcome) -> None:
    # Whoever opens a connection and says nothing has no stack: a host that would serve bare TCP serves an empty one.
    empty = served.stack == "tcp" and not served.negotiated and not served.heard and conversation.responder.policy
    if served.stack not in conversation.floor and not empty:
        outcome.weaker.append(f"a service was given {served.stack}")
    if not _secure(served.stack):
        return
    if not served.negotiated and conversation.negotiated and served.reason != Reason.FORCED_FALLBACK.name:
        outcome.undetected.append(f"a service was given a plain connection for {served.reason}")
    if served.negotiated and (served.stack, served.inside) != base.served:
        outcome.undetected.append(f"a service was given {served.stack} {served.inside}, not {base.served}")
    says = [_request(world, called) for called in world.records.calls]
    # The stand-in's records are not protected.
    if conversation.real_tls and not any(text.startswith(served.heard) for text in says):
        outcome.undetected.append(f"a service heard {served.heard[:16].hex()}, which nobody has said")


def _request(world: Tampered, called: Called) -> bytes:
    return (called.number + 1).to_bytes(4, "big") + bytes(world.scenario.calls[called.number].request)


def _negotiations(edit: Edit, sides: list[Side], outcome: Outcome) -> None:
    for side in sides:
        outcome.undetected += side.failures
        if side.role is Role.INITIATOR and side.secure and not _vouched(side, sides):
            outcome.undetected.append(f"{side.name} has committed over an answer that no responder sent")
        if side.role is not Role.RESPONDER or side.committed is None:
            continue
        ones = [one for one in sides if one.role is Role.INITIATOR and one.transaction == side.transaction]
        same = [
            one for one in ones if one.committed is not None and _agreed(one, side.secure) == _agreed(side, side.secure)
        ]
        claims = side.secure or edit.excuse == NAIVE
        if claims and not same:
            found = ", ".join(one.outcome for one in ones) or "nobody"
            outcome.undetected.append(f"{side.name}: {side.outcome}; {found}")
    committed = [side for side in sides if side.role is Role.RESPONDER and side.committed is not None]
    if len({side.transaction for side in committed}) < len(committed):
        outcome.undetected.append("a negotiation was committed twice")


def _vouched(one: Side, sides: list[Side]) -> bool:
    return any(one.transcript in side.transcripts for side in sides if side.role is Role.RESPONDER)


def _agreed(side: Side, secure: bool) -> Any:
    """Without a security node nothing vouches for the commit itself: T(1) in it is of what was before."""
    committed = side.committed
    if committed is None:
        return None
    return committed.ids, committed.protocols, committed.transcript if secure else side.transcript


def _why(side: Side) -> str:
    if side.committed is not None:
        return "committed"
    return side.aborted.reason.name if side.aborted is not None else "undecided"
