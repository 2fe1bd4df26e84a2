# SPDX-License-Identifier: Apache-2.0
"""Which accepted connection belongs to which negotiation (parallel SYN, responder), sans-IO.

A connection and a negotiation find each other by the transaction ID. Which of them comes first, and whether the
commit, the connection's first bytes or the end of the negotiation comes next, is up to the network. Where a
transaction stands:

ABSENT      Nobody knows of it. Also where everything ends: a connection that has been joined to its stack, or was
            left to be a plain one, is no business of this table any more.
PARKED      A connection whose SYN bore the ID has said nothing yet, and nobody negotiates about it. It is served as
            a plain one, which is to say that its first byte is waited for. On a short path that is how it begins: the
            handshake of TCP is faster than our answer to the proposal.
EXPECTED    The proposal is answered; the connection is still to come.
SILENT      Both are there; the connection has said nothing.
SPOKEN      Both are there; the connection began with what no plain one begins with, a TLS record that is no
            handshake's: it is the stack's, and the commit is late. If that never comes no service is given those
            bytes.
ENDED       Both are there; the connection has ended without a word. The commit tells whether it is the stack's.
PREFACED    Both are there; the connection began with the preface, so its initiator has committed.
GREETED     Both are there; the connection began with the ClientHello of the proposal, which is a plain one's beginning
            as well: the commit, or the end of the negotiation, tells.
SPENT       The negotiation was still in flight when its connection began as a plain one: the initiator has fallen
            back. The negotiation is told to stop, and its commit, should it still come, is refused: bytes of one
            stream must not be read as those of two.
CLAIMED     Committed, the stream from the connection's first byte; the connection is still to come.
BEHIND      Committed, the stream behind the preface or the ClientHello; a connection with that is still to come.
MUTE        As BEHIND, and a connection whose SYN bore the ID is there; its first bytes are still to come.

A connection that does not fit is a plain one, and the place is kept for the one that does. Only what began with the
preface, or with a record, is never a plain one: a service must not be given those bytes.

One connection has a place. A second one is plain, unless it comes from the address of the negotiation and the first
does not: whoever has seen the ID on the path can use it from elsewhere, but cannot take the place of the peer that
way, nor, by what he says, end the negotiation. As long as nobody negotiates (PARKED) that address is not known: a few
connections from other addresses are kept in mind until then, as *spares*. A connection from elsewhere is taken, for an
address translator with several addresses may well use another one for TCP than for UDP. None of this authenticates
anybody: that is TLS's part, above.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

C = TypeVar("C")


class State(enum.Enum):
    """See the module's docstring."""

    ABSENT = "absent"
    PARKED = "parked"
    EXPECTED = "expected"
    SILENT = "silent"
    SPOKEN = "spoken"
    ENDED = "ended"
    GREETED = "greeted"
    PREFACED = "prefaced"
    SPENT = "spent"
    CLAIMED = "claimed"
    BEHIND = "behind"
    MUTE = "mute"


class Event(enum.Enum):
    """What happens to a transaction."""

    EXPECT = "the proposal is answered"
    SYN = "a connection was accepted whose SYN bore the ID"
    PREFACE = "a connection whose SYN did not begins with the preface"
    HELLO = "a connection whose SYN did not begins with the ClientHello of the proposal"
    SAYS_PREFACE = "the connection that has the place begins with the preface"
    SAYS_HELLO = "it begins with the ClientHello of the proposal"
    SAYS_RECORD = "it begins with a TLS record that is no handshake's"
    SAYS_END = "it ends without a word"
    SAYS_PLAIN = "it begins with anything else"
    GONE = "it is gone: reset, or silent for too long"
    COMMIT_FIRST = "the commit: from the first byte"
    COMMIT_BEHIND = "the commit: behind the preface, or the ClientHello"
    END = "the negotiation came to nothing"
    EXPIRE = "too late"


class Do(enum.Enum):
    """What is to be done. HELD: with the connection that had the place; NEW: with the one that the event brought."""

    HOLD_NEW = "give it the place"
    SPARE_NEW = "serve it as a plain one, unless it is given the place after all"
    PLAIN_NEW = "serve it as a plain one"
    DROP_NEW = "reset it"
    JOIN_NEW = "it is the stack's, from its first byte"
    JOIN_NEW_BEHIND = "it is the stack's, behind the preface or the ClientHello"
    PLAIN_HELD = "as PLAIN_NEW"
    DROP_HELD = "as DROP_NEW"
    JOIN_HELD = "as JOIN_NEW"
    JOIN_HELD_BEHIND = "as JOIN_NEW_BEHIND"
    STOP = "tell the negotiation that the peer has fallen back"
    REFUSE = "tell whoever asks that the connection is not to be had"
    FAIL = "tell the stack that its connection does not come"


_S, _E, _D = State, Event, Do
_SECOND: Final = {
    _E.SYN: (None, (_D.PLAIN_NEW,)), _E.PREFACE: (None, (_D.DROP_NEW,)), _E.HELLO: (None, (_D.PLAIN_NEW,))
}  # fmt: skip
_SPOKE_ALREADY: Final = {
    _E.SAYS_PREFACE: (None, ()), _E.SAYS_HELLO: (None, ()), _E.SAYS_RECORD: (None, ()), _E.SAYS_END: (None, ()),
    _E.SAYS_PLAIN: (None, ()),
}  # fmt: skip
_NO_CONNECTION: Final = {**_SPOKE_ALREADY, _E.GONE: (None, ())}
_NO_NEGOTIATION: Final = {
    _E.COMMIT_FIRST: (None, (_D.REFUSE,)), _E.COMMIT_BEHIND: (None, (_D.REFUSE,)),
    _E.END: (None, ()), _E.EXPIRE: (None, ()),
}  # fmt: skip
_IN_USE: Final = {_E.EXPECT: (None, (_D.REFUSE,))}
_COMMITTED: Final = {**_IN_USE, _E.COMMIT_FIRST: (None, (_D.REFUSE,)), _E.COMMIT_BEHIND: (None, (_D.REFUSE,))}

Row = Mapping[Event, tuple[State | None, tuple[Do, ...]]]
TABLE: Final[Mapping[State, Row]] = {
    _S.ABSENT: {
        _E.EXPECT: (_S.EXPECTED, ()),
        _E.SYN: (_S.PARKED, (_D.HOLD_NEW,)),
        _E.PREFACE: (None, (_D.DROP_NEW,)),
        _E.HELLO: (None, (_D.PLAIN_NEW,)),
        **_NO_CONNECTION,
        **_NO_NEGOTIATION,
    },
    _S.PARKED: {
        **_SECOND,
        **_NO_NEGOTIATION,
        _E.EXPECT: (_S.SILENT, ()),
        _E.SAYS_PREFACE: (_S.ABSENT, (_D.DROP_HELD,)),
        _E.SAYS_HELLO: (_S.ABSENT, (_D.PLAIN_HELD,)),
        _E.SAYS_RECORD: (_S.ABSENT, (_D.DROP_HELD,)),
        _E.SAYS_END: (_S.ABSENT, (_D.PLAIN_HELD,)),
        _E.SAYS_PLAIN: (_S.ABSENT, (_D.PLAIN_HELD,)),
        _E.GONE: (_S.ABSENT, ()),
    },
    _S.EXPECTED: {
        **_IN_USE,
        **_NO_CONNECTION,
        _E.SYN: (_S.SILENT, (_D.HOLD_NEW,)),
        _E.PREFACE: (_S.PREFACED, (_D.HOLD_NEW,)),
        _E.HELLO: (_S.GREETED, (_D.HOLD_NEW,)),
        _E.COMMIT_FIRST: (_S.CLAIMED, ()),
        _E.COMMIT_BEHIND: (_S.BEHIND, ()),
        _E.END: (_S.ABSENT, ()),
        _E.EXPIRE: (_S.ABSENT, ()),
    },
    _S.SILENT: {
        **_IN_USE,
        **_SECOND,
        _E.SAYS_PREFACE: (_S.PREFACED, ()),
        _E.SAYS_HELLO: (_S.GREETED, ()),
        _E.SAYS_RECORD: (_S.SPOKEN, ()),
        _E.SAYS_END: (_S.ENDED, ()),
        _E.SAYS_PLAIN: (_S.SPENT, (_D.PLAIN_HELD, _D.STOP)),
        _E.GONE: (_S.EXPECTED, ()),
        _E.COMMIT_FIRST: (_S.ABSENT, (_D.JOIN_HELD,)),
        _E.COMMIT_BEHIND: (_S.MUTE, ()),
        _E.END: (_S.PARKED, ()),
        _E.EXPIRE: (_S.PARKED, ()),
    },
    _S.SPOKEN: {
        **_IN_USE,
        **_SECOND,
        **_SPOKE_ALREADY,
        _E.GONE: (_S.EXPECTED, ()),
        _E.COMMIT_FIRST: (_S.ABSENT, (_D.JOIN_HELD,)),
        _E.COMMIT_BEHIND: (_S.BEHIND, (_D.DROP_HELD,)),
        _E.END: (_S.ABSENT, (_D.DROP_HELD,)),
        _E.EXPIRE: (_S.ABSENT, (_D.DROP_HELD,)),
    },
    _S.ENDED: {
        **_IN_USE,
        **_SECOND,
        **_SPOKE_ALREADY,
        _E.GONE: (_S.EXPECTED, ()),
        _E.COMMIT_FIRST: (_S.ABSENT, (_D.JOIN_HELD,)),
        _E.COMMIT_BEHIND: (_S.BEHIND, (_D.PLAIN_HELD,)),
        _E.END: (_S.ABSENT, (_D.PLAIN_HELD,)),
        _E.EXPIRE: (_S.ABSENT, (_D.PLAIN_HELD,)),
    },
    _S.GREETED: {
        **_IN_USE,
        **_SECOND,
        **_SPOKE_ALREADY,
        _E.GONE: (_S.EXPECTED, ()),
        _E.COMMIT_FIRST: (_S.CLAIMED, (_D.PLAIN_HELD,)),
        _E.COMMIT_BEHIND: (_S.ABSENT, (_D.JOIN_HELD_BEHIND,)),
        _E.END: (_S.ABSENT, (_D.PLAIN_HELD,)),
        _E.EXPIRE: (_S.ABSENT, (_D.PLAIN_HELD,)),
    },
    _S.PREFACED: {
        **_IN_USE,
        **_SECOND,
        **_SPOKE_ALREADY,
        _E.GONE: (_S.EXPECTED, ()),
        _E.COMMIT_FIRST: (_S.CLAIMED, (_D.DROP_HELD,)),
        _E.COMMIT_BEHIND: (_S.ABSENT, (_D.JOIN_HELD_BEHIND,)),
        _E.END: (_S.ABSENT, (_D.DROP_HELD,)),
        _E.EXPIRE: (_S.ABSENT, (_D.DROP_HELD,)),
    },
    _S.SPENT: {
        **_COMMITTED,
        **_SECOND,
        **_NO_CONNECTION,
        _E.END: (_S.ABSENT, ()),
        _E.EXPIRE: (_S.ABSENT, ()),
    },
    _S.CLAIMED: {
        **_COMMITTED,
        **_NO_CONNECTION,
        _E.SYN: (_S.ABSENT, (_D.JOIN_NEW,)),
        _E.PREFACE: (None, (_D.DROP_NEW,)),
        _E.HELLO: (None, (_D.PLAIN_NEW,)),
        _E.END: (_S.ABSENT, (_D.FAIL,)),
        _E.EXPIRE: (_S.ABSENT, (_D.FAIL,)),
    },
    _S.BEHIND: {
        **_COMMITTED,
        **_NO_CONNECTION,
        _E.SYN: (_S.MUTE, (_D.HOLD_NEW,)),
        _E.PREFACE: (_S.ABSENT, (_D.JOIN_NEW_BEHIND,)),
        _E.HELLO: (_S.ABSENT, (_D.JOIN_NEW_BEHIND,)),
        _E.END: (_S.ABSENT, (_D.FAIL,)),
        _E.EXPIRE: (_S.ABSENT, (_D.FAIL,)),
    },
    _S.MUTE: {
        **_COMMITTED,
        _E.SYN: (None, (_D.PLAIN_NEW,)),
        _E.PREFACE: (_S.ABSENT, (_D.JOIN_NEW_BEHIND, _D.PLAIN_HELD)),
        _E.HELLO: (_S.ABSENT, (_D.JOIN_NEW_BEHIND, _D.PLAIN_HELD)),
        _E.SAYS_PREFACE: (_S.ABSENT, (_D.JOIN_HELD_BEHIND,)),
        _E.SAYS_HELLO: (_S.ABSENT, (_D.JOIN_HELD_BEHIND,)),
        _E.SAYS_RECORD: (_S.BEHIND, (_D.DROP_HELD,)),
        _E.SAYS_END: (_S.BEHIND, (_D.PLAIN_HELD,)),
        _E.SAYS_PLAIN: (_S.BEHIND, (_D.PLAIN_HELD,)),
        _E.GONE: (_S.BEHIND, ()),
        _E.END: (_S.PARKED, (_D.FAIL,)),
        _E.EXPIRE: (_S.PARKED, (_D.FAIL,)),
    },
}
"""By state and event: the state after it (None: the same), and what is to be done, in order."""

UNFOUND: Final = frozenset({State.EXPECTED, State.CLAIMED, State.BEHIND, State.MUTE})
"""Somebody still waits for a connection, or for its first bytes."""
SPARES: Final = 3
"""Connections that are kept in mind beside a parked one: who needs more addresses than that has them for a flood."""
_NEGOTIATING: Final = frozenset(State) - {State.ABSENT, State.PARKED}
_REPLACEABLE: Final = {
    State.SILENT: (State.EXPECTED, Do.PLAIN_HELD),
    State.SPOKEN: (State.EXPECTED, Do.DROP_HELD),
    State.ENDED: (State.EXPECTED, Do.PLAIN_HELD),
    State.GREETED: (State.EXPECTED, Do.PLAIN_HELD),
    State.PREFACED: (State.EXPECTED, Do.DROP_HELD),
    State.MUTE: (State.BEHIND, Do.PLAIN_HELD),
}


class Result(enum.StrEnum):
    """How an adoption ended, for counters."""

    BY_SYN = "by_syn"
    BY_PREFACE = "by_preface"
    FELL_BACK = "fell_back"
    NEVER_CAME = "never_came"


Step = tuple[Do, "C | None"]


@dataclass(slots=True)
class _Entry(Generic[C]):
    state: State = State.ABSENT
    address: str | None = None
    """The negotiation's peer."""
    held: C | None = None
    held_address: str = ""
    spares: dict[str, C] = field(default_factory=dict)
    """PARKED: one from each of a few other addresses, by address."""


class Registry(Generic[C]):
    """All transactions of one port; ``C`` is whatever a connection is. At most ``limit`` have a negotiation, and as
    many again have a connection only."""

    def __init__(self, limit: int, results: Counter[Result] | None = None) -> None:
        """``results``: where to count how they end."""
        self._limit = limit
        self._entries: dict[bytes, _Entry[C]] = {}
        self._negotiating = 0
        self.results = Counter() if results is None else results

    def __len__(self) -> int:
        return len(self._entries)

    def state(self, transaction: bytes) -> State:
        """Where a transaction stands."""
        entry = self._entries.get(transaction)
        return State.ABSENT if entry is None else entry.state

    def unfound(self) -> list[bytes]:
        """Transactions of which a connection is still to come."""
        return [transaction for transaction, entry in self._entries.items() if entry.state in UNFOUND]

    def held(self, transaction: bytes) -> C | None:
        """The connection that has the place."""
        entry = self._entries.get(transaction)
        return None if entry is None else entry.held

    def negotiates(self, transaction: bytes) -> bool:
        """A negotiation, or its stack, has to do with what is in this place."""
        return self.state(transaction) in _NEGOTIATING

    def expect(self, transaction: bytes, address: str) -> list[Step[C]]:
        """The negotiation of a peer at ``address`` wants to adopt. Raises ``AccordError``: NO_MEMORY, LEGACY_FIRST."""
        entry = self._entries.get(transaction, _Entry())
        if self._negotiating >= self._limit:
            raise error(Reason.NO_MEMORY, f"{self._limit} connections are being waited for already", "try again")
        self._apply(transaction, entry, Event.EXPECT, None, "")
        entry.address = address
        if entry.held is None or entry.held_address == address or address not in entry.spares:
            entry.spares.clear()
            return []
        # Whoever was first is not the peer, and the peer's own connection is here.
        steps: list[Step[C]] = [(Do.PLAIN_HELD, entry.held), (Do.HOLD_NEW, entry.spares[address])]
        entry.held, entry.held_address = entry.spares[address], address
        entry.spares.clear()
        return steps

    def accepted(self, transaction: bytes, event: Event, connection: C, address: str) -> list[Step[C]]:
        """A connection that names the transaction: ``Event.SYN`` or ``Event.PREFACE``."""
        entry = self._entries.get(transaction, _Entry())
        if entry.state is State.ABSENT and event is Event.SYN and len(self._entries) >= 2 * self._limit:
            return [(Do.PLAIN_NEW, connection)]
        steps: list[Step[C]] = []
        if entry.state in _REPLACEABLE and address == entry.address != entry.held_address:
            entry.state, do = _REPLACEABLE[entry.state]
            steps.append((do, entry.held))
            entry.held = None
        if entry.state is State.MUTE and event is not Event.SYN and entry.held_address == entry.address != address:
            # The peer's own has the place, and its first bytes are on the way.
            return [(Do.DROP_NEW if event is Event.PREFACE else Do.PLAIN_NEW, connection)]
        if entry.state is State.PARKED and event is Event.SYN and self._may_spare(entry, address):
            entry.spares[address] = connection
            return [(Do.SPARE_NEW, connection)]
        return steps + self._apply(transaction, entry, event, connection, address)

    def said(self, transaction: bytes, event: Event, connection: C) -> list[Step[C]]:
        """``SAYS_...`` or GONE of a connection; nothing happens when it does not have the place (any more)."""
        entry = self._entries.get(transaction)
        if entry is None or entry.held is not connection:
            return []
        if entry.state is State.PARKED and entry.spares:
            _, todo = TABLE[State.PARKED][event]
            address = next(iter(entry.spares))
            entry.held, entry.held_address = entry.spares.pop(address), address
            return [*((do, connection) for do in todo), (Do.HOLD_NEW, entry.held)]
        if entry.state is State.SILENT and event is Event.SAYS_PLAIN and entry.held_address != entry.address:
            # Perhaps a stranger; if it was the peer's own it has given the negotiation up, and says so there.
            entry.state, entry.held, entry.held_address = State.EXPECTED, None, ""
            return [(Do.PLAIN_HELD, connection)]
        return self._apply(transaction, entry, event, None, "")

    def unspare(self, transaction: bytes, connection: C) -> None:
        """A spare has become a plain connection for good, or is gone."""
        entry = self._entries.get(transaction)
        if entry is not None:
            entry.spares = {address: spare for address, spare in entry.spares.items() if spare is not connection}

    def commit(self, transaction: bytes, *, behind_preface: bool) -> list[Step[C]]:
        """The commit. Raises ``AccordError``: LEGACY_FIRST when the peer has fallen back, TIMEOUT when it is late."""
        event = Event.COMMIT_BEHIND if behind_preface else Event.COMMIT_FIRST
        return self._apply(transaction, self._entries.get(transaction, _Entry()), event, None, "")

    def end(self, transaction: bytes, event: Event = Event.END) -> list[Step[C]]:
        """The negotiation, or a stack that still waits, is over: END or EXPIRE."""
        entry = self._entries.get(transaction)
        return [] if entry is None else self._apply(transaction, entry, event, None, "")

    @staticmethod
    def _may_spare(entry: _Entry[C], address: str) -> bool:
        return address not in (entry.held_address, *entry.spares) and len(entry.spares) < SPARES

    def _apply(
        self, transaction: bytes, entry: _Entry[C], event: Event, connection: C | None, address: str
    ) -> list[Step[C]]:
        before = entry.state
        after, todo = TABLE[before][event]
        if Do.REFUSE in todo:
            raise _refusal(before)
        entry.state = after or before
        self._negotiating += (entry.state in _NEGOTIATING) - (before in _NEGOTIATING)
        steps: list[Step[C]] = []
        for do in todo:
            self._count(do, event)
            steps.append((do, connection if do.name.endswith(("_NEW", "NEW_BEHIND")) else entry.held))
        if Do.HOLD_NEW in todo:
            entry.held, entry.held_address = connection, address
        elif event is Event.GONE or any("HELD" in do.name for do in todo):
            entry.held, entry.held_address = None, ""
        if entry.state in (State.ABSENT, State.PARKED):
            entry.address = None
        if entry.state is State.ABSENT:
            self._entries.pop(transaction, None)
        else:
            self._entries[transaction] = entry
        return steps

    def _count(self, do: Do, event: Event) -> None:
        if do in (Do.JOIN_NEW, Do.JOIN_HELD):
            self.results[Result.BY_SYN] += 1
        elif do in (Do.JOIN_NEW_BEHIND, Do.JOIN_HELD_BEHIND):
            self.results[Result.BY_PREFACE] += 1
        elif do is Do.STOP:
            self.results[Result.FELL_BACK] += 1
        elif do is Do.FAIL and event is Event.EXPIRE:
            self.results[Result.NEVER_CAME] += 1


def _refusal(state: State) -> AccordError:
    if state is State.SPENT:
        return error(Reason.LEGACY_FIRST, "the peer has gone on with the connection as with a plain one")
    if state in (State.ABSENT, State.PARKED):
        return error(Reason.TIMEOUT, "the connection of the parallel SYN is not waited for any more")
    return error(Reason.CONTRADICTION, "another negotiation has this transaction ID")
