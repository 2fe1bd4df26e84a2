# SPDX-License-Identifier: Apache-2.0
"""One negotiation on this host: the sans-IO machine, driven by engine events, its actions carried out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from accord.controller.endpoint import Endpoint
from accord.controller.ladder import Ladder, Way
from accord.controller.stack import build_carrier
from accord.datapath import clock
from accord.datapath.engine import Event as EngineEvent
from accord.datapath.engine import EventKind, TransactionInfo
from accord.negotiation import events
from accord.negotiation.interface import Role
from accord.wire.constants import NodeId, Reason, Step, protocol_name
from accord.wire.constants import Protocol as ProtocolId
from accord.wire.errors import AccordError, PeerError, error
from accord.wire.node import decode_descriptor

log = logging.getLogger("accord.exchange")

# An abort is worth sending again until it arrives, but not for long.
_DYING_SECONDS = 2.0
# A commit is acknowledged as long as it may come. After the first of these the engine does so by itself, and only as
# long as it has room: whose acknowledgement is lost again and again has its stack all the same.
_ANSWER_SECONDS = 1.0
_LINGER_SECONDS = 10.0
# Long enough for an answer from half around the world.
_DISBELIEF_SECONDS = 1.0


def _step_name(step: int, context: bytes) -> str:
    """``context``: the context node's descriptor, which says whether an initiator's later message is the commit."""
    if step % 2:
        return "answer"
    if step == Step.PROPOSAL:
        return "proposal"
    try:
        further = bool(context) and bool(decode_descriptor(NodeId.CONTEXT, ProtocolId.UDP, context).continues)
    except PeerError:  # this is for the ladder; the machine refuses it
        further = False
    return "further" if further else "commit"


def _heard(step: int, context: bytes, protocols: Sequence[int]) -> str:
    return f"step {step} {_step_name(step, context)}: {', '.join(map(protocol_name, protocols))}"


def _said(action: events.Send) -> str:
    nodes = ", ".join(f"{protocol_name(protocol)} {len(data)}" for _, protocol, data in action.nodes)
    return f"step {action.step} {_step_name(action.step, action.nodes[0][2])}: {nodes} bytes"


class Machine(Protocol):
    """``negotiation.Initiator`` or ``Responder``."""

    def receive(self, event: events.Event) -> Sequence[events.Action]:
        """One event in, the actions that follow from it out, in order."""

    @property
    def waiting(self) -> int | None:
        """The node whose session waits for something on this host; None: none does."""

    def forget(self) -> None:
        """Nothing more will be asked of it."""

    @property
    def early(self) -> bool:
        """As ``negotiation.machine.Machine.early``."""


class Exchange:
    """Owner of one engine transaction. ``committed`` resolves to the stack or fails with an ``AccordError``."""

    def __init__(
        self, endpoint: Endpoint, handle: int, ladder: Ladder, role: Role, released: Callable[[], None]
    ) -> None:
        """``released`` is called when the engine's transaction is closed."""
        self.ladder = ladder
        self._role = role
        self.committed: asyncio.Future[events.Committed] = asyncio.get_running_loop().create_future()
        # Nobody has to wait for a negotiation that fails: the failure is logged where it is dealt with.
        self.committed.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.info: TransactionInfo | None = None
        self.unreachable = False
        self.challenged = False
        """The peer has asked for a cookie: it speaks Accord, whatever else it says."""
        self.on_refused: Callable[[AccordError], None] | None = None
        """Initiator: the peer refused the commit after all."""
        self.refused: AccordError | None = None
        """As ``on_refused``, for whoever comes later."""
        self.believes_icmp = False
        """There is another way to the peer, so a hint that this one is closed may end the negotiation."""
        self.on_progress: Callable[[], None] | None = None
        """Called when ``committed`` is done, or a session has begun to wait: at once, not in the loop's next turn."""
        self._late: Callable[[Sequence[int]], None] | None = None
        self._last_sent = -1
        self._dying = False
        self._machine: Machine | None = None
        self._endpoint = endpoint
        self._handle = handle
        self._released: Callable[[], None] | None = released
        self._incoming: dict[int, list[int]] = {}
        """Protocols of the nodes that have come, by step."""
        self.answered: Sequence[int] = ()
        """Those of the peer's latest message, when it was whole."""
        self._context = b""
        self._release_timer: asyncio.TimerHandle | None = None
        # Whatever it has come to: a proposal that is repeated, or late, begins no other (PROTOCOL.md, MUST-28).
        self._linger = _LINGER_SECONDS if role is Role.RESPONDER else 0.0

    def run(self, machine: Machine, first: Sequence[events.Action] = ()) -> None:
        """Begin: carry out the machine's first actions, and from now on give it what happens."""
        self._machine = machine
        self._perform(first)
        self._progress()

    def feed(self, event: events.Event) -> None:
        """Give the machine an event that is not the engine's: ``Resume``, ``Stop``."""
        if self._machine is not None and (actions := self._received(self._machine, event)):
            self._perform(actions)
            self._endpoint.kick()
            self._progress()

    def _received(self, machine: Machine, event: events.Event) -> Sequence[events.Action]:
        """What nobody foresaw ends this negotiation, and what is no negotiation's to keep goes on from here."""
        try:
            return machine.receive(event)
        except Exception as unforeseen:
            log.exception("a negotiation failed in an unforeseen way")
            return machine.receive(events.Failed(Reason.PLUGIN_FAILED, f"{type(unforeseen).__name__}: {unforeseen}"))
        except BaseException:
            self._perform(machine.receive(events.Failed(Reason.PLUGIN_FAILED)))
            raise

    @property
    def waiting(self) -> int | None:
        """The node whose session waits for something on this host; None: none does."""
        return None if self._machine is None or self.committed.done() else self._machine.waiting

    @property
    def heard(self) -> bool:
        """The peer has said something, if only that it got something."""
        figures = self.figures()
        return figures is not None and figures.packets_received > 0

    def listen_on(self, late: Callable[[Sequence[int]], None]) -> None:
        """Nobody wants the stack any more. An answer that still comes is told to ``late``, as the protocol IDs of its
        nodes, and the peer that it came too late. Whoever calls this ends it, and calls it only while there has been
        no answer: one that goes on after its first answer can commit (``answered``)."""
        self._late = late

    def round_trip(self, seconds: float) -> None:
        """What the SYN took: the proposal is repeated as the path asks for, no longer as if nothing was known of it."""
        if not self.over:
            self._endpoint.engine.round_trip(self._handle, round(seconds * 1_000_000))
            self._endpoint.kick()

    @property
    def over(self) -> bool:
        """The engine's transaction is closed."""
        return self._released is None

    def give_up(self) -> None:
        """Something on this side failed: nothing more is sent, sessions are told."""
        self.feed(events.Failed(Reason.PLUGIN_FAILED))
        self._release()

    def close(self) -> None:
        """The engine's transaction ends now, whoever may still repeat something."""
        self._linger = 0.0
        self._release()

    # ---- endpoint.Owner ----

    def on_event(self, event: EngineEvent) -> None:
        """An engine event of this transaction, in the negotiation's terms."""
        if self._late is not None and event.step == Step.ANSWER and event.kind in (EventKind.NODE, EventKind.MESSAGE):
            self._on_late(event, self._late)
            return
        if event.kind is EventKind.NODE:
            self._incoming.setdefault(event.step, []).append(event.protocol)
            if event.node == NodeId.CONTEXT:
                self._context = event.data
            self.feed(events.NodeArrived(event.step, event.node, event.protocol, event.data, self._budget(event)))
        elif event.kind is EventKind.SKIPPED:
            self.feed(events.NodeSkipped(event.step, event.node, event.protocol, self._budget(event)))
        elif event.kind is EventKind.MESSAGE:
            self.answered = self._incoming.pop(event.step, [])
            self.ladder.note(Way.IN, partial(_heard, event.step, self._context, self.answered))
            self.feed(events.MessageComplete(event.step, self._endpoint.engine.budget(self._handle)))
        elif event.kind is EventKind.ARRIVED:
            self.feed(events.MessageArrived(event.step))
            if self._dying and event.step == self._last_sent:
                self._release()
        elif event.kind is EventKind.CHALLENGED:
            self.challenged = True
            self.ladder.note(Way.IN, "challenge: the peer is under load; the proposal is repeated with its cookie")
        elif event.kind is EventKind.FAILED:
            reason = Reason.UNREACHABLE if self.unreachable and event.reason is Reason.TIMEOUT else event.reason
            self.feed(events.Failed(reason))
            self._release()

    def _budget(self, event: EngineEvent) -> int:
        """What may be said in return to a part of a message; 0 where nothing will be."""
        early = self._machine is not None and self._machine.early
        first = event.node == NodeId.CONTEXT and event.step == Step.PROPOSAL
        return self._endpoint.engine.budget(self._handle) if early or first else 0

    def _on_late(self, event: EngineEvent, late: Callable[[Sequence[int]], None]) -> None:
        if event.kind is EventKind.NODE:
            self._incoming.setdefault(event.step, []).append(event.protocol)
        else:
            self._late = None
            late(self._incoming.pop(event.step, []))
            self.feed(events.Stop(Reason.LEGACY_FIRST))

    def on_unreachable(self) -> None:
        """ICMP: a hint that anybody can forge. A responder, to whom it says nothing useful, ignores it; an initiator
        with another way to the peer takes that at once, one without gives the peer some time to prove it wrong."""
        if self._role is Role.INITIATOR and not self.unreachable and not self.committed.done():
            self.unreachable = True
            self.ladder.note(Way.IN, "ICMP: nobody negotiates on that port")
            if self.believes_icmp:
                self._unreachable()
            else:
                asyncio.get_running_loop().call_later(_DISBELIEF_SECONDS, self._unreachable)

    def on_stop(self) -> None:
        """This host ends the negotiation; once committed there is nothing to be ended here any more."""
        self.feed(events.Stop(Reason.SHUTDOWN))

    def _unreachable(self) -> None:
        if not self.committed.done():  # the transaction goes on until somebody says that it is not worth it
            self.committed.set_exception(error(Reason.UNREACHABLE, "ICMP says that nobody negotiates on that port"))
            self._progress()

    def _progress(self) -> None:
        if self.on_progress is not None and (self.committed.done() or self.waiting is not None):
            self.on_progress()

    # ---- actions ----

    def _perform(self, actions: Sequence[events.Action]) -> None:
        for action in actions:
            match action:
                case events.Send():
                    self._send(action)
                case events.Prove():
                    self._endpoint.engine.prove(self._handle)
                case events.Note():
                    self.ladder.note(Way.HERE, action.text)
                case events.Committed():
                    self.ladder.note(Way.HERE, f"committed to {action.name}")
                    if not self.committed.done():
                        self.committed.set_result(action)
                    else:  # the commit could not be sent, or nobody waits for it any more
                        build_carrier(action.sessions).abort()
                    if self._role is Role.RESPONDER:
                        self._release_later(_ANSWER_SECONDS)
                case events.Confirmed():
                    self._release_later(_DYING_SECONDS)  # until then the peer may still refuse
                case events.Unconfirmed():
                    # The peer may have it and may not; whether the stack is up its own protocols find out.
                    log.info("transaction %s: the commit was never acknowledged", self._handle)
                case events.Aborted():
                    self._aborted(action.error())

    def _send(self, action: events.Send) -> None:
        if self._role is Role.RESPONDER and (part := self._incoming.pop(action.step - 1, None)):
            self.ladder.note(Way.IN, partial(_heard, action.step - 1, self._context, part))
        try:
            self._endpoint.engine.send(clock.now_us(), self._handle, action.step, action.nodes, action.packets_min)
        except AccordError as failure:
            if not self.committed.done():
                self.committed.set_exception(failure)
            self.feed(events.Failed(failure.reason, failure.detail))
            self._release_later(0.0)
            return
        self._last_sent = action.step
        self.ladder.note(Way.OUT, partial(_said, action))

    def _aborted(self, failure: AccordError) -> None:
        self.ladder.note(Way.HERE, f"aborted: {failure}")
        self._dying = True
        if not self.committed.done():
            self.committed.set_exception(failure)
        else:
            self.refused = failure
            if self.on_refused is not None:
                self.on_refused(failure)
        self._release_later(_DYING_SECONDS)

    # ---- the end ----

    def _release_later(self, seconds: float) -> None:
        if self._release_timer is None and self._released is not None:
            self._release_timer = asyncio.get_running_loop().call_later(seconds, self._release)

    def _release(self) -> None:
        if self._released is None:
            return
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
        self.info = self._endpoint.engine.info(self._handle) or self.info
        self._endpoint.release(self._handle, self._linger)
        released, self._released = self._released, None
        released()
        # Whoever made them hears of them no more. What would only be found by the collector waits for it, with the
        # keys and buffers of its handshakes: thousands of negotiations (docs/BENCHMARKS.md, soak).
        self.on_refused = self.on_progress = self._late = None
        machine, self._machine = self._machine, None
        if machine is not None:
            machine.forget()

    def figures(self) -> TransactionInfo | None:
        """Packets and bytes so far."""
        if self._released is not None:
            self.info = self._endpoint.engine.info(self._handle) or self.info
        return self.info
