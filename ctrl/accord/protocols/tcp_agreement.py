# SPDX-License-Identifier: Apache-2.0
"""What the two sides of one TCP node agree on, whichever way its connection comes to be (``tcp_wishes``)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from accord.protocols import tcp_wishes
from accord.protocols.services import Carrier, Services
from accord.protocols.tcp_wishes import NEUTRAL, OPTIONS, Offer, Verdict, Words
from accord.wire.constants import Reason, Word
from accord.wire.errors import AccordError, error


class Agreement:
    """One side's. Nothing of it costs anything where no policy says anything of TCP."""

    def __init__(self, services: Services) -> None:
        self._wishes = services.wishes.tcp
        self._tuning = services.tuning
        self._offer: Offer | None = None
        self._algorithm = ""
        self._required = False
        """The algorithm is, by one of both sides."""
        self._stream: Carrier | None = None
        self.peers: Words = NEUTRAL
        """The other side's words, once they are here."""

    @property
    def silent(self) -> bool:
        """Neither side has said anything of the options so far."""
        return self._wishes.words == NEUTRAL == self.peers

    def begin(self) -> bytes:
        """Initiator: what goes behind the proposal's header. Raises ``AccordError`` (REQUIRED_MISSING)."""
        if not self._wishes.told:
            return b""
        self._offer = tcp_wishes.offer(self._wishes, self._available())
        return tcp_wishes.encode_offer(self._offer)

    def answer(self, data: bytes) -> bytes:
        """Responder: what is behind the proposal's header in, what goes behind the answer's out.

        Raises ``AccordError``: HANDSHAKE_FAILED, REQUIRED_MISSING.
        """
        if not data and not self._wishes.told:
            return b""
        offered = tcp_wishes.decode_offer(data) if data else Offer()
        self.peers = offered.words
        self._settle(tcp_wishes.choose(self._wishes, self._available(), offered), offered.algorithms)
        return tcp_wishes.encode_verdict(Verdict(self._wishes.words, self._algorithm)) if data else b""

    def conclude(self, data: bytes) -> None:
        """Initiator: what is behind the answer's header. Raises ``AccordError``: HANDSHAKE_FAILED, REQUIRED_MISSING."""
        if self._offer is None:
            if data:
                raise error(Reason.HANDSHAKE_FAILED, f"TCP: {len(data)} bytes behind the answer's header, unasked")
            return
        verdict = tcp_wishes.decode_verdict(data)
        self.peers = verdict.words
        offered = dict(self._offer.algorithms)
        if verdict.algorithm and verdict.algorithm not in offered:
            raise error(Reason.HANDSHAKE_FAILED, f"TCP: congestion control {verdict.algorithm} was not offered")
        for name, word in offered.items():
            if word is Word.REQUIRED and verdict.algorithm != name:
                raise error(Reason.REQUIRED_MISSING, f"TCP: congestion control {name} is required, and was not agreed")
        self._settle(verdict.algorithm, self._offer.algorithms)

    def use(self, name: str, *, able: bool) -> bool:
        """Whether one of ``OPTIONS`` is to be used. Raises ``AccordError`` (REQUIRED_MISSING)."""
        place = OPTIONS.index(name)
        return tcp_wishes.on(name, self._wishes.words[place], self.peers[place], able=able)

    def check(self, has: Mapping[str, bool]) -> None:
        """Whether the connection's options are what the words of both sides come to. What one of the kernels lacks may
        be missing, unless it is required. Raises ``AccordError``: REQUIRED_MISSING, POLICY."""
        for name in OPTIONS:
            if has[name] and not self.use(name, able=has[name]):
                raise error(Reason.POLICY, f"TCP: the connection has {name}, against the words of both policies")
            if not has[name]:
                self.use(name, able=False)

    def tune(self, stream: Carrier) -> Carrier:
        """Have the agreed algorithm used on the kernel's connection, or what this side likes best where none was.

        Raises ``HostError`` when the kernel refuses one that is required, with the stream aborted.
        """
        self._stream = stream
        algorithm = self._algorithm
        if not algorithm and self._wishes.congestion:
            algorithm = tcp_wishes.alone(self._wishes, self._available())
        if algorithm and self._tuning is not None:
            try:
                self._tuning.use(stream, algorithm)
            except AccordError:
                if self._required:
                    stream.abort()
                    raise
        return stream

    @property
    def inside(self) -> Mapping[str, object]:
        """What the kernel says of the connection, once it is there and as long as it is."""
        if self._stream is not None and self._tuning is not None:
            with contextlib.suppress(AccordError, OSError):
                return self._tuning.describe(self._stream)
        return {}

    def _settle(self, algorithm: str, offered: tuple[tuple[str, Word], ...]) -> None:
        self._algorithm = algorithm
        said = (*self._wishes.congestion, *offered)
        self._required = any(name == algorithm and word is Word.REQUIRED for name, word in said)

    def _available(self) -> tuple[str, ...]:
        return () if self._tuning is None else tuple(self._tuning.algorithms())
