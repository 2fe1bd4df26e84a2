# SPDX-License-Identifier: Apache-2.0
"""The host as the sessions of an answer without memory may see it: what would leave a trace is deferred.

Deferred means: this proposal is asked for a cookie, and answered with memory when it comes with that. No other stack is
tried in its place, for load chooses no stacks.
"""

from __future__ import annotations

from collections.abc import Callable

from accord.controller.adoption.adopting import Adopter, Place, Places
from accord.negotiation.interface import Outcome, Refuse, Session, View
from accord.protocols.services import Carrier, Fetch, TcpEndpoint
from accord.wire.constants import Reason, TcpOption
from accord.wire.errors import AccordError, error
from accord.wire.tcp_option import encode


class Deferral:
    """Why one proposal cannot be answered without memory, if it cannot."""

    def __init__(self) -> None:
        self.why = ""

    def defer(self, why: str) -> AccordError:
        """Remember the first cause; the error is for the session, whose answer nobody will see."""
        self.why = self.why or why
        return error(Reason.QUOTA, f"needs memory: {why}")


class DeferredTcp:
    """``TcpService``: a kernel socket is memory, and without one the initiator's first segment would be reset."""

    def __init__(self, deferral: Deferral) -> None:
        self._deferral = deferral

    def reserve(self, port: int | None = None) -> TcpEndpoint:
        """Deferred."""
        raise self._deferral.defer("TCP without a SYN")


class DeferredApplication:
    """``ApplicationService``: an early request would be served to whoever."""

    early_request = b""

    def __init__(self, deferral: Deferral, early_limit: int) -> None:
        self._deferral = deferral
        self.early_limit = early_limit

    def fetch(self, request: bytes, limit: int) -> Fetch:
        """Deferred."""
        raise self._deferral.defer("an early request")


class UnkeptAdoptions:
    """``Adoptions``: no place is kept from the answer on, it is looked for when the commit is verified."""

    def __init__(self, adopter: Adopter, transaction: bytes, address: str, stop: Callable[[Reason], None]) -> None:
        self.option = encode(TcpOption.EXID_ADOPT, transaction)
        self._places = Places(adopter, transaction, address, stop)
        self._adopter = adopter

    @property
    def place(self) -> Place | None:
        """Once it is claimed."""
        return self._places.place

    def expect(self) -> UnkeptAdoption:
        """Raises ``AccordError`` where a place would be refused now."""
        self._adopter.may_expect()
        return UnkeptAdoption(self._adopter, self._places)


class UnkeptAdoption:
    """``Adoption`` that leaves no trace before it is claimed."""

    def __init__(self, adopter: Adopter, places: Places) -> None:
        self._adopter, self._places = adopter, places

    def greeted_by(self, hello: bytes) -> None:
        """Raises ``AccordError`` (LEGACY_FIRST) when a plain connection has begun with it."""
        self._adopter.hellos.check(hello)

    def claim(self, *, behind_preface: bool) -> None:
        """The connection, parked or still to come, is the stack's. Raises ``AccordError``."""
        self._places.expect().claim(behind_preface=behind_preface)

    def carrier(self) -> Carrier:
        """The connection's stream."""
        assert self._places.place is not None, "a stack's commit has claimed it"
        return self._places.place.carrier()

    def release(self) -> None:
        """The negotiation came to nothing."""
        if self._places.place is not None:
            self._places.place.release()


class DeferredSession:
    """A session of a plug-in that is not repeatable: what it is may be asked, what it answers is deferred."""

    def __init__(self, session: Session, name: str, deferral: Deferral) -> None:
        self._session, self._name, self._deferral = session, name, deferral

    def respond(self, view: View, payload: bytes) -> Outcome:
        """Deferred."""
        failure = self._deferral.defer(f"the plug-in {self._name}")
        return Refuse(failure.reason, failure.detail)

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)
