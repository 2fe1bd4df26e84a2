# SPDX-License-Identifier: Apache-2.0
"""One QUIC connection of aioquic's, sans-IO: configuration, the secret that keys the transcript, what failed.

aioquic >= 1.2, < 2 (tried with 1.7). Three things are not in its public interface and stand here and in
``quic_stream`` alone: the certificates that a peer has shown are its TLS's ``_peer_certificate`` and
``_peer_certificate_chain``; the send buffer of a stream can only be seen through ``_streams``; and packets that were
not acknowledged are in ``_spaces``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import io
import ssl
from pathlib import Path
from typing import Final

from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent
from aioquic.quic.packet import QuicErrorCode, QuicPacketType, QuicProtocolVersion, pull_quic_header
from aioquic.tls import AlertDescription, CipherSuite
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import crypto

from accord.negotiation.interface import Role
from accord.protocols import certificates
from accord.protocols.services import Security
from accord.protocols.tls_context import append_secret
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

DATAGRAM_BYTES: Final = 1200
"""QUIC's smallest maximum (RFC 9000 section 14), and what an Accord path is known to carry."""
CONNECTION_ID_BYTES: Final = 8
EXPORTER_LABEL: Final = b"accord quic transcript"
EXPORTER_BYTES: Final = 32

_SECRET: Final = "SERVER_TRAFFIC_SECRET_0"
_CACHE_LIMIT: Final = 64
_ALERT: Final = int(QuicErrorCode.CRYPTO_ERROR)

Address = tuple[str, int]
_Key = tuple[Role, bool, tuple[certificates.FileStamp | None, ...]]
_cache: dict[_Key, QuicConfiguration] = {}


class SecretSink(io.StringIO):
    """Takes the lines that aioquic writes for a key log; keeps the one secret that ``exporter`` needs.

    aioquic has no exporter interface (RFC 8446 section 7.5), but it tells its traffic secrets to the key log.
    """

    def __init__(self, key_log: Path | None) -> None:
        super().__init__()
        self._key_log = key_log
        self.secret: bytes | None = None

    def write(self, text: str) -> int:
        """One line: label, client random, secret."""
        for line in text.splitlines():
            label, _, secret = line.split(" ")
            if label == _SECRET:
                self.secret = bytes.fromhex(secret)
            if self._key_log is not None:
                append_secret(self._key_log, line)
        return len(text)

    def exporter(self) -> bytes | None:
        """32 bytes by HKDF-Expand (RFC 5869) from the server's first application traffic secret. None: not there yet.

        As sound as TLS's exporter: that secret and exporter_master_secret are siblings, both derived from the master
        secret over the transcript up to the server's Finished (RFC 8446 section 7.1), and only the two ends have it.
        It is used otherwise as key of HKDF-Expand-Label alone, whose info begins with a ``u16`` length below 256, a
        zero byte; this label does not, so no output here is or tells anything of a key there.
        """
        if self.secret is None:
            return None
        algorithm = hashes.SHA384() if len(self.secret) == 48 else hashes.SHA256()
        return HKDFExpand(algorithm, EXPORTER_BYTES, EXPORTER_LABEL).derive(self.secret)


def configuration(
    role: Role, security: Security, alpn: tuple[str, ...], sink: SecretSink, idle_s: int
) -> QuicConfiguration:
    """What one connection is made with. Raises ``UserError`` (``BAD_CONFIG``) naming the file that cannot be used."""
    files = (security.ca_file,) if role is Role.INITIATOR else (security.certificate, security.private_key)
    key = (role, security.verify, tuple(certificates.stamp(path) for path in files))
    base = _cache.get(key)
    if base is None:
        base = _base(role, security)
        while len(_cache) >= _CACHE_LIMIT:
            del _cache[next(iter(_cache))]
        _cache[key] = base
    name = security.server_name
    if role is Role.INITIATOR and security.verify and not name:
        raise error(
            Reason.BAD_CONFIG, "a certificate can only be verified for a name", "give server_name, or verify=False"
        )
    return dataclasses.replace(
        base,
        alpn_protocols=list(alpn),
        server_name=name.rstrip(".") if name is not None and security.sni and role is Role.INITIATOR else None,
        secrets_log_file=sink,
        idle_timeout=float(idle_s),
    )


def check_peer(connection: QuicConnection, security: Security) -> None:
    """Initiator, once the handshake is complete, before anything of it is believed or Finished leaves: whether the
    certificate is valid now, for the name, and by the roots.

    Raises ``PeerError``: CERTIFICATE_EXPIRED, CERTIFICATE_NAME, BAD_CERTIFICATE.
    """
    if not security.verify:
        return
    found: x509.Certificate | None = connection.tls._peer_certificate
    if found is None:
        raise error(Reason.BAD_CERTIFICATE, "QUIC: none was shown")
    now = datetime.datetime.now(datetime.UTC)
    if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
        when = "no longer valid" if now > found.not_valid_after_utc else "not valid yet"
        raise error(Reason.CERTIFICATE_EXPIRED, f"QUIC: the certificate is {when}")
    wrong = certificates.check_name(found, security.server_name or "")
    if wrong is not None:
        raise wrong
    leaf, *above = (crypto.X509.from_cryptography(each) for each in (found, *connection.tls._peer_certificate_chain))
    try:
        crypto.X509StoreContext(_store(security), leaf, above).verify_certificate()
    except crypto.X509StoreContextError as refusal:
        code, depth, *_ = refusal.errors
        raise certificates.chain_error(code, depth, refusal.certificate.to_cryptography()) from refusal


def _store(security: Security) -> crypto.X509Store:
    return _read_store(*certificates.roots(security), certificates.stamp(security.ca_file))


@functools.lru_cache(maxsize=_CACHE_LIMIT)
def _read_store(file: str | None, directory: str | None, _stamp: certificates.FileStamp | None) -> crypto.X509Store:
    """Reading the roots of a whole system takes longer than a handshake: once for each content of the file."""
    store = crypto.X509Store()
    try:
        store.load_locations(file, directory)
    except (crypto.Error, TypeError) as refusal:
        raise error(
            Reason.BAD_CONFIG,
            f"{file or directory or 'system roots'}: no root certificates could be read",
            "install ca-certificates, or name a PEM file of roots",
        ) from refusal
    return store


def _base(role: Role, security: Security) -> QuicConfiguration:
    made = QuicConfiguration(
        is_client=role is Role.INITIATOR,
        connection_id_length=CONNECTION_ID_BYTES,
        max_datagram_size=DATAGRAM_BYTES,
        # One: the keys of Initial packets are derived for each, whether the peer means it or not (RFC 9368).
        supported_versions=[QuicProtocolVersion.VERSION_1],
        # As browsers order them: processors have instructions for SHA-256, and none for SHA-384.
        cipher_suites=[
            CipherSuite.AES_128_GCM_SHA256,
            CipherSuite.AES_256_GCM_SHA384,
            CipherSuite.CHACHA20_POLY1305_SHA256,
        ],
    )
    if role is Role.RESPONDER:
        identity = certificates.load_identity(security)
        made.certificate, made.certificate_chain = identity.chain[0], list(identity.chain[1:])
        made.private_key = identity.key
    else:
        made.verify_mode = ssl.CERT_NONE  # it would read the roots anew for each connection: see check_peer
        if security.verify:
            _store(security)
    return made


def first_destination(datagram: bytes) -> bytes:
    """The connection ID that a client's first datagram is addressed to, which a server needs for its keys.

    Raises ``PeerError`` (``HANDSHAKE_FAILED``) when the datagram is no Initial of a client (RFC 9000 section 14.1).
    """
    try:
        header = pull_quic_header(Buffer(data=datagram), host_cid_length=CONNECTION_ID_BYTES)
    except ValueError as refusal:
        raise error(Reason.HANDSHAKE_FAILED, f"QUIC: the first datagram does not parse: {refusal}") from refusal
    if header.packet_type is not QuicPacketType.INITIAL or len(datagram) < DATAGRAM_BYTES:
        raise error(Reason.HANDSHAKE_FAILED, f"QUIC: the first datagram, {len(datagram)} bytes, is no client's Initial")
    return header.destination_cid


def feed(connection: QuicConnection, datagrams: list[bytes], peer: Address, now: float) -> list[QuicEvent]:
    """Datagrams in, events out. Raises ``PeerError`` (``HANDSHAKE_FAILED``) for what aioquic stumbles over."""
    for datagram in datagrams:
        try:
            connection.receive_datagram(datagram, peer, now)
        except Exception as failure:  # a datagram of a stranger: aioquic should drop it, and is not ours to trust
            raise error(Reason.HANDSHAKE_FAILED, f"QUIC: {type(failure).__name__}: {failure}") from failure
    return take_events(connection)


def take_events(connection: QuicConnection) -> list[QuicEvent]:
    """All events that have gathered."""
    events: list[QuicEvent] = []
    while (event := connection.next_event()) is not None:
        events.append(event)
    return events


def completed(events: list[QuicEvent]) -> HandshakeCompleted | None:
    """The event that says that the handshake is complete, if it is among them."""
    return next((event for event in events if isinstance(event, HandshakeCompleted)), None)


def forget(connection: QuicConnection) -> None:
    """Let go of a connection that nobody will use again.

    It has tables of its own methods, so it leads back to itself, with the 300 objects of its keys, streams and packets:
    what Python's collector would find, in the middle of some other connection's handshake.
    """
    for space in connection._spaces.values():
        space.sent_packets.clear()  # each tells its space when it was delivered
    vars(connection).clear()


def give_up(connection: QuicConnection, now: float) -> AccordError:
    """Why a handshake did not complete. The connection is closed, without a datagram; time is run to its end for it.

    aioquic tells the cause in its last event, which comes when the closing period is over.
    """
    connection.close(error_code=int(QuicErrorCode.NO_ERROR), reason_phrase="the handshake is not complete")
    terminated = None
    # Before its first datagram a server has no peer to say good-bye to.
    with contextlib.suppress(IndexError, KeyError):
        connection.datagrams_to_send(now)
        end = connection.get_timer()
        if end is not None:
            connection.handle_timer(end)
    for event in take_events(connection):
        if isinstance(event, ConnectionTerminated):
            terminated = event
    return _cause(terminated)


def _cause(terminated: ConnectionTerminated | None) -> AccordError:
    if terminated is None:
        return error(Reason.HANDSHAKE_FAILED, "QUIC: no packet in it could be read")
    code = terminated.error_code
    bad = code == _ALERT + AlertDescription.bad_certificate  # it does not parse
    reason = Reason.BAD_CERTIFICATE if bad else Reason.HANDSHAKE_FAILED
    return error(reason, f"QUIC: {terminated.reason_phrase or 'closed'} (error {code:#x})")
