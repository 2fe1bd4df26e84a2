# SPDX-License-Identifier: Apache-2.0
"""TLS 1.3 (RFC 8446) as a node of a negotiation, and as a plain protocol over a stream.

    proposal    ClientHello                                                 record layer and all, as on TCP
    answer      ServerHello, ChangeCipherSpec, EncryptedExtensions, Certificate, CertificateVerify, Finished
    commit      ChangeCipherSpec, Finished

So the bytes in the nodes are those of a TLS connection over TCP, moved; after commit the same connection goes on
over the carrier below, session tickets first. A HelloRetryRequest (RFC 8446 section 4.1.4) takes a round trip more:

    answer      HelloRetryRequest, ChangeCipherSpec      step 3     the server's whole flight
    step 2      ChangeCipherSpec, ClientHello            commit     Finished

OpenSSL sends shares for X25519MLKEM768 and X25519, and prefers them, so that happens only with a peer that has neither
or wants another.

The initiator verifies the certificate before it commits. The responder does not authenticate the initiator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from accord.negotiation.interface import Answer, Elaboration, Outcome, Refuse, Role, View
from accord.protocols.alpn import offered_by_accord, taken_by_accord, wanted
from accord.protocols.lifecycle import Call, Lifecycle, Phase
from accord.protocols.services import Carrier, KernelTls, Security, Services, TlsEnd
from accord.protocols.simultaneous import Simultaneous
from accord.protocols.tls_carrier import TlsCarrier
from accord.protocols.tls_connection import TlsConnection, is_retry
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, error

_READ_BYTES = 65536


class TlsSession:
    """One TLS node."""

    protocol: int = Protocol.TLS13
    secure: bool = True
    costly: bool = True
    elaboration: Elaboration = Elaboration.FREE

    def __init__(self, role: Role, services: Services) -> None:
        self._security = services.security
        self._repeatable = services.tls
        self._kernel = services.kernel_tls if services.wishes.kernel_tls else None
        self._kernel_says: str | None = None
        self._life = Lifecycle("tls", role)
        self._retried = False
        self._tls: TlsEnd | None = None
        self._client: TlsConnection | None = None
        self.hello = b""
        """The ClientHello, once it is known."""
        self._answered = False

    @property
    def begun(self) -> TlsConnection | None:
        """Initiator: the connection that ``hello`` begins, before there is an answer to it: it can go on over a stream
        on which ``hello`` has been said, if the negotiation does not, as long as this session is ``fresh``."""
        return self._client if self._life.phase is Phase.PROPOSED else None

    @property
    def fresh(self) -> bool:
        """Initiator: no answer was given to it."""
        return not self._answered

    @property
    def alpn_selected(self) -> str | None:
        """The application protocol that the handshake agreed upon, once it has."""
        return self._tls.alpn if self._tls is not None else None

    @property
    def inside(self) -> Mapping[str, object]:
        """What was agreed; empty before anything was. ``kernel``: where the records are made, if that was a wish."""
        if self._tls is None:
            return {}
        return {**self._tls.inside, **({} if self._kernel_says is None else {"kernel": self._kernel_says})}

    def propose(self, view: View) -> Outcome:
        """The ClientHello. Refuses with ``BAD_CONFIG`` when this side's files cannot be used."""
        self._life.enter(Call.PROPOSE)
        try:
            names = wanted(view.above, self._security.alpn)
            self._tls = self._client = begin(self._security, names, keep_secrets=self._kernel is not None)
        except AccordError as failure:
            return self._refuse(failure.reason, failure.detail)
        self.hello = self._tls.output()
        return Answer(self.hello)

    def respond(self, view: View, payload: bytes) -> Outcome:
        """ClientHello in, the server's whole flight out."""
        self._life.enter(Call.RESPOND)
        self.hello = payload
        if not view.below:
            return self._refuse(Reason.HANDSHAKE_FAILED, "TLS: no stream below to run over")
        try:
            self._tls, flight = self._flight(wanted(view.above, self._security.alpn), payload)
            tell_below(view, payload)
        except AccordError as failure:
            return self._refuse(failure.reason, failure.detail)
        if is_retry(flight):
            self._retried = True
            return Answer(flight, more=True)
        if self._tls.exporter() is None:
            return self._refuse(Reason.HANDSHAKE_FAILED, f"TLS: no whole ClientHello in {len(payload)} bytes")
        return Answer(flight)

    def _flight(self, alpn: tuple[str, ...], hello: bytes) -> tuple[TlsEnd, bytes]:
        if self._repeatable is not None:
            return self._repeatable.answer(self._security, alpn, hello)
        made = TlsConnection(Role.RESPONDER, self._security, alpn, keep_secrets=self._kernel is not None)
        made.feed(hello)
        made.handshake()
        return made, made.output()

    def resume(self, view: View) -> Outcome:
        """Never waits, so never called."""
        raise error(Reason.PLUGIN_FAILED, "tls: resume without a wait")

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: the server's flight in, Finished out. Responder: Finished in. Before that, after a
        HelloRetryRequest, once more: the second ClientHello out, or in, and the flight out."""
        self._life.enter(Call.ADVANCE)
        self._answered = True
        if self._tls is None:
            return self._refuse(Reason.HANDSHAKE_FAILED, "TLS: the handshake was refused before")
        self._tls.feed(payload)
        try:
            done = self._tls.handshake()
        except AccordError as failure:
            return self._refuse(failure.reason, failure.detail)
        if not done and view.role is Role.INITIATOR and is_retry(payload) and not self._retried:
            self._retried = True
            return Answer(self._tls.output(), more=True)
        if not done and view.role is Role.RESPONDER and self._retried and self._tls.exporter() is not None:
            self._retried = False
            return Answer(self._tls.output())
        if not done:
            detail = f"TLS: the handshake is not complete after {len(payload)} bytes"
            return self._refuse(Reason.HANDSHAKE_FAILED, detail)
        # What the responder's OpenSSL has to say now (tickets) stays with it until there is a carrier.
        return Answer(self._tls.output() if view.role is Role.INITIATOR else b"")

    def exporter(self) -> bytes | None:
        """RFC 8446 section 7.5, label ``EXPORTER-accord-transcript``, no context."""
        return self._tls.exporter() if self._tls is not None else None

    def prune(self, reason: Reason) -> None:
        """Forget the keys."""
        if self._life.leave():
            self._tls = self._client = None

    def commit(self, view: View) -> None:
        """From now on ``carrier`` may be called."""
        self._life.enter(Call.COMMIT)

    def abort(self, reason: Reason) -> None:
        """Forget the keys."""
        self.prune(reason)

    def carrier(self, below: Carrier | None) -> Carrier:
        """The decrypted stream. Raises ``OurError`` (``PLUGIN_FAILED``) before commit or with nothing below."""
        self._life.enter(Call.CARRIER)
        if below is None or self._tls is None:
            raise error(Reason.PLUGIN_FAILED, "tls: no stream below to run over")
        if self._kernel is not None:
            kernels = self._hand_over(self._kernel, self._tls, below)
            if kernels is not None:
                return kernels
        return TlsCarrier(self._tls, below)

    def _hand_over(self, kernel: KernelTls, tls: TlsEnd, below: Carrier) -> Carrier | None:
        """The stream with its records made by the kernel; None where it cannot be, and ``inside`` says why.

        Nothing is half read: what the negotiation brought has ended with Finished, and what comes over the stream is
        still in the socket. Session tickets, which OpenSSL may have written by now, are under sequence numbers that
        the kernel begins with: they are dropped, and nobody waits for them (RFC 8446, section 4.6.1).
        """
        keys = tls.record_keys() if isinstance(tls, TlsConnection) else None
        why = "no keys of whole records" if keys is None else kernel.refusal(keys[0].cipher)
        if below.kernel_socket is None:
            why = "the stream below is no kernel socket"
        if keys is None or why is not None:
            self._kernel_says = f"no: {why}"
            return None
        assert isinstance(tls, TlsConnection), "the others give no keys away"
        carrier = kernel.install(below, *keys)
        tls.forget_secrets()
        self._kernel_says = "yes"
        return carrier

    def _refuse(self, reason: Reason, detail: str) -> Refuse:
        self._tls = self._client = None
        return Refuse(reason, detail)


def tell_below(view: View, hello: bytes) -> None:
    """Responder: the ClientHello, to a session below that may find its connection by it. Raises ``AccordError``."""
    greeted_by = getattr(view.below[0], "greeted_by", None)
    if greeted_by is not None:
        greeted_by(hello)


class TlsPlugin:
    """TLS 1.3, found as ``tls``."""

    name: str = "tls"
    protocol: int = Protocol.TLS13
    elaboration: Elaboration = Elaboration.FREE
    repeatable = True
    simultaneous = Simultaneous.ROLES
    """Who leads is the client, and verifies the other's certificate."""

    def open(self, role: Role, services: Services) -> TlsSession:
        """A session for one node of one negotiation."""
        return TlsSession(role, services)


def begin(security: Security, alpn: tuple[str, ...], *, keep_secrets: bool = False) -> TlsConnection:
    """A client's connection with its ClientHello made and waiting in ``output``. Raises ``UserError`` (BAD_CONFIG)."""
    connection = TlsConnection(Role.INITIATOR, security, offered_by_accord(alpn), keep_secrets=keep_secrets)
    connection.handshake()
    return connection


async def client(
    carrier: Carrier, security: Security, alpn: tuple[str, ...], begun: TlsConnection | None = None
) -> TlsCarrier:
    """TLS over a stream that is connected to the peer, as without Accord; the server's certificate is verified.

    ``begun``: what ``begin`` made of the same ``security`` and ``alpn`` while the stream was still being connected.
    Takes ``carrier`` over when it succeeds. Raises ``UserError`` (``BAD_CONFIG``), ``PeerError`` with the reasons of
    ``TlsConnection.handshake``, and whatever ``carrier`` raises; the caller then closes ``carrier``.
    """
    return await _handshake(begun or begin(security, alpn), carrier)


def client_now(carrier: Carrier, begun: TlsConnection) -> TlsCarrier | None:
    """``client`` as far as it gets with what the kernel has of the peer by now: for whoever has no time for a task.

    None: there is more to come, or something was wrong, which ``client`` with the same ``begun`` meets again.
    """
    connection = carrier.kernel_socket
    with contextlib.suppress(AccordError, OSError):
        begun.feed(b"" if connection is None else connection.recv(_READ_BYTES))
        if begun.handshake():
            made = TlsCarrier(begun, carrier)
            made.push()
            return made
    return None


async def server(
    carrier: Carrier, security: Security, alpn: tuple[str, ...], *, speaks_accord: bool = False
) -> TlsCarrier:
    """TLS over a stream that a peer has opened, as without Accord. As ``client`` otherwise.

    ``speaks_accord``: negotiations are answered on that port, and a peer that asks by its ALPN names is told so."""
    return await _handshake(
        TlsConnection(Role.RESPONDER, security, taken_by_accord(alpn) if speaks_accord else alpn), carrier
    )


async def _handshake(connection: TlsConnection, carrier: Carrier) -> TlsCarrier:
    try:
        while not connection.handshake():
            flight = connection.output()
            if flight:
                await carrier.write(flight)
            received = await carrier.read(_READ_BYTES)
            if not received:
                raise error(Reason.HANDSHAKE_FAILED, "TLS: the peer closed the connection during the handshake")
            connection.feed(received)
    except AccordError:
        # The alert, so that the peer can name the cause too, if it is still there.
        alert = connection.output()
        if alert:
            with contextlib.suppress(AccordError, OSError):
                await carrier.write(alert)
        raise
    flight = connection.output()
    if flight:
        await carrier.write(flight)
    return TlsCarrier(connection, carrier)
