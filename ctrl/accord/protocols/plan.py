# SPDX-License-Identifier: Apache-2.0
"""What sessions of protocols have in common that only plan: each side reserves something of its kernel's, says in one
payload what the other one has to know of it, and the kernels do the rest after the commit, right on the context."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from accord.negotiation.interface import Answer, Outcome, Refuse, Role, View
from accord.protocols.lifecycle import Call
from accord.protocols.stream_layer import StreamLayer
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error


class Reserved(Protocol):
    """What of the host's is held for one node."""

    def release(self) -> None:
        """Give it back, if the stack has not taken it."""


R = TypeVar("R", bound=Reserved)


class Plan(StreamLayer, Generic[R]):
    """The part of ``Session`` that such protocols share. Of its own each has ``_service``, ``_said`` and ``_hear``."""

    def __init__(self, name: str, title: str, role: Role) -> None:
        super().__init__(name, role)
        self._title = title
        self._own: R | None = None

    def _service(self) -> R | None:
        """What is reserved anew; None: this host or its policy has no such thing. Raises ``AccordError``."""
        raise NotImplementedError

    def _said(self, own: R) -> bytes:
        """The own payload. A responder's is ready for what comes before the commit."""
        raise NotImplementedError

    def _hear(self, payload: bytes) -> None:
        """The other side's payload. Raises ``PeerError`` (HANDSHAKE_FAILED)."""
        raise NotImplementedError

    def propose(self, view: View) -> Outcome:
        """The own payload. Refuses where the kernel has none of it (NO_KERNEL_SUPPORT)."""
        self._life.enter(Call.PROPOSE)
        try:
            return Answer(self._said(self._reserve()))
        except AccordError as failure:
            return self._refuse(failure)

    def respond(self, view: View, payload: bytes) -> Outcome:
        """The initiator's payload in, the own out."""
        self._life.enter(Call.RESPOND)
        try:
            if view.below:
                raise error(Reason.HANDSHAKE_FAILED, f"{self._title}: runs on the context, not on another protocol")
            own = self._reserve()
            self._hear(payload)
            return Answer(self._said(own))
        except AccordError as failure:
            return self._refuse(failure)

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: the responder's payload in. Responder: nothing."""
        self._life.enter(Call.ADVANCE)
        try:
            if view.role is Role.INITIATOR:
                self._hear(payload)
            elif payload:
                raise error(
                    Reason.HANDSHAKE_FAILED, f"{self._title}: {len(payload)} bytes in the commit, which has none"
                )
        except AccordError as failure:
            return self._refuse(failure)
        return Answer()

    def prune(self, reason: Reason) -> None:
        """Give back what is reserved."""
        if self._life.leave():
            self._release()

    def abort(self, reason: Reason) -> None:
        """Give back what is reserved."""
        self.prune(reason)

    def _committed(self) -> R:
        """What the stack runs over from now on."""
        self._life.enter(Call.CARRIER)
        assert self._own is not None, "what is committed was reserved"
        return self._own

    def _reserve(self) -> R:
        self._release()  # of a candidate stack before this one
        own = self._service()
        if own is None:
            raise error(
                Reason.NO_KERNEL_SUPPORT,
                f"{self._title}: not on this host, or not in its policy",
                f"name {self._name} in prefer; accord doctor",
            )
        self._own = own
        return own

    def _release(self) -> None:
        if self._own is not None:
            self._own.release()

    def _refuse(self, failure: AccordError) -> Refuse:
        self._release()
        self._own = None
        return Refuse(failure.reason, f"{failure.detail} ({failure.mend})" if failure.mend else failure.detail)
