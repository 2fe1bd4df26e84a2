# SPDX-License-Identifier: Apache-2.0
"""What a race has shown about its peer and the path, for the memory of peers.

A peer that has said nothing when the plain connection wins is not yet silent: a packet may have been lost. The
proposal is repeated for a while beside the plain connection, of one association with a peer at a time, and only if
that is not answered either it counts; ICMP is no evidence (``controller.peers.memory``). A responder that is merely
slow is found out in the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Final

from accord.controller.negotiating import Negotiation
from accord.controller.peers.memory import Knowledge, Learnt, Peers
from accord.datapath import tcp_sockopt
from accord.negotiation import events
from accord.protocols.sealed.configuration import KeyConfiguration, decode_list
from accord.protocols.services import Carrier
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError

log = logging.getLogger("accord.race")

_ROUND_TRIP_SECONDS: Final = 0.1
"""At least, for the pace of repetitions: what is found out is not urgent."""
_MAX_ACK_DELAY_SECONDS: Final = 0.025
_MARGIN_SECONDS: Final = 0.1
_IDLE_SECONDS: Final = 0.015
"""After the plain connection was found to win: by then it is ready, and with whoever asked for it."""
_LISTENERS: Final = 64
"""At once, over all peers: each holds a transaction of the engine's."""
_PROBES: Final = 1 + 2
"""Probe time-outs until the proposal has been repeated twice: the second one is doubled, up to a second (RFC 9002,
section 6.2.1)."""
_LOOKS: Final = (1.0, 2.0, 4.0)
"""At a connection without a SYN, seconds after the one before: until any data went either way."""
_STALLED: Final = 3
"""Repetitions of the same segment, none of them acknowledged: a second or two."""
_WAITS_IN_VAIN: Final = 2
_IN_VAIN_PEERS: Final = 1024
_ANSWERS: Final = (Learnt.ANSWERED, Learnt.LATE_ANSWER, Learnt.REFUSED)
_IP_BYTES: Final = {4: 20 + 8, 6: 40 + 8}
"""With UDP's."""
_CONTEXTS: Final = (Protocol.UDP, Protocol.DIRECT)


class Lessons:
    """Of all races of one controller."""

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        self._listening: set[tuple[str, int]] = set()
        self._in_vain: dict[tuple[str, int], int] = {}

    def of(self, address: str, port: int, source: str) -> Lesson:
        """For one race with ``address`` and ``port``, from the own address ``source``."""
        return Lesson(self.peers, (address, port), source, self._listening, self._in_vain)


class Lesson:
    """Of one race. ``known``: what the memory said before it; ``learnt``: what it was told since."""

    def __init__(
        self,
        peers: Peers,
        peer: tuple[str, int],
        source: str,
        listening: set[tuple[str, int]],
        in_vain: dict[tuple[str, int], int],
    ) -> None:
        self._peers = peers
        self._peer, self._source = peer, source
        self._listening = listening
        self._in_vain = in_vain
        """Waits in a row at a SYN-ACK in which no answer came: a path may let the mark through and not the answer."""
        self.known: Knowledge = peers.knows(*peer, source)
        self.learnt: list[Learnt] = []
        self._listens = False
        self.tcp_answered = False
        """Without which silence says nothing about proposals."""

    @property
    def may_wait(self) -> bool:
        """An answer is worth a wait at a SYN-ACK. One wait in vain proves nothing: the answer may have been lost."""
        return self._in_vain.get(self._peer, 0) < _WAITS_IN_VAIN

    def learn(self, what: Learnt, protocols: Sequence[int] = ()) -> None:
        """Tell the memory. ``protocols``: IDs of the peer's answer."""
        self.learnt.append(what)
        if what is Learnt.WAITED_IN_VAIN:
            if len(self._in_vain) >= _IN_VAIN_PEERS:
                self._in_vain.clear()
            self._in_vain[self._peer] = self._in_vain.get(self._peer, 0) + 1
        elif what in _ANSWERS:
            self._in_vain.pop(self._peer, None)
        known = tuple(number for number in protocols if number not in _CONTEXTS)
        self._peers.learn(*self._peer, what, protocols=known, source=self._source)

    def learn_key(self, name: str, key: KeyConfiguration) -> None:
        """The peer, authenticated as ``name``, is to be sealed to with this."""
        self._peers.learn_key(*self._peer, name, key.encode())

    def keys(self, name: str) -> tuple[KeyConfiguration, ...]:
        """What was learnt so."""
        try:
            return decode_list(self._peers.key_of(*self._peer, name))
        except ValueError:  # from a file that somebody has written
            return ()

    def measure(self, negotiation: Negotiation) -> None:
        """How long the answer was that has just come."""
        figures = negotiation.exchange.figures()
        if figures is not None:
            headers = _IP_BYTES[figures.path.family] * figures.packets_received
            self._peers.measure(*self._peer, figures.bytes_received + headers)

    def listen_on(self, negotiation: Negotiation, round_trip: float) -> None:
        """The plain connection has won: see whether the peer answers all the same. Ends the negotiation.

        ``round_trip``: seconds, of the SYN.
        """
        exchange = negotiation.exchange
        failed = exchange.committed.done() and not exchange.unreachable
        if exchange.over or failed or self._listens:
            return  # the peer, or this side, has said why; ICMP says nothing
        self._listens = True
        answered: list[int] = []

        def late(protocols: Sequence[int]) -> None:
            answered.extend(protocols)
            has_stack = any(number not in _CONTEXTS for number in protocols)
            self.learn(Learnt.LATE_ANSWER if has_stack else Learnt.REFUSED, protocols)

        if exchange.answered:  # and more has to be said, or done here: nobody wants what would come of it
            late(exchange.answered)
            negotiation.stop(Reason.LEGACY_FIRST)
            return
        negotiation.listen_on(late)

        def end() -> None:
            self._listening.discard(self._peer)
            if answered:
                return
            self._judge(exchange.challenged)
            if exchange.heard:
                negotiation.stop(Reason.LEGACY_FIRST)
            else:
                exchange.feed(events.Failed(Reason.TIMEOUT))
                exchange.close()

        def begin() -> None:
            if answered or exchange.over or (exchange.committed.done() and not exchange.unreachable):
                return
            if self._peer in self._listening or len(self._listening) >= _LISTENERS:
                negotiation.stop(Reason.LEGACY_FIRST)
                return
            self._listening.add(self._peer)
            exchange.round_trip(pace)
            loop.call_later(seconds, end)

        pace = max(round_trip, _ROUND_TRIP_SECONDS)
        seconds = _PROBES * (3 * pace + _MAX_ACK_DELAY_SECONDS) + round_trip + _MARGIN_SECONDS
        loop = asyncio.get_running_loop()
        loop.call_later(_IDLE_SECONDS, begin)

    def watch(self, carrier: Carrier) -> None:
        """Learn soon that TCP that was installed without a SYN carries nothing: long before the kernel gives it up.

        That it does carry data ``controller.race.proving`` sees.
        """
        if carrier.kernel_socket is not None:
            self._look(carrier, list(_LOOKS))

    def _look(self, carrier: Carrier, looks: list[float]) -> None:
        asyncio.get_running_loop().call_later(looks.pop(0), self._looked, carrier, looks)

    def _looked(self, carrier: Carrier, looks: list[float]) -> None:
        connection = carrier.kernel_socket
        if connection is None:
            return  # over, or handed to a program
        with contextlib.suppress(AccordError):
            seen = tcp_sockopt.info(connection)
            if seen.acknowledged or seen.received:
                return
            if seen.retransmitted >= _STALLED:
                self.learn(Learnt.NO_SYN_STALLED)
            elif looks:
                self._look(carrier, looks)

    def _judge(self, challenged: bool) -> None:
        """There was no answer. Packets of the peer's may have come: what gets through only one way is no use either. A
        challenge has come both ways: then the peer has too much to do."""
        if not self.tcp_answered or challenged:
            return
        self.learn(Learnt.SILENT)
        if not self._peers.knows(*self._peer, self._source).propose:
            log.info("%s port %d: %s", *self._peer, Reason.SILENT_PEER.text)
