# SPDX-License-Identifier: Apache-2.0
"""A negotiation inside a node of another one (HotNets 2009, section 2.3, "Recursive Negotiation"), sans-IO.

The same two machines, with three differences. Their context is the node that they are inside of: its session, and those
that this one builds on, are below every session here. Its stacks count as secure, because that node is. And what was
agreed has no effect before the outer negotiation commits: ``commit`` is called for that, and ``Committed`` before only
says that nothing is left to be agreed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from accord.negotiation.choice import CandidateStack
from accord.negotiation.events import Committed
from accord.negotiation.graph import Graph, Stack, stack_name
from accord.negotiation.initiator import Initiator
from accord.negotiation.interface import Session, View
from accord.negotiation.machine import Machine
from accord.negotiation.responder import Responder
from accord.wire.constants import Step


class _Nested(Machine):
    """What both roles have in common."""

    outer: Sequence[Session] = ()
    """The session that this negotiation is inside of, then those below it, nearest first."""
    agreed: Committed | None = None
    """The stack, once nothing is left to be agreed."""
    _agreed_in: int = Step.COMMIT

    def commit(self) -> None:
        """The outer negotiation has committed. Raises the ``AccordError`` of a session that cannot."""
        assert self.agreed is not None, "an outer negotiation commits when the inner one is agreed"
        super()._commit(self.agreed.ids, self.agreed.protocols, self.agreed.transcript, self._agreed_in)

    def _commit(self, stack: Stack, protocols: Sequence[int], hashed: bytes, step: int) -> Committed:
        self._agreed_in = step
        sessions = tuple(self._sessions[node_id] for node_id in stack)
        self.agreed = Committed(stack, tuple(protocols), sessions, stack_name(protocols), hashed)
        return self.agreed

    def _candidate(self, graph: Graph, stack: Stack) -> CandidateStack:
        return replace(super()._candidate(graph, stack), secure=True)

    def _view(self, stack: Stack, node_id: int, step: int) -> View:
        view = super()._view(stack, node_id, step)
        return view._replace(below=(*view.below, *self.outer))


class NestedInitiator(_Nested, Initiator):
    """The initiator's side. Set ``outer`` before ``start``."""

    def _wide_view(self, graph: Graph, node_id: int, step: int) -> View:
        view = super()._wide_view(graph, node_id, step)
        return view._replace(below=(*view.below, *self.outer))


class NestedResponder(_Nested, Responder):
    """The responder's side. Set ``outer`` before the first event."""
