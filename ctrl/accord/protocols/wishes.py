# SPDX-License-Identifier: Apache-2.0
"""What a policy wishes of the insides of protocols: which options are negotiated, by which bounds (docs/POLICY.md).

The controller makes a ``Wishes`` out of the policy for one peer; a negotiation's sessions find it in their services.
Without a policy that says otherwise every field is its default, and the protocols' bytes are those of a host that
knows nothing of wishes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from accord.wire.constants import Word

MAX_MESSAGE_LIMIT: Final = 1 << 24
MIN_MESSAGE_LIMIT: Final = 1024
"""Bytes of a framed message: less would be of no use, and more no bound."""
MIN_WINDOW: Final = 9
MAX_WINDOW: Final = 15
"""Binary logarithm of deflate's window (RFC 1951, section 2; zlib takes 9 and up)."""
MAX_LEVEL: Final = 9


@dataclass(frozen=True, slots=True)
class TcpWishes:
    """Options of the TCP node (RFC 9293, 2018, 7323), and who controls congestion."""

    sack: Word = Word.NEUTRAL
    timestamps: Word = Word.NEUTRAL
    window_scale: Word = Word.NEUTRAL
    mss: int | None = None
    """Largest segment that this side wants, bytes; None: what the route allows."""
    congestion: tuple[tuple[str, Word], ...] = ()
    """Algorithms by the kernel's names; what is not listed is neutral where the peer lists it."""

    @property
    def words(self) -> tuple[Word, Word, Word]:
        """Of the options, in the order of the wire."""
        return self.sack, self.timestamps, self.window_scale

    @property
    def leaves_kernels(self) -> bool:
        """Whether options are left to what the kernels settle between them by a SYN."""
        return self.mss is None and self.words == (Word.NEUTRAL,) * 3

    @property
    def binding(self) -> str | None:
        """An option or algorithm that is required or forbidden, by name; None: all are only wishes."""
        words = [("sack", self.sack), ("timestamps", self.timestamps), ("window_scale", self.window_scale)]
        words += self.congestion
        return next((name for name, word in words if word in (Word.REQUIRED, Word.FORBIDDEN)), None)

    @property
    def told(self) -> bool:
        """Whether the peer has to be told: TCP's own format has no words, nor names of algorithms."""
        return bool(self.congestion) or self.words != (Word.NEUTRAL,) * 3


@dataclass(frozen=True, slots=True)
class CompressionWishes:
    """How the own side compresses, and what it is ready to unpack."""

    level: int = 6
    """1..9: how hard this side tries; the peer need not know."""
    window: int = MAX_WINDOW
    """Binary logarithm of the largest window that this side keeps for each direction, 9..15."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """Of one policy, for one peer."""

    tcp: TcpWishes = field(default_factory=TcpWishes)
    alpn: tuple[str, ...] = ()
    """Application protocols by their ALPN names, best first; empty: those that the application's node has."""
    compression: CompressionWishes = field(default_factory=CompressionWishes)
    message_limit: int = 1 << 20
    """Longest framed message that this side takes, bytes."""
    quic_idle_s: int = 30
    """Seconds of silence after which a QUIC connection is given up; of both sides' the smaller (RFC 9000, 10.1)."""
    kernel_tls: bool = False
    """The kernel is to encrypt what goes over a negotiated TLS, where it can; the peer need not know."""
    program_frames: bool = False
    """The program that gets the stream puts its messages into frames itself: framing leaves the stream as it is."""


NONE: Final = Wishes()
"""What a policy wishes that says nothing."""
