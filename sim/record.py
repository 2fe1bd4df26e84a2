# SPDX-License-Identifier: Apache-2.0
"""What was seen of one run: each side of each negotiation, each call, each connection that a service got."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from accord.negotiation import events
from accord.negotiation.interface import Role
from accord.negotiation.machine import Machine
from accord.wire.constants import Reason, Step

if TYPE_CHECKING:
    from sim.host import Life
    from sim.meeting import Met
    from sim.network import Network


@dataclass(slots=True, eq=False)
class Side:
    """One side of one negotiation, in one life of its host."""

    transaction: bytes
    role: Role
    host: int
    life: Life
    machine: Machine
    committed: events.Committed | None = None
    confirmed: bool = False
    unconfirmed: bool = False
    gave_up: Reason = Reason.OK
    """Why it is unconfirmed."""
    aborted: events.Aborted | None = None
    sent: list[int] = field(default_factory=list)
    """Steps."""
    proven: bool = False
    transcript: bytes = b""
    """T of the latest answer, as this side has it."""
    transcripts: list[bytes] = field(default_factory=list)
    """T of each of its answers."""
    decided_at: int = -1
    """When it was decided, committed or aborted: virtual microseconds."""
    began_at: int = 0
    renews: bool = False
    """It is about an association that has a stack."""
    failures: list[str] = field(default_factory=list)

    @property
    def crashed(self) -> bool:
        """Its life ended before it was over."""
        return self.life.dead

    @property
    def secure(self) -> bool:
        """What it has committed to authenticates the peer."""
        return self.committed is not None and any(session.secure for session in self.committed.sessions)

    @property
    def name(self) -> str:
        """For people."""
        return f"host {self.host} {self.role.value} {self.transaction[:3].hex()}"

    @property
    def outcome(self) -> str:
        """In a few words."""
        words = []
        if self.committed is not None:
            words.append(f"committed to {self.committed.name}")
        if self.confirmed:
            words.append("confirmed")
        if self.unconfirmed:
            words.append("never acknowledged")
        if self.aborted is not None:
            words.append(f"aborted {self.aborted.reason.name}{' by the peer' if self.aborted.by_peer else ''}")
        if self.crashed:
            words.append("crashed")
        return ", ".join(words) or "undecided"

    def take(self, actions: Sequence[events.Action], network: Network) -> None:
        """What its machine did."""
        for action in actions:
            match action:
                case events.Send():
                    self.sent.append(action.step)
                    if self.machine.state is not self.machine.ABORTED:
                        self.transcript = self.machine._hash  # type: ignore[attr-defined]
                        self.transcripts.append(self.transcript)
                case events.Prove():
                    self.proven = True
                case events.Committed():
                    if self.committed is not None:
                        self.failures.append(f"{self.name} committed twice")
                    self.committed = action
                    self.decided_at = network.now_us
                    network.note(f"{self.name}: committed to {action.name}")
                case events.Confirmed():
                    self.confirmed = True
                case events.Unconfirmed():
                    self.unconfirmed, self.gave_up = True, action.reason
                case events.Aborted():
                    if self.aborted is not None:
                        self.failures.append(f"{self.name} aborted twice")
                    self.aborted = action
                    self.decided_at = network.now_us if self.decided_at < 0 else self.decided_at
                    by = " by the peer" if action.by_peer else ""
                    network.note(f"{self.name}: aborted {action.reason.name}{by}")
                    network.remark(f"    {action.detail}")
                    if action.reason is Reason.OK:
                        self.failures.append(f"{self.name} aborted without a reason")
                case events.Note():
                    network.remark(f"{self.name}: {action.text}")

    @property
    def sent_commit(self) -> bool:
        """Its commit was handed to the engine."""
        return self.committed is not None and Step.COMMIT in self.sent


@dataclass(slots=True, eq=False)
class Served:
    """A connection that a service got."""

    host: int
    life: int
    stack: str
    negotiated: bool
    inside: str = ""
    """What was agreed inside its nodes."""
    reason: str = ""
    """Of a plain one."""
    heard: bytes = b""
    failure: str = ""
    over: bool = False


@dataclass(slots=True, eq=False)
class Called:
    """A call of ``connect`` and what came of it."""

    number: int
    done: bool = False
    association: str = ""
    """The stack."""
    negotiated: bool = False
    inside: str = ""
    """What was agreed inside its nodes."""
    reason: str = ""
    """Why it fell back or failed."""
    said_back: bool = False
    """The service said back what was sent to it."""
    broken: str = ""
    """What the stream failed with."""
    changed: int = 0
    """It was given another stack so often."""
    took: float = 0.0
    """Virtual seconds, from the call to the end of its stream."""
    called_off: bool = False
    transaction: bytes = b""
    """Of the negotiation that won."""
    life: Life | None = None
    """Of the host that called; None: it was away, so nobody called."""

    @property
    def crashed(self) -> bool:
        """The application went with its host."""
        return self.life is None or self.life.dead


@dataclass(slots=True)
class Records:
    """Of one run."""

    sides: dict[int, Side] = field(default_factory=dict)
    served: list[Served] = field(default_factory=list)
    calls: list[Called] = field(default_factory=list)
    met: list[Met] = field(default_factory=list)

    def of(self, life: Life, machine: Machine, now: int) -> Side:
        """The record of a machine."""
        found = self.sides.get(id(machine))
        if found is None:  # the record keeps the machine, so no other one gets its id
            found = Side(machine.transaction, machine.ROLE, life.host.index, life, machine, began_at=now)
            graph = getattr(machine, "_graph", None)
            found.renews = graph is not None and graph.context.renegotiates is not None
            self.sides[id(machine)] = found
        return found
