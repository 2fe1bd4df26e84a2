# SPDX-License-Identifier: Apache-2.0
"""What came out of a connect or an accept: the stack's byte stream, and how it came to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from accord.protocols.services import Carrier


@dataclass(slots=True)
class Report:
    """How an association came to be. Times are milliseconds since the call."""

    peer: str
    stack: list[str] = field(default_factory=list)
    """Top first: ``["http", "tls", "tcp"]``."""
    negotiated: bool = False
    """False: the plain connection, as without Accord."""
    reason: str = "OK"
    """Name out of the reason enum: why the plain connection was taken; of a negotiated one ``OK``, or what the path has
    done to it all the same."""
    detail: str = ""
    fault: str = "none"
    """Whose fault that is: none, ours, peer, path, host, user."""
    remembered: list[str] = field(default_factory=list)
    """What the memory of peers was told by now; some of it shows later."""
    ready_ms: float = 0.0
    alpn: str = ""
    inside: dict[str, dict[str, object]] = field(default_factory=dict)
    """What was agreed inside each node, by the protocol's name."""
    back_end: str = ""
    attach_mode: str = ""
    packets_sent: int = 0
    packets_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    retransmitted: int = 0
    early: bool = False
    """The first request travelled in the proposal and was taken."""
    role: str = "initiator"
    """This side's in the negotiation: ``initiator`` or ``responder``; of two that proposed, who leads is the former."""
    association: str = ""
    """What both hosts call it, where it can be re-negotiated: ``accord renegotiate``. Empty where it cannot."""
    ladder: list[dict[str, object]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON and the control socket."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class Association:
    """An established stack between this host and a peer (Post Sockets: Association and its Carrier)."""

    carrier: Carrier
    report: Report
