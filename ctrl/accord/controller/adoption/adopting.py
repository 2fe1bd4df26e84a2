# SPDX-License-Identifier: Apache-2.0
"""An exposed port's accepted connections, and the negotiations that are to adopt some of them (``adoption``).

Every accepted connection is a ``Candidate`` until its first bytes, or the commit of the negotiation that its SYN
named, tell what it is. Nothing is read off it before that but a preface, and nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from accord.controller.adoption.awaited import AwaitedCarrier
from accord.controller.adoption.beginnings import Hellos, is_record
from accord.controller.adoption.table import UNFOUND, Do, Event, Registry, Result, State, Step
from accord.datapath import clock
from accord.datapath.stream import SocketCarrier
from accord.protocols.services import Carrier
from accord.wire.constants import Limit, Reason, TcpOption
from accord.wire.errors import AccordError, error
from accord.wire.tcp_option import OPTION_BYTES, decode, encode

LIMIT: Final = 1024
"""Of negotiations of one port that wait for a connection: as many as a default engine has transactions."""
LENT: Final = 64
"""Descriptors in one message with the port's own (unix(7): 253 at most)."""
WAIT_SECONDS: Final = Limit.MAX_LIFETIME_MS / 1000
"""For the connection after the commit. Its handshake was complete for the initiator, which has our SYN-ACK, so all that
can be missing is the acknowledgement, and whatever the initiator sends is one."""

_MAX_FORESEEN: Final = 64
"""Connections of whose transactions nobody here knows are as many as whoever receives at an address likes."""
_AHEAD: Final = frozenset({Event.SAYS_PREFACE, Event.SAYS_RECORD})
"""What a connection says only when its commit has left."""
_PREFIX: Final = encode(TcpOption.EXID_ADOPT, bytes(12))[:4]


class Fate(enum.Enum):
    """What became of a candidate."""

    PLAIN = "plain"
    """It is the caller's, and nothing of it was read."""
    TAKEN = "taken"
    """It belongs to a negotiated stack."""
    DROPPED = "dropped"
    """It was reset."""


class Candidate:
    """One accepted connection. ``fate`` resolves once; the socket is the candidate's until then."""

    def __init__(self, adopter: Adopter, connection: socket.socket, address: str) -> None:
        self.fate: asyncio.Future[Fate] = asyncio.get_running_loop().create_future()
        self.connection = connection
        self.address = address
        self.transaction: bytes | None = None
        """Of the negotiation in whose place it is."""
        self.named = False
        """Its SYN bore an ID: it is the connection of somebody with Accord."""
        self.spare: bytes | None = None
        """Of the transaction whose place may become its own."""
        self.beginning = 0
        """Bytes before the stack's first, once they are there whole: of the preface, or the ClientHello."""
        self._adopter = adopter
        self._wanted = 1

    def watch(self) -> None:
        """Look at the first bytes when they come."""
        if not self.fate.done():
            self._adopter.silent[self] = None
            asyncio.get_running_loop().add_reader(self.connection.fileno(), self._readable)

    def look_away(self) -> None:
        """Until ``watch`` is called again, here or by whoever has the connection then."""
        self._stop_watching()
        self._want(1)

    @property
    def awaited(self) -> bool:
        """A negotiation or its stack may still have to do with it: each of them waits for a bounded time."""
        return self.negotiated_about if self.transaction is not None else self._adopter.searching

    @property
    def negotiated_about(self) -> bool:
        """A negotiation or its stack is here that has this connection in its place."""
        return self.transaction is not None and self._adopter.negotiates(self.transaction)

    @property
    def named_transaction(self) -> bytes | None:
        """What its SYN, or its first bytes, have named."""
        return self.transaction if self.transaction is not None else self.spare

    def discard(self) -> None:
        """It failed, was too slow, or the port is withdrawn: reset, unless it is a stack's."""
        if not self.fate.done():
            if self.transaction is not None:
                self._adopter.said(self, Event.GONE)
            self.settle(Fate.DROPPED)
        elif self.fate.result() is Fate.PLAIN:
            _reset(self.connection)

    def be_plain(self) -> None:
        """It has no place (any more): what it says decides only whether that can be given to a service."""
        self.transaction = None
        if self not in self._adopter.silent:
            self.settle(Fate.PLAIN)

    def settle(self, fate: Fate) -> None:
        """Decide. What is dropped is reset here."""
        if self.fate.done():
            return
        self._stop_watching()
        if self.spare is not None:
            self._adopter.unspare(self)
        self._want(1)
        if fate is Fate.DROPPED:
            _reset(self.connection)
        self.fate.set_result(fate)

    def _stop_watching(self) -> None:
        if self in self._adopter.silent:
            del self._adopter.silent[self]
            asyncio.get_running_loop().remove_reader(self.connection.fileno())

    def _readable(self) -> None:
        try:
            ahead = self.connection.recv(self._adopter.hellos.look, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.discard()
            return
        wanted = self._adopter.hellos.wanted(ahead)
        if len(ahead) < wanted > self._wanted:
            # Not whole: wake again when it is, or when nothing more can come.
            self._want(wanted)
            return
        self._stop_watching()
        self._begins(ahead)

    def _want(self, length: int) -> None:
        if length != self._wanted:
            self._wanted = length
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, length)

    def _begins(self, ahead: bytes) -> None:
        found = decode(ahead[:OPTION_BYTES])
        if found is not None and found[0] is TcpOption.EXID_ADOPT:
            self.beginning = OPTION_BYTES
            self._preface(found[1])
        elif (greets := self._adopter.hellos.find(ahead)) is not None and self.transaction in (None, greets[0]):
            transaction, self.beginning = greets
            if self.transaction is None:
                self._adopter.found(self, transaction, Event.HELLO)
            else:
                self._adopter.said(self, Event.SAYS_HELLO)
        elif is_record(ahead) and (self.named or self.transaction is not None):
            if self.transaction is None:
                self.settle(Fate.DROPPED)
            else:
                self._adopter.said(self, Event.SAYS_RECORD)
        else:
            self._adopter.hellos.served(ahead)
            if self.transaction is None:
                self.settle(Fate.PLAIN)
            else:
                self._adopter.said(self, Event.SAYS_PLAIN if ahead else Event.SAYS_END)

    def _preface(self, transaction: bytes) -> None:
        if self.transaction is None:
            self._adopter.found(self, transaction, Event.PREFACE)
        elif self.transaction == transaction:
            self._adopter.said(self, Event.SAYS_PREFACE)
        else:  # its SYN named another negotiation
            self.discard()


class Adopter:
    """Of one exposed port."""

    def __init__(self, results: Counter[Result]) -> None:
        """``results``: where to count how adoptions end."""
        self._registry: Registry[Candidate] = Registry(LIMIT, results)
        self.hellos = Hellos(clock.now)
        self.silent: dict[Candidate, None] = {}
        """Whose first bytes are looked at when they come, in the order of their acceptance."""
        self._places: dict[bytes, Place] = {}
        self._refusing = False
        self._foreseen: dict[bytes, Place] = {}
        """Of connections that have spoken before the commit of an answer that nothing was kept of."""
        self.answered: Callable[[bytes], str | None] = lambda transaction: None
        """Whether an answer that nothing was kept of awaits the commit of a transaction: its peer's address."""
        self.may_be_unknown = False
        """There may be answers of which this machine has not even a slot, or which another one has given."""

    # ---- the listener's side ----

    def candidate(self, connection: socket.socket, address: str, transaction: bytes | None) -> Candidate:
        """An accepted, non-blocking connection. ``transaction``: what its SYN bore with ADOPT."""
        candidate = Candidate(self, connection, address)
        candidate.watch()
        if transaction is not None:
            candidate.named = True
            self.found(candidate, transaction, Event.SYN)
        return candidate

    def expects(self, transaction: bytes | None) -> bool:
        """Whether a negotiation waits for a connection with this ID."""
        return transaction is not None and self._registry.state(transaction) in UNFOUND

    def found(self, candidate: Candidate, transaction: bytes, event: Event) -> None:
        """A candidate names a transaction: SYN or PREFACE."""
        if event is Event.PREFACE:
            self._foresee(transaction, candidate)
            if candidate.transaction == transaction:  # it was a spare, and the place that was made is its own
                self.said(candidate, Event.SAYS_PREFACE)
                return
        self._perform(transaction, self._registry.accepted(transaction, event, candidate, candidate.address))

    def said(self, candidate: Candidate, event: Event) -> None:
        """One that has a place begins: SAYS_..., or is GONE."""
        transaction = candidate.transaction
        assert transaction is not None, "a candidate without a place says nothing about one"
        if event in _AHEAD:
            self._foresee(transaction, candidate)
        self._perform(transaction, self._registry.said(transaction, event, candidate))

    def negotiates(self, transaction: bytes) -> bool:
        """As ``Registry.negotiates``."""
        return self._registry.negotiates(transaction)

    def unspare(self, candidate: Candidate) -> None:
        """As ``Registry.unspare``."""
        if candidate.spare is not None:
            self._registry.unspare(candidate.spare, candidate)

    # ---- the negotiation's side ----

    def may_expect(self) -> None:
        """Raises ``AccordError`` where no place is kept for anybody."""
        if self._refusing:
            raise error(Reason.SHUTDOWN, "another daemon takes over this port", "go on with the plain connection")

    def foreseen(self, transaction: bytes) -> Place | None:
        """The place that was kept for a connection that spoke before its commit was here; from now on the caller's."""
        return self._foreseen.pop(transaction, None)

    def expect(self, place: Place) -> None:
        """Keep a place. Raises ``AccordError``."""
        self.may_expect()
        steps = self._registry.expect(place.transaction, place.address)
        self._places[place.transaction] = place
        self._perform(place.transaction, steps)

    def claim(self, place: Place, *, behind_preface: bool) -> None:
        """The commit. Raises ``AccordError``."""
        self._perform(place.transaction, self._registry.commit(place.transaction, behind_preface=behind_preface))

    def end(self, place: Place, event: Event = Event.END) -> None:
        """The place is not needed any more, or was kept for too long."""
        if self._places.get(place.transaction) is place:
            self._perform(place.transaction, self._registry.end(place.transaction, event))
            self._forget(place.transaction)

    def _foresee(self, transaction: bytes, candidate: Candidate) -> None:
        """A connection says what only a stack's does, and nobody negotiates: when the commit is on its way it gets a
        place. TCP has proven its address, so nobody else's memory is taken by it, and not for longer than a slot."""
        if self._registry.state(transaction) not in (State.ABSENT, State.PARKED):
            return
        address = self.answered(transaction)
        if address is None and self.may_be_unknown and len(self._foreseen) < _MAX_FORESEEN:
            address = candidate.address
        if address is None:
            return
        with contextlib.suppress(AccordError):  # no room: then it is as if it had not been foreseen
            place = Place(self, transaction, address, lambda reason: None, lambda failure: None)
            self._foreseen[transaction] = place
            asyncio.get_running_loop().call_later(WAIT_SECONDS, self._unforesee, transaction, place)

    def _unforesee(self, transaction: bytes, place: Place) -> None:
        if self._foreseen.get(transaction) is place:
            del self._foreseen[transaction]
            self.end(place)

    # ---- ends ----

    @property
    def searching(self) -> bool:
        """A negotiation waits for a connection that is still to be accepted, or for its preface."""
        return bool(self._registry.unfound())

    def refuse(self, refuse: bool = True) -> None:
        """Keep no new places: whoever wants one goes on with the plain connection, over the SYN that has left."""
        self._refusing = refuse

    def abandon(self) -> None:
        """No connection will be accepted any more: negotiations that still wait for one are told to stop."""
        for transaction in self._registry.unfound():
            if self._registry.state(transaction) is State.EXPECTED:
                self._places[transaction].stop(Reason.SHUTDOWN)

    def lend(self) -> list[Candidate]:
        """What nobody here negotiates about: with the port itself it goes to another daemon, since the proposal, or the
        commit of an answer that nothing was kept of, will come to that one. Connections that spoke before such a
        commit, then silent ones, the latest first: the commit of an old one should have been here. Whether its SYN
        named a transaction or not: the path may have taken the option off, or our SYN-ACK may have lost its mark. But
        one that named none may as well be what a stack that is committed here still waits for, and then it stays.

        They are not looked at until ``keep`` or ``take_back``. At most ``LENT``.
        """
        ahead = [self._registry.held(transaction) for transaction in self._foreseen]
        silent = [each for each in reversed(self.silent) if not each.negotiated_about]
        if any(self._registry.state(transaction) is not State.EXPECTED for transaction in self._registry.unfound()):
            silent = [each for each in silent if each.named_transaction is not None]
        lent = [*(each for each in ahead if each is not None), *silent][:LENT]
        for candidate in lent:
            candidate.look_away()
        return lent

    def keep(self, lent: Sequence[Candidate]) -> None:
        """The other daemon has them."""
        for candidate in lent:
            if not candidate.fate.done():
                if (transaction := candidate.transaction) is not None:
                    self.said(candidate, Event.GONE)
                    if (place := self.foreseen(transaction)) is not None:
                        self.end(place)
                candidate.settle(Fate.TAKEN)
                candidate.connection.close()

    def take_back(self, lent: Sequence[Candidate]) -> None:
        """There is no other daemon after all."""
        for candidate in lent:
            candidate.watch()

    def close(self) -> None:
        """The port is withdrawn: whoever waits is told. The candidates end with their tasks."""
        self._foreseen.clear()
        for place in list(self._places.values()):
            self.end(place)

    # ---- what the table says ----

    def _perform(self, transaction: bytes, steps: list[Step[Candidate]]) -> None:
        for do, candidate in steps:
            match do:
                case Do.STOP:
                    self._places[transaction].stop(Reason.LEGACY_FIRST)
                case Do.FAIL:
                    self._places[transaction].fail()
                case _:
                    assert candidate is not None
                    self._decide(transaction, do, candidate)

    def _decide(self, transaction: bytes, do: Do, candidate: Candidate) -> None:
        match do:
            case Do.HOLD_NEW:
                candidate.transaction, candidate.spare = transaction, None
            case Do.SPARE_NEW:
                candidate.spare = transaction
                candidate.be_plain()
            case Do.PLAIN_NEW | Do.PLAIN_HELD:
                candidate.be_plain()
            case Do.DROP_NEW | Do.DROP_HELD:
                candidate.settle(Fate.DROPPED)
            case _:
                candidate.settle(Fate.TAKEN)
                if do in (Do.JOIN_NEW_BEHIND, Do.JOIN_HELD_BEHIND):
                    candidate.connection.recv(candidate.beginning)  # it was seen whole
                found = "its SYN" if do in (Do.JOIN_NEW, Do.JOIN_HELD) else "its preface"
                if candidate.beginning > OPTION_BYTES:
                    found = "its ClientHello"
                place = self._places[transaction]
                self._forget(transaction)
                place.join(candidate, found)

    def _forget(self, transaction: bytes) -> None:
        self._places.pop(transaction, None)
        self.hellos.forget(transaction)


class Place:
    """``Adoption`` of one negotiation."""

    def __init__(
        self,
        adopter: Adopter,
        transaction: bytes,
        address: str,
        stop: Callable[[Reason], None],
        refuse: Callable[[AccordError], None],
    ) -> None:
        """``stop`` ends the negotiation; ``refuse`` is told why no other place is to be asked for. Raises
        ``AccordError`` when no place can be kept."""
        self.transaction = transaction
        self.address = address
        self.stop = stop
        self.claimed = False
        """The commit is here, and was not refused."""
        self.found = ""
        """How, once the connection is there."""
        self._adopter = adopter
        self._refuse = refuse
        self._coming: asyncio.Future[Carrier] = asyncio.get_running_loop().create_future()
        self._coming.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._timer: asyncio.TimerHandle | None = None
        self._handed_over = False
        adopter.expect(self)

    def belongs_to(self, stop: Callable[[Reason], None], refuse: Callable[[AccordError], None]) -> None:
        """The negotiation that it was kept for is here."""
        self.stop, self._refuse = stop, refuse

    def greeted_by(self, hello: bytes) -> None:
        """The connection may begin with the ClientHello of the proposal. Raises ``AccordError`` (LEGACY_FIRST) when one
        has, and is served as a plain one."""
        try:
            self._adopter.hellos.expect(self.transaction, hello)
        except AccordError as failure:
            self._refuse(failure)
            raise

    def claim(self, *, behind_preface: bool) -> None:
        """The commit is here. Raises ``AccordError`` (LEGACY_FIRST, TIMEOUT)."""
        self._adopter.claim(self, behind_preface=behind_preface)
        self.claimed = True
        if not self._coming.done():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(WAIT_SECONDS, self._adopter.end, self, Event.EXPIRE)

    def carrier(self) -> Carrier:
        """The connection's stream."""
        self._handed_over = True
        if self._coming.done() and self._coming.exception() is None:
            return self._coming.result()
        return AwaitedCarrier(self._coming, lambda: self._adopter.end(self))

    def release(self) -> None:
        """The negotiation came to nothing."""
        if self._handed_over:
            return
        self._adopter.end(self)
        if self._coming.done() and self._coming.exception() is None:
            self._coming.result().abort()

    async def there(self) -> None:
        """Returns when the connection is there. Raises ``AccordError`` when it never comes."""
        await asyncio.shield(self._coming)

    # ---- the adopter's side ----

    def join(self, candidate: Candidate, found: str) -> None:
        """This is the connection."""
        self._stop_timer()
        self.found = f"from {candidate.address}, found by {found}"
        self._coming.set_result(SocketCarrier(candidate.connection))

    def fail(self) -> None:
        """There will be none."""
        self._stop_timer()
        if not self._coming.done():
            self._coming.set_exception(_never())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Places:
    """``Adoptions`` of one negotiation."""

    def __init__(self, adopter: Adopter, transaction: bytes, address: str, stop: Callable[[Reason], None]) -> None:
        self.place: Place | None = None
        """The latest one."""
        self.failure: AccordError | None = None
        """Why there is no connection to be had any more."""
        self._option = encode(TcpOption.EXID_ADOPT, transaction)
        self._adopter, self._transaction, self._address, self._stop = adopter, transaction, address, stop

    @property
    def option(self) -> bytes:
        """The 16 bytes of the TCP option ADOPT with this negotiation's transaction ID."""
        return self._option

    def expect(self) -> Place:
        """Keep a place. Raises ``AccordError``: NO_MEMORY, SHUTDOWN, LEGACY_FIRST."""
        if self.failure is not None:
            raise self.failure
        self.place = self._adopter.foreseen(self._transaction)
        if self.place is None:
            self.place = Place(self._adopter, self._transaction, self._address, self._stop, self._refuse)
        else:
            self.place.belongs_to(self._stop, self._refuse)
        return self.place

    def _refuse(self, failure: AccordError) -> None:
        self.failure = failure


def _reset(connection: socket.socket) -> None:
    if connection.fileno() >= 0:
        SocketCarrier(connection).abort()


def _never() -> AccordError:
    return error(Reason.TIMEOUT, "the connection of the parallel SYN never came", "see what the path does to TCP")
