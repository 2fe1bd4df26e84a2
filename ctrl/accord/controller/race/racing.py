# SPDX-License-Identifier: Apache-2.0
"""One race with one address: what ``controller.race.table`` decides, done with sockets, timers and a negotiation."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from accord.controller.ladder import Ladder, Way
from accord.controller.negotiating import Negotiation
from accord.controller.peers.lessons import Lesson
from accord.controller.peers.memory import Learnt
from accord.controller.prepared import Target, new_transaction
from accord.controller.race import events as do
from accord.controller.race import legacy
from accord.controller.race.greeting import Greeting
from accord.controller.race.head_start import HeadStart, said
from accord.controller.race.probing import Probe
from accord.controller.race.proving import Proving
from accord.controller.race.table import Race, Rules, State
from accord.controller.settings.policy import Fallback, Secure, TcpOpen
from accord.controller.settings.values import OnForcedFallback
from accord.datapath.stream import SocketCarrier
from accord.datapath.syn_option import ExId, SynFate
from accord.negotiation import events
from accord.protocols.alpn import HTTP_1_1
from accord.protocols.services import Carrier, Security
from accord.protocols.tls_connection import TlsConnection
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, PeerError, error

if TYPE_CHECKING:
    from accord.controller.controller import Controller

log = logging.getLogger("accord.race")

_SILENCE_SECONDS: Final = 3.0
"""Two probe time-outs without an estimate of the round trip (RFC 9002, section 6.2.2) lose a lone packet twice."""
_ANSWER_ROUND_TRIPS: Final = 2
_ANSWER_SECONDS: Final = 0.025
"""What a responder may take beside the round trips: as much as an acknowledgement (RFC 9000, section 18.2)."""
_OUT_OF_BAND: Final = Fallback.DELAYED
"""Beside a negotiation out-of-band no SYN leaves: it would only be in the way of the one that shows the path."""
_EX_IDS: Final = {do.Syn.FALLBACK: ExId.FALLBACK, do.Syn.ADOPT: ExId.ADOPT}


@dataclass(frozen=True, slots=True)
class Won:
    """The end of a race. Without ``negotiation`` the plain connection has won, and ``why`` says why."""

    ready: float
    """Seconds since the call."""
    carrier: Carrier
    stack: Sequence[str] = ()
    negotiation: Negotiation | None = None
    committed: events.Committed | None = None
    why: do.FellBack | None = None
    remark: tuple[Reason, str] | None = None
    """What the path has done to a connection that was negotiated all the same."""


class Contest:
    """Runs one ``Race``. Call ``run`` once; it may be cancelled, and leaves nothing behind then."""

    def __init__(
        self,
        controller: Controller,
        target: Target,
        lesson: Lesson,
        early: bytes,
        ladder: Ladder,
        head: HeadStart | None = None,
    ) -> None:
        """``early``: the request that is to travel in the proposal; empty: none. ``head``: the SYN, if it has left."""
        self._controller = controller
        self._target = target
        self._lesson = lesson
        self._early = early
        self._ladder = ladder
        self._race = Race(
            Rules(
                tcp=TcpOpen.PARALLEL_SYN if target.adopts else TcpOpen.NO_SYN,
                fallback=_OUT_OF_BAND
                if target.via and target.policy.plain is Fallback.PARALLEL
                else target.policy.plain,
                bare=target.policy.plain_secure is Secure.NO,
                # Who takes no plain connection to such a peer has to ask it, whatever the path has done to that lately.
                propose=lesson.known.propose or target.policy.on_forced_fallback is OnForcedFallback.REFUSE,
                patient=lesson.known.answers_late and lesson.may_wait,
                trusts_mark=lesson.may_wait,
                refuses_forced=target.policy.on_forced_fallback is OnForcedFallback.REFUSE,
                made=head is None and (bool(early) or target.renews is not None or target in controller.proposals),
            )
        )
        self._head = head
        self._transaction: bytes | None = None
        """Of a SYN that has left before its proposal."""
        self._greeting: Greeting | None = None
        self._loop = asyncio.get_running_loop()
        self._won: asyncio.Future[Won] = self._loop.create_future()
        self._events: deque[do.Event] = deque()
        self._busy = False
        self._negotiation: Negotiation | None = None
        self._opening: legacy.Opening | None = None
        self._asked: ExId | None = None
        """What the SYN's option was to say."""
        self._connection: SocketCarrier | None = None
        self._fate: SynFate | None = None
        self._round_trip = 0.0
        self._begun: TlsConnection | None = None
        self._securing: asyncio.Task[tuple[Carrier, list[str]]] | None = None
        self._plain: tuple[Carrier, list[str]] | None = None
        """The plain connection when it is ready."""
        self._timer: asyncio.TimerHandle | None = None
        self._probe: Probe | None = None

    @property
    def _plain_security(self) -> Security:
        """A server may refuse a hello of whose names it knows none; who speaks Accord knows what our proposals name."""
        security = self._target.security
        return replace(security, alpn=(HTTP_1_1,)) if self._lesson.known.speaks and not security.alpn else security

    async def run(self) -> Won:
        """The winner. Raises ``AccordError`` when there is none."""
        self._carry_out(self._race.start())
        try:
            return await self._won
        except asyncio.CancelledError:
            if self._won.done() and not self._won.cancelled() and self._won.exception() is None:
                self._controller.losers.retire(self._won.result().carrier)
            raise
        finally:
            self._clean_up()

    # ---- what happens ----

    def _happened(self, event: do.Event) -> None:
        """Also while actions are carried out: then it waits for those that are left of them."""
        self._events.append(event)
        if not self._busy:
            self._carry_out(())

    def _carry_out(self, actions: Sequence[do.Action]) -> None:
        self._busy = True
        try:
            for action in actions:
                self._do(action)
            while self._events:
                for action in self._race.receive(self._events.popleft()):
                    self._do(action)
        except Exception as unforeseen:
            log.exception("a race failed in an unforeseen way")
            self._lose(error(Reason.PLUGIN_FAILED, f"{type(unforeseen).__name__}: {unforeseen}"))
        finally:
            self._busy = False

    def _progress(self) -> None:
        """The negotiation has news."""
        assert self._negotiation is not None
        exchange = self._negotiation.exchange
        if not exchange.committed.done():
            # Only the SYN's connection is ever waited for by a session of ours on this side.
            if self._target.via:
                self._probe = self._probe or Probe(self._controller, self._target, self._negotiation, self._ladder)
            elif self._negotiation.syn is not None and not self._negotiation.syn.connected:
                if self._greeting is not None:
                    self._greeting.look()  # what has come already came first
                self._happened(do.Answered())
            return
        exchange.on_progress = None
        failure = exchange.committed.exception()
        if failure is None:
            self._happened(do.Committed())
            return
        spoken = exchange.heard
        if spoken and isinstance(failure, PeerError):
            self._lesson.learn(Learnt.REFUSED)
        self._happened(do.NegotiationFailed(_named(failure), spoken))

    def _opened(self, connection: socket.socket, took: float) -> None:
        self._controller.endpoint.pump()  # what has come already came first
        if self._opening is None:  # and has decided
            self._controller.losers.retire(SocketCarrier(connection))
            return
        self._opening, self._connection, self._round_trip = None, SocketCarrier(connection), took
        self._lesson.tcp_answered = True
        options = self._controller.syn_options
        if options is not None and self._asked is not None:
            self._fate = options.conclude(connection)
        marked = self._marked
        says = ", which says that a proposal has been heard" if marked else ""
        self._ladder.note(Way.IN, f"TCP SYN-ACK{says}: connected")
        self._happened(do.SynAck(marked or self._challenged))
        if self._fate is not None:
            self._learn_of_option(self._fate)  # what is to be done came first

    @property
    def _marked(self) -> bool:
        return self._asked is ExId.ADOPT and self._fate is not None and self._fate.marked

    @property
    def _challenged(self) -> bool:
        return self._negotiation is not None and self._negotiation.exchange.challenged

    def _learn_of_option(self, fate: SynFate) -> None:
        heard = self._negotiation is not None and self._negotiation.exchange.heard
        if fate.no_room:
            self._ladder.note(Way.HERE, f"TCP SYN: {Reason.OPTION_NO_ROOM.text}")
        elif fate.written and (fate.syns == 1 or fate.marked):  # a mark answers the option: its SYN-ACK was lost
            self._lesson.learn(Learnt.OPTION_PASSED)
        elif fate.written and (self._asked is ExId.ADOPT or not heard):  # no suppressed SYN, which looks the same
            self._ladder.note(Way.HERE, "TCP SYN: only its repetition, without the option, was answered")
            self._lesson.learn(Learnt.OPTION_SYN_LOST)

    def _failed(self, failure: AccordError) -> None:
        self._opening = None
        self._ladder.note(Way.IN, str(failure))
        self._happened(do.TcpFailed(failure))

    def _secured(self, task: asyncio.Task[tuple[Carrier, list[str]]]) -> None:
        if task.cancelled() or task is not self._securing:
            return
        failure = task.exception()
        if failure is not None:
            self._connection = None  # it was aborted
            self._happened(do.TcpFailed(_named(failure)))
        else:
            self._plain_ready(task.result())

    def _plain_ready(self, plain: tuple[Carrier, list[str]]) -> None:
        self._plain = plain
        speaks = bool(getattr(plain[0], "both_speak_accord", False))
        if speaks:
            self._ladder.note(Way.IN, "TLS: the peer speaks Accord, and says so in its handshake")
            self._lesson.learn(Learnt.FORCED_FALLBACK)
        self._happened(do.PlainReady(speaks))

    # ---- what is to be done ----

    def _do(self, action: do.Action) -> None:
        match action:
            case do.Propose():
                self._propose()
            case do.Open(syn):
                self._open(syn)
            case do.Adopt():
                self._adopt()
            case do.Greet():
                self._greet()
            case do.Secure():
                self._secure()
            case do.Close():
                self._close()
            case do.Wait(patience):
                self._wait(patience)
            case do.GiveUp(reason):
                self._give_up(reason)
            case do.Negotiated():
                self._take_negotiated()
            case do.FellBack():
                self._fall_back(action)
            case do.Failed(failure):
                self._lose(failure)

    def _propose(self) -> None:
        try:
            self._negotiation = Negotiation(
                self._controller, self._target, self._early, self._ladder, self._transaction
            )
        except Exception as failure:
            self._happened(do.NegotiationFailed(_named(failure)))
            return
        exchange = self._negotiation.exchange
        exchange.on_progress = self._progress
        if exchange.committed.done() or exchange.waiting is not None:  # the answer may be as fast as that
            self._progress()

    def _open(self, syn: do.Syn) -> None:
        target, options = self._target, self._controller.syn_options
        if self._head is not None:
            head, self._head = self._head, None
            self._transaction, self._asked = head.transaction, head.asked
            self._opening = head.take(self._opened, self._failed)
            self._loop.call_soon(self._begin)
            return
        transaction = self._negotiation.transaction if self._negotiation is not None else b""
        if self._negotiation is None and not self._race.rules.made and syn is not do.Syn.NOTHING:
            transaction = self._transaction = new_transaction()  # the proposal follows
        self._asked = _EX_IDS.get(syn) if options is not None and transaction and self._lesson.known.option else None

        def before(connection: socket.socket) -> None:
            if options is not None and self._asked is not None:
                options.write(connection, transaction, self._asked)

        self._ladder.note(Way.OUT, said(target.port, self._asked))
        self._opening = legacy.Opening((target.address, target.port), self._opened, self._failed, before)
        if target.policy.plain_secure is not Secure.NO and not self._lesson.known.answers_late and self._begun is None:
            self._loop.call_soon(self._begin)  # the ClientHello is made while the SYN is on its way

    def _begin(self) -> None:
        tls = None if self._negotiation is None else self._negotiation.tls
        if self._race.state is State.OFFERED and tls is not None and tls.begun is not None:
            return  # the proposal's own will be said
        if self._begun is None and self._securing is None and not self._race.over:
            try:
                self._begun = legacy.begin(self._plain_security)
            except AccordError as failure:
                self._ladder.note(Way.HERE, str(failure))  # whoever needs it meets it again

    def _adopt(self) -> None:
        assert self._negotiation is not None
        assert self._connection is not None
        if self._greeting is not None:
            self._greeting.close()
        connection, self._connection = self._connection.detach(), None
        self._negotiation.adopt(connection, marked=self._marked, greeted=self._greeting is not None)

    def _greet(self) -> None:
        assert self._connection is not None
        tls = None if self._negotiation is None else self._negotiation.tls
        connection = self._connection.kernel_socket
        if tls is None or tls.begun is None or connection is None:  # the proposal speaks of no TLS on it
            self._happened(do.PlainSpoken())
            return
        self._ladder.note(Way.OUT, f"TCP: the proposal's ClientHello, {len(tls.hello)} bytes")
        try:
            self._greeting = Greeting(connection, tls, lambda: self._happened(do.PlainSpoken()))
        except AccordError as failure:
            self._close()
            self._happened(do.TcpFailed(failure))

    def _connected(self) -> SocketCarrier:
        """The open connection. Raises ``AccordError`` when the negotiation has used it."""
        if self._connection is None:
            assert self._negotiation is not None
            assert self._negotiation.syn is not None
            self._connection = self._negotiation.syn.take()
        return self._connection

    def _secure(self) -> None:
        target = self._target
        try:
            bare = self._connected()
        except AccordError as failure:
            self._happened(do.TcpFailed(failure))
            return
        address, policy = (target.address, target.port), target.policy
        begun, self._begun = self._begun, None
        secured: legacy.Secured = legacy.secure_stream
        if self._greeting is not None:
            self._greeting.close()
            begun, secured = self._greeting.begun, legacy.go_on
            # A task would begin in the loop's next turn, behind whatever else is due then.
            if begun is not None and self._greeting.answered and (at_once := legacy.at_once(bare, self._ladder, begun)):
                self._plain_ready(at_once)
                return
        self._securing = self._loop.create_task(
            secured(bare, address, policy.plain_secure, self._plain_security, self._ladder, begun)
        )
        self._securing.add_done_callback(self._secured)

    def _close(self) -> None:
        if self._opening is not None:
            self._opening.close()
            self._opening = None
        if self._negotiation is not None and self._negotiation.syn is not None:
            self._negotiation.syn.close()
        if self._greeting is not None:
            self._greeting.close()
        connection, self._connection = self._connection, None
        securing, self._securing = self._securing, None
        if connection is not None:
            self._controller.losers.retire(connection, securing)

    def _wait(self, patience: do.Patience) -> None:
        if self._timer is not None:
            self._timer.cancel()
        seconds = _SILENCE_SECONDS
        if patience is do.Patience.ANSWER:
            seconds = _ANSWER_ROUND_TRIPS * self._round_trip + _ANSWER_SECONDS
        self._timer = self._loop.call_later(seconds, self._waited)

    def _waited(self) -> None:
        self._timer = None
        if self._race.state in (State.WAITING, State.GREETED) and self._race.rules.fallback is Fallback.PARALLEL:
            self._lesson.learn(Learnt.WAITED_IN_VAIN)
        self._happened(do.Waited())

    def _give_up(self, reason: Reason) -> None:
        if self._negotiation is None:
            return
        if self._greeting is not None and not self._greeting.answered:
            self._negotiation.stop(reason)  # the connection may be held back for it
        elif reason in (Reason.LEGACY_FIRST, Reason.TIMEOUT):
            self._lesson.listen_on(self._negotiation, self._round_trip)
        else:
            self._negotiation.stop(reason)

    # ---- the ends ----

    def _take_negotiated(self) -> None:
        assert self._negotiation is not None
        try:
            carrier, committed = self._negotiation.take(None if self._target.adopts else self._lesson.watch)
        except AccordError as failure:
            self._lose(failure)
            return
        self._lesson.learn(Learnt.ANSWERED, committed.protocols)
        self._lesson.measure(self._negotiation)
        if self._target.adopts and Protocol.TCP in committed.protocols:
            self._controller.counts.adopted(marked=self._marked)
            self._lesson.learn(Learnt.ADOPTED_MARKED if self._marked else Learnt.ADOPTED_UNMARKED)
        elif (
            Protocol.TCP in committed.protocols
            and carrier.kernel_socket is None
            and not (self._early or self._target.via)
        ):
            carrier = Proving(carrier, self._lesson.learn)  # an early request may be answered in the negotiation itself
        remark = None
        if self._target.adopts and Protocol.TCP in committed.protocols and self._stripped:
            remark = (Reason.OPTION_STRIPPED, "the SYN-ACK has no mark, although the proposal was there before the SYN")
            self._ladder.note(Way.HERE, f"{remark[0].name}: {remark[1]}")
        self._win(Won(self._ladder.elapsed(), carrier, (), self._negotiation, committed, remark=remark))

    @property
    def _stripped(self) -> bool:
        """The option left once, behind a proposal that was not lost, and the peer that answered it saw no option, or
        its mark was taken off. (Or its kernel has no programs to mark with: ``accord doctor`` there tells.)"""
        fate = self._fate
        if fate is None or not fate.written or fate.syns != 1 or self._marked or self._transaction is not None:
            return False
        assert self._negotiation is not None
        figures = self._negotiation.exchange.figures()
        return figures is not None and not figures.retransmitted

    def _fall_back(self, why: do.FellBack) -> None:
        plain, self._plain = self._plain, None
        try:
            carrier, stack = plain or (self._connected(), ["tcp"])
        except AccordError as failure:
            self._lose(failure)
            return
        self._connection = self._securing = None
        if why.reason is Reason.LEGACY_PEER and self._challenged:
            why = do.FellBack(Reason.TIMEOUT, f"{Reason.CHALLENGED.text}, and there was no answer to its repetition")
        if why.reason is Reason.LEGACY_FIRST and self._asked is ExId.ADOPT and self._fate is not None:
            if self._fate.no_room:
                why = do.FellBack(Reason.OPTION_NO_ROOM, why.detail)
            elif self._fate.written and self._fate.syns > 1:
                why = do.FellBack(Reason.OPTION_DROPPED, why.detail)
        self._win(Won(self._ladder.elapsed(), carrier, stack, why=why))
        if self._negotiation is not None:
            self._lesson.listen_on(self._negotiation, self._round_trip)
            self._negotiation.order_next()

    def _win(self, won: Won) -> None:
        if self._won.done():  # called off in the same moment
            won.carrier.abort()
        else:
            self._won.set_result(won)

    def _lose(self, failure: AccordError) -> None:
        if not self._won.done():
            self._won.set_exception(failure)

    def _clean_up(self) -> None:
        """Whoever has won is out of reach by now; a race that was called off has everything still."""
        if self._timer is not None:
            self._timer.cancel()
        if self._probe is not None:
            self._probe.close()
        if not self._race.over:
            self._close()
        if self._negotiation is not None and self._race.state not in (State.NEGOTIATED, State.FELL_BACK):
            self._negotiation.stop(Reason.CLOSED)


def _named(failure: BaseException) -> AccordError:
    """What a plug-in or this program has failed with, if it is no error of ours, by its name."""
    if isinstance(failure, AccordError):
        return failure
    log.error("unforeseen", exc_info=failure)
    return error(Reason.PLUGIN_FAILED, f"{type(failure).__name__}: {failure}")
