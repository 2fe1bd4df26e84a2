# SPDX-License-Identifier: Apache-2.0
"""QUIC (RFC 9000, 9001) as a node of a negotiation: its first datagrams in the messages, then in-band.

    proposal    the initiator's first datagrams     Initial with the ClientHello, 1200 bytes
    answer      the responder's flight              Initial, Handshake
    commit      the initiator's next datagrams      Initial ACK, Handshake with Finished, 1-RTT

A payload is a list of datagrams, each as ``u16`` length and so many bytes; at least one, none empty. After commit
further datagrams travel on the negotiation's own UDP 5-tuple: their first byte has bit 0x40 set (RFC 9000 section
17.2, 17.3), so it is never one of 4..15, and no QUIC datagram is taken for a negotiation packet.

What is above sees bidirectional stream 0, the initiator's first. Over it the name "http/1.1" means HTTP/1.1's bytes,
both ways, one connection to one stream: a mapping of Accord's own, not HTTP/3. Without an application node the
configured names hold, else "accord".

A responder that is not yet sure of the peer's address sends at most three times what it got (RFC 9000 section 8.1), so
the flight fits when the certificate chain does not exceed about 3 kB; else the initiator refuses it as incomplete.
"""

from __future__ import annotations

from collections.abc import Mapping

from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent

from accord.negotiation.interface import Answer, Elaboration, Outcome, Refuse, Role, View
from accord.protocols.alpn import ACCORD, wanted
from accord.protocols.lifecycle import Call, Lifecycle
from accord.protocols.quic_connection import (
    SecretSink,
    check_peer,
    completed,
    configuration,
    feed,
    first_destination,
    forget,
    give_up,
)
from accord.protocols.quic_stream import QuicCarrier, open_stream
from accord.protocols.services import Carrier, Services
from accord.protocols.simultaneous import Simultaneous
from accord.wire.constants import Protocol, Reason
from accord.wire.errors import AccordError, error


def encode_datagrams(datagrams: list[bytes]) -> bytes:
    """A payload: each datagram with its length before it, ``u16``."""
    return b"".join(len(datagram).to_bytes(2, "big") + datagram for datagram in datagrams)


def decode_datagrams(payload: bytes) -> list[bytes]:
    """The datagrams of a payload. Raises ``PeerError`` (``HANDSHAKE_FAILED``): cut short, empty, or an empty one."""
    datagrams = []
    at = 0
    while at < len(payload):
        size = int.from_bytes(payload[at : at + 2], "big")
        datagram = payload[at + 2 : at + 2 + size]
        if size == 0 or len(datagram) < size:
            raise error(Reason.HANDSHAKE_FAILED, f"QUIC: a datagram of {size} bytes at {at} of {len(payload)}")
        datagrams.append(datagram)
        at += 2 + size
    if not datagrams:
        raise error(Reason.HANDSHAKE_FAILED, "QUIC: no datagram in the node")
    return datagrams


class QuicSession:
    """One QUIC node."""

    protocol: int = Protocol.QUIC
    elaboration: Elaboration = Elaboration.FREE
    secure: bool = True
    costly: bool = True

    def __init__(self, role: Role, services: Services) -> None:
        self._services = services
        self._life = Lifecycle("quic", role)
        self._quic: QuicConnection | None = None
        self._sink = SecretSink(services.security.key_log)
        self._events: list[QuicEvent] = []
        self._carrier: QuicCarrier | None = None
        self.hello = b""
        """The initiator's first datagrams, as they are in the node, once they are known."""
        self.alpn_selected: str | None = None
        """The application protocol that the handshake agreed upon, once it has."""

    @property
    def inside(self) -> Mapping[str, object]:
        """What was agreed; empty before anything was."""
        return {} if self.alpn_selected is None else {"alpn": self.alpn_selected}

    def propose(self, view: View) -> Outcome:
        """The first datagrams. Refuses without datagrams in-band (``NO_KERNEL_SUPPORT``) or usable files."""
        self._life.enter(Call.PROPOSE)
        try:
            self._quic = self._open(view)
        except AccordError as failure:
            return self._refuse(failure)
        self._quic.connect(self._services.remote, self._services.now())
        self.hello = encode_datagrams(self._output())
        return Answer(self.hello)

    def respond(self, view: View, payload: bytes) -> Outcome:
        """The initiator's first datagrams in, the flight out."""
        self._life.enter(Call.RESPOND)
        self.hello = payload
        if view.below:
            return self._refuse(error(Reason.HANDSHAKE_FAILED, "QUIC: runs on the context, not on another protocol"))
        try:
            datagrams = decode_datagrams(payload)
            self._quic = self._open(view, first_destination(datagrams[0]))
            feed(self._quic, datagrams, self._services.remote, self._services.now())
            if self._sink.secret is None:
                return self._refuse(give_up(self._quic, self._services.now()))
        except AccordError as failure:
            return self._refuse(failure)
        return Answer(encode_datagrams(self._output()))

    def resume(self, view: View) -> Outcome:
        """Never waits, so never called."""
        raise error(Reason.PLUGIN_FAILED, "quic: resume without a wait")

    def advance(self, view: View, payload: bytes) -> Outcome:
        """Initiator: the flight in, Finished and a 1-RTT packet out. Responder: those in."""
        self._life.enter(Call.ADVANCE)
        if self._quic is None:
            return Refuse(Reason.HANDSHAKE_FAILED, "QUIC: the handshake was refused before")
        try:
            events = feed(self._quic, decode_datagrams(payload), self._services.remote, self._services.now())
        except AccordError as failure:
            return self._refuse(failure)
        done = completed(events)
        if done is None:
            return self._refuse(give_up(self._quic, self._services.now()))
        if view.role is Role.INITIATOR:
            try:
                check_peer(self._quic, self._services.security)
            except AccordError as failure:
                return self._refuse(failure)
        self.alpn_selected = done.alpn_protocol
        self._events += events
        if view.role is Role.RESPONDER:
            # HANDSHAKE_DONE and acknowledgements go in-band, after commit.
            return Answer()
        open_stream(self._quic)
        return Answer(encode_datagrams(self._output()))

    def exporter(self) -> bytes | None:
        """See ``SecretSink.exporter``."""
        return self._sink.exporter()

    def prune(self, reason: Reason) -> None:
        """Forget the connection; the peer is not told, it prunes as well."""
        if self._life.leave():
            self._forget()

    def commit(self, view: View) -> None:
        """The connection takes the context's datagrams over and its timers start."""
        self._life.enter(Call.COMMIT)
        datagrams = self._services.datagrams
        if self._quic is None or datagrams is None:
            raise error(Reason.PLUGIN_FAILED, "quic: commit without a connection")
        self._carrier = QuicCarrier(self._quic, self._services, datagrams, self._services.remote)
        self._carrier.start(self._events)

    def abort(self, reason: Reason) -> None:
        """Forget the connection."""
        self.prune(reason)

    def carrier(self, below: Carrier | None) -> Carrier:
        """Stream 0. ``below`` is the context's, which has no stream."""
        self._life.enter(Call.CARRIER)
        assert self._carrier is not None
        return self._carrier

    def _open(self, view: View, destination: bytes | None = None) -> QuicConnection:
        if self._services.datagrams is None:
            raise error(Reason.NO_KERNEL_SUPPORT, "QUIC: this context carries no datagrams in-band")
        self._sink = SecretSink(self._services.security.key_log)
        alpn = wanted(view.above, self._services.security.alpn) or (ACCORD,)
        made = configuration(view.role, self._services.security, alpn, self._sink, self._services.wishes.quic_idle_s)
        return QuicConnection(configuration=made, original_destination_connection_id=destination)

    def _output(self) -> list[bytes]:
        assert self._quic is not None
        return [data for data, _ in self._quic.datagrams_to_send(self._services.now())]

    def _forget(self) -> None:
        connection, self._quic = self._quic, None
        self._sink.secret = None
        if connection is not None:
            forget(connection)

    def _refuse(self, failure: AccordError) -> Refuse:
        self._forget()
        return Refuse(failure.reason, failure.detail)


class QuicPlugin:
    """QUIC version 1, found as ``quic``."""

    name: str = "quic"
    protocol: int = Protocol.QUIC
    elaboration: Elaboration = Elaboration.FREE
    simultaneous = Simultaneous.ROLES
    """Who leads is the client, and verifies the other's certificate."""

    def open(self, role: Role, services: Services) -> QuicSession:
        """A session for one node of one negotiation."""
        return QuicSession(role, services)
