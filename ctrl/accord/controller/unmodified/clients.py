# SPDX-License-Identifier: Apache-2.0
"""SYNs of programs under ``accord run``: which are held, negotiated for, let go, and what is said of destinations.

Nothing is held on suspicion. A SYN to a destination of which nothing is known leaves at once, and the peer is asked
beside it; only where a peer has answered a proposal, or whoever started the program says that it does, the next SYN
waits for the negotiation. What is known goes into memory that the TC program reads, so that a SYN that is not to be
held does not come here at all.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from accord.controller.association import Report
from accord.controller.ladder import Ladder
from accord.controller.negotiating import Negotiation, route
from accord.controller.peers.memory import Learnt
from accord.controller.prepared import Target
from accord.controller.proposal import tcp_open
from accord.controller.settings.policy import EffectivePolicy, TcpOpen
from accord.controller.stack import stack_names
from accord.controller.unmodified.held_syn import HeldSyn
from accord.datapath import captures, clock
from accord.datapath.captures import Captured, Captures, Fate, Say
from accord.negotiation import events
from accord.negotiation.interface import Role
from accord.protocols.services import Security
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, PeerError, error

if TYPE_CHECKING:
    from accord.controller.controller import Controller

log = logging.getLogger("accord.unmodified")

WISHES: Final[Mapping[str, Any]] = {
    "secure": "no",
    "prefer": ["tcp"],
    "only": True,
    "tcp": "no-syn",
    "fallback": "delayed",
}
"""A program that opens TCP has TCP, and brings what protects it by itself. The policy file may forbid this."""

_BOUND_SECONDS: Final = 0.6
"""Of a negotiation for a held SYN. Its kernel repeats it after a second, and then it is late by as much."""
_PROBE_SECONDS: Final = 3.0
"""As a race's silence: two repetitions are lost before it ends."""
_BEAT_SECONDS: Final = 0.1
_HOLD_SECONDS: Final = 600.0
_LEAVE_SECONDS: Final = 60.0
"""Then it is asked again: of the memory of peers, and if that knows nothing, of the peer."""
_AT_ONCE: Final = 256
"""Negotiations for held SYNs; more are let go."""
_PROBES: Final = 16
"""Peers asked at once."""
_LOST: Final = 4096
"""SYNs taken from the ring in one turn of the loop."""


@dataclass(slots=True)
class _Marked:
    """A cgroup that somebody runs programs in."""

    identity: int
    cgroup: int


class Clients:
    """Of one controller. Does nothing until the first program is run."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._captures: Captures | None = None
        self._interface = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._marked: dict[int, _Marked] = {}
        self._serial = 0
        self._held: set[HeldSyn] = set()
        self._probing: set[tuple[str, int]] = set()
        self.ended: Counter[str] = Counter()
        """Of SYNs that came up here, by the reason; OK: negotiated."""
        self._fates_before: Counter[Fate] = Counter()

    def run(self, cgroup: int, peers: list[tuple[str, int]]) -> int:
        """Take SYNs of this cgroup, an open directory, over from now on; a number for ``end``.

        ``peers``: addresses and ports that are believed to speak Accord: their first SYN is held already.
        Raises ``AccordError``: what is missing, and its mend.
        """
        opened = self._open()
        identity = opened.mark(cgroup)
        self._serial += 1
        self._marked[self._serial] = _Marked(identity, cgroup)
        for address, port in peers:
            opened.say(address, port, Say.HOLD, _HOLD_SECONDS)
        return self._serial

    def end(self, serial: int) -> None:
        """The program is over, or whoever ran it is."""
        marked = self._marked.pop(serial, None)
        if marked is None or self._captures is None:
            return
        try:
            self._captures.unmark(marked.identity)
        except AccordError as refusal:
            log.warning("a cgroup stays marked: %s", refusal)
        if not self._marked and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._captures.quiet()

    async def settled(self) -> None:
        """Until no SYN is held: 0.6 s at most, once no program is run here any more."""
        while self._held:
            await asyncio.sleep(_BEAT_SECONDS)

    @property
    def running(self) -> int:
        """Programs that are run."""
        return len(self._marked)

    def fates(self) -> dict[Fate, int]:
        """What the TC program has counted."""
        now = self._captures.fates() if self._captures is not None else {}
        return {fate: now.get(fate, 0) + self._fates_before[fate] for fate in Fate}

    def close(self) -> None:
        """Let go what is held, and detach the program."""
        for held in list(self._held):
            self._let_go(held, Reason.SHUTDOWN)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._captures is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._captures.fileno())
            self._fates_before.update(self._captures.fates())
            self._captures.close()
            self._captures = None
        self._marked.clear()

    # ---- the program ----

    def _open(self) -> Captures:
        controller = self._controller
        # A daemon that takes over is not on it at once.
        name = controller.config.interface if controller.link is None else controller.link.name
        if name is None:
            raise error(Reason.NO_INTERFACE, "this daemon has no interface to take SYNs at", "accord daemon --iface IF")
        try:
            interface = socket.if_nametoindex(name)
        except OSError as refusal:
            raise error(Reason.NO_INTERFACE, name, "see: ip -br link") from refusal
        if self._captures is not None and interface != self._interface:
            self.close()  # another one of the same name: with the old one the program went, and so did its maps
        if self._captures is None:
            self._captures, self._interface = Captures(interface), interface
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._captures.fileno(), self._readable)
        if self._timer is None:
            self._beat()
        return self._captures

    def _beat(self) -> None:
        assert self._captures is not None
        assert self._loop is not None
        self._captures.heartbeat()
        self._timer = self._loop.call_later(_BEAT_SECONDS, self._beat)

    def _readable(self) -> None:
        opened = self._captures
        for _ in range(_LOST):
            if opened is None or self._captures is not opened or (taken := opened.take()) is None:
                return
            frame, held, interface = taken
            try:
                found = captures.decode(frame, held=held, interface=interface)
            except (AccordError, ValueError) as wrong:
                log.info("a SYN that cannot be negotiated: %s", wrong)
                self.ended[Reason.UNSUPPORTED.name] += 1
                if held:
                    self._release_unread(frame)
                continue
            if held:
                self._hold(found)
            else:
                self._asked(found)

    def _release_unread(self, frame: bytes) -> None:
        """One with options that are nobody's to negotiate (TCP-AO): its checksum is made for it all the same."""
        assert self._captures is not None
        try:
            self._captures.release(captures.completed(frame))
        except (AccordError, ValueError) as refusal:  # then the kernel's repetition leaves
            log.warning("a SYN was lost: %s", refusal)

    # ---- a SYN that has left ----

    def _asked(self, syn: Captured) -> None:
        """Of a destination of which the TC program knows nothing."""
        controller = self._controller
        try:
            policy = self._policy(syn)
        except AccordError as refusal:
            self._say(syn, Say.LEAVE)
            self.ended[refusal.reason.name] += 1
            log.info("%s port %d: its SYNs are left alone: %s", syn.destination, syn.port, refusal)
            return
        known = controller.peers.knows(syn.destination, syn.port, syn.source)
        if not known.propose or known.no_syn is False:
            self._say(syn, Say.LEAVE)
            self.ended[Reason.KNOWN_LEGACY.name] += 1
        elif known.accord and Protocol.TCP in known.protocols:
            self._say(syn, Say.HOLD)
            self.ended[Reason.LEGACY_FIRST.name] += 1
        else:
            self.ended[Reason.LEGACY_FIRST.name] += 1
            self._probe(syn, policy)

    def _probe(self, syn: Captured, policy: EffectivePolicy) -> None:
        """Propose TCP without a SYN, and give it up as soon as the peer answers: its kernel's socket goes with that."""
        peer = (syn.destination, syn.port)
        if peer in self._probing or len(self._probing) >= _PROBES:
            return
        controller, loop = self._controller, asyncio.get_running_loop()
        lesson = controller.lessons.of(*peer, syn.source)
        try:
            negotiation = Negotiation(controller, self._target(syn, policy, None), b"", Ladder(clock.now))
        except AccordError as failure:
            log.info("%s port %d: not asked: %s", *peer, failure)
            return
        self._probing.add(peer)
        exchange = negotiation.exchange
        answered: list[int] = []

        def late(protocols: Any) -> None:
            answered.extend(protocols)
            lesson.learn(Learnt.ANSWERED if Protocol.TCP in protocols else Learnt.REFUSED, tuple(protocols))
            self._say(syn, Say.HOLD if Protocol.TCP in protocols else Say.LEAVE)
            self._probing.discard(peer)

        def end() -> None:
            if answered:
                return
            self._probing.discard(peer)
            self._say(syn, Say.LEAVE)
            if exchange.heard:
                negotiation.stop(Reason.LEGACY_FIRST)
            else:
                exchange.feed(events.Failed(Reason.TIMEOUT))
                exchange.close()

        negotiation.listen_on(late)
        loop.call_later(_PROBE_SECONDS, end)

    # ---- a SYN that is held ----

    def _hold(self, syn: Captured) -> None:
        assert self._captures is not None
        held, began = HeldSyn(syn, self._captures), clock.now()
        self._held.add(held)
        try:
            if len(self._held) > _AT_ONCE:
                raise error(Reason.OVER_BUDGET, f"{_AT_ONCE} SYNs are held already")
            target = self._target(syn, self._policy(syn), held)
            negotiation = Negotiation(self._controller, target, b"", Ladder(clock.now))
        except AccordError as refusal:
            if refusal.reason is Reason.POLICY:
                self._say(syn, Say.LEAVE)
            self._let_go(held, refusal.reason)
            return
        exchange = negotiation.exchange
        exchange.believes_icmp = True  # there is another way: the SYN's own
        timer = asyncio.get_running_loop().call_later(_BOUND_SECONDS, lambda: progress(late=True))

        def progress(*, late: bool = False) -> None:
            if held not in self._held:
                return
            done = exchange.committed
            if not done.done() and not late:
                return
            exchange.on_progress = None
            timer.cancel()
            failure = done.exception() if done.done() else error(Reason.TIMEOUT, "no answer in time")
            if failure is None and held.answered:
                self._up(held, done.result(), began)
                return
            self._failed(held, negotiation, failure)

        exchange.on_progress = progress
        progress()  # the answer may be as fast as that

    def _up(self, held: HeldSyn, committed: events.Committed, began: float) -> None:
        self._held.discard(held)
        self.ended[Reason.OK.name] += 1
        syn = held.captured
        lesson = self._controller.lessons.of(syn.destination, syn.port, syn.source)
        lesson.learn(Learnt.ANSWERED, tuple(committed.protocols))
        self._say(syn, Say.HOLD)
        report = Report(f"{syn.destination} port {syn.port}", stack_names(committed), negotiated=True)
        report.ready_ms = (clock.now() - began) * 1000
        self._controller.counts.came_up(Role.INITIATOR, report)

    def _failed(self, held: HeldSyn, negotiation: Negotiation, failure: BaseException | None) -> None:
        """The next one is not held. One silence proves nothing, a packet may have been lost: the peer is asked again,
        beside a SYN that leaves; after anything else that is done in a minute."""
        syn, exchange = held.captured, negotiation.exchange
        lesson = self._controller.lessons.of(syn.destination, syn.port, syn.source)
        reason = failure.reason if isinstance(failure, AccordError) else Reason.PLUGIN_FAILED
        if exchange.heard and isinstance(failure, PeerError):
            lesson.learn(Learnt.REFUSED)
        elif reason is Reason.TIMEOUT:
            lesson.learn(Learnt.WAITED_IN_VAIN)
        self._controller.counts.failed(Role.INITIATOR, reason)
        self._say(syn, Say.ASK if reason is Reason.TIMEOUT else Say.LEAVE)
        if not exchange.committed.done():
            negotiation.stop(Reason.LEGACY_FIRST)
        elif exchange.unreachable and not exchange.over:
            exchange.feed(events.Failed(Reason.UNREACHABLE))
            exchange.close()
        self._let_go(held, reason)

    def _let_go(self, held: HeldSyn, reason: Reason) -> None:
        self._held.discard(held)
        self.ended[reason.name] += 1
        try:
            held.let_go()
        except AccordError as refusal:  # then the kernel's repetition leaves, after a second
            log.warning("a SYN was lost: %s", refusal)

    # ---- both ----

    def _say(self, syn: Captured, word: Say) -> None:
        if self._captures is not None:
            seconds = _HOLD_SECONDS if word is Say.HOLD else _LEAVE_SECONDS
            self._captures.say(syn.destination, syn.port, word, seconds)

    def _policy(self, syn: Captured) -> EffectivePolicy:
        """What holds for the destination. Raises ``AccordError`` (POLICY) where that is not bare TCP without a SYN."""
        controller = self._controller
        policy = controller.policy_for(syn.destination, syn.port, syn.destination, WISHES)
        if policy.hides or policy.via is not None or policy.defer or policy.choose:
            raise error(Reason.POLICY, "inner, via, defer or choose is set for it", "leave them out for it")
        if tcp_open(controller.plugins, policy, works=True) is not TcpOpen.NO_SYN:
            raise error(Reason.POLICY, "the policy wants a SYN on the wire", 'tcp = "no-syn" or "auto"')
        if policy.stacks_wanted(set(controller.plugins) - {"http", "inner"}) != [("tcp",)]:
            raise error(Reason.POLICY, "the policy does not want bare tcp", "see docs/POLICY.md")
        return policy

    def _target(self, syn: Captured, policy: EffectivePolicy, held: HeldSyn | None) -> Target:
        source, mtu = route(_zoned(syn.destination, syn.interface), syn.port)
        if source.partition("%")[0] != syn.source:
            raise error(Reason.ADDRESS_TRANSLATED, f"the SYN leaves from {syn.source}, a negotiation from {source}")
        return Target(
            source,
            _zoned(syn.destination, syn.interface),
            syn.port,
            policy,
            Security(),
            mtu,
            bare=True,
            held=held,
        )


def _zoned(address: str, interface: int) -> str:
    """A link-local address means nothing without its interface."""
    return f"{address}%{socket.if_indextoname(interface)}" if address.startswith("fe80:") else address
