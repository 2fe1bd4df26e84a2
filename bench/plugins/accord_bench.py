# SPDX-License-Identifier: Apache-2.0
"""Protocols that do nothing but depend on each other, or let the responder speak first (bench/_cases_longer.py).

Found through the entry points beside this file, as those of any installed package are.
"""

from __future__ import annotations

from accord.negotiation.interface import Answer, Defer, Elaboration, Outcome, Role, View
from accord.protocols.services import Carrier, Services
from accord.wire.constants import Protocol, Reason

_FIRST = int(Protocol.PRIVATE_FIRST) + 0xB000


class Session:
    """Says what it has to say when it can, and passes the stream below on."""

    secure: bool = False

    def __init__(self, protocol: int, needs: frozenset[int], elaboration: Elaboration) -> None:
        self.protocol = protocol
        self.elaboration = elaboration
        self._needs = needs

    def propose(self, view: View) -> Outcome:
        """The proposal needs the answer of the protocol below."""
        needs, self._needs = self._needs, frozenset()
        return Defer(needs) if needs else Answer(b"hello")

    def respond(self, view: View, payload: bytes) -> Outcome:
        """One answer."""
        return Answer(b"answer")

    def resume(self, view: View) -> Outcome:
        """Never waits."""
        return Answer()

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Nothing more."""
        return Answer()

    def exporter(self) -> bytes | None:
        """None: no security here."""
        return None

    def prune(self, reason: Reason) -> None:
        """Nothing is kept."""

    def commit(self, view: View) -> None:
        """Nothing is kept."""

    def abort(self, reason: Reason) -> None:
        """Nothing is kept."""

    def carrier(self, below: Carrier | None) -> Carrier:
        """The stream below."""
        assert below is not None, "only ever above tcp"
        return below


class _Plugin:
    name: str
    protocol: int
    needs: frozenset[int] = frozenset()
    elaboration: Elaboration = Elaboration.EXPLICIT

    def open(self, role: Role, services: Services) -> Session:
        """A session for one node of one negotiation."""
        return Session(self.protocol, self.needs if role is Role.INITIATOR else frozenset(), self.elaboration)


class Chain1(_Plugin):
    """Needs nothing."""

    name, protocol = "chain1", _FIRST + 1


class Chain2(_Plugin):
    """Needs what came of ``chain1``."""

    name, protocol, needs = "chain2", _FIRST + 2, frozenset({_FIRST + 1})


class Chain3(_Plugin):
    """Needs what came of ``chain2``."""

    name, protocol, needs = "chain3", _FIRST + 3, frozenset({_FIRST + 2})


class Chain4(_Plugin):
    """Needs what came of ``chain3``."""

    name, protocol, needs = "chain4", _FIRST + 4, frozenset({_FIRST + 3})


class Offered1(_Plugin):
    """The responder speaks first."""

    name, protocol, elaboration = "offered1", _FIRST + 0x11, Elaboration.INITIATOR_PLACEHOLDER


class Offered2(_Plugin):
    """The same again, for there to be a choice."""

    name, protocol, elaboration = "offered2", _FIRST + 0x12, Elaboration.INITIATOR_PLACEHOLDER
