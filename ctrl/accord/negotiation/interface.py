# SPDX-License-Identifier: Apache-2.0
"""What a protocol and a negotiation know of each other.

A *plug-in* is one protocol. For each node that a negotiation holds of it, it opens a *session*, and the
negotiation calls the session's methods as messages come and go (HotNets 2009, section 4):

    initiator   propose -> advance (the answer)  -> commit        responder   respond -> advance (the commit) -> commit
                  at any time before commit: prune (the node is not in the final graph) or abort (no graph is)

That is the common exchange of three steps. It becomes longer only where a session says so: by ``Answer.more``, when
its protocol's handshake takes another round trip; by ``Defer``, when its bytes need what other sessions will know;
by an ``Elaboration`` that lets its node be a placeholder first. Then ``advance`` is called once for each further
message of the peer, and ``propose`` or ``respond`` when it is the node's turn.

Sessions are sans-IO as far as the negotiation is concerned: bytes in, bytes or a verdict out. What a
session needs of the host it asks of the services object that its plug-in was given, and nothing that it
asks for there may outlive ``prune`` or ``abort``: no long-term effect before ``commit``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from accord.wire.constants import Reason


class Role(enum.Enum):
    """Who proposed. Peer to peer, each side is both (HotNets 2009, section 2.3)."""

    __hash__ = object.__hash__  # the library's own is a function in Python, of the name

    INITIATOR = "initiator"
    RESPONDER = "responder"


class Elaboration(enum.Enum):
    """When a node of a protocol has to be explicit: its plug-in's rule (HotNets 2009, section 2.3)."""

    EXPLICIT = "explicit"
    """In the proposal, with its first handshake bytes, or not at all."""
    INITIATOR_PLACEHOLDER = "initiator placeholder"
    """The initiator proposes a placeholder, which the responder fills: ``respond`` with an empty payload gives what it
    has to choose from, and ``advance`` on the initiator, which was never asked to ``propose``, chooses."""
    FREE = "free"
    """In the proposal, or in place of a placeholder, in any step: ``propose`` is called in the step in which it is."""


class View(NamedTuple):
    """What a session may know of the negotiation that it is part of, at the moment of a call.

    ``below`` and ``above`` are the sessions next to this one: on the initiator in step 0 all that the
    graph allows, later (and on the responder, who picks a stack before it asks for handshakes) those of
    the one candidate stack, nearest first. ``step`` is the step of the message that is being made in
    ``propose``, and of the one that came in otherwise: in three steps 0 in ``propose`` and ``respond``, 1 in the
    initiator's ``advance``, 2 in the responder's ``advance`` and in ``commit``. ``budget`` is the number of payload
    bytes that this session may add to the message being built.
    """

    role: Role
    step: int
    node_id: int
    below: Sequence[Session] = ()
    above: Sequence[Session] = ()
    budget: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """This session's handshake bytes for the next message; empty when it has nothing (more) to say."""

    payload: bytes = b""
    confirm: Callable[[], Refuse | None] | None = field(default=None, compare=False)
    """The answer holds unless this refuses after all. It is asked once, when the other sessions have answered, before
    the message leaves: what it was begun with may take as long as they do. Not asked when the node is pruned before."""
    more: bool = False
    """Another message of the peer is needed before this session can commit, beyond the one that every session gets:
    after ``respond`` one that ``advance`` will have to answer; after ``advance`` of the initiator, the next answer."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The node cannot be had: it is pruned, and the next best stack is tried or the negotiation aborts."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: the session started something through its services and is asked again by ``resume``."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Defer:
    """Not in this message, if they are not in time for it: the bytes need the results of other sessions.

    The session is asked again, by the same method, as soon as all of them have answered for the last time. Until then
    its node is a placeholder. Only in ``propose`` and ``respond``, only for nodes of the same stack.
    """

    after: frozenset[int]
    """IDs of nodes, or protocols of nodes below this one."""
    detail: str = ""


Outcome = Answer | Refuse | Wait | Defer


@runtime_checkable
class Session(Protocol):
    """One node of one negotiation."""

    @property
    def protocol(self) -> int:
        """Protocol ID, from ``wire.h`` or the private range."""

    @property
    def secure(self) -> bool:
        """Authenticates the peer and encrypts what is above it."""

    # An attribute ``costly``, true: ``respond`` computes a signature or as much. Few are begun for one message.

    def propose(self, view: View) -> Outcome:
        """Initiator: the first handshake bytes. ``Refuse`` leaves the node out of the proposal."""

    def respond(self, view: View, payload: bytes) -> Outcome:
        """Responder: the first handshake bytes in, the first of the answer out."""

    def resume(self, view: View) -> Outcome:
        """After ``Wait``, when the service that was waited for has an answer."""

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: an answer's bytes in, those of the next message out. Responder: that message's bytes in, and out
        what there is to be said about them: nothing, unless one of both sides had said ``more``."""

    def exporter(self) -> bytes | None:
        """32 bytes that only the two ends of this security session know; None: not (yet) to be had.

        Valid on the responder once ``respond`` returned, on the initiator once ``advance`` did, in the longer
        exchange once that was without ``more``. Keys the MAC over the transcript.
        """

    def prune(self, reason: Reason) -> None:
        """The node is not in the final graph: forget everything."""

    def commit(self, view: View) -> None:
        """The stack is decided on both sides: long-term effects may begin."""

    def abort(self, reason: Reason) -> None:
        """The negotiation came to nothing: forget everything."""


def elaboration_of(session: object) -> Elaboration:
    """The rule that a session, or a plug-in, states in its attribute ``elaboration``; EXPLICIT when it states none."""
    rule = getattr(session, "elaboration", Elaboration.EXPLICIT)
    return rule if isinstance(rule, Elaboration) else Elaboration.EXPLICIT
