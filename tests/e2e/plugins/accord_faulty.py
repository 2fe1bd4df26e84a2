# SPDX-License-Identifier: Apache-2.0
"""Protocols that are good initiators, and as responders do what none should (tests/e2e/test_faulty_plugins.py).

Found through the entry points beside this file, as those of any installed package are.
"""

from __future__ import annotations

from accord.negotiation.interface import Answer, Outcome, Role, View
from accord.protocols.services import Carrier, Services
from accord.wire.constants import Protocol, Reason

_FIRST = int(Protocol.PRIVATE_FIRST) + 0xFA00


class Session:
    """Passes the stream below on, if it ever gets so far."""

    secure: bool = False
    protocol: int

    def propose(self, view: View) -> Outcome:
        """As it should."""
        return Answer(b"hello")

    def respond(self, view: View, payload: bytes) -> Outcome:
        """Each in its own way."""
        raise NotImplementedError

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


class _Raises(Session):
    protocol = _FIRST + 1

    def respond(self, view: View, payload: bytes) -> Outcome:
        raise ZeroDivisionError("as it does")


class _Rubbish(Session):
    protocol = _FIRST + 2

    def respond(self, view: View, payload: bytes) -> Outcome:
        return 7  # type: ignore[return-value]


class _Loops(Session):
    protocol = _FIRST + 3

    def respond(self, view: View, payload: bytes) -> Outcome:
        while True:
            pass


class _Greedy(Session):
    protocol = _FIRST + 4

    def respond(self, view: View, payload: bytes) -> Outcome:
        return Answer(bytes(1 << 30))


class _Plugin:
    name: str
    session: type[Session]

    @property
    def protocol(self) -> int:
        """Its session's."""
        return self.session.protocol

    def open(self, role: Role, services: Services) -> Session:
        """A session for one node of one negotiation."""
        return self.session()


class Raises(_Plugin):
    """Raises an error."""

    name, session = "raises", _Raises


class Rubbish(_Plugin):
    """Answers with a number."""

    name, session = "rubbish", _Rubbish


class Loops(_Plugin):
    """Never comes back."""

    name, session = "loops", _Loops


class Greedy(_Plugin):
    """Answers with a gigabyte."""

    name, session = "greedy", _Greedy
