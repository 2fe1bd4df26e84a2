# SPDX-License-Identifier: Apache-2.0
"""The application node of HTTP/1.1: it decides the ALPN, and may carry the first request and its response.

    proposal    ProtocolNameList (RFC 7301): u16 length, then u8-prefixed names, best first
                the first request, to the end; empty: none
    answer      ProtocolNameList with the one name that the responder selected
                u8 taken: 1 when the request is with the service, else 0
                the beginning of the response, to the end; empty unless taken
    commit      nothing

A security session below puts the same names into its own handshake, and the two must agree.

The request is for the peer alone above an INNER node (``inner``), and in clear elsewhere. The initiator puts it there
only when it is told so (``early_request``: the policy calls the request idempotent, and lets it be seen if it is); the
responder hands it to the service only when it is sealed or no session below is secure, when the exposed service wants
early requests of that size, and may then have served it twice, because a lost answer is followed by the request itself.
A request that was not taken is sent by the initiator's carrier right after commit, and the response's beginning is what
its reader gets first: the application cannot tell, but for the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Final

from accord.negotiation.interface import Answer, Outcome, Refuse, Role, Session, View, Wait
from accord.protocols.alpn import HTTP_1_1, decode_names, encode_names
from accord.protocols.lifecycle import Call, Lifecycle
from accord.protocols.prefix_carrier import PrefixCarrier
from accord.protocols.services import Carrier, Fetch, Services
from accord.protocols.simultaneous import Simultaneous
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, error

_NAMES: Final = (HTTP_1_1,)
_NOT_TAKEN: Final = b"\x00"
_TAKEN: Final = b"\x01"


class HttpSession:
    """One HTTP node."""

    protocol: int = Protocol.HTTP
    secure: bool = False
    alpn: tuple[str, ...] = _NAMES
    """What a security session below is to offer, or to accept."""

    def __init__(self, role: Role, services: Services) -> None:
        self._application = services.application
        self.alpn = services.wishes.alpn or _NAMES
        self._life = Lifecycle("http", role)
        self._owed = b""
        self._arrived = b""
        self._fetch: Fetch | None = None
        self.alpn_selected: str | None = None
        """The name that the responder chose, once it has."""
        self.taken = False
        """The first request travelled in the proposal, and the service has it."""

    @property
    def fetch_taken(self) -> Fetch | None:
        """Responder: the request that the service is answering; its connection brings the rest of the response.

        The bytes that ``Fetch.response`` holds are this session's to deliver: those that were in the answer, and the
        others are the first thing that ``carrier`` sends. None: nothing was taken, start as usual.
        """
        return self._fetch if self.taken else None

    @property
    def inside(self) -> Mapping[str, object]:
        """What was agreed."""
        return {} if self.alpn_selected is None else {"alpn": self.alpn_selected}

    def propose(self, view: View) -> Outcome:
        """The names, and the first request when there is one and room for it. Waits for one that is not known yet."""
        self._life.enter(Call.PROPOSE)
        return self._propose(view)

    def _propose(self, view: View) -> Outcome:
        names = encode_names(self.alpn)
        request = self._application.early_request if self._application is not None else b""
        if request is None:
            return Wait("the first request")
        self._owed = request
        return Answer(names + self._owed if len(names) + len(self._owed) <= view.budget else names)

    def respond(self, view: View, payload: bytes) -> Outcome:
        """Selects a name; hands an early request to the service and then waits for its response's beginning."""
        self._life.enter(Call.RESPOND)
        self._drop_fetch()
        if not view.below:
            return Refuse(Reason.HANDSHAKE_FAILED, "HTTP: no stream below to run over")
        try:
            offered, request = decode_names(payload)
        except AccordError as failure:
            return Refuse(failure.reason, f"HTTP: {failure.detail}")
        below = _selected_below(view)
        if below is not None and (below not in offered or below not in self.alpn):
            return Refuse(
                Reason.HANDSHAKE_FAILED, f"HTTP: {below} in the security session, and not among {', '.join(offered)}"
            )
        self.alpn_selected = below or next((name for name in self.alpn if name in offered), None)
        if self.alpn_selected is None:
            return Refuse(
                Reason.HANDSHAKE_FAILED,
                f"HTTP: no common ALPN protocol: peer has {', '.join(offered)}, this side {', '.join(self.alpn)}",
            )
        room = self._room(view)
        application = self._application
        if application is None or room <= 0 or not 0 < len(request) <= application.early_limit:
            return self._answer(view)
        if not _sealed(view) and any(session.secure for session in view.below):
            return self._answer(view)
        self._fetch = application.fetch(request, room)
        return self._wait_or_answer(view)

    def resume(self, view: View) -> Outcome:
        """Responder: the service has answered, or was too slow. Initiator: the request is here."""
        self._life.enter(Call.RESUME)
        return self._propose(view) if view.role is Role.INITIATOR else self._wait_or_answer(view)

    def _wait_or_answer(self, view: View) -> Outcome:
        """``Wait`` while the service is still at it."""
        if self._fetch is not None and self._fetch.response is None:
            return Wait("the service has the early request")
        return self._answer(view)

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: the selected name and perhaps the response's beginning. Responder: nothing may come."""
        self._life.enter(Call.ADVANCE)
        if view.role is Role.RESPONDER:
            return Refuse(Reason.HANDSHAKE_FAILED, f"HTTP: {len(payload)} bytes in the commit") if payload else Answer()
        try:
            names, rest = decode_names(payload)
        except AccordError as failure:
            return Refuse(failure.reason, f"HTTP: {failure.detail}")
        if len(names) != 1 or names[0] not in self.alpn:
            return Refuse(Reason.HANDSHAKE_FAILED, f"HTTP: selected {', '.join(names)} of {', '.join(self.alpn)}")
        below = _selected_below(view)
        if below is not None and below != names[0]:
            return Refuse(Reason.HANDSHAKE_FAILED, f"HTTP: {names[0]} here but {below} in the security session")
        taken, response = rest[:1], rest[1:]
        if taken not in (_NOT_TAKEN, _TAKEN) or (response and taken == _NOT_TAKEN):
            return Refuse(Reason.HANDSHAKE_FAILED, f"HTTP: {taken.hex() or 'nothing'} is neither taken nor not taken")
        if taken == _TAKEN:
            if not self._owed:
                return Refuse(Reason.HANDSHAKE_FAILED, "HTTP: a request was taken that was never sent")
            if not _sealed(view) and any(session.secure for session in view.below):
                return Refuse(Reason.HANDSHAKE_FAILED, "HTTP: a request in clear was taken under a secure session")
            self.taken, self._owed, self._arrived = True, b"", response
        self.alpn_selected = names[0]
        return Answer()

    def exporter(self) -> bytes | None:
        """None: no security here."""
        return None

    def prune(self, reason: Reason) -> None:
        """Take the request back from the service."""
        if self._life.leave():
            self._drop_fetch()

    def commit(self, view: View) -> None:
        """From now on ``carrier`` may be called."""
        self._life.enter(Call.COMMIT)

    def abort(self, reason: Reason) -> None:
        """Take the request back from the service."""
        self.prune(reason)

    def carrier(self, below: Carrier | None) -> Carrier:
        """The stream below, with what travelled in the negotiation in its place. Needs a running loop."""
        self._life.enter(Call.CARRIER)
        if below is None:
            raise error(Reason.PLUGIN_FAILED, "http: no stream below to run over")
        if not self._arrived and not self._owed:
            return below
        arrived, owed = self._arrived, self._owed
        self._arrived = self._owed = b""
        return PrefixCarrier(below, arrived, owed)

    def _room(self, view: View) -> int:
        return view.budget - len(encode_names([self.alpn_selected or ""])) - len(_TAKEN)

    def _answer(self, view: View) -> Answer:
        head = encode_names([self.alpn_selected or ""])
        response = self._fetch.response if self._fetch is not None else None
        if not response:
            self._drop_fetch()
            return Answer(head + _NOT_TAKEN)
        self.taken = True
        # The budget may have shrunk since the service was asked: what does not fit goes first over the stack.
        room = max(0, self._room(view))
        self._owed = response[room:]
        return Answer(head + _TAKEN + response[:room])

    def _drop_fetch(self) -> None:
        if self._fetch is not None:
            self._fetch.cancel()
        self._fetch, self.taken, self._owed = None, False, b""


def _sealed(view: View) -> bool:
    """What this node says only the peer can read."""
    return any(getattr(session, "seals", False) for session in view.below)


def _speaking(view: View) -> Iterator[Session]:
    """The sessions below whose ALPN is this node's: those under one that seals speak for that one."""
    return takewhile(lambda session: not getattr(session, "seals", False), view.below)


def _selected_below(view: View) -> str | None:
    """What the security session of the stack has agreed upon; None where it has no say."""
    selected = (getattr(session, "alpn_selected", None) for session in _speaking(view))
    return next((name for name in selected if name is not None), None)


class HttpPlugin:
    """HTTP/1.1, found as ``http``."""

    name: str = "http"
    protocol: int = Protocol.HTTP
    repeatable = True
    simultaneous = Simultaneous.ROLES
    """Who leads has the first request, and its list of names is the one that is chosen from."""

    def open(self, role: Role, services: Services) -> HttpSession:
        """A session for one node of one negotiation."""
        return HttpSession(role, services)
