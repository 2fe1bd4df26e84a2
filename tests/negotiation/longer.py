# SPDX-License-Identifier: Apache-2.0
"""Pairs that negotiate in more than three steps: sessions with a rule of elaboration, graphs with placeholders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from accord.negotiation.initiator import Initiator, Proposed
from accord.negotiation.interface import Answer, Elaboration, Outcome, Role, View
from accord.negotiation.responder import Accepted, Responder
from accord.wire.constants import Protocol
from tests.negotiation.peers import COOKIE, HTTP, TCP, TLS, TRANSACTION, UDP, FakeChooser, FakeSession, Side

SUBGRAPH = Protocol.SUBGRAPH
DTLS, DCCP, CRYPT, NAMES = 0x7E0000D0, 0x7E0000DC, 0x7E0000C0, 0x7E0000A0
"""Private protocols. CRYPT is secure, and the responder speaks first; so it is of NAMES, which is not."""
SECURE = frozenset({int(TLS), DTLS, CRYPT})
RULES = {
    int(TLS): Elaboration.FREE,
    DTLS: Elaboration.FREE,
    DCCP: Elaboration.FREE,
    CRYPT: Elaboration.INITIATOR_PLACEHOLDER,
    NAMES: Elaboration.INITIATOR_PLACEHOLDER,
}
KNOWN = frozenset({int(UDP), int(TCP), int(TLS), int(HTTP), int(SUBGRAPH), DTLS, DCCP, CRYPT, NAMES})


@dataclass
class Elaborated(FakeSession):
    """As ``FakeSession``, with the rule of its protocol; ``rounds``: answers with ``more`` on the responder."""

    rounds: int = 0
    elaboration: Elaboration = field(default=Elaboration.EXPLICIT)

    def respond(self, view: View, payload: bytes) -> Outcome:
        self.heard["respond"] = payload
        return self._outcome_with_more("respond", view, b"answer %x" % self.protocol)

    def advance(self, view: View, payload: bytes) -> Outcome:
        self.heard["advance"] = payload
        if self.role is Role.INITIATOR:
            return self._outcome("advance", view, b"finish %x" % self.protocol)
        more = b"more %x" % self.protocol if self.rounds >= 0 else b""
        return self._outcome_with_more("advance", view, more)

    def _outcome_with_more(self, method: str, view: View, payload: bytes) -> Outcome:
        outcome = self._outcome(method, view, payload)
        self.rounds -= 1
        return Answer(outcome.payload, more=True) if isinstance(outcome, Answer) and self.rounds >= 0 else outcome


def session(protocol: int, role: Role, rounds: int = 0) -> Elaborated:
    """One session."""
    rule = RULES.get(protocol, Elaboration.EXPLICIT)
    return Elaborated(protocol, role, protocol in SECURE, rounds=rounds, elaboration=rule)


def initiator(proposed: Sequence[tuple[int, int, tuple[int, ...], dict[str, object]]], chooser: FakeChooser) -> Side:
    """``proposed``: node ID, protocol, children, further fields of ``Proposed``."""
    sessions: dict[int, list[FakeSession]] = {}

    def opened(node_id: int, protocol: int) -> Elaborated:
        sessions[node_id] = [made := session(protocol, Role.INITIATOR)]
        return made

    nodes = [
        Proposed(node, protocol, None if protocol in (UDP, SUBGRAPH) else opened(node, protocol), children, **fields)  # type: ignore[arg-type]
        for node, protocol, children, fields in proposed
    ]
    return Side(Initiator(TRANSACTION, nodes, chooser, open=opened), sessions, KNOWN)


def responder(
    chooser: FakeChooser,
    stacks: Sequence[tuple[int, ...]] = (),
    rounds: Mapping[int, int] | None = None,
    supported: frozenset[int] = KNOWN,
) -> Side:
    """``stacks``: what it puts into placeholders; ``rounds``: by protocol, of its sessions."""
    sessions: dict[int, list[FakeSession]] = {}

    def opened(node_id: int, protocol: int) -> Elaborated:
        made = session(protocol, Role.RESPONDER, (rounds or {}).get(protocol, 0))
        sessions.setdefault(node_id, []).append(made)
        return made

    accepted = Accepted(chooser, opened, elaborate=lambda allowed: stacks, known=supported - {UDP, SUBGRAPH})
    return Side(Responder(TRANSACTION, lambda service: accepted, COOKIE), sessions, supported)


def choice_of(*protocols: int) -> list[tuple[int, int, tuple[int, ...], dict[str, object]]]:
    """http on a placeholder for these, and on nothing more, on tcp: the choice is the initiator's."""
    return [(0, UDP, (1,), {}), (1, TCP, (2, 3), {}), (2, SUBGRAPH, (3,), {"choices": protocols}), (3, HTTP, (), {})]


HIDDEN: list[tuple[int, int, tuple[int, ...], dict[str, object]]] = [
    (0, UDP, (1, 5), {}),
    (1, TCP, (2, 4), {}),
    (2, TLS, (4,), {"within": 3, "preference": 9}),
    (3, SUBGRAPH, (), {}),
    (4, HTTP, (), {}),
    (5, DCCP, (6,), {"within": 7}),
    (6, DTLS, (4,), {"within": 7}),
    (7, SUBGRAPH, (), {}),
]
"""http on tls on tcp, on tcp, on dtls on dccp: all but http on tcp is hidden."""
