# SPDX-License-Identifier: Apache-2.0
"""One TLS 1.3 connection on memory BIOs: ciphertext in and out, plaintext in and out, no socket."""

from __future__ import annotations

import encodings.idna  # noqa: F401  loaded now: the codec would be found at the first server name, which takes 13 ms
from collections.abc import Mapping
from typing import Final

from OpenSSL import SSL

from accord.negotiation.interface import Role
from accord.protocols import certificates, tls_context
from accord.protocols.alpn import without_accord
from accord.protocols.services import RecordKeys, Security
from accord.protocols.tls_keys import KEY_BYTES, record_keys
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

EXPORTER_LABEL: Final = b"EXPORTER-accord-transcript"
EXPORTER_BYTES: Final = 32

_BIO_BYTES: Final = 65536
_OTHER_VERSION: Final = ("unsupported protocol", "protocol version")
"""OpenSSL's words for a peer's hello, and for a peer's alert."""
_RECORD_HANDSHAKE: Final = 22
_SERVER_HELLO: Final = 2
# SHA-256 of "HelloRetryRequest": the random of a ServerHello that is none (RFC 8446 section 4.1.3).
_RETRY_RANDOM: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


class TlsConnection:
    """TLS 1.3 between memory buffers.

    ``alpn``: names to offer, or to accept, best first. An initiator that verifies needs ``security.server_name``.
    Raises ``UserError`` (``BAD_CONFIG``) when a file or the name cannot be used.
    """

    def __init__(self, role: Role, security: Security, alpn: tuple[str, ...], *, keep_secrets: bool = False) -> None:
        name = security.server_name
        if role is Role.INITIATOR and security.verify and not name:
            raise error(
                Reason.BAD_CONFIG, "a certificate can only be verified for a name", "give server_name, or verify=False"
            )
        self._check = tls_context.PeerCheck(name if role is Role.INITIATOR else None, alpn)
        kept = {"keep_secrets": True} if keep_secrets else {}
        self._role = role
        self._ssl = SSL.Connection(tls_context.context(role, security, **kept), None)
        self._ssl.set_app_data(self._check)
        self._used = False
        self._failure: AccordError | None = None
        if role is Role.RESPONDER:
            self._ssl.set_accept_state()
            return
        self._ssl.set_connect_state()
        if name and security.sni and not certificates.address_of(name):
            self._ssl.set_tlsext_host_name(_sni(name))
        if alpn:
            self._ssl.set_alpn_protos([each.encode("latin-1") for each in alpn])

    def feed(self, ciphertext: bytes) -> None:
        """Bytes that came from the peer; any split of the stream will do."""
        while ciphertext:
            ciphertext = ciphertext[self._ssl.bio_write(ciphertext) :]

    def output(self) -> bytes:
        """Bytes that are to go to the peer, all there are."""
        pieces = []
        while True:
            try:
                pieces.append(self._ssl.bio_read(_BIO_BYTES))
            except SSL.WantReadError:
                return b"".join(pieces)

    def handshake(self) -> bool:
        """Go on with the handshake. False: it needs more from the peer.

        Raises ``PeerError``: ``CERTIFICATE_EXPIRED``, ``CERTIFICATE_NAME``, ``BAD_CERTIFICATE``, and
        ``HANDSHAKE_FAILED`` with OpenSSL's words for everything else. ``output`` may then hold an alert. Once it has
        failed it fails again, with the same.
        """
        if self._failure is not None:
            raise self._failure
        try:
            self._ssl.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as failure:
            text = openssl_text(failure)
            if any(words in text for words in _OTHER_VERSION):
                text = f"the peer has no TLS 1.3, and this side nothing else ({text})"
            self._failure = self._check.failure or error(Reason.HANDSHAKE_FAILED, f"TLS: {text}")
            raise self._failure from failure
        return True

    def exporter(self) -> bytes | None:
        """32 bytes of keying material (RFC 8446 section 7.5), no context. None: the keys are not there yet."""
        try:
            return self._ssl.export_keying_material(EXPORTER_LABEL, EXPORTER_BYTES)
        except SSL.Error:
            return None

    def record_keys(self) -> tuple[RecordKeys, RecordKeys] | None:
        """What protects the first records of the application's data, sent and received, once the handshake is done.

        None: not kept, or not valid any more, because such records were made or read here.
        """
        secrets, cipher = self._check.secrets, self._ssl.get_cipher_name()
        labels = ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0")
        if self._used or cipher not in KEY_BYTES or any(label not in secrets for label in labels):
            return None
        send, receive = (record_keys(cipher, secrets[label]) for label in labels)
        return (send, receive) if self._role is Role.INITIATOR else (receive, send)

    def forget_secrets(self) -> None:
        """Whoever has them now keeps them."""
        self._check.secrets.clear()

    @property
    def cipher(self) -> str | None:
        """The suite that was agreed upon."""
        return self._ssl.get_cipher_name()

    @property
    def alpn(self) -> str | None:
        """The application protocol that was agreed upon."""
        return without_accord(self._selected)[0] or None

    @property
    def both_speak_accord(self) -> bool:
        """Both ends have said so in this handshake, which nobody on the path can have changed (section 10.3)."""
        return without_accord(self._selected)[1]

    @property
    def _selected(self) -> str:
        return self._ssl.get_alpn_proto_negotiated().decode("latin-1")

    @property
    def inside(self) -> Mapping[str, object]:
        """Version, cipher suite and application protocol, once they are agreed upon."""
        cipher = self._ssl.get_cipher_name()
        if cipher is None:
            return {}
        return {"version": self._ssl.get_protocol_version_name(), "cipher": cipher, "alpn": self.alpn or ""}

    def read(self, limit: int) -> bytes | None:
        """Plaintext, at most ``limit`` bytes; empty: the peer sent close_notify; None: feed more.

        Raises ``PeerError`` (``STREAM_BROKEN``) for a record that does not decrypt, or an alert.
        """
        self._used = True
        try:
            return self._ssl.recv(limit)
        except SSL.WantReadError:
            return None
        except SSL.ZeroReturnError:
            return b""
        except SSL.Error as failure:
            raise error(Reason.STREAM_BROKEN, f"TLS: {openssl_text(failure)}") from failure

    def write(self, plaintext: bytes) -> None:
        """Encrypt all of ``plaintext``; ``output`` has it. Raises ``AccordError`` (``STREAM_BROKEN``)."""
        view = memoryview(plaintext)
        self._used = True
        try:
            while view:
                view = view[self._ssl.send(view) :]
        except SSL.Error as failure:
            raise error(Reason.STREAM_BROKEN, f"TLS: {openssl_text(failure)}") from failure

    def close_notify(self) -> None:
        """Nothing more will be written (RFC 8446 section 6.1); reading goes on. May be repeated."""
        if self._ssl.get_shutdown() & SSL.SENT_SHUTDOWN:
            return
        try:
            self._ssl.shutdown()
        except SSL.Error as failure:
            raise error(Reason.STREAM_BROKEN, f"TLS: {openssl_text(failure)}") from failure


def is_retry(flight: bytes) -> bool:
    """Whether a server's flight is a HelloRetryRequest (record header 5, handshake header 4, version 2, random 32)."""
    return (
        len(flight) >= 43
        and flight[0] == _RECORD_HANDSHAKE
        and flight[5] == _SERVER_HELLO
        and flight[11:43] == _RETRY_RANDOM
    )


def openssl_text(failure: SSL.Error) -> str:
    """OpenSSL's own words in an exception of pyOpenSSL's."""
    queue = failure.args[0] if failure.args and isinstance(failure.args[0], list) else []
    return "; ".join(entry[-1] for entry in queue if entry[-1]) or str(failure) or type(failure).__name__


def _sni(name: str) -> bytes:
    try:
        return name.rstrip(".").encode("idna")
    except UnicodeError as refusal:
        raise error(Reason.BAD_CONFIG, f"{name!r} is no host name", "give a DNS name or an IP address") from refusal
