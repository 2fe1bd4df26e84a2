# SPDX-License-Identifier: Apache-2.0
"""What a protocol and a negotiation know of each other.

A *plug-in* is one protocol. For each node that a negotiation holds of it, it opens a *session*, and the
negotiation calls the session's methods as messages come and go (HotNets 2009, section 4):

    initiator   propose -> advance (the answer)  -> commit        responder   respond -> advance (the commit) -> commit
                  at any time before commit: prune (the node is not in the final graph) or abort (no graph is)

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

    INITIATOR = "initiator"
    RESPONDER = "responder"


class View(NamedTuple):
    """What a session may know of the negotiation that it is part of, at the moment of a call.

    ``below`` and ``above`` are the sessions next to this one: on the initiator in step 0 all that the
    graph allows, later (and on the responder, who picks a stack before it asks for handshakes) those of
    the one candidate stack, nearest first. ``step`` is the step of the message that is being made in
    ``propose``, and of the one that came in otherwise: 0 in ``propose`` and ``respond``, 1 in the initiator's
    ``advance``, 2 in the responder's ``advance`` and in ``commit``. ``budget`` is the number of payload bytes
    that this session may add to the message being built.
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


@dataclass(frozen=True, slots=True)
class Refuse:
    """The node cannot be had: it is pruned, and the next best stack is tried or the negotiation aborts."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: the session started something through its services and is asked again by ``resume``."""

    detail: str = ""


Outcome = Answer | Refuse | Wait


@runtime_checkable
class Session(Protocol):
    """One node of one negotiation."""

    @property
    def protocol(self) -> int:
        """Protocol ID, from ``wire.h`` or the private range."""

    @property
    def secure(self) -> bool:
        """Authenticates the peer and encrypts what is above it."""

    def propose(self, view: View) -> Outcome:
        """Initiator, step 0: the first handshake bytes. ``Refuse`` leaves the node out of the proposal."""

    def respond(self, view: View, payload: bytes) -> Outcome:
        """Responder, step 0 received: the bytes for the answer."""

    def resume(self, view: View) -> Outcome:
        """After ``Wait``, when the service that was waited for has an answer."""

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: the answer's bytes in, the commit's out. Responder: the commit's bytes in."""

    def exporter(self) -> bytes | None:
        """32 bytes that only the two ends of this security session know; None: not (yet) to be had.

        Valid on the responder once ``respond`` returned, on the initiator once ``advance`` did. Keys the
        MAC over the transcript.
        """

    def prune(self, reason: Reason) -> None:
        """The node is not in the final graph: forget everything."""

    def commit(self, view: View) -> None:
        """The stack is decided on both sides: long-term effects may begin."""

    def abort(self, reason: Reason) -> None:
        """The negotiation came to nothing: forget everything."""
