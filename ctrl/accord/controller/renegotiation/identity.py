# SPDX-License-Identifier: Apache-2.0
"""Which association a message is about, and the proof that its sender is the other end of it.

    key    = HMAC-SHA256(exporter, "accord association" || transcript)      exporter empty without a security node
    name   = the first 16 bytes of HMAC-SHA256(key, "accord association name")
    claim  = name || HMAC-SHA256(key, "accord re-negotiation by the " role || transaction ID || off)   RENEGOTIATES
    hello  = HMAC-SHA256(key, "accord hello of the " role || key of the next stack)                first on that stack

``role`` is the sender's in the association, ``initiator`` or ``responder``; ``off`` is empty, or the key of the stack
that is not to follow. With a security node only the two ends
know the key, and the hello ties the next stack's own handshake and transcript to it: who is between them cannot become
an end of the next stack. Without one, whoever has seen the first negotiation knows it too, as the whole association.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from accord.negotiation.interface import Role, Session

NAME_BYTES: Final = 16
HELLO_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Identity:
    """Of an association, with the stack that it has now: the next one's is another."""

    key: bytes = field(repr=False)
    """32 bytes."""
    name: bytes
    """16 bytes that nobody can guess."""

    @classmethod
    def of(cls, sessions: Sequence[Session], transcript: bytes) -> Identity:
        """Of a committed stack: its sessions, bottom to top, and the hash over all messages, 32 bytes."""
        topmost = next((session for session in reversed(sessions) if session.secure), None)
        exporter = (topmost.exporter() or b"") if topmost is not None else b""
        key = hmac.digest(exporter, b"accord association" + transcript, "sha256")
        return cls(key, hmac.digest(key, b"accord association name", "sha256")[:NAME_BYTES])

    def claim(self, sender: Role, transaction: bytes, off: Identity | None = None) -> bytes:
        """RENEGOTIATES of a message with this transaction ID, 48 bytes. ``off``: of the stack that will not follow."""
        label = b"accord re-negotiation by the " + sender.value.encode()
        about = b"" if off is None else off.key
        return self.name + hmac.digest(self.key, label + transaction + about, "sha256")

    def proves(self, claim: bytes, sender: Role, transaction: bytes, off: Identity | None = None) -> bool:
        """Whether a claim is the other end's, in a time that does not depend on where it is wrong."""
        return hmac.compare_digest(claim, self.claim(sender, transaction, off))

    def hello(self, sender: Role, following: Identity) -> bytes:
        """What ``sender`` says first on the stack that is to follow, 32 bytes."""
        return hmac.digest(self.key, b"accord hello of the " + sender.value.encode() + following.key, "sha256")


def peer_of(role: Role) -> Role:
    """The other end's."""
    return Role.RESPONDER if role is Role.INITIATOR else Role.INITIATOR
