# SPDX-License-Identifier: Apache-2.0
"""TLS 1.3 servers whose first flight can be made again from a seed: OpenSSL by the C core (``tls_server.h``).

Nothing else touches those functions. What the words mean to a negotiation is above: ``controller/strangers``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from accord.datapath._core import ffi, lib
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

SEED_BYTES: Final[int] = lib.ACCORD_TLS_SEED
HYBRID_ASKED_BYTES: Final[int] = lib.ACCORD_TLS_HYBRID_ASKED
"""The client's share of X25519MLKEM768."""
EXPORTER_LABEL: Final = b"EXPORTER-accord-transcript"
"""docs/PROTOCOL.md, section 8."""
_EXPORTER_BYTES: Final = 32
_READ_BYTES: Final = 65536


class ServerIdentity:
    """A certificate chain, DER, own certificate first, and its private key, DER (PKCS #8).

    ``secrets``: told each line of a key log, as it comes to be. Raises ``UserError`` (BAD_CONFIG) with OpenSSL's words.
    """

    def __init__(self, chain: Sequence[bytes], key: bytes, secrets: Callable[[str], None] | None = None) -> None:
        text = ffi.new("char[]", lib.ACCORD_TLS_TEXT)
        joined = b"".join(chain)
        made = lib.accord_tls_identity_new(joined, len(joined), key, len(key), secrets is not None, text)
        if made == ffi.NULL:
            raise error(Reason.BAD_CONFIG, f"the certificate and its key: {_string(text)}", "give the pair anew")
        self.pointer: Any = ffi.gc(made, lib.accord_tls_identity_free)
        self.secrets = secrets


class Exchanged(NamedTuple):
    """The server's side of a key exchange X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem, section 3)."""

    share: bytes
    """1120 bytes, the ciphertext of ML-KEM first."""
    secret: bytes
    """64 bytes, the secret of ML-KEM first."""


class RepeatableTls:
    """One connection. The same seed and ClientHello give the same flight, byte for byte; a seed serves one of each.

    ``alpn``: names to accept, best first; ``group``: the one of the key exchange, by OpenSSL's name (X25519, P-256,
    X25519MLKEM768).
    After ``answer`` it is as any other TLS connection. Raises ``AccordError``.
    """

    def __init__(self, identity: ServerIdentity, alpn: Sequence[str], group: str) -> None:
        self._identity = identity  # what it was made of is read as long as it lives
        text = ffi.new("char[]", lib.ACCORD_TLS_TEXT)
        names = b"".join(bytes([len(name)]) + name.encode("latin-1") for name in alpn)
        made = lib.accord_tls_new(identity.pointer, names, len(names), group.encode("ascii"), text)
        if made == ffi.NULL:
            raise error(Reason.HANDSHAKE_FAILED, f"TLS: {_string(text)}")
        self._tls: Any = ffi.gc(made, lib.accord_tls_free)
        self._buffer: Any = ffi.new("uint8_t[]", _READ_BYTES)

    def answer(self, seed: bytes, hello: bytes, exchanged: Exchanged | None = None) -> bytes:
        """ClientHello in, the server's whole flight out, every random number of it from the seed.

        ``exchanged``: where the group is X25519MLKEM768. Raises ``PeerError`` (HANDSHAKE_FAILED) when none comes of it.
        """
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes")
        exchange = ffi.NULL
        if exchanged is not None:
            exchange = ffi.new("struct accord_tls_exchange *")
            exchange.share, exchange.secret = exchanged
        result = lib.accord_tls_answer(self._tls, seed, exchange, hello, len(hello))
        self._tell_secrets()
        if result == lib.ACCORD_TLS_MORE:
            raise error(Reason.HANDSHAKE_FAILED, f"TLS: no whole flight in answer to {len(hello)} bytes")
        if result:
            raise self._failure(Reason.HANDSHAKE_FAILED)
        return self.output()

    def feed(self, ciphertext: bytes) -> None:
        """Bytes that came from the peer; any split of the stream will do."""
        if lib.accord_tls_feed(self._tls, ciphertext, len(ciphertext)):
            raise self._failure(Reason.NO_MEMORY)

    def output(self) -> bytes:
        """Bytes that are to go to the peer, all there are."""
        pieces = []
        while count := lib.accord_tls_take(self._tls, self._buffer, _READ_BYTES):
            pieces.append(bytes(ffi.buffer(self._buffer, count)))
        return b"".join(pieces)

    def handshake(self) -> bool:
        """Go on with the handshake. False: it needs more from the peer. Raises ``PeerError`` (HANDSHAKE_FAILED)."""
        result = lib.accord_tls_handshake(self._tls)
        self._tell_secrets()
        if result == lib.ACCORD_TLS_MORE:
            return False
        if result:
            raise self._failure(Reason.HANDSHAKE_FAILED)
        return True

    def exporter(self) -> bytes | None:
        """32 bytes of keying material (RFC 8446 section 7.5), no context. None: the keys are not there yet."""
        key = ffi.new("uint8_t[]", _EXPORTER_BYTES)
        if lib.accord_tls_export(self._tls, EXPORTER_LABEL, key, _EXPORTER_BYTES):
            return None
        return bytes(ffi.buffer(key))

    @property
    def alpn(self) -> str | None:
        """The application protocol that was agreed upon."""
        agreed = self._agreed()
        return bytes(ffi.buffer(agreed.alpn, agreed.alpn_length)).decode("latin-1") or None

    @property
    def group(self) -> str:
        """The key exchange that was agreed upon, by OpenSSL's short name; empty until then."""
        return _string(self._agreed().group)

    @property
    def inside(self) -> Mapping[str, object]:
        """Version, cipher suite and application protocol, once they are agreed upon."""
        agreed = self._agreed()
        cipher = _string(agreed.cipher)
        return {"version": _string(agreed.version), "cipher": cipher, "alpn": self.alpn or ""} if cipher else {}

    def read(self, limit: int) -> bytes | None:
        """Plaintext, at most ``limit`` bytes; empty: the peer sent close_notify; None: feed more.

        Raises ``PeerError`` (STREAM_BROKEN) for a record that does not decrypt, or an alert.
        """
        count = lib.accord_tls_read(self._tls, self._buffer, min(limit, _READ_BYTES))
        self._tell_secrets()
        if count == lib.ACCORD_TLS_MORE:
            return None
        if count < 0:
            raise self._failure(Reason.STREAM_BROKEN)
        return bytes(ffi.buffer(self._buffer, count))

    def write(self, plaintext: bytes) -> None:
        """Encrypt all of ``plaintext``; ``output`` has it. Raises ``AccordError`` (STREAM_BROKEN)."""
        if lib.accord_tls_write(self._tls, plaintext, len(plaintext)):
            raise self._failure(Reason.STREAM_BROKEN)

    def close_notify(self) -> None:
        """Nothing more will be written (RFC 8446 section 6.1); reading goes on. May be repeated."""
        if lib.accord_tls_finish(self._tls):
            raise self._failure(Reason.STREAM_BROKEN)

    def _agreed(self) -> Any:
        agreed = ffi.new("struct accord_tls_agreed *")
        lib.accord_tls_agreed(self._tls, agreed)
        return agreed

    def _failure(self, reason: Reason) -> AccordError:
        return error(reason, f"TLS: {_string(lib.accord_tls_text(self._tls))}")

    def _tell_secrets(self) -> None:
        if self._identity.secrets is None:
            return
        count = lib.accord_tls_secrets(self._tls, self._buffer, _READ_BYTES)
        for line in bytes(ffi.buffer(self._buffer, count)).decode("ascii").splitlines():
            self._identity.secrets(line)


def _string(text: Any) -> str:
    return bytes(ffi.string(text)).decode("utf-8", "replace")
