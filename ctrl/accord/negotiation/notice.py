# SPDX-License-Identifier: Apache-2.0
"""A message about an association that proposes no stack: the responder's wish for another one, or that a change is off.

It is a proposal of the context alone, with RENEGOTIATES, and is answered as every proposal without a stack is: with an
abort, whose reason is the answer.

READY       Nothing has been said.
SAID        The message is sent.
ABORTED     There is an answer, or there will be none.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import ClassVar, Final

from accord.negotiation.events import Action, Failed, MessageComplete, NodeArrived, NodeSkipped, Stop
from accord.negotiation.inbox import Inbox
from accord.negotiation.interface import Role
from accord.negotiation.machine import EVENT_KINDS, Machine, Table
from accord.wire import tlv
from accord.wire.constants import NodeId, Reason, Step
from accord.wire.errors import AccordError, error
from accord.wire.node import Node


class NoticeState(enum.Enum):
    """See the module's docstring."""

    READY = "ready"
    SAID = "said"
    ABORTED = "aborted"


_S = NoticeState
_HANDLED: Final[Table] = {
    (_S.READY, Failed): "_failed",
    (_S.READY, Stop): "_stop",
    (_S.SAID, NodeArrived): "_collect",
    (_S.SAID, NodeSkipped): "_collect",
    (_S.SAID, MessageComplete): "_message",
    (_S.SAID, Failed): "_failed",
    (_S.SAID, Stop): "_stop",
}


class Notice(Machine):
    """One of them: ``start`` once, then ``receive`` for each event. It always ends with ``Aborted``."""

    ROLE = Role.INITIATOR
    TABLE: ClassVar[Table] = {
        (state, kind): _HANDLED.get((state, kind), "_ignore") for state in NoticeState for kind in EVENT_KINDS
    }
    ABORTED = NoticeState.ABORTED

    def __init__(
        self, transaction: bytes, renegotiates: bytes, *, context_protocol: int, service_port: int | None = None
    ) -> None:
        """``renegotiates``: 48 bytes. ``service_port``: where the context has no ports."""
        super().__init__(transaction, context_protocol)
        self.state = NoticeState.READY
        service = () if service_port is None else (tlv.service(service_port),)
        self._node = Node(NodeId.CONTEXT, context_protocol, (), (*service, tlv.renegotiates(renegotiates)))

    def start(self) -> Sequence[Action]:
        """Say it."""
        if self.state is NoticeState.READY:
            self.state = NoticeState.SAID
            self._send(Step.PROPOSAL, [self._node])
        return self._take_actions()

    def _message(self, event: MessageComplete) -> None:
        abort = self._inboxes.get(event.step, Inbox(event.step)).abort
        if abort is None:
            raise error(Reason.NOT_PROPOSED, "an answer to a message that proposes nothing")
        self._abort_by_peer(abort)

    def _stop(self, event: Stop) -> None:
        self._abort(event.reason, event.detail)

    def _fault(self, fault: AccordError) -> None:
        if self.state is not NoticeState.ABORTED:
            self._abort(fault.reason, fault.detail)
