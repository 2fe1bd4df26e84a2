# SPDX-License-Identifier: Apache-2.0
"""Proposals and commits of whom the engine keeps nothing (docs/PROTOCOL.md, section 22).

    STRANGER   a whole proposal of a few packets   answer from a seed, no longer than that, and a slot: seed, proposal,
                                                   T(1). Whatever needs memory: a cookie is asked for.
    RETURNED   the commit of a slot, with T(1)     the answer is made again and thrown away; the commit decides

Until the commit is verified everything but the slot is forgotten. What is random comes from the seed alone, so a hidden
input shows as another T(1): then the commit is wrong, and nothing else is.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

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
from accord.wire.constants import Reason
from accord.wire.errors import AccordError

if TYPE_CHECKING:
    from accord.controller.controller import Controller

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
            answer = attempt.propose(nodes, sum(map(len, unkept.packets(proposal))))
            if answer is not None:
                self._send(attempt, answer, proposal, fresh=kept is None, seed=seed)
            elif attempt.why_deferred and kept is None:
                self._challenge(path, proposal, attempt.why_deferred)
        finally:
            attempt.forget()

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
        if attempt.answered and fresh:
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
        kept = unkept.slot_of(self._engine, clock.now_us(), event.handle)
        if kept is None or event.path is None:
            return  # a repetition: the one before it has emptied the slot
        begin = self._spent()
        try:
            self._commit(kept, event)
        finally:
            self._budget.spend(self._spent() - begin)

    def _commit(self, kept: unkept.Slot, event: Event) -> None:
        assert event.path is not None
        attempt = Unkept(self._controller, event.transaction, event.path, kept.seed, kept.kept)
        came = unkept.packets(kept.proposal)
        ladder = attempt.ladder
        ladder.note(Way.HERE, f"from {attempt.peer}")
        try:
            attempt.propose(unkept.read(self._engine, kept.proposal), sum(map(len, came)))
            commit = unkept.read(self._engine, event.data)
        except AccordError as wrong:
            log.info("%s: a commit that cannot be read: %s", attempt.peer, wrong)
            self._failed(attempt, kept)
            return
        if not attempt.answered or attempt.responder.hashed != kept.transcript:
            log.info(
                "%s: the answer cannot be made again: the configuration or a certificate has changed", attempt.peer
            )
            self._failed(attempt, kept)
            return
        ladder.note(Way.HERE, "step 0 proposal, answered without memory; the answer is made again")
        ladder.note(Way.IN, "step 2 commit")
        actions = attempt.commit(commit)
        if not attempt.responder.bound:
            self._failed(attempt, kept)
            return
        unkept.settle(self._engine, clock.now_us(), kept.handle, event.data)
        self.commits += 1
        self._controller.counts.proposed(event.syn_first)
        for action in actions:
            match action:
                case events.Note():
                    ladder.note(Way.HERE, action.text)
                case events.Send():
                    self._say(event, action, sent=kept.answer_packets, heard=len(came) + 1)
                case events.Committed():
                    ladder.note(Way.HERE, f"committed to {action.name}")
                    responding.committed(attempt, action)
                case events.Aborted():
                    self._controller.counts.failed(Role.RESPONDER, action.reason)
                    log.info("port %s, %s: %s", event.path.local_port, attempt.peer, action.error())

    def _say(self, event: Event, action: events.Send, *, sent: int, heard: int) -> None:
        assert event.path is not None
        for packet in unkept.compose(event.transaction, action.step, action.nodes, sent=sent, heard=heard):
            self._engine.send_once(event.path, packet)

    def _failed(self, attempt: Unkept, kept: unkept.Slot) -> None:
        """Nobody who has the keys made it: it has burnt one of a few tries, and is answered with silence."""
        attempt.forget()
        unkept.failed(self._engine, kept.handle)
