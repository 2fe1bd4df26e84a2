# SPDX-License-Identifier: Apache-2.0
"""Proposals and commits of whom the engine keeps nothing (docs/PROTOCOL.md, section 22).

    STRANGER   a whole proposal of a few packets   answer from a seed, no longer than that, and a slot: seed, proposal,
                                                   T(1). Whatever needs memory: a cookie is asked for.
    RETURNED   the commit of a slot, with T(1)     the answer is made again and thrown away; the commit decides

A stack without secrets takes no slot: its seed comes from a cookie (kind ANSWER) by a key that several machines may
have, and the commit brings cookie and proposal.

Until the commit is verified everything but the slot is forgotten. What is random comes from the seed alone, so a hidden
input shows as another T(1): then the commit is wrong, and nothing else is.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from accord.controller import responding
from accord.controller.ladder import Way
from accord.controller.strangers.budget import Budget
from accord.controller.strangers.seed import SEED_BYTES
from accord.controller.strangers.unkept import Unkept
from accord.datapath import clock, unkept
from accord.datapath.engine import Event, EventKind
from accord.datapath.path import Path
from accord.negotiation import events
from accord.negotiation.interface import Role
from accord.negotiation.repetition import MAX_BYTES
from accord.wire import repeat
from accord.wire.constants import CookieKind, Limit, NodeId, Packet, Reason, TlvType
from accord.wire.errors import AccordError
from accord.wire.node import decode_descriptor

if TYPE_CHECKING:
    from accord.controller.controller import Controller

_BOUND: Final = 4
_TSN: Final = slice(20, 24)
log = logging.getLogger("accord.strangers")


class Strangers:
    """Of one controller. ``spent``: processor time of this thread, seconds."""

    def __init__(self, controller: Controller, share: float, spent: Callable[[], float] = time.thread_time) -> None:
        """``share``: of one core, that answers may take."""
        self._controller = controller
        self._engine = controller.endpoint.engine
        self._budget = Budget(clock.now, share)
        self._spent = spent
        self.answers = 0
        """Made, repetitions included; those that the commit makes again left out."""
        self.commits = 0
        """Verified."""
        self.deferred: dict[str, int] = {}
        """Why a cookie was asked for instead, and how often; a handful of words."""
        self.slotless = 0
        """Of the answers, those that no slot waits for: their commits bring all that is needed."""

    def met(self, event: Event) -> None:
        """STRANGER or RETURNED."""
        if event.kind is EventKind.STRANGER:
            self.arrived(event)
        else:
            self.returned(event)

    def awaits(self, transaction: bytes) -> str | None:
        """Whether a slot waits for the commit of a transaction: the address of its peer."""
        kept = unkept.slot(self._engine, clock.now_us(), transaction)
        return None if kept is None or kept.path is None else kept.path.remote

    # ---- the proposal ----

    def arrived(self, event: Event) -> None:
        """STRANGER."""
        path, proposal = event.path, event.data
        assert path is not None, "a STRANGER event bears its path"
        kept = unkept.slot(self._engine, clock.now_us(), event.transaction, path)
        if not self._budget.may():
            if kept is None:  # else there is an answer already, and two of them would contradict each other
                self._challenge(path, proposal, "the budget is spent")
            return
        begin = self._spent()
        try:
            self._answer(event.transaction, path, proposal, kept)
        finally:
            self._budget.spend(self._spent() - begin)

    def _answer(self, transaction: bytes, path: Path, proposal: bytes, kept: unkept.Slot | None) -> None:
        if kept is not None and kept.proposal != proposal:
            return  # one seed never serves two proposals
        try:
            nodes = unkept.read(self._engine, proposal)
        except AccordError as wrong:
            log.debug("%s: %s", path.remote, wrong)
            return  # malformed, from an address that is not proven: silence
        seed = os.urandom(SEED_BYTES) if kept is None else kept.seed
        attempt = Unkept(self._controller, transaction, path, seed, b"" if kept is None else kept.kept)
        try:
            budget = sum(map(len, unkept.packets(proposal)))
            answer = attempt.propose(nodes, budget)
            if answer is not None and kept is None and attempt.answered and self._needs_no_slot(attempt, nodes):
                attempt.forget()
                bound = attempt.proposal_hash[:_BOUND]
                token = unkept.token(self._engine, path, transaction, CookieKind.ANSWER, bound)
                known = unkept.token_seed(self._engine, path, transaction, token)
                assert known is not None, "the key is there"
                attempt = Unkept(self._controller, transaction, path, known, token=token)
                answer = attempt.propose(nodes, budget)
                seed = b""
            if answer is not None:
                self._send(attempt, answer, proposal, fresh=kept is None, seed=seed)
            elif attempt.why_deferred and kept is None:
                self._challenge(path, proposal, attempt.why_deferred)
        finally:
            attempt.forget()

    def _needs_no_slot(self, attempt: Unkept, nodes: Sequence[unkept.FlightNode]) -> bool:
        """Nothing in it is secret, and the commit has room for the proposal."""
        proposal = [(node.id, node.protocol, node.descriptor if node.stored else b"") for node in nodes]
        return not attempt.secured and len(repeat.encode(bytes(Packet.COOKIE_BYTES), proposal)) <= MAX_BYTES

    def _send(self, attempt: Unkept, answer: events.Send, proposal: bytes, *, fresh: bool, seed: bytes) -> None:
        path, came = attempt.path, unkept.packets(proposal)
        try:
            packets = unkept.compose(attempt.transaction, answer.step, answer.nodes, sent=0, heard=len(came))
        except AccordError:
            packets = []
        length = sum(map(len, packets))
        if not packets or len(packets) > len(came) or length > sum(map(len, came)):
            if fresh:
                self._challenge(path, proposal, "the answer is longer than the proposal")
            return
        if not seed:
            self.slotless += 1
        elif attempt.answered and fresh:
            slot = unkept.Slot(proposal, seed, attempt.responder.hashed, len(packets), length, attempt.kept)
            taken = unkept.keep(self._engine, clock.now_us(), path, slot)
            if taken is Reason.NO_MEMORY:
                self._challenge(path, proposal, "no slot is free")
            if taken is not Reason.OK:
                return
        self.answers += 1
        for packet in packets:
            self._engine.send_once(path, packet)

    def _challenge(self, path: Path, proposal: bytes, why: str) -> None:
        why = why.partition(":")[0]
        self.deferred[why] = self.deferred.get(why, 0) + 1
        self._engine.challenge(path, unkept.packets(proposal)[0])

    # ---- the commit ----

    def returned(self, event: Event) -> None:
        """RETURNED: it bears the T(1) of the slot ``event.handle``."""
        if event.path is None:
            return
        kept = unkept.slot_of(self._engine, clock.now_us(), event.handle) if event.handle else None
        if event.handle and kept is None:
            return  # a repetition: the one before it has emptied the slot
        begin = self._spent()
        try:
            self._commit(event, _Kept(self, event, kept) if kept is not None else _Token(self, event))
        except AccordError as wrong:
            log.info("%s: a commit that cannot be read: %s", event.path.remote, wrong)
            if kept is not None:
                unkept.failed(self._engine, kept.handle)
        finally:
            self._budget.spend(self._spent() - begin)

    def _commit(self, event: Event, answered: _Kept | _Token) -> None:
        """Raises ``AccordError`` for one that cannot be read."""
        assert event.path is not None
        attempt = answered.again(self._controller)
        if attempt is None:
            return
        ladder = attempt.ladder
        ladder.note(Way.HERE, f"from {attempt.peer}")
        try:
            answer = attempt.propose(answered.nodes, Limit.MAX_MESSAGE_BYTES)
            commit = unkept.read(self._engine, event.data)
        except AccordError:
            attempt.forget()
            raise
        if answer is None or not attempt.answered or not answered.same(attempt):
            log.info(
                "%s: the answer cannot be made again: the configuration or a certificate has changed", attempt.peer
            )
            attempt.forget()
            answered.failed()
            return
        ladder.note(Way.HERE, "step 0 proposal, answered without memory; the answer is made again")
        ladder.note(Way.IN, "step 2 commit")
        actions = attempt.commit(commit)
        if not attempt.responder.bound:
            attempt.forget()  # nobody who has the keys made it: it has burnt one of a few tries, and gets silence
            answered.failed()
            return
        sent = len(unkept.compose(event.transaction, answer.step, answer.nodes, sent=0, heard=1))
        answered.settle(sent)
        self.commits += 1
        self._controller.counts.proposed(event.syn_first)
        for action in actions:
            match action:
                case events.Note():
                    ladder.note(Way.HERE, action.text)
                case events.Send():
                    heard = int.from_bytes(unkept.packets(event.data)[0][_TSN], "big")
                    heard = (heard - int.from_bytes(event.transaction[:4], "big")) % (1 << 32) + 1
                    for packet in unkept.compose(event.transaction, action.step, action.nodes, sent=sent, heard=heard):
                        self._engine.send_once(event.path, packet)
                case events.Committed():
                    ladder.note(Way.HERE, f"committed to {action.name}")
                    responding.committed(attempt, action)
                case events.Aborted():
                    self._controller.counts.failed(Role.RESPONDER, action.reason)
                    log.info("port %s, %s: %s", event.path.local_port, attempt.peer, action.error())


class _Kept:
    """What a commit's answer is made from again: a slot."""

    def __init__(self, strangers: Strangers, event: Event, kept: unkept.Slot) -> None:
        self._engine, self._event, self._kept = strangers._engine, event, kept
        self.nodes = unkept.read(self._engine, kept.proposal)

    def again(self, controller: Controller) -> Unkept | None:
        """The negotiation anew."""
        assert self._event.path is not None
        return Unkept(controller, self._event.transaction, self._event.path, self._kept.seed, self._kept.kept)

    def same(self, attempt: Unkept) -> bool:
        """The answer is the one that was given."""
        return attempt.responder.hashed == self._kept.transcript

    def settle(self, sent: int) -> None:
        """The commit is verified."""
        unkept.settle(self._engine, clock.now_us(), self._kept.handle, self._event.data)

    def failed(self) -> None:
        """It was wrong."""
        unkept.failed(self._engine, self._kept.handle)


class _Token:
    """The same from what the commit itself brings: a cookie that was found good, and the proposal.

    Whether the answer is the one that was given T(1) of the commit tells (MUST-43).
    """

    def __init__(self, strangers: Strangers, event: Event) -> None:
        """Raises ``AccordError``."""
        self._engine, self._event = strangers._engine, event
        value = None
        for node in unkept.read(self._engine, event.data):
            if node.id == NodeId.CONTEXT and node.stored:
                value = decode_descriptor(node.id, node.protocol, node.descriptor).tlv(TlvType.REPEAT)
        self._token, proposal = repeat.decode(value or b"")
        self.nodes = [unkept.FlightNode(node, protocol, bool(data), data) for node, protocol, data in proposal]

    def again(self, controller: Controller) -> Unkept | None:
        """The negotiation anew; None: what is said of the proposal is not what the engine would have made of it."""
        event = self._event
        assert event.path is not None
        known = {plugin.protocol for plugin in controller.plugins.values()}
        if any(node.stored != (node.protocol in known) for node in self.nodes if node.id != NodeId.CONTEXT):
            return None
        seed = unkept.token_seed(self._engine, event.path, event.transaction, self._token)
        return None if seed is None else Unkept(controller, event.transaction, event.path, seed, token=self._token)

    def same(self, attempt: Unkept) -> bool:
        """Of the cookie's proposal, and without secrets."""
        return not attempt.secured and attempt.proposal_hash[:_BOUND] == repeat.bound_of(self._token)

    def settle(self, sent: int) -> None:
        """The commit is verified."""
        path = self._event.path
        assert path is not None
        unkept.settle_token(self._engine, clock.now_us(), path, sent, self._event.data)

    def failed(self) -> None:
        """There is nothing to be given back."""
