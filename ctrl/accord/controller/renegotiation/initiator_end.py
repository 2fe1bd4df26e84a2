# SPDX-License-Identifier: Apache-2.0
"""The initiator's end of an association: it proposes."""

from __future__ import annotations

import dataclasses
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from accord.controller.ladder import Ladder
from accord.controller.negotiating import Negotiation, route
from accord.controller.prepared import Target
from accord.controller.proposal import tcp_open
from accord.controller.race.racing import Contest, Won
from accord.controller.renegotiation.identity import Identity
from accord.controller.renegotiation.lasting import LastingCarrier
from accord.controller.renegotiation.member import Member, Standing, strict
from accord.controller.renegotiation.notices import notify
from accord.controller.settings.policy import Context, Early, EffectivePolicy, Fallback, TcpOpen
from accord.datapath import clock
from accord.datapath.path import NO_SOCKET, Path
from accord.negotiation.interface import Refuse, Role
from accord.protocols.sealed.configuration import KeyConfiguration, best
from accord.protocols.services import Carrier, Security
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, error

if TYPE_CHECKING:
    from accord.controller.controller import Controller

log = logging.getLogger("accord.renegotiation")


_KEPT_WISHES: Final = ("renegotiate", "renegotiate_s")


@dataclass(frozen=True, slots=True)
class Origin:
    """What the program asked for, and where that was."""

    host: str
    port: int
    address: str
    wishes: Mapping[str, Any]
    security: Security


class InitiatorEnd(Member):
    """See the module's docstring."""

    def __init__(
        self,
        controller: Controller,
        handle: str,
        carrier: LastingCarrier,
        standing: Standing,
        origin: Origin,
        negotiation: Negotiation,
    ) -> None:
        self._origin = origin
        self._asked: Origin | None = None
        self._context = negotiation
        """The one that led to the stack: where its context stays, the responder's wishes arrive."""
        self._next_context: Negotiation | None = None
        carrier.on_called_off = self._call_off
        super().__init__(controller, handle, f"{origin.address} port {origin.port}", carrier, standing)
        if standing.policy.lasting:
            negotiation.keep()
        self._give_up, negotiation.exchange.on_refused = negotiation.exchange.on_refused, self._refused
        if negotiation.exchange.refused is not None:  # in the turn of the loop in which the commit left
            self._refused(negotiation.exchange.refused)

    def policy_now(self) -> EffectivePolicy:
        """As for a new connection; but what the program once asked for gives way to what the file says by now."""
        try:
            return self._policy_for(self._origin)
        except AccordError:
            kept = {key: wish for key, wish in self._origin.wishes.items() if key in _KEPT_WISHES}
            return self._policy_for(dataclasses.replace(self._origin, wishes=kept))

    def admit(self, claim: bytes, transaction: bytes, port: int, *, notice: bool) -> Refuse:
        """The responder wishes another stack; the answer says that it will be proposed."""
        known = notice and self.carrier.identity.proves(claim, Role.RESPONDER, transaction)
        if not known or not self.fresh(transaction):
            return Refuse(Reason.NO_ASSOCIATION)
        log.info("%s: %s asks for another stack", self.handle, self.peer)
        self.renegotiate()
        return Refuse(Reason.RENEGOTIATING, "a proposal follows")

    async def attempt(self, wishes: Mapping[str, Any]) -> None:
        """Propose, and change over to what comes of it."""
        carrier, generation = self.carrier, self.carrier.generation
        asked = dataclasses.replace(self._origin, wishes={**self._origin.wishes, **wishes})
        policy = self._policy_for(asked) if wishes else self.policy_now()
        if not carrier.begin():
            raise error(Reason.RENEGOTIATING, f"association {self.handle}")
        try:
            won = await self._negotiate(asked, strict(policy, self.standing), carrier.identity)
        except BaseException as failure:
            known = isinstance(failure, AccordError)
            carrier.failed(failure if known else error(Reason.PLUGIN_FAILED, repr(failure)))  # type: ignore[arg-type]
            raise
        negotiation, committed = won.negotiation, won.committed
        assert negotiation is not None
        assert committed is not None
        self.expect(Standing.of(committed, policy))
        self._asked, self._next_context = asked, negotiation
        if policy.lasting:
            negotiation.keep()
        carrier.came_up(won.carrier, Identity.of(committed.sessions, committed.transcript))
        try:
            await self.changed(generation)
        finally:
            if carrier.generation == generation:
                negotiation.let_go()

    def _refused(self, failure: AccordError) -> None:
        """The peer has refused the commit after all. Where it came to another machine than the answer, nobody has the
        stack, and there is another way to it: to propose again. But anybody on the path can say so, and a request must
        not travel twice: so that is done, once, where nothing has been said yet (PROTOCOL.md, section 22.1)."""
        again = failure.reason is Reason.OTHER_MACHINE and self.carrier.begin_anew(self._anew)
        if again:
            log.info("%s, %s: %s: proposed again", self.handle, self.peer, failure)
        elif self._give_up is not None:
            self._give_up(failure)

    async def _anew(self) -> tuple[Carrier, Identity]:
        standing, policy = self.standing, self.policy_now()
        won = await self._negotiate(self._origin, strict(policy, standing), None)
        negotiation, committed = won.negotiation, won.committed
        assert negotiation is not None
        assert committed is not None
        self.standing = Standing.of(committed, policy)
        if self.standing.names != standing.names:  # the program has been told what it has
            self._controller.losers.retire(won.carrier)
            now, before = "/".join(self.standing.names), "/".join(standing.names)
            raise error(Reason.NO_COMMON_STACK, f"another machine has {now}, not {before}")
        self._context.let_go()
        self._context = negotiation
        if policy.lasting:
            negotiation.keep()
        return won.carrier, Identity.of(committed.sessions, committed.transcript)

    async def _negotiate(self, asked: Origin, policy: EffectivePolicy, renews: Identity | None) -> Won:
        controller = self._controller
        policy = dataclasses.replace(policy, fallback=Fallback.NEVER, early=Early.NEVER)
        source, mtu = route(asked.address, asked.port)
        lesson = controller.lessons.of(asked.address, asked.port, source)
        security = asked.security
        if policy.inside.alpn:
            security = dataclasses.replace(security, alpn=policy.inside.alpn)
        key: KeyConfiguration | None = None
        if policy.hides:
            known = (*policy.keys, *lesson.keys(security.server_name or ""))
            key = best(known, controller.recursion.wall())
        target = Target(
            source,
            asked.address,
            asked.port,
            policy,
            security,
            mtu,
            tcp_open(controller.plugins, policy, works=bool(lesson.known.no_syn)) is TcpOpen.PARALLEL_SYN,
            renews,
            key,
        )
        won = await Contest(controller, target, lesson, b"", Ladder(clock.now)).run()
        if won.negotiation is None or won.committed is None:
            controller.losers.retire(won.carrier)
            raise error(Reason.NO_COMMON_STACK, "only a plain connection was to be had")
        return won

    def moved(self) -> None:
        """The old context is needed no longer."""
        assert self._next_context is not None
        assert self._asked is not None
        self._context.let_go()
        self._context, self._next_context = self._next_context, None
        self._origin = self._asked

    def _call_off(self, following: Identity) -> None:
        # The association may end before it has arrived, and the responder wants to know all the same.
        self._controller.associations.see_to(self._tell_off(following))

    async def _tell_off(self, following: Identity) -> None:
        identity, origin = self.carrier.identity, self._origin
        direct = self.standing.policy.context is Context.DIRECT
        try:
            source, mtu = route(origin.address, origin.port)
            remote, _, zone = origin.address.partition("%")
            path = Path(
                family=6 if ":" in origin.address else 4,
                context=int(Protocol.DIRECT if direct else Protocol.UDP),
                local=source.partition("%")[0],
                local_port=0,
                remote=remote,
                remote_port=0 if direct else origin.port,
                socket=NO_SOCKET,
                scope=socket.if_nametoindex(zone) if zone and not zone.isdecimal() else int(zone or 0),
                mtu=mtu,
            )
            await notify(
                self._controller,
                path,
                lambda transaction: identity.claim(Role.INITIATOR, transaction, following),
                origin.port if direct else None,
            )
        except (AccordError, OSError) as failure:
            log.info("%s, %s: could not say that the change is off: %s", self.handle, self.peer, failure)

    def _policy_for(self, origin: Origin) -> EffectivePolicy:
        return self._controller.policy_for(origin.host, origin.port, origin.address, origin.wishes)

    def close(self) -> None:
        """As ``Member.close``; the context is given back."""
        super().close()
        self._context.let_go()
