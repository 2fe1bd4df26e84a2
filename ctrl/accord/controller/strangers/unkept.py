# SPDX-License-Identifier: Apache-2.0
"""One negotiation that is answered from a seed: each time it is made, it says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from accord.controller.exposed import Exposed
from accord.controller.ladder import Ladder
from accord.controller.responding import Answering
from accord.controller.stack import services_for
from accord.controller.strangers.seed import derive, stream
from accord.controller.strangers.standin import (
    Deferral,
    DeferredApplication,
    DeferredSession,
    DeferredTcp,
    UnkeptAdoptions,
)
from accord.controller.strangers.tls import HybridExchange, RepeatableAnswers
from accord.datapath import clock, unkept
from accord.datapath.path import Path
from accord.datapath.unkept import FlightNode
from accord.negotiation import events
from accord.negotiation.interface import Refuse, Role, Session
from accord.negotiation.responder import COOKIE_BYTES, Accepted, Responder, ResponderState
from accord.protocols.services import Plugin, Services, repeatable_of
from accord.wire.constants import CookieKind, NodeId, Packet, Reason, Step, TlvType
from accord.wire.errors import AccordError
from accord.wire.node import Node, decode_descriptor

if TYPE_CHECKING:
    from accord.controller.controller import Controller

_TOKEN: Final = int(Packet.COOKIE_BYTES)


class Unkept(Answering):
    """The answer to one proposal, of which nothing is kept; and, made again, the negotiation that its commit is of."""

    def __init__(
        self,
        controller: Controller,
        transaction: bytes,
        path: Path,
        seed: bytes,
        kept: bytes = b"",
        token: bytes = b"",
    ) -> None:
        """``path``: where the proposal came from; ``seed``: 32 bytes, of this proposal alone; ``kept``: what else was
        random when it was answered first; ``token``: the cookie of its REPEAT; empty: one that names this machine."""
        super().__init__(controller, transaction, path, Ladder(clock.now), None, self._ignore)
        self._seed, self._deferral = seed, Deferral()
        engine = controller.endpoint.engine
        self._token = kept[:_TOKEN] or token or unkept.token(engine, path, transaction, CookieKind.SLOT)
        self._exchange = HybridExchange(seed, kept[_TOKEN:])
        self.proposal_hash = b""
        """T(0)."""
        self.secured = False
        """The answer's stack has a security node: what it holds cannot be made from what others know."""
        self.responder: Responder = self.machine(derive(seed, b"cookie", length=COOKIE_BYTES))
        self.responder.repeat = self._repeat

    @property
    def why_deferred(self) -> str:
        """What needs memory; empty: nothing does."""
        return self._deferral.why

    @property
    def kept(self) -> bytes:
        """What was random in the answer and cannot be had from the seed again."""
        return self._token + self._exchange.kept

    def propose(self, nodes: Sequence[FlightNode], budget: int) -> events.Send | None:
        """The proposal in, the answer out, or the abort where there is no stack; None: silence, or deferred.

        ``budget``: bytes of descriptors that the answer may have.
        """
        actions = self._receive(Step.PROPOSAL, nodes, budget)
        answer = next((action for action in actions if isinstance(action, events.Send)), None)
        if self.responder.waiting is not None:
            self._deferral.defer("a session waits")
        if answer is not None and self.answered and decode_context(answer).continues:
            self._deferral.defer("another round trip")
        return None if self.why_deferred else answer

    @property
    def answered(self) -> bool:
        """The answer holds a stack."""
        return self.responder.state is ResponderState.ANSWERED

    def commit(self, nodes: Sequence[FlightNode]) -> Sequence[events.Action]:
        """The commit in; what follows from it."""
        return self._receive(Step.COMMIT, nodes, 0)

    def forget(self) -> None:
        """The answer has left: give up what it was made with, now and not when somebody finds the time."""
        self.responder.receive(events.Stop(Reason.CLOSED))

    def _receive(self, step: int, nodes: Sequence[FlightNode], budget: int) -> list[events.Action]:
        actions: list[events.Action] = []
        for node in nodes:
            if node.stored:
                actions += self.responder.receive(events.NodeArrived(step, node.id, node.protocol, node.descriptor))
            else:
                actions += self.responder.receive(events.NodeSkipped(step, node.id, node.protocol))
        return [*actions, *self.responder.receive(events.MessageComplete(step, budget))]

    def _repeat(self, proposal_hash: bytes, secured: bool) -> bytes:
        self.proposal_hash, self.secured = proposal_hash, secured
        return self._token

    def _ignore(self, event: events.Event) -> None:
        """Nobody waits for anything here, and who stops is asked when the commit is here."""

    # ---- Answering ----

    def accept(self, service: int | None) -> Accepted | Refuse:
        """As with memory, but for what cannot be made again."""
        proposed = self.responder.proposed
        assert proposed is not None, "what is to be accepted has come"
        why = ""
        if proposed.context.renegotiates is not None:
            why = "an association that changes"
        elif proposed.context.data_path is not None:
            why = "a connection from elsewhere"
        elif any(node.placeholder for node in proposed.nodes.values()):
            why = "a placeholder"
        elif proposed.context.tlv(TlvType.OUTLINE) is not None:
            why = "an outline"
        if why:
            return _refuse(self._deferral.defer(why))
        return super().accept(service)

    def places(self, exposed: Exposed, comes_from: str) -> UnkeptAdoptions | None:
        """Of which nothing is kept before the commit."""
        if exposed.adopter is None:
            return None
        return UnkeptAdoptions(exposed.adopter, self.transaction, comes_from, self.stop)

    def services(self, exposed: Exposed, local: tuple[str, int], remote: tuple[str, int], early_limit: int) -> Services:
        """The host, but for what would leave a trace on it; random numbers are the seed's."""
        assert self.offered is not None
        services = services_for(
            self.controller,
            Role.RESPONDER,
            local,
            remote,
            exposed.security,
            None,
            DeferredApplication(self._deferral, early_limit),
            adoptions=self.offered.places,
            wishes=exposed.policy.inside,
        )
        return replace(
            services,
            random=stream(self._seed, b"services"),
            tls=RepeatableAnswers(self._seed, self._deferral.defer, self._exchange),
            tcp=None if services.tcp is None else DeferredTcp(self._deferral),
        )

    def open(self, plugin: Plugin, services: Services) -> Session:
        """A session that answers without memory, or is deferred when it is asked to."""
        session = super().open(plugin, services)
        if repeatable_of(plugin):
            return session
        return cast(Session, DeferredSession(session, plugin.name, self._deferral))


def decode_context(message: events.Send) -> Node:
    """The context node of a message of ours."""
    _, protocol, descriptor = message.nodes[0]
    return decode_descriptor(NodeId.CONTEXT, protocol, descriptor)


def _refuse(failure: AccordError) -> Refuse:
    return Refuse(failure.reason, failure.detail)
