# SPDX-License-Identifier: Apache-2.0
"""What both roles' INNER sessions have in common: the machine inside, driven by the outer negotiation's calls."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import cast

from accord.negotiation import events
from accord.negotiation.interface import Answer, Outcome, Refuse, Role, Session, View, Wait
from accord.negotiation.nested import NestedInitiator, NestedResponder
from accord.protocols.alpn import ACCORD
from accord.protocols.lifecycle import Call, Lifecycle
from accord.protocols.sealed import messages
from accord.protocols.sealed.configuration import KeyConfiguration
from accord.protocols.sealed.messages import Binding
from accord.protocols.sealed.sealing import PAD_BYTES, TAG_BYTES, Channel
from accord.protocols.services import Carrier, CarrierSession, Fetch, Services
from accord.wire.constants import Limit, Protocol, Reason
from accord.wire.errors import AccordError, error
from accord.wire.message import Encoded

_LONGEST_HEAD = 512
"""Of SEALED beside what is sealed: ID, bindings; of MESSAGE less."""


class Nesting:
    """An INNER session without what tells the roles apart."""

    protocol: int = Protocol.INNER
    secure: bool = False
    costly: bool = True
    seals: bool = True
    """Messages of the sessions in it are for the peer alone, and sessions below it do not speak for those in it."""
    alpn: tuple[str, ...] = (ACCORD,)
    """What a security session below is to offer or accept: nothing that tells what is above."""

    def __init__(self, role: Role, services: Services, transaction: bytes, note: Callable[[str], None]) -> None:
        self._life = Lifecycle("inner", role)
        self._random = services.random
        self._transaction = transaction
        self._say = note
        self._machine: NestedInitiator | NestedResponder | None = None
        self._supported: Collection[int] | None = None
        self._channel: Channel | None = None
        self._owed: tuple[int, Sequence[Encoded]] | None = None
        self._then: Callable[[], Outcome] | None = None
        self._keys_bytes = 0
        self.key_learnt: KeyConfiguration | None = None
        """Initiator: what the peer is to be sealed to from now on, if it has said so."""

    # ---- what a negotiation asks of every session ----

    def propose(self, view: View) -> Outcome:
        """Raises ``OurError`` (PLUGIN_FAILED): not this role's."""
        raise error(Reason.PLUGIN_FAILED, "inner: a responder does not propose")

    def respond(self, view: View, payload: bytes) -> Outcome:
        """Raises ``OurError`` (PLUGIN_FAILED): not this role's."""
        raise error(Reason.PLUGIN_FAILED, "inner: an initiator does not respond")

    def advance(self, view: View, payload: bytes) -> Outcome:
        """The peer's next payload in, this side's next out."""
        raise NotImplementedError

    def resume(self, view: View) -> Outcome:
        """A session inside has what it waited for."""
        self._life.enter(Call.RESUME)
        machine, then = self._machine, self._then
        if machine is None or then is None or machine.waiting is None:
            raise error(Reason.PLUGIN_FAILED, "inner: resume without a wait")
        return self._after(machine.receive(events.Resume(machine.waiting)), then)

    def exporter(self) -> bytes | None:
        """None: what is sealed is known to be the peer's by the transcript of the negotiation around it."""
        return None

    def prune(self, reason: Reason) -> None:
        """Forget everything, in the inner negotiation too."""
        if self._life.leave():
            self._forget(reason)

    def abort(self, reason: Reason) -> None:
        """As ``prune``."""
        self.prune(reason)

    def commit(self, view: View) -> None:
        """The sessions inside commit now. Raises the ``AccordError`` of one that cannot."""
        self._life.enter(Call.COMMIT)
        if self._machine is None or self._machine.agreed is None:
            raise error(Reason.HANDSHAKE_FAILED, "inner: nothing was agreed")
        self._machine.commit()

    def carrier(self, below: Carrier | None) -> Carrier:
        """The stream of the topmost session inside, over the security node's."""
        self._life.enter(Call.CARRIER)
        carrier = below
        for session in self.nested:
            carrier = cast(CarrierSession, session).carrier(carrier)
        if carrier is None:
            raise error(Reason.PLUGIN_FAILED, "inner: no stream below to run over")
        return carrier

    # ---- what the application is told ----

    @property
    def nested(self) -> tuple[Session, ...]:
        """The sessions of the inner stack, bottom to top, once it is agreed."""
        agreed = self._machine.agreed if self._machine is not None else None
        return () if agreed is None else agreed.sessions

    @property
    def alpn_selected(self) -> str | None:
        """The application protocol that was agreed inside."""
        found = getattr(self.nested[-1], "alpn_selected", None) if self.nested else None
        return found if isinstance(found, str) else None

    @property
    def taken(self) -> bool:
        """The request that was sealed in the proposal was served."""
        return bool(self.nested and getattr(self.nested[-1], "taken", False))

    @property
    def fetch_taken(self) -> Fetch | None:
        """Responder: the request that the service is answering."""
        found: Fetch | None = getattr(self.nested[-1], "fetch_taken", None) if self.nested else None
        return found

    # ---- driving the machine ----

    def _begin(
        self, machine: NestedInitiator | NestedResponder, view: View, supported: Collection[int] | None = None
    ) -> None:
        self._machine, self._supported = machine, supported
        self._narrow(view)

    def _hear(self, message: bytes, view: View, then: Callable[[], Outcome]) -> Outcome:
        """An inner message of the peer's has come."""
        machine = self._machine
        assert machine is not None
        try:
            step, nodes = messages.decode_inner(message)
        except AccordError as failure:
            return refusal_of(failure)
        self._narrow(view)
        actions: list[events.Action] = []
        for node_id, protocol, descriptor in nodes:
            known = self._supported is None or protocol in (Protocol.INNER, *self._supported)
            arrived = events.NodeArrived(step, node_id, protocol, descriptor)
            actions += machine.receive(arrived if known else events.NodeSkipped(step, node_id, protocol))
        room = min(view.budget, Limit.MAX_MESSAGE_BYTES) - self.overhead(len(nodes))
        actions += machine.receive(events.MessageComplete(step, max(0, room)))
        return self._after(actions, then)

    def _narrow(self, view: View) -> None:
        """What the sessions inside are above: in the end, the stack that was chosen."""
        assert self._machine is not None
        outer: tuple[Session, ...] = (self, *view.below)
        self._machine.outer = outer

    def overhead(self, nodes: int) -> int:
        """Payload bytes that an inner message takes beside its descriptors, at most."""
        return _LONGEST_HEAD + PAD_BYTES + TAG_BYTES + messages.overhead(max(nodes, 8)) + self._keys_bytes

    def _after(self, actions: Sequence[events.Action], then: Callable[[], Outcome]) -> Outcome:
        """What the outer negotiation is to be told, given what the inner one wants done."""
        machine = self._machine
        assert machine is not None
        for action in actions:
            match action:
                case events.Send():
                    self._owed = (action.step, action.nodes)
                case events.Note():
                    self._note(action.text)
                case events.Aborted():
                    return Refuse(action.reason, f"inner: {action.detail}".rstrip(": "))
        if machine.waiting is not None:
            self._then = then
            return Wait("inner")
        self._then = None
        return then()

    def _message(self) -> bytes:
        """The inner message that is owed; empty when there is none."""
        owed, self._owed = self._owed, None
        return b"" if owed is None else messages.encode_inner(*owed)

    def _later(self, keys: bytes = b"") -> Outcome:
        """MESSAGE; nothing when there is nothing to be said. ``keys``: that the peer should seal to from now on."""
        assert self._channel is not None
        assert self._machine is not None
        message = self._message()
        if not message:
            return Answer()
        sealed = self._channel.seal(messages.encode_later(keys, message))
        return Answer(messages.encode_message(sealed))

    def _note(self, text: str) -> None:
        self._say(f"inner: {text}")

    def _forget(self, reason: Reason = Reason.NOT_PREFERRED) -> None:
        machine, self._machine = self._machine, None
        self._channel = self._owed = self._then = None
        if machine is None:
            return
        if machine.agreed is None:
            machine.receive(events.Stop(reason))
        else:  # its machine has nothing left to do, and does not know that it has no effect yet
            for session in machine.agreed.sessions:
                session.abort(reason)


def bindings_of(below: Sequence[Session]) -> tuple[Binding, ...]:
    """The security nodes that a message is sealed beside, each by its first handshake bytes."""
    hellos = [(session.protocol, getattr(session, "hello", b"")) for session in below if session.secure]
    return tuple(sorted({(protocol, digest(hello)) for protocol, hello in hellos if hello}))


def digest(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def refusal_of(failure: AccordError) -> Refuse:
    """An error as what a session answers."""
    return Refuse(failure.reason, failure.detail)
