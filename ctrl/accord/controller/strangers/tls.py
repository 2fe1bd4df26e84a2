# SPDX-License-Identifier: Apache-2.0
"""TLS answered without memory: ``TlsService`` on what the C core makes of OpenSSL.

Load does not choose the cryptography. What is agreed upon here is what would be agreed upon with memory, or the node is
deferred: a group that cannot be had here and there can, resumption, a second ClientHello.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from accord.controller.strangers.seed import derive
from accord.datapath.tls_repeatable import HYBRID_ASKED_BYTES, Exchanged, RepeatableTls, ServerIdentity
from accord.protocols import certificates, tls_context
from accord.protocols.services import Security
from accord.protocols.tls_hello import CLASSICAL, SECP256R1, X25519, X25519MLKEM768, Hello, read_hello
from accord.wire.constants import Reason
from accord.wire.errors import AccordError, error

HYBRID: Final = "X25519MLKEM768"
_MLKEM_KEY: Final = 1184
_MLKEM_CIPHERTEXT: Final = 1088
_GROUPS: Final = {X25519: "X25519", SECP256R1: "P-256"}
_CACHE_LIMIT: Final = 64
"""As ``tls_context``: more certificates than that is somebody's mistake."""

_Key = tuple[certificates.FileStamp | None, certificates.FileStamp | None, Path | None]
_identities: dict[_Key, ServerIdentity] = {}


class RepeatableAnswers:
    """Of one negotiation. ``defer``: makes the error that says why the node needs memory, and remembers it."""

    def __init__(
        self, seed: bytes, defer: Callable[[str], AccordError], exchange: HybridExchange | None = None
    ) -> None:
        self._seed, self._defer = seed, defer
        self._exchange = exchange or HybridExchange(seed)

    def answer(self, security: Security, alpn: tuple[str, ...], hello: bytes) -> tuple[RepeatableTls, bytes]:
        """The connection and its flight. Raises ``AccordError``."""
        read = read_hello(hello)
        if read is None:
            raise self._defer("TLS: no ClientHello that can be read beforehand")
        group = group_of(read)
        if group is None:
            raise self._defer(f"TLS: groups {read.groups}, shares {read.shares}")
        if read.resumes:
            raise self._defer("TLS: resumption")
        exchanged = None
        if group == HYBRID:
            exchanged = self._exchange.with_share(read.keys[read.shares.index(X25519MLKEM768)])
            if exchanged is None:
                raise self._defer("TLS: a second key exchange")
        made = RepeatableTls(identity_of(security), alpn, group)
        # One seed never serves two ClientHellos: theirs are two.
        own = derive(self._seed, b"tls", hello, *(name.encode("latin-1") for name in alpn))
        return made, made.answer(own, hello, exchanged)


class HybridExchange:
    """The server's side of one key exchange X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem, section 3).

    X25519 draws from the seed. Who encapsulates for ML-KEM takes no seed, so ``kept`` is what came of that: empty, or
    the ciphertext and the secret.
    """

    def __init__(self, seed: bytes, kept: bytes = b"") -> None:
        self._seed, self.kept = seed, kept
        self._share = b""

    def with_share(self, share: bytes) -> Exchanged | None:
        """With the client's: ML-KEM's key, X25519's. None: there was another one before, and it is kept of one only.

        Raises ``PeerError`` (HANDSHAKE_FAILED) for one that is none.
        """
        if self._share not in (b"", share):
            return None
        try:
            if len(share) != HYBRID_ASKED_BYTES:
                raise ValueError(f"{len(share)} bytes")
            if not self.kept:
                secret, ciphertext = MLKEM768PublicKey.from_public_bytes(share[:_MLKEM_KEY]).encapsulate()
                self.kept = ciphertext + secret
            own = X25519PrivateKey.from_private_bytes(derive(self._seed, b"x25519", share))
            common = own.exchange(X25519PublicKey.from_public_bytes(share[_MLKEM_KEY:]))
        except ValueError as wrong:
            raise error(Reason.HANDSHAKE_FAILED, f"TLS: a share of {HYBRID}: {wrong}") from wrong
        self._share = share
        ciphertext, secret = self.kept[:_MLKEM_CIPHERTEXT], self.kept[_MLKEM_CIPHERTEXT:]
        return Exchanged(ciphertext + own.public_key().public_bytes_raw(), secret + common)


def group_of(hello: Hello) -> str | None:
    """The group that a responder with memory would take, where that is certain and can be had here; else None."""
    shares = [share for share in hello.shares if not _is_reserved(share)]
    groups = [group for group in hello.groups if not _is_reserved(group)]
    if not shares or not groups or shares[0] != groups[0]:
        return None
    if groups[0] == X25519MLKEM768:
        return HYBRID
    return _GROUPS.get(shares[0]) if CLASSICAL.issuperset(groups) else None


def _is_reserved(group: int) -> bool:
    """RFC 8701."""
    return group & 0x0F0F == 0x0A0A


def identity_of(security: Security) -> ServerIdentity:
    """Made anew when a file has changed. Raises ``UserError`` (BAD_CONFIG)."""
    key = certificates.stamp(security.certificate), certificates.stamp(security.private_key), security.key_log
    found = _identities.get(key)
    if found is None:
        loaded = certificates.load_identity(security)
        secrets = None if security.key_log is None else partial(tls_context.append_secret, security.key_log)
        found = ServerIdentity(
            [certificate.public_bytes(Encoding.DER) for certificate in loaded.chain],
            loaded.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
            secrets,
        )
        while len(_identities) >= _CACHE_LIMIT:
            del _identities[next(iter(_identities))]
        _identities[key] = found
    return found
