# SPDX-License-Identifier: Apache-2.0
"""Calling a row of sessions, each of which may answer, refuse, wait, defer or fail, without being hurt by any."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

from accord.negotiation.guard import UNGUARDED, Guard
from accord.negotiation.interface import Answer, Defer, Outcome, Refuse, Session, View, Wait
from accord.negotiation.schedule import Agenda
from accord.wire.constants import Reason
from accord.wire.errors import AccordError


class Call(NamedTuple):
    """One session to be asked. ``ask`` gets the view with the budget filled in."""

    id: int
    session: Session
    view: View
    ask: Callable[[View], Outcome]
    after: frozenset[int] = frozenset()
    """Not before the results of these nodes are there."""
    concludes: bool = True
    """An answer without ``more`` is the node's result on this side; a proposal is not."""
    defers: bool = True
    """May answer with ``Defer``."""

    @property
    def method(self) -> str:
        """What ``ask`` calls. Only ``propose`` is no result, and only ``advance`` may not defer."""
        if not self.defers:
            return "advance"
        return "respond" if self.concludes else "propose"


class Walk:
    """Asks sessions in order and keeps what they answer. A session that waits holds up those after it."""

    def __init__(
        self,
        calls: Sequence[Call],
        *,
        room: int,
        budget: int,
        stop_at_refusal: bool,
        after: Callable[[int], Refuse | None] | None = None,
        results: Collection[int] = (),
        needs: Callable[[int, frozenset[int]], frozenset[int]] | None = None,
    ) -> None:
        """``room``: payload bytes that fit into the message, more is a fault; ``budget``: what sessions are told
        that they may use, if that is less. ``after`` is called with the ID of each node whose session answered, for
        now or for good, and can refuse it. ``results``: nodes whose results are there already. ``needs``: node IDs
        for what a session defers to; none: it names nobody."""
        self.payloads: dict[int, bytes] = {}
        self.more: set[int] = set()
        """Those that answered and have more to say."""
        self.refused: dict[int, Refuse] = {}
        self.waiting: int | None = None
        """The node whose session waits; None: the walk is over."""
        self.why = ""
        """What it waits for."""
        self.guard: Guard = UNGUARDED
        self.admit: Callable[[Call], Refuse | None] | None = None
        """May refuse a node before its session is asked."""
        self._agenda = Agenda([(call.id, call, call.after) for call in calls], results)
        self._waits: Call | None = None
        self._again: set[int] = set()
        self._room = room
        self._budget = budget
        self._stop_at_refusal = stop_at_refusal
        self._after = after
        self._needs = needs
        self._confirm: dict[int, tuple[Session, Callable[[], Refuse | None]]] = {}

    def follow(self, before: Walk, kept: Collection[int]) -> None:
        """Before ``run``: what these nodes have answered in an earlier walk for the same message stands."""
        self.payloads.update({node_id: said for node_id, said in before.payloads.items() if node_id in kept})
        self.more |= before.more.intersection(kept)
        self._confirm.update({node_id: ask for node_id, ask in before._confirm.items() if node_id in kept})
        for node_id in before.results.intersection(kept):
            self._agenda.conclude(node_id)
        used = sum(map(len, self.payloads.values()))
        self._room -= used
        self._budget -= used

    @property
    def left(self) -> dict[int, frozenset[int]]:
        """After the walk: nodes whose sessions could not be asked, or defer, and what each lacks."""
        return self._agenda.left

    @property
    def results(self) -> set[int]:
        """Nodes that this side is done with, but for their last words."""
        return self._agenda.results

    def run(self) -> bool:
        """Go on until the end (True) or until a session waits (False)."""
        while self.waiting is None and (call := self._agenda.take()) is not None:
            outcome: Outcome | None = self.admit(call) if self.admit is not None else None
            self._take(call, outcome or self.guard.ask(call.session, call.method, partial(call.ask, self._view(call))))
        if self.waiting is not None:
            return False
        self._confirm_all()
        return True

    def _confirm_all(self) -> None:
        if self.refused and self._stop_at_refusal:
            return
        for node_id, (session, confirm) in self._confirm.items():
            verdict = self.guard.ask(session, "confirm", partial(_verdict, confirm))
            if not isinstance(verdict, Answer):
                del self.payloads[node_id]
                wrong = Refuse(Reason.PLUGIN_FAILED, f"confirmed with {verdict!r:.80}")
                self.refused[node_id] = verdict if isinstance(verdict, Refuse) else wrong

    def resume(self, node_id: int) -> bool:
        """Ask the waiting session again, then go on as ``run``. Another node's ID changes nothing."""
        if self.waiting is None or self.waiting != node_id or self._waits is None:
            return self.waiting is None
        self.waiting = None
        call, self._waits = self._waits, None
        self._take(call, self.guard.ask(call.session, "resume", partial(_resume, call.session, self._view(call))))
        return self.run()

    def _view(self, call: Call) -> View:
        view = call.view
        budget = max(0, min(self._room, self._budget))
        return View(view.role, view.step, view.node_id, view.below, view.above, budget)

    def _take(self, call: Call, outcome: Outcome) -> None:
        if isinstance(outcome, Answer):
            length = len(outcome.payload)
            if length > self._room:
                outcome = Refuse(Reason.PLUGIN_FAILED, f"{length} bytes of handshake, {self._room} have room")
            else:
                outcome = self._answered(call, outcome)
        elif isinstance(outcome, Wait):
            self.waiting, self.why, self._waits = call.id, outcome.detail, call
            return
        elif isinstance(outcome, Defer):
            after = self._needs(call.id, outcome.after) if call.defers and self._needs else frozenset()
            # What it needs may have come before it was asked for the first time: then it is asked again at once.
            if after and (not after <= self._agenda.results or call.id not in self._again):
                self._again.add(call.id)
                self._agenda.put_back(call.id, call, after)
                return
            outcome = Refuse(Reason.PLUGIN_FAILED, f"defers to {sorted(outcome.after)}, which nothing can come of")
        if isinstance(outcome, Refuse):
            self.payloads.pop(call.id, None)
            self._confirm.pop(call.id, None)
            self.refused[call.id] = outcome
            if self._stop_at_refusal:
                self._agenda.clear()

    def _answered(self, call: Call, answer: Answer) -> Outcome:
        self.payloads[call.id] = answer.payload
        if answer.confirm is not None:
            self._confirm[call.id] = call.session, answer.confirm
        self._room -= len(answer.payload)
        self._budget -= len(answer.payload)
        if answer.more:
            self.more.add(call.id)
        elif call.concludes:
            refusal = self._after(call.id) if self._after else None
            if refusal is not None:
                return refusal
            self._agenda.conclude(call.id)
        return answer


def _verdict(confirm: Callable[[], Refuse | None]) -> Outcome:
    refusal = confirm()
    return Answer() if refusal is None else refusal


def _resume(session: Session, view: View) -> Outcome:
    return session.resume(view)


def told(call: Callable[[], None]) -> Refuse | None:
    """Call what is not a session's for its effect. What went wrong, if anything did."""
    try:
        call()
    except AccordError as fault:
        return Refuse(fault.reason, fault.detail)
    except Exception as fault:
        return Refuse(Reason.PLUGIN_FAILED, f"{type(fault).__name__}: {fault}")
    return None
