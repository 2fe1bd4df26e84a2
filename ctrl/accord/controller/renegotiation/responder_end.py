# SPDX-License-Identifier: Apache-2.0
"""The responder's end of an association: it answers, and may wish."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from accord.controller.exposed import Exposed
from accord.controller.renegotiation.identity import Identity
from accord.controller.renegotiation.lasting import LastingCarrier
from accord.controller.renegotiation.member import Member, Standing, strict
from accord.controller.renegotiation.notices import notify
from accord.controller.settings.policy import EffectivePolicy
from accord.datapath.path import Path
from accord.negotiation import events
from accord.negotiation.interface import Refuse, Role
from accord.protocols.services import Carrier
from accord.wire.constants import Reason
from accord.wire.errors import error

if TYPE_CHECKING:
    from accord.controller.controller import Controller

_WISH_SECONDS: Final = 20.0
"""From the initiator's word that it will propose to the change."""


class ResponderEnd(Member):
    """See the module's docstring."""

    def __init__(
        self,
        controller: Controller,
        handle: str,
        peer: str,
        carrier: LastingCarrier,
        standing: Standing,
        exposed: Exposed,
        path: Path,
    ) -> None:
        """``path``: of the initiator's proposal, where its context is."""
        self.exposed: Final = exposed
        self._path = path
        self._next_path = path
        super().__init__(controller, handle, peer, carrier, standing)

    def policy_now(self) -> EffectivePolicy:
        """As for a new connection to the port."""
        return self.exposed.policy

    @property
    def chooser(self) -> EffectivePolicy:
        """What chooses the next stack."""
        return strict(self.policy_now(), self.standing)

    def admit(self, claim: bytes, transaction: bytes, port: int, *, notice: bool) -> ResponderEnd | Refuse:
        """The initiator proposes another stack, or says that the change is off."""
        identity, carrier = self.carrier.identity, self.carrier
        off = carrier.following if notice else None
        unknown = Refuse(Reason.NO_ASSOCIATION)
        if (notice and off is None) or not identity.proves(claim, Role.INITIATOR, transaction, off):
            return unknown
        if port != self.exposed.port or self.exposed.closed or not self.fresh(transaction):
            return unknown
        if notice:
            carrier.called_off()
            return Refuse(Reason.CLOSED, "the change is off")
        return self if carrier.begin() else Refuse(Reason.RENEGOTIATING)

    async def attempt(self, wishes: Mapping[str, Any]) -> None:
        """Ask the initiator, which proposes; this host's policy then chooses."""
        if wishes:
            raise error(
                Reason.BAD_CONFIG,
                f"association {self.handle} was begun by the peer, which proposes",
                "change this host's policy for the port, or ask at the other end",
            )
        generation, identity = self.carrier.generation, self.carrier.identity
        answer = await notify(self._controller, self._path, lambda given: identity.claim(Role.RESPONDER, given))
        if answer is not Reason.RENEGOTIATING:
            raise error(answer, f"{self.peer} does not propose another stack")
        try:
            async with asyncio.timeout(_WISH_SECONDS):
                await self.carrier.past(generation)
        except TimeoutError:
            why = self.carrier.failure
            raise why or error(Reason.TIMEOUT, f"{self.peer} said that it would propose, and did not") from None
        await self.changed(generation)

    def up(self, committed: events.Committed, carrier: Carrier, path: Path) -> None:
        """What was admitted is committed here."""
        self.expect(Standing.of(committed, self.policy_now()))
        self._next_path = path
        self.carrier.came_up(carrier, Identity.of(committed.sessions, committed.transcript))

    def moved(self) -> None:
        """The initiator's context is where the proposal for this stack came from."""
        self._path = self._next_path
