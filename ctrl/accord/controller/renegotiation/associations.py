# SPDX-License-Identifier: Apache-2.0
"""All associations of a host that can be re-negotiated: those whose bytes pass through its daemon.

A kernel socket that was handed to a program cannot change under it. So bare TCP is not in here, unless the policy says
``renegotiate``: then the daemon stays between. TLS and QUIC, and all that is forwarded to a local service, pass
through it anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from accord.controller.race.racing import Won
from accord.controller.renegotiation.identity import NAME_BYTES, Identity
from accord.controller.renegotiation.initiator_end import InitiatorEnd, Origin
from accord.controller.renegotiation.lasting import LastingCarrier
from accord.controller.renegotiation.member import Member, Standing
from accord.controller.renegotiation.responder_end import ResponderEnd
from accord.controller.settings.policy import EffectivePolicy
from accord.datapath.path import Path
from accord.negotiation import events
from accord.negotiation.interface import Refuse, Role
from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import error

if TYPE_CHECKING:
    from accord.controller.controller import Controller
    from accord.controller.exposed import Exposed

log = logging.getLogger("accord.renegotiation")

_HANDLE_DIGITS = 8


class Associations:
    """Of one controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._members: dict[str, Member] = {}
        self._names: dict[bytes, Member] = {}
        """Those whose identity somebody has asked for: it costs two hashes, which most never need."""
        self._unnamed: set[Member] = set()
        self._notices: set[asyncio.Task[None]] = set()

    # ---- joining ----

    def initiated(self, won: Won, policy: EffectivePolicy, origin: Origin) -> tuple[Carrier, str]:
        """The stream of a negotiated stack, and the association's handle; the stream as it was, and no handle, where
        it goes to the program as a kernel socket."""
        negotiation, committed, carrier = won.negotiation, won.committed, won.carrier
        if negotiation is None or committed is None or (carrier.kernel_socket is not None and not policy.lasting):
            return carrier, ""
        if policy.inside.program_frames:  # the program's frames are those of this stack
            return carrier, ""
        lasting = _lasting(carrier, Role.INITIATOR, committed)
        handle = self._handle(negotiation.transaction)
        standing = Standing.of(committed, policy)
        self._add(InitiatorEnd(self._controller, handle, lasting, standing, origin, negotiation))
        return lasting, handle

    def accepted(
        self, exposed: Exposed, committed: events.Committed, carrier: Carrier, path: Path, peer: str, transaction: bytes
    ) -> tuple[Carrier, str]:
        """As ``initiated``, at the other end."""
        policy = exposed.policy
        if exposed.service is None and carrier.kernel_socket is not None and not policy.lasting:
            return carrier, ""
        if policy.inside.program_frames:
            return carrier, ""
        lasting = _lasting(carrier, Role.RESPONDER, committed)
        handle = self._handle(transaction)
        standing = Standing.of(committed, policy)
        self._add(ResponderEnd(self._controller, handle, peer, lasting, standing, exposed, path))
        return lasting, handle

    def _handle(self, transaction: bytes) -> str:
        digits = transaction.hex()
        length = _HANDLE_DIGITS
        while digits[:length] in self._members:
            length += 1
        return digits[:length]

    def _add(self, member: Member) -> None:
        self._members[member.handle] = member
        self._unnamed.add(member)
        member.carrier.on_moved = lambda: self._moved(member)
        member.carrier.on_replaced = lambda: self._renamed(member)
        member.carrier.on_ended = lambda: self._remove(member)

    def _moved(self, member: Member) -> None:
        self._renamed(member)
        member.on_moved()

    def _renamed(self, member: Member) -> None:
        self._forget_name(member)
        self._unnamed.add(member)

    def _remove(self, member: Member) -> None:
        self._members.pop(member.handle, None)
        self._forget_name(member)
        member.close()

    def _forget_name(self, member: Member) -> None:
        self._unnamed.discard(member)
        self._names.pop(member.name, None)

    # ---- being asked ----

    def admit(self, claim: bytes, transaction: bytes, port: int, *, notice: bool) -> ResponderEnd | Refuse:
        """Whom a message with RENEGOTIATES is about, ready to be given another stack; or what is answered.

        ``port``: that it asks for. ``notice``: it proposes no stack."""
        while self._unnamed:
            member = self._unnamed.pop()
            member.name = member.carrier.identity.name
            self._names[member.name] = member
        named = self._names.get(claim[:NAME_BYTES])
        if named is None:
            return Refuse(Reason.NO_ASSOCIATION)
        return named.admit(claim, transaction, port, notice=notice)

    def get(self, handle: str) -> Member:
        """Raises ``UserError`` (``BAD_CONFIG``) when there is none."""
        found = self._members.get(handle)
        if found is None:
            raise error(
                Reason.BAD_CONFIG,
                f"no association {handle!r} passes through this daemon",
                "accord status lists those that can be re-negotiated",
            )
        return found

    def all(self) -> Sequence[Member]:
        """In the order in which they came up."""
        return list(self._members.values())

    def rows(self, limit: int) -> list[dict[str, Any]]:
        """Of the last so many, for ``accord status``."""
        return [member.row() for member in list(self._members.values())[-limit:]]

    def __len__(self) -> int:
        return len(self._members)

    def policy_changed(self) -> None:
        """Those whose stack the policy no longer likes best, or forbids, are re-negotiated."""
        for member in self.all():
            member.judge()

    def see_to(self, notice: Coroutine[Any, Any, None]) -> None:
        """Have a peer told something, whatever becomes of the association that it is about."""
        task = asyncio.create_task(notice)
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)

    def close(self) -> None:
        """Begin no more changes."""
        for task in self._notices:
            task.cancel()
        for member in self.all():
            member.close()
        self._members.clear()


def _lasting(carrier: Carrier, role: Role, committed: events.Committed) -> LastingCarrier:
    return LastingCarrier(carrier, role, lambda: Identity.of(committed.sessions, committed.transcript))
