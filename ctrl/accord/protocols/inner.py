# SPDX-License-Identifier: Apache-2.0
"""INNER: a whole negotiation, sealed, as a node above a security node (HotNets 2009, section 2.3).

                     the peer's key is known            it is not, or the guess was wrong
    step 0           SEALED: the inner proposal         ASK, or SEALED that does not open
    step 1           MESSAGE: the inner answer          KEYS
    step 2           MESSAGE: the inner commit          SEALED: the inner proposal
    step 3                                              MESSAGE: the inner answer
    step 4                                              MESSAGE: the inner commit

On the path everybody sees that there is an INNER node, and its length in steps of 256 bytes; what is in it only the two
ends. The security node below offers the ALPN name "accord" and no server name. KEYS is believed because the security
node vouches for it: the MAC over the transcript is verified before this session hears of the answer.

The inner proposal may carry a request (``http``), because nobody on the path can read it. It is served before the
initiator's address is proven, and whoever recorded the message can send it again: ``Offering.admit`` decides.
"""

from __future__ import annotations

from accord.negotiation.interface import Answer, Outcome, Refuse, Role, View
from accord.negotiation.nested import NestedInitiator, NestedResponder
from accord.negotiation.responder import COOKIE_BYTES
from accord.protocols.lifecycle import Call
from accord.protocols.sealed import messages
from accord.protocols.sealed.configuration import KeyConfiguration, best, decode_list
from accord.protocols.sealed.hosting import Offering, Proposing
from accord.protocols.sealed.messages import Kind
from accord.protocols.sealed.nesting import Nesting, bindings_of, digest, refusal_of
from accord.protocols.sealed.sealing import SECRET_BYTES, Channel, seal, unseal
from accord.protocols.services import Services
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, error


class InnerProposer(Nesting):
    """One INNER node, initiator."""

    def __init__(self, services: Services, host: Proposing) -> None:
        super().__init__(Role.INITIATOR, services, host.transaction, host.note)
        self._host = host
        self._sealed_to: KeyConfiguration | None = None
        self._asked_again = False
        self._proposal = b""
        """The inner one, which may have to be sealed a second time."""

    def propose(self, view: View) -> Outcome:
        """SEALED, or ASK where no key of the peer's is known."""
        self._life.enter(Call.PROPOSE)
        room = max(0, view.budget - self.overhead(0))
        machine = NestedInitiator(
            self._transaction, self._host.propose(), self._host.chooser, context_protocol=Protocol.INNER, budget=room
        )
        self._begin(machine, view)
        return self._after(machine.start(), lambda: self._first(view, self._host.key))

    def advance(self, view: View, payload: bytes) -> Outcome:
        """MESSAGE in, MESSAGE out; after KEYS, once, SEALED."""
        self._life.enter(Call.ADVANCE)
        try:
            kind = messages.kind_of(payload)
            if kind is Kind.KEYS:
                return self._seal_again(view, *messages.decode_keys(payload))
            if kind is not Kind.MESSAGE or self._channel is None:
                raise error(Reason.HANDSHAKE_FAILED, f"inner: {kind.name} in an answer")
            fresh, message = messages.decode_later(self._channel.unseal(payload[1:]))
            if fresh:
                self._learn(fresh)
        except AccordError as failure:
            return refusal_of(failure)
        return self._hear(message, view, self._later)

    def _first(self, view: View, key: KeyConfiguration | None) -> Outcome:
        """The inner proposal, sealed."""
        self._proposal = self._proposal or self._message()
        if key is None:
            self._note("the peer's key is not known: asking for it")
            return Answer(messages.encode_ask())
        secret = self._random(SECRET_BYTES)
        bindings = bindings_of(view.below)
        place = messages.about(self._transaction, view.node_id)
        contents = messages.encode_first(secret, self._host.now(), self._proposal)
        try:
            sealed = seal(key, messages.info(place, key.id, bindings, again=self._asked_again), contents)
        except AccordError as failure:
            return refusal_of(failure)
        self._sealed_to = key
        self._channel = Channel(Role.INITIATOR, key.aead, secret, sealed, place)
        return Answer(messages.encode_sealed(key.id, bindings, sealed), more=self._asked_again)

    def _seal_again(self, view: View, reason: int, keys: bytes) -> Outcome:
        if self._asked_again:
            raise error(Reason.WRONG_KEY, "inner: the peer does not open what was sealed to its own key")
        self._asked_again = True
        key = self._learn(keys)
        if key is None:
            raise error(Reason.WRONG_KEY, "inner: the peer has no key of an algorithm that is spoken here")
        if reason != Reason.OK and self._sealed_to is not None:
            self._note(f"{self._sealed_to.name} is not the peer's key (WRONG_KEY)")
        self._note(f"sealing to the key that the answer brought, {key.name}")
        return self._first(view, key)

    def _learn(self, keys: bytes) -> KeyConfiguration | None:
        """What the peer says, under the security node's authentication, that it is to be sealed to."""
        try:
            key = best(decode_list(keys), self._host.now())
        except ValueError as wrong:
            raise error(Reason.HANDSHAKE_FAILED, f"inner: {wrong}") from wrong
        if key is not None:
            self.key_learnt = key
        return key


class InnerResponder(Nesting):
    """One INNER node, responder."""

    def __init__(self, services: Services, host: Offering) -> None:
        super().__init__(Role.RESPONDER, services, host.transaction, host.note)
        self._host = host

    def respond(self, view: View, payload: bytes) -> Outcome:
        """MESSAGE, or KEYS when nothing was sealed, or not to one of this host's keys."""
        self._life.enter(Call.RESPOND)
        self._forget()
        if not any(session.secure for session in view.below):
            return Refuse(Reason.INSECURE, "inner: no security node below to vouch for the keys")
        try:
            kind = messages.kind_of(payload)
            if kind is Kind.SEALED:
                return self._unseal(view, payload, again=False)
            if kind is not Kind.ASK:
                raise error(Reason.HANDSHAKE_FAILED, f"inner: {kind.name} in a proposal")
            reason = Reason.OK
        except AccordError as failure:
            if failure.reason is not Reason.WRONG_KEY:
                return refusal_of(failure)
            self._note(f"not opened: {failure.detail}")
            reason = Reason.WRONG_KEY
        return Answer(messages.encode_keys(reason, self._host.keys.published_bytes), more=True)

    def advance(self, view: View, payload: bytes) -> Outcome:
        """MESSAGE; before the first one, SEALED to a key that the answer has brought."""
        self._life.enter(Call.ADVANCE)
        try:
            if self._channel is None:
                return self._unseal(view, payload, again=True)
            if messages.kind_of(payload) is not Kind.MESSAGE:
                raise error(Reason.HANDSHAKE_FAILED, "inner: no MESSAGE where one was due")
            fresh, message = messages.decode_later(self._channel.unseal(payload[1:]))
            if fresh:
                raise error(Reason.HANDSHAKE_FAILED, "inner: an initiator has no keys to publish")
        except AccordError as failure:
            return refusal_of(failure)
        return self._hear(message, view, self._later)

    def _unseal(self, view: View, payload: bytes, *, again: bool) -> Outcome:
        """Raises ``PeerError``: WRONG_KEY when it does not open, HANDSHAKE_FAILED when it is not sound."""
        if messages.kind_of(payload) is not Kind.SEALED:
            raise error(Reason.HANDSHAKE_FAILED, "inner: nothing sealed")
        found = messages.decode_sealed(payload)
        key = self._host.keys.find(found.key_id)
        if key is None:
            raise error(Reason.WRONG_KEY, f"inner: no key {found.key_id.hex()} here")
        if not set(bindings_of(view.below)) <= set(found.bindings):
            raise error(Reason.HANDSHAKE_FAILED, "inner: sealed beside another handshake than this")
        place = messages.about(self._transaction, view.node_id)
        info = messages.info(place, found.key_id, found.bindings, again=again)
        contents = unseal(key.configuration, key.private, info, found.sealed)
        secret, sealed_at, message = messages.decode_first(contents)
        # After KEYS the message answers one of ours, which nobody can have again.
        first = again or self._host.admit(digest(found.sealed), sealed_at)
        if not first:
            self._note("may have come before, so no request of it is served early (REPLAYED)")
        accepted = self._host.accept(first)
        if isinstance(accepted, Refuse):
            return accepted
        self._channel = Channel(Role.RESPONDER, key.configuration.aead, secret, found.sealed, place)
        fresh = b"" if key.configuration in self._host.keys.published else self._host.keys.published_bytes
        self._keys_bytes = len(fresh)
        cookie = self._random(COOKIE_BYTES)
        machine = NestedResponder(self._transaction, lambda _: accepted, cookie, context_protocol=Protocol.INNER)
        self._begin(machine, view, supported=self._host.supported)
        return self._hear(message, view, lambda: self._later(fresh))


class InnerPlugin:
    """INNER, found as ``inner``."""

    name: str = "inner"
    protocol: int = Protocol.INNER

    def open(self, role: Role, services: Services) -> InnerProposer | InnerResponder:
        """A session for one node of one negotiation. Raises ``OurError`` (PLUGIN_FAILED) where the host has no keys."""
        host = services.inner
        if isinstance(host, Proposing):
            return InnerProposer(services, host)
        if isinstance(host, Offering):
            return InnerResponder(services, host)
        raise error(Reason.PLUGIN_FAILED, "inner: this host gives no inner negotiations")
