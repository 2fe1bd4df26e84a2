# SPDX-License-Identifier: Apache-2.0
"""What goes into a negotiation and what comes out of it.

Events tell what the transport (the C engine) and the host have seen; actions tell whoever drives the
negotiation what to do, in order. Neither holds a socket, a clock or randomness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from accord.negotiation.interface import Session
from accord.wire.constants import Limit, Party, Reason
from accord.wire.errors import AccordError, PeerError, error
from accord.wire.message import Encoded

# ---- Events -------------------------------------------------------------------------------------


class NodeArrived(NamedTuple):
    """A node of the peer's message is whole: its encoded descriptor. ``budget`` as in ``MessageComplete``; it is only
    asked for where the machine may answer at once (``Machine.early``)."""

    step: int
    id: int
    protocol: int
    data: bytes
    budget: int = 0


class NodeSkipped(NamedTuple):
    """The peer's message holds a node of a protocol that this host does not support; nothing of it was stored."""

    step: int
    id: int
    protocol: int
    budget: int = 0


class MessageComplete(NamedTuple):
    """Everything of the peer's message is in. ``budget``: descriptor bytes that may be sent in return at once."""

    step: int
    budget: int = Limit.MAX_MESSAGE_BYTES


class MessageArrived(NamedTuple):
    """The peer acknowledged every packet of our message."""

    step: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The transport gave the negotiation up."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Resume:
    """What the session of this node was waiting for has come."""

    id: int


@dataclass(frozen=True, slots=True)
class Stop:
    """This host no longer wants the negotiation: SHUTDOWN, LEGACY_FIRST, CLOSED. Too late once committed."""

    reason: Reason
    detail: str = ""


Event = NodeArrived | NodeSkipped | MessageComplete | MessageArrived | Failed | Resume | Stop

# ---- Actions ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message; nodes as (ID, protocol, encoded descriptor), in the order in which they should arrive."""

    step: int
    nodes: tuple[Encoded, ...]
    packets_min: int = 0
    """Pad to at least so many full packets, so that the answer may be longer; 0: do not pad."""


@dataclass(frozen=True, slots=True)
class Prove:
    """The peer showed that it receives at its address: the amplification limit may be lifted."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The stack is decided and its sessions have committed. Tuples run bottom to top, without the context."""

    ids: tuple[int, ...]
    protocols: tuple[int, ...]
    sessions: tuple[Session, ...]
    name: str
    """Top first: ``http/tls/tcp``."""
    transcript: bytes = b""
    """The hash over all messages, the commit included: 32 bytes that both ends have."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Initiator, after ``Committed``: the peer has our commit; the transaction may be closed."""


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """Initiator, after ``Committed``: the peer never acknowledged our commit. It may have it and may not: the
    stack is up if it carried anything from the peer, else it is not worth keeping."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Aborted:
    """No stack. All sessions have been told. The last action of a negotiation, at most once.

    On the initiator it can follow ``Committed``: the responder refused the commit.
    """

    reason: Reason
    detail: str
    party: Party
    """Whose fault it is, seen from this host."""
    by_peer: bool
    """The peer's message said so. Without a security protocol, anybody on the path could have said it."""

    def error(self) -> AccordError:
        """As an exception."""
        if not self.by_peer:
            return error(self.reason, self.detail)
        detail = f"so says the peer, {self.detail}" if self.detail else "so says the peer"
        return PeerError(self.reason, detail)


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the ladder: what was decided here and why."""

    text: str


Action = Send | Prove | Committed | Confirmed | Unconfirmed | Aborted | Note
