# SPDX-License-Identifier: Apache-2.0
"""Two hosts in memory that propose to each other at once, over a network that loses, doubles and reorders messages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from accord.negotiation.events import Aborted, Action, Committed, Event, MessageArrived, Resume, Send
from accord.negotiation.initiator import Proposed
from accord.negotiation.interface import Role, Session
from accord.negotiation.meeting import Meeting, MeetingInitiator, MeetingResponder, meeting_id
from accord.wire.constants import NodeId, Protocol
from tests.negotiation.peers import ALL, SECURE, SHAPE, FakeChooser, FakeSession, Shape, Side, events_of

ROUNDS = 12
"""Times that everything unacknowledged is sent again, before a transaction is given up."""


def identity_of(name: str) -> bytes:
    """16 bytes that look random."""
    return hashlib.sha256(name.encode()).digest()[:16]


@dataclass
class Letter:
    """One message on the network: of a transaction of ``opener``'s, from ``sender``."""

    sender: str
    opener: str
    path: int
    message: Send
    acknowledges: bool = False


@dataclass
class Host:
    """One side: its meeting, a transaction of its own to each address of the other's, and those of the other's."""

    name: str
    preferences: dict[int, int]
    shape: Shape = field(default_factory=lambda: SHAPE)
    supported: frozenset[int] = ALL
    chooser: FakeChooser = field(default_factory=FakeChooser)
    paths: int = 1
    meeting_name: str = "a meeting"
    proposes: bool = True
    refuses: dict[int, dict[str, object]] = field(default_factory=dict)
    """By node ID: the script of a responder's session."""

    def __post_init__(self) -> None:
        self.meeting = Meeting(meeting_id(self.meeting_name), identity_of(self.name), SECURE)
        self.machines: dict[tuple[str, int], Side] = {}
        self.unacknowledged: list[Letter] = []
        self.got: set[tuple[str, int, int]] = set()
        self.sessions: list[FakeSession] = []

    def start(self) -> list[Letter]:
        letters: list[Letter] = []
        for path in range(self.paths):
            transaction = identity_of(f"{self.name} {path}")[:12]
            machine = MeetingInitiator(
                self.meeting, transaction, self._proposed(), self.chooser, context_protocol=Protocol.UDP
            )
            side = Side(machine, {}, self.supported)  # type: ignore[arg-type]
            self.machines[self.name, path] = side
            letters += self._posted(self.name, path, side.take(machine.start()))
        return letters

    def _proposed(self) -> list[Proposed]:
        proposed = []
        for node_id, (protocol, children) in self.shape.items():
            session = FakeSession(protocol, Role.INITIATOR, protocol in SECURE)
            self.sessions.append(session)
            proposed.append(
                Proposed(node_id, protocol, session if node_id else None, children, self.preferences.get(node_id))
            )
        return proposed

    def _posted(self, opener: str, path: int, sends: Sequence[Send]) -> list[Letter]:
        letters = [Letter(self.name, opener, path, send) for send in sends]
        self.unacknowledged += letters
        return letters

    def take(self, letter: Letter) -> list[Letter]:
        """A letter comes in: what this host posts in return, its acknowledgement first."""
        key = (letter.opener, letter.path)
        if letter.acknowledges:
            step = letter.message.step
            ours = [x for x in self.unacknowledged if (x.opener, x.path) == key and x.message.step == step]
            for found in ours:
                self.unacknowledged.remove(found)
            return self._give(key, MessageArrived(step)) if ours else []
        posted = [Letter(self.name, letter.opener, letter.path, letter.message, acknowledges=True)]
        if (*key, letter.message.step) in self.got:
            return posted
        self.got.add((*key, letter.message.step))
        if key not in self.machines:
            self.machines[key] = Side(self._responder(letter), {}, self.supported)  # type: ignore[arg-type]
        for event in events_of(letter.message, letter.message.nodes, self.machines[key]):
            posted += self._give(key, event)
        if letter.opener != self.name:
            for own in [key for key in self.machines if key[0] == self.name]:
                posted += self._give(own, Resume(NodeId.CONTEXT))
        return posted

    def _responder(self, letter: Letter) -> MeetingResponder:
        def open_session(node_id: int, protocol: int) -> Session:
            script = dict(self.refuses.get(node_id, {}))
            self.sessions.append(FakeSession(protocol, Role.RESPONDER, protocol in SECURE, script))
            return self.sessions[-1]

        transaction = identity_of(f"{letter.opener} {letter.path}")[:12]
        return MeetingResponder(
            self.meeting, transaction, self.chooser, open_session, b"c" * 16, context_protocol=Protocol.UDP
        )

    def _give(self, key: tuple[str, int], event: Event) -> list[Letter]:
        return self._posted(*key, self.machines[key].receive(event))

    @property
    def actions(self) -> list[Action]:
        return [action for side in self.machines.values() for action in side.actions]

    @property
    def committed(self) -> list[Committed]:
        return [action for action in self.actions if isinstance(action, Committed)]

    @property
    def stack(self) -> str | None:
        found = self.committed
        assert len(found) <= 1, "a meeting commits to one stack"
        return found[0].name if found else None

    @property
    def reasons(self) -> set[str]:
        return {action.reason.name for action in self.actions if isinstance(action, Aborted)}

    @property
    def leads(self) -> bool | None:
        """It committed as the initiator; None: it has not."""
        for (opener, _), side in self.machines.items():
            if side.committed:
                return opener == self.name
        return None


def run(one: Host, other: Host, fate: Callable[[int], str] = lambda number: "", lag: int = 0) -> int:
    """Let both talk until there is nothing left to say, or to repeat. Returns how many letters there were.

    ``fate``: by the letter's number: ``lose``, ``double``, ``late`` (it is overtaken); anything else: it comes.
    ``lag``: how many letters the network carries before ``other`` begins.
    """
    hosts = {one.name: one, other.name: other}
    net = one.start() if one.proposes else []
    begun = not other.proposes
    number = 0
    for _ in range(ROUNDS):
        while net or not begun:
            if not begun and (number >= lag or not net):
                net += other.start()
                begun = True
            letter = net.pop(0)
            what, number = fate(number), number + 1
            if what == "lose":
                continue
            if what == "late" and net:
                net.append(letter)
                continue
            receiver = next(host for name, host in hosts.items() if name != letter.sender)
            if not receiver.machines and receiver.proposes:
                continue  # nobody listens yet
            for _ in range(2 if what == "double" else 1):
                net += receiver.take(letter)
        net = [*one.unacknowledged, *other.unacknowledged]
        if not net:
            break
    return number
