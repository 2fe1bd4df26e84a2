# SPDX-License-Identifier: Apache-2.0
"""TCP by a parallel SYN: one SYN leaves beside the proposal, and its connection becomes the negotiated node.

It works wherever TCP does, behind address translators and strict firewalls too, and if the negotiation comes to
nothing the same connection is the plain one. The responder finds it by the transaction ID: in the option of the SYN,
or, when the SYN-ACK did not say that the option had been understood (the mark), by how the stream begins: with the
*preface*, the same 16 bytes, or with the proposal's own ClientHello, which is a plain connection's beginning too and so
may be said before anybody knows whether there will be an answer (docs/PROTOCOL.md, section 9.1).

The kernels have settled TCP's options between them, by SYN and SYN-ACK. What the policies say of them (``tcp_wishes``)
is exchanged all the same, and the initiator, who has the connection before it commits, sees whether it is as they say.

The initiator commits when it has both the answer and the SYN-ACK, so the session waits in ``advance`` until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from accord.negotiation.interface import Answer, Outcome, Refuse, Role, View, Wait
from accord.protocols.services import Adoption, Carrier, Services, SynConnection
from accord.protocols.tcp_agreement import Agreement
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError
from accord.wire.tcp_option import OPTION_BYTES

FROM_FIRST_BYTE: Final = b"\x00"
BEHIND_PREFACE: Final = b"\x01"
WITH_WISHES: Final = b"\x00\x00"
"""In front of ADOPT and WISHES."""


class AdoptedTcp:
    """``TcpWay``: the initiator's SYN opened the connection."""

    def __init__(self, role: Role, services: Services) -> None:
        self._role = role
        self._services = services
        self._behind_preface: bool | None = None
        """None: not agreed yet."""
        self._adoption: Adoption | None = None
        self._stream: Carrier | None = None
        self._committed = False
        self._agreement = Agreement(services)

    @property
    def inside(self) -> Mapping[str, object]:
        """What the kernel says of the connection."""
        return self._agreement.inside

    def propose(self, view: View) -> Outcome:
        """Initiator: the SYN's option."""
        syn = self._syn()
        if syn.failure is not None:
            return _refuse(syn.failure)
        try:
            wishes = self._agreement.begin()
        except AccordError as refusal:
            return _refuse(refusal)
        return Answer(WITH_WISHES + syn.option + wishes if wishes else syn.option)

    def respond(self, view: View, payload: bytes) -> Outcome:
        """Responder: keep a place for the connection, and say so with the same option."""
        adoptions = self._services.adoptions
        if adoptions is None:
            return Refuse(Reason.NOT_ADOPTABLE, "TCP: nothing of ours listens on this port")
        wishes = payload.removeprefix(WITH_WISHES)
        if not wishes.startswith(adoptions.option):
            return Refuse(Reason.HANDSHAKE_FAILED, "TCP: the option does not name this negotiation")
        try:
            verdict = self._agreement.answer(wishes[OPTION_BYTES:])
            self._adoption = adoptions.expect()
        except AccordError as refusal:
            return _refuse(refusal)
        return Answer(WITH_WISHES + adoptions.option + verdict if verdict else adoptions.option)

    def greeted_by(self, hello: bytes) -> None:
        """Responder: the ClientHello of the node above. Raises ``AccordError`` (LEGACY_FIRST)."""
        if self._adoption is not None:
            self._adoption.greeted_by(hello)

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: waits for the SYN-ACK, then says where the stream begins. Responder: is told."""
        if self._role is Role.INITIATOR:
            verdict = payload.removeprefix(WITH_WISHES)
            if not verdict.startswith(self._syn().option):
                return Refuse(Reason.HANDSHAKE_FAILED, "TCP: the answer is not to the SYN that was proposed")
            try:
                self._agreement.conclude(verdict[OPTION_BYTES:])
            except AccordError as refusal:
                return _refuse(refusal)
            return self.resume(view)
        if payload not in (FROM_FIRST_BYTE, BEHIND_PREFACE):
            return Refuse(Reason.HANDSHAKE_FAILED, f"TCP: {payload[:8].hex() or 'nothing'} in the commit")
        self._behind_preface = payload == BEHIND_PREFACE
        return Answer()

    def resume(self, view: View) -> Outcome:
        """Initiator: ``Wait`` while there is no SYN-ACK."""
        syn = self._syn()
        if syn.failure is not None:
            return _refuse(syn.failure)
        if not syn.connected:
            return Wait("the SYN's connection")
        if not self._agreement.silent:
            try:
                self._agreement.check(syn.options())
            except AccordError as refusal:
                return _refuse(refusal, 'the kernels agree on it by the SYN: tcp = "no-syn" lets Accord do it')
        # A first byte that tells an adopted stream from a plain one: TLS in a node leaves application data for the
        # stream, plain TLS begins with a handshake record. Any other protocol may begin with anything.
        tells = bool(view.above) and view.above[0].protocol == Protocol.TLS13
        if syn.greeted and not tells:
            return Refuse(Reason.LEGACY_FIRST, "TCP: TLS has begun on the connection, and is not in the answer")
        self._behind_preface = syn.greeted or not (syn.marked and tells)
        return Answer(BEHIND_PREFACE if self._behind_preface else FROM_FIRST_BYTE)

    def commit(self, view: View) -> None:
        """Initiator: take the connection, preface first. Responder: claim it. Raises ``AccordError``."""
        if self._committed:
            return
        if self._behind_preface is None:
            raise RuntimeError("commit of a TCP session that has no agreed beginning of its stream")
        if self._role is Role.INITIATOR:
            syn = self._syn()
            self._stream = syn.take(syn.option if self._behind_preface and not syn.greeted else b"")
        else:
            assert self._adoption is not None, "a commit without an answer"
            self._adoption.claim(behind_preface=self._behind_preface)
        self._committed = True

    def carrier(self, below: Carrier | None) -> Carrier:
        """The connection's stream, once."""
        if not self._committed or (self._stream is None and self._adoption is None):
            raise RuntimeError("a TCP session has a stream only after commit, and only one")
        stream, self._stream = self._stream, None
        adoption, self._adoption = self._adoption, None
        if stream is None:
            assert adoption is not None
            stream = adoption.carrier()
        return self._agreement.tune(stream)

    def drop(self) -> None:
        """Give the place up. The initiator's connection stays with whoever opened it, unless it was taken."""
        stream, self._stream = self._stream, None
        adoption, self._adoption = self._adoption, None
        if stream is not None:
            stream.abort()
        if adoption is not None:
            adoption.release()

    def give_up(self) -> None:
        """As ``drop``: the kernel's own connection needs nobody to be told."""
        self.drop()

    def _syn(self) -> SynConnection:
        assert self._services.syn is not None, "an initiator adopts only what it is given"
        return self._services.syn


def _refuse(failure: AccordError, mend: str = "") -> Refuse:
    mend = failure.mend or mend
    return Refuse(failure.reason, f"{failure.detail} ({mend})" if mend else failure.detail)
