# SPDX-License-Identifier: Apache-2.0
"""What has to hold at the end of a run, and what is excused, exactly.

Two sides of a negotiation *agree* when both have committed to the same graph, or neither has, each with a reason.
One case is no disagreement: the initiator has committed, and the responder has not, when

- the commit was never acknowledged (``Unconfirmed``): the stack itself shows whether the peer has it;
- the responder's host crashed, or the initiator's before it could be told;
- the responder has aborted with a reason, and every packet that says so was lost, which only faults do.

The other way round there is none: a responder that has committed has the commit of an initiator that sent it, to the
same graph. No transaction is ever committed by two responders, nor twice by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from accord.controller import exposed
from accord.datapath.path import Path
from accord.negotiation.interface import Role
from accord.wire.constants import Limit, Packet, Party, Reason, Step
from sim import meeting
from sim.features import features
from sim.network import from_initiator, ip_bytes, is_packet, transaction_of
from sim.record import Called, Served, Side
from sim.scenario import Trouble

if TYPE_CHECKING:
    from sim.host import Host
    from sim.world import Verdict, World

_AWAY: Final = frozenset({Trouble.CRASH, Trouble.POWER, Trouble.RESTART})
_LOSING: Final = (Trouble.LOSS, Trouble.FLIP, Trouble.PARTITION, Trouble.REORDERING)
_LATE: Final = (Trouble.DUPLICATION, Trouble.REORDERING)
_ACCUSING: Final = frozenset(
    {reason for reason in Reason if reason.party is Party.PEER}
    - {
        Reason.LIFETIME,
        Reason.NO_ASSOCIATION,  # its connection may not be there yet, or the other end has closed it
        Reason.NO_COMMON_STACK,
        Reason.NO_SERVICE,
        Reason.NOT_ADOPTABLE,
        Reason.STREAM_BROKEN,
    }
) | {Reason.PLUGIN_FAILED}
_TRANSMISSIONS: Final = 4
_UNREACHED: Final = frozenset({Reason.TIMEOUT, Reason.LIFETIME, Reason.UNREACHABLE})
_LINGER_US: Final = 10_000_000
_LASTS_US: Final = Limit.MAX_LIFETIME_MS * 1000 + _LINGER_US
"""That a negotiation has its place, at most."""
_ROOMY: Final = 64
_FIRST_BYTES_SECONDS: Final = exposed._SILENT_SECONDS
_SOCKETS: Final = 2
"""Of a daemon that does nothing: its port's UDP socket and its listener."""


# ---- while it runs ----


def sent(world: World, source: Host, path: Path, data: bytes) -> None:
    """A host sends a datagram: is it within the amplification limit (PROTOCOL.md, MUST-23, MUST-139)?"""
    if not is_packet(data) or source.life is None:
        return
    if from_initiator(data):
        if len(data) > Packet.HEADER_BYTES:
            world.transmissions[source.life, transaction_of(data), data[1]] += 1
        return
    key = (source.index, source.life.number, transaction_of(data))
    count = world.amplified.setdefault(key, [0, 0])
    count[1] += ip_bytes(data, path.context, path.family)
    if key in world.repeated:
        return  # the cookie proves the address
    factor = 1 if source.index in world.scenario.flooded else Limit.AMPLIFICATION
    if count[1] > factor * count[0] and not any(
        side.proven for side in world.records.sides.values() if side.life is source.life and side.transaction == key[2]
    ):
        complain(world, "amplified", f"host {source.index} sent {count[1]} bytes for {count[0]}")


# ---- at its end ----


def unfinished(world: World) -> bool:
    """Something still goes on that has to end."""
    if meeting.unfinished(world):
        return True
    if not all(called.done or (called.life is not None and called.life.dead) for called in world.records.calls):
        return True
    return any(_left(host) for host in world.hosts)


def finished(world: World) -> None:
    """Nothing may be left of any negotiation or stream."""
    for called in world.records.calls:
        if not (called.done or (called.life is not None and called.life.dead)):
            complain(world, "stuck", f"call {called.number} never ended")
    for side in world.records.sides.values():
        if side.committed is None and side.aborted is None and not side.crashed:
            complain(world, "stuck", f"{side.name} is neither committed nor aborted: {side.machine.state}")
    for host in world.hosts:
        for kind, what in _left(host):
            complain(world, kind, f"host {host.index}: {what}")


def closed(world: World) -> None:
    """Every daemon was stopped: nothing at all may be left."""
    for host in world.hosts:
        if host.spec.accord and host.kernel.sockets:
            complain(world, "leaked", f"host {host.index}: {len(host.kernel.sockets)} sockets after its daemon's end")


def _left(host: Host) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    life = host.life
    if life is None:
        return found
    controller = life.controller
    if controller is not None:
        endpoint = controller.endpoint
        usage = endpoint.engine.usage()
        if usage.transactions:
            found.append(("stuck", f"{usage.transactions} transactions in the engine"))
        elif usage.buffers or usage.unproven or usage.events:
            found.append(("leaked", f"{usage.buffers} buffers, {usage.unproven} unproven, {usage.events} events"))
        if endpoint.in_flight:
            found.append(("leaked", f"{endpoint.in_flight} owners of transactions"))
        if len(controller.proposals):
            found.append(("leaked", f"{len(controller.proposals)} prepared proposals"))
        for port in controller.exposed.values():
            if port.adopter is not None and len(port.adopter._registry):
                found.append(("leaked", f"{len(port.adopter._registry)} places for connections"))
            if port.pending:
                found.append(("leaked", f"{port.pending} candidates"))
        if len(host.kernel.sockets) > _SOCKETS:
            found.append(("leaked", f"{len(host.kernel.sockets)} sockets, {_SOCKETS} belong to the port"))
    for connection in host.kernel.connections.values():
        found.append(("leaked", f"TCP {connection.local[1]} to {connection.remote}: {connection.phase.value}"))
    return found


def verdict(world: World) -> Verdict:
    """Everything that was noted, and what the records say."""
    from sim.world import Verdict

    if not world.stands_still:  # then nothing is over, and that is all that there is to say
        _negotiations(world)
        _streams(world)
        for text in meeting.failures(world):
            complain(world, "diverged", text)
    for text in (*world.loop.failures, *(complaint for complaint in world.complaints if ": " in complaint)):
        if not text.startswith(_KINDS):
            complain(world, "exception", text)
    failures: dict[str, list[str]] = {}
    for complaint in world.complaints:
        kind, _, text = complaint.partition(": ")
        if kind in _KINDS and text not in failures.setdefault(kind, []):
            failures[kind].append(text)
    sides = world.records.sides.values()
    return Verdict(
        seed=world.scenario.seed,
        trace_hash=world.network.trace_hash,
        steps=world.loop.steps,
        packets=world.network.packets,
        negotiations=sum(side.role is Role.RESPONDER for side in sides),
        committed=sum(side.role is Role.RESPONDER and side.committed is not None for side in sides),
        failures=failures,
        ladder=world.network.ladder,
        features=features(world),
    )


_KINDS: Final = ("diverged", "stuck", "leaked", "amplified", "exception")


def complain(world: World, kind: str, text: str) -> None:
    """Something did not hold. ``kind``: one of ``_KINDS``."""
    world.complaints.append(f"{kind}: {text}")
    world.network.remark(f"!! {kind}: {text}")


# ---- both sides ----


def _negotiations(world: World) -> None:
    by_id: dict[bytes, list[Side]] = {}
    for side in world.records.sides.values():
        by_id.setdefault(side.transaction, []).append(side)
        for failure in side.failures:
            complain(world, "diverged", failure)
    for transaction, sides in by_id.items():
        ones = [side for side in sides if side.role is Role.INITIATOR]
        others = [side for side in sides if side.role is Role.RESPONDER]
        _accused(world, sides)
        _repeated(world, others)
        if len(ones) > 1:
            complain(world, "diverged", f"{len(ones)} initiators of {transaction.hex()}")
        _agree(world, ones[0] if ones else None, others)


def _agree(world: World, one: Side | None, others: list[Side]) -> None:
    committed = [side for side in others if side.committed is not None]
    if len(committed) > 1:
        complain(world, "diverged", f"{', '.join(side.name for side in committed)} have all committed")
    for side in committed:
        if one is None or not one.sent_commit:
            complain(world, "diverged", f"{side.name} committed, and no initiator sent a commit")
        elif _graph(side) != _graph(one):
            complain(world, "diverged", f"{side.name}: {side.outcome}; {one.name}: {one.outcome}")
        elif side.transcript != one.transcript:
            complain(world, "diverged", f"{side.name} and {one.name} committed over different transcripts")
        elif one.aborted is not None and not _has(world, Trouble.FORGERY):
            complain(world, "diverged", f"{side.name} committed; {one.name}: {one.outcome}")
    if one is not None:
        _tried(world, one)
    if one is not None and one.secure and not any(side.transcript == one.transcript for side in others):
        complain(world, "diverged", f"{one.name} committed over an answer that no responder sent")
    if one is None or one.committed is None or one.aborted is not None or committed:
        return
    if one.unconfirmed or one.crashed or any(side.crashed for side in others):
        return
    if any(side.aborted is not None for side in others) and _lossy(world):
        return
    told = "; ".join(f"{side.name}: {side.outcome}" for side in others) or "there is no responder"
    if one.confirmed or not _faulty(world):
        complain(world, "diverged", f"{one.name}: {one.outcome}; {told}")
    else:
        complain(world, "stuck", f"{one.name} does not know whether its commit arrived; {told}")


def _tried(world: World, one: Side) -> None:
    """Nobody gives a message up that was not repeated."""
    if one.crashed or _has(world, Trouble.SUSPEND, Trouble.HANG):
        return
    sent = world.transmissions[one.life, one.transaction, Step.COMMIT]
    if one.gave_up is Reason.TIMEOUT and sent < _TRANSMISSIONS:
        complain(world, "diverged", f"{one.name} sent its commit {sent} times, and gave up")
    if one.unconfirmed and not world.scenario.faults:
        complain(world, "diverged", f"{one.name}: its commit was not acknowledged, and nothing was lost")


def _accused(world: World, sides: list[Side]) -> None:
    """Nobody here breaks the protocol. Where no path forges anything, and nobody forgets a negotiation that its peer
    remembers, nobody may be called a liar."""
    if _has(world, *_AWAY, Trouble.FORGERY, *_LATE):
        return
    for side in sides:
        if side.aborted is not None and side.aborted.reason in _ACCUSING:
            complain(world, "diverged", f"{side.name} aborted {side.aborted.reason.name}: {side.aborted.detail}")


def _repeated(world: World, others: list[Side]) -> None:
    """Repetitions are no new negotiation, for as long as a side lingers, unless it has no room (MUST-28)."""
    for first in others:
        if first.decided_at < 0 or world.scenario.hosts[first.host].transactions < _ROOMY:
            continue
        if _has(world, Trouble.SUSPEND):  # time enough has passed for that host
            continue
        for second in others:
            if (
                second.life is first.life
                and 0 <= second.began_at - first.decided_at < _LINGER_US
                and second is not first
                and not _crowded(world, second)
            ):
                complain(world, "diverged", f"{second.name} began again with repetitions of what it had decided")


def _crowded(world: World, late: Side) -> bool:
    """More have come than there are places for whose address is not proven: what lingers in one has given way."""
    since = late.began_at - _LASTS_US
    met = [side for side in world.records.sides.values() if side.life is late.life and side.role is Role.RESPONDER]
    there = {side.transaction for side in met if since <= side.began_at <= late.began_at}
    return len(there) > world.scenario.hosts[late.host].unproven


def _graph(side: Side) -> Any:
    committed = side.committed
    return None if committed is None else (committed.ids, committed.protocols)


# ---- the streams on top ----


def _streams(world: World) -> None:
    by_call: dict[int, list[Served]] = {}
    for served in world.records.served:
        if len(served.heard) >= 4:
            by_call.setdefault(int.from_bytes(served.heard[:4], "big"), []).append(served)
    forged = _has(world, Trouble.FORGERY)
    for called in world.records.calls:
        winners = by_call.pop(called.number + 1, [])
        if len(winners) > 1:
            complain(world, "diverged", f"call {called.number} was served {len(winners)} times")
        if called.said_back:
            if len(winners) != 1:
                complain(world, "diverged", f"call {called.number} has an answer of {len(winners)} services")
            elif (winners[0].stack, winners[0].negotiated) != (called.association, called.negotiated) and not forged:
                complain(world, "diverged", f"call {called.number}: {called.association} and {winners[0].stack}")
        elif not called.association and not world.scenario.faults:
            _unreached(world, called)
        elif called.association and not _excused(world, called):
            what = "negotiated" if called.negotiated else "plain"
            complain(
                world, "diverged", f"call {called.number}: {what} {called.association} carries nothing: {called.broken}"
            )
    _taken(world)
    if by_call and not forged:
        complain(world, "diverged", f"services heard of calls {sorted(by_call)}, which nobody made")


def _taken(world: World) -> None:
    """A race has one winner: what was committed to is what a call was given, unless it was called off meanwhile, or its
    time was over before the commit could be sent, and the call has that for its reason."""
    given = {called.transaction for called in world.records.calls}
    if any(called.called_off or called.crashed for called in world.records.calls):
        return
    for side in world.records.sides.values():
        up = side.role is Role.INITIATOR and side.committed is not None and side.aborted is None and not side.crashed
        late = side.unconfirmed and not world.transmissions[side.life, side.transaction, side.sent[-1]]
        if (
            up
            and not late
            and not side.renews
            and side.transaction not in given
            and not meeting.in_meeting(side.machine)
        ):
            complain(world, "diverged", f"{side.name}: {side.outcome}, and no call was given that stack")


def _unreached(world: World, called: Called) -> None:
    """Without any fault, and with room for it, a call fails only because of what the two policies say."""
    call = world.scenario.calls[called.number]
    ends = (world.scenario.hosts[call.source], world.scenario.hosts[call.target])
    if called.called_off or any(not end.accord or end.transactions < _ROOMY for end in ends):
        return
    if not called.reason or Reason[called.reason] in _ACCUSING or Reason[called.reason] in _UNREACHED:
        complain(world, "diverged", f"call {called.number} failed: {called.reason or 'without a reason'}")


def _excused(world: World, called: Called) -> bool:
    """A stream may be broken when an end was away, or never had it; when its service refuses what it is; and when the
    network withheld its first bytes for so long that the port's owner gave it up: a plain one's since it was accepted,
    a stack's since its commit came (PROTOCOL.md, MUST-58)."""
    call = world.scenario.calls[called.number]
    if called.crashed or _away(world, call.source) or _away(world, call.target):
        return True
    if not called.negotiated:
        if called.took >= _FIRST_BYTES_SECONDS and _has(world, *_LOSING):
            return True
        return (
            called.association == "tcp" and world.hosts[call.target].spec.accord and _wants_security(world, call.target)
        )
    sides = [side for side in world.records.sides.values() if side.transaction == called.transaction]
    broken_at = call.at + called.took * 1e6
    kept = [side.decided_at for side in sides if side.role is Role.RESPONDER and side.committed is not None]
    if _has(world, *_LOSING) and any(broken_at - decided_at >= _LINGER_US for decided_at in kept):
        return True
    if _has(world, Trouble.FORGERY) and not any(side.secure for side in sides if side.role is Role.RESPONDER):
        return True  # whoever forges can always prevent a commit, and without security also change one
    return any(side.unconfirmed or side.aborted is not None for side in sides if side.role is Role.INITIATOR)


def _wants_security(world: World, host: int) -> bool:
    policies = [world.scenario.hosts[host].policy]
    policies += [int(f.amount) for f in world.scenario.faults if f.trouble is Trouble.POLICY and f.a == host]
    return 0 in policies


# ---- faults that excuse ----


def _has(world: World, *troubles: Trouble) -> bool:
    return any(fault.trouble in troubles for fault in world.scenario.faults)


def _away(world: World, host: int) -> bool:
    return any(fault.trouble in _AWAY and fault.a == host for fault in world.scenario.faults)


def _lossy(world: World) -> bool:
    return _has(world, *_LOSING, Trouble.MASK, Trouble.FORGERY, Trouble.SUSPEND, Trouble.DUPLICATION)


def _faulty(world: World) -> bool:
    return bool(world.scenario.faults)
